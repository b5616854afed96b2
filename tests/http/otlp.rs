//! Spans of attempts, sent to a collector that is a few lines of this file.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::command::until;
use crate::service::Service;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What came, each with its path.
type Got = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector and its address.
fn collector() -> (String, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, got) = (listener.local_addr().unwrap(), Got::default());
    let shared = Arc::clone(&got);
    std::thread::spawn(move || listener.incoming().for_each(|stream| shared.lock().unwrap().push(take(stream.unwrap()))));
    (format!("http://{address}"), got)
}

/// Takes one request and answers it.
fn take(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    (first, body)
}

fn has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn attempts_are_children_of_the_spans_that_asked_and_the_last_ones_are_sent_at_the_end() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("my.toml");
    let types = "[task.talk]\nexecutor = { process = [\"sh\", \"-c\", \"echo hello >&2; exit 3\"] }\nretry = { attempts = 1 }\n";
    std::fs::write(&config, types).unwrap();
    let (endpoint, got) = collector();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let service = Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &variables);
    let traced = |flags: &str| format!(r#"{{"type":"talk","traceparent":"00-{TRACE}-{PARENT}-{flags}"}}"#);
    let id = service.submit(&traced("01"));
    service.get(&format!("/v1/tasks/{id}?wait=60s")).expect(200);
    let arrived = || got.lock().unwrap().iter().find(|(_, body)| has(body, id.as_bytes())).cloned();
    until("the span is sent", || arrived().is_some());
    let (first, body) = arrived().unwrap();
    assert_eq!(first.trim_end(), "POST /v1/traces HTTP/1.1");
    // Field numbers of the OTLP protocol: trace 1 with 16 bytes, parent 4 with 8, name 5.
    for part in [[vec![0x0a, 16], bytes(TRACE)].concat(), [vec![0x22, 8], bytes(PARENT)].concat(), b"\x2a\x07attempt".to_vec()] {
        assert!(has(&body, &part), "{part:02x?}");
    }
    for text in ["service.name", "ergate.attempt", "ergate.outcome", "FAILED", "exit"] {
        assert!(has(&body, text.as_bytes()), "{text}");
    }
    // Who asked decides whether the trace is recorded.
    let quiet = service.submit(&traced("00"));
    service.get(&format!("/v1/tasks/{quiet}?wait=60s")).expect(200);
    let last = service.submit(r#"{"type":"noop"}"#);
    service.get(&format!("/v1/tasks/{last}?wait=60s")).expect(200);
    until("the next one is sent", || got.lock().unwrap().iter().any(|(_, body)| has(body, last.as_bytes())));
    assert!(!got.lock().unwrap().iter().any(|(_, body)| has(body, quiet.as_bytes())), "it was not sampled");
}

#[test]
fn a_collector_that_is_gone_harms_no_task_and_the_end_sends_what_is_left() {
    let home = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://{nobody}")), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let service = Service::start_with(home.path(), &[], &gone);
    let id = service.submit(r#"{"type":"noop"}"#);
    service.get(&format!("/v1/tasks/{id}/result?wait=60s")).expect(200);
    until("it is said", || service.said().contains("spans were not sent"));
    service.kill();
    let (endpoint, got) = collector();
    let late = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "600000")];
    let service = Service::start_with(home.path(), &[], &late);
    let id = service.submit(r#"{"type":"noop"}"#);
    service.get(&format!("/v1/tasks/{id}/result?wait=60s")).expect(200);
    service.signal("TERM");
    until("the end sends it", || got.lock().unwrap().iter().any(|(_, body)| has(body, id.as_bytes())));
}
