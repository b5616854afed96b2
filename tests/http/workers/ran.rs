//! Where attempts ran, as their worker says it with their outcomes, and as the log and people are told.

use serde_json::{Value, json};

use super::{Worker, end, engine, history, outcome};
use crate::command::run;
use crate::service::Service;

const KERNEL: &str = "0b55c0d1b8a4b1d5f0c5a0ab3bb4e3c1e0a5fb1a7f8f5e2d9c64c4a4e5b6a7f8";

/// What people are told of an attempt that was alone in its batch.
const LINE: &str = "attempt=1 ran on GPU-5c1ce4f1-7f51-4f4a-8a34-0d3ab0d5e9b1 alone, 1.2ms queued, 100µs copies, 50µs kernel";

fn ran() -> Value {
    json!({
        "device": "GPU-5c1ce4f1-7f51-4f4a-8a34-0d3ab0d5e9b1", "driver": "13.0", "kernel": KERNEL, "batch_size": 32,
        "queue": "1.2ms", "copy": "100µs", "compute": "50us", "memory_bytes": 4_194_304
    })
}

/// The same with other fields; `null` takes one away.
fn with(more: &Value) -> Value {
    let mut ran = ran();
    let fields = ran.as_object_mut().unwrap();
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    ran
}

fn events(service: &Service, id: &str) -> Vec<Value> {
    service.get(&format!("/v1/tasks/{id}/history")).expect(200).json()["events"].as_array().unwrap().clone()
}

#[test]
fn where_an_attempt_ran_is_the_record_before_its_outcome() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let [first, second, third] = [(); 3].map(|()| service.submit(r#"{"type":"resize"}"#));
    let mut worker = Worker::join(&service, 1);
    assert_eq!(worker.take(3).len(), 3);
    let failure = json!({"class": "oom", "message": "no room for 4 GiB"});
    let told = worker.report(&json!({"outcomes": [
        {"attempt": format!("{first}.1"), "failure": failure, "ran": ran()},
        {"attempt": format!("{second}.1"), "result": 1, "ran": with(&json!({"driver": null, "batch_size": 1}))},
        {"attempt": format!("{third}.1"), "returned": true, "ran": ran()},
    ]}));
    assert_eq!((&told["taken"], &told["refused"]), (&json!(3), &json!([])), "each outcome counts once");
    let again = [(); 2].map(|()| worker.take(1).remove(0));
    assert_eq!(again, [format!("{third}.2"), format!("{first}.2")], "the one that was given back, and the failed one");
    // What is reported again does not count, and neither does where it ran.
    worker.is_refused(&json!({"attempt": format!("{first}.1"), "failure": failure, "ran": ran()}));
    worker.is_refused(&json!({"attempt": format!("{second}.1"), "result": 1, "ran": ran()}));
    [&first, &third].into_iter().for_each(|id| worker.succeed(&format!("{id}.2")));
    assert_eq!(history(&service, &second), ["requested", "started", "attempt_ran", "succeeded"]);
    let expected = ["requested", "started", "attempt_ran", "attempt_returned", "lost", "started", "succeeded"];
    assert_eq!(history(&service, &third), expected);
    let events = events(&service, &first);
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["requested", "started", "attempt_ran", "failed", "retry_scheduled", "ready", "started", "succeeded"]);
    let (told, ended) = (&events[2], &events[3]);
    let expected = json!({
        "device": "GPU-5c1ce4f1-7f51-4f4a-8a34-0d3ab0d5e9b1", "driver": "13.0", "kernel": KERNEL, "batch_size": 32,
        "queue": 1_200, "copy": 100, "compute": 50, "memory_bytes": 4_194_304
    });
    assert_eq!((&told["attempt"], &told["ran"]), (&json!(1), &expected));
    let position = |event: &Value| event["position"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!((position(told) + 1, &told["recorded_at"]), (position(ended), &ended["recorded_at"]), "one batch");
    people_are_told(&service, &second, position(told));
    end(service, home.path());
    let data = home.path().join("data");
    let there = data.to_str().unwrap();
    run(&["replay", "--data", there]).expect(0);
    let asked = run(&["task", "history", &second, "--data", there]).expect(0).out;
    assert!(asked.contains(LINE), "the directory tells what the service told: {asked}");
    let log = run(&["log", "export", "--data", there]).expect(0).json_lines();
    assert_eq!(log.iter().filter(|event| event["event"] == "attempt_ran").count(), 3);
}

/// In one line where events are listed, and with all numbers where one is looked at.
fn people_are_told(service: &Service, alone: &str, position: u64) {
    let url = format!("http://{}", service.address);
    let asked = run(&["task", "history", alone, "--url", &url]).expect(0).out;
    assert!(asked.contains(LINE), "{asked}");
    let asked = run(&["task", "history", alone, "--url", &url, "-o", "json"]).expect(0).json_lines();
    assert_eq!((&asked[2]["ran"]["batch_size"], &asked[2]["ran"]["driver"]), (&json!(1), &Value::Null));
    let shown = run(&["log", "show", &position.to_string(), "--url", &url]).expect(0).out;
    for words in ["with 31 others, 1.2ms queued, 100µs copies, 50µs kernel\n", "13.0\n", KERNEL, "4194304\n"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let shown = run(&["log", "show", &position.to_string(), "--url", &url, "-o", "json"]).expect(0).json();
    assert_eq!((&shown["origin"], &shown["ran"]["kernel"]), (&json!("input"), &json!(KERNEL)));
}

#[test]
fn where_an_attempt_cannot_have_run_is_refused_with_the_whole_report() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"resize"}"#);
    let mut worker = Worker::join(&service, 1);
    let attempt = worker.take(1).remove(0);
    let report = |ran: Value| json!({"outcomes": [{"attempt": attempt, "result": 1, "ran": ran}]});
    let cases = [
        (json!({"device": ""}), "1 to 64 bytes"),
        (json!({"device": "x".repeat(65)}), "1 to 64 bytes"),
        (json!({"device": "GPU\n"}), "1 to 64 bytes"),
        (json!({"device": 7}), "a string"),
        (json!({"device": null}), "`device`"),
        (json!({"driver": 13.0}), "an id as a text"),
        (json!({"driver": "13"}), "a version of CUDA, like 13.0"),
        (json!({"driver": "013.0"}), "a version of CUDA, like 13.0"),
        (json!({"kernel": KERNEL.to_uppercase()}), "64 hexadecimal digits, lower case"),
        (json!({"kernel": &KERNEL[1..]}), "64 hexadecimal digits, lower case"),
        (json!({"kernel": null}), "`kernel`"),
        (json!({"batch_size": 0}), "at least 1"),
        (json!({"batch_size": -1}), "u32"),
        (json!({"batch_size": 4_294_967_296_u64}), "u32"),
        (json!({"queue": "soon"}), "`queue` is \"soon\""),
        (json!({"queue": "-1s"}), "`queue`"),
        (json!({"copy": 5}), "a string"),
        (json!({"compute": null}), "`compute`"),
        (json!({"memory_bytes": (1_u64 << 50) + 1}), "2^50"),
        (json!({"memory_bytes": 0.5}), "u64"),
        (json!({"colour": "red"}), "colour"),
    ];
    for (more, words) in cases {
        let problem = worker.post("report", &report(with(&more))).problem(422, "invalid");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{more}: {problem}");
    }
    worker.post("report", &report(json!("GPU-0"))).problem(422, "invalid");
    worker.post("report", &json!({"outcomes": [{"attempt": attempt, "ran": ran()}]})).problem(422, "invalid");
    worker.post("report", &json!({"heartbeats": [{"attempt": attempt, "ran": ran()}]})).problem(422, "invalid");
    assert_eq!(history(&service, &id), ["requested", "started"], "nothing of it counted");
    let most = json!({"device": "x".repeat(64), "batch_size": u32::MAX, "memory_bytes": 1_u64 << 50, "queue": "0s"});
    assert_eq!(worker.report(&report(with(&most)))["taken"], 1);
    assert_eq!(outcome(&service, &id), "SUCCEEDED");
    assert_eq!(history(&service, &id), ["requested", "started", "attempt_ran", "succeeded"]);
    end(service, home.path());
}

#[test]
fn where_a_killed_attempt_ran_is_not_recorded_and_its_slot_is_free() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"resize"}"#);
    let mut worker = Worker::known(&service, 1);
    worker.register(&json!({"slots": 1}));
    let attempt = worker.take(1).remove(0);
    service.post(&format!("/v1/tasks/{id}/kill"), "").expect(200);
    worker.is_refused(&json!({"attempt": attempt, "result": 1, "ran": ran()}));
    let names = history(&service, &id);
    assert!(!names.contains(&"attempt_ran".to_owned()) && names.contains(&"slot_released".to_owned()), "{names:?}");
    let next = service.submit(r#"{"type":"resize"}"#);
    assert_eq!(worker.take(1), [format!("{next}.1")]);
    worker.succeed(&format!("{next}.1"));
    end(service, home.path());
}
