//! Looks at pools that have a policy, and proposes what was seen of them.
//!
//! A loop and no actor, for nobody tells it anything: what the log makes durable wakes it, and what is due by time. It decides nothing: the rule in the
//! core does, with what is recorded, so that an audit decides the same. What it measures itself (how fast tasks come, how long they take) is forgotten
//! with the process, and until it has measured enough what was recorded last stands for it; what policies remember is in the log.

pub mod fleet;
pub mod sight;
mod signals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use ergate_events::event::ShardReading;
use ergate_events::id::{PoolId, Position};
use ergate_events::scaling::looks::{self, There};
use ergate_events::scaling::signal::Reading;
use ergate_events::scaling::usage::ReplicaReading;
use ergate_events::time::Timestamp;
use tokio::sync::{oneshot, watch};

use self::sight::{Seen, Sight};
use self::signals::Measured;
use crate::clock::Clock;
use crate::log_writer::{LogWriter, LookAtPools, Propose, SizedPool, Tail};
use crate::proposal::Proposal;
use crate::submission::SubmitError;
use crate::workers::Hub;

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
    /// Moves when something else has happened that pools are seen by.
    pub moved: watch::Receiver<()>,
    /// Sees pools.
    pub sight: Arc<dyn Sight>,
    /// Knows workers, and what they use.
    pub workers: Arc<Hub>,
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
                Ok(()) = self.moved.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
            tokio::time::sleep(looks::SOONEST.to_std().saturating_sub(looked.elapsed())).await;
        }
    }

    /// Proposes what was seen of every pool whose policy wants to decide now; says how long none will.
    async fn look(&self, known: &mut BTreeMap<PoolId, Known>) -> Result<Duration, Closed> {
        let pools = self.writer.send(LookAtPools).await.map_err(|_| Closed)?;
        self.sight.want(!pools.is_empty());
        known.retain(|pool, _| pools.iter().any(|sized| sized.pool == *pool));
        let (now, mut next, mut answers) = (self.clock.now(), Timestamp::NEVER, Vec::new());
        for mut sized in pools {
            let Some(seen) = self.sight.look(&sized) else { continue };
            if let Some(all) = &seen.all {
                (sized.ready, sized.running) = (all.ready, all.running);
                sized.busy = (all.running.min(all.slots), all.slots);
            }
            let entry = known.entry(sized.pool).or_insert_with(|| Known { measured: Measured::default(), decided: None });
            entry.measured.note(&sized, &seen, now);
            let up = seen.all.as_ref().map(|all| all.up);
            let due = due(&sized, entry.decided);
            if due <= now {
                entry.decided = Some((now, there(&sized)));
                let fleet = sized.fleet.as_ref().map(|fleet| fleet.read(&sized.name, &self.workers, up, now));
                let replicas = fleet.unwrap_or_default();
                let readings = entry.measured.readings(&sized, &replicas, now);
                let seen_of_each = if sized.reads_replicas { replicas } else { Vec::new() };
                for proposal in proposals(&sized, &seen, self.sight.shards(), (readings, seen_of_each)) {
                    answers.push(self.propose(proposal).await?);
                }
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

    async fn propose(&self, proposal: Proposal) -> Result<oneshot::Receiver<Result<Position, SubmitError>>, Closed> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Propose { proposal, reply }).await.map_err(|_| Closed)?;
        Ok(answer)
    }
}

/// What is recorded of a look: first how far the shards were that it saw, and which replicas there are, where that is not in the same log.
fn proposals(
    sized: &SizedPool,
    seen: &Seen,
    shards: Vec<ShardReading>,
    (readings, each): (Vec<Reading>, Vec<ReplicaReading>),
) -> Vec<Proposal> {
    let shards = Some(shards).filter(|shards| !shards.is_empty()).map(Proposal::ObserveShards);
    let up = seen.all.as_ref().map(|all| Proposal::CountReplicas { pool: sized.pool, up: all.up });
    let work = seen.all.as_ref().map_or_else(Vec::new, |all| all.work.clone());
    let observed = Proposal::ObservePool { pool: sized.pool, readings, work, seen: each };
    shards.into_iter().chain(up).chain([observed]).collect()
}

/// When a pool is to be decided about next.
fn due(sized: &SizedPool, decided: Option<(Timestamp, There)>) -> Timestamp {
    decided.map_or(Timestamp(0), |last| looks::due(sized.cadence, last, there(sized), sized.most, sized.look_again))
}

const fn there(sized: &SizedPool) -> There {
    There { ready: sized.ready, running: sized.running, wanted: sized.wanted }
}
