//! The workers of `examples/workers/`, as their users run them: against an engine with every fault, and against a real one that is killed under them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "a test may panic, says what it skips, and uses a part of its helpers"
)]

#[path = "support/command.rs"]
mod command;
#[path = "http/service.rs"]
mod service;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use command::{run, signal, until, verify};
use service::Service;

const CONFIG: &str = r#"
[pool.models]
fleet = "external"
[task.resize]
pool = "models"
executor = "worker"
[task.count]
pool = "models"
executor = "worker"
[task.fetch]
pool = "models"
executor = "worker"
retry = { attempts = 2, initial = "50ms" }
"#;
const TASKS: usize = 6_000;

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED the workers that {program} runs: it is missing");
    }
    found
}

#[test]
fn both_clients_keep_the_protocol_whatever_their_engine_does() {
    if !is_there("python3") {
        return;
    }
    let which: &[&str] = if is_there("node") { &[] } else { &["Python"] };
    let ended = Command::new("python3").arg("tests/workers_clients/test_clients.py").args(which).output().unwrap();
    assert!(ended.status.success(), "{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
}

/// A worker in a process of its own, which ends with the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The examples, as far as their languages are there.
fn workers(engine: &str) -> Vec<Worker> {
    let examples = [("python3", "examples/workers/python/example.py"), ("node", "examples/workers/node/example.mjs")];
    let there = examples.into_iter().filter(|(program, _)| is_there(program));
    there
        .map(|(program, file)| Command::new(program).args([file, engine]).stderr(Stdio::null()).spawn().unwrap())
        .map(Worker)
        .collect()
}

fn start(listen: &str, home: &Path) -> Service {
    let path = home.join("my.toml");
    std::fs::write(&path, CONFIG).unwrap();
    Service::start_at(listen, home, &["--config", path.to_str().unwrap()], &[])
}

fn live(service: &Service) -> u64 {
    service.get("/v1/state").expect(200).json()["live"].as_u64().unwrap()
}

#[test]
fn workers_in_python_and_node_end_everything_once_though_their_engine_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let service = start("127.0.0.1:0", home.path());
    let listen = service.address.to_string();
    let mut workers = workers(&format!("http://{listen}"));
    if workers.is_empty() {
        return;
    }
    let lines = "{\"type\":\"resize\",\"payload\":{\"image\":\"a.png\"}}\n".repeat(TASKS);
    let ndjson = [("content-type", "application/x-ndjson")];
    assert_eq!(service.ask("POST", "/v1/tasks", &ndjson, lines.as_bytes()).expect(200).json()["accepted"], TASKS);
    until("a third is done", || live(&service) < TASKS as u64 * 2 / 3);
    service.kill();
    let service = start(&listen, home.path());
    let [count, fetch] =
        [r#"{"type":"count","payload":4}"#, r#"{"type":"fetch","payload":"busy"}"#].map(|request| service.submit(request));
    until("everything is done", || live(&service) <= 1);
    let end = |id: &str| service.get(&format!("/v1/tasks/{id}?wait=60s")).expect(200).json();
    assert_eq!(
        (&end(&count)["outcome"], service.get(&format!("/v1/tasks/{count}/result")).expect(200).json()),
        (&"SUCCEEDED".into(), 4.into())
    );
    let history = service.get(&format!("/v1/tasks/{fetch}/history")).expect(200).text();
    assert!(history.contains("rate-limited") && history.contains("the service wants a pause"), "{history}");
    for Worker(worker) in &mut workers {
        signal(worker, "TERM");
        assert_eq!(worker.wait().unwrap().code(), Some(0));
    }
    assert_eq!(service.get("/v1/workers").expect(200).json()["workers"], Value::Array(Vec::new()), "they have left");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data");
    verify(&data);
    let log = run(&["log", "export", "--data", data.to_str().unwrap()]).expect(0).json_lines();
    let count = |what: &dyn Fn(&Value) -> bool| log.iter().filter(|event| what(event)).count();
    assert_eq!(count(&|event| event["event"] == "succeeded"), TASKS + 1);
    assert_eq!(count(&|event| event["event"] == "lost" && event["departure"] == "lost"), 0, "no worker was taken for dead");
}
