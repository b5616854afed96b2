//! Several logs under the same load, in turn, round after round: a machine that is busy for a while is busy for all of them.

use super::measure::{self, Figures};
use super::{BenchArgs, place::Backend};
use crate::cli::table::Table;
use crate::cli::{Globals, output, progress};

/// All runs, and one line a log.
#[derive(Debug, serde::Serialize)]
pub(super) struct Comparison {
    rounds: u32,
    medians: Vec<Median>,
    runs: Vec<Figures>,
}

/// The median of each figure over the rounds of one log.
#[derive(Debug, serde::Serialize)]
struct Median {
    log: &'static str,
    durability: String,
    tasks_per_s: f64,
    tasks_per_s_min: f64,
    tasks_per_s_max: f64,
    /// How many times as many tasks a second as the first log.
    of_first: f64,
    cpu_us_per_task: f64,
    wait_ms_p50: f64,
    wait_ms_p99: f64,
    disk_bytes_per_event: f64,
    fsyncs: f64,
    bare_file_events_per_s: f64,
    bare_file_ratio: f64,
}

/// Measures each log once a round.
pub(super) async fn run(logs: &[Backend], rounds: u32, args: &BenchArgs, globals: &Globals) -> anyhow::Result<Comparison> {
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for log in logs {
            if !globals.quiet {
                output::note(&format!("round {round} of {rounds}: {}", log.name()));
            }
            runs.push(measure::run(log, false, args, globals).await?);
        }
    }
    Ok(Comparison { rounds, medians: medians(&runs, logs.len()), runs })
}

/// Takes the medians of runs that come in turn, so many logs a round.
fn medians(runs: &[Figures], logs: usize) -> Vec<Median> {
    let mut medians: Vec<Median> = Vec::new();
    for log in 0..logs {
        let own = || runs.iter().skip(log).step_by(logs);
        let of = |figure: &dyn Fn(&Figures) -> f64| median(own().map(figure).collect());
        let tasks_per_s = of(&|run| run.tasks_per_s);
        medians.push(Median {
            log: runs[log].log,
            durability: runs[log].durability.clone(),
            tasks_per_s,
            tasks_per_s_min: own().map(|run| run.tasks_per_s).fold(f64::INFINITY, f64::min),
            tasks_per_s_max: own().map(|run| run.tasks_per_s).fold(0.0, f64::max),
            of_first: medians.first().map_or(1.0, |first| tasks_per_s / first.tasks_per_s),
            cpu_us_per_task: of(&|run| run.cpu_us_per_task),
            wait_ms_p50: of(&|run| run.wait_ms.p50),
            wait_ms_p99: of(&|run| run.wait_ms.p99),
            disk_bytes_per_event: of(&|run| run.disk_bytes_per_event),
            fsyncs: of(&|run| run.fsyncs as f64),
            bare_file_events_per_s: of(&|run| run.bare_file_events_per_s),
            bare_file_ratio: of(&|run| run.bare_file_ratio),
        });
    }
    medians
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { f64::midpoint(values[middle - 1], values[middle]) } else { values[middle] }
}

impl Comparison {
    /// Prints a line a log; the bare file is the one that was written with the same records and syncs in the same round.
    pub(super) fn print(&self, args: &BenchArgs) -> anyhow::Result<()> {
        output::line(&format!(
            "medians of {}, {} tasks of {} payload bytes each",
            progress::count(u64::from(self.rounds), "round", "rounds"),
            args.tasks,
            args.payload
        ))?;
        let first = format!("OF {}", self.medians.first().map_or("FIRST", |first| first.log).to_uppercase());
        let heads = ["LOG", "DURABILITY", "TASKS/S", "(LOWEST–HIGHEST)", &first, "CPU µs/TASK", "WAIT P50 ms", "P99 ms"];
        let mut table = Table::new(&[&heads[..], &["BYTES/EVENT", "FSYNCS", "BARE FILE EVENTS/S", "OF BARE FILE"]].concat());
        for median in &self.medians {
            table.row([
                median.log.to_owned(),
                median.durability.clone(),
                format!("{:.0}", median.tasks_per_s),
                format!("({:.0}–{:.0})", median.tasks_per_s_min, median.tasks_per_s_max),
                format!("{:.2}", median.of_first),
                format!("{:.2}", median.cpu_us_per_task),
                format!("{:.2}", median.wait_ms_p50),
                format!("{:.2}", median.wait_ms_p99),
                format!("{:.1}", median.disk_bytes_per_event),
                format!("{:.0}", median.fsyncs),
                format!("{:.0}", median.bare_file_events_per_s),
                format!("{:.2}", median.bare_file_ratio),
            ]);
        }
        table.print()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
        assert!((median(vec![7.0]) - 7.0).abs() < 1e-9);
    }
}
