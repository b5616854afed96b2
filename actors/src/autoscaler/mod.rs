//! Looks at pools that have a policy, and proposes what was seen of them.
//!
//! A loop and no actor, for nobody tells it anything: what the log makes durable wakes it, and what is due by time. It decides nothing: the rule in the
//! core does, with what is recorded, so that an audit decides the same. What it measures itself (how fast tasks come, how long they take) is forgotten
//! with the process; what policies remember is in the log.

mod signals;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use actix::Addr;
use ergate_events::id::PoolId;
use ergate_events::scaling::Cadence;
use ergate_events::scaling::signal::Reading;
use ergate_events::time::{Micros, Timestamp};
use tokio::sync::{oneshot, watch};

use self::signals::Measured;
use crate::clock::Clock;
use crate::log_writer::{LogWriter, LookAtPools, Propose, SizedPool, Tail};
use crate::projector::SharedTally;
use crate::proposal::Proposal;

/// Shortest time between two looks: what happens meanwhile is one decision.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// Longest time between two looks: for starts of replicas, whose readiness is measured by them, and for policies that were just set.
const LOOK_MAX: Duration = Duration::from_millis(250);

/// What an autoscaler is made of.
#[derive(Clone)]
pub struct Autoscaler {
    /// Decides.
    pub writer: Addr<LogWriter>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Moves when something is durable.
    pub tail: watch::Receiver<Tail>,
    /// What was counted.
    pub tally: SharedTally,
}

/// What is known of a pool.
struct Known {
    measured: Measured,
    /// When it was decided last, and what there was.
    decided: Option<(Timestamp, (u64, u64, u32))>,
}

/// The shard takes no more proposals.
struct Closed;

impl Autoscaler {
    /// Looks again and again, until the shard takes no more.
    pub async fn run(mut self) {
        let mut known = BTreeMap::new();
        loop {
            let looked = Instant::now();
            let Ok(wait) = self.look(&mut known).await else { return };
            tokio::select! {
                changed = self.tail.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            tokio::time::sleep(LOOK_MIN.saturating_sub(looked.elapsed())).await;
        }
    }

    /// Proposes what was seen of every pool whose policy wants to decide now; says how long none will.
    async fn look(&self, known: &mut BTreeMap<PoolId, Known>) -> Result<Duration, Closed> {
        let pools = self.writer.send(LookAtPools).await.map_err(|_| Closed)?;
        known.retain(|pool, _| pools.iter().any(|sized| sized.pool == *pool));
        let (now, mut next, mut answers) = (self.clock.now(), Timestamp::NEVER, Vec::new());
        for sized in pools {
            let entry = known.entry(sized.pool).or_insert_with(|| Known { measured: Measured::default(), decided: None });
            entry.measured.note(&sized, &self.tally.lock().unwrap_or_else(PoisonError::into_inner), now);
            let there = (sized.ready, sized.running, sized.wanted);
            let due = due(&sized, entry.decided);
            if due <= now {
                entry.decided = Some((now, there));
                answers.push(self.propose(sized.pool, entry.measured.readings(&sized, now)).await?);
            } else {
                next = next.min(due);
            }
        }
        for answer in answers {
            // A pool that was paused, or lost its policy, meanwhile: the next look sees that.
            if answer.await.is_err() {
                return Err(Closed);
            }
        }
        Ok(next.since(now).to_std().min(LOOK_MAX))
    }

    async fn propose(
        &self,
        pool: PoolId,
        readings: Vec<Reading>,
    ) -> Result<oneshot::Receiver<Result<ergate_events::id::Position, crate::submission::SubmitError>>, Closed> {
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal::ObservePool(pool, readings);
        self.writer.send(Propose { proposal, reply }).await.map_err(|_| Closed)?;
        Ok(answer)
    }
}

/// When a pool is to be decided about next.
fn due(sized: &SizedPool, decided: Option<(Timestamp, (u64, u64, u32))>) -> Timestamp {
    let Some((last, there)) = decided else { return Timestamp(0) };
    match sized.cadence {
        Cadence::Every(period) => last.after(period),
        Cadence::OnEvents { up, down, timer } => {
            let may_grow = sized.ready > 0 && sized.wanted < sized.most;
            let has_changed = there != (sized.ready, sized.running, sized.wanted);
            let by_events = if may_grow && has_changed {
                last.after(up)
            } else if has_changed || may_grow {
                last.after(down)
            } else {
                Timestamp::NEVER
            };
            let again = sized.look_again.map_or(Timestamp::NEVER, |at| at.max(last.after(Micros(1))));
            by_events.min(last.after(timer)).min(again)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ready: u64, running: u64, wanted: u32) -> SizedPool {
        SizedPool {
            pool: PoolId(0),
            name: "models".to_owned(),
            signals: Vec::new(),
            cadence: Cadence::EVENTS,
            wanted,
            most: 4,
            ready,
            running,
            busy: (running, 8),
            look_again: None,
        }
    }

    #[test]
    fn a_pool_is_looked_at_when_something_happened_and_rarely_when_nothing_did() {
        let last = Timestamp(1_000_000);
        let at = |sized: SizedPool, there| due(&sized, Some((last, there))).since(last).0;
        assert_eq!(due(&pool(0, 0, 0), None), Timestamp(0));
        assert_eq!(at(pool(1, 0, 0), (0, 0, 0)), 10_000, "work came, and the pool may grow");
        assert_eq!(at(pool(1, 0, 4), (0, 0, 4)), 1_000_000, "work came, and it may not");
        assert_eq!(at(pool(0, 0, 2), (0, 3, 2)), 1_000_000, "work ended");
        assert_eq!(at(pool(0, 0, 0), (0, 0, 0)), 15_000_000, "nothing");
        let asked = SizedPool { look_again: Some(Timestamp(3_000_000)), ..pool(0, 0, 1) };
        assert_eq!(at(asked, (0, 0, 1)), 2_000_000, "the policy wanted to look again then");
        let periodic = SizedPool { cadence: Cadence::Every(Micros::from_secs(30)), ..pool(9, 9, 1) };
        assert_eq!(at(periodic, (0, 0, 1)), 30_000_000);
    }
}
