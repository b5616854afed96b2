//! Spans counted in few fixed buckets, as metrics show them.

use crate::time::Micros;

/// Upper bounds of the buckets; a last one takes what is longer. From what this runtime needs for a task that does nothing to tasks of an hour,
/// few enough that two hundred task types stay cheap to tell.
pub const BOUNDS: [Micros; 14] = [
    Micros(1_000),
    Micros(5_000),
    Micros(10_000),
    Micros(25_000),
    Micros(50_000),
    Micros(100_000),
    Micros(250_000),
    Micros(500_000),
    Micros(1_000_000),
    Micros(5_000_000),
    Micros(10_000_000),
    Micros(60_000_000),
    Micros(300_000_000),
    Micros(3_600_000_000),
];

/// Spans by bucket, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    /// counts: [bucket], not cumulative; the last is for what is longer than every bound.
    counts: [u64; BOUNDS.len() + 1],
    sum: u64,
}

impl Spans {
    /// Counts a span.
    pub fn record(&mut self, span: Micros) {
        self.counts[BOUNDS.partition_point(|bound| *bound < span)] += 1;
        self.sum = self.sum.saturating_add(span.0);
    }

    /// Counts all spans of another one.
    pub fn merge(&mut self, other: &Spans) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many spans there are in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All spans together.
    pub const fn sum(&self) -> Micros {
        Micros(self.sum)
    }

    /// Each bound with how many spans do not exceed it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Micros, u64)> {
        let upto = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS.into_iter().zip(upto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_counts_up_to_the_first_bound_that_it_does_not_exceed() {
        let mut spans = Spans::default();
        [0, 1_000, 1_001, 5_000_000_000].into_iter().for_each(|span| spans.record(Micros(span)));
        let counts: Vec<_> = spans.cumulative().map(|(_, count)| count).collect();
        assert_eq!((&counts[..3], counts[13], spans.count(), spans.sum()), (&[2, 3, 3][..], 3, 4, Micros(5_000_002_001)));
        let mut twice = spans.clone();
        twice.merge(&spans);
        assert_eq!((twice.count(), twice.sum()), (8, Micros(10_000_004_002)));
    }
}
