//! A world around the core: clients, workers, a disk and a clock, all of which fail as a seed says.

mod ask;
mod disk;
mod engine;
mod ledger;
mod random;
mod world;

use std::collections::BTreeMap;

/// What a run was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) runs: u64,
    pub(crate) simulated_micros: u64,
    pub(crate) events: u64,
    pub(crate) steps: u64,
    pub(crate) restarts: u64,
    /// Hash of every line of the trace.
    pub(crate) trace: u64,
    pub(crate) coverage: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Report) {
        self.runs += other.runs;
        self.simulated_micros += other.simulated_micros;
        self.events += other.events;
        self.steps += other.steps;
        self.restarts += other.restarts;
        for (what, count) in &other.coverage {
            *self.coverage.entry(what).or_default() += count;
        }
    }
}

/// What a hundred seeds must have met, or the simulation has become a tame one.
pub(crate) const COVERED: [&str; 30] = [
    "crash",
    "disk error",
    "disk full",
    "torn block",
    "snapshot",
    "stale report",
    "slot released",
    "duplicate",
    "retry",
    "lost",
    "cancelled",
    "killed",
    "dead letter",
    "redriven",
    "clock stepped",
    "heartbeat missed",
    "timed out",
    "drained",
    "repeated start",
    "checkpoint",
    "limited",
    "admitted",
    "dependency_met",
    "dependency failed",
    "end looked up",
    "unknown dependency",
    "work asked",
    "worker missed",
    "returned",
    "never delivered",
];

/// Runs one seed.
///
/// # Errors
/// A violation, with the seed, its options and the last lines of its trace.
pub(crate) fn simulate(seed: u64) -> Result<Report, String> {
    world::World::new(seed).run()
}
