//! CPU and memory of replicas on a live engine: what workers tell, what policies make of it, and a ceiling that nothing exceeds.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, dead_code, reason = "a test may panic, and uses a part of its helpers")]

#[path = "support/command.rs"]
mod command;
#[path = "http/service.rs"]
mod service;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use command::{ergate, run, until};
use service::Service;

const ID: &str = "0123456789abcdef0123456789abcdef";

fn start(home: &Path, config: &str, policies: &[(&str, &str)]) -> Service {
    for (name, text) in policies {
        std::fs::write(home.join(name), text).unwrap();
    }
    let path = home.join("my.toml");
    std::fs::write(&path, config).unwrap();
    Service::start_with(home, &["--config", path.to_str().unwrap()], &[])
}

fn put(service: &Service, path: &str, body: &Value) -> service::Answer {
    service.ask("PUT", path, &[("content-type", "application/json")], body.to_string().as_bytes())
}

fn why(service: &Service, pool: &str) -> Value {
    service.get(&format!("/v1/pools/{pool}/why")).expect(200).json()
}

/// A signal as the last decision about a pool was shown it.
fn signal(told: &Value, name: &str) -> Value {
    let signals = told["decision"]["signals"].as_array().cloned().unwrap_or_default();
    signals.into_iter().find(|signal| signal["name"] == name).unwrap_or_default()
}

fn patch(service: &Service, pool: &str, body: &Value) -> service::Answer {
    service.ask("PATCH", &format!("/v1/pools/{pool}"), &[("content-type", "application/json")], body.to_string().as_bytes())
}

/// The last decision about every pool, made again from the log.
fn verified(home: &Path) {
    let data = home.join("data");
    let told = run(&["log", "verify", "--decisions", "--data", data.to_str().unwrap()]).expect(0);
    assert!(!told.out.contains("differ"), "{told:?}");
    command::verify(&data);
}

#[test]
fn processes_that_burn_their_cpu_cross_a_threshold_and_the_pool_grows() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"
[pool.crew]
fleet = "process"
replicas = { min = 1, max = 3 }
slots = 1
cpu = 0.2
memory = "64MiB"
policy = "hot.toml"
[task.burn]
pool = "crew"
executor = { process = ["sh", "-c", "end=$(($(date +%s)+600)); while [ $(date +%s) -lt $end ]; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done"] }
"#;
    // CPU above 70 % for two seconds: add one.
    let hot = "policy = \"threshold\"\nspacing = 2_000_000\n[[up]]\nsignal = \"cpu_percent\"\nlimit = 70\nlasting = 2_000_000\n";
    let service = start(home.path(), config, &[("hot.toml", hot)]);
    let ids: Vec<String> = (0..4).map(|_| service.submit(r#"{"type":"burn","payload":null}"#)).collect();
    let mut grown = Value::Null;
    until("the pool has grown by its CPU", || {
        grown = why(&service, "crew");
        grown["replicas"].as_u64() > Some(1)
    });
    // What a replica uses is what its task burns, with the process of the worker above it.
    let percent = signal(&grown, "cpu_percent");
    assert!(percent["value"].as_f64().is_some_and(|percent| percent > 70.0 && percent < 1_000.0), "{grown}");
    let pool = service.get("/v1/pools/crew").expect(200).json();
    assert!(pool["usage"]["cpu_cores"].as_f64() > Some(0.1), "{pool}");
    assert!(pool["usage"]["memory_bytes"].as_u64() > Some(1 << 20), "{pool}");
    assert_eq!(pool["resources"]["asked"], json!({"cpu_milli": 200, "memory_bytes": 64 << 20}), "{pool}");
    let figures = service.get("/metrics").expect(200).text();
    let figure = |name: &str| {
        let line = figures.lines().find_map(|line| line.strip_prefix(&format!("{name}{{pool=\"crew\"}} ")));
        line.unwrap_or_else(|| panic!("no {name}: {figures}")).parse::<f64>().unwrap()
    };
    assert!(figure("ergate_pool_cpu_cores") > 0.1 && figure("ergate_pool_memory_bytes") > 1e6);
    assert!(figure("ergate_pool_usage_told") >= 1.0);
    until("the pool is as large as it may be", || why(&service, "crew")["replicas"] == 3);
    for id in ids {
        service.post(&format!("/v1/tasks/{id}/kill"), "{}").expect(200);
    }
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verified(home.path());
}

#[test]
fn threads_of_the_engine_are_told_what_the_engine_uses_and_the_controller_sees_each() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"
[pool.crew]
replicas = { min = 1, max = 4 }
slots = 1
cpu = 0.1
policy = "seed.toml"
[task.burn]
pool = "crew"
executor = { process = ["sh", "-c", "while :; do :; done"] }
"#;
    // CPU above 70 % of what a replica asks for, as the controller of Kubernetes sees it, at a pace for tests.
    let seed = "policy = \"hpa\"\n[controller]\nsync_period = 500_000\ncpu_initialization = 0\ninitial_readiness = 0\n[[metrics]]\nsource = \"resource\"\nname = \"cpu\"\ntarget = { utilization = 70 }\n[[metrics]]\nsource = \"pods\"\nname = \"busy_percent\"\ntarget = { average_value_milli = 1000000 }\n";
    let service = start(home.path(), config, &[("seed.toml", seed)]);
    let id = service.submit(r#"{"type":"burn","payload":null}"#);
    until("it has grown by CPU", || why(&service, "crew")["replicas"].as_u64() > Some(1));
    let told = why(&service, "crew");
    let inputs = told["decision"]["inputs"].as_array().unwrap();
    assert_eq!(inputs[0]["name"], "cpu resource utilization (percentage of request)", "{told}");
    assert!(inputs[1]["asks"].as_u64().is_some(), "how busy each is was read: {told}");
    service.post(&format!("/v1/tasks/{id}/kill"), "{}").expect(200);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verified(home.path());
}

#[test]
fn a_worker_that_stops_telling_is_missing_and_no_zero() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"
[pool.models]
fleet = "external"
replicas = { min = 1, max = 3 }
slots = 1
cpu = 2
policy = "cold.toml"
[task.resize]
pool = "models"
executor = "worker"
"#;
    // Below 30 %: one less. What is not known is not below.
    let cold = "policy = \"threshold\"\nspacing = 0\n[[up]]\nsignal = \"cpu_percent\"\nlimit = 70\n[[down]]\nsignal = \"cpu_percent\"\nlimit = 30\n[[down]]\nsignal = \"memory_bytes\"\nlimit = 1\n";
    let service = start(home.path(), config, &[("cold.toml", cold)]);
    let at = |path: &str| format!("/v1/workers/{ID}{path}");
    let told = put(&service, &at(""), &json!({"protocol": 1, "pool": "models", "slots": 1})).expect(200).json();
    assert_eq!(told["usage_every"], "10s", "{told}");
    // Tasks that nobody takes let the pool be looked at every second.
    let _waiting = service.submit(r#"{"type":"resize","payload":null}"#);
    let tell = |usage: &Value| service.post(&at("/report"), &json!({ "usage": usage }).to_string());
    for wrong in [
        json!({"cpu_cores": -1}),
        json!({"cpu_cores": 1e9}),
        json!({"memory_bytes": u64::MAX}),
        json!({"over": "soon"}),
        json!({"gpu": 1}),
    ] {
        tell(&wrong).expect(422);
    }
    tell(&json!({"cpu_cores": 1.5, "memory_bytes": 1_000_000, "over": "1.7s"})).expect(200);
    let began = Instant::now();
    until("what it told is seen", || signal(&why(&service, "models"), "cpu_percent")["value"] == 75.0);
    assert_eq!(signal(&why(&service, "models"), "memory_bytes")["value"], 1e6);
    let shown = service.get(&at("")).expect(200).json();
    assert_eq!((&shown["usage"]["cpu_cores"], &shown["usage"]["memory_bytes"]), (&json!(1.5), &json!(1_000_000)), "{shown}");
    // It says nothing more.
    let reason = |name: &str| signal(&why(&service, "models"), name)["failed"].as_str().unwrap_or_default().to_owned();
    until("it is missing", || !reason("cpu_percent").is_empty());
    assert!(began.elapsed() >= Duration::from_secs(29), "{:?}", began.elapsed());
    assert_eq!(reason("cpu_percent"), "0 of 1 replicas told lately how much CPU they use");
    let told = why(&service, "models");
    assert_eq!(told["decision"]["reason"], "unknown", "{told}");
    tell(&json!({"cpu_cores": 1.5, "memory_bytes": 1_000_000})).expect(200);
    until("it is there again", || signal(&why(&service, "models"), "cpu_percent")["value"] == 75.0);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verified(home.path());
}

#[test]
fn nothing_exceeds_a_ceiling_and_why_says_its_arithmetic() {
    let home = tempfile::tempdir().unwrap();
    let config = r#"
[pool.crew]
replicas = { min = 0, max = 20 }
slots = 2
cpu = 2
memory = "4GiB"
ceiling = { slots = 64, cpu = 7, memory = "128GiB" }
policy = "all.toml"
[pool.hand]
replicas = 1
slots = 2
ceiling = { slots = 8 }
[task.nap]
pool = "crew"
executor = { process = ["sh", "-c", "sleep 600"] }
[task.other]
pool = "hand"
executor = { process = ["true"] }
"#;
    let all = "policy = \"kpa\"\nsignal = \"work\"\ntarget_utilization = 1.0\ntick = 100_000\nstable_window = 1_000_000\n";
    let service = start(home.path(), config, &[("all.toml", all)]);
    let ids: Vec<String> = (0..30).map(|_| service.submit(r#"{"type":"nap","payload":null}"#)).collect();
    until("the ceiling is reached", || why(&service, "crew")["replicas"] == 3);
    until("it cuts", || why(&service, "crew")["decision"]["limits"].as_array().is_some_and(|limits| !limits.is_empty()));
    let told = why(&service, "crew");
    let limit = told["decision"]["limits"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&limit["kind"], &limit["to"]), (&json!("ceiling"), &json!(3)), "{told}");
    assert!(limit["by"].as_str().unwrap().starts_with("7 cores at 2 cores each, pool_resources_set at position "), "{told}");
    let sentence = told["decision"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("the pool's ceiling of 7 cores at 2 cores each makes 3 of "), "{sentence}");
    assert_eq!(told["resources"]["fit"], json!({"replicas": 3, "by": "cpu", "because": "7 cores at 2 cores each"}), "{told}");
    let not = service.get("/v1/pools/crew/why?not=9").expect(200).json()["not"]["because"].as_str().unwrap().to_owned();
    assert!(
        not.starts_with("3 fit under the pool's ceiling of 7 cores at 2 cores each (pool_resources_set at position "),
        "{not}"
    );
    assert!(not.ends_with("; raise `ceiling.cpu` to 18 cores"), "{not}");
    let not = service.get("/v1/pools/crew/why?not=25").expect(200).json()["not"]["because"].as_str().unwrap().to_owned();
    assert!(not.contains("raise `max`; and 3 fit under"), "{not}");
    let url = format!("http://{}", service.address);
    let shown = run(&["pool", "show", "crew", "--url", &url]).expect(0).out;
    for part in ["2 cores, 4 GiB", "3 replicas: 7 cores at 2 cores each"] {
        assert!(shown.contains(part), "{shown}");
    }
    // A task that waits is told that the ceiling keeps it, and which setting would not.
    // One that has just come has waited for no time until something happens after it, at the latest when the policy looks again.
    let mut waits = Value::Null;
    until("the last one is known to wait for the ceiling", || {
        waits = service.get(&format!("/v1/tasks/{}/why", ids.last().unwrap())).expect(200).json();
        waits["by_cause_us"]["bound"].as_u64() > Some(0)
    });
    assert!(
        waits["parts"].as_array().unwrap().iter().any(|part| part["because"].as_str().unwrap().contains("and ceiling made it 3")),
        "{waits}"
    );
    let remedy = waits["remedy"]["setting"].as_str().unwrap();
    assert!(remedy.starts_with("pool.crew.ceiling.cpu = "), "{waits}");

    // Nor by hand, be there a policy or none; nor a floor above it.
    let patch = |pool: &str, replicas: u32| {
        let body = json!({ "replicas": replicas }).to_string();
        service.ask("PATCH", &format!("/v1/pools/{pool}"), &[("content-type", "application/json")], body.as_bytes())
    };
    let refused = patch("hand", 5).expect(422).json();
    let detail = "5 replicas do not fit under the pool's ceiling: 8 slots at 2 slots each are 4; lower the count, or raise `ceiling.slots` to 10 slots";
    assert_eq!(
        (&refused["detail"], &refused["fit"], &refused["ceiling"]),
        (&json!(detail), &json!(4), &json!("slots")),
        "{refused}"
    );
    patch("hand", 4).expect(200);
    patch("crew", 4).expect(422);
    let policy = json!({"policy": {"policy": "rate"}, "min": 4, "max": 20});
    let refused = put(&service, "/v1/pools/crew/policy", &policy).expect(422).json();
    assert!(
        refused["detail"].as_str().unwrap().starts_with("4 replicas do not fit under the pool's ceiling: 7 cores"),
        "{refused}"
    );
    assert_eq!(service.get("/v1/pools/crew").expect(200).json()["replicas_up"], 3);
    for id in ids {
        let _ = service.post(&format!("/v1/tasks/{id}/kill"), "{}");
    }
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verified(home.path());

    // At a start with other settings they count, and a floor that does not fit starts nothing.
    let path = home.path().join("my.toml");
    let data = home.path().join("data");
    let up = |config: &str| {
        std::fs::write(&path, config).unwrap();
        command::Ended::of(
            &ergate(&["up", "--data", data.to_str().unwrap(), "--config", path.to_str().unwrap()]).output().unwrap(),
        )
    };
    let ended = up(&config.replace("min = 0", "min = 4"));
    assert_ne!(ended.code, Some(0));
    for part in ["pool.crew.ceiling.cpu", "the pool has 4 replicas at least, and 3 fit: 7 cores at 2 cores each"] {
        assert!(ended.err.contains(part), "{ended:?}");
    }
    let service = start(home.path(), &config.replace("cpu = 7", "cpu = 40").replace("slots = 8", "slots = 2"), &[]);
    assert_eq!(why(&service, "crew")["resources"]["fit"]["replicas"], 20);
    assert_eq!(service.get("/v1/pools/hand").expect(200).json()["replicas"], 1);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verified(home.path());
}

#[test]
fn a_shadow_that_reads_cpu_decides_beside_a_rate_under_a_ceiling_and_a_hold() {
    let home = tempfile::tempdir().unwrap();
    let config = |ceiling: u32| {
        format!(
            r#"
[pool.models]
fleet = "external"
replicas = {{ min = 1, max = 20 }}
slots = 1
cpu = 2
ceiling = {{ slots = {ceiling} }}
policy = "rate.toml"
[pool.models.shadow.hot]
policy = "hot.toml"
[task.resize]
pool = "models"
executor = "worker"
"#
        )
    };
    let policies = [
        ("rate.toml", "policy = \"rate\"\n"),
        ("hot.toml", "policy = \"threshold\"\nspacing = 0\n[[up]]\nsignal = \"cpu_percent\"\nlimit = 70\n"),
    ];
    let service = start(home.path(), &config(3), &policies);
    let at = |path: &str| format!("/v1/workers/{ID}{path}");
    put(&service, &at(""), &json!({"protocol": 1, "pool": "models", "slots": 1})).expect(200);
    service.post(&at("/report"), &json!({"usage": {"cpu_cores": 1.5, "over": "2s"}}).to_string()).expect(200);
    // A shadow is asked when something happens, as a policy is.
    let _waiting = service.submit(r#"{"type":"resize","payload":null}"#);
    let shadow = |service: &Service| service.get("/v1/pools/models/why?shadow=hot").expect(200).json();
    until("the shadow has seen what the worker told", || signal(&shadow(&service), "cpu_percent")["value"] == 75.0);
    assert_eq!(signal(&why(&service, "models"), "cpu_percent"), Value::Null, "the policy of the pool reads none");

    let held = patch(&service, "models", &json!({"replicas": 9, "for": "1h", "reason": "launch"})).expect(200).json();
    assert_eq!(
        (&held["hold"]["replicas"], &held["hold"]["size"], &held["hold"]["cut_by"]),
        (&json!(9), &json!(3), &json!("ceiling"))
    );
    assert_eq!(held["replicas"], 3, "{held}");
    until("the shadow wants one more than there is room for", || shadow(&service)["decision"]["from"] == 3);
    let told = shadow(&service);
    let limits = told["decision"]["limits"].as_array().unwrap();
    assert_eq!(
        (limits.len(), &limits[0]["kind"], &limits[0]["from"], &limits[0]["to"]),
        (1, &json!("ceiling"), &json!(4), &json!(3))
    );
    assert!(limits[0]["by"].as_str().unwrap().starts_with("3 slots at 1 slot each, pool_resources_set at"), "{told}");
    let told = why(&service, "models");
    let limits = told["decision"]["limits"].as_array().unwrap();
    assert_eq!(limits.last().unwrap()["kind"], "hold", "{told}");
    assert_eq!((&told["replicas"], &told["hold"]["cut_by"]), (&json!(3), &json!("ceiling")), "{told}");
    let not = |service: &Service, count: u32| {
        let told = service.get(&format!("/v1/pools/models/why?not={count}")).expect(200).json();
        told["not"]["because"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    assert!(not(&service, 2).starts_with("it is held at 3 ("), "{}", not(&service, 2));
    assert!(not(&service, 9).contains("raise `ceiling.slots` to 9 slots"), "{}", not(&service, 9));
    // By hand and for good, what does not fit is refused; for some time it is cut.
    patch(&service, "models", &json!({"replicas": 9, "reason": "launch"})).expect(422);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));

    // With more room, what is held is more, and nobody has to ask.
    let service = start(home.path(), &config(5), &policies);
    until("what is held has grown", || why(&service, "models")["replicas"] == 5);
    service.post("/v1/pools/models/release", r#"{"reason":"it went well"}"#).expect(200);
    until("the policy decides again", || why(&service, "models")["replicas"].as_u64() < Some(5));
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verified(home.path());
}
