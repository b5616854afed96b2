//! What a run comes to.

use super::arrivals::Arrivals;
use super::fleet::Counts;
use super::pareto::Score;
use super::series::{Point, Series};
use super::setup::Setup;
use crate::scaling::Decision;
use crate::scaling::signal::Bounds;
use crate::time::Micros;

/// What a policy would have cost, and how long tasks would have waited.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// How many tasks there were.
    pub tasks: usize,
    /// How many of them never started, because the policy left them alone; they count as having waited until the end.
    pub unserved: usize,
    /// From the beginning to the end of the last task.
    pub length: Micros,
    /// Time of all replicas together, from the request to the exit, so that starting and draining are in it.
    pub billed: Micros,
    /// The same at the price of an hour.
    pub cost: f64,
    /// How that time was used.
    pub shares: Shares,
    /// How long tasks waited, those of the warm-up aside.
    pub waits: Waits,
    /// How often the size changed.
    pub events: u64,
    /// How often it turned round within 300 s.
    pub flips: u64,
    /// How many replicas were asked for, the first ones among them.
    pub replicas_started: u64,
    /// For how long the policy wanted as many as it may.
    pub time_at_max: Micros,
    /// Most replicas at once, those that start and drain among them.
    pub replicas_max: u32,
    /// Most tasks that waited at once.
    pub backlog_max: usize,
    /// Tasks that were cut off: none, as replicas finish what they have.
    pub interrupted: u64,
    /// How often the policy was asked.
    pub looks: u64,
    /// The run over time.
    pub series: Vec<Point>,
    /// BLAKE3 over tasks, setup and decisions: two runs of the same give the same.
    pub digest: [u8; 32],
}

/// How long tasks waited, from arrival to start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// How many tasks these are the waits of.
    pub count: usize,
    /// On average.
    pub mean: Micros,
    /// Half of them waited no longer.
    pub p50: Micros,
    /// 95 of 100 waited no longer.
    pub p95: Micros,
    /// 99 of 100 waited no longer.
    pub p99: Micros,
    /// The longest.
    pub max: Micros,
    /// How many waited for longer than they should.
    pub over: usize,
}

impl Waits {
    /// Which share waited for longer than it should.
    pub fn share_over(&self) -> f64 {
        self.over as f64 / self.count.max(1) as f64
    }
}

/// How the time of replicas was used; the shares add up to 1 where there was any.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Slots in which a task ran, on replicas that take work.
    pub busy: f64,
    /// Slots without a task.
    pub idle: f64,
    /// Replicas on their way.
    pub starting: f64,
    /// Replicas that finish what they have.
    pub draining: f64,
}

/// A run as it goes on.
#[derive(Debug)]
pub(super) struct Tally {
    waits: Vec<u64>,
    wait_sum: u128,
    warm: usize,
    target: u64,
    /// Nothing before this counts.
    count_from: u64,
    over: usize,
    unserved: usize,
    slots: u32,
    max: u32,
    /// Replica time by use; `busy` counts slots.
    starting: u128,
    ready: u128,
    draining: u128,
    busy: u128,
    at_max: u64,
    replicas_max: u32,
    backlog_max: usize,
    events: u64,
    flips: u64,
    /// When the size changed last, and whether it grew.
    turned: Option<(u64, bool)>,
    looks: u64,
    series: Series,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

/// What turns round within this time is flapping.
pub(super) const FLIP: u64 = 300_000_000;
/// Bytes that are hashed at once.
const BUFFER: usize = 1 << 16;

impl Tally {
    pub(super) fn new(arrivals: &Arrivals, setup: &Setup) -> Tally {
        let mut hasher = blake3::Hasher::new_derive_key("ergate backtest 1");
        arrivals.hash(&mut hasher);
        setup.hash(&mut hasher);
        let count_from = setup.warm_up.max(setup.count_from);
        let warm = arrivals.tasks().partition_point(|task| task.at < count_from).max(arrivals.carried());
        Tally {
            waits: Vec::with_capacity(arrivals.len() - warm),
            wait_sum: 0,
            warm,
            target: setup.wait_target.0,
            count_from: setup.count_from.0,
            over: 0,
            unserved: 0,
            slots: setup.slots,
            max: setup.bounds.max,
            starting: 0,
            ready: 0,
            draining: 0,
            busy: 0,
            at_max: 0,
            replicas_max: 0,
            backlog_max: 0,
            events: 0,
            flips: 0,
            turned: None,
            looks: 0,
            series: Series::new(),
            hasher,
            buffer: Vec::with_capacity(BUFFER + 32),
        }
    }

    /// The pool has other bounds from now on.
    pub(super) const fn aim(&mut self, bounds: Bounds) {
        self.max = bounds.max;
    }

    /// Nothing changed from one moment to another.
    pub(super) fn advance(&mut self, from: u64, to: u64, counts: Counts, backlog: usize, wanted: u32) {
        let from = from.max(self.count_from);
        if from >= to {
            return;
        }
        let Counts { starting, ready, draining, running, leaving } = counts;
        let length = to - from;
        let spent = |count: u32| u128::from(length) * u128::from(count);
        self.starting += spent(starting);
        self.ready += spent(ready);
        self.draining += spent(draining);
        self.busy += spent(running - leaving);
        if wanted == self.max {
            self.at_max += length;
        }
        let replicas = starting + ready + draining;
        self.replicas_max = self.replicas_max.max(replicas);
        self.backlog_max = self.backlog_max.max(backlog);
        let (from, to) = (from - self.count_from, to - self.count_from);
        self.series.span(from, to, [u32::try_from(backlog).unwrap_or(u32::MAX), replicas, running]);
    }

    /// A task started.
    pub(super) fn started(&mut self, task: u32, at: u64, wait: u64) {
        if let Some(at) = at.checked_sub(self.count_from) {
            self.series.wait(at, wait);
        }
        self.waited(task, wait);
    }

    fn waited(&mut self, task: u32, wait: u64) {
        if task as usize >= self.warm {
            self.waits.push(wait);
            self.wait_sum += u128::from(wait);
            self.over += usize::from(wait > self.target);
        }
    }

    /// These tasks waited until the end and were not started.
    pub(super) fn wait_for_nothing(&mut self, end: u64, left: impl Iterator<Item = (u64, u32)>) {
        for (since, task) in left {
            self.unserved += 1;
            self.waited(task, end - since);
        }
    }

    /// The policy decided.
    pub(super) fn decided(&mut self, at: u64, decision: &Decision) {
        self.looks += 1;
        self.resized(at, decision.from, decision.wanted);
        self.buffer.extend_from_slice(&at.to_le_bytes());
        self.buffer.extend_from_slice(&decision.from.to_le_bytes());
        self.buffer.extend_from_slice(&decision.wanted.to_le_bytes());
        self.buffer.push(decision.reason as u8);
        self.buffer.extend_from_slice(&decision.winner.map_or(u16::MAX, |winner| winner).to_le_bytes());
        if self.buffer.len() >= BUFFER {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// The size changed, or not.
    pub(super) fn resized(&mut self, at: u64, from: u32, to: u32) {
        if from == to || at < self.count_from {
            return;
        }
        let is_growth = to > from;
        self.events += 1;
        let has_flipped = self.turned.is_some_and(|(turned, grew)| grew != is_growth && at - turned <= FLIP);
        self.flips += u64::from(has_flipped);
        self.turned = Some((at, is_growth));
    }

    pub(super) fn report(mut self, arrivals: &Arrivals, setup: &Setup, end: u64, asked: u64) -> Report {
        self.hasher.update(&self.buffer);
        // The first replicas were asked for one start before the beginning.
        if setup.count_from.0 == 0 {
            self.starting += u128::from(setup.initially()) * u128::from(setup.start.0);
        }
        let billed = self.starting + self.ready + self.draining;
        let share = |micros: f64| if billed > 0 { micros / billed as f64 } else { 0.0 };
        let busy = self.busy as f64 / f64::from(self.slots);
        let shares = Shares {
            busy: share(busy),
            idle: share(self.ready as f64 - busy),
            starting: share(self.starting as f64),
            draining: share(self.draining as f64),
        };
        let billed = Micros(u64::try_from(billed).unwrap_or(u64::MAX));
        Report {
            tasks: arrivals.len(),
            unserved: self.unserved,
            length: Micros(end.saturating_sub(self.count_from)),
            billed,
            cost: hours(billed) * setup.price_per_hour,
            shares,
            waits: self.waits(),
            events: self.events,
            flips: self.flips,
            replicas_started: asked,
            time_at_max: Micros(self.at_max),
            replicas_max: self.replicas_max,
            backlog_max: self.backlog_max,
            interrupted: 0,
            looks: self.looks,
            series: self.series.points(),
            digest: *self.hasher.finalize().as_bytes(),
        }
    }

    fn waits(&mut self) -> Waits {
        let (count, over) = (self.waits.len(), self.over);
        self.waits.sort_unstable();
        let at = |percent| Micros(rank(count, percent).and_then(|rank| self.waits.get(rank)).copied().unwrap_or(0));
        let mean = Micros(u64::try_from(self.wait_sum / (count.max(1) as u128)).unwrap_or(u64::MAX));
        Waits { count, mean, p50: at(50), p95: at(95), p99: at(99), max: at(100), over }
    }
}

impl Report {
    /// Time of replicas in hours.
    pub fn hours(&self) -> f64 {
        hours(self.billed)
    }

    /// What it is compared by with others.
    pub fn score(&self) -> Score {
        Score { cost: self.cost, violations: self.waits.share_over(), events: self.events }
    }
}

/// Where the percentile of so many sorted numbers is (nearest rank); `None` of none.
fn rank(count: usize, percent: usize) -> Option<usize> {
    (count * percent).div_ceil(100).max(1).checked_sub(1).filter(|_| count > 0)
}

fn hours(span: Micros) -> f64 {
    span.0 as f64 / 3.6e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::signal::Bounds;
    use crate::scaling::{AnyPolicy, Memory, Observation, Policy, rate::Rate};
    use crate::time::Timestamp;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        for (count, percent, expected) in
            [(0, 50, None), (1, 1, Some(0)), (1, 99, Some(0)), (100, 99, Some(98)), (101, 99, Some(99)), (2, 50, Some(0))]
        {
            assert_eq!(rank(count, percent), expected, "{percent} % of {count}");
        }
    }

    #[test]
    fn the_digest_is_that_of_every_decision() {
        let arrivals = Arrivals::new(Timestamp(0), Vec::new()).unwrap();
        let setup = Setup::new(AnyPolicy::Rate(Rate::default()), Bounds { min: 0, max: 5 });
        let seen = |wanted| {
            let replicas = crate::scaling::signal::Replicas { wanted, ..Default::default() };
            Observation { at: Timestamp(0), bounds: setup.bounds, replicas, ceiling: None, signals: Vec::new(), pods: None }
        };
        let decision = |wanted| setup.policy.evaluate(&mut Memory::default(), &seen(wanted));
        let digest = |decisions: &[(u64, u32)]| {
            let mut tally = Tally::new(&arrivals, &setup);
            decisions.iter().for_each(|(at, wanted)| tally.decided(*at, &decision(*wanted)));
            tally.report(&arrivals, &setup, 0, 0).digest
        };
        let all = [digest(&[]), digest(&[(0, 0)]), digest(&[(1, 0)]), digest(&[(0, 1)]), digest(&[(0, 1), (1, 0)])];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }
}
