//! What a run of the demo came to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ergate::events::time::Micros;
use ergate::events::view::Histogram;
use ergate::{Outcome, Runtime};
use serde::Serialize;

use super::replay::Replayed;
use super::tally::{FailedFile, Tally};
use crate::cli::output::{self, escape, quoted};
use crate::cli::progress::{bytes, number, rate};

/// The answer of the verb; with `-o json` it is printed as it is.
#[derive(Serialize)]
pub(super) struct Summary {
    pub(super) dir: String,
    pub(super) data: String,
    pub(super) durability: String,
    pub(super) files: u64,
    /// Entries passed over, by reason.
    pub(super) skipped: BTreeMap<&'static str, u64>,
    pub(super) outcomes: BTreeMap<&'static str, u64>,
    pub(super) refused: u64,
    pub(super) bytes: u64,
    pub(super) lines: u64,
    pub(super) elapsed_ms: u64,
    pub(super) tasks_per_second: u64,
    pub(super) bytes_per_second: u64,
    pub(super) start_wait_us: Wait,
    pub(super) end_wait_us: Wait,
    pub(super) events: u64,
    pub(super) log_bytes: u64,
    pub(super) log_bytes_per_event: f64,
    /// The first few.
    pub(super) failures: Vec<FailedFile>,
    /// None when it was interrupted.
    pub(super) replay: Option<Replayed>,
}

/// A distribution of waits in microseconds.
#[derive(Serialize)]
pub(super) struct Wait {
    pub(super) p50: u64,
    pub(super) p99: u64,
}

impl Wait {
    fn of(waits: &Histogram) -> Wait {
        Wait { p50: waits.quantile(0.5).0, p99: waits.quantile(0.99).0 }
    }
}

/// Where a run began, to tell its share of the log.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    position: u64,
    bytes: u64,
}

impl Mark {
    pub(super) fn now(runtime: &Runtime) -> Mark {
        let bytes = runtime.log_counters().bytes.load(std::sync::atomic::Ordering::Relaxed);
        Mark { position: runtime.durable().0, bytes }
    }
}

impl Summary {
    /// Everything but the replay.
    pub(super) fn new(dir: &Path, data: &Path, runtime: &Runtime, since: Mark, tally: Tally, elapsed: Duration) -> Summary {
        let now = Mark::now(runtime);
        let (events, log_bytes) = (now.position - since.position, now.bytes - since.bytes);
        let (start_wait_us, end_wait_us) =
            runtime.with_progress(|progress| (Wait::of(&progress.start_waits), Wait::of(&progress.end_waits)));
        Summary {
            dir: dir.display().to_string(),
            data: data.display().to_string(),
            durability: runtime.durability().to_string(),
            files: tally.seen.files(),
            skipped: tally.seen.skipped(),
            outcomes: Outcome::ALL.iter().map(|outcome| (outcome.name(), tally.count(*outcome))).collect(),
            refused: tally.refused,
            bytes: tally.bytes,
            lines: tally.lines,
            elapsed_ms: elapsed.as_millis() as u64,
            tasks_per_second: rate(tally.answered_count(), elapsed),
            bytes_per_second: rate(tally.bytes, elapsed),
            start_wait_us,
            end_wait_us,
            events,
            log_bytes,
            log_bytes_per_event: (log_bytes as f64 / events.max(1) as f64 * 10.0).round() / 10.0,
            failures: tally.failures,
            replay: None,
        }
    }

    /// Prints it for people.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let failed = self.files - self.outcomes.get(Outcome::Succeeded.name()).copied().unwrap_or(0).min(self.files);
        row(
            "files",
            &format!(
                "{} found under {}, {} digested, {} not",
                number(self.files),
                self.dir,
                number(self.files - failed),
                number(failed)
            ),
        )?;
        row("skipped", &self.skipped_text())?;
        row("outcomes", &self.outcomes_text())?;
        row("content", &format!("{}, {} lines", bytes(self.bytes), number(self.lines)))?;
        let elapsed = Duration::from_millis(self.elapsed_ms);
        row(
            "throughput",
            &format!("{} tasks/s, {}/s, {elapsed:?} in all", number(self.tasks_per_second), bytes(self.bytes_per_second)),
        )?;
        row("waits", &format!("request to start {}, request to end {}", self.start_wait_us.text(), self.end_wait_us.text()))?;
        row(
            "log",
            &format!(
                "{} events, {}, {} bytes an event, durability {}",
                number(self.events),
                bytes(self.log_bytes),
                self.log_bytes_per_event,
                self.durability
            ),
        )?;
        self.print_failures(failed)?;
        self.print_replay()
    }

    fn skipped_text(&self) -> String {
        let parts: Vec<_> = self.skipped.iter().map(|(reason, count)| format!("{} ({reason})", number(*count))).collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
    }

    fn outcomes_text(&self) -> String {
        let parts =
            self.outcomes.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{name} {}", number(*count)));
        let parts: Vec<_> = parts.collect();
        if parts.is_empty() { "no tasks".to_owned() } else { parts.join(", ") }
    }

    fn print_failures(&self, failed: u64) -> anyhow::Result<()> {
        for FailedFile { id, reason, .. } in &self.failures {
            row("failure", &format!("{} {reason}", id.as_deref().unwrap_or("refused:")))?;
        }
        if failed > self.failures.len() as u64 {
            row("failure", &format!("and {} more", number(failed - self.failures.len() as u64)))?;
        }
        if failed > 0 {
            row("see all", &format!("{} task list --outcome FAILED --data {}", program(), quoted(&self.data)))
        } else {
            Ok(())
        }
    }

    fn print_replay(&self) -> anyhow::Result<()> {
        let Some(replay) = &self.replay else { return row("replay", "interrupted; `ergate log verify` does it again") };
        let state = if replay.equal { "the state equals the live one" } else { "THE STATE IS NOT THE LIVE ONE" };
        let elapsed = Duration::from_millis(replay.elapsed_ms);
        row(
            "replay",
            &format!("{} events verified in {elapsed:?}, every decision computed again; {state}", number(replay.events)),
        )?;
        row("head", &format!("position {}, hash {}", replay.head_position, replay.head_hash))
    }

    /// Prints what to try next.
    pub(super) fn print_next(&self) -> anyhow::Result<()> {
        let data = quoted(&self.data);
        let program = program();
        output::line("\nThe log is the record of all of this. Next, try:")?;
        for command in ["log verify --decisions", "log tail", "task list", "task show 0-0", "replay"] {
            output::line(&format!("  {program} {command} --data {data}"))?;
        }
        output::line(&format!("  {program} submit sleep '{{\"ms\": 500}}' --data {data}"))
    }
}

/// The command as it was called, because a newcomer has not installed it.
pub(super) fn program() -> String {
    std::env::args().next().map_or_else(|| "ergate".to_owned(), |path| quoted(&path))
}

impl Wait {
    fn text(&self) -> String {
        format!("p50 {} p99 {}", Micros(self.p50), Micros(self.p99))
    }
}

fn row(name: &str, value: &str) -> anyhow::Result<()> {
    output::line(&escape(&format!("{name:<11} {value}")))
}
