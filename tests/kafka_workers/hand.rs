//! A worker by hand, which knows one engine: its news gets to whoever leads the task.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ground::{Ground, SHARDS};
use crate::kafka::shared;
use crate::service::Service;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn register(engine: &Service, running: &[String]) -> Value {
    let body = json!({"protocol": 1, "slots": 64, "lease": "60s", "running": running});
    engine.ask("PUT", &format!("/v1/workers/{ID}"), &[], body.to_string().as_bytes()).expect(200).json()
}

fn post(engine: &Service, verb: &str, body: &Value) -> Value {
    engine.post(&format!("/v1/workers/{ID}/{verb}"), &body.to_string()).expect(200).json()
}

/// Leases as many attempts as there are to be.
fn take(engine: &Service, count: usize) -> Vec<String> {
    let (mut taken, mut seq) = (Vec::new(), 0);
    while taken.len() < count {
        seq += 1;
        let leased = post(engine, "lease", &json!({"seq": seq, "slots": count - taken.len(), "wait": "20s"}));
        let attempts = leased["attempts"].as_array().unwrap().iter();
        taken.extend(attempts.map(|one| one["attempt"].as_str().unwrap().to_owned()));
    }
    taken
}

fn shard(attempt: &str) -> u16 {
    attempt.split('-').next().unwrap().parse().unwrap()
}

fn succeeded(attempt: &String) -> Value {
    json!({"attempt": attempt, "result": {"of": attempt}})
}

#[test]
fn news_of_a_shard_that_moved_gets_to_its_leader() {
    let Some(kafka) = shared() else { return };
    let mut ground = Ground::new("moved", kafka, 1);
    let registered = register(&ground.engines[0], &[]);
    assert_eq!(registered["engines"], json!([format!("http://{}", ground.engines[0].address)]));
    let large = "x".repeat(300 << 10);
    ground.submit(usize::from(SHARDS), &format!(r#"{{"type":"noop","payload":"{large}"}}"#));
    let attempts = take(&ground.engines[0], SHARDS.into());
    ground.add();
    ground.until_shared();
    let [here, there] = [&ground.engines[0], &ground.engines[1]];
    let led = ground.leaders();
    let (mut moved, mut stayed) = (Vec::new(), Vec::new());
    for attempt in attempts.clone() {
        if led[1].contains(&shard(&attempt)) { moved.push(attempt) } else { stayed.push(attempt) }
    }
    assert!(!moved.is_empty() && !stayed.is_empty(), "{led:?}");
    // Neither engine takes for over what the other one leads.
    assert_eq!(register(here, &attempts)["stop"], json!([]));
    // The one to which they went knows the worker by its log; this is its worker's all the same.
    let foreign = format!("/v1/workers/{ID}/payloads/{}", moved[0]);
    assert_eq!(here.get(&foreign).expect(200).body.len(), large.len() + 2);
    // What was passed on is not passed on again.
    let passed = [("ergate-forwarded", ""), ("content-type", "application/json")];
    let body = json!({"outcomes": [succeeded(&stayed[0])]}).to_string();
    let told = there.ask("POST", &format!("/v1/workers/{ID}/report"), &passed, body.as_bytes()).expect(200).json();
    assert_eq!((&told["taken"], &told["elsewhere"]), (&json!(0), &json!([{"attempt": stayed[0]}])), "{told}");
    // A heartbeat with something to keep, and outcomes of both kinds.
    let kept =
        json!({"heartbeats": [{"attempt": moved[0], "checkpoint": {"half": true}}, {"attempt": stayed[0], "checkpoint": 1}]});
    assert_eq!(post(here, "report", &kept)["taken"], 2);
    let outcomes: Vec<Value> = attempts.iter().map(succeeded).collect();
    let told = post(here, "report", &json!({"outcomes": outcomes}));
    assert_eq!((&told["taken"], &told["refused"], &told["elsewhere"]), (&json!(SHARDS), &json!([]), &Value::Null), "{told}");
    // Once is enough.
    let told = post(here, "report", &json!({"outcomes": [succeeded(&moved[0]), succeeded(&stayed[0])]}));
    let refused = told["refused"].as_array().unwrap();
    assert!(refused.len() == 2 && refused.iter().all(|one| one["reason"] == "stale-attempt"), "{told}");
    let told = ground.until_ended(SHARDS.into());
    let ended =
        (told.count("started"), told.count("succeeded"), told.count("checkpointed"), told.count("left"), told.count("lost"));
    assert_eq!(ended, (SHARDS.into(), SHARDS.into(), 2, 0, 0), "{told:?}");
}

#[test]
fn news_that_nobody_can_record_is_to_be_reported_again() {
    let Some(kafka) = shared() else { return };
    let mut ground = Ground::new("nobody", kafka, 2);
    let led = ground.leaders();
    ground.engines.iter().for_each(|engine| drop(register(engine, &[])));
    ground.submit(usize::from(SHARDS), r#"{"type":"noop"}"#);
    let attempts: Vec<String> = (0..2).flat_map(|engine| take(&ground.engines[engine], led[engine].len())).collect();
    let there = ground.engines.pop().unwrap();
    let address = format!("http://{}", there.address);
    there.kill();
    let here = &ground.engines[0];
    let report = json!({"outcomes": attempts.iter().map(succeeded).collect::<Vec<_>>()});
    let told = post(here, "report", &report);
    assert_eq!((&told["taken"], &told["refused"]), (&json!(led[0].len()), &json!([])), "{told}");
    let elsewhere = told["elsewhere"].as_array().unwrap();
    assert_eq!(elsewhere.len(), led[1].len(), "{told}");
    assert!(elsewhere.iter().all(|one| one["engine"] == address.as_str()), "{told}");
    // Until another one leads those, and then they count. What is its own by then is told at the next registration.
    let (began, mut left) = (Instant::now(), elsewhere.clone());
    while !left.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "{left:?}");
        let outcomes: Vec<Value> = left.iter().map(|one| succeeded(&one["attempt"].as_str().unwrap().to_owned())).collect();
        let answer = here.post(&format!("/v1/workers/{ID}/report"), &json!({"outcomes": outcomes}).to_string());
        if answer.status == 409 {
            let running: Vec<String> = left.iter().map(|one| one["attempt"].as_str().unwrap().to_owned()).collect();
            assert_eq!(register(here, &running)["stop"], json!([]));
            continue;
        }
        let told = answer.expect(200).json();
        assert_eq!(told["refused"], json!([]), "{told}");
        left = told["elsewhere"].as_array().cloned().unwrap_or_default();
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = ground.until_ended(SHARDS.into());
    assert_eq!(
        (told.count("succeeded"), told.count("started"), told.count("lost")),
        (SHARDS.into(), SHARDS.into(), 0),
        "{told:?}"
    );
}
