//! Senders that mean no good: slow, endless, malformed. None of them keeps others from being served.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::service::Service;

fn impatient(home: &std::path::Path, more: &[(&str, &str)]) -> Service {
    let mut variables =
        vec![("ERGATE_HTTP__HEAD_TIMEOUT", "500ms"), ("ERGATE_HTTP__BODY_TIMEOUT", "500ms"), ("ERGATE_HTTP__KEEP_ALIVE", "1s")];
    variables.extend(more);
    Service::start_with(home, &[], &variables)
}

/// Whether the service still does what it is for.
#[track_caller]
fn works(service: &Service) {
    service.submit(r#"{"type":"noop"}"#);
}

#[test]
fn slow_heads_and_slow_bodies_are_ended() {
    let home = tempfile::tempdir().unwrap();
    let service = impatient(home.path(), &[]);
    let started = Instant::now();
    let mut heads: Vec<_> = (0..50).map(|_| service.connect()).collect();
    heads.iter_mut().for_each(|head| head.write_all(b"POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nx: ").unwrap());
    works(&service);
    for mut head in heads {
        // It is answered 408 or closed, and not kept.
        let mut answer = Vec::new();
        let _ = head.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&answer));
    }
    for content in ["application/json", "application/x-ndjson"] {
        let head =
            format!("POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content}\r\ncontent-length: 1000\r\n\r\n{{");
        let mut slow = service.connect();
        slow.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = slow.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("urn:ergate:problem:timeout"), "{content}: {answer}");
    }
    // Drop by drop, each in time: the whole body has its time too.
    let mut drops = service.connect();
    drops
        .write_all(
            b"POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n",
        )
        .unwrap();
    let dripping = Instant::now();
    while drops.write_all(b" ").is_ok() {
        assert!(dripping.elapsed() < Duration::from_secs(30), "it drips for ever");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() < Duration::from_secs(90));
    works(&service);
}

#[test]
fn floods_of_headers_and_bodies_are_refused() {
    let home = tempfile::tempdir().unwrap();
    // Time enough for floods to arrive on a busy machine: it is their size that they are refused for.
    let service = impatient(home.path(), &[("ERGATE_HTTP__HEAD_TIMEOUT", "20s"), ("ERGATE_HTTP__BODY_TIMEOUT", "20s")]);
    let long = "a".repeat(17 << 10);
    service.ask("GET", "/version", &[("x-long", &long)], b"").problem(431, "head-too-large");
    service.ask("GET", &format!("/v1/tasks?cursor={}", &long[..9 << 10]), &[], b"").problem(414, "uri-too-long");
    for many in [200, 5_000] {
        let headers: String = (0..many).map(|index| format!("x-{index}: {}\r\n", "y".repeat(40))).collect();
        let answer = service.raw(format!("GET /version HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{many}: {answer}");
    }
    let endless = format!("GET /version HTTP/1.1\r\nhost: localhost\r\nx: {}", "a".repeat(4 << 20));
    assert!(!service.raw(endless.as_bytes()).starts_with("HTTP/1.1 2"));
    let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let said = service.raw(format!("{head}content-length: 99999999999\r\n\r\n").as_bytes());
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    // Without a length the limit holds as it comes.
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    let said = service.raw(format!("{head}transfer-encoding: chunked\r\n\r\n{}", chunk.repeat(40)).as_bytes());
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 413"), "{said}");
    works(&service);
}

#[test]
fn garbage_is_answered_and_ends_the_connection() {
    let home = tempfile::tempdir().unwrap();
    let service = impatient(home.path(), &[]);
    let two = "GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01",
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nzz\r\nhello",
        "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let said = service.raw(garbage.as_bytes());
        assert!(!said.starts_with("HTTP/1.1 2"), "{garbage:?}: {said}");
        // Behind a good request, on its connection.
        let said = service.raw(format!("{two}{garbage}").as_bytes());
        assert_eq!(said.matches("HTTP/1.1 200").count(), 1, "{garbage:?}: {said}");
    }
    let pipelined =
        service.raw(format!("{}{}", two.repeat(20), two.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n")).as_bytes());
    assert_eq!(pipelined.matches("HTTP/1.1 200").count(), 21);
    works(&service);
}

#[test]
fn paths_lead_nowhere() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    for path in [
        "/v1/tasks/../../../etc/passwd",
        "/v1/tasks/%2e%2e/%2e%2e/etc/passwd",
        "/v1/tasks/0-0%00",
        "/v1/tasks/0-0/../../pools",
        "//v1//tasks",
        "/v1/pools/%2e%2e%2fx",
        "/v1/tasks/%ff%fe",
        "/V1/TASKS",
    ] {
        let status = service.get(path).status;
        assert!(matches!(status, 400 | 404), "{path}: {status}");
    }
    works(&service);
}

#[test]
fn more_connections_than_allowed_wait_and_are_served() {
    let home = tempfile::tempdir().unwrap();
    let service = impatient(home.path(), &[("ERGATE_HTTP__CONNECTIONS_MAX", "8")]);
    let idle: Vec<_> = (0..40).map(|_| service.connect()).collect();
    // Silent ones are closed in time, and make room.
    works(&service);
    drop(idle);
    works(&service);
}
