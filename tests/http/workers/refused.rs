//! What no worker may do, each refused by name, and nothing of it in anybody else's way.

use serde_json::{Value, json};

use super::{Worker, end, engine, engine_with, outcome};
use crate::command::run;

#[test]
fn what_a_worker_cannot_be_is_named() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let worker = Worker::known(&service, 1);
    let said = |more: Value| {
        let mut body = json!({"protocol": 1, "pool": "models"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        worker.put(&body).problem(422, "invalid")["detail"].as_str().unwrap().to_owned()
    };
    for (more, word) in [
        (json!({"protocol": 2}), "version 2"),
        (json!({"pool": "modles"}), "\"modles\""),
        (json!({"types": ["resize", "noop"]}), "\"noop\""),
        (json!({"slots": 0}), "1 to 65536"),
        (json!({"slots": 65_537}), "1 to 65536"),
        (json!({"lease": "1ms"}), "500ms"),
        (json!({"lease": "1h"}), "900s"),
        (json!({"lease": "soon"}), "\"soon\""),
        (json!({"name": "x".repeat(257)}), "256 bytes"),
        (json!({"running": ["0-1"]}), "0-42.1"),
        (json!({"colour": "red"}), "colour"),
    ] {
        let text = said(more.clone());
        assert!(text.contains(word), "{more}: {text}");
    }
    for id in ["7", &"g".repeat(32), &"0".repeat(33)] {
        service.ask("PUT", &format!("/v1/workers/{id}"), &[], br#"{"protocol":1,"pool":"models"}"#).problem(422, "invalid");
    }
    worker.post("lease", &json!({"seq": 1, "slots": 1})).problem(404, "not-found");
    let mut worker = Worker::join(&service, 1);
    for more in [json!({"slots": 5}), json!({"types": ["crop"]}), json!({"lease": "2s"}), json!({"labels": {"a": "b"}})] {
        let mut body = json!({"protocol": 1, "pool": "models", "slots": 4, "lease": "20s"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        worker.put(&body).problem(409, "conflict");
    }
    assert_eq!(worker.lease(1, "0s")["attempts"], json!([]), "it is as it was");
    end(service, home.path());
}

#[test]
fn a_report_that_is_none_is_refused_whole_and_one_about_others_counts_for_nothing() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"resize"}"#);
    let (mut worker, other) = (Worker::join(&service, 1), Worker::join(&service, 2));
    let attempt = worker.take(1).remove(0);
    let good = json!({"attempt": attempt, "result": 1});
    for wrong in [
        json!({"attempt": attempt}),
        json!({"attempt": attempt, "result": 1, "failure": {"class": "x"}}),
        json!({"attempt": attempt, "result": 1, "result_base64": "AA=="}),
        json!({"attempt": attempt, "result_base64": "?"}),
        json!({"attempt": attempt, "outcome": "FAILED"}),
        json!({"attempt": attempt, "outcome": "GOOD"}),
        json!({"attempt": attempt, "failure": {}}),
        json!({"attempt": attempt, "failure": {"class": "x", "retry_after": "soon"}}),
        json!({"attempt": attempt, "returned": true, "stopped": true}),
        json!({"attempt": "7", "result": 1}),
        json!({"attempt": attempt, "result": 1, "more": 1}),
    ] {
        worker.post("report", &json!({"outcomes": [good, wrong]})).problem(422, "invalid");
    }
    worker.post("report", &json!({"heartbeats": [{"attempt": attempt, "progress": {"percent": 101}}]})).problem(422, "invalid");
    let large = "x".repeat(65 << 10);
    worker.post("report", &json!({"heartbeats": [{"attempt": attempt, "checkpoint": large}]})).problem(422, "invalid");
    for outcome in [good.clone(), json!({"attempt": attempt, "returned": true}), json!({"attempt": "0-999.1", "result": 1})] {
        other.is_refused(&outcome);
    }
    other.is_refused(&json!({"attempt": "9-0.1", "stopped": true}));
    worker.succeed(&attempt);
    assert_eq!(outcome(&service, &id), "SUCCEEDED");
    end(service, home.path());
}

#[test]
fn a_token_lets_a_worker_work_where_it_says_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let made = |name: &str, scope: &str| {
        let made = run(&["token", "new", "--name", name, "--scope", scope, "-o", "json"]).expect(0).json();
        (format!("Bearer {}", made["token"].as_str().unwrap()), made["line"].as_str().unwrap().to_owned())
    };
    let all = [("any", "work"), ("pool", "work:default"), ("type", "work:models/crop"), ("reader", "read")];
    let all = all.map(|(name, scope)| made(name, scope));
    let file = home.path().join("tokens");
    std::fs::write(&file, all.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n")).unwrap();
    let service = engine_with(home.path(), &[("ERGATE_HTTP__TOKENS", file.to_str().unwrap())]);
    let [any, pool, one, reader] = &all;
    let put = |token: &str, number: u8, types: &[&str]| {
        let body = json!({"protocol": 1, "pool": "models", "types": types}).to_string();
        service.ask("PUT", &format!("/v1/workers/{number:032x}"), &[("authorization", token)], body.as_bytes())
    };
    put(&any.0, 1, &[]).expect(200);
    put(&one.0, 2, &["crop"]).expect(200);
    put(&one.0, 3, &["crop", "resize"]).problem(403, "forbidden");
    put(&one.0, 3, &[]).problem(403, "forbidden");
    put(&pool.0, 3, &["crop"]).problem(403, "forbidden");
    put(&reader.0, 3, &["crop"]).problem(403, "forbidden");
    // Whoever knows the id of another worker needs its rights as well.
    let path = format!("/v1/workers/{:032x}", 1);
    for verb in ["lease", "report", "drain"] {
        let body = br#"{"seq":1,"slots":1}"#;
        service.ask("POST", &format!("{path}/{verb}"), &[("authorization", &one.0)], body).problem(403, "forbidden");
    }
    service.ask("DELETE", &path, &[("authorization", &one.0)], b"").problem(403, "forbidden");
    service.ask("GET", "/v1/workers", &[("authorization", &any.0)], b"").problem(403, "forbidden");
    let seen = service.ask("GET", "/v1/workers", &[("authorization", &reader.0)], b"").expect(200).json();
    assert_eq!(seen["workers"].as_array().unwrap().len(), 2);
    end(service, home.path());
}

#[test]
fn a_worker_that_asks_for_slots_that_it_does_not_have_keeps_nothing_from_others_and_fills_no_log() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let first = service.submit(r#"{"type":"resize"}"#);
    let (mut greedy, mut other) = (Worker::known(&service, 1), Worker::join(&service, 2));
    greedy.register(&json!({"slots": 1}));
    assert_eq!(greedy.take(1), [format!("{first}.1")]);
    std::thread::scope(|scope| {
        // Its one slot is taken, and it stands first in line.
        let waits = scope.spawn(|| greedy.lease(1, "3s"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        let second = service.submit(r#"{"type":"resize"}"#);
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert_eq!(other.take(1), [format!("{second}.1")]);
        other.succeed(&format!("{second}.1"));
        assert_eq!(waits.join().unwrap()["attempts"], json!([]));
    });
    greedy.succeed(&format!("{first}.1"));
    end(service, home.path());
    let log = run(&["log", "export", "--data", home.path().join("data").to_str().unwrap()]).expect(0).json_lines();
    assert_eq!(log.iter().filter(|event| event["event"] == "work_asked").count(), 2);
}
