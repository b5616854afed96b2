//! Gives a shard its part of the replicas of each pool that a policy sizes over all shards.
//!
//! The parts are in the log of pools, which every engine follows, so no engine asks another one. A task can only run on a replica of its own shard. So
//! a shard that has work and no part has one replica for as long, whatever the part says: no task waits for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ergate_actors::log_writer::{AtWork, LookAtWork, Propose};
use ergate_actors::proposal::Proposal;
use tokio::sync::{oneshot, watch};

use super::capacity::Pools;
use crate::wiring::Parts;

/// How long a replica stays that a shard has only for its work, after that has ended: the next task of a pool at work finds one.
const STAYS_FOR: Duration = Duration::from_secs(10);
/// Shortest time between two looks at a shard.
const LOOK_MIN: Duration = Duration::from_millis(5);
/// Longest time between two looks while a replica stays for a while.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// Keeps the pools of a shard at their parts.
pub(super) struct Share {
    pub(super) parts: Parts,
    pub(super) pools: watch::Receiver<Pools>,
    pub(super) shards: u16,
    /// Pools whose replicas are started by others: no shard has any.
    pub(super) external: Arc<BTreeSet<String>>,
}

impl Share {
    /// Looks again and again, until the shard is gone.
    pub(super) async fn keep(mut self) {
        let (mut tail, mut busy) = (self.parts.tail.clone(), BTreeMap::new());
        loop {
            let pools = self.pools.borrow_and_update().clone();
            let Ok(work) = self.parts.writer.send(LookAtWork).await else { return };
            let follows_work = self.look(&pools, &work, &mut busy);
            let changed = tokio::select! {
                changed = self.pools.changed() => changed,
                changed = tail.changed(), if follows_work => changed,
                () = tokio::time::sleep(LOOK_MAX), if !busy.is_empty() => Ok(()),
            };
            if changed.is_err() {
                return;
            }
            tokio::time::sleep(LOOK_MIN).await;
        }
    }

    /// Gives pools their parts; says whether what the shard has to do changes one of them.
    fn look(&self, pools: &Pools, work: &BTreeMap<String, AtWork>, busy: &mut BTreeMap<String, Instant>) -> bool {
        let mut follows_work = false;
        busy.retain(|_, at| at.elapsed() < STAYS_FOR);
        for (pool, (size, slots)) in pools.sizes.iter().filter(|(pool, _)| pools.sized.contains_key(*pool)) {
            let known = work.get(pool).copied().unwrap_or_default();
            let is_external = self.external.contains(pool);
            let part = if is_external { 0 } else { pools.part(pool, self.parts.shard, self.shards) };
            let may_have_one = part == 0 && *size > 0 && !is_external;
            follows_work |= may_have_one;
            if may_have_one && known.is_busy {
                busy.insert(pool.clone(), Instant::now());
            }
            let wanted = if may_have_one && busy.contains_key(pool) { 1 } else { part };
            if (known.replicas, known.slots) != (Some(wanted), *slots) {
                self.define(pool, wanted, *slots, pools);
            }
        }
        follows_work
    }

    fn define(&self, pool: &str, replicas: u32, slots: u32, pools: &Pools) {
        let size = pools.sizes.get(pool).map_or(0, |(size, _)| *size);
        let reason = format!("its part of {size}, position {} of the capacity log", pools.at);
        let proposal = Proposal::DefinePool { pool: pool.to_owned(), replicas, slots, by: "capacity".to_owned(), reason };
        // What is not durable yet when the shard goes is proposed again by its next owner.
        let (reply, _) = oneshot::channel();
        self.parts.writer.do_send(Propose { proposal, reply });
    }
}
