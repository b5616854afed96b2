//! Which part of a pool's replicas each shard has, where a policy sizes the pool over all shards.
//!
//! A task can only run on a replica of its own shard. So replicas go where work is, and otherwise are as even as they were; none moves without need.

use crate::id::ShardId;

/// How many replicas a shard has of a pool before anything is known of its work: as many as every other one, or one more. One replica more or less
/// changes the part of one shard, and which shards have one more differs from pool to pool.
pub fn even_part(pool: &str, size: u32, shard: ShardId, shards: u16) -> u32 {
    let shards = u32::from(shards.max(1));
    size / shards + u32::from(rank(pool, shard, u64::from(shards)) < u64::from(size % shards))
}

/// The place of a shard in the order in which a pool's replicas are given out: steps of the golden ratio, so that neighbours, which one engine often
/// leads, are far from each other in it.
fn rank(pool: &str, shard: ShardId, shards: u64) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(pool.as_bytes()).as_bytes()[..8]);
    let golden = (shards * 618 / 1_000).max(1);
    let step = (golden..).find(|step| divisor(*step, shards) == 1).unwrap_or(1);
    ((u64::from_le_bytes(first) % shards + u64::from(shard.0)) * step) % shards
}

/// The greatest common divisor.
const fn divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The parts of a pool's replicas by shard: those before, changed as little as the size and the work ask for. `work` are the tasks that are ready or
/// running, by shard, and `slots` those of one replica.
pub(crate) fn deal(pool: &str, size: u32, slots: u32, work: &[u64], before: &[u32]) -> Vec<u32> {
    let shards = u16::try_from(work.len()).unwrap_or(u16::MAX);
    let mut parts: Vec<u32> = if before.len() == work.len() {
        before.to_vec()
    } else {
        (0..shards).map(|shard| even_part(pool, size, ShardId(shard), shards)).collect()
    };
    let need = |shard: usize| work[shard].div_ceil(u64::from(slots.max(1)));
    // Of equals the first one gets, or gives.
    let taker = |parts: &[u32]| (0..parts.len()).min_by_key(|at| (place_of_taker(need(*at), parts[*at]), *at));
    let giver = |parts: &[u32]| {
        (0..parts.len()).filter(|at| parts[*at] > 0).min_by_key(|at| (place_of_giver(need(*at), parts[*at]), *at))
    };
    let mut total: u64 = parts.iter().map(|part| u64::from(*part)).sum();
    while total != u64::from(size) {
        let Some(at) = (if total < u64::from(size) { taker(&parts) } else { giver(&parts) }) else { break };
        if total < u64::from(size) {
            (parts[at], total) = (parts[at] + 1, total + 1);
        } else {
            (parts[at], total) = (parts[at] - 1, total - 1);
        }
    }
    while let (Some(to), Some(from)) = (taker(&parts), giver(&parts)) {
        if need(to) <= u64::from(parts[to]) {
            break;
        }
        // Where nobody has one to spare, whoever has most gives one up for a shard that has two fewer.
        if need(from) >= u64::from(parts[from]) && parts[from] <= parts[to] + 1 {
            break;
        }
        parts[from] -= 1;
        parts[to] += 1;
    }
    parts
}

/// The place of a shard among those that may get a replica: first those that have use for one, by how few they have; then those that have the least to
/// spare.
const fn place_of_taker(need: u64, part: u32) -> (bool, u64) {
    let part = part as u64;
    if need > part { (false, part) } else { (true, part - need) }
}

/// The place of a shard among those that may give one up: first those that have the most to spare; then those that have the most.
const fn place_of_giver(need: u64, part: u32) -> (bool, u64) {
    let part = part as u64;
    if need < part { (false, u64::MAX - (part - need)) } else { (true, u64::MAX - part) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn even(pool: &str, size: u32, shards: u16) -> Vec<u32> {
        (0..shards).map(|shard| even_part(pool, size, ShardId(shard), shards)).collect()
    }

    #[test]
    fn even_parts_make_up_the_size_and_one_more_changes_one() {
        for shards in [1, 2, 3, 4, 7, 8, 12, 64, 100] {
            for size in 0..200 {
                let (now, next) = (even("models", size, shards), even("models", size + 1, shards));
                assert_eq!(now.iter().sum::<u32>(), size);
                let (least, most) = (now.iter().min(), now.iter().max());
                assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{now:?}");
                assert_eq!(now.iter().zip(&next).filter(|(now, next)| now != next).count(), 1, "{now:?} {next:?}");
            }
        }
    }

    #[test]
    fn pools_do_not_all_begin_with_the_same_shard_and_neighbours_do_not_follow_each_other() {
        let first = |pool| even(pool, 1, 8).iter().position(|part| *part == 1);
        let firsts: BTreeSet<Option<usize>> = ["a", "b", "c", "d", "e", "f"].into_iter().map(first).collect();
        assert!(firsts.len() > 1, "{firsts:?}");
        for shards in [8, 12, 64] {
            let three = even("models", 3, shards);
            let have: Vec<usize> = three.iter().enumerate().filter(|(_, part)| **part == 1).map(|(shard, _)| shard).collect();
            assert!(have.windows(2).all(|pair| pair[1] - pair[0] > 1), "{have:?} of {shards}");
        }
    }

    #[test]
    fn replicas_go_where_work_is_and_stay_where_there_is_enough() {
        let deal = |size, work: &[u64], before: &[u32]| deal("models", size, 2, work, before);
        // All of the work came to one shard.
        assert_eq!(deal(4, &[40, 0, 0, 0], &[1, 1, 1, 1]), [4, 0, 0, 0]);
        // Nothing lacks anything, so nothing moves, even or not.
        assert_eq!(deal(4, &[2, 0, 0, 0], &[1, 1, 1, 1]), [1, 1, 1, 1]);
        assert_eq!(deal(4, &[0, 0, 0, 0], &[4, 0, 0, 0]), [4, 0, 0, 0]);
        // One that grows goes to whoever lacks it, one that goes is taken from whoever does not need it.
        assert_eq!(deal(5, &[40, 0, 40, 0], &[4, 0, 0, 0]), [3, 0, 2, 0]);
        assert_eq!(deal(3, &[2, 2, 0, 0], &[1, 1, 1, 1]), [1, 1, 0, 1]);
        assert_eq!(deal(0, &[40, 0, 0, 0], &[4, 0, 0, 0]), [0, 0, 0, 0]);
        // Where all have too little, each with work has one as long as there are any.
        assert_eq!(deal(4, &[900, 1, 1, 0], &[4, 0, 0, 0]), [2, 1, 1, 0]);
        assert_eq!(deal(2, &[900, 1, 1, 0], &[2, 0, 0, 0]), [1, 1, 0, 0]);
        assert_eq!(deal(6, &[90, 0, 90, 0], &[1, 2, 1, 2]), [3, 0, 3, 0]);
    }

    proptest! {
        #[test]
        fn parts_make_up_the_size_and_nobody_waits_beside_idle_replicas(
            size in 0_u32..40,
            slots in 1_u32..5,
            shards in prop::collection::vec((0_u64..30, 0_u32..9), 1..12),
        ) {
            let (work, before): (Vec<u64>, Vec<u32>) = shards.into_iter().unzip();
            let parts = deal("models", size, slots, &work, &before);
            prop_assert_eq!(parts.iter().sum::<u32>(), size);
            let need = |at: usize| work[at].div_ceil(u64::from(slots));
            let lacks = (0..work.len()).any(|at| need(at) > u64::from(parts[at]));
            let spares = (0..work.len()).any(|at| need(at) < u64::from(parts[at]));
            prop_assert!(!(lacks && spares), "{:?} {:?}", work, parts);
            let hungry = (0..work.len()).any(|at| need(at) > 0 && parts[at] == 0);
            prop_assert!(!hungry || parts.iter().all(|part| *part <= 1), "{:?} {:?}", work, parts);
            // What was dealt once is not dealt otherwise for the same work.
            prop_assert_eq!(deal("models", size, slots, &work, &parts), parts);
        }
    }
}
