//! Whether a back-test of what really ran gives what really happened: before that, nothing it says of other policies means anything.

use super::Decisions;
use super::recorded::Recorded;
use crate::backtest::report::Waits;
use crate::backtest::setup::{Change, Setup};
use crate::backtest::simulation::{BacktestError, run_with};
use crate::time::{Micros, Timestamp};

/// How far simulated waits may be from recorded ones, as a share of these.
pub const TOLERANCE: f64 = 0.1;
/// Waits that differ by no more than this are equal: a back-test knows nothing of how long commits take and when a process gets its turn.
pub const WAIT_FLOOR: Micros = Micros::from_millis(20);

/// How a back-test of what really ran compares with what really happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Fidelity {
    /// Recorded decisions, made again from recorded observations.
    pub decisions: Decisions,
    /// The sizes that the pool should have had.
    pub sizes: Sizes,
    /// Waits as they were.
    pub recorded: Waits,
    /// The same as they are simulated.
    pub simulated: Waits,
}

/// How sizes went on, as recorded and as simulated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    /// How often the size changed.
    pub recorded: usize,
    /// How often it did in the simulation.
    pub simulated: usize,
    /// The first change that is another one: when it was recorded and to what size, and the same simulated.
    pub difference: Option<[Option<(Timestamp, u32)>; 2]>,
    /// Mean difference of the two sizes over time, as a share of the mean recorded size.
    pub off: f64,
}

impl Recorded {
    /// Runs what really ran again and compares.
    ///
    /// # Errors
    /// As for [`run`](crate::backtest::run).
    pub fn fidelity(&self, setup: &Setup) -> Result<Fidelity, BacktestError> {
        let again = self.again(setup);
        let mut sizes = vec![(Micros(0), again.initially())];
        let began = self.arrivals.began();
        let report = run_with(&self.arrivals, &again, |seen, decision| sizes.push((seen.at.since(began), decision.wanted)))?;
        let mut bounds = again.bounds;
        for (at, change) in &again.changes {
            match change {
                Change::Policy(_, between) | Change::Bounds(between) => bounds = *between,
                Change::Size(size) => sizes.push((*at, *size)),
                Change::Hold(Some((size, _))) => sizes.push((*at, bounds.nearest(*size))),
                Change::NoPolicy | Change::Runs(_) | Change::Hold(None) => {}
            }
        }
        sizes.sort_by_key(|(at, _)| *at);
        let within = |all: &[(Micros, u32)]| -> Vec<(Micros, u32)> {
            let from = setup.count_from;
            let first = all.iter().rev().find(|(at, _)| *at <= from).map(|(_, size)| (from, *size));
            let later = all.iter().copied().filter(|(at, _)| *at > from && *at <= self.length);
            let mut each: Vec<(Micros, u32)> = first.into_iter().chain(later).collect();
            each.dedup_by_key(|(_, size)| *size);
            each
        };
        let sizes = Sizes::compare(began, self.length, &within(&self.sizes), &within(&sizes));
        let recorded = self.report(setup).waits;
        Ok(Fidelity { decisions: self.decisions, sizes, recorded, simulated: report.waits })
    }
}

impl Sizes {
    fn compare(began: Timestamp, length: Micros, recorded: &[(Micros, u32)], simulated: &[(Micros, u32)]) -> Sizes {
        let size = |one: Option<&(Micros, u32)>| one.map(|(_, size)| *size);
        let longest = recorded.len().max(simulated.len());
        let other = (0..longest).find(|index| size(recorded.get(*index)) != size(simulated.get(*index)));
        let difference =
            other.map(|index| [recorded, simulated].map(|all| all.get(index).map(|(at, size)| (began.after(*at), *size))));
        let begin = recorded.first().map_or(Micros(0), |(at, _)| *at);
        let (mut apart, mut sum, mut from) = (0.0, 0.0, begin);
        let mut moments: Vec<Micros> = recorded.iter().chain(simulated).map(|(at, _)| *at).chain([length]).collect();
        moments.sort_unstable();
        let at = |all: &[(Micros, u32)], moment: Micros| {
            let index = all.partition_point(|(at, _)| *at <= moment).checked_sub(1);
            index.map_or(0.0, |index| f64::from(all[index].1))
        };
        for moment in moments {
            let span = moment.0.saturating_sub(from.0) as f64;
            let (one, two) = (at(recorded, from), at(simulated, from));
            apart += (one - two).abs() * span;
            sum += one * span;
            from = moment;
        }
        let off = if apart == 0.0 { 0.0 } else { apart / sum.max(f64::MIN_POSITIVE) };
        Sizes { recorded: recorded.len().saturating_sub(1), simulated: simulated.len().saturating_sub(1), difference, off }
    }
}

impl Fidelity {
    /// The recorded and the simulated waits by name.
    pub fn waits(&self) -> [(&'static str, Micros, Micros); 4] {
        let (one, two) = (&self.recorded, &self.simulated);
        [("mean", one.mean, two.mean), ("p50", one.p50, two.p50), ("p95", one.p95, two.p95), ("p99", one.p99, two.p99)]
    }

    /// Why what is said of other policies is not reliable; nothing where it is.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if let Some(at) = self.decisions.difference {
            doubts.push(format!(
                "the decision at position {at} is not what its policy gives for what was observed; `ergate log verify --decisions` says more"
            ));
        }
        if let Some([recorded, simulated]) = self.sizes.difference {
            let told =
                |one: Option<(Timestamp, u32)>| one.map_or("none".to_owned(), |(at, size)| format!("{size} at {}", at.rfc3339()));
            doubts.push(format!(
                "sizes differ: {} changes recorded and {} simulated, {:.1} % apart on average; the first other one: recorded {}, simulated {}",
                self.sizes.recorded,
                self.sizes.simulated,
                self.sizes.off * 100.0,
                told(recorded),
                told(simulated)
            ));
        }
        let seconds = |span: Micros| span.0 as f64 / 1e6;
        for (name, recorded, simulated) in self.waits() {
            let apart = recorded.0.abs_diff(simulated.0);
            if apart > WAIT_FLOOR.0 && apart as f64 > TOLERANCE * recorded.0 as f64 {
                doubts.push(format!(
                    "wait {name} differs: {:.3} s recorded, {:.3} s simulated",
                    seconds(recorded),
                    seconds(simulated)
                ));
            }
        }
        doubts
    }

    /// Whether what is said of other policies can be relied on.
    pub fn is_reliable(&self) -> bool {
        self.doubts().is_empty()
    }
}
