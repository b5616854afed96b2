//! What there is of a pool, from wherever its tasks are: one log of this process, or the logs of all shards.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use ergate_events::event::ShardReading;
use ergate_events::id::ShardId;
use ergate_events::scaling::measure::Totals;
use ergate_events::time::Timestamp;
use ergate_events::view::Tally;
use ergate_events::view::tally::Starts;

use crate::log_writer::SizedPool;
use crate::projector::SharedTally;

/// What there is of a pool, and what was counted of it since somebody began to.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What happened.
    pub totals: Totals,
    /// Since when the oldest ready task is ready.
    pub oldest: Option<Timestamp>,
    /// How long replicas of each shard took to start.
    pub starts: BTreeMap<ShardId, Starts>,
    /// What only somebody knows who looks at all shards.
    pub all: Option<AllShards>,
}

/// What all shards have of a pool, where its size is decided beside them.
#[derive(Clone, Debug, Default)]
pub struct AllShards {
    /// Tasks that are ready.
    pub ready: u64,
    /// Attempts that run.
    pub running: u64,
    /// Both, of each shard by its number.
    pub work: Vec<u64>,
    /// Slots that there are.
    pub slots: u64,
    /// Replicas that have come up and not ended.
    pub up: u32,
    /// Requests on the topic that nobody has read, of all pools; `None` while that is not known.
    pub lag: Option<u64>,
    /// Which shards nobody speaks for, and for how long that has been so at least.
    pub silence: Option<String>,
}

impl Seen {
    /// Adds what one shard has and has counted of a pool.
    pub fn add(&mut self, shard: ShardId, pool: &str, tally: &Tally) {
        for known in tally.types.iter().filter(|known| known.pool == pool) {
            self.totals.arrivals += known.counts.requests + known.counts.redrives;
            self.totals.runs.merge(&known.counts.runs);
            self.totals.waits.merge(&known.counts.waits);
            self.oldest = [self.oldest, known.oldest()].into_iter().flatten().min();
        }
        let Some((id, _)) = tally.control.pool(pool) else { return };
        self.starts.extend(tally.starts.get(&id).map(|starts| (shard, starts.clone())));
    }
}

/// Sees pools.
pub trait Sight: Send + Sync {
    /// What there is of a pool; `None` as long as that is not known yet.
    fn look(&self, pool: &SizedPool) -> Option<Seen>;

    /// How far those shards are that have gone on since this was last asked; recorded with what was seen of them.
    fn shards(&self) -> Vec<ShardReading>;

    /// From now on somebody wants to see, or nobody does.
    fn want(&self, is_wanted: bool);
}

/// The one log of this process, of whose tasks the log writer knows more.
pub struct OneLog(pub SharedTally);

impl Sight for OneLog {
    fn look(&self, pool: &SizedPool) -> Option<Seen> {
        let mut seen = Seen::default();
        seen.add(ShardId(0), &pool.name, &self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Some(seen)
    }

    fn shards(&self) -> Vec<ShardReading> {
        Vec::new()
    }

    fn want(&self, _: bool) {}
}
