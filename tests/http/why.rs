//! Why tasks waited: every part of the time without a slot has its cause, its event and what would have avoided it, online as offline.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::command::run;
use crate::service::Service;

const CONFIG: &str = r#"
[pool.one]
replicas = 1
slots = 1
[pool.small]
preset = "scale-to-zero"
replicas = { min = 0, max = 2 }
slots = 1
[pool.bounded]
replicas = { min = 1, max = 2 }
slots = 1
policy = "more.toml"
[task.bounded]
pool = "bounded"
executor = { process = ["sleep", "0.5"] }
[task.alone]
pool = "one"
executor = { process = ["sleep", "0.2"] }
[task.limited]
limit = { concurrency = 1 }
executor = { process = ["sleep", "0.3"] }
[task.burst]
pool = "small"
executor = { process = ["sleep", "0.2"] }
"#;

fn start(home: &Path) -> Service {
    std::fs::write(
        home.join("more.toml"),
        "policy = \"threshold\"\nspacing = 10_000\nup = [{ signal = \"ready\", limit = 0 }]\n",
    )
    .unwrap();
    let path = home.join("my.toml");
    std::fs::write(&path, CONFIG).unwrap();
    Service::start_with(home, &["--config", path.to_str().unwrap()], &[])
}

fn why(service: &Service, id: &str) -> Value {
    let told = service.get(&format!("/v1/tasks/{id}/why")).expect(200).json();
    let parts = told["parts"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|part| part["waited_us"].as_u64().unwrap()).sum();
    let by_cause: u64 = told["by_cause_us"].as_object().unwrap().values().map(|cause| cause.as_u64().unwrap()).sum();
    assert_eq!((sum, by_cause), (told["waited_us"].as_u64().unwrap(), sum), "{told}");
    told
}

fn end(service: &Service, id: &str) {
    assert_eq!(service.get(&format!("/v1/tasks/{id}?wait=60s")).expect(200).json()["outcome"], "SUCCEEDED");
}

/// Asserts that a task waited for this for at least so long, and gives what would have avoided most of its wait.
#[track_caller]
fn waited(told: &Value, cause: &str, least: Duration) -> String {
    let waited = told["by_cause_us"][cause].as_u64().unwrap_or_default();
    assert!(waited >= least.as_micros() as u64, "{cause}: {told}");
    let part = told["parts"].as_array().unwrap().iter().find(|part| part["cause"] == cause).unwrap();
    assert!(part["event"].is_string() && part["position"].as_str().unwrap().parse::<u64>().is_ok(), "{part}");
    told["remedy"]["setting"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn each_part_of_a_wait_has_its_cause_and_the_longest_the_setting_that_avoids_it() {
    let home = tempfile::tempdir().unwrap();
    let service = start(home.path());
    let submit = |request: &str| service.submit(request);
    let limited: Vec<String> = (0..2).map(|_| submit(r#"{"type":"limited"}"#)).collect();
    let queued: Vec<String> = (0..3).map(|_| submit(r#"{"type":"alone"}"#)).collect();
    let burst: Vec<String> = (0..2).map(|_| submit(r#"{"type":"burst"}"#)).collect();
    let bounded: Vec<String> = (0..13).map(|_| submit(r#"{"type":"bounded"}"#)).collect();
    let after = submit(&format!(r#"{{"type":"noop","after":["{}"]}}"#, limited[1]));
    let later = submit(r#"{"type":"noop","delay":"400ms"}"#);
    [&limited[..], &queued, &burst, &bounded, &[after.clone(), later.clone()]].concat().iter().for_each(|id| end(&service, id));
    let told = why(&service, &limited[1]);
    let setting = waited(&told, "limit", Duration::from_millis(200));
    assert!(setting.starts_with("limit.") && setting.contains("concurrency 1"), "{setting}");
    let setting = waited(&why(&service, &queued[2]), "queue", Duration::from_millis(250));
    assert!(setting.starts_with("pool.one.replicas = "), "{setting}");
    // The first wakes its pool; the last would have, once its policy has looked again, had a replica without the most that its pool may have.
    let first = why(&service, &burst[0]);
    assert!(waited(&first, "cold_start", Duration::from_micros(1)).starts_with("pool.small.replicas.min = "), "{first}");
    let setting = waited(&why(&service, &bounded[12]), "bound", Duration::from_millis(200));
    assert!(setting.starts_with("pool.bounded.replicas.max = "), "{setting}");
    waited(&why(&service, &after), "dependency", Duration::from_millis(400));
    waited(&why(&service, &later), "planned", Duration::from_millis(390));
    // One that waits now.
    service.post("/v1/pools/one/pause", r#"{"reason":"the test"}"#).expect(200);
    let paused = submit(r#"{"type":"alone"}"#);
    std::thread::sleep(Duration::from_millis(50));
    // What the log knows last is from now.
    end(&service, &submit(r#"{"type":"noop"}"#));
    let told = why(&service, &paused);
    assert_eq!((&told["waiting"], &told["starts"]), (&true.into(), &0.into()), "{told}");
    assert_eq!(waited(&told, "paused", Duration::from_millis(50)), "ergate pool resume one");
    service.post("/v1/pools/one/resume", r#"{"reason":"the test"}"#).expect(200);
    end(&service, &paused);
    let url = format!("http://{}", service.address);
    // For people, and from the directory once the service is gone.
    let shown = run(&["why", &limited[1], "--url", &url]).expect(0).out;
    for words in ["waited ", " limit", "avoided by: limit.", "CAUSE", "limited at position"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    run(&["why", &limited[1], "--not", "3", "--url", &url]).expect(2);
    run(&["why", "0-999", "--url", &url]).expect(6);
    let online = why(&service, &limited[1]);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let offline = run(&["why", &limited[1], "-o", "json", "--data", data]).expect(0).json();
    assert_eq!(offline, online);
    run(&["why", "0-999", "--data", data]).expect(6);
}

#[test]
fn what_pools_cost_is_told_by_the_service_its_figures_and_the_directory() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("my.toml");
    let config = format!(
        "{CONFIG}[pool.dear]\nreplicas = 3\nprice = 7200\n[task.dear]\npool = \"dear\"\nexecutor = {{ process = [\"true\"] }}\n"
    );
    std::fs::write(home.path().join("more.toml"), "policy = \"rate\"\n").unwrap();
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    let service = Service::start_with(home.path(), &["--config", path], &[]);
    let of = |told: &Value, pool: &str| {
        let pools = told["pools"].as_array().unwrap();
        pools.iter().find(|known| known["pool"] == pool).unwrap_or_else(|| panic!("{pool}: {told}")).clone()
    };
    std::thread::sleep(Duration::from_secs(1));
    let told = service.get("/v1/cost").expect(200).json();
    assert!(told["since"].as_str().unwrap() > "2000", "a log begins with its first event, not with time itself: {told}");
    let dear = of(&told, "dear");
    let seconds = dear["replica_seconds"].as_f64().unwrap();
    // Three replicas for a second or a little more, at two a second.
    assert!((3.0..30.0).contains(&seconds), "{dear}");
    assert!((dear["cost"].as_f64().unwrap() - 2.0 * seconds).abs() < 1e-6, "{dear}");
    let one = of(&told, "one");
    assert!((one["replica_seconds"].as_f64().unwrap() * 3.0 - seconds).abs() < 0.1 && one["cost"].is_null(), "{told}");
    // What was before a time does not count.
    let since = told["until"].as_str().unwrap();
    let later = of(&service.get(&format!("/v1/cost?since={since}")).expect(200).json(), "dear");
    assert!(later["replica_seconds"].as_f64().unwrap() < seconds, "{later}");
    service.get("/v1/cost?since=yesterday").expect(422);
    let figures = service.get("/metrics").expect(200).text();
    let line = figures.lines().find(|line| line.starts_with("ergate_replica_seconds_total{pool=\"dear\"}")).unwrap();
    let counted: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(counted >= seconds - 0.5 && counted < seconds + 30.0, "{line}");
    let url = format!("http://{}", service.address);
    let shown = run(&["pool", "cost", "--url", &url, "--since", "1"]).expect(0).out;
    assert!(shown.contains("REPLICA HOURS") && shown.contains("dear"), "{shown}");
    // A position is one also for a service.
    run(&["why", "small", "--at", "40", "--url", &url]).expect(0);
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data");
    let args = ["pool", "cost", "-o", "json", "--data", data.to_str().unwrap()];
    let offline = of(&run(&[&args[..], &["--config", path]].concat()).expect(0).json(), "dear");
    let seconds = offline["replica_seconds"].as_f64().unwrap();
    assert!(seconds >= later["replica_seconds"].as_f64().unwrap() && offline["price"] == 7_200.0, "{offline}");
    // It has ended, so a later look tells the same.
    let dearer = of(&run(&[&args[..], &["--price", "3600"]].concat()).expect(0).json(), "dear");
    assert!((dearer["cost"].as_f64().unwrap() - seconds).abs() < 1e-6, "{dearer}");
    run(&[&args[..], &["--price", "-1"]].concat()).expect(2);
}
