//! What no policy can go below, and what one that knows the future could do.
//!
//! A start costs as much as a replica does in the time that it takes. All of this counts replica time, and none of it knows a pool's most replicas.
//! The linear program between work floor and clairvoyant schedule (a lower bound for waits up to a limit) is not here.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::arrivals::Arrivals;
use crate::time::Micros;

/// What tasks take together, on replicas that are never idle: nobody can pay less.
pub fn work_floor(arrivals: &Arrivals, slots: u32) -> Micros {
    let work: u128 = arrivals.tasks().iter().map(|task| u128::from(task.service.0)).sum();
    span(work / u128::from(slots.max(1)))
}

/// What it takes if no task may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroWait {
    /// The least that is possible, with knowledge of the future. Exact for one slot a replica; for more a bound, as tasks cannot move.
    pub optimum: Micros,
    /// The same by somebody who knows nothing of the future and keeps an idle replica exactly as long as a start takes: at most twice as much.
    pub break_even: Micros,
}

/// The least that is possible if no task may wait, in O(n log n).
///
/// Replica k is busy while more than (k − 1) × slots tasks run. Each is a question of its own, to keep or to start again: a gap costs its length
/// or a start, whichever is less.
pub fn zero_wait(arrivals: &Arrivals, slots: u32, start: Micros) -> ZeroWait {
    let slots = slots.max(1) as usize;
    let mut ends: BinaryHeap<Reverse<u64>> = BinaryHeap::new();
    // Since when each replica is idle.
    let mut idle: Vec<u64> = Vec::new();
    let mut begun: Vec<u64> = Vec::new();
    let (mut optimum, mut break_even) = (0_u128, 0_u128);
    // A task that takes no time needs none.
    for task in arrivals.tasks().iter().filter(|task| task.service.0 > 0) {
        while let Some(Reverse(end)) = ends.peek().copied().filter(|Reverse(end)| *end <= task.at.0) {
            ends.pop();
            leave(&mut idle, &begun, ends.len(), slots, end, &mut optimum, &mut break_even);
        }
        let level = ends.len() / slots;
        if ends.len().is_multiple_of(slots) {
            match idle.get(level) {
                Some(since) => {
                    let gap = task.at.0 - since;
                    optimum += u128::from(gap.min(start.0));
                    break_even += u128::from(if gap <= start.0 { gap } else { start.0.saturating_mul(2) });
                    begun[level] = task.at.0;
                }
                None => {
                    optimum += u128::from(start.0);
                    break_even += u128::from(start.0);
                    idle.push(0);
                    begun.push(task.at.0);
                }
            }
        }
        ends.push(Reverse(task.at.0 + task.service.0));
    }
    while let Some(Reverse(end)) = ends.pop() {
        leave(&mut idle, &begun, ends.len(), slots, end, &mut optimum, &mut break_even);
    }
    ZeroWait { optimum: span(optimum), break_even: span(break_even) }
}

/// A task ends and leaves so many; the highest replica may be idle now.
fn leave(idle: &mut [u64], begun: &[u64], left: usize, slots: usize, end: u64, optimum: &mut u128, break_even: &mut u128) {
    if left.is_multiple_of(slots) {
        let level = left / slots;
        idle[level] = end;
        let busy = u128::from(end - begun[level]);
        *optimum += busy;
        *break_even += busy;
    }
}

/// A schedule that somebody who knows the future could really run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// What it takes.
    pub billed: Micros,
    /// The longest wait: at most the limit.
    pub wait_max: Micros,
    /// Replicas that it uses.
    pub replicas: u32,
    /// Task after task in the order of arrival: which slot of all does it and when it starts. Slot `s` is one of replica `s / slots`.
    pub placed: Vec<(u32, Micros)>,
}

/// A schedule in which no task waits for longer than a limit: the optimum is no more than this.
///
/// Tasks are placed in the order of their arrival: on the slot that is free last of those that are free in time, which packs the busy ones full
/// and takes, of idle ones, the one that became idle last; and else on a new one. A gap costs its length or a start, whichever is less.
pub fn clairvoyant(arrivals: &Arrivals, slots: u32, start: Micros, limit: Micros) -> Schedule {
    let slots = slots.max(1);
    let mut free: BTreeSet<(u64, u32)> = BTreeSet::new();
    let mut count = 0_u32;
    let (mut wait_max, mut placed, mut work) = (0, Vec::with_capacity(arrivals.len()), Vec::with_capacity(arrivals.len()));
    for task in arrivals.tasks() {
        let latest = task.at.0.saturating_add(limit.0);
        let (free_at, slot) = match free.range(..=(latest, u32::MAX)).next_back().copied() {
            Some(found) => {
                free.remove(&found);
                found
            }
            None => {
                // A replica brings all of its slots, each free since ever.
                let first = count;
                count += slots;
                free.extend((first + 1..count).map(|slot| (0, slot)));
                (0, first)
            }
        };
        let begin = free_at.max(task.at.0);
        let end = begin + task.service.0;
        wait_max = wait_max.max(begin - task.at.0);
        free.insert((end, slot));
        placed.push((slot, Micros(begin)));
        work.push((slot / slots, begin, end));
    }
    let billed = span(cost(&mut work, start.0));
    Schedule { billed, wait_max: Micros(wait_max), replicas: count / slots, placed }
}

/// What replicas cost that do this work, each paying its first start and the lesser of each gap and another start.
fn cost(work: &mut [(u32, u64, u64)], start: u64) -> u128 {
    work.sort_unstable();
    let mut cost = 0_u128;
    // The replica, and until when its work reaches.
    let mut last: Option<(u32, u64)> = None;
    for (replica, begin, end) in work.iter().copied() {
        let reached = match last {
            Some((same, until)) if same == replica => {
                cost += u128::from(begin.saturating_sub(until).min(start));
                until
            }
            _ => {
                cost += u128::from(start);
                begin
            }
        };
        cost += u128::from(end.saturating_sub(reached.max(begin)));
        last = Some((replica, reached.max(end)));
    }
    cost
}

fn span(micros: u128) -> Micros {
    Micros(u64::try_from(micros).unwrap_or(u64::MAX))
}
