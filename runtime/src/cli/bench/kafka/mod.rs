//! `ergate bench --log kafka://…`: requests from a topic through an engine in this process, and in the same run a bare transactional
//! producer that writes the same bytes.
//!
//! Everything happens in topics of its own, which are removed at the end.

mod floor;
mod follow;
mod publish;
mod topics;

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate::kafka::{KafkaSettings, KafkaUrl};
use ergate::{Runtime, TaskError};

use self::topics::Topics;
use super::measure::Waits;
use super::place::{Backend, Scratch};
use super::{BenchArgs, usage};
use crate::cli::config::settings;
use crate::cli::exit::Trouble;
use crate::cli::kafka::engine_settings;
use crate::cli::{Globals, output};

/// Shards of the run: enough that one commits while another decides.
const SHARDS: u32 = 4;
/// How long the engine may take until it leads all of them.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked how many tasks have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long nothing may end before the run is given up.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What a run on Kafka came to.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Figures {
    log: &'static str,
    brokers: String,
    tasks: u64,
    payload_bytes: u32,
    shards: u32,
    batch_time_ms: f64,
    rate: Option<f64>,
    seconds: f64,
    tasks_per_s: f64,
    /// Of this process: publisher, engine, executor.
    cpu_us_per_task: f64,
    /// From when a request was due to be published until a reader of committed events saw its end; only at a rate.
    wait_ms: Option<Waits>,
    events: u64,
    commits: u64,
    event_bytes: u64,
    bare_producer_tasks_per_s: f64,
    bare_producer_ratio: f64,
    peak_rss_mb: f64,
}

async fn noop(_: serde::de::IgnoredAny) -> Result<(), TaskError> {
    Ok(())
}

/// Runs the tasks and then the bare producer.
pub(super) async fn run(url: &KafkaUrl, args: &BenchArgs, globals: &Globals) -> anyhow::Result<Figures> {
    if args.rate.is_some() && (args.payload as usize) < publish::INDEX_DIGITS + 2 {
        return Err(
            Trouble::Usage(format!("--rate on Kafka needs --payload of {} bytes or more", publish::INDEX_DIGITS + 2)).into()
        );
    }
    let config = settings(globals)?;
    let place = KafkaSettings { standby: false, ..engine_settings(&url.to_string(), &config)? };
    let topics = Topics::create(place)?;
    let place = topics.settings.clone();
    let batch_time_ms = place.batch_time.as_secs_f64() * 1e3;
    let data = Scratch::new(&Backend::Sled(None), false, globals)?;
    let builder = Runtime::builder().data(data.data()).kafka(place.clone());
    let runtime = builder.task("noop", noop).pool("default", 1, args.slots).by("ergate bench").start().await?;
    led(&runtime).await?;
    let reader = args.rate.map(|_| follow::reader_at_end(&place)).transpose()?;
    usage::forget_peak();
    let began = usage::Usage::now();
    let start = Instant::now();
    let follower = reader.zip(args.rate).map(|(reader, rate)| follow::start(reader, args.tasks, rate, start));
    let publisher = publish::start(&place, args, start)?;
    let waits = match follower {
        Some(follower) => Some(joined(follower).await?),
        None => ended(&runtime, args, globals).await.map(|()| None)?,
    };
    let used = usage::Usage::now().since(&began);
    let peak_rss_mb = usage::peak_rss_mb();
    joined(publisher).await?;
    let commits = runtime.log_counters().syncs.load(Ordering::Relaxed);
    let events = runtime.durable().0;
    runtime.shutdown().await?;
    let bare = tokio::task::spawn_blocking(move || floor::run(&place, commits)).await??;
    let (seconds, tasks) = (used.wall.as_secs_f64(), args.tasks);
    let (tasks_per_s, bare_tasks_per_s) = (tasks as f64 / seconds, tasks as f64 / bare.seconds);
    Ok(Figures {
        log: "kafka",
        brokers: url.bootstrap(),
        tasks,
        payload_bytes: args.payload,
        shards: SHARDS,
        batch_time_ms,
        rate: args.rate,
        seconds,
        tasks_per_s,
        cpu_us_per_task: used.cpu.as_secs_f64() * 1e6 / tasks.max(1) as f64,
        wait_ms: waits.as_ref().map(Waits::of),
        events,
        commits,
        event_bytes: bare.bytes,
        bare_producer_tasks_per_s: bare_tasks_per_s,
        bare_producer_ratio: tasks_per_s / bare_tasks_per_s,
        peak_rss_mb,
    })
}

/// Waits until the engine leads every shard.
async fn led(runtime: &Runtime) -> anyhow::Result<()> {
    let until = Instant::now() + LED_WITHIN;
    let all = |standing: &ergate::kafka::Standing| standing.leads.len() > SHARDS as usize;
    while !runtime.engine().as_ref().is_some_and(all) {
        anyhow::ensure!(
            Instant::now() < until,
            "the engine leads not all shards after {LED_WITHIN:?}; see `ergate kafka doctor`"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Waits until all tasks have ended.
async fn ended(runtime: &Runtime, args: &BenchArgs, globals: &Globals) -> anyhow::Result<()> {
    let (mut done, mut moved, mut said) = (0, Instant::now(), Instant::now());
    while done < args.tasks {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = runtime.with_progress(|progress| progress.ended.iter().sum());
        if now > done {
            (done, moved) = (now, Instant::now());
        }
        anyhow::ensure!(
            moved.elapsed() < STUCK_AFTER,
            "only {done} of {} tasks ended, and no other for {STUCK_AFTER:?}",
            args.tasks
        );
        if !globals.quiet && said.elapsed() >= super::SAY_EVERY {
            said = Instant::now();
            output::note(&format!("{done} of {} tasks done", args.tasks));
        }
    }
    Ok(())
}

/// What a thread came to.
async fn joined<T: Send + 'static>(thread: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(move || thread.join().map_err(|_| anyhow::anyhow!("a thread of the bench panicked"))?).await?
}

pub(super) fn print(figures: &Figures) -> anyhow::Result<()> {
    let Figures { tasks, payload_bytes, shards, batch_time_ms, .. } = figures;
    output::line(&format!(
        "log kafka at {}, {shards} shards, commits at most every {batch_time_ms} ms, {tasks} tasks of {payload_bytes} payload bytes",
        figures.brokers
    ))?;
    output::line(&format!(
        "  throughput        {:>12.0} tasks/s   {} events in {} commits",
        figures.tasks_per_s, figures.events, figures.commits
    ))?;
    if let Some(Waits { p50, p99, p999, max }) = &figures.wait_ms {
        output::line(&format!("  wait              p50 {p50:.1} ms   p99 {p99:.1} ms   p99.9 {p999:.1} ms   max {max:.1} ms"))?;
    }
    output::line(&format!("  CPU               {:>12.2} µs/task, without the brokers", figures.cpu_us_per_task))?;
    output::line(&format!(
        "  log               {:>12.1} bytes/task in the topic, before compression",
        figures.event_bytes as f64 / *tasks as f64
    ))?;
    if figures.rate.is_none() {
        output::line(&format!(
            "  bare producer     {:>12.0} tasks/s with the same bytes of events; ratio {:.3}",
            figures.bare_producer_tasks_per_s, figures.bare_producer_ratio
        ))?;
    }
    output::line(&format!("  peak memory       {:>12.1} MB", figures.peak_rss_mb))
}
