//! What is right: the smallest fixed limit that gives about the whole throughput.

use crate::drive::{Fixed, Pilot, Story, drive, full};
use crate::server::Server;

/// Requests of a run, and those that it has to find the limit.
const REQUESTS: usize = 2_000;
const SEARCH: usize = 400;
const RUNS: u64 = 20;

/// What is best for a server.
#[derive(Debug)]
pub(crate) struct Judge {
    server: Server,
    /// The smallest limit with at least 97.5 % of the throughput of the best.
    pub(crate) best: u32,
    /// Limits that are right: from the smallest with 95 %, to 20 % and one more than the best.
    right: std::ops::RangeInclusive<u32>,
    throughput: f64,
}

/// What came of runs, on average.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The share of requests for which the level was right.
    pub(crate) share: f64,
    /// The throughput, probes and all, as a share of the best.
    pub(crate) throughput: f64,
    pub(crate) level: f64,
    /// Requests that were turned away in a run.
    pub(crate) refused: f64,
}

impl Judge {
    pub(crate) fn of(server: Server) -> Judge {
        let is_plain = server.slower == 0.0 && server.locked == 0.0 && server.away == 0.0;
        let curve: Vec<f64> = if is_plain {
            (1..=server.places).map(|limit| limit as f64 / server.service).collect()
        } else {
            let fixed = |limit| drive(&mut Fixed(limit), &|_| server, full, 6_000, 7).throughput(500, 6_000);
            (1..=32).map(fixed).collect()
        };
        let throughput = curve.iter().copied().fold(0.0, f64::max);
        let first = |share: f64| curve.iter().position(|one| *one >= share * throughput).map_or(0, |index| index as u32 + 1);
        let (best, from) = (first(0.975), first(0.95));
        Judge { server, best, right: from..=(1.2 * f64::from(best) + 1.0) as u32, throughput }
    }

    pub(crate) fn share(&self, levels: &[u32]) -> f64 {
        levels.iter().filter(|level| self.right.contains(level)).count() as f64 / levels.len() as f64
    }

    pub(crate) fn runs<P: Pilot>(&self, make: impl Fn() -> P) -> Verdict {
        let mut verdict = Verdict::default();
        for seed in 0..RUNS {
            let story = drive(&mut make(), &|_| self.server, full, REQUESTS, 1_000 + seed);
            let Story { levels, refused, .. } = &story;
            verdict.share += self.share(&levels[SEARCH..]) / RUNS as f64;
            verdict.throughput += story.throughput(SEARCH, REQUESTS) / self.throughput / RUNS as f64;
            let mean = levels[SEARCH..].iter().copied().map(f64::from).sum::<f64>() / (REQUESTS - SEARCH) as f64;
            verdict.level += mean / RUNS as f64;
            verdict.refused += *refused as f64 / RUNS as f64;
        }
        verdict
    }
}
