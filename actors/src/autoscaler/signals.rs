//! What policies are shown of a pool: from what the projector counted, measured as the core says.

use ergate_events::scaling::measure::{self, Measure, Totals};
use ergate_events::scaling::signal::{Reading, names};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::Tally;

use crate::log_writer::SizedPool;

/// What is measured of a pool.
#[derive(Debug, Default)]
pub(super) struct Measured {
    measure: Measure,
    oldest: Option<Timestamp>,
    /// How many starts had been counted at the last look.
    starts: Option<u64>,
}

impl Measured {
    /// Notes what was counted up to now.
    pub(super) fn note(&mut self, sized: &SizedPool, tally: &Tally, now: Timestamp) {
        let mut totals = Totals::default();
        self.oldest = None;
        for known in tally.types.iter().filter(|known| known.pool == sized.name) {
            totals.arrivals += known.counts.requests + known.counts.redrives;
            totals.runs.merge(&known.counts.runs);
            totals.waits.merge(&known.counts.waits);
            self.oldest = [self.oldest, known.oldest()].into_iter().flatten().min();
        }
        let counted = self.measure.totals(now);
        if *counted != totals {
            *counted = totals;
        }
        self.measure.begin(now);
        self.note_starts(sized, tally);
        self.measure.note_work(sized.ready > 0 || sized.running > 0, now);
    }

    /// Notes starts that ended since the last look; those that ended before the first say nothing of this process.
    fn note_starts(&mut self, sized: &SizedPool, tally: &Tally) {
        let known = tally.starts.get(&sized.pool);
        let count = known.map_or(0, |starts| starts.count);
        let new = usize::try_from(count.saturating_sub(self.starts.unwrap_or(count))).unwrap_or(usize::MAX);
        let last = known.into_iter().flat_map(|starts| starts.last.iter().rev().take(new).rev());
        last.for_each(|took| self.measure.replica_started(*took));
        self.starts = Some(count);
    }

    /// A reading for each signal that the policy names.
    pub(super) fn readings(&self, sized: &SizedPool, now: Timestamp) -> Vec<Reading> {
        sized.signals.iter().map(|name| self.read(name, sized, now)).collect()
    }

    fn read(&self, name: &str, sized: &SizedPool, now: Timestamp) -> Reading {
        match name {
            names::READY => measure::count(sized.ready),
            names::RUNNING => measure::count(sized.running),
            names::WORK => measure::count(sized.ready.saturating_add(sized.running)),
            names::BUSY => measure::real(match sized.busy {
                (_, 0) => 0.0,
                (busy, slots) => busy as f64 / slots as f64 * 100.0,
            }),
            names::OLDEST => measure::seconds(self.oldest.map_or(Micros(0), |since| now.since(since))),
            _ => self.measure.read(name, now).unwrap_or_else(|| {
                Reading::Failed(format!("there is no signal {:?}", name.chars().take(64).collect::<String>()))
            }),
        }
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
    }
}
