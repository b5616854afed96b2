//! How long things took, counted by whoever does them and read by whoever asks, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in µs; a last one takes what is longer. From a write to a cache of this machine to a fold of tens of millions
/// of events.
pub const BOUNDS_US: [u64; 16] =
    [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000];

/// Spans by bucket, and their sum.
#[derive(Debug, Default)]
pub struct Timings {
    /// counts: [bucket], not cumulative; the last is for what is longer than every bound.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Timings {
    /// Counts a span.
    pub fn record(&self, span: Duration) {
        let us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many spans are in each bucket, and the sum of all in µs. A span that is being counted may be in one and not yet in the other.
    pub fn read(&self) -> ([u64; BOUNDS_US.len() + 1], u64) {
        (self.counts.each_ref().map(|count| count.load(Ordering::Relaxed)), self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let timings = Timings::default();
        [0, 50, 51, 30_000_000, 30_000_001].into_iter().for_each(|us| timings.record(Duration::from_micros(us)));
        let (counts, sum) = timings.read();
        assert_eq!((counts[0], counts[1], counts[15], counts[16]), (2, 1, 1, 1));
        assert_eq!((counts.iter().sum::<u64>(), sum), (5, 60_000_102));
    }
}
