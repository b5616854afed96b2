//! How long replicas were there, by pool: what has to be paid for.

use std::collections::BTreeMap;

use crate::event::{Envelope, Event};
use crate::id::{PoolId, ReplicaId};
use crate::state::control::Control;
use crate::time::{Micros, Timestamp};

/// The time of all replicas: each counts from when it was asked for until it has ended. One of an external pool counts for as long as it is wanted, for
/// who comes is not the engine's to say; one that was lost with its engine counts until the next opening of the log, which records it.
#[derive(Clone, Debug, Default)]
pub struct ReplicaTime {
    live: BTreeMap<ReplicaId, (PoolId, Timestamp)>,
    ended: BTreeMap<PoolId, Micros>,
    /// When it was told something last.
    last_at: Timestamp,
}

impl ReplicaTime {
    /// What is there at a moment counts from then on.
    pub fn of(control: &Control, at: Timestamp) -> ReplicaTime {
        let live = control.replicas.iter().map(|(replica, life)| (*replica, (life.pool, at))).collect();
        ReplicaTime { live, ended: BTreeMap::new(), last_at: at }
    }

    /// Folds one event; most change nothing.
    pub fn apply(&mut self, envelope: &Envelope<'_>) {
        let at = envelope.recorded_at;
        self.last_at = at;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events begin and end no replica")]
        match envelope.event {
            Event::ReplicaRequested { replica, pool } => drop(self.live.entry(replica).or_insert((pool, at))),
            Event::ReplicaStopped { replica, .. } => {
                if let Some((pool, since)) = self.live.remove(&replica) {
                    self.add(pool, at.since(since));
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, pool: PoolId, time: Micros) {
        let sum = self.ended.entry(pool).or_default();
        *sum = Micros(sum.0.saturating_add(time.0));
    }

    /// The sums when it was told something last, by pool.
    pub fn sums(&self) -> BTreeMap<PoolId, Micros> {
        self.until(self.last_at)
    }

    /// The sums at a moment, by pool.
    pub fn until(&self, now: Timestamp) -> BTreeMap<PoolId, Micros> {
        let mut sums = self.clone();
        for (pool, since) in std::mem::take(&mut sums.live).into_values() {
            sums.add(pool, now.since(since));
        }
        sums.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Departure;
    use crate::id::Position;

    fn apply(time: &mut ReplicaTime, at: u64, event: Event<'_>) {
        time.apply(&Envelope { position: Position(at), recorded_at: Timestamp(at), event });
    }

    #[test]
    fn each_replica_counts_from_its_request_to_its_end_once() {
        let mut time = ReplicaTime::default();
        let (first, second, other) = (ReplicaId(1), ReplicaId(2), ReplicaId(3));
        apply(&mut time, 10, Event::ReplicaRequested { replica: first, pool: PoolId(0) });
        apply(&mut time, 15, Event::ReplicaRequested { replica: second, pool: PoolId(0) });
        apply(&mut time, 16, Event::ReplicaReady { replica: second });
        apply(&mut time, 20, Event::ReplicaRequested { replica: other, pool: PoolId(1) });
        let stop = || Event::ReplicaStopped { replica: first, departure: Departure::Drained };
        apply(&mut time, 40, stop());
        apply(&mut time, 50, stop());
        assert_eq!(time.until(Timestamp(60)), [(PoolId(0), Micros(30 + 45)), (PoolId(1), Micros(40))].into());
        assert_eq!(time.until(Timestamp(60)), time.until(Timestamp(60)), "looking changes nothing");
    }

    #[test]
    fn what_was_there_before_counts_from_the_moment_that_is_asked_for() {
        let mut control = Control::default();
        control.apply(&Envelope {
            position: Position(0),
            recorded_at: Timestamp(5),
            event: Event::ReplicaRequested { replica: ReplicaId(7), pool: PoolId(2) },
        });
        let mut time = ReplicaTime::of(&control, Timestamp(100));
        apply(&mut time, 130, Event::ReplicaStopped { replica: ReplicaId(7), departure: Departure::Lost });
        assert_eq!(time.until(Timestamp(900)), [(PoolId(2), Micros(30))].into());
    }
}
