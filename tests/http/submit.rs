//! Submitting: one request in each form, and streams of them.

use std::fmt::Write as _;

use crate::command::verify;
use crate::service::Service;

#[test]
fn a_request_is_made_once_and_a_duplicate_leads_to_the_same_task() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let first = service.post("/v1/tasks", r#"{"type":"noop","payload":{"a":1},"key":"k"}"#).expect(201);
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.header("location"), Some(format!("/v1/tasks/{id}")));
    let again = service.post("/v1/tasks", r#"{"type":"noop","payload":{"a":1},"key":"k"}"#).expect(200);
    assert_eq!((&again.json()["id"], &again.json()["duplicate"]), (&id.as_str().into(), &true.into()));
    let problem = service.post("/v1/tasks", r#"{"type":"noop","payload":2,"key":"k"}"#).problem(409, "key-conflict");
    assert_eq!(problem["field"], "key");
    let json = ("content-type", "application/json");
    for key in ["h", "\"h\""] {
        let header = ("Idempotency-Key", key);
        let status = service.ask("POST", "/v1/tasks", &[json, header], br#"{"type":"noop"}"#).status;
        assert_eq!(status, if key == "h" { 201 } else { 200 });
    }
    let two = service.ask("POST", "/v1/tasks", &[json, ("idempotency-key", "a")], br#"{"type":"noop","key":"b"}"#);
    assert_eq!(two.problem(422, "invalid")["field"], "Idempotency-Key");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    assert_eq!(verify(&home.path().join("data")).next_ordinal().0, 2);
}

#[test]
fn cloud_events_are_taken_in_both_forms() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"noop","data":{"a":1}}"#;
    service.ask("POST", "/v1/tasks", &[("content-type", "application/cloudevents+json")], event.as_bytes()).expect(201);
    let binary =
        [("ce-specversion", "1.0"), ("ce-id", "2"), ("ce-source", "/s"), ("ce-type", "noop"), ("content-type", "text/plain")];
    let id = service.ask("POST", "/v1/tasks", &binary, b"plain text").expect(201).json()["id"].as_str().unwrap().to_owned();
    let history = service.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
    assert_eq!(history["events"][0]["payload"], "plain text");
    let batch = service.ask("POST", "/v1/tasks", &[("content-type", "application/cloudevents-batch+json")], b"[]");
    batch.problem(415, "media-type");
    let broken = [("ce-specversion", "1.0"), ("ce-id", "%zz"), ("ce-source", "/s"), ("ce-type", "noop")];
    assert_eq!(service.ask("POST", "/v1/tasks", &broken, b"1").problem(422, "invalid")["field"], "ce-id");
}

#[test]
fn what_is_wrong_with_a_request_is_said_with_its_field() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__BODY_MAX", "64KiB")]);
    let deep = format!(r#"{{"type":"noop","payload":{}{}}}"#, "[".repeat(101), "]".repeat(101));
    for (body, field, word) in [
        ("", "value", "empty"),
        ("[]", "value", "object"),
        ("{\"type\":\"noop\"", "value", "column"),
        (r#"{"type":"noop","priorty":1}"#, "priorty", "priority"),
        (r#"{"type":"noop","type":"fail"}"#, "type", "twice"),
        (r#"{"type":"nope"}"#, "type", "noop"),
        (r#"{"type":"noop","priority":10}"#, "priority", "0 to 9"),
        (r#"{"type":"noop","retry":{"attempts":0}}"#, "retry.attempts", "from 1"),
        (r#"{"type":"../../etc/passwd"}"#, "type", "not registered"),
        (deep.as_str(), "payload", "deep"),
    ] {
        let problem = service.post("/v1/tasks", body).problem(422, "invalid");
        assert_eq!(problem["field"], field, "{body}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(word), "{problem}");
    }
    let text = service.ask("POST", "/v1/tasks", &[("content-type", "text/plain")], br#"{"type":"noop"}"#);
    assert_eq!(text.problem(415, "media-type")["field"], "content-type");
    service.ask("POST", "/v1/tasks", &[], b"{}").problem(415, "media-type");
    let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    service.ask("POST", "/v1/tasks", &packed, b"\x1f\x8b").problem(415, "media-type");
    let large = format!(r#"{{"type":"noop","payload":"{}"}}"#, "a".repeat(64 << 10));
    service.post("/v1/tasks", &large).problem(413, "too-large");
    service.post("/v1/tasks?x=1", r#"{"type":"noop"}"#).problem(422, "invalid");
    assert_eq!(service.get("/v1/tasks").expect(200).json()["tasks"].as_array().unwrap().len(), 0);
}

#[test]
fn a_full_service_says_when_to_come_again() {
    let home = tempfile::tempdir().unwrap();
    let limit = [("ERGATE_LIMITS__TASKS_LIVE_MAX", "2"), ("ERGATE_HTTP__BODY_TIMEOUT", "500ms")];
    let service = Service::start_with(home.path(), &[], &limit);
    let sleep = r#"{"type":"sleep","payload":{"ms":60000}}"#;
    let _running = [service.submit(sleep), service.submit(sleep)];
    let busy = service.post("/v1/tasks", r#"{"type":"noop"}"#);
    assert_eq!(busy.header("retry-after").as_deref(), Some("1"));
    busy.problem(429, "busy");
    let lines = service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], b"{\"type\":\"noop\"}\n");
    let problem = lines.problem(429, "busy");
    assert_eq!(problem["taken"]["refused"], 1);
}

#[test]
fn a_stream_is_taken_line_by_line() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let ndjson = ("content-type", "application/x-ndjson");
    let mut lines = String::from("\u{feff}");
    for index in 0..5_000 {
        match index {
            7 => lines.push_str("{\"type\":\"nope\"}\r\n\n"),
            9 => writeln!(lines, "{{\"type\":\"noop\",\"payload\":{}", "x".repeat(2 << 20)).unwrap(),
            _ => writeln!(lines, "{{\"type\":\"noop\",\"key\":\"k{}\"}}", index % 4_000).unwrap(),
        }
    }
    let taken = service.ask("POST", "/v1/tasks", &[ndjson], lines.as_bytes()).expect(207).json();
    assert_eq!((&taken["accepted"], &taken["duplicates"], &taken["refused"]), (&4_000.into(), &998.into(), &2.into()), "{taken}");
    assert_eq!((&taken["refusals"][0]["line"], &taken["refusals"][0]["field"]), (&8.into(), &"type".into()));
    assert!(taken["refusals"][1]["refused"].as_str().unwrap().contains("longer than"), "{taken}");
    let each = [ndjson, ("accept", "application/x-ndjson")];
    let answer = service.ask("POST", "/v1/tasks", &each, b"{\"type\":\"noop\"}\nnonsense\n{\"type\":\"noop\"}").expect(200);
    let told: Vec<serde_json::Value> = answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.iter().map(|line| line["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(told[0]["id"].is_string() && told[1]["refused"].is_string() && told[2]["id"].is_string(), "{told:?}");
    service.ask("POST", "/v1/tasks", &[ndjson], b"1\n2\n").problem(422, "invalid");
    assert_eq!(service.ask("POST", "/v1/tasks", &[ndjson], b"").expect(200).json()["lines"], 0);
    service.ask("POST", "/v1/tasks", &[ndjson, ("idempotency-key", "k")], b"{\"type\":\"noop\"}").problem(422, "invalid");
}
