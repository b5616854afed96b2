//! Figures of a runtime inside a program: what an actor's restart, a restart of the log and too many task types do to them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "http/exposition.rs"]
mod exposition;

use std::time::{Duration, Instant};

use ergate::metrics::prometheus::Registry;
use ergate::metrics::{ALL, OTHER, TYPES_MAX};
use ergate::schedule::{ScheduleSettings, When};
use ergate::{RequestBatch, Runtime, TaskError};
use exposition::Scrape;

/// How long anything here may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn nothing((): ()) -> Result<(), TaskError> {
    Ok(())
}

async fn settled(runtime: &Runtime, is_settled: impl Fn(&Scrape) -> bool) -> Scrape {
    let began = Instant::now();
    loop {
        let scrape = Scrape::read(&runtime.metrics().text());
        if is_settled(&scrape) {
            return scrape;
        }
        assert!(began.elapsed() < PATIENCE, "the figures never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn submit(runtime: &Runtime, name: &str, count: usize) {
    let mut batch = RequestBatch::new();
    let id = runtime.task_type(name).unwrap();
    (0..count).for_each(|_| batch.push(id, b"null", None));
    drop(runtime.submit_batch(batch).await.unwrap());
}

#[tokio::test]
async fn a_projector_that_starts_again_counts_nothing_twice() {
    let home = tempfile::tempdir().unwrap();
    let runtime = Runtime::builder().data(home.path()).task("job", nothing).start().await.unwrap();
    let kind = [("pool", "default"), ("type", "job")];
    let ended = |count: f64| move |scrape: &Scrape| scrape.sum("ergate_completions_total") >= count;
    submit(&runtime, "job", 500).await;
    settled(&runtime, ended(500.0)).await;
    let _ = runtime.projector().unwrap().send(ergate_actors::projector::Panic).await;
    submit(&runtime, "job", 300).await;
    let scrape = settled(&runtime, |scrape| ended(800.0)(scrape) && scrape.sum("ergate_actor_restarts_total") > 0.0).await;
    for name in ["ergate_requests_total", "ergate_attempts_total", "ergate_run_duration_seconds_count"] {
        assert!((scrape.value(name, &kind) - 800.0).abs() < 0.5, "{name} {}", scrape.value(name, &kind));
    }
    assert!(scrape.value("ergate_actor_restarts_total", &[("actor", "projector")]) >= 1.0);
    assert!(scrape.sum("ergate_tasks").abs() < 0.5, "nothing is left");
    let metrics = runtime.metrics();
    runtime.shutdown().await.unwrap();
    drop(runtime);
    assert_eq!(metrics.text(), "", "figures keep no runtime alive");
}

#[tokio::test]
async fn what_waits_is_there_at_once_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let start = || Runtime::builder().data(home.path()).task("job", nothing).pool("default", 0, 1).start();
    let runtime = start().await.unwrap();
    submit(&runtime, "job", 3).await;
    let waiting = |scrape: &Scrape| scrape.sum("ergate_queue_depth") > 2.5;
    settled(&runtime, waiting).await;
    runtime.shutdown().await.unwrap();
    drop(runtime);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let runtime = start().await.unwrap();
    // Without waiting for anything: it comes with the state.
    let scrape = Scrape::read(&runtime.metrics().text());
    assert!(waiting(&scrape) && scrape.sum("ergate_requests_total").abs() < 0.5);
    let age = scrape.sum("ergate_queue_oldest_age_seconds");
    assert!((0.3..120.0).contains(&age), "{age}");
    runtime.shutdown().await.unwrap();
}

#[tokio::test]
async fn task_types_that_come_too_late_are_counted_together() {
    let names: Vec<String> = (0..TYPES_MAX + 7).map(|n| format!("type-{n:05}")).collect();
    let builder = names.iter().fold(Runtime::builder().memory(), |builder, name| builder.task(name, nothing));
    let runtime = builder.start().await.unwrap();
    for name in ["type-00000", "type-01000", "type-01006"] {
        submit(&runtime, name, 2).await;
    }
    let scrape = settled(&runtime, |scrape| scrape.sum("ergate_completions_total") > 5.5).await;
    assert_eq!(scrape.of("ergate_requests_total").len(), TYPES_MAX + 1);
    let requests = |name| scrape.value("ergate_requests_total", &[("pool", "default"), ("type", name)]);
    assert!((requests("type-00000") - 2.0).abs() < 0.5 && (requests(OTHER) - 4.0).abs() < 0.5);
    runtime.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_registry_of_the_program_has_them_beside_its_own() {
    let yearly = ScheduleSettings::new(When::Cron("@yearly".to_owned()), "job");
    let runtime = Runtime::builder().memory().task("job", nothing).schedule("yearly", yearly).start().await.unwrap();
    let registry = Registry::new();
    registry.register(Box::new(runtime.metrics())).unwrap();
    let gathered = registry.gather();
    // Those of Kafka, of plug-ins, of sources, of workers, of the HTTP service and of GPUs are not there; what replicas use is as soon as one has told.
    let absent = [
        "ergate_generator_batches_total",
        "ergate_observer_notices_total",
        "ergate_source_lines_total",
        "ergate_source_unread_bytes",
        "ergate_kafka_lag",
        "ergate_kafka_unstable_offsets",
        "ergate_kafka_rebalances_total",
        "ergate_ready",
        "ergate_workers",
        "ergate_pool_cpu_cores",
        "ergate_pool_memory_bytes",
        "ergate_gpu_utilization_ratio",
        "ergate_gpu_memory_used_bytes",
        "ergate_gpu_memory_total_bytes",
        "ergate_gpu_power_watts",
        "ergate_gpu_temperature_celsius",
    ];
    for metric in ALL.iter().filter(|metric| !absent.contains(&metric.name)) {
        let family = gathered.iter().find(|family| family.name() == metric.name);
        assert_eq!(family.map(|family| family.help()), Some(metric.help), "{}", metric.name);
    }
    assert!(registry.register(Box::new(runtime.metrics())).is_err(), "twice is one too many");
    runtime.shutdown().await.unwrap();
}
