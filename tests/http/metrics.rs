//! Figures for Prometheus: every task counted exactly once, from zero at every start, and what is there from the log.

use std::time::{Duration, Instant};

use crate::command::until;
use crate::exposition::Scrape;
use crate::service::Service;

/// Scrapes until the figures hold everything that is durable, and so everything that was answered.
pub(crate) fn settled(service: &Service, is_settled: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut last = None;
    until("the figures are up to date", || {
        let scrape = scrape(service);
        let is_complete = scrape.sum("ergate_view_position") >= scrape.sum("ergate_log_position");
        let done = is_complete && is_settled(&scrape);
        last = Some(scrape);
        done
    });
    last.unwrap()
}

fn scrape(service: &Service) -> Scrape {
    let answer = service.get("/metrics").expect(200);
    assert_eq!(answer.header("content-type").as_deref(), Some("text/plain; version=0.0.4; charset=utf-8"));
    Scrape::read(&answer.text())
}

const NOOP: [(&str, &str); 2] = [("pool", "default"), ("type", "noop")];
const FAIL: [(&str, &str); 2] = [("pool", "default"), ("type", "fail")];
const SLEEP: [(&str, &str); 2] = [("pool", "default"), ("type", "sleep")];

fn with<'a>(kind: [(&'a str, &'a str); 2], name: &'a str, value: &'a str) -> [(&'a str, &'a str); 3] {
    [kind[0], kind[1], (name, value)]
}

#[test]
fn every_task_is_counted_once_and_a_restart_begins_at_zero_with_what_is_there() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let lines: String = (0..40).map(|n| format!("{{\"type\":\"noop\",\"key\":\"k{n}\"}}\n")).collect();
    let ndjson = [("content-type", "application/x-ndjson")];
    service.ask("POST", "/v1/tasks", &ndjson, lines.as_bytes()).expect(200);
    service.ask("POST", "/v1/tasks", &ndjson, &lines.as_bytes()[..lines.find("k3\"").unwrap() + 5]).expect(200);
    // Retried twice, then dead; and once for good at once.
    let retry = r#"{"type":"fail","payload":{"retryable":true},"retry":{"attempts":3,"initial":"1ms"}}"#;
    let dead = service.submit(retry);
    service.submit(r#"{"type":"fail"}"#);
    let slow = service.submit(r#"{"type":"sleep","payload":{"ms":600000}}"#);
    until("it runs", || service.get(&format!("/v1/tasks/{slow}")).json()["state"] == "running");
    service.post(&format!("/v1/tasks/{slow}/kill"), "").expect(200);
    for _ in 0..3 {
        service.submit(r#"{"type":"noop","not_before":"2100-01-01T00:00:00Z"}"#);
    }
    let counted = settled(&service, |scrape| {
        scrape.sum("ergate_completions_total") >= 43.0 && scrape.value("ergate_attempts_total", &FAIL) >= 4.0
    });
    let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let found = counted.value(name, labels);
        assert!((found - expected).abs() < 1e-9, "{name} {labels:?} is {found} and should be {expected}");
    };
    is("ergate_requests_total", &NOOP, 43.0);
    is("ergate_requests_deduplicated_total", &NOOP, 4.0);
    is("ergate_completions_total", &with(NOOP, "outcome", "succeeded"), 40.0);
    is("ergate_attempts_total", &NOOP, 40.0);
    is("ergate_schedule_to_start_seconds_count", &NOOP, 40.0);
    is("ergate_run_duration_seconds_count", &NOOP, 40.0);
    is("ergate_tasks", &with(NOOP, "state", "delayed"), 3.0);
    is("ergate_queue_depth", &NOOP, 0.0);
    is("ergate_queue_oldest_age_seconds", &NOOP, 0.0);
    is("ergate_requests_total", &FAIL, 2.0);
    is("ergate_attempts_total", &FAIL, 4.0);
    is("ergate_attempt_failures_total", &FAIL, 4.0);
    is("ergate_retries_total", &FAIL, 2.0);
    is("ergate_dead_letters_total", &FAIL, 2.0);
    is("ergate_dead_letters_kept", &FAIL, 2.0);
    is("ergate_completions_total", &with(FAIL, "outcome", "failed"), 2.0);
    is("ergate_completions_total", &with(SLEEP, "outcome", "cancelled"), 1.0);
    is("ergate_replicas", &[("pool", "default"), ("state", "ready")], 1.0);
    is("ergate_replicas_wanted", &[("pool", "default")], 1.0);
    is("ergate_slots", &[("pool", "default")], 1_024.0);
    is("ergate_ready", &[], 1.0);
    is("ergate_log_failed", &[], 0.0);
    is("ergate_shard_led", &[("shard", "0")], 1.0);
    is("ergate_build_info", &[("log", "local"), ("version", env!("CARGO_PKG_VERSION"))], 1.0);
    is("ergate_replay_seconds_count", &[], 1.0);
    let syncs = counted.value("ergate_log_fsync_seconds_count", &[]);
    assert!(syncs > 0.0 && counted.value("ergate_log_append_seconds_count", &[]) >= syncs);
    assert!(counted.of("ergate_kafka_lag").is_empty() && counted.value("ergate_log_position", &[("shard", "0")]) > 120.0);

    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let service = Service::start(home.path());
    let anew = settled(&service, |_| true);
    assert!(anew.sum("ergate_completions_total") == 0.0 && anew.sum("ergate_requests_total") == 0.0);
    assert!(anew.value("ergate_tasks", &with(NOOP, "state", "delayed")) == 3.0);
    assert!(anew.value("ergate_dead_letters_kept", &FAIL) == 2.0 && anew.sum("ergate_dead_letters_total") == 0.0);
    service.post(&format!("/v1/tasks/{dead}/retry"), "").expect(201);
    let again = settled(&service, |scrape| scrape.value("ergate_dead_letters_total", &FAIL) > 0.0);
    assert!(again.value("ergate_redrives_total", &FAIL) == 1.0 && again.value("ergate_dead_letters_kept", &FAIL) == 2.0);
}

#[test]
fn a_queue_has_a_depth_and_an_age_until_somebody_takes_from_it() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let size = |replicas: u32| service.ask("PATCH", "/v1/pools/default", &[], format!("{{\"replicas\":{replicas}}}").as_bytes());
    size(0).expect(200);
    until("no slot is there", || {
        scrape(&service)
            .of("ergate_slots")
            .iter()
            .all(|(labels, count)| !labels.contains(&("pool".to_owned(), "default".to_owned())) || *count == 0.0)
    });
    let began = Instant::now();
    (0..7).for_each(|_| _ = service.submit(r#"{"type":"noop"}"#));
    std::thread::sleep(Duration::from_millis(300));
    let waiting = settled(&service, |scrape| scrape.value("ergate_queue_depth", &NOOP) == 7.0);
    let age = waiting.value("ergate_queue_oldest_age_seconds", &NOOP);
    assert!(age >= 0.3 && age <= began.elapsed().as_secs_f64() + 0.2, "{age}");
    size(1).expect(200);
    // What is there is read after what was counted, so for a moment it may be ahead.
    let done = settled(&service, |scrape| {
        let started = scrape.value("ergate_schedule_to_start_seconds_count", &NOOP);
        scrape.value("ergate_queue_depth", &NOOP) == 0.0 && started == 7.0
    });
    assert!(done.value("ergate_queue_oldest_age_seconds", &NOOP) == 0.0);
    // All of them waited for the slot, and that is where it shows.
    let quickly = done.value("ergate_schedule_to_start_seconds_bucket", &with(NOOP, "le", "0.25"));
    assert!(quickly == 0.0, "{quickly}");
}

/// Task types of the issue's figure.
const TYPES: usize = 200;

/// Every type with everything that can be counted of it: `cargo test --release --features kafka-ssl --test http -- --ignored --nocapture scrape`.
#[test]
#[ignore = "a measurement"]
fn a_scrape_of_200_task_types_takes_milliseconds() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("ergate.toml");
    let sections: String =
        (0..TYPES).map(|n| format!("[task.\"type-{n}\"]\nexecutor = {{ process = [\"/bin/true\"] }}\n")).collect();
    std::fs::write(&config, sections).unwrap();
    let service = Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &[]);
    let lines: String = (0..TYPES).map(|n| format!("{{\"type\":\"type-{n}\"}}\n")).collect();
    service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
    let scrape = settled(&service, |scrape| scrape.sum("ergate_completions_total") >= TYPES as f64);
    for headers in [&[][..], &[("accept-encoding", "gzip")]] {
        let mut bytes = 0;
        let mut spans: Vec<Duration> = (0..100)
            .map(|_| {
                let began = Instant::now();
                bytes = service.ask("GET", "/metrics", headers, b"").expect(200).body.len();
                began.elapsed()
            })
            .collect();
        spans.sort_unstable();
        let lines = scrape.families.keys().len();
        let (p50, p99) = (spans[49], spans[98]);
        eprintln!(
            "{TYPES} types, {lines} families, {bytes} bytes, {headers:?}: p50 {p50:?}, p99 {p99:?} of {} scrapes",
            spans.len()
        );
        assert!(headers.len() == 1 || p50 < Duration::from_millis(10), "{p50:?}");
    }
}
