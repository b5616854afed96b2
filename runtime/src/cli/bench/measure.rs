//! One run, and what it came to.

use std::sync::atomic::Ordering;

use ergate::events::log::LogError;
use ergate::events::log::directory::Options;
use ergate::events::view::Histogram;
use ergate::{Durability, Runtime, TaskError};

use super::place::{Backend, Scratch};
use super::{BenchArgs, floor, load, usage};
use crate::cli::Globals;
use crate::cli::config::settings;

/// What a run came to.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Figures {
    pub(super) log: &'static str,
    pub(super) durability: String,
    pub(super) tasks: u64,
    pub(super) payload_bytes: u32,
    entropy: f64,
    batch: u32,
    submitters: u32,
    rate: Option<f64>,
    seconds: f64,
    pub(super) tasks_per_s: f64,
    pub(super) cpu_us_per_task: f64,
    pub(super) wait_ms: Waits,
    pub(super) events: u64,
    pub(super) events_per_s: f64,
    pub(super) fsyncs: u64,
    pub(super) disk_bytes_per_event: f64,
    pub(super) bare_file_events_per_s: f64,
    pub(super) bare_file_ratio: f64,
    pub(super) peak_rss_mb: f64,
}

/// From the call of submit to the news of the end, in milliseconds. In batches: until the last of the batch ended.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Waits {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

impl Waits {
    pub(super) fn of(waits: &Histogram) -> Waits {
        let at = |share| waits.quantile(share).0 as f64 / 1_000.0;
        Waits { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: waits.max().0 as f64 / 1_000.0 }
    }
}

async fn noop(_: serde::de::IgnoredAny) -> Result<(), TaskError> {
    Ok(())
}

/// Runs the tasks over one log and then the bare file; `alone` where the log may stay for a next time.
pub(super) async fn run(backend: &Backend, alone: bool, args: &BenchArgs, globals: &Globals) -> anyhow::Result<Figures> {
    let scratch = Scratch::new(backend, alone, globals)?;
    // Memory has nothing to sync; to call that fsync would promise what it cannot keep.
    let durability = if *backend == Backend::Memory { Durability::Memory } else { args.durability };
    let low_water_bytes = settings(globals)?.log.low_water;
    let builder = Runtime::builder().store(scratch.store()).log_options(Options { low_water_bytes, ..Options::default() });
    let builder = builder.durability(durability).task("noop", noop).pool("default", 1, args.slots).by("ergate bench");
    // Looked at while the log is closed, before and after: an open one has zeros ahead of its end.
    let bytes_before = scratch.disk_bytes();
    let runtime = builder.start().await?;
    usage::forget_peak();
    let (before, began) = (runtime.durable(), usage::Usage::now());
    let waits = load::run(&runtime, args, globals).await.map_err(|error| match runtime.failure() {
        Some(reason) => LogError::Poisoned { reason }.into(),
        None => error,
    })?;
    let used = usage::Usage::now().since(&began);
    let peak_rss_mb = usage::peak_rss_mb();
    let events = runtime.durable().0 - before.0;
    let counters = runtime.log_counters();
    let (fsyncs, block_bytes) = (counters.syncs.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed));
    let bare = floor::run(runtime.reader().as_ref(), before, events, fsyncs, &scratch.floor_file())?;
    runtime.shutdown().await?;
    let bytes = if *backend == Backend::Memory { block_bytes } else { scratch.disk_bytes().saturating_sub(bytes_before) };
    let (seconds, tasks) = (used.wall.as_secs_f64(), args.tasks);
    let events_per_s = events as f64 / seconds;
    Ok(Figures {
        log: backend.name(),
        durability: durability.to_string(),
        tasks,
        payload_bytes: args.payload,
        entropy: args.entropy,
        batch: args.batch,
        submitters: args.submitters,
        rate: args.rate,
        seconds,
        tasks_per_s: tasks as f64 / seconds,
        cpu_us_per_task: used.cpu.as_secs_f64() * 1e6 / tasks.max(1) as f64,
        wait_ms: Waits::of(&waits),
        events,
        events_per_s,
        fsyncs,
        disk_bytes_per_event: bytes as f64 / events.max(1) as f64,
        bare_file_events_per_s: bare,
        bare_file_ratio: events_per_s / bare,
        peak_rss_mb,
    })
}
