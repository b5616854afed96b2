//! What policies are shown of a pool: from what the projector counted, over windows.

use std::collections::{BTreeMap, VecDeque};

use ergate_events::id::ReplicaId;
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Reading, Value, names};
use ergate_events::state::control::ReplicaPhase;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::{Spans, Tally};

use crate::log_writer::SizedPool;

/// Over how long arrivals are counted: what a person calls "now", and long enough for a handful of tasks of a slow pool.
const ARRIVALS_OVER: Micros = Micros::from_secs(60);
/// Over how long ends are looked at, for how long tasks take and wait.
const ENDS_OVER: Micros = Micros::from_secs(300);
/// How often what was counted is kept for later: a window has at most so many samples more than it has these spans.
const SAMPLE_EVERY: Micros = Micros::from_millis(500);
/// Starts of replicas that are remembered.
const STARTS_MAX: usize = 16;

/// What was counted of a pool up to a moment.
#[derive(Clone, Debug, Default)]
struct Sample {
    at: Timestamp,
    requests: u64,
    runs: Spans,
    waits: Spans,
}

/// What is measured of a pool.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// What was counted, the oldest first; the last is the newest look.
    samples: VecDeque<Sample>,
    now: Sample,
    oldest: Option<Timestamp>,
    /// When replicas that start were seen first; `None` once they are ready.
    starting: BTreeMap<ReplicaId, Option<Timestamp>>,
    /// When it was looked last.
    looked: Option<Timestamp>,
    /// How long the last starts took.
    starts: VecDeque<Micros>,
    /// Since when there is nothing to do.
    idle_since: Option<Timestamp>,
}

impl Measured {
    /// Notes what was counted up to now.
    pub(super) fn note(&mut self, sized: &SizedPool, tally: &Tally, now: Timestamp) {
        let mut sample = Sample { at: now, ..Sample::default() };
        self.oldest = None;
        for known in tally.types.iter().filter(|known| known.pool == sized.name) {
            sample.requests += known.counts.requests + known.counts.redrives;
            sample.runs.merge(&known.counts.runs);
            sample.waits.merge(&known.counts.waits);
            self.oldest = [self.oldest, known.oldest()].into_iter().flatten().min();
        }
        let is_old = |last: &Sample| now.since(last.at) >= SAMPLE_EVERY;
        if self.samples.back().is_none_or(is_old) {
            self.samples.push_back(sample.clone());
        }
        // The last one that is older than the window stays: the window begins there.
        while self.samples.get(1).is_some_and(|second| now.since(second.at) > ENDS_OVER) {
            self.samples.pop_front();
        }
        self.now = sample;
        self.note_starts(sized, tally, now);
        let is_idle = sized.ready == 0 && sized.running == 0;
        self.idle_since = if is_idle { self.idle_since.or(Some(now)) } else { None };
    }

    fn note_starts(&mut self, sized: &SizedPool, tally: &Tally, now: Timestamp) {
        let replicas = || tally.control.replicas.iter().filter(|(_, life)| life.pool == sized.pool);
        for (id, life) in replicas() {
            match (life.phase, self.starting.get(id).copied()) {
                (ReplicaPhase::Requested, None) => drop(self.starting.insert(*id, Some(now))),
                // One that was never seen starting took no longer than from the look before.
                (ReplicaPhase::Ready, since @ (None | Some(Some(_)))) => {
                    let since = since.flatten().or(self.looked);
                    self.starting.insert(*id, None);
                    // What was ready before the first look says nothing.
                    let Some(since) = since else { continue };
                    self.starts.push_back(now.since(since));
                    if self.starts.len() > STARTS_MAX {
                        self.starts.pop_front();
                    }
                }
                (ReplicaPhase::Requested | ReplicaPhase::Ready | ReplicaPhase::Draining, _) => {}
            }
        }
        self.starting.retain(|id, _| tally.control.replicas.contains_key(id));
        self.looked = Some(now);
    }

    /// A reading for each signal that the policy names.
    pub(super) fn readings(&self, sized: &SizedPool, now: Timestamp) -> Vec<Reading> {
        sized.signals.iter().map(|name| self.read(name, sized, now)).collect()
    }

    fn read(&self, name: &str, sized: &SizedPool, now: Timestamp) -> Reading {
        let count = |number: u64| Reading::Value(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)));
        match name {
            names::READY => count(sized.ready),
            names::RUNNING => count(sized.running),
            names::WORK => count(sized.ready.saturating_add(sized.running)),
            names::BUSY => real(match sized.busy {
                (_, 0) => 0.0,
                (busy, slots) => busy as f64 / slots as f64 * 100.0,
            }),
            names::OLDEST => seconds(self.oldest.map_or(Micros(0), |since| now.since(since))),
            names::IDLE => seconds(self.idle_since.map_or(Micros(0), |since| now.since(since))),
            names::ARRIVALS => self.arrivals(now),
            names::SERVICE => self.mean_run(),
            names::START => self.mean_start(),
            _ => match percentile(name) {
                Some((of_waits, thousandths)) => self.percentile(of_waits, thousandths),
                None => Reading::Failed(format!("there is no signal {:?}", name.chars().take(64).collect::<String>())),
            },
        }
    }

    /// The last sample that is at least so old, or the oldest.
    fn before(&self, span: Micros, now: Timestamp) -> &Sample {
        let old = self.samples.iter().rev().find(|sample| now.since(sample.at) >= span);
        old.or(self.samples.front()).unwrap_or(&self.now)
    }

    fn arrivals(&self, now: Timestamp) -> Reading {
        let from = self.before(ARRIVALS_OVER, now);
        // Less than a second says nothing about a rate.
        let span = now.since(from.at).max(Micros::from_secs(1));
        real(self.now.requests.saturating_sub(from.requests) as f64 * 1e6 / span.0 as f64)
    }

    /// Of the last five minutes; of all since the process began where nothing ended in them.
    fn mean_run(&self) -> Reading {
        let from = self.samples.front().map(|sample| sample.runs.clone()).unwrap_or_default();
        let (mut count, mut sum) = (self.now.runs.count() - from.count(), self.now.runs.sum().0 - from.sum().0);
        if count == 0 {
            (count, sum) = (self.now.runs.count(), self.now.runs.sum().0);
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
    fn percentile(&self, of_waits: bool, thousandths: u64) -> Reading {
        let of = |sample: &Sample| if of_waits { sample.waits.clone() } else { sample.runs.clone() };
        let (from, now) = (self.samples.front().map(of).unwrap_or_default(), of(&self.now));
        let count = now.count() - from.count();
        if count == 0 {
            return Reading::Failed("nothing has ended lately".to_owned());
        }
        let rank = (count * thousandths).div_ceil(1_000);
        let buckets = now.cumulative().zip(from.cumulative());
        let reached = buckets.map(|((bound, now), (_, from))| (bound, now - from)).find(|(_, upto)| *upto >= rank);
        // Longer than the longest bound, an hour.
        seconds(reached.map_or(Micros::from_secs(3_600), |(bound, _)| bound))
    }
}

/// Whether a name is a percentile of waits or of runs, and which.
fn percentile(name: &str) -> Option<(bool, u64)> {
    [
        (names::WAIT_P50, true, 500),
        (names::WAIT_P95, true, 950),
        (names::WAIT_P99, true, 990),
        (names::RUN_P50, false, 500),
        (names::RUN_P95, false, 950),
        (names::RUN_P99, false, 990),
    ]
    .into_iter()
    .find_map(|(known, of_waits, rank)| (known == name).then_some((of_waits, rank)))
}

fn seconds(span: Micros) -> Reading {
    real(span.0 as f64 / 1e6)
}

fn real(number: f64) -> Reading {
    match Real::new(number) {
        Some(number) => Reading::Value(Value::Real(number)),
        None => Reading::Failed("it is no finite number".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ergate_events::event::{Envelope, Event};
    use ergate_events::id::{PoolId, Position, TypeId};
    use ergate_events::scaling::Cadence;
    use ergate_events::task::TypeSettings;

    use super::*;

    fn number(reading: &Reading) -> Option<f64> {
        match reading {
            Reading::Value(value) => Some(value.real()),
            Reading::Failed(_) => None,
        }
    }

    #[test]
    fn rates_and_means_are_those_of_their_windows() {
        let signals =
            [names::READY, names::WORK, names::ARRIVALS, names::SERVICE, names::START, names::WAIT_P95, "load", names::BUSY];
        let mut sized = SizedPool {
            pool: PoolId(0),
            name: "models".to_owned(),
            signals: signals.map(str::to_owned).to_vec(),
            cadence: Cadence::EVENTS,
            wanted: 1,
            most: 4,
            ready: 3,
            running: 2,
            busy: (1, 8),
            look_again: None,
        };
        let mut tally = Tally::default();
        let settings = Box::new(TypeSettings { pool: "models".to_owned(), ..TypeSettings::default() });
        let event = Event::TypeDefined { task_type: TypeId(0), name: "nap", settings, by: "" };
        tally.apply(&Envelope { position: Position(0), recorded_at: Timestamp(0), event });
        let mut measured = Measured::default();
        let begin = Timestamp(1_000_000_000);
        measured.note(&sized, &tally, begin);
        let first: Vec<_> = measured.readings(&sized, begin).iter().map(number).collect();
        assert_eq!(first, [Some(3.0), Some(5.0), Some(0.0), None, None, None, None, Some(12.5)]);
        // Two a second for two minutes, of which each takes half a second.
        for second in 1..=120_u64 {
            let counts = &mut tally.types[0].counts;
            counts.requests += 2;
            counts.runs.record(Micros::from_millis(500));
            counts.waits.record(Micros::from_millis(20));
            measured.note(&sized, &tally, begin.after(Micros::from_secs(second)));
        }
        let now = begin.after(Micros::from_secs(120));
        let read: Vec<_> = measured.readings(&sized, now).iter().map(number).collect();
        assert_eq!(read, [Some(3.0), Some(5.0), Some(2.0), Some(0.5), None, Some(0.025), None, Some(12.5)]);
        // Then nothing for long: the rate goes down within its window, and how long tasks take is still known.
        sized.ready = 0;
        for second in 121..=600_u64 {
            measured.note(&sized, &tally, begin.after(Micros::from_secs(second)));
        }
        let now = begin.after(Micros::from_secs(600));
        assert_eq!(number(&measured.readings(&sized, now)[2]), Some(0.0));
        assert_eq!(number(&measured.readings(&sized, now)[3]), Some(0.5));
        assert!(measured.samples.len() <= 602, "{}", measured.samples.len());
    }
}
