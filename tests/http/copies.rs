//! Copies of a running service's log, and looks at it through them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use serde_json::Value;

use crate::command::{run, until};
use crate::service::Service;

fn work(service: &Service, count: usize) {
    let lines: String = (0..count).map(|n| format!("{{\"type\":\"noop\",\"payload\":\"{n}\"}}\n")).collect();
    let taken = service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
    assert_eq!(taken.json()["accepted"], count);
}

/// Waits until nothing happens any more.
fn rest(service: &Service) {
    until("all have ended", || {
        service.get("/v1/tasks?state=live&limit=1").expect(200).json()["tasks"].as_array().unwrap().is_empty()
    });
    let mut before = 0;
    until("the log rests", || {
        let now = service.get("/v1/state").expect(200).json()["position"].as_u64().unwrap();
        std::mem::replace(&mut before, now) == now
    });
}

/// A position in an answer.
fn at(told: &Value) -> u64 {
    told.as_str().unwrap().parse().unwrap()
}

fn copy(url: &str, to: &Path) -> Value {
    run(&["log", "copy", to.to_str().unwrap(), "--url", url, "-o", "json"]).expect(0).json()
}

/// Every block of a log with its events.
fn blocks(data: &Path) -> String {
    run(&["log", "export", "--format", "blocks", "--data", data.to_str().unwrap()]).expect(0).out
}

#[test]
fn a_copy_is_the_log_and_goes_on_where_it_ended() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let (url, to) = (format!("http://{}", service.address), home.path().join("copy"));
    work(&service, 300);
    let first = copy(&url, &to);
    assert_eq!(at(&first["from"]), 0);
    work(&service, 300);
    rest(&service);
    let second = copy(&url, &to);
    assert_eq!(second["from"], first["next"]);
    assert!(at(&second["next"]) > at(&first["next"]));
    let third = copy(&url, &to);
    assert_eq!((&third["from"], &third["hash"]), (&second["next"], &second["hash"]));
    run(&["log", "verify", "--decisions", "--data", to.to_str().unwrap()]).expect(0);
    // What looks at a directory looks at a service as well.
    let verified = run(&["log", "verify", "--decisions", "--url", &url, "-o", "json"]).expect(0).json();
    assert_eq!(verified["events"], at(&second["next"]), "{verified}");
    let there = run(&["log", "export", "--url", &url]).expect(0).out;
    assert_eq!(there.lines().count() as u64, at(&second["next"]));
    run(&["log", "show", "3", "--url", &url]).expect(0);
    run(&["log", "repair", "--url", &url]).expect(2);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let (whole, kept) = (blocks(&home.path().join("data")), blocks(&to));
    assert!(!kept.is_empty() && whole.starts_with(&kept), "the copy is not what the log begins with");
    // A copy is a log: work goes on in it.
    let other = tempfile::tempdir().unwrap();
    std::fs::rename(&to, other.path().join("data")).unwrap();
    let service = Service::start(other.path());
    work(&service, 10);
    // It has gone another way than the one that it is a copy of.
    let url = format!("http://{}", service.address);
    assert_eq!(copy(&url, &to)["store"], first["store"]);
    service.kill();
    let first = Service::start(home.path());
    work(&first, 100);
    let url = format!("http://{}", first.address);
    let refused = run(&["log", "copy", to.to_str().unwrap(), "--url", &url]);
    assert!(refused.code != Some(0) && refused.err.contains("another history"), "{}", refused.err);
}

#[test]
fn only_an_empty_directory_or_a_copy_of_the_same_log_is_written_to() {
    let (home, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (service, stranger) = (Service::start(home.path()), Service::start(other.path()));
    let url = format!("http://{}", service.address);
    let full = home.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("notes"), "mine").unwrap();
    let refused = run(&["log", "copy", full.to_str().unwrap(), "--url", &url]).expect(2);
    assert!(refused.err.contains("no empty directory"), "{}", refused.err);
    let to = home.path().join("copy");
    copy(&url, &to);
    let refused = run(&["log", "copy", to.to_str().unwrap(), "--url", &format!("http://{}", stranger.address)]).expect(2);
    assert!(refused.err.contains("name another directory"), "{}", refused.err);
    service.get("/v1/log/copy?from=999999").problem(404, "not-found");
    service.get("/v1/log/copy?from=x").problem(422, "invalid");
    // In the middle of the first block.
    service.get("/v1/log/copy?from=2").problem(422, "invalid");
}

#[test]
fn a_log_whose_beginning_is_gone_is_copied_with_the_state_that_it_goes_on_from() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("ergate.toml");
    let small = "[log]\nsegment_size = \"64KiB\"\nsnapshot_every_events = 2000\nkeep_events = 1000\n";
    std::fs::write(&config, small).unwrap();
    let service = Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &[]);
    let (url, to) = (format!("http://{}", service.address), home.path().join("copy"));
    until("retention drops the beginning", || {
        work(&service, 500);
        rest(&service);
        service.get("/v1/log?from=0&follow=false").status != 200
    });
    let made = copy(&url, &to);
    assert!(at(&made["from"]) > 0, "{made}");
    let verified = run(&["log", "verify", "--decisions", "--data", to.to_str().unwrap(), "-o", "json"]).expect(0).json();
    assert!(verified["events"].as_u64() > Some(0), "{verified}");
    run(&["log", "verify", "--decisions", "--url", &url]).expect(0);
}

/// Hands on a request, and of the answer only the first bytes.
fn cut(service: &Service, after: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, to) = (format!("http://{}", listener.local_addr().unwrap()), service.address);
    std::thread::spawn(move || {
        let (mut client, mut service) = (listener.accept().unwrap().0, TcpStream::connect(to).unwrap());
        let (mut asks, mut asked) = (client.try_clone().unwrap(), service.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut asks, &mut asked));
        let mut answer = Vec::new();
        Read::by_ref(&mut service).take(after).read_to_end(&mut answer).unwrap();
        client.write_all(&answer).unwrap();
        // Both ends, whoever else has them.
        client.shutdown(std::net::Shutdown::Both).unwrap();
    });
    url
}

#[test]
fn a_copy_that_was_cut_off_is_told_and_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    work(&service, 5_000);
    rest(&service);
    let (url, to) = (format!("http://{}", service.address), home.path().join("copy"));
    let mut reached = 0;
    for after in [60, 250, 2_000, 20_000] {
        let stopped = run(&["log", "copy", to.to_str().unwrap(), "--url", &cut(&service, after)]);
        assert!(!matches!(stopped.code, Some(0)), "{after}: {}{}", stopped.out, stopped.err);
        let state = run(&["log", "verify", "--data", to.to_str().unwrap(), "-o", "json"]);
        if state.code == Some(0) {
            let events = state.json()["events"].as_u64().unwrap();
            assert!(events >= reached, "what came was not kept");
            reached = events;
        }
    }
    assert!(reached > 0, "no part of a copy was kept");
    let whole = copy(&url, &to);
    assert_eq!(at(&whole["from"]), reached);
    run(&["log", "verify", "--decisions", "--data", to.to_str().unwrap()]).expect(0);
}
