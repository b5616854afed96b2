//! When a policy is asked: one rule, for an engine at work and for a back-test of it.

use super::policy::Cadence;
use crate::time::{Micros, Timestamp};

/// Shortest time between two looks: what happens meanwhile is one decision.
pub const SOONEST: Micros = Micros::from_millis(10);

/// What there is of a pool: whether that has changed since a policy was asked decides when it is asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct There {
    /// Tasks that are ready.
    pub ready: u64,
    /// Attempts that run.
    pub running: u64,
    /// How many replicas are wanted.
    pub wanted: u32,
}

/// When a policy is to be asked next that was asked at `last`, when there was `then`.
///
/// `most` is how many replicas the pool may have, and `again` when the policy itself wanted to look again at the latest.
pub fn due(cadence: Cadence, (last, then): (Timestamp, There), now: There, most: u32, again: Option<Timestamp>) -> Timestamp {
    match cadence {
        Cadence::Every(period) => last.after(period.max(SOONEST)),
        Cadence::OnEvents { up, down, timer } => {
            let may_grow = now.ready > 0 && now.wanted < most;
            let has_changed = then != now;
            let by_events = if may_grow && has_changed {
                last.after(up)
            } else if has_changed || may_grow {
                last.after(down)
            } else {
                Timestamp::NEVER
            };
            by_events.min(last.after(timer)).min(again.unwrap_or(Timestamp::NEVER)).max(last.after(SOONEST))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_looked_at_when_something_happened_and_rarely_when_nothing_did() {
        let last = Timestamp(1_000_000);
        let there = |ready, running, wanted| There { ready, running, wanted };
        let at = |now, then, again| due(Cadence::EVENTS, (last, then), now, 4, again).since(last).0;
        assert_eq!(at(there(1, 0, 0), there(0, 0, 0), None), 10_000, "work came, and the pool may grow");
        assert_eq!(at(there(1, 0, 4), there(0, 0, 4), None), 1_000_000, "work came, and it may not");
        assert_eq!(at(there(0, 0, 2), there(0, 3, 2), None), 1_000_000, "work ended");
        assert_eq!(at(there(0, 0, 0), there(0, 0, 0), None), 15_000_000, "nothing");
        let again = Some(Timestamp(3_000_000));
        assert_eq!(at(there(0, 0, 1), there(0, 0, 1), again), 2_000_000, "the policy wanted to look again then");
        assert_eq!(at(there(0, 0, 1), there(0, 0, 1), Some(Timestamp(1))), 10_000, "though not at once again");
        let every = Cadence::Every(Micros::from_secs(30));
        assert_eq!(due(every, (last, there(0, 0, 1)), there(9, 9, 1), 4, None).since(last).0, 30_000_000);
    }
}
