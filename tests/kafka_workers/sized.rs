//! Pools that a policy sizes over all shards: one engine decides, all follow, and the next one goes on when that engine dies.
#![allow(clippy::print_stderr, reason = "how long it took is worth reading")]

use std::time::{Duration, Instant};

use ergate::events::event::Event;
use ergate::events::json as messages;
use ergate::events::state::State;
use ergate::events::time::Timestamp;
use rdkafka::producer::BaseRecord;
use serde_json::{Value, json};

use crate::command::{run, until};
use crate::ground::{Ground, SHARDS};
use crate::kafka::shared;
use crate::service::Service;

/// Replicas are threads of the engines in one pool, and come by themselves in the other one. An idle replica goes after two seconds.
const CONFIG: &str = r#"
[pool.crew]
preset = "scale-to-zero"
replicas = { min = 0, max = 12 }
slots = 2
policy = "quick.toml"
shadow.wide.policy = "balanced"
[task.nap]
pool = "crew"
executor = { process = ["sleep", "0.3"] }
[pool.outside]
fleet = "external"
preset = "scale-to-zero"
replicas = { min = 0, max = 5 }
slots = 2
[task.far]
pool = "outside"
executor = { process = ["true"] }
"#;
const QUICK: &str = "policy = \"rate\"\nkeep_alive = 2000000\ncatch_up = 2000000\n";

fn ground(test: &str, kafka: &crate::kafka::Cluster) -> Ground {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), QUICK).unwrap();
    let config = CONFIG.replace("quick.toml", file.path().to_str().unwrap());
    let ground = Ground::with(test, kafka, 3, &config);
    until("the log of pools is led", || ground.engines.iter().any(leads_pools));
    ground
}

fn leads_pools(engine: &Service) -> bool {
    let said = engine.said();
    let last = said.lines().rev().find(|line| line.starts_with("leads ") || line.starts_with("takes over "));
    last.is_some_and(|line| line.starts_with("leads ") && line.split(';').next().unwrap().contains("capacity"))
}

/// Publishes so many naps to one shard.
fn submit(ground: &Ground, shard: u16, count: usize, request: &str) {
    let topic = format!("{}.requests", ground.namespace.name);
    for _ in 0..count {
        ground.namespace.send(BaseRecord::to(&topic).partition(i32::from(shard)).payload(request.as_bytes()));
    }
    ground.namespace.flush();
}

/// What happened on a partition of the log, with the state after each event.
fn follow(ground: &Ground, topic: &str, partition: u16, mut see: impl FnMut(&State, Timestamp, &Event<'_>)) {
    let mut state = State::default();
    for record in ground.namespace.records(topic, i32::from(partition)) {
        let (block, _) = messages::decode(&record.value).unwrap();
        for envelope in block.records() {
            let envelope = envelope.unwrap();
            state.apply(&envelope);
            see(&state, envelope.recorded_at, &envelope.event);
        }
    }
}

fn pool(engine: &Service, name: &str) -> Value {
    engine.get(&format!("/v1/pools/{name}")).expect(200).json()
}

/// The sizes that were decided, one after the other.
fn decisions(ground: &Ground) -> Vec<u32> {
    let mut all = Vec::new();
    follow(ground, "capacity", 0, |_, _, event| {
        if let Event::PoolScaled { replicas, shadow: None, .. } = event {
            all.push(*replicas);
        }
    });
    all
}

#[track_caller]
fn until_asleep(ground: &Ground) {
    until("the pool sleeps", || {
        let pool = pool(&ground.engines[0], "crew");
        pool["replicas"] == 0 && pool["replicas_up"] == 0
    });
}

#[track_caller]
fn verify(ground: &Ground) {
    let told = run(&["log", "verify", "--decisions", "--log", &ground.namespace.log()]).expect(0);
    assert!(told.out.contains("every byte, hash and decision"), "{told:?}");
}

#[test]
fn one_engine_sizes_a_pool_over_all_shards_and_any_engine_tells_why() {
    let Some(kafka) = shared() else { return };
    let ground = ground("sized", kafka);
    until_asleep(&ground);
    // The first task wakes it; also the second time, when the engine that decides knows all shards.
    for task in 1..=2 {
        submit(&ground, 3, 1, r#"{"type":"nap"}"#);
        ground.namespace.until_done();
        let (mut asked, mut began) = (None, None);
        follow(&ground, "events", 3, |_, at, event| {
            if matches!(event, Event::Requested { .. }) {
                asked = Some(at);
            } else if matches!(event, Event::Started { .. }) {
                began = Some(at);
            }
        });
        let woke = began.unwrap().since(asked.unwrap()).to_std();
        eprintln!("a pool that slept began its first task {woke:?} after it was requested");
        assert!(woke < Duration::from_secs(10), "{woke:?}");
        if task == 1 {
            until_asleep(&ground);
        }
    }

    // All of a burst comes to one shard, and so do the replicas.
    submit(&ground, 5, 240, r#"{"type":"nap"}"#);
    ground.namespace.until_done();
    let told = ground.told();
    let ends = ["succeeded", "lost", "left"].map(|name| told.count(name));
    assert_eq!(ends, [242, 0, 0], "no task is interrupted: {told:?}");
    let (mut most, mut elsewhere) = (0, 0);
    let size = |state: &State| state.control.pool("crew").map_or(0, |(_, size)| size.replicas);
    follow(&ground, "events", 5, |state, _, _| most = most.max(size(state)));
    follow(&ground, "events", 6, |state, _, _| elsewhere = elsewhere.max(size(state)));
    assert!(most >= 10 && elsewhere <= 2, "{most} where the work was, {elsewhere} elsewhere");
    until_asleep(&ground);
    let sizes = decisions(&ground);
    assert!(sizes.contains(&12) && sizes.last() == Some(&0), "{sizes:?}");
    verify(&ground);

    // Any engine says why, and so does whoever reads the topics.
    let why = |engine: &Service| engine.get("/v1/pools/crew/why?not=13").expect(200).json();
    let told: Vec<Value> = ground.engines.iter().map(why).collect();
    assert!(told.iter().all(|one| one["set_at"] == told[0]["set_at"] && one["replicas"] == 0), "{told:?}");
    assert!(told[0]["not"]["because"].as_str().unwrap().contains("12 at most"), "{told:?}");
    let read = run(&["why", "crew", "--log", &ground.namespace.log(), "-o", "json"]).expect(0).json();
    assert_eq!((&read["policy"], &read["max"]), (&told[0]["policy"], &json!(12)));
    let past = run(&["why", "crew", "--log", &ground.namespace.log(), "--at", "3"]);
    assert!(past.code != Some(0) || past.out.contains("nothing was decided yet"), "{past:?}");

    // Every engine tells how many workers are wanted from outside, whatever it leads; and one that does not decide takes a new policy.
    ground.submit(8, r#"{"type":"far"}"#);
    let line = |engine: &Service| {
        let told = String::from_utf8(engine.get("/metrics").expect(200).body).unwrap();
        told.lines().find(|line| line.starts_with("ergate_replicas_wanted{pool=\"outside\"}")).map(str::to_owned)
    };
    until("all engines want the same", || {
        let lines: Vec<Option<String>> = ground.engines.iter().map(line).collect();
        lines.iter().all(|line| line.as_deref() == Some("ergate_replicas_wanted{pool=\"outside\"} 4"))
    });
    let other = ground.engines.iter().find(|engine| !leads_pools(engine)).unwrap();
    let body = json!({"policy": {"policy": "rate"}, "min": 1, "max": 3, "reason": "a test"}).to_string();
    let kind = [("content-type", "application/json")];
    let set = other.ask("PUT", "/v1/pools/outside/policy", &kind, body.as_bytes()).expect(200).json();
    assert_eq!((&set["min"], &set["max"]), (&json!(1), &json!(3)), "{set}");
    // Without a policy each shard has its part of the size as its own.
    until("the new bound counts", || pool(other, "outside")["replicas"] == 3);
    let none = json!({"policy": null}).to_string();
    other.ask("PUT", "/v1/pools/outside/policy", &kind, none.as_bytes()).expect(200);
    assert_eq!(pool(other, "outside")["replicas"], 1, "3 of 8 shards are one each");
    verify(&ground);
}

#[test]
fn the_next_engine_goes_on_when_the_one_that_decides_is_killed_while_it_scales() {
    let Some(kafka) = shared() else { return };
    let mut ground = ground("next", kafka);
    until_asleep(&ground);
    // Set by hand, other than the file has it: it holds also when another engine takes over.
    let body = json!({"policy": {"policy": "rate", "keep_alive": 2_000_000, "catch_up": 3_000_000}, "max": 9}).to_string();
    let kind = [("content-type", "application/json")];
    ground.engines[0].ask("PUT", "/v1/pools/crew/policy", &kind, body.as_bytes()).expect(200);
    (0..SHARDS).for_each(|shard| submit(&ground, shard, 40, r#"{"type":"nap"}"#));
    until("it grows", || decisions(&ground).iter().any(|size| *size > 3));
    let first = ground.engines.iter().position(leads_pools).unwrap();
    // Held by whichever engine is asked, and by whichever decides.
    let other = ground.engines.iter().find(|engine| !leads_pools(engine)).unwrap();
    let held =
        other.ask("PATCH", "/v1/pools/outside", &kind, br#"{"replicas":9,"for":"1h","reason":"a test"}"#).expect(200).json();
    assert_eq!((&held["hold"]["size"], &held["hold"]["cut_by"]), (&json!(5), &json!("max")), "{held}");
    ground.engines.remove(first).kill();
    let killed = Instant::now();
    until("another engine decides", || ground.engines.iter().any(leads_pools));
    eprintln!("another engine had the log of pools {:?} after the one before was killed", killed.elapsed());
    ground.namespace.until_done();
    let told = ground.told();
    assert_eq!(told.count("succeeded"), usize::from(SHARDS) * 40, "{told:?}");
    until_asleep(&ground);

    // The hold goes on, and the shadow with what it knew; any engine ends the one and tells of the other.
    assert_eq!(pool(&ground.engines[1], "outside")["replicas"], 5);
    for engine in &ground.engines {
        let told = engine.get("/v1/pools/crew/why").expect(200).json();
        assert!(told["shadows"][0]["name"] == "wide" && told["shadows"][0]["wanted"].is_u64(), "{told}");
    }
    let other = ground.engines.iter().find(|engine| !leads_pools(engine)).unwrap();
    other.ask("POST", "/v1/pools/outside/release", &kind, b"").expect(200);
    until("the policy decides again", || pool(other, "outside")["replicas"] == 0);

    let (mut openings, mut policies, mut looks) = (0, 0, [0, 0]);
    let (mut shadows, mut wishes) = (0, [0, 0]);
    let (mut last, mut gap) = (None, Duration::ZERO);
    let mut remembered = Vec::new();
    follow(&ground, "capacity", 0, |state, at, event| {
        if matches!(event, Event::Opened { .. }) {
            openings += 1;
            let crew = state.control.pool("crew").and_then(|(id, _)| state.control.scaling.get(&id));
            remembered.push(crew.is_some_and(|crew| crew.live.last.is_some() && crew.bounds.max == 9));
        } else if matches!(event, Event::PolicySet { .. }) {
            policies += 1;
        } else if matches!(event, Event::ShadowSet { .. }) {
            shadows += 1;
        } else if matches!(event, Event::PoolScaled { shadow: Some(_), .. }) {
            wishes[usize::from(openings > 1)] += 1;
        } else if matches!(event, Event::PoolObserved { .. }) {
            looks[usize::from(openings > 1)] += 1;
            if openings > 1 && looks[1] == 1 {
                gap = last.map_or(Duration::ZERO, |last: Timestamp| at.since(last).to_std());
            }
            last = Some(at);
        }
    });
    eprintln!("{looks:?} looks before and after, {gap:?} between the last of one engine and the first of the next");
    assert!(openings >= 2 && looks[0] > 0 && looks[1] > 0, "{openings} {looks:?}");
    assert_eq!((remembered[0], *remembered.last().unwrap()), (false, true), "what was decided before is remembered");
    assert!(shadows == 1 && wishes[0] > 0 && wishes[1] > 0, "{shadows} {wishes:?}");
    assert_eq!(policies, 3, "two of the file and one by hand, and none again");
    // The session timeout is six seconds; the rest is for a busy machine.
    assert!(gap < Duration::from_secs(30), "{gap:?}");
    // Made again by somebody who has only the log, from its beginning: every decision of both is the same.
    verify(&ground);
    let why = |engine: &Service| engine.get("/v1/pools/crew/why").expect(200).json();
    assert!(ground.engines.iter().all(|engine| why(engine)["max"] == 9));
}
