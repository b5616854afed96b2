//! What policies are shown of a pool: from what the projector counted, over windows.

use std::collections::{BTreeMap, VecDeque};

use ergate_events::id::{ReplicaId, ShardId};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Observation, Reading, Value, names};
use ergate_events::state::control::ReplicaPhase;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::Spans;

use super::sight::Seen;
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
    lag: Option<u64>,
}

/// What is measured of a pool.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// What was counted, the oldest first; the last is the newest look.
    samples: VecDeque<Sample>,
    now: Sample,
    oldest: Option<Timestamp>,
    /// When replicas that start were seen first; `None` once they are ready.
    starting: BTreeMap<(ShardId, ReplicaId), Option<Timestamp>>,
    /// When it was looked last.
    looked: Option<Timestamp>,
    /// How long the last starts took.
    starts: VecDeque<Micros>,
    /// Since when there is nothing to do.
    idle_since: Option<Timestamp>,
    /// What others had recorded before the first look here.
    before: Option<Observation>,
    /// When the first look was.
    begun: Option<Timestamp>,
    /// Why not everything is seen.
    silence: Option<String>,
}

impl Measured {
    /// Notes what is there and was counted up to now.
    pub(super) fn note(&mut self, sized: &SizedPool, seen: &Seen, now: Timestamp) {
        if self.begun.is_none() {
            (self.begun, self.before) = (Some(now), sized.seen.clone());
            let idle = self.recorded(names::IDLE).filter(|(_, idle)| *idle > 0.0);
            self.idle_since = idle.map(|(at, idle)| Timestamp(at.0.saturating_sub((idle * 1e6) as u64)));
        }
        let Seen { requests, oldest, .. } = *seen;
        let lag = seen.all.as_ref().and_then(|all| all.lag);
        let sample = Sample { at: now, requests, runs: seen.runs.clone(), waits: seen.waits.clone(), lag };
        self.oldest = oldest;
        self.silence = seen.all.as_ref().and_then(|all| all.silence.clone());
        let is_old = |last: &Sample| now.since(last.at) >= SAMPLE_EVERY;
        if self.samples.back().is_none_or(is_old) {
            self.samples.push_back(sample.clone());
        }
        // The last one that is older than the window stays: the window begins there.
        while self.samples.get(1).is_some_and(|second| now.since(second.at) > ENDS_OVER) {
            self.samples.pop_front();
        }
        self.now = sample;
        self.note_starts(seen, now);
        let is_idle = sized.ready == 0 && sized.running == 0;
        self.idle_since = if is_idle { self.idle_since.or(Some(now)) } else { None };
    }

    /// What others had recorded of a signal before the first look here, and when.
    fn recorded(&self, name: &str) -> Option<(Timestamp, f64)> {
        let before = self.before.as_ref()?;
        let known = before.signals.iter().find(|signal| signal.name == name)?;
        match &known.reading {
            Reading::Value(value) => Some((before.at, value.real())),
            Reading::Failed(_) => None,
        }
    }

    fn note_starts(&mut self, seen: &Seen, now: Timestamp) {
        for (id, phase) in &seen.replicas {
            match (phase, self.starting.get(id).copied()) {
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
        self.starting.retain(|id, _| seen.replicas.contains_key(id));
        self.looked = Some(now);
    }

    /// A reading for each signal that the policy names.
    pub(super) fn readings(&self, sized: &SizedPool, now: Timestamp) -> Vec<Reading> {
        sized.signals.iter().map(|name| self.read(name, sized, now)).collect()
    }

    fn read(&self, name: &str, sized: &SizedPool, now: Timestamp) -> Reading {
        if let Some(silence) = &self.silence {
            return Reading::Failed(silence.clone());
        }
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
            names::SERVICE => self.or_recorded(self.mean_run(), name, None),
            names::START => self.or_recorded(self.mean_start(), name, None),
            names::LAG => self.now.lag.map_or_else(unread, count),
            names::LAG_GROWTH => self.lag_growth(now),
            _ => match percentile(name) {
                Some((of_waits, thousandths)) => {
                    let since = Timestamp(now.0.saturating_sub(ENDS_OVER.0));
                    self.or_recorded(self.percentile(of_waits, thousandths), name, Some(since))
                }
                None => Reading::Failed(format!("there is no signal {:?}", name.chars().take(64).collect::<String>())),
            },
        }
    }

    /// The last sample that is at least so old, or the oldest.
    fn before(&self, span: Micros, now: Timestamp) -> &Sample {
        let old = self.samples.iter().rev().find(|sample| now.since(sample.at) >= span);
        old.or(self.samples.front()).unwrap_or(&self.now)
    }

    /// What was measured here; where that is nothing, what others had recorded before, if that is not older than this.
    fn or_recorded(&self, measured: Reading, name: &str, since: Option<Timestamp>) -> Reading {
        let recorded = self.recorded(name).filter(|(at, _)| since.is_none_or(|since| *at >= since));
        match (measured, recorded) {
            (Reading::Failed(_), Some((_, number))) => real(number),
            (measured, _) => measured,
        }
    }

    fn arrivals(&self, now: Timestamp) -> Reading {
        let from = self.before(ARRIVALS_OVER, now);
        // Less than a second says nothing about a rate.
        let span = now.since(from.at).max(Micros::from_secs(1));
        let arrived = self.now.requests.saturating_sub(from.requests) as f64;
        let begun = self.begun.unwrap_or(now);
        let recorded = self.recorded(names::ARRIVALS).filter(|(at, _)| begun.since(*at) < ARRIVALS_OVER);
        match recorded {
            // What whoever looked before had counted stands for the part of the window that was not seen here.
            Some((_, rate)) if now.since(begun) < ARRIVALS_OVER => {
                let unseen = ARRIVALS_OVER.0.saturating_sub(now.since(begun).0) as f64 / 1e6;
                real((arrived + rate * unseen) / (ARRIVALS_OVER.0 as f64 / 1e6))
            }
            Some(_) | None => real(arrived * 1e6 / span.0 as f64),
        }
    }

    fn lag_growth(&self, now: Timestamp) -> Reading {
        let from = self.before(ARRIVALS_OVER, now);
        let span = now.since(from.at).max(Micros::from_secs(1));
        match (from.lag, self.now.lag) {
            (Some(before), Some(lag)) => real(lag.saturating_sub(before) as f64 * 1e6 / span.0 as f64),
            (None, Some(_)) => real(0.0),
            (_, None) => unread(),
        }
    }

    /// Of the last five minutes; of all since the process began where nothing ended in them.
    fn mean_run(&self) -> Reading {
        let from = self.samples.front().map(|sample| sample.runs.clone()).unwrap_or_default();
        let mut count = self.now.runs.count().saturating_sub(from.count());
        let mut sum = self.now.runs.sum().0.saturating_sub(from.sum().0);
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
        let count = now.count().saturating_sub(from.count());
        if count == 0 {
            return Reading::Failed("nothing has ended lately".to_owned());
        }
        let rank = (count * thousandths).div_ceil(1_000);
        let buckets = now.cumulative().zip(from.cumulative());
        let reached = buckets.map(|((bound, now), (_, from))| (bound, now.saturating_sub(from))).find(|(_, upto)| *upto >= rank);
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

fn count(number: u64) -> Reading {
    Reading::Value(Value::Integer(i64::try_from(number).unwrap_or(i64::MAX)))
}

/// Nobody knows how many requests are unread.
fn unread() -> Reading {
    Reading::Failed("how many requests are unread is not known: they come from no topic, or its brokers do not answer".to_owned())
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
    use ergate_events::view::Tally;

    use super::*;

    fn number(reading: &Reading) -> Option<f64> {
        match reading {
            Reading::Value(value) => Some(value.real()),
            Reading::Failed(_) => None,
        }
    }

    fn seen(tally: &Tally) -> Seen {
        let mut seen = Seen::default();
        seen.add(ShardId(0), "models", tally);
        seen
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
            seen: None,
        };
        let mut tally = Tally::default();
        let settings = Box::new(TypeSettings { pool: "models".to_owned(), ..TypeSettings::default() });
        let event = Event::TypeDefined { task_type: TypeId(0), name: "nap", settings, by: "" };
        tally.apply(&Envelope { position: Position(0), recorded_at: Timestamp(0), event });
        let mut measured = Measured::default();
        let begin = Timestamp(1_000_000_000);
        measured.note(&sized, &seen(&tally), begin);
        let first: Vec<_> = measured.readings(&sized, begin).iter().map(number).collect();
        assert_eq!(first, [Some(3.0), Some(5.0), Some(0.0), None, None, None, None, Some(12.5)]);
        // Two a second for two minutes, of which each takes half a second.
        for second in 1..=120_u64 {
            let counts = &mut tally.types[0].counts;
            counts.requests += 2;
            counts.runs.record(Micros::from_millis(500));
            counts.waits.record(Micros::from_millis(20));
            measured.note(&sized, &seen(&tally), begin.after(Micros::from_secs(second)));
        }
        let now = begin.after(Micros::from_secs(120));
        let read: Vec<_> = measured.readings(&sized, now).iter().map(number).collect();
        assert_eq!(read, [Some(3.0), Some(5.0), Some(2.0), Some(0.5), None, Some(0.025), None, Some(12.5)]);
        // Then nothing for long: the rate goes down within its window, and how long tasks take is still known.
        sized.ready = 0;
        for second in 121..=600_u64 {
            measured.note(&sized, &seen(&tally), begin.after(Micros::from_secs(second)));
        }
        let now = begin.after(Micros::from_secs(600));
        assert_eq!(number(&measured.readings(&sized, now)[2]), Some(0.0));
        assert_eq!(number(&measured.readings(&sized, now)[3]), Some(0.5));
        assert!(measured.samples.len() <= 602, "{}", measured.samples.len());
    }

    #[test]
    fn what_was_recorded_before_stands_for_what_was_not_measured_yet() {
        let names = [names::ARRIVALS, names::SERVICE, names::WAIT_P95, names::LAG, names::LAG_GROWTH];
        let begin = Timestamp(1_000_000_000);
        let signal = |(name, number): (&str, i64)| {
            let (name, reading) = (name.to_owned(), Reading::Value(Value::Integer(number)));
            ergate_events::scaling::signal::Signal { name, reading }
        };
        let recorded = [(names[0], 6), (names[1], 2), (names[2], 5)].map(signal).to_vec();
        let bounds = ergate_events::scaling::signal::Bounds { min: 0, max: 4 };
        let at = Timestamp(begin.0 - 8_000_000);
        let before = Observation { at, bounds, replicas: Default::default(), signals: recorded, pods: None };
        let sized = SizedPool {
            pool: PoolId(0),
            name: "models".to_owned(),
            signals: names.map(str::to_owned).to_vec(),
            cadence: Cadence::EVENTS,
            wanted: 1,
            most: 4,
            ready: 0,
            running: 0,
            busy: (0, 0),
            look_again: None,
            seen: Some(before),
        };
        let all = |lag| Some(super::super::sight::AllShards { lag: Some(lag), ..Default::default() });
        let mut measured = Measured::default();
        let mut read = |second: u64, requests, lag, silence: Option<&str>| {
            let mut seen = Seen { requests, all: all(lag), ..Seen::default() };
            seen.all.as_mut().unwrap().silence = silence.map(str::to_owned);
            let now = begin.after(Micros::from_secs(second));
            measured.note(&sized, &seen, now);
            measured.readings(&sized, now).iter().map(number).collect::<Vec<_>>()
        };
        assert_eq!(read(0, 100, 40, None), [Some(6.0), Some(2.0), Some(5.0), Some(40.0), Some(0.0)]);
        // Half of the minute is measured: three a second of it, and the recorded rate for the rest.
        assert_eq!(read(30, 190, 100, None), [Some(4.5), Some(2.0), Some(5.0), Some(100.0), Some(2.0)]);
        assert_eq!(read(60, 190, 40, None), [Some(1.5), Some(2.0), Some(5.0), Some(40.0), Some(0.0)]);
        // No waits of the last five minutes are known any more; how long tasks take still is.
        assert_eq!(read(400, 190, 40, None), [Some(0.0), Some(2.0), None, Some(40.0), Some(0.0)]);
        assert_eq!(read(401, 190, 40, Some("no engine speaks for shard 3")), [None; 5], "a sum without a part is no number");
    }
}
