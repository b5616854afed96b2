//! How signals are measured that are rates, means and percentiles: one definition, for an engine at work and for a back-test of it.
//!
//! What happened is counted in half seconds of the clock, so that it makes no difference when somebody looks: a window ends at the moment of the
//! look and begins at the last whole half second that is at least as old as the window is long, or at the first look where that is later.

use std::collections::VecDeque;

use super::real::Real;
use super::signal::{Reading, Value, names};
use crate::time::{Micros, Timestamp};
use crate::view::Spans;

/// Over how long arrivals are counted: what a person calls "now", and long enough for a handful of tasks of a slow pool.
pub const ARRIVALS_OVER: Micros = Micros::from_secs(60);
/// Over how long ends are looked at, for how long tasks take and wait: a span of time and no number of tasks, since what has changed since then has
/// changed for pools of any pace; long enough for a mean in a pool that ends a task every few seconds.
pub const ENDS_OVER: Micros = Micros::from_secs(300);
/// Starts of replicas that are remembered: they take equally long unless something has changed, and then soon only the new ones count.
pub const STARTS_MAX: usize = 16;
/// The steps in which it is counted: a window keeps at most so many counts more than it has these.
const STEP: u64 = 500_000;
/// Less than this says nothing about a rate.
const RATE_SPAN_MIN: Micros = Micros::from_secs(1);
/// What is longer than the longest bound of [`Spans`] is told as this, an hour.
const LONGEST: Micros = Micros::from_secs(3_600);

/// What was counted of a pool up to a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tasks that arrived.
    pub arrivals: u64,
    /// From ready to started, of each attempt.
    pub waits: Spans,
    /// From started to its end, of each attempt.
    pub runs: Spans,
}

/// What is measured of a pool.
#[derive(Clone, Debug)]
pub struct Measure {
    arrivals_over: Micros,
    /// What was counted up to the end of a step, the oldest first; between two of them nothing changed.
    steps: VecDeque<(Timestamp, Totals)>,
    /// The end of the step in which it changed last.
    step: Timestamp,
    totals: Totals,
    /// When it was looked first, and what had been counted by then.
    begun: Option<(Timestamp, Totals)>,
    /// How long the last starts took.
    starts: VecDeque<Micros>,
    /// Since when there is nothing to do.
    idle_since: Option<Timestamp>,
}

impl Default for Measure {
    fn default() -> Self {
        Measure::over(ARRIVALS_OVER)
    }
}

impl Measure {
    /// Nothing was measured yet; arrivals are counted over this window.
    pub fn over(window: Micros) -> Measure {
        let (steps, starts) = (VecDeque::new(), VecDeque::new());
        let (step, totals) = (Timestamp(0), Totals::default());
        Measure { arrivals_over: window, steps, step, totals, begun: None, starts, idle_since: None }
    }

    /// Begins to measure; whatever was counted before belongs to no window.
    pub fn begin(&mut self, at: Timestamp) {
        if self.begun.is_none() {
            self.begun = Some((at, self.totals.clone()));
        }
    }

    /// What was counted, for somebody who counts on at this moment. Moments never decrease.
    pub fn totals(&mut self, at: Timestamp) -> &mut Totals {
        let step = Timestamp(at.0.div_ceil(STEP).saturating_mul(STEP));
        if step > self.step {
            self.steps.push_back((self.step, self.totals.clone()));
            self.step = step;
            let longest = ENDS_OVER.max(self.arrivals_over);
            // The last one that is older than every window stays: a window begins there.
            while self.steps.get(1).is_some_and(|(second, _)| at.since(*second).0 > longest.0 + STEP) {
                self.steps.pop_front();
            }
        }
        &mut self.totals
    }

    /// A replica is ready that took so long to start.
    pub fn replica_started(&mut self, took: Micros) {
        self.starts.push_back(took);
        if self.starts.len() > STARTS_MAX {
            self.starts.pop_front();
        }
    }

    /// From this moment on there is something to do, or nothing.
    pub fn note_work(&mut self, has_work: bool, at: Timestamp) {
        self.idle_since = if has_work { None } else { self.idle_since.or(Some(at)) };
    }

    /// A reading of a signal that is measured here; `None` for any other.
    pub fn read(&self, name: &str, now: Timestamp) -> Option<Reading> {
        Some(match name {
            names::IDLE => seconds(self.idle_since.map_or(Micros(0), |since| now.since(since))),
            names::ARRIVALS => {
                let (from, span) = self.window(self.arrivals_over, now);
                per_second(self.totals.arrivals.saturating_sub(from.arrivals) as f64, span)
            }
            names::GROWTH => {
                let (from, span) = self.window(self.arrivals_over, now);
                let came = self.totals.arrivals.saturating_sub(from.arrivals) as f64;
                per_second(came - self.totals.waits.count().saturating_sub(from.waits.count()) as f64, span)
            }
            names::SERVICE => self.mean_run(now),
            names::START => self.mean_start(),
            _ => {
                let (of, thousandths) = percentile(name)?;
                self.percentile(of, thousandths, now)
            }
        })
    }

    /// What had been counted at the beginning of a window that ends now, and how long that was ago.
    fn window(&self, over: Micros, now: Timestamp) -> (&Totals, Micros) {
        let from = Timestamp(now.0.saturating_sub(over.0) / STEP * STEP);
        match &self.begun {
            Some((begun, totals)) if from < *begun => (totals, now.since(*begun)),
            Some(_) | None if self.step <= from => (&self.totals, now.since(from)),
            Some((_, first)) => {
                let last = self.steps.partition_point(|(step, _)| *step <= from).checked_sub(1);
                (last.map_or(first, |index| &self.steps[index].1), now.since(from))
            }
            None => (&self.totals, now.since(from)),
        }
    }

    /// Of the last five minutes; of all since the beginning where nothing ended in them.
    fn mean_run(&self, now: Timestamp) -> Reading {
        let (from, _) = self.window(ENDS_OVER, now);
        let all = (self.totals.runs.count(), self.totals.runs.sum().0);
        let (mut count, mut sum) = (all.0 - from.runs.count(), all.1 - from.runs.sum().0);
        if count == 0 {
            (count, sum) = all;
        }
        if count == 0 { Reading::Failed("nothing has ended yet".to_owned()) } else { real(sum as f64 / count as f64 / 1e6) }
    }

    fn mean_start(&self) -> Reading {
        if self.starts.is_empty() {
            return Reading::Failed("no replica has started yet".to_owned());
        }
        real(self.starts.iter().map(|span| span.0 as f64).sum::<f64>() / self.starts.len() as f64 / 1e6)
    }

    /// A percentile of the last five minutes: the upper bound of its bucket.
    fn percentile(&self, of: Of, thousandths: u64, now: Timestamp) -> Reading {
        let (from, now) = (of(self.window(ENDS_OVER, now).0), of(&self.totals));
        let count = now.count() - from.count();
        if count == 0 {
            return Reading::Failed("nothing has ended lately".to_owned());
        }
        let rank = (count * thousandths).div_ceil(1_000);
        let buckets = now.cumulative().zip(from.cumulative());
        let reached = buckets.map(|((bound, now), (_, from))| (bound, now - from)).find(|(_, upto)| *upto >= rank);
        seconds(reached.map_or(LONGEST, |(bound, _)| bound))
    }
}

/// Spans of what was counted.
type Of = fn(&Totals) -> &Spans;

/// Of what a name is a percentile, and which.
fn percentile(name: &str) -> Option<(Of, u64)> {
    let (waits, runs): (Of, Of) = (|totals| &totals.waits, |totals| &totals.runs);
    let known = [
        (names::WAIT_P50, waits, 500),
        (names::WAIT_P95, waits, 950),
        (names::WAIT_P99, waits, 990),
        (names::RUN_P50, runs, 500),
        (names::RUN_P95, runs, 950),
        (names::RUN_P99, runs, 990),
    ];
    known.into_iter().find_map(|(known, of, rank)| (known == name).then_some((of, rank)))
}

/// So many in a span, a second.
fn per_second(count: f64, span: Micros) -> Reading {
    real(count * 1e6 / span.max(RATE_SPAN_MIN).0 as f64)
}

/// A span as a reading.
pub fn seconds(span: Micros) -> Reading {
    real(span.0 as f64 / 1e6)
}

/// A number as a reading.
pub fn real(number: f64) -> Reading {
    match Real::new(number) {
        Some(number) => Reading::Value(Value::Real(number)),
        None => Reading::Failed("it is no finite number".to_owned()),
    }
}

/// A count as a reading.
pub fn count(number: u64) -> Reading {
    Reading::Value(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const BEGIN: Timestamp = Timestamp(1_772_366_400_000_000);

    fn at(millis: u64) -> Timestamp {
        BEGIN.after(Micros::from_millis(millis))
    }

    fn read(measure: &Measure, name: &str, now: Timestamp) -> Option<f64> {
        match measure.read(name, now)? {
            Reading::Value(value) => Some(value.real()),
            Reading::Failed(_) => None,
        }
    }

    /// Two tasks a second for two minutes, each of which waits 20 ms and runs for half a second.
    fn busy(looks_every: usize) -> Measure {
        let mut measure = Measure::default();
        measure.begin(BEGIN);
        for (index, millis) in (250..120_000).step_by(500).enumerate() {
            let totals = measure.totals(at(millis));
            totals.arrivals += 1;
            totals.waits.record(Micros::from_millis(20));
            totals.runs.record(Micros::from_millis(500));
            if index % looks_every == 0 {
                // Looking changes nothing, whenever it is done.
                measure.totals(at(millis + 100));
                let _ = measure.read(names::ARRIVALS, at(millis + 200));
            }
        }
        measure
    }

    #[test]
    fn windows_are_the_same_whenever_somebody_looks() {
        for looks_every in [1, 7, 1_000] {
            let measure = busy(looks_every);
            for (name, expected) in
                [(names::ARRIVALS, 2.0), (names::SERVICE, 0.5), (names::WAIT_P95, 0.025), (names::RUN_P50, 0.5)]
            {
                assert_eq!(read(&measure, name, at(120_000)), Some(expected), "{name}");
            }
            assert_eq!(read(&measure, names::GROWTH, at(120_000)), Some(0.0));
            // A quarter of a second later the window begins at the same half second.
            let rate = read(&measure, names::ARRIVALS, at(120_250)).unwrap();
            assert!((rate - 120.0 / 60.25).abs() < 1e-9, "{rate}");
            // Then nothing for long: the rate goes down within its window, and how long tasks take is still known.
            assert_eq!(read(&measure, names::ARRIVALS, at(150_000)), Some(1.0));
            assert_eq!(read(&measure, names::ARRIVALS, at(180_000)), Some(0.0));
            assert_eq!(read(&measure, names::SERVICE, at(900_000)), Some(0.5));
            assert_eq!(read(&measure, names::WAIT_P50, at(900_000)), None, "nothing has ended lately");
            assert!(measure.steps.len() <= 602, "{}", measure.steps.len());
        }
    }

    #[test]
    fn before_a_window_is_full_it_is_as_long_as_it_was_looked() {
        let mut measure = Measure::default();
        // What was there before the first look came at an unknown time.
        measure.totals(at(0)).arrivals = 1_000;
        measure.begin(at(0));
        assert_eq!(read(&measure, names::ARRIVALS, at(0)), Some(0.0));
        measure.totals(at(100)).arrivals += 3;
        assert_eq!(read(&measure, names::ARRIVALS, at(100)), Some(3.0), "a second at least");
        assert_eq!(read(&measure, names::ARRIVALS, at(10_000)), Some(0.3));
        assert_eq!(read(&measure, names::ARRIVALS, at(60_000)), Some(0.05));
        assert_eq!(read(&measure, names::ARRIVALS, at(61_000)), Some(0.0));
        assert_eq!(read(&measure, names::SERVICE, at(61_000)), None);
    }

    #[test]
    fn the_last_starts_count_and_idleness_is_kept() {
        let mut measure = Measure::default();
        assert_eq!(read(&measure, names::START, at(0)), None);
        (0..20).for_each(|seconds| measure.replica_started(Micros::from_secs(seconds)));
        assert_eq!(read(&measure, names::START, at(0)), Some(11.5));
        measure.note_work(false, at(1_000));
        measure.note_work(false, at(2_000));
        assert_eq!(read(&measure, names::IDLE, at(5_000)), Some(4.0));
        measure.note_work(true, at(6_000));
        assert_eq!(read(&measure, names::IDLE, at(6_000)), Some(0.0));
        assert_eq!(measure.read("load", at(6_000)), None);
    }
}
