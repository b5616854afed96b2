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
use ergate_events::scaling::needs;
use ergate_events::scaling::signal::Reading;
use ergate_events::scaling::usage::ReplicaReading;
use ergate_events::time::Timestamp;
use tokio::sync::{oneshot, watch};

use self::sight::{Seen, Sight};
use self::signals::Measured;
use crate::clock::Clock;
use crate::log_writer::{LogWriter, LookAtPools, Propose, SizedBy, SizedPool, Tail};
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
    /// When each of its policies decided last, and what there was.
    decided: BTreeMap<Asked, (Timestamp, There)>,
}

/// A policy as it is asked: one that was set anew, one of a pool that somebody holds or lets go, and all of a pool whose ceiling is another one are
/// asked at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Asked {
    bit: u32,
    set_at: Position,
    resources_at: Option<Position>,
    held_at: Option<Position>,
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
            let entry =
                known.entry(sized.pool).or_insert_with(|| Known { measured: Measured::default(), decided: BTreeMap::new() });
            entry.measured.note(&sized, &seen, now);
            let up = seen.all.as_ref().map(|all| all.up);
            let (asked, due) = entry.asked(&sized, now);
            next = next.min(due);
            if !asked.is_empty() {
                let fleet = sized.fleet.as_ref().filter(|_| asked.iter().any(|policy| policy.wants_usage()));
                let replicas = fleet.map(|fleet| fleet.read(&sized.name, &self.workers, up, now)).unwrap_or_default();
                let readings = entry.measured.readings(&signals_of(&asked), &sized, &replicas, now);
                let each = if asked.iter().any(|policy| policy.reads_replicas) { replicas } else { Vec::new() };
                for proposal in proposals(&sized, &seen, self.sight.shards(), (&asked, readings, each)) {
                    answers.push(self.propose(proposal).await?);
                }
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

impl Known {
    /// The policies that are to decide now, and when the next one will want to.
    fn asked<'a>(&mut self, sized: &'a SizedPool, now: Timestamp) -> (Vec<&'a SizedBy>, Timestamp) {
        let held = sized.hold.filter(|(_, until)| now < *until);
        let key = |policy: &SizedBy| {
            let held_at = held.map(|(at, _)| at).filter(|_| policy.is_live());
            Asked { bit: policy.bit, set_at: policy.set_at, resources_at: sized.resources_at, held_at }
        };
        self.decided.retain(|known, _| sized.policies.iter().any(|policy| key(policy) == *known));
        let (mut asked, mut next) = (Vec::new(), held.map_or(Timestamp::NEVER, |(_, until)| until));
        for policy in &sized.policies {
            let due = due(sized, policy, self.decided.get(&key(policy)).copied());
            if due <= now {
                self.decided.insert(key(policy), (now, there(sized)));
                asked.push(policy);
            } else {
                next = next.min(due);
            }
        }
        (asked, next)
    }
}

/// The signals that these policies read.
fn signals_of<'a>(asked: &[&'a SizedBy]) -> Vec<&'a str> {
    needs::each_once(asked.iter().map(|policy| policy.signals.as_slice()))
}

/// What is recorded of a look: first how far the shards were that it saw, and which replicas there are, where that is not in the same log.
fn proposals(
    sized: &SizedPool,
    seen: &Seen,
    shards: Vec<ShardReading>,
    (asked, readings, each): (&[&SizedBy], Vec<Reading>, Vec<ReplicaReading>),
) -> Vec<Proposal> {
    let shards = Some(shards).filter(|shards| !shards.is_empty()).map(Proposal::ObserveShards);
    let up = seen.all.as_ref().map(|all| Proposal::CountReplicas { pool: sized.pool, up: all.up });
    // Shadows move no replica, so nothing is shared out for them.
    let all = seen.all.as_ref().filter(|_| asked.iter().any(|policy| policy.is_live()));
    let work = all.map_or_else(Vec::new, |all| all.work.clone());
    let asked = asked.iter().map(|policy| (policy.bit, policy.set_at)).collect();
    let observed = Proposal::ObservePool { pool: sized.pool, asked, readings, work, seen: each };
    shards.into_iter().chain(up).chain([observed]).collect()
}

/// When a policy is to decide next.
fn due(sized: &SizedPool, policy: &SizedBy, decided: Option<(Timestamp, There)>) -> Timestamp {
    decided.map_or(Timestamp(0), |last| looks::due(policy.cadence, last, there(sized), sized.most, policy.look_again))
}

const fn there(sized: &SizedPool) -> There {
    There { ready: sized.ready, running: sized.running, wanted: sized.wanted }
}

#[cfg(test)]
mod tests {
    use ergate_events::scaling::Cadence;
    use ergate_events::state::scaling::Scaling;
    use ergate_events::time::Micros;

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn by(bit: u32, signals: &[&str], cadence: Cadence) -> SizedBy {
        let signals = signals.iter().map(|name| (*name).to_owned()).collect();
        SizedBy { bit, set_at: Position(7), signals, reads_replicas: false, cadence, look_again: None }
    }

    fn sized() -> SizedPool {
        SizedPool {
            pool: PoolId(0),
            name: "models".to_owned(),
            policies: vec![
                by(Scaling::LIVE, &["ready"], Cadence::Every(Micros::from_secs(30))),
                by(2, &["ready", "lag"], Cadence::EVENTS),
            ],
            wanted: 1,
            most: 4,
            ready: 0,
            running: 0,
            busy: (0, 0),
            resources_at: None,
            fleet: None,
            seen: None,
            hold: None,
        }
    }

    fn asked(known: &mut Known, sized: &SizedPool, second: u64) -> (Vec<u32>, u64) {
        let (asked, next) = known.asked(sized, Timestamp(second * SECOND));
        (asked.iter().map(|policy| policy.bit).collect(), next.0 / SECOND)
    }

    #[test]
    fn each_policy_is_asked_by_its_own_cadence_whatever_others_there_are() {
        let mut known = Known { measured: Measured::default(), decided: BTreeMap::new() };
        let mut sized = sized();
        assert_eq!(asked(&mut known, &sized, 100).0, [1, 2], "nobody was asked yet");
        assert_eq!(asked(&mut known, &sized, 101), (vec![], 115));
        // Work came: that is for the shadow, and not for the policy with its period.
        sized.ready = 3;
        assert_eq!(asked(&mut known, &sized, 102), (vec![2], 130));
        sized.ready = 0;
        assert_eq!(asked(&mut known, &sized, 110).0, [2]);
        assert_eq!(asked(&mut known, &sized, 130).0, [1, 2]);
        // One that was set anew is asked at once.
        sized.policies[0].set_at = Position(9);
        assert_eq!(asked(&mut known, &sized, 131).0, [1]);
        assert_eq!(signals_of(&sized.policies.iter().collect::<Vec<_>>()), ["ready", "lag"]);
    }

    #[test]
    fn every_policy_is_asked_when_another_ceiling_is_set() {
        let mut known = Known { measured: Measured::default(), decided: BTreeMap::new() };
        let mut sized = sized();
        asked(&mut known, &sized, 100);
        for (second, position) in [(101, Some(Position(8))), (102, Some(Position(9))), (103, None)] {
            sized.resources_at = position;
            assert_eq!(asked(&mut known, &sized, second).0, [1, 2], "{position:?}");
        }
        assert_eq!(asked(&mut known, &sized, 104).0, [0_u32; 0]);
    }

    #[test]
    fn what_replicas_use_is_looked_at_for_those_that_read_it() {
        let reads = |signals: &[&str], reads_replicas| SizedBy { reads_replicas, ..by(1, signals, Cadence::EVENTS) };
        for (policy, wants) in [
            (reads(&["ready", "busy_percent"], false), false),
            (reads(&["ready", "cpu_percent"], false), true),
            (reads(&["memory_bytes"], false), true),
            (reads(&[], true), true),
        ] {
            assert_eq!(policy.wants_usage(), wants, "{policy:?}");
        }
    }

    #[test]
    fn the_policy_of_a_pool_is_asked_when_a_hold_begins_and_when_it_ends() {
        let mut known = Known { measured: Measured::default(), decided: BTreeMap::new() };
        let mut sized = sized();
        asked(&mut known, &sized, 100);
        sized.hold = Some((Position(8), Timestamp(105 * SECOND)));
        assert_eq!(asked(&mut known, &sized, 101), (vec![1], 105), "and is looked at again when it is over");
        assert_eq!(asked(&mut known, &sized, 104), (vec![], 105));
        assert_eq!(asked(&mut known, &sized, 105).0, [1]);
        assert_eq!(asked(&mut known, &sized, 106).0, [0_u32; 0]);
        // Somebody holds it, and lets it go.
        sized.hold = Some((Position(9), Timestamp(900 * SECOND)));
        assert_eq!(asked(&mut known, &sized, 107).0, [1]);
        sized.hold = None;
        assert_eq!(asked(&mut known, &sized, 108).0, [1]);
    }
}
