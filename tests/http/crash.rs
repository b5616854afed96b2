//! kill -9 while many submit: what was acknowledged is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::command::{until, verify};
use crate::service::{Answer, Service};

/// Submits with keys until the service is gone; notes the ids that it acknowledged.
fn submit(address: std::net::SocketAddr, worker: usize, acknowledged: &Mutex<BTreeSet<u64>>, over: &AtomicBool) {
    for number in 0.. {
        let body = format!(r#"{{"type":"noop","key":"{worker}-{number}"}}"#);
        let head = "POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
        let Ok(mut stream) = TcpStream::connect(address) else { return };
        let mut answer = Vec::new();
        let sent = write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len());
        if sent.is_err() || stream.read_to_end(&mut answer).is_err() || over.load(Ordering::Relaxed) && answer.is_empty() {
            return;
        }
        if !answer.ends_with(b"}") {
            return;
        }
        let id = Answer::read(&answer).expect(201).json()["id"].as_str().unwrap().to_owned();
        acknowledged.lock().unwrap().insert(id.strip_prefix("0-").unwrap().parse().unwrap());
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let home = tempfile::tempdir().unwrap();
    let (acknowledged, over) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    for round in 0..3 {
        let service = Service::start(home.path());
        let address = service.address;
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
                std::thread::spawn(move || submit(address, round * 8 + worker, &acknowledged, &over))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        service.kill();
        over.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    }
    let acknowledged = acknowledged.lock().unwrap();
    assert!(acknowledged.len() > 50, "only {} were acknowledged", acknowledged.len());
    let service = Service::start(home.path());
    for id in acknowledged.iter().rev().take(20).chain(acknowledged.iter().take(20)) {
        let shown = service.get(&format!("/v1/tasks/0-{id}?wait=30s")).expect(200).json();
        assert_eq!(shown["outcome"], "SUCCEEDED");
    }
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let state = verify(&home.path().join("data"));
    let last = acknowledged.last().copied().unwrap();
    assert!(state.next_ordinal().0 > last, "0-{last} was acknowledged, and the log ends before it");
    assert_eq!(state.work.tasks.len(), 0);
}

/// Answers every call a moment later and notes its key.
fn serve(listener: &TcpListener, keys: &Mutex<Vec<String>>) {
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            scope.spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                loop {
                    let (mut line, mut length, mut key) = (String::new(), 0, String::new());
                    while stream.read_line(&mut line).unwrap_or(0) > 2 {
                        let lower = line.to_ascii_lowercase();
                        if let Some(value) = lower.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        } else if let Some(value) = lower.strip_prefix("idempotency-key:") {
                            key = value.trim().to_owned();
                        }
                        line.clear();
                    }
                    if key.is_empty() || stream.read_exact(&mut vec![0; length]).is_err() {
                        return;
                    }
                    keys.lock().unwrap().push(key);
                    std::thread::sleep(Duration::from_millis(100));
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n1";
                    if stream.get_mut().write_all(answer).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_thousand_commands_and_calls_survive_a_kill_and_none_runs_twice_with_one_fence() {
    let home = tempfile::tempdir().unwrap();
    let (script, effects) = (home.path().join("work.sh"), home.path().join("effects"));
    // A command that begins while there is a file of that name runs on until it is gone: at the kill one surely runs.
    let (hold, held) = (home.path().join("hold"), home.path().join("held"));
    let work = format!(
        "#!/bin/sh\necho \"$ERGATE_TASK-$ERGATE_FENCE\" >> {}\nsleep 0.02\nwhile [ -e {} ]; do : > {}; sleep 0.02; done\n",
        effects.display(),
        hold.display(),
        held.display()
    );
    std::fs::write(&script, work).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap();
    let keys: &'static Mutex<Vec<String>> = Box::leak(Box::default());
    std::thread::spawn(move || serve(&listener, keys));
    let config = home.path().join("ergate.toml");
    let types = format!(
        "[task.command]\nexecutor = {{ process = [\"./work.sh\"] }}\n[task.call]\nexecutor = {{ http = \"http://{place}/\" }}\n"
    );
    std::fs::write(&config, types).unwrap();
    let start = || Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &[]);
    let service = start();
    let lines: String = (0..1_000).map(|n| format!("{{\"type\":\"{}\"}}\n", ["command", "call"][n % 2])).collect();
    let taken = service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
    assert_eq!(taken.json()["accepted"], 1_000);
    until("some have ended and others run", || {
        let ended = service.get("/v1/tasks?outcome=SUCCEEDED&limit=100").expect(200).json()["tasks"].as_array().unwrap().len();
        ended >= 50 && keys.lock().unwrap().len() >= 100
    });
    std::fs::write(&hold, "").unwrap();
    until("a command is held", || held.exists());
    service.kill();
    std::fs::remove_file(&hold).unwrap();
    let begun = keys.lock().unwrap().len();
    assert!(begun < 500, "all calls were made before the kill, which then proves nothing");
    let service = start();
    for number in 0..1_000 {
        let shown = service.get(&format!("/v1/tasks/0-{number}?wait=60s")).expect(200).json();
        assert_eq!(shown["outcome"], "SUCCEEDED", "{shown}");
    }
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verify(&home.path().join("data"));
    let commands = std::fs::read_to_string(&effects).unwrap();
    for (what, mut all) in
        [("command", commands.lines().map(str::to_owned).collect::<Vec<_>>()), ("call", keys.lock().unwrap().clone())]
    {
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "a {what} ran twice with one fence");
        assert!(count > 500, "no {what} was repeated although the service was killed in the middle: {count}");
    }
}
