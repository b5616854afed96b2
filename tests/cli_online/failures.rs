//! Services that are not there, not ours, too slow, full, or not to be trusted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::service::Service;
use crate::support::{command, refuses, run};

/// A service that gives these answers, one a connection, and the last one again and again; counts its connections.
fn imposter(answers: &'static [&'static str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            answer(stream.unwrap(), answers[number.min(answers.len() - 1)]);
        }
    });
    (address, asked)
}

fn answer(mut stream: TcpStream, text: &str) {
    let _ = stream.read(&mut [0_u8; 64 << 10]);
    let _ = stream.write_all(text.as_bytes());
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\r\n\
{\"type\":\"urn:ergate:problem:busy\",\"title\":\"not now\",\"status\":429,\"detail\":\"it is full\",\"retry_after_ms\":20}";
const TAKEN: &str =
    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 31\r\n\r\n{\"id\":\"0-7\",\"duplicate\":false }\n";

#[test]
fn nobody_there_is_one_line_with_who_chose_the_address() {
    let address = crate::support::free();
    for verb in [&["task", "list"][..], &["submit", "noop"], &["log", "tail", "-f"], &["task", "list", "--watch"]] {
        let started = Instant::now();
        refuses(&run(&[verb, &["--url", &url(address)]].concat()), 10, &[&url(address), "--url", "refused", "ergate up"]);
        assert!(started.elapsed() < Duration::from_secs(20), "{verb:?}");
    }
    let by_variable = command(&["task", "list"]).env("ERGATE_URL", url(address)).output().unwrap();
    assert!(String::from_utf8_lossy(&by_variable.stderr).contains("chosen by ERGATE_URL"), "{by_variable:?}");
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("ergate.toml"), format!("[client]\nurl = \"{}\"\n", url(address))).unwrap();
    let by_file = command(&["task", "list"]).current_dir(home.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&by_file.stderr).contains("ergate.toml:2"), "{by_file:?}");
    refuses(&run(&["status", "--url", "http://no-such-host.invalid"]), 10, &["no-such-host.invalid"]);
    for (bad, words) in [("localhost:7420", "http://"), ("http://me:hunter2@x", "--token-file"), ("http://x:0", "port")] {
        let refused = run(&["task", "list", "--url", bad]);
        refuses(&refused, 2, &[words, "--url"]);
        assert!(!refused.err.contains("hunter2"), "{refused:?}");
    }
}

#[test]
fn a_silent_service_is_not_waited_for_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = |verb: &[&str]| {
        let started = Instant::now();
        let ended = run(&[verb, &["--url", &url(address), "--answer-within", "300ms"]].concat());
        assert!(started.elapsed() < Duration::from_secs(30), "{verb:?}");
        ended
    };
    refuses(&asked(&["task", "list"]), 10, &["did not answer within 300ms"]);
    // Whether a request that changes something was done is told as it is: nobody knows.
    refuses(&asked(&["submit", "noop"]), 10, &["did not answer within 300ms", "nobody knows whether it was done", "--key"]);
}

#[test]
fn what_is_no_service_of_ours_is_named_as_such() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
    ] {
        let (address, asked) = imposter(Box::leak(Box::new([text])));
        refuses(&run(&["task", "list", "--url", &url(address)]), 10, &["is that the address of an `ergate up`?"]);
        assert_eq!(asked.load(Ordering::SeqCst), 1, "redirects are not followed");
    }
    let (address, _) = imposter(&["SSH-2.0-OpenSSH\r\n"]);
    refuses(&run(&["task", "list", "--url", &url(address)]), 10, &[&url(address)]);
    let (address, _) = imposter(&["HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"tasks\":["]);
    refuses(&run(&["task", "list", "--url", &url(address)]), 10, &["broke"]);
}

#[test]
fn a_full_service_is_asked_again_a_few_times() {
    let (address, asked) = imposter(&[BUSY, BUSY, TAKEN]);
    assert_eq!(run(&["submit", "noop", "--url", &url(address)]).expect(0).out, "0-7\n");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let (address, asked) = imposter(&[BUSY]);
    refuses(&run(&["submit", "noop", "--url", &url(address)]), 8, &["it is full", "try again in 20ms"]);
    assert_eq!(asked.load(Ordering::SeqCst), 6, "as often as the documentation says");
    let (address, asked) = imposter(&[BUSY]);
    refuses(&run(&["task", "list", "--url", &url(address)]), 8, &["it is full"]);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "looking is not repeated");
}

#[test]
fn followers_beyond_the_limit_are_told() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__STREAMS_MAX", "0")]);
    refuses(&crate::support::ask(&service, &["log", "tail"]), 8, &["0 clients follow the log already", "try again in 5s"]);
}
