//! Limits from the configuration: never more at once than they allow, nobody is held up by others, and the log names what delayed a task.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::command::{ergate, run};
use crate::service::Service;

/// Sleeps a moment with its place in the list of those who run.
const WORK: &str = "#!/bin/sh\nsleep 0.05\n";

fn configure(dir: &Path, rest: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let program = dir.join("work.sh");
    std::fs::write(&program, WORK).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.join("my.toml");
    std::fs::write(&path, format!("[task.work]\nexecutor = {{ process = [\"./work.sh\"] }}\n{rest}")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The events of the log in its order.
fn events(data: &Path) -> Vec<Value> {
    let output = ergate(&["log", "export", "--data", data.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_limit_by_key_holds_one_tenant_up_and_no_other() {
    let home = tempfile::tempdir().unwrap();
    let config = configure(home.path(), "limit = { key = \"tenant\", concurrency = 2 }\n");
    let service = Service::start_with(home.path(), &["--config", &config], &[]);
    // At once, so that all of them wait whatever a submit takes here.
    let line = |tenant: &str| format!("{{\"type\":\"work\",\"labels\":{{\"tenant\":\"{tenant}\"}}}}\n");
    let lines = line("loud").repeat(20) + &line("quiet");
    let taken = service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
    assert_eq!(taken.json()["accepted"], 21);
    let loud: Vec<String> = (0..20).map(|number| format!("0-{number}")).collect();
    let quiet = "0-20".to_owned();
    for id in loud.iter().chain([&quiet]) {
        assert_eq!(service.get(&format!("/v1/tasks/{id}?wait=60s")).expect(200).json()["outcome"], "SUCCEEDED");
    }
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let (mut running, mut most, mut limited, mut first_limited, mut ended) = (0, 0, BTreeMap::new(), None, Vec::new());
    for (index, event) in events(&home.path().join("data")).iter().enumerate() {
        let task = event["task"].as_str().unwrap_or_default().to_owned();
        let is_loud = loud.contains(&task);
        match event["event"].as_str().unwrap() {
            "started" if is_loud => running += 1,
            "succeeded" if is_loud => running -= 1,
            "limited" => {
                *limited.entry(task.clone()).or_insert(0) += 1;
                first_limited = first_limited.or(Some(index));
            }
            _ => {}
        }
        most = most.max(running);
        if event["event"] == "succeeded" {
            ended.push(task);
        }
    }
    assert_eq!(most, 2, "as many at once as are allowed, and no more");
    assert!(limited.len() >= 17 && !limited.contains_key(&quiet), "{limited:?}");
    let place = ended.iter().position(|id| *id == quiet).unwrap();
    assert!(place < 10, "the quiet tenant waits for no loud one, and ended as number {place}");
}

#[test]
fn what_delays_a_task_is_named_in_its_history() {
    let home = tempfile::tempdir().unwrap();
    let config = configure(home.path(), "limits = [\"slow\"]\n[limit.slow]\nrate = \"1/s\"\n");
    let service = Service::start_with(home.path(), &["--config", &config], &[]);
    let ids: Vec<String> = (0..3).map(|_| service.submit(r#"{"type":"work"}"#)).collect();
    let last = service.get(&format!("/v1/tasks/{}?wait=60s", ids[2])).expect(200).json();
    assert_eq!(last["outcome"], "SUCCEEDED");
    let history = service.get(&format!("/v1/tasks/{}/history", ids[2])).expect(200).json();
    let events: Vec<&str> = history["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(events[..2], ["requested", "limited"], "{events:?}");
    let admitted = events.iter().position(|event| *event == "admitted").unwrap();
    assert!(events.iter().position(|event| *event == "started").unwrap() > admitted, "{events:?}");
    let named = |events: &[Value]| (events[0]["task_type"].clone(), events[1]["limit"].clone());
    assert_eq!(named(history["events"].as_array().unwrap()), ("work".into(), "slow".into()));
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data").display().to_string();
    let offline = run(&["task", "history", &ids[2], "-o", "json", "--data", &data]).expect(0).json_lines();
    assert_eq!(named(&offline), ("work".into(), "slow".into()));
}

#[test]
fn a_pool_that_may_vary_keeps_its_size_over_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let pools = "[pool.models]\nreplicas = { min = 1, max = 4 }\nslots = 2\n[pool.fixed]\nreplicas = 2\n";
    let config = configure(home.path(), pools);
    let size = |service: &Service, name: &str| service.get(&format!("/v1/pools/{name}")).expect(200).json()["replicas"].clone();
    let scale = |service: &Service, name: &str, to: u32| {
        let body = format!("{{\"replicas\":{to}}}");
        service.ask("PATCH", &format!("/v1/pools/{name}"), &[("content-type", "application/json")], body.as_bytes()).expect(200);
    };
    let service = Service::start_with(home.path(), &["--config", &config], &[]);
    assert_eq!((size(&service, "models"), size(&service, "fixed")), (4.into(), 2.into()));
    scale(&service, "models", 3);
    scale(&service, "fixed", 3);
    service.kill();
    let service = Service::start_with(home.path(), &["--config", &config], &[]);
    assert_eq!((size(&service, "models"), size(&service, "fixed")), (3.into(), 2.into()));
    scale(&service, "models", 0);
    service.kill();
    let service = Service::start_with(home.path(), &["--config", &config], &[]);
    assert_eq!(size(&service, "models"), 1, "no smaller than the configuration lets it be");
}
