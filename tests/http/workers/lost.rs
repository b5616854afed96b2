//! Work whose worker is silent, gone, told to stop, or whose engine was killed.

use std::time::Duration;

use serde_json::json;

use super::{Worker, end, engine, history, outcome};
use crate::command::until;

#[test]
fn the_work_of_a_silent_worker_goes_to_another_and_is_not_done_twice() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"resize"}"#);
    let (mut silent, mut other) = (Worker::known(&service, 1), Worker::join(&service, 2));
    silent.register(&json!({"lease": "3s"}));
    let attempt = format!("{id}.1");
    assert_eq!(silent.take(1), [attempt.as_str()]);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(silent.report(&json!({}))["taken"], 0);
    }
    assert_eq!(history(&service, &id), ["requested", "started"], "it gave signs of life");
    assert_eq!(other.take(1), [format!("{id}.2")], "its lease is over");
    silent.post("report", &json!({"outcomes": [{"attempt": attempt, "result": 1}]})).problem(409, "unattached");
    silent.post("lease", &json!({"seq": 2, "slots": 1})).problem(409, "unattached");
    let told = silent.register(&json!({"lease": "3s", "running": [attempt]}));
    assert_eq!(told["stop"], json!([{"attempt": attempt, "hard": true}]));
    silent.is_refused(&json!({"attempt": attempt, "result": 1}));
    silent.is_refused(&json!({"attempt": format!("{id}.2"), "result": 1}));
    other.succeed(&format!("{id}.2"));
    assert_eq!(history(&service, &id), ["requested", "started", "lost", "started", "succeeded"]);
    end(service, home.path());
}

#[test]
fn what_is_given_back_or_left_behind_goes_to_others_and_has_lost_nothing() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let ids = [(); 3].map(|()| service.submit(r#"{"type":"resize"}"#));
    let (mut first, mut second) = (Worker::join(&service, 1), Worker::join(&service, 2));
    assert_eq!(first.take(4).len(), 3);
    let told = first.post("drain", &json!({})).expect(200).json();
    assert_eq!(told, json!({"stop": [], "drain": true}));
    assert_eq!(first.lease(4, "30s")["drain"], true, "it is told at once");
    first.succeed(&format!("{}.1", ids[0]));
    let told = first.report(&json!({"outcomes": [{"attempt": format!("{}.1", ids[1]), "returned": true}]}));
    assert_eq!((&told["taken"], &told["drain"]), (&json!(1), &json!(true)));
    assert_eq!(second.take(1), [format!("{}.2", ids[1])]);
    assert_eq!(first.leave(), json!({"stop": [], "drain": true}));
    assert_eq!(first.leave()["drain"], true, "once more changes nothing");
    assert_eq!(second.take(1), [format!("{}.2", ids[2])]);
    first.post("lease", &json!({"seq": 1, "slots": 1})).problem(404, "not-found");
    for id in &ids[1..] {
        second.succeed(&format!("{id}.2"));
        let events = service.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
        let lost = events["events"].as_array().unwrap().iter().find(|event| event["event"] == "lost").unwrap().clone();
        assert_eq!(lost["departure"], "drained");
    }
    end(service, home.path());
}

#[test]
fn who_cancels_or_ends_a_task_is_heard_by_the_worker_that_waits() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let [soft, hard] = [(); 2].map(|()| service.submit(r#"{"type":"resize"}"#));
    let mut worker = Worker::known(&service, 1);
    worker.register(&json!({"lease": "1m"}));
    assert_eq!(worker.take(2).len(), 2);
    service.post(&format!("/v1/tasks/{soft}/cancel"), "").expect(202);
    assert_eq!(worker.lease(0, "30s")["stop"], json!([{"attempt": format!("{soft}.1"), "hard": false}]));
    service.post(&format!("/v1/tasks/{hard}/kill"), "").expect(200);
    let told = worker.lease(0, "30s");
    assert_eq!(told["stop"], json!([{"attempt": format!("{hard}.1"), "hard": true}]));
    let stopped = [&soft, &hard].map(|id| json!({"attempt": format!("{id}.1"), "stopped": true}));
    assert_eq!(worker.report(&json!({"outcomes": stopped}))["refused"], json!([]));
    assert_eq!((outcome(&service, &soft), outcome(&service, &hard)), (json!("CANCELLED"), json!("CANCELLED")));
    worker.is_refused(&json!({"attempt": format!("{hard}.1"), "result": 1}));
    // Both slots are free again.
    let more = [(); 4].map(|()| service.submit(r#"{"type":"resize"}"#));
    assert_eq!(worker.take(4), more.map(|id| format!("{id}.1")));
    end(service, home.path());
}

#[test]
fn an_attempt_that_gives_no_sign_of_life_is_over_and_the_next_one_gets_what_it_kept() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"beating"}"#);
    let mut worker = Worker::known(&service, 1);
    worker.register(&json!({"lease": "1m"}));
    let leased = worker.lease(1, "10s");
    assert_eq!(leased["attempts"][0]["heartbeat_ms"], 3_000);
    let attempt = format!("{id}.1");
    let news = json!({"percent": 40, "stage": "resizing", "message": "4 of 10"});
    let beat = json!({"heartbeats": [{"attempt": attempt, "progress": news, "checkpoint": {"done": 4}}]});
    assert_eq!(worker.report(&beat)["taken"], 1);
    for _ in 0..4 {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(worker.report(&json!({"heartbeats": [{"attempt": attempt}]}))["taken"], 1);
    }
    let events = service.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
    let told = events["events"].as_array().unwrap().iter().find(|event| event["event"] == "progressed").unwrap();
    assert_eq!((&told["percent"], &told["stage"]), (&json!(40), &json!("resizing")));
    let told = worker.lease(0, "30s");
    assert_eq!(told["stop"], json!([{"attempt": attempt, "hard": true}]), "it was silent");
    worker.report(&json!({"outcomes": [{"attempt": attempt, "stopped": true}]}));
    let again = worker.lease(1, "10s");
    assert_eq!((&again["attempts"][0]["number"], &again["attempts"][0]["checkpoint"]), (&json!(2), &json!({"done": 4})));
    let failure = json!({"class": "boom", "message": "it broke", "retryable": false});
    let told = worker.report(&json!({"outcomes": [{"attempt": format!("{id}.2"), "failure": failure}]}));
    assert_eq!(told["taken"], 1);
    assert_eq!(outcome(&service, &id), "FAILED");
    let beats = history(&service, &id).iter().filter(|name| *name == "progressed" || *name == "checkpointed").count();
    assert_eq!(beats, 2, "signs of life without news are not recorded");
    end(service, home.path());
}

#[test]
fn an_engine_that_was_killed_finds_its_workers_again_and_takes_what_they_did_meanwhile() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let ids = [(); 4].map(|()| service.submit(r#"{"type":"resize"}"#));
    let mut worker = Worker::known(&service, 1);
    worker.register(&json!({}));
    assert_eq!(worker.take(4).len(), 4);
    worker.succeed(&format!("{}.1", ids[0]));
    service.kill();
    let service = engine(home.path());
    let mut worker = Worker::known(&service, 1);
    worker.post("report", &json!({"outcomes": [{"attempt": format!("{}.1", ids[1]), "result": 1}]})).problem(409, "unattached");
    // Of the four one is done, two run, and of one its answer was lost.
    let running = [&ids[1], &ids[2]].map(|id| format!("{id}.1"));
    let told = worker.register(&json!({"running": [running[0], running[1], format!("{}.1", ids[0])]}));
    assert_eq!(told["stop"], json!([{"attempt": format!("{}.1", ids[0]), "hard": true}]));
    assert_eq!(worker.take(2), [format!("{}.2", ids[3])], "what it does not run is given again");
    running.iter().for_each(|attempt| worker.succeed(attempt));
    worker.succeed(&format!("{}.2", ids[3]));
    for id in &ids {
        assert_eq!(outcome(&service, id), "SUCCEEDED");
    }
    assert_eq!(history(&service, &ids[1]), ["requested", "started", "succeeded"], "it ran on while the engine was away");
    end(service, home.path());
}

#[test]
fn a_worker_that_never_comes_back_after_a_restart_loses_its_work_after_its_lease() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"resize"}"#);
    let mut gone = Worker::known(&service, 1);
    gone.register(&json!({"lease": "3s"}));
    assert_eq!(gone.take(1).len(), 1);
    service.kill();
    let service = engine(home.path());
    let mut other = Worker::join(&service, 2);
    until("the lease is over", || history(&service, &id).contains(&"lost".to_owned()));
    assert_eq!(other.take(1), [format!("{id}.2")]);
    other.succeed(&format!("{id}.2"));
    end(service, home.path());
}
