//! Tasks that come after others: chains and diamonds, what a failure leads to, names that are none, and a kill in between.

use std::path::Path;

use serde_json::{Value, json};

use crate::command::{run, verify};
use crate::service::{Answer, Service};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn submit(service: &Service, request: &Value) -> String {
    service.submit(&request.to_string())
}

fn stream(service: &Service, lines: &[Value]) -> Answer {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    service.ask("POST", "/v1/tasks", &[NDJSON], body.as_bytes())
}

fn end(service: &Service, id: &str) -> Value {
    service.get(&format!("/v1/tasks/{id}?wait=60s")).expect(200).json()
}

fn show(service: &Service, id: &str) -> Value {
    service.get(&format!("/v1/tasks/{id}")).expect(200).json()
}

/// The events of the log in its order, as pairs of name and task.
fn events(data: &Path) -> Vec<(String, String)> {
    let lines = run(&["log", "export", "--data", data.to_str().unwrap()]).expect(0).json_lines();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    lines.iter().map(|line| (text(line, "event"), text(line, "task"))).collect()
}

fn place(events: &[(String, String)], name: &str, task: &str) -> usize {
    let found: Vec<_> = (0..events.len()).filter(|index| events[*index] == (name.to_owned(), task.to_owned())).collect();
    assert_eq!(found.len(), 1, "{name} {task}: {found:?}");
    found[0]
}

fn sleep(ms: u32, more: Value) -> Value {
    let mut request = json!({"type": "sleep", "payload": {"ms": ms}});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn a_chain_and_a_diamond_run_in_their_order_and_tell_what_they_wait_for() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let first = submit(&service, &sleep(400, json!({})));
    let left = submit(&service, &sleep(1, json!({"after": [first]})));
    let right = submit(&service, &sleep(50, json!({"after": [first], "key": "right"})));
    let last = submit(&service, &json!({"type": "noop", "after": [left, {"type": "sleep", "key": "right"}]}));
    let shown = show(&service, &last);
    assert_eq!((&shown["state"], &shown["waits_for"]), (&json!("held"), &json!([left, right])));
    assert_eq!(shown["asks"], json!([{"after": left}, {"after": right}]));
    let held = service.get("/v1/tasks?state=held").expect(200).json();
    assert_eq!(held["tasks"].as_array().unwrap().len(), 3);
    assert_eq!(end(&service, &last)["outcome"], "SUCCEEDED");
    let history = service.get(&format!("/v1/tasks/{last}/history")).expect(200).json();
    let met: Vec<Value> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| json!([event["event"], event["dependency"], event["left"]]))
        .collect();
    assert_eq!(met[1..3], [json!(["dependency_met", left, 1]), json!(["dependency_met", right, 0])]);
    // What has succeeded already keeps nobody.
    let late = submit(&service, &json!({"type": "noop", "after": [first, {"type": "sleep", "key": "right"}]}));
    assert_eq!(end(&service, &late)["outcome"], "SUCCEEDED");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let events = events(&home.path().join("data"));
    for (before, after) in [(&first, &left), (&first, &right), (&left, &last), (&right, &last)] {
        assert!(place(&events, "succeeded", before) < place(&events, "started", after), "{before} {after}");
    }
    assert!(!events.iter().any(|(name, task)| name == "dependency_met" && *task == late), "it had nothing to wait for");
    verify(&home.path().join("data"));
}

#[test]
fn a_failure_cancels_what_comes_after_it_or_lets_it_run_as_it_wants() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let fails = json!({"type": "fail", "payload": {"class": "boom", "message": "no", "retryable": false}, "delay": "300ms"});
    let first = submit(&service, &fails);
    let next = submit(&service, &json!({"type": "noop", "after": [first]}));
    let behind = submit(&service, &json!({"type": "noop", "after": [next]}));
    let runs = submit(&service, &json!({"type": "noop", "after": [first, behind], "on_failure": "run"}));
    for (id, because) in [(&next, &first), (&behind, &next)] {
        let ended = end(&service, id);
        assert_eq!((&ended["outcome"], &ended["cause"]), (&json!("CANCELLED"), &json!({"dependency": because})), "{id}");
    }
    assert_eq!(end(&service, &runs)["outcome"], "SUCCEEDED");
    // It has failed already, which decides at once.
    let late = submit(&service, &json!({"type": "noop", "after": [first]}));
    assert_eq!(end(&service, &late)["cause"], json!({"dependency": first}));
    let late = submit(&service, &json!({"type": "noop", "after": [first], "on_failure": "run"}));
    assert_eq!(end(&service, &late)["outcome"], "SUCCEEDED");
    let held = submit(&service, &sleep(60_000, json!({})));
    let cancelled = submit(&service, &json!({"type": "noop", "after": [held]}));
    service.post(&format!("/v1/tasks/{cancelled}/cancel"), "").expect(202);
    assert_eq!(end(&service, &cancelled)["outcome"], "CANCELLED");
}

#[test]
fn lines_may_name_each_other_in_any_order_and_those_that_lead_back_are_refused_alone() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let line = |key: &str, after: &[&str]| {
        let after: Vec<Value> = after.iter().map(|key| json!({"key": key})).collect();
        json!({"type": "noop", "key": key, "after": after})
    };
    let taken = stream(&service, &[line("c", &["b"]), line("b", &["a"]), line("a", &[])]).expect(200).json();
    assert_eq!((&taken["accepted"], &taken["refused"]), (&json!(3), &json!(0)));
    let c = submit(&service, &json!({"type": "noop", "after": [{"key": "c"}]}));
    assert_eq!(end(&service, &c)["outcome"], "SUCCEEDED");
    let lines = [
        line("x", &["y"]),
        line("y", &["x"]),
        line("alone", &["alone"]),
        line("behind", &["a", "gone"]),
        line("after", &["behind"]),
        line("good", &[]),
    ];
    let taken = stream(&service, &lines).expect(207).json();
    assert_eq!((&taken["accepted"], &taken["refused"]), (&json!(1), &json!(5)), "{taken}");
    let said = |line: usize| {
        taken["refusals"].as_array().unwrap().iter().find(|refusal| refusal["line"] == line).unwrap()["refused"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (line, words) in
        [(1, "x → y → x"), (2, "y → x → y"), (3, "alone → alone"), (4, "after[1]"), (5, "the key \"behind\" was refused")]
    {
        assert!(said(line).contains(words), "{line}: {taken}");
    }
    // The same lines again are the same tasks.
    let again = stream(&service, &[line("c", &["b"]), line("b", &["a"]), line("a", &[])]).expect(200).json();
    assert_eq!(again["duplicates"], 3);
}

#[test]
fn a_name_that_is_none_is_refused_with_its_place() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let known = service.submit(r#"{"type":"noop"}"#);
    let many: Vec<&str> = vec![&known; 65];
    for (more, field, words) in [
        (json!({"after": [known, known, "0-999"]}), "after[2]", "no task that is known"),
        (json!({"after": [{"key": "gone"}]}), "after[0]", "no task that is known"),
        (json!({"after": [known, "3-1"]}), "after[1]", "another shard"),
        (json!({"after": "0-1"}), "after", "a list"),
        (json!({"after": [1]}), "after[0]", "the id of a task"),
        (json!({"after": ["seven"]}), "after[0]", "the id of a task"),
        (json!({"after": [{"type": "noop"}]}), "after[0].key", "missing"),
        (json!({"after": [{"key": "a", "shard": 1}]}), "after[0].shard", "not a known field"),
        (json!({"after": many}), "after", "at most 64"),
        (json!({"after": [known], "on_failure": "hold"}), "on_failure", "cancel or run"),
        (json!({"on_failure": "run"}), "on_failure", "without `after`"),
    ] {
        let problem = service.post("/v1/tasks", &sleep(1, more.clone()).to_string()).problem(422, "invalid");
        assert_eq!(problem["field"], field, "{more}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{more}: {problem}");
    }
    assert_eq!(end(&service, &known)["outcome"], "SUCCEEDED", "nothing was stopped by it");
}

/// kill -9 again and again while a chain runs: each task starts behind the one before it, and none is forgotten or started twice after it succeeded.
#[test]
fn a_kill_in_between_loses_no_dependent_and_starts_none_too_soon() {
    let home = tempfile::tempdir().unwrap();
    let mut service = Service::start(home.path());
    let mut chain = vec![submit(&service, &sleep(30, json!({})))];
    for _ in 0..40 {
        let after = chain.last().unwrap().clone();
        chain.push(submit(&service, &sleep(30, json!({"after": [after]}))));
    }
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(200));
        service.kill();
        service = Service::start(home.path());
    }
    assert_eq!(end(&service, chain.last().unwrap())["outcome"], "SUCCEEDED");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data");
    let events = events(&data);
    for pair in chain.windows(2) {
        let succeeded = place(&events, "succeeded", &pair[0]);
        let first_start = events.iter().position(|(name, task)| name == "started" && *task == pair[1]).unwrap();
        assert!(succeeded < first_start, "{pair:?}");
    }
    verify(&data);
}

#[test]
fn the_command_line_submits_shows_and_lists_dependents_here_and_there() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let url = format!("http://{}", service.address);
    let first = submit(&service, &sleep(60_000, json!({"key": "k"})));
    let submitted = |flags: &[&str]| {
        let all = [&["submit", "noop", "--url", &url], flags].concat();
        run(&all).expect(0).out.trim().to_owned()
    };
    let next = submitted(&["--after", &first]);
    let last = submitted(&["--after", r#"{"type":"sleep","key":"k"}"#, "--after", &next, "--on-failure", "run"]);
    run(&["submit", "noop", "--url", &url, "--after", "0-999"]).expect(4);
    run(&["submit", "noop", "--url", &url, "--after", "nobody"]).expect(2);
    let shown = run(&["task", "show", &last, "--url", &url]).expect(0).out;
    assert!(shown.contains("held") && shown.contains("waits_for") && shown.contains(&next), "{shown}");
    assert_eq!(run(&["task", "list", "--state", "held", "-o", "json", "--url", &url]).expect(0).json_lines().len(), 2);
    service.post(&format!("/v1/tasks/{first}/kill"), "").expect(200);
    assert_eq!(end(&service, &last)["outcome"], "SUCCEEDED");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data").display().to_string();
    let history = run(&["task", "history", &last, "--data", &data]).expect(0).out;
    assert!(history.contains(&format!("dependency=\"{next}\"")), "{history}");
    let history = run(&["task", "history", &next, "--data", &data]).expect(0).out;
    assert!(history.contains(&format!("cause={{\"dependency\":\"{first}\"}}")), "{history}");
}
