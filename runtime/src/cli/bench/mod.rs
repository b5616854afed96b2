//! `ergate bench`: no-op tasks through the public API, and in the same run a bare append-only file that writes the same records.

mod floor;
mod load;
mod usage;

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use ergate::events::log::LogError;
use ergate::events::view::Histogram;
use ergate::{Durability, Runtime, Store, TaskError};

use super::embedded::parse_durability;
use super::{Exit, Format, Globals, output};

/// Options of `ergate bench`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// Tasks to run
    #[arg(long, default_value_t = 1_000_000)]
    tasks: u64,
    /// Bytes of each payload, a JSON string
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    payload: u32,
    /// Share of each payload that is random and so does not compress, from 0 to 1
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    entropy: f64,
    /// Tasks submitted together; with --rate, 1 is what shows the wait of a task
    #[arg(long, default_value_t = 1_000, default_value_if("rate", clap::builder::ArgPredicate::IsPresent, "1"), value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Submitters at the same time; each waits for its tasks before it goes on
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    submitters: u32,
    /// Tasks a second in all; as many as possible when it is not given
    #[arg(long)]
    rate: Option<f64>,
    /// Slots that run tasks
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    slots: u32,
    /// Where the log is kept: `sled`, `sled:DIR`, `file`, `file:DIR` or `memory`; without DIR in a new directory that is removed at
    /// the end
    #[arg(long, default_value = "sled")]
    log: Backend,
    /// When answers are given: `fsync`, `interval:MILLISECONDS` or `memory`
    #[arg(long, default_value = "fsync", value_parser = parse_durability)]
    durability: Durability,
    /// The same as `-o json`
    #[arg(long)]
    json: bool,
}

/// Where the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Backend {
    Memory,
    File(Option<PathBuf>),
    Sled(Option<PathBuf>),
}

impl FromStr for Backend {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Backend::Memory),
            None if text == "file" => Ok(Backend::File(None)),
            None if text == "sled" => Ok(Backend::Sled(None)),
            Some(("sled", dir)) if !dir.is_empty() => Ok(Backend::Sled(Some(dir.into()))),
            Some(("file", dir)) if !dir.is_empty() => Ok(Backend::File(Some(dir.into()))),
            None | Some(_) => Err("expected `sled`, `sled:DIR`, `file`, `file:DIR` or `memory`".to_owned()),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("expected a number from 0 to 1".to_owned()) }
}

/// What a run came to.
#[derive(serde::Serialize)]
struct Figures {
    log: String,
    durability: String,
    tasks: u64,
    payload_bytes: u32,
    entropy: f64,
    batch: u32,
    submitters: u32,
    rate: Option<f64>,
    seconds: f64,
    tasks_per_s: f64,
    cpu_us_per_task: f64,
    wait_ms: Waits,
    events: u64,
    events_per_s: f64,
    fsyncs: u64,
    disk_bytes_per_event: f64,
    bare_file_events_per_s: f64,
    bare_file_ratio: f64,
    peak_rss_mb: f64,
}

/// From the call of submit to the news of the end, in milliseconds. In batches: until the last of the batch ended.
#[derive(serde::Serialize)]
struct Waits {
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Waits {
    fn of(waits: &Histogram) -> Waits {
        let at = |share| waits.quantile(share).0 as f64 / 1_000.0;
        Waits { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: waits.max().0 as f64 / 1_000.0 }
    }
}

async fn noop(_: serde::de::IgnoredAny) -> Result<(), TaskError> {
    Ok(())
}

pub(crate) fn run(args: BenchArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let scratch = Scratch::new(&args, globals)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a thread for the submitters")?;
    let figures = runtime.block_on(measure(&args, &scratch, globals))?;
    if args.json || globals.output == Format::Json {
        output::json(&figures)?
    } else {
        print(&figures)?
    }
    Ok(Exit::Done)
}

async fn measure(args: &BenchArgs, scratch: &Scratch, globals: &Globals) -> anyhow::Result<Figures> {
    let store = scratch.store();
    let runtime = Runtime::builder()
        .store(store.clone())
        .durability(args.durability)
        .task("noop", noop)
        .pool("default", 1, args.slots)
        .by("ergate bench")
        .start()
        .await?;
    let (before, began) = (runtime.durable(), usage::Usage::now());
    let waits = load::run(&runtime, args, globals).await.map_err(|error| match runtime.failure() {
        Some(reason) => LogError::Poisoned { reason }.into(),
        None => error,
    })?;
    let used = usage::Usage::now().since(&began);
    let events = runtime.durable().0 - before.0;
    let counters = runtime.log_counters();
    let (fsyncs, bytes) = (counters.syncs.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed));
    let reader = runtime.reader();
    let peak_rss_mb = usage::peak_rss_mb();
    let bare = floor::run(reader.as_ref(), before, events, fsyncs, &scratch.floor_file())?;
    runtime.shutdown().await?;
    let events_per_s = events as f64 / used.wall.as_secs_f64();
    Ok(Figures {
        log: match store {
            Store::Memory => "memory".to_owned(),
            Store::Directory(_) | Store::Sled(_) => "sled".to_owned(),
            Store::File(_) => "file".to_owned(),
        },
        durability: args.durability.to_string(),
        tasks: args.tasks,
        payload_bytes: args.payload,
        entropy: args.entropy,
        batch: args.batch,
        submitters: args.submitters,
        rate: args.rate,
        seconds: used.wall.as_secs_f64(),
        tasks_per_s: args.tasks as f64 / used.wall.as_secs_f64(),
        cpu_us_per_task: used.cpu.as_secs_f64() * 1e6 / args.tasks.max(1) as f64,
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

fn print(figures: &Figures) -> anyhow::Result<()> {
    let Figures { wait_ms, .. } = figures;
    output::line(&format!(
        "log {}, durability {}, {} tasks of {} payload bytes",
        figures.log, figures.durability, figures.tasks, figures.payload_bytes
    ))?;
    output::line(&format!("  throughput        {:>12.0} tasks/s   {:.0} events/s", figures.tasks_per_s, figures.events_per_s))?;
    output::line(&format!(
        "  wait              p50 {:.3} ms   p99 {:.3} ms   p99.9 {:.3} ms   max {:.3} ms",
        wait_ms.p50, wait_ms.p99, wait_ms.p999, wait_ms.max
    ))?;
    output::line(&format!("  CPU               {:>12.2} µs/task", figures.cpu_us_per_task))?;
    output::line(&format!(
        "  log               {:>12} events   {:.1} bytes/event on disk   {} fsyncs",
        figures.events, figures.disk_bytes_per_event, figures.fsyncs
    ))?;
    output::line(&format!(
        "  bare file         {:>12.0} events/s with the same records and fsync cadence; ratio {:.3}",
        figures.bare_file_events_per_s, figures.bare_file_ratio
    ))?;
    output::line(&format!("  peak memory       {:>12.1} MB", figures.peak_rss_mb))
}

/// The directory of a run; removed at the end unless it was named.
struct Scratch {
    log: Backend,
    dir: PathBuf,
    remove: bool,
}

impl Scratch {
    fn new(args: &BenchArgs, globals: &Globals) -> anyhow::Result<Scratch> {
        let named = match &args.log {
            Backend::File(Some(dir)) | Backend::Sled(Some(dir)) => Some(dir.clone()),
            Backend::File(None) | Backend::Sled(None) => globals.data.clone(),
            Backend::Memory => None,
        };
        let remove = named.is_none();
        // Beside the current directory and not in /tmp, which may be memory and would make fsync free.
        let dir = named.unwrap_or_else(|| PathBuf::from(format!("ergate-bench-{}", std::process::id())));
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("failed to create {}; name a writable directory with --data", dir.display()))?;
        Ok(Scratch { log: args.log.clone(), dir, remove })
    }

    fn store(&self) -> Store {
        match self.log {
            Backend::Memory => Store::Memory,
            Backend::File(_) => Store::File(self.dir.join("log")),
            Backend::Sled(_) => Store::Sled(self.dir.join("log")),
        }
    }

    fn floor_file(&self) -> PathBuf {
        self.dir.join("bare-file")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.floor_file());
        if self.remove {
            // What cannot be removed is named by its pid and harmless.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
