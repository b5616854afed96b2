//! What policies are shown of a pool: from what the projector counted, measured as the core says.

use std::collections::{BTreeMap, VecDeque};

use ergate_events::id::ShardId;
use ergate_events::scaling::measure::{self, ARRIVALS_OVER, ENDS_OVER, Measure};
use ergate_events::scaling::signal::{Observation, Reading, names};
use ergate_events::scaling::usage::{self, ReplicaReading};
use ergate_events::time::{Micros, Timestamp};

use super::sight::Seen;
use crate::log_writer::SizedPool;

/// How often it is kept how many requests were unread.
const LAG_EVERY: Micros = Micros::from_millis(500);

/// What is measured of a pool.
#[derive(Debug, Default)]
pub(super) struct Measured {
    measure: Measure,
    oldest: Option<Timestamp>,
    /// How many starts had been counted in each shard at the last look.
    starts: Option<BTreeMap<ShardId, u64>>,
    /// How many requests were unread, the oldest first; the last is the newest look.
    lags: VecDeque<(Timestamp, u64)>,
    lag: Option<u64>,
    /// What others had recorded before the first look here, and when that was.
    before: Option<Observation>,
    begun: Option<Timestamp>,
    /// Why not everything is seen.
    silence: Option<String>,
}

impl Measured {
    /// Notes what is there and was counted up to now.
    pub(super) fn note(&mut self, sized: &SizedPool, seen: &Seen, now: Timestamp) {
        let counted = self.measure.totals(now);
        if *counted != seen.totals {
            *counted = seen.totals.clone();
        }
        self.measure.begin(now);
        let has_work = sized.ready > 0 || sized.running > 0;
        if self.begun.is_none() {
            (self.begun, self.before) = (Some(now), sized.seen.clone());
            if let Some((at, idle)) = self.recorded(names::IDLE).filter(|(_, idle)| *idle > 0.0) {
                self.measure.note_work(has_work, Timestamp(at.0.saturating_sub((idle * 1e6) as u64)));
            }
        }
        self.measure.note_work(has_work, now);
        self.oldest = seen.oldest;
        self.note_starts(seen);
        self.note_lag(seen.all.as_ref().and_then(|all| all.lag), now);
        self.silence = seen.all.as_ref().and_then(|all| all.silence.clone());
    }

    /// Notes starts that ended since the last look; those that ended before the first say nothing of this process.
    fn note_starts(&mut self, seen: &Seen) {
        let counts: BTreeMap<ShardId, u64> = seen.starts.iter().map(|(shard, starts)| (*shard, starts.count)).collect();
        if let Some(before) = &self.starts {
            for (shard, starts) in &seen.starts {
                let known = before.get(shard).copied().unwrap_or_default();
                let new = usize::try_from(starts.count.saturating_sub(known)).unwrap_or(usize::MAX);
                starts.last.iter().rev().take(new).rev().for_each(|took| self.measure.replica_started(*took));
            }
        }
        self.starts = Some(counts);
    }

    fn note_lag(&mut self, lag: Option<u64>, now: Timestamp) {
        self.lag = lag;
        let Some(lag) = lag else { return };
        if self.lags.back().is_none_or(|(at, _)| now.since(*at) >= LAG_EVERY) {
            self.lags.push_back((now, lag));
        }
        // The last one that is older than the window stays: the window begins there.
        while self.lags.get(1).is_some_and(|(second, _)| now.since(*second) >= ARRIVALS_OVER) {
            self.lags.pop_front();
        }
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

    /// A reading for each of these signals.
    pub(super) fn readings(
        &self,
        names: &[&str],
        sized: &SizedPool,
        replicas: &[ReplicaReading],
        now: Timestamp,
    ) -> Vec<Reading> {
        names.iter().map(|name| self.read(name, sized, replicas, now)).collect()
    }

    fn read(&self, name: &str, sized: &SizedPool, replicas: &[ReplicaReading], now: Timestamp) -> Reading {
        if let Some(silence) = &self.silence {
            return Reading::Failed(silence.clone());
        }
        let asked = sized.fleet.as_ref().map(|fleet| fleet.asked).unwrap_or_default();
        if let Some(reading) = usage::read(name, replicas, &asked, now) {
            return reading;
        }
        match name {
            names::READY => measure::count(sized.ready),
            names::RUNNING => measure::count(sized.running),
            names::WORK => measure::count(sized.ready.saturating_add(sized.running)),
            names::BUSY => measure::real(match sized.busy {
                (_, 0) => 0.0,
                (busy, slots) => busy as f64 / slots as f64 * 100.0,
            }),
            names::OLDEST => measure::seconds(self.oldest.map_or(Micros(0), |since| now.since(since))),
            names::LAG => self.lag.map_or_else(unread, measure::count),
            names::LAG_GROWTH => self.lag_growth(now),
            _ => match self.measure.read(name, now) {
                Some(measured) => self.or_recorded(measured, name, now),
                None => Reading::Failed(format!("there is no signal {:?}", name.chars().take(64).collect::<String>())),
            },
        }
    }

    /// What was measured here; where that is nothing, or only a part of a window, what others had recorded before stands for the rest.
    fn or_recorded(&self, measured: Reading, name: &str, now: Timestamp) -> Reading {
        let Some((at, number)) = self.recorded(name) else { return measured };
        let begun = self.begun.unwrap_or(now);
        let (is_rate, is_mean) =
            (name == names::ARRIVALS || name == names::GROWTH, name == names::SERVICE || name == names::START);
        match measured {
            Reading::Value(value) if is_rate && begun.since(at) < ARRIVALS_OVER && now.since(begun) < ARRIVALS_OVER => {
                let (seen, all) = (now.since(begun).0 as f64, ARRIVALS_OVER.0 as f64);
                // A rate over less than a second is one over a second.
                let counted = value.real() * seen.max(1e6);
                measure::real((counted + number * (all - seen)) / all)
            }
            // How long tasks and starts take is known for good, how long they waited only for a while.
            Reading::Failed(_) if is_mean || now.since(at) <= ENDS_OVER => measure::real(number),
            measured @ (Reading::Value(_) | Reading::Failed(_)) => measured,
        }
    }

    fn lag_growth(&self, now: Timestamp) -> Reading {
        let (Some((from, before)), Some(lag)) = (self.lags.front(), self.lag) else { return unread() };
        let span = now.since(*from).max(Micros::from_secs(1));
        measure::real(lag.saturating_sub(*before) as f64 * 1e6 / span.0 as f64)
    }
}

/// Nobody knows how many requests are unread.
fn unread() -> Reading {
    Reading::Failed("how many requests are unread is not known: they come from no topic, or its brokers do not answer".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ergate_events::event::{Envelope, Event};
    use ergate_events::id::{PoolId, Position, TypeId};
    use ergate_events::scaling::measure::Totals;
    use ergate_events::scaling::signal::Value;
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
            policies: Vec::new(),
            wanted: 1,
            most: 4,
            ready: 3,
            running: 2,
            busy: (1, 8),
            resources_at: None,
            fleet: None,
            seen: None,
            hold: None,
        };
        let mut tally = Tally::default();
        let settings = Box::new(TypeSettings { pool: "models".to_owned(), ..TypeSettings::default() });
        let event = Event::TypeDefined { task_type: TypeId(0), name: "nap", settings, by: "" };
        tally.apply(&Envelope { position: Position(0), recorded_at: Timestamp(0), event });
        let mut measured = Measured::default();
        let begin = Timestamp(1_000_000_000);
        measured.note(&sized, &seen(&tally), begin);
        let first: Vec<_> = measured.readings(&signals, &sized, &[], begin).iter().map(number).collect();
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
        let read: Vec<_> = measured.readings(&signals, &sized, &[], now).iter().map(number).collect();
        assert_eq!(read, [Some(3.0), Some(5.0), Some(2.0), Some(0.5), None, Some(0.025), None, Some(12.5)]);
        // Then nothing for long: the rate goes down within its window, and how long tasks take is still known.
        sized.ready = 0;
        for second in 121..=600_u64 {
            measured.note(&sized, &seen(&tally), begin.after(Micros::from_secs(second)));
        }
        let now = begin.after(Micros::from_secs(600));
        assert_eq!(number(&measured.readings(&signals, &sized, &[], now)[2]), Some(0.0));
        assert_eq!(number(&measured.readings(&signals, &sized, &[], now)[3]), Some(0.5));
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
        let before = Observation { at, bounds, replicas: Default::default(), ceiling: None, signals: recorded, pods: None };
        let sized = SizedPool {
            pool: PoolId(0),
            name: "models".to_owned(),
            policies: Vec::new(),
            wanted: 1,
            most: 4,
            ready: 0,
            running: 0,
            busy: (0, 0),
            resources_at: None,
            fleet: None,
            seen: Some(before),
            hold: None,
        };
        let all = |lag| Some(super::super::sight::AllShards { lag: Some(lag), ..Default::default() });
        let mut measured = Measured::default();
        let mut read = |second: u64, requests, lag, silence: Option<&str>| {
            let mut seen = Seen { totals: Totals { arrivals: requests, ..Totals::default() }, all: all(lag), ..Seen::default() };
            seen.all.as_mut().unwrap().silence = silence.map(str::to_owned);
            let now = begin.after(Micros::from_secs(second));
            measured.note(&sized, &seen, now);
            measured.readings(&names, &sized, &[], now).iter().map(number).collect::<Vec<_>>()
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
