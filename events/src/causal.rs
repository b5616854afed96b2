//! One order for the records of several shards and of the log of pools, which were written apart.
//!
//! Within a log the order is the log's. Between logs two things decide: a record of the log of pools that says how far it had seen the
//! shards comes behind everything that it saw, and all else goes by time; of records of one time, those of shards come first, by number, and
//! the log of pools last. Clocks of different machines differ, so where nothing was observed the order is likely and not proved; the same
//! logs always give the same order.

use std::collections::BTreeMap;

use crate::id::{Position, ShardId};
use crate::time::Timestamp;

/// The record with which a log would go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its place in its log.
    pub position: Position,
    /// When it was recorded.
    pub at: Timestamp,
    /// Of each shard that it observed, the position before which everything was seen.
    pub saw: Vec<(ShardId, Position)>,
}

/// The log whose record comes next; `None` when all have ended. A log that has ended is not in `heads`, and holds nobody up.
///
/// Logs that wait for each other, which no honest ones do, go by time.
pub fn next(heads: &BTreeMap<ShardId, Head>) -> Option<ShardId> {
    let mut candidates: Vec<ShardId> = heads.keys().copied().collect();
    let mut waited = Vec::new();
    loop {
        // The log of pools has the highest number.
        let first = candidates.iter().copied().min_by_key(|shard| (heads[shard].at, *shard))?;
        let before: Vec<ShardId> = unseen(heads, first).collect();
        if before.is_empty() || waited.contains(&first) {
            return Some(first);
        }
        waited.push(first);
        candidates = before;
    }
}

/// The logs that have not yet reached what a log's next record saw of them.
fn unseen(heads: &BTreeMap<ShardId, Head>, shard: ShardId) -> impl Iterator<Item = ShardId> {
    let saw = heads.get(&shard).into_iter().flat_map(|head| &head.saw);
    saw.filter(move |(other, upto)| *other != shard && heads.get(other).is_some_and(|head| head.position < *upto))
        .map(|(other, _)| *other)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const POOLS: u16 = u16::MAX;

    /// Logs as (position, time, what it saw).
    type Made<'a> = &'a [(u16, &'a [(u64, u64, &'a [(u16, u64)])])];

    fn order(logs: Made<'_>) -> String {
        let head = |(position, at, saw): &(u64, u64, &[(u16, u64)])| Head {
            position: Position(*position),
            at: Timestamp(*at),
            saw: saw.iter().map(|(shard, upto)| (ShardId(*shard), Position(*upto))).collect(),
        };
        let mut logs: BTreeMap<ShardId, VecDeque<Head>> =
            logs.iter().map(|(shard, records)| (ShardId(*shard), records.iter().map(head).collect())).collect();
        let mut order = Vec::new();
        loop {
            let heads = logs.iter().filter_map(|(shard, rest)| Some((*shard, rest.front()?.clone()))).collect();
            let Some(shard) = next(&heads) else { return order.join(" ") };
            let taken = logs.get_mut(&shard).and_then(VecDeque::pop_front).expect("it has a head");
            let name = if shard.0 == POOLS { "p".to_owned() } else { shard.to_string() };
            order.push(format!("{name}:{}", taken.position));
        }
    }

    #[test]
    fn logs_that_saw_nothing_of_each_other_go_by_time_and_then_by_number() {
        let logs: Made<'_> = &[
            (0, &[(0, 1, &[]), (1, 5, &[])]),
            (1, &[(0, 1, &[]), (1, 2, &[])]),
            (POOLS, &[(0, 0, &[]), (1, 1, &[]), (2, 5, &[])]),
        ];
        assert_eq!(order(logs), "p:0 0:0 1:0 p:1 1:1 0:1 p:2");
    }

    #[test]
    fn an_observation_comes_behind_what_it_saw_whatever_the_clocks_say() {
        // The clock of shard 0 is ahead of the one that wrote the log of pools.
        let logs: Made<'_> = &[
            (0, &[(0, 100, &[]), (1, 110, &[]), (2, 120, &[])]),
            (1, &[(0, 60, &[]), (1, 70, &[])]),
            (POOLS, &[(0, 50, &[(0, 2), (1, 0)]), (1, 55, &[])]),
        ];
        assert_eq!(order(logs), "0:0 0:1 p:0 p:1 1:0 1:1 0:2");
    }

    #[test]
    fn what_an_observation_waits_for_goes_by_time_among_itself() {
        let logs: Made<'_> = &[
            (0, &[(0, 100, &[]), (1, 130, &[])]),
            (1, &[(0, 110, &[]), (1, 120, &[])]),
            (2, &[(0, 90, &[])]),
            (POOLS, &[(0, 50, &[(0, 2), (1, 2)])]),
        ];
        assert_eq!(order(logs), "0:0 1:0 1:1 0:1 p:0 2:0");
    }

    #[test]
    fn a_shard_that_ends_or_is_not_looked_at_holds_nobody_up() {
        let logs: Made<'_> = &[(0, &[(0, 3, &[])]), (POOLS, &[(0, 1, &[(0, 9), (7, 4)]), (1, 2, &[])])];
        assert_eq!(order(logs), "0:0 p:0 p:1");
    }

    #[test]
    fn what_came_before_the_part_that_is_looked_at_was_seen() {
        let logs: Made<'_> = &[(0, &[(40, 3, &[])]), (POOLS, &[(0, 1, &[(0, 40)])])];
        assert_eq!(order(logs), "p:0 0:40");
    }

    #[test]
    fn logs_that_wait_for_each_other_end_all_the_same() {
        let logs: Made<'_> = &[(0, &[(0, 1, &[(1, 1)])]), (1, &[(0, 2, &[(0, 1)])])];
        assert_eq!(order(logs), "0:0 1:0");
    }
}
