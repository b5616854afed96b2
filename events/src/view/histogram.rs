//! A histogram of spans with a bounded relative error.

use crate::time::Micros;

/// Buckets for each doubling; a quantile is at most 1/32 too high.
const STEPS: u64 = 32;
/// Enough doublings for the longest span.
const BUCKETS: usize = (64 - 5 + 1) * STEPS as usize;

/// Counts spans in buckets that grow with their value: 32 for each doubling, exact below 32 µs (the layout of HdrHistogram).
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts a span.
    pub fn record(&mut self, span: Micros) {
        self.counts[bucket(span.0)] += 1;
        self.total += 1;
        self.max = self.max.max(span.0);
    }

    /// Counts all spans of another one.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// Number of spans.
    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The longest span.
    pub const fn max(&self) -> Micros {
        Micros(self.max)
    }

    /// The span that this share (0 to 1) of all spans does not exceed; zero when there are none.
    pub fn quantile(&self, share: f64) -> Micros {
        let rank = ((self.total as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Micros(upper(index as u64).min(self.max));
            }
        }
        Micros(self.max)
    }
}

fn bucket(value: u64) -> usize {
    let exponent = (64 - u64::from(value.leading_zeros())).saturating_sub(6);
    let index = exponent * STEPS + (value >> exponent);
    index as usize
}

/// The largest value of a bucket.
fn upper(index: u64) -> u64 {
    if index < 2 * STEPS {
        return index;
    }
    let exponent = index / STEPS - 1;
    let step = index - exponent * STEPS;
    (step << exponent) + ((1 << exponent) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_the_error_is_small() {
        for value in (0..5_000).chain([1 << 20, 123_456_789, u64::MAX >> 1, u64::MAX]) {
            let top = upper(bucket(value) as u64);
            assert!(top >= value && (top - value) as f64 <= value as f64 / 31.0, "{value}: {top}");
        }
    }

    #[test]
    fn two_histograms_together_are_the_histogram_of_all_spans() {
        let (mut left, mut right, mut all) = (Histogram::default(), Histogram::default(), Histogram::default());
        (1..=1_000).for_each(|span| {
            all.record(Micros(span));
            if span % 3 == 0 { left.record(Micros(span)) } else { right.record(Micros(span)) }
        });
        left.merge(&right);
        assert_eq!((left.count(), left.max(), &left.counts), (1_000, Micros(1_000), &all.counts));
    }

    #[test]
    fn quantiles_are_those_of_the_spans() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), Micros(0));
        (1..=1_000).for_each(|span| histogram.record(Micros(span)));
        assert_eq!((histogram.count(), histogram.max()), (1_000, Micros(1_000)));
        assert!((500..=516).contains(&histogram.quantile(0.5).0) && (990..=1_000).contains(&histogram.quantile(0.99).0));
    }
}
