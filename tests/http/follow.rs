//! Following the log, and the end of the service while somebody does.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::service::Service;

/// Opens a stream of events with this query and these headers.
fn open(service: &Service, query: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = service.connect();
    write!(stream, "GET /v1/log{query} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").unwrap();
    BufReader::new(stream)
}

/// Reads positions until `count` of them came.
fn positions(from: &mut BufReader<TcpStream>, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    let mut line = String::new();
    while found.len() < count && from.read_line(&mut line).unwrap() > 0 {
        found.extend(line.strip_prefix("id: ").map(|position| position.trim().parse::<u64>().unwrap()));
        line.clear();
    }
    found
}

#[test]
fn events_are_followed_and_resumed_without_a_gap() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let mut stream = open(&service, "?from=0", "");
    let first = positions(&mut stream, 5);
    assert_eq!(first, [0, 1, 2, 3, 4]);
    drop(stream);
    for _ in 0..10 {
        let id = service.submit(r#"{"type":"noop"}"#);
        // So that nothing more happens below than what is asked for there.
        service.get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200);
    }
    let mut resumed = open(&service, "?from=0", "last-event-id: 4\r\n");
    let next = positions(&mut resumed, 30);
    assert_eq!(next, (5..35).collect::<Vec<_>>());
    let mut live = open(&service, "", "");
    let mut line = String::new();
    while !line.starts_with(": following") {
        line.clear();
        assert!(live.read_line(&mut line).unwrap() > 0);
    }
    let before = service.get("/v1/state").expect(200).json()["position"].as_u64().unwrap();
    service.submit(r#"{"type":"noop"}"#);
    assert_eq!(positions(&mut live, 1), [before]);
    service.get("/v1/log?from=999999999").problem(404, "not-found");
    service.get("/v1/log?from=x").problem(422, "invalid");
}

#[test]
fn the_newest_events_are_read_and_the_stream_ends_behind_them() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    for _ in 0..5 {
        let id = service.submit(r#"{"type":"noop"}"#);
        service.get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200);
    }
    let end = service.get("/v1/state").expect(200).json()["position"].as_u64().unwrap();
    let read = |query: &str| {
        let text = service.get(&format!("/v1/log?follow=false{query}")).expect(200).text();
        text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect::<Vec<u64>>()
    };
    assert_eq!(read("&last=3"), [end - 3, end - 2, end - 1]);
    assert_eq!(read("&last=999999"), (0..end).collect::<Vec<_>>());
    assert_eq!(read("&from=2"), (2..end).collect::<Vec<_>>());
    assert_eq!((read("&last=0"), read("")), (vec![], vec![]));
    let both = service.get("/v1/log?last=3&from=3").problem(422, "invalid");
    assert_eq!(both["field"], "last");
    for bad in ["last=-1", "last=x", "follow=no"] {
        service.get(&format!("/v1/log?{bad}")).problem(422, "invalid");
    }
}

#[test]
fn only_so_many_follow_and_one_who_does_not_read_holds_up_nobody() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__STREAMS_MAX", "1")]);
    let mut lazy = open(&service, "?from=0", "");
    // It has its place once it was answered; on a busy machine that takes a while.
    lazy.read_line(&mut String::new()).unwrap();
    let refused = service.get("/v1/log");
    assert!(refused.header("retry-after").is_some());
    refused.problem(429, "busy");
    let lines = format!("{{\"type\":\"noop\",\"payload\":\"{}\"}}\n", "x".repeat(1_000)).repeat(20_000);
    let started = Instant::now();
    let taken =
        service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200).json();
    assert_eq!(taken["accepted"], 20_000);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    drop(lazy);
}

#[test]
fn a_stop_answers_what_was_asked_and_ends_streams() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let id = service.submit(r#"{"type":"sleep","payload":{"ms":60000}}"#);
    let mut stream = open(&service, "", "");
    let mut polling = service.connect();
    write!(polling, "GET /v1/tasks/{id}/result?wait=60s HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let started = Instant::now();
    service.signal("TERM");
    let mut answer = String::new();
    BufReader::new(polling).read_line(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert!(positions(&mut stream, 1_000).len() < 1_000);
    assert_eq!(service.end(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
