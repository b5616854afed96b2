//! `ergate bench`: no-op tasks through the public API, and in the same run a bare append-only file that writes the same records.

mod compare;
mod floor;
mod kafka;
mod load;
mod measure;
mod place;
mod usage;

use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use ergate::Durability;
use ergate::kafka::KafkaUrl;
use ergate::kafka::url::UrlError;

use self::measure::Figures;
use self::place::Backend;
use super::embedded::{parse_durability, parse_span};
use super::{Exit, Format, Globals, output};

/// How often each of several logs is measured: the fewest of which one can be off.
const ROUNDS: u32 = 3;
/// How often it is said how many tasks are done.
const SAY_EVERY: Duration = Duration::from_secs(2);

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
    /// the end. Several with commas between them are compared. Or `kafka://HOST:PORT,…/NAMESPACE`, beside a bare transactional producer,
    /// in topics of its own, named NAMESPACE-bench-…, that are removed at the end
    #[arg(long, default_value = "sled")]
    log: Target,
    /// How often each log is measured, in turn with the others; several logs are measured three times unless this says otherwise.
    /// Each run then has a new directory, in DIR where that is named
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// When answers are given: `fsync`, `interval:MILLISECONDS` or `memory`; a log in memory knows only the last
    #[arg(long, default_value = "fsync", value_parser = parse_durability)]
    durability: Durability,
    /// How long to wait for space on a disk that is nearly full
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_span)]
    space_wait: Duration,
    /// The same as `-o json`
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(Clone, Debug)]
enum Target {
    Local(Vec<Backend>),
    Kafka(KafkaUrl),
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Target, String> {
        if text.starts_with("kafka://") {
            return text.parse().map(Target::Kafka).map_err(|error: UrlError| error.to_string());
        }
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Target::Local)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "expected a number from 0 to 1".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("expected a number from 0 to 1".to_owned()) }
}

pub(crate) fn run(args: BenchArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start a thread for the submitters")?;
    let json = args.json || globals.output == Format::Json;
    let globals = &Globals { quiet: globals.quiet || json, ..globals.clone() };
    let logs = match &args.log {
        Target::Local(logs) => logs,
        Target::Kafka(url) => {
            let figures = runtime.block_on(kafka::run(url, &args, globals))?;
            if json {
                output::json(&figures)?
            } else {
                kafka::print(&figures)?
            }
            return Ok(Exit::Done);
        }
    };
    let rounds = args.rounds.unwrap_or(if logs.len() > 1 { ROUNDS } else { 1 });
    if let ([log], 1) = (logs.as_slice(), rounds) {
        let figures = runtime.block_on(measure::run(log, true, &args, globals))?;
        if json { output::json(&figures)? } else { print(&figures)? }
    } else {
        let comparison = runtime.block_on(compare::run(logs, rounds, &args, globals))?;
        if json { output::json(&comparison)? } else { comparison.print(&args)? }
    }
    Ok(Exit::Done)
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
