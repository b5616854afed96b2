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
use ergate_events::scaling::looks::{self, There};
use ergate_events::scaling::signal::Reading;
use ergate_events::time::Timestamp;
use tokio::sync::{oneshot, watch};

use self::signals::Measured;
use crate::clock::Clock;
use crate::log_writer::{LogWriter, LookAtPools, Propose, SizedPool, Tail};
use crate::projector::SharedTally;
use crate::proposal::Proposal;

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
    decided: Option<(Timestamp, There)>,
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
            tokio::time::sleep(looks::SOONEST.to_std().saturating_sub(looked.elapsed())).await;
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
            let due = due(&sized, entry.decided);
            if due <= now {
                entry.decided = Some((now, there(&sized)));
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
fn due(sized: &SizedPool, decided: Option<(Timestamp, There)>) -> Timestamp {
    decided.map_or(Timestamp(0), |last| looks::due(sized.cadence, last, there(sized), sized.most, sized.look_again))
}

const fn there(sized: &SizedPool) -> There {
    There { ready: sized.ready, running: sized.running, wanted: sized.wanted }
}
