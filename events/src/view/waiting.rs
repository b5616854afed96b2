//! Since when something waits: how many since when, in bounded memory and without a look at each.

use std::collections::VecDeque;

use crate::time::{Micros, Timestamp};

/// The narrowest bucket: ages of queues are looked at in seconds.
const WIDTH: Micros = Micros::from_millis(100);
/// Buckets above which two become one: the oldest age is at most one bucket too high, so at most 0.2 % where the narrowest do not suffice.
const BUCKETS_MAX: usize = 1_024;

/// How many wait since when. Who comes never comes before who came last, so the buckets are in order.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// When the first of a bucket came, and how many of it are still there; the first and the last are never empty.
    buckets: VecDeque<(Timestamp, u64)>,
    width: Micros,
    count: u64,
}

impl Default for Waiting {
    fn default() -> Self {
        Waiting { buckets: VecDeque::new(), width: WIDTH, count: 0 }
    }
}

impl Waiting {
    /// How many wait.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Since when the oldest waits, to a bucket's width.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.buckets.front().map(|(since, _)| *since)
    }

    /// One more waits from now on.
    pub(crate) fn enter(&mut self, at: Timestamp) {
        self.count += 1;
        let width = self.width;
        if let Some((_, count)) = self.buckets.back_mut().filter(|(since, _)| at.since(*since) < width) {
            *count += 1;
            return;
        }
        self.buckets.push_back((at, 1));
        if self.buckets.len() > BUCKETS_MAX {
            self.widen();
        }
    }

    /// One that waited since then does so no more.
    pub(crate) fn leave(&mut self, since: Timestamp) {
        let after = self.buckets.partition_point(|(first, _)| *first <= since);
        let Some((_, count)) = after.checked_sub(1).and_then(|index| self.buckets.get_mut(index)) else { return };
        if *count == 0 {
            return;
        }
        *count -= 1;
        self.count -= 1;
        while self.buckets.front().is_some_and(|(_, count)| *count == 0) {
            self.buckets.pop_front();
        }
        while self.buckets.back().is_some_and(|(_, count)| *count == 0) {
            self.buckets.pop_back();
        }
        if self.buckets.is_empty() {
            self.width = WIDTH;
        }
    }

    /// Makes buckets twice as wide and takes those together that fit into one.
    fn widen(&mut self) {
        while self.buckets.len() > BUCKETS_MAX {
            self.width = Micros(self.width.0.saturating_mul(2));
            let before = std::mem::take(&mut self.buckets);
            for (since, count) in before.into_iter().filter(|(_, count)| *count > 0) {
                match self.buckets.back_mut().filter(|(first, _)| since.since(*first) < self.width) {
                    Some((_, sum)) => *sum += count,
                    None => self.buckets.push_back((since, count)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_known_whoever_leaves_first() {
        let mut waiting = Waiting::default();
        let seconds = |seconds: u64| Timestamp(seconds * 1_000_000);
        (1..=4).for_each(|at| waiting.enter(seconds(at)));
        waiting.leave(seconds(2));
        assert_eq!((waiting.count(), waiting.oldest()), (3, Some(seconds(1))));
        waiting.leave(seconds(1));
        assert_eq!((waiting.count(), waiting.oldest()), (2, Some(seconds(3))));
        waiting.leave(seconds(4));
        waiting.leave(seconds(3));
        waiting.leave(seconds(3));
        assert_eq!((waiting.count(), waiting.oldest()), (0, None));
    }

    #[test]
    fn a_day_of_waiting_takes_bounded_memory_and_is_told_within_a_bucket() {
        let mut waiting = Waiting::default();
        let all: Vec<_> = (0..864_000_u64).map(|tenth| Timestamp(tenth * 100_000)).collect();
        all.iter().for_each(|at| waiting.enter(*at));
        assert!(waiting.buckets.len() <= BUCKETS_MAX && waiting.count() == 864_000);
        for (index, at) in all.iter().enumerate() {
            let told = waiting.oldest().expect("some wait");
            assert!(told <= *at && at.since(told) < waiting.width, "{told:?} instead of {at:?}");
            waiting.leave(*at);
            assert_eq!(waiting.count() as usize, all.len() - index - 1);
        }
        assert!(waiting.buckets.is_empty());
    }
}
