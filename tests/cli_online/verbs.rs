//! What operators do: every verb that changes something, and what it prints.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::command::until;
use crate::service::Service;
use crate::support::{ask, asking, json, refuses, run, submit};

const LONG: &str = r#"{"ms":600000}"#;
const FAIL: &str = r#"{"class":"c","message":"m"}"#;

#[test]
fn a_task_is_submitted_and_its_result_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    assert_eq!(ask(&service, &["submit", "noop", "--key", "k"]).expect(0).out, "0-0\n");
    let again = json(&service, &["submit", "noop", "--key", "k"]);
    assert_eq!(again, [serde_json::json!({ "id": "0-0", "duplicate": true })]);
    refuses(&ask(&service, &["submit", "noop", "[2]", "--key", "k"]), 4, &["the idempotency key"]);
    let waited = ask(&service, &["submit", "sleep", r#"{"ms":300}"#, "--wait", "60s"]).expect(0);
    assert_eq!(waited.out, "null\n");
    let ended = json(&service, &["submit", "sleep", r#"{"ms":1}"#, "--wait", "60s"]);
    assert_eq!((&ended[0]["outcome"], &ended[0]["result"]), (&"SUCCEEDED".into(), &Value::Null));
    refuses(&ask(&service, &["submit", "fail", FAIL, "--wait", "60s"]), 3, &["FAILED: c: m"]);
    let failed = ask(&service, &["submit", "fail", FAIL, "--wait", "60s", "-o", "json"]).expect(3).json();
    assert_eq!((&failed["outcome"], &failed["failure"]["class"]), (&"FAILED".into(), &"c".into()));
    let long = submit(&service, &["sleep", LONG, "--priority", "9", "--attempts", "2", "--timeout", "20m", "--label", "a=b"]);
    let shown = &json(&service, &["task", "show", &long])[0];
    assert!(shown["asks"].to_string().contains("priority") && shown["asks"].to_string().contains('9'), "{shown}");
    refuses(&ask(&service, &["task", "result", &long]), 1, &["has not ended yet", "--wait"]);
    refuses(&ask(&service, &["task", "result", "0-99"]), 6, &["no task 0-99"]);
    refuses(&ask(&service, &["submit", "nope"]), 4, &["\"nope\" is not registered"]);
    refuses(&ask(&service, &["submit", "noop", "{"]), 4, &["not JSON"]);
    refuses(&ask(&service, &["submit", "noop", "--resume"]), 2, &["--resume"]);
    refuses(&ask(&service, &["submit", "noop", "--durability", "fsync"]), 2, &["--durability is for a data directory"]);
}

#[test]
fn tasks_are_stopped_ended_and_tried_again() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let (cancelled, killed) = (submit(&service, &["sleep", LONG]), submit(&service, &["sleep", LONG]));
    until("both run", || json(&service, &["task", "list", "--state", "running"]).len() == 2);
    let told = ask(&service, &["task", "cancel", &cancelled, "--reason", "no longer needed"]).expect(0);
    assert_eq!(told.out, format!("{cancelled} is asked to stop\n"));
    refuses(&ask(&service, &["task", "result", &cancelled, "--wait", "60s"]), 3, &["CANCELLED"]);
    assert!(ask(&service, &["task", "history", &cancelled]).expect(0).out.contains("no longer needed"));
    assert_eq!(json(&service, &["task", "kill", &killed])[0]["task"], killed.as_str());
    refuses(&ask(&service, &["task", "kill", &killed]), 2, &["task number 1 has already ended"]);
    refuses(&ask(&service, &["task", "cancel", "0-99"]), 6, &["no task number 99"]);
    let failed = submit(&service, &["fail", FAIL]);
    ask(&service, &["task", "result", &failed, "--wait", "60s"]).expect(3);
    assert_eq!(ask(&service, &["task", "retry", &failed]).expect(0).out, format!("{failed} is tried again as 0-3\n"));
    refuses(&ask(&service, &["task", "retry", &failed]), 2, &["dead letter"]);
}

#[test]
fn many_dead_letters_are_tried_again_only_when_that_is_confirmed() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    for _ in 0..3 {
        let failed = submit(&service, &["fail", FAIL]);
        ask(&service, &["task", "result", &failed, "--wait", "60s"]).expect(3);
    }
    let redrive = |args: &[&str]| ask(&service, &[&["dead-letters", "redrive"], args].concat());
    refuses(&redrive(&["--all"]), 2, &["--yes", "--dry-run"]);
    refuses(&redrive(&["0-0"]), 2, &["--yes"]);
    assert_eq!(json(&service, &["dead-letters", "list"]).len(), 3);
    let dry = redrive(&["--type", "fail", "--dry-run"]).expect(0);
    assert_eq!(dry.out.lines().last(), Some("3 of 3 would be tried again"), "{dry:?}");
    assert_eq!(redrive(&["0-0", "0-1", "--dry-run"]).expect(0).out.lines().count(), 3);
    assert_eq!(redrive(&["--cause", "timed_out", "--yes"]).expect(0).out, "0 of 0 tried again\n");
    let done = redrive(&["--all", "--limit", "2", "--yes", "--reason", "mended", "-o", "json"]).expect(0).json();
    assert_eq!((&done["matching"], done["redriven"].as_array().unwrap().len()), (&3.into(), 2));
    assert!(ask(&service, &["task", "history", "0-0"]).out.contains("mended"));
    refuses(&redrive(&["0-0", "--yes"]), 2, &["0-0 is not a dead letter", "nothing was tried again"]);
    assert_eq!(redrive(&["--yes"]).code, Some(2));
    assert_eq!(redrive(&["0-2", "--all", "--yes"]).code, Some(2));
}

#[test]
fn pools_are_sized() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let scaled = json(&service, &["pool", "scale", "files", "--slots", "7", "--reason", "more"]);
    assert_eq!((&scaled[0]["slots"], &scaled[0]["replicas"]), (&7.into(), &1.into()));
    assert_eq!(json(&service, &["pool", "show", "files"])[0]["slots"], 7);
    refuses(&ask(&service, &["pool", "scale", "nope", "--slots", "7"]), 6, &["no pool \"nope\""]);
    for (verb, mode) in [("pause", "paused"), ("drain", "drained"), ("resume", "running")] {
        assert_eq!(json(&service, &["pool", verb, "files", "--reason", "to see"])[0]["mode"], mode);
        assert_eq!(json(&service, &["pool", "show", "files"])[0]["mode"], mode);
        refuses(&ask(&service, &["pool", verb, "nope"]), 6, &["no pool \"nope\""]);
    }
    assert_eq!(ask(&service, &["pool", "scale", "files"]).code, Some(2));
    refuses(&ask(&service, &["pool", "scale", "files", "--slots", "0"]), 2, &["0 is not in 1..=65536"]);
}

#[test]
fn status_says_which_service_it_is_and_whether_it_gets_on() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let told = json(&service, &["status"]);
    assert_eq!((&told[0]["ready"], &told[0]["tokens"]), (&true.into(), &false.into()));
    assert_eq!(told[0]["version"], env!("CARGO_PKG_VERSION"));
    assert!(ask(&service, &["status"]).expect(0).out.contains("ready    yes"));
}

#[test]
fn verbs_for_one_side_say_so_on_the_other() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().to_str().unwrap();
    for verb in [&["task", "cancel", "0-0"][..], &["task", "result", "0-0"], &["pool", "scale", "a", "--slots", "1"], &["status"]]
    {
        refuses(&run(&[verb, &["--data", data]].concat()), 2, &["asks a running service", "--data", "--url"]);
        refuses(&run(verb), 2, &["default", "ERGATE_URL"]);
    }
    refuses(&run(&["log", "repair", "--url", "http://127.0.0.1:1"]), 2, &["--url"]);
    refuses(&run(&["log", "copy", data, "--data", data]), 2, &["asks a running service", "--url"]);
    refuses(&run(&["task", "list", "--url", "http://127.0.0.1:1", "--data", data]), 2, &["--url", "--data"]);
    refuses(&run(&["task", "list"]), 6, &["ergate-data", "default", "ERGATE_URL"]);
    refuses(&run(&["replay", "--url", "http://127.0.0.1:1", "--tasks"]), 2, &["--data"]);
}

#[test]
fn the_log_is_followed_over_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let address = crate::support::free();
    let mut child = crate::support::up_at(home.path(), address);
    let url = format!("http://{address}");
    let submit = || run(&["submit", "noop", "--url", &url]).expect(0);
    submit();
    let mut tail =
        crate::support::command(&["log", "tail", "--from", "0", "--follow", "-o", "json", "--url", &url]).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut seen: Vec<u64> = Vec::new();
    let mut read_to = |what: &str, count: usize| {
        let mut found = 0;
        while found < count {
            let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            seen.push(event["position"].as_str().unwrap().parse().unwrap());
            found += usize::from(event["event"] == what);
        }
    };
    read_to("succeeded", 1);
    child.kill().unwrap();
    child.wait().unwrap();
    child = crate::support::up_at(home.path(), address);
    submit();
    read_to("succeeded", 1);
    assert_eq!(seen, (0..seen.len() as u64).collect::<Vec<_>>(), "a gap, or an event twice");
    tail.kill().unwrap();
    tail.wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let lines = "{\"type\":\"noop\"}\n".repeat(3_000);
    std::fs::write(home.path().join("lines"), lines).unwrap();
    let path = home.path().join("lines");
    ask(&service, &["submit", "--ndjson", path.to_str().unwrap()]).expect(0);
    for verb in [&["log", "tail", "--from", "0", "-o", "json"][..], &["task", "list", "--limit", "3000", "-o", "json"]] {
        let mut child = asking(&service, verb).spawn().unwrap();
        let mut first = String::new();
        BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(first.starts_with('{'), "{first}");
        assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""), "{verb:?}");
    }
}
