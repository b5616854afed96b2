//! What was counted of every shard since this process began. Counters never fall: what a shard counted stays when it goes to another engine, while
//! what is there of it goes with it.
#![cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "only figures read all of it"))]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ergate_actors::projector::SharedTally;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::Tally;
use ergate_events::view::tally::Counts;

/// Pool and task type.
pub(crate) type Kind = (String, String);

/// What was counted, by pool and task type.
#[derive(Clone, Default)]
pub(crate) struct Totals {
    pub(crate) kinds: BTreeMap<Kind, Counts>,
    /// Request records that were refused.
    pub(crate) refused: u64,
    /// How long replicas were there, by pool.
    pub(crate) replica_time: BTreeMap<String, Micros>,
}

impl Totals {
    /// Adds what a shard has counted; its replicas count until now, or where nobody counts there any more, until the last that was told of them.
    fn add(&mut self, tally: &Tally, now: Option<Timestamp>) {
        let time = now.map_or_else(|| tally.replica_time.sums(), |now| tally.replica_time.until(now));
        for (pool, time) in time {
            if let Some(pool) = tally.control.pools.get(usize::from(pool.0)) {
                let sum = self.replica_time.entry(pool.name.clone()).or_default();
                *sum = Micros(sum.0.saturating_add(time.0));
            }
        }
        self.refused += tally.refused;
        for known in &tally.types {
            self.kinds.entry((known.pool.clone(), known.name.clone())).or_default().merge(&known.counts);
        }
    }
}

/// The tallies of every shard since this process began.
#[derive(Default)]
pub(crate) struct Tallies(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    shards: Vec<SharedTally>,
    /// What shards had counted that are gone.
    gone: Totals,
}

impl Tallies {
    /// Begins to count for a shard.
    pub(crate) fn add(&self, tally: Tally) -> SharedTally {
        let shared = Arc::new(Mutex::new(tally));
        let mut kept = self.lock();
        kept.let_go();
        kept.shards.push(Arc::clone(&shared));
        shared
    }

    /// What all have counted.
    pub(crate) fn totals(&self, now: Timestamp) -> Totals {
        let mut kept = self.lock();
        kept.let_go();
        let mut totals = kept.gone.clone();
        kept.shards.iter().for_each(|shard| totals.add(&shard.lock().unwrap_or_else(PoisonError::into_inner), Some(now)));
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Keeps the counts and nothing else of shards whose projector is gone: nobody counts there any more.
    fn let_go(&mut self) {
        let Kept { shards, gone } = self;
        shards.retain(|shard| {
            let is_used = Arc::strong_count(shard) > 1;
            if !is_used {
                gone.add(&shard.lock().unwrap_or_else(PoisonError::into_inner), None);
            }
            is_used
        });
    }
}

#[cfg(test)]
mod tests {
    use ergate_events::view::tally::TypeTally;

    use super::*;

    #[test]
    fn what_a_shard_has_counted_stays_when_it_goes() {
        let tallies = Tallies::default();
        let counted = |requests| {
            let (mut tally, mut job) = (Tally::default(), TypeTally::default());
            job.counts.requests = requests;
            tally.refused = 1;
            tally.types.push(job);
            tally
        };
        let (first, second) = (tallies.add(counted(3)), tallies.add(counted(4)));
        let seen = || {
            let totals = tallies.totals(Timestamp(0));
            (totals.kinds.values().map(|counts| counts.requests).sum::<u64>(), totals.refused, tallies.lock().shards.len())
        };
        assert_eq!(seen(), (7, 2, 2));
        drop(first);
        assert_eq!(seen(), (7, 2, 1));
        drop(second);
        let _third = tallies.add(counted(5));
        assert_eq!((seen(), tallies.lock().shards.len()), ((12, 3, 1), 1));
    }
}
