//! What a live run of a trace came to, beside a back-test of the same trace.

use std::time::Duration;

use ergate::events::backtest::Report;
use ergate::events::backtest::history::Fidelity;
use ergate::events::time::Micros;
use serde_json::{Value, json};

use super::super::replay::Replayed;
use super::super::summary::program;
use crate::cli::output::{self, quoted};
use crate::cli::progress::number;
use crate::cli::table::Table;
use crate::cli::whatif::{fidelity, seconds};

/// The answer of the verb.
pub(super) struct Word {
    pub(super) name: String,
    pub(super) speed: f64,
    pub(super) data: String,
    pub(super) elapsed: Duration,
    /// What the log says.
    pub(super) happened: Report,
    /// What a back-test of the trace says.
    pub(super) simulated: Report,
    /// How a back-test of the log compares with it.
    pub(super) fidelity: Fidelity,
    /// How long replicas took to start on average.
    pub(super) start: Micros,
    pub(super) replayed: Replayed,
}

impl Word {
    fn rows(&self) -> [(&'static str, &Report); 2] {
        [("happened", &self.happened), ("back-test", &self.simulated)]
    }

    pub(super) fn json(&self) -> Value {
        let row = |report: &Report| {
            let waits = &report.waits;
            json!({
                "tasks": waits.count, "replica_seconds": seconds(report.billed), "wait_s_mean": seconds(waits.mean), "wait_s_p50": seconds(waits.p50),
                "wait_s_p95": seconds(waits.p95), "wait_s_p99": seconds(waits.p99), "wait_s_max": seconds(waits.max), "changes": report.events,
                "replicas_started": report.replicas_started, "replicas_max": report.replicas_max, "backlog_max": report.backlog_max,
            })
        };
        json!({
            "trace": self.name, "speed": self.speed, "data": self.data, "elapsed_ms": self.elapsed.as_millis() as u64,
            "start_s_mean": seconds(self.start), "happened": row(&self.happened), "backtest": row(&self.simulated),
            "fidelity": fidelity(&self.fidelity), "replay": self.replayed,
        })
    }

    pub(super) fn print(&self) -> anyhow::Result<()> {
        output::line(&output::escape(&format!(
            "\n{} at {}x: {} tasks in {:.1} s\n",
            self.name,
            self.speed,
            number(self.happened.tasks as u64),
            self.elapsed.as_secs_f64()
        )))?;
        let heads = ["", "REPLICA-S", "WAIT MEAN", "P50", "P95", "P99", "MAX", "CHANGES", "STARTS", "REPLICAS", "BACKLOG"];
        let mut table = Table::new(&heads);
        let span = |span: Micros| format!("{:.2}s", seconds(span));
        for (name, report) in self.rows() {
            let waits = &report.waits;
            table.row([
                name.to_owned(),
                format!("{:.1}", seconds(report.billed)),
                span(waits.mean),
                span(waits.p50),
                span(waits.p95),
                span(waits.p99),
                span(waits.max),
                report.events.to_string(),
                report.replicas_started.to_string(),
                report.replicas_max.to_string(),
                report.backlog_max.to_string(),
            ]);
        }
        table.print()?;
        let Replayed { events, equal, .. } = self.replayed;
        let state = if equal { "the state equals the live one" } else { "THE STATE IS NOT THE LIVE ONE" };
        output::line(&format!("\nverified: {} events, every decision computed again; {state}", number(events)))?;
        let doubts = self.fidelity.doubts();
        if doubts.is_empty() {
            output::line("a back-test of the log gives the same sizes, and waits within a tenth")?;
        }
        doubts.iter().try_for_each(|doubt| output::line(&format!("a back-test of the log: {doubt}")))?;
        let (program, data) = (program(), quoted(&self.data));
        output::line("\nThe log is the record of all of this. Next, try:")?;
        output::line(&output::escape(&format!("  {program} whatif --pool {} --data {data}", super::POOL)))?;
        output::line(&output::escape(&format!("  {program} why {} --data {data}", super::POOL)))
    }
}
