//! The two asymptotes of latency over concurrency, and where they meet.

use serde::{Deserialize, Serialize};

/// How much better two asymptotes must explain what was seen than one: their second number explains about one window of chance by itself.
const SECOND: f64 = 2.0;
/// Levels that differ by less are the same.
const SAME: f64 = 1.02;

/// What one window showed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    /// How many were in flight, on average.
    pub(super) level: f64,
    /// How long they took, in seconds, on average.
    pub(super) latency: f64,
    /// How much it counts: how many completed, less with every window since.
    pub(super) weight: f64,
}

/// The asymptotes: latency is at least that of an empty server, and at least what is in flight divided by the most that it can do.
///
/// P. J. Denning and J. P. Buzen, "The operational analysis of queueing network models", ACM Computing Surveys 10(3), 1978, section "Asymptotes":
/// R(N) ≥ max(R₀, N ÷ X₀), which meet at the saturation point N* = X₀ · R₀.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Asymptotes {
    /// Seconds without a queue (R₀); `None` where every window had one.
    pub(super) latency: Option<f64>,
    /// Most a second (X₀); `None` where no window came near.
    pub(super) throughput: Option<f64>,
}

impl Asymptotes {
    /// The two that explain the samples best, by weighted least squares of the logarithm of latency: one line below each level, the other from it on.
    /// `variance` is that of one attempt's latency, as a share of it.
    pub(super) fn of(samples: &[Sample], variance: f64) -> Asymptotes {
        let mut sorted = samples.to_vec();
        sorted.sort_by(|one, other| one.level.total_cmp(&other.level));
        // From the top, so that a server of which nothing is known counts as one with room.
        let splits = (0..=sorted.len()).rev().filter(|split| is_step(&sorted, *split));
        let mut best = (f64::INFINITY, Asymptotes::default());
        for split in splits {
            let (below, above) = sorted.split_at(split);
            let lines = Asymptotes { latency: flat(below), throughput: rising(above) };
            let second = if below.is_empty() || above.is_empty() { 0.0 } else { SECOND };
            let cost = lines.error(&sorted) / variance + second;
            if cost < best.0 - 1e-9 {
                best = (cost, lines);
            }
        }
        best.1
    }

    /// The latency at this level.
    pub(super) fn latency_at(&self, level: f64) -> f64 {
        let queued = self.throughput.map_or(0.0, |throughput| level / throughput);
        self.latency.unwrap_or(0.0).max(queued)
    }

    /// What they leave unexplained; high levels, of which there is less chance in the mean, count more.
    fn error(&self, samples: &[Sample]) -> f64 {
        let top = samples.last().map_or(1.0, |sample| sample.level);
        let error = |sample: &Sample| (sample.latency / self.latency_at(sample.level)).ln();
        samples.iter().map(|sample| sample.weight * sample.level / top * error(sample).powi(2)).sum()
    }
}

/// Whether levels differ there.
fn is_step(sorted: &[Sample], at: usize) -> bool {
    at == 0 || at == sorted.len() || sorted[at].level >= SAME * sorted[at - 1].level
}

/// The latency of an empty server. Where latency grows before the knee, as in a batch, what was seen near it says more: samples count as their level.
fn flat(below: &[Sample]) -> Option<f64> {
    mean(below.iter().map(|sample| (sample.weight * sample.level, sample.latency.ln()))).map(f64::exp)
}

/// The most that a server can do.
fn rising(above: &[Sample]) -> Option<f64> {
    mean(above.iter().map(|sample| (sample.weight, (sample.level / sample.latency).ln()))).map(f64::exp)
}

fn mean(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (sum, weights) = values.fold((0.0, 0.0), |(sum, weights), (weight, value)| (sum + weight * value, weights + weight));
    (weights > 0.0).then(|| sum / weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where they meet.
    fn knee(lines: Asymptotes) -> Option<f64> {
        Some(lines.latency? * lines.throughput?)
    }

    fn seen(latency: impl Fn(f64) -> f64, levels: &[f64]) -> Vec<Sample> {
        levels.iter().map(|level| Sample { level: *level, latency: latency(*level), weight: 32.0 }).collect()
    }

    #[test]
    fn the_asymptotes_of_six_places_meet_at_six() {
        let places = |level: f64| 0.2 * (level / 6.0).max(1.0);
        let lines = Asymptotes::of(&seen(places, &[1.0, 2.0, 4.0, 8.0, 16.0]), 1.0);
        assert!((knee(lines).unwrap() - 6.0).abs() < 0.01, "{lines:?}");
        assert!((lines.latency_at(3.0) - 0.2).abs() < 0.001 && (lines.latency_at(12.0) - 0.4).abs() < 0.001);
    }

    #[test]
    fn where_all_levels_are_alike_there_is_room_and_where_none_is_there_was_none() {
        let idle = Asymptotes::of(&seen(|_| 0.2, &[1.0, 2.0, 4.0]), 1.0);
        assert_eq!((idle.latency.is_some(), idle.throughput), (true, None));
        let full = Asymptotes::of(&seen(|level| level * 0.1, &[16.0, 8.0, 4.0]), 1.0);
        assert_eq!((full.latency, full.throughput.is_some()), (None, true));
        assert_eq!(Asymptotes::of(&[], 1.0), Asymptotes::default());
    }

    #[test]
    fn chance_is_no_second_asymptote() {
        let levels = [8.0, 8.0, 8.8, 9.6, 8.0];
        let latencies = [0.2, 0.22, 0.19, 0.23, 0.18];
        let samples: Vec<_> =
            levels.iter().zip(latencies).map(|(level, latency)| Sample { level: *level, latency, weight: 32.0 }).collect();
        assert_eq!(knee(Asymptotes::of(&samples, 1.0)), None);
    }
}
