//! From a proposal to a count: windows that wait for agreement, paces that limit the speed, and the pool's bounds.

use std::cmp::Ordering;

use super::memory::{Change, Memory, Recommendation};
use super::rulebook::Rulebook;
use super::settings::{Behavior, DOWN, Pace, PaceKind, Rules, Select, UP};
use super::words::{Condition, ConditionReason};
use crate::scaling::decision::{By, Decision, LimitKind};
use crate::scaling::signal::{Bounds, Observation};
use crate::time::{Micros, Timestamp};

/// Cuts a proposal to what may be done now, and remembers the proposal.
pub(super) fn normalize(rules: &Rulebook<'_>, memory: &mut Memory, observation: &Observation, decision: &mut Decision) {
    let stabilized = match rules.behavior {
        None => hold(rules, memory, observation, decision),
        Some(behavior) => stabilize(rules, behavior, memory, observation, decision),
    };
    memory.conditions.able_to_scale = Condition::yes(stabilized.unwrap_or(ConditionReason::ReadyForNewScale));
    let wanted = decision.wanted;
    let (reason, by, kind, to) = match rules.behavior {
        None => double_at_most(wanted, observation.replicas.wanted, rules.bounds),
        Some(behavior) => pace(behavior, memory, observation, rules.bounds, wanted),
    };
    memory.conditions.scaling_limited =
        if to == wanted { Condition::no(ConditionReason::DesiredWithinRange) } else { Condition::yes(reason) };
    decision.cut(kind, to, by);
}

/// Without a behavior: the highest recommendation of the window counts, an age of exactly the window included. It may be above the current count.
fn hold(
    rules: &Rulebook<'_>,
    memory: &mut Memory,
    observation: &Observation,
    decision: &mut Decision,
) -> Option<ConditionReason> {
    let (at, window) = (observation.at, rules.controller.downscale_stabilization);
    let proposal = decision.wanted;
    let mut highest = Recommendation { at, replicas: proposal };
    for known in memory.recent(at, window).filter(|known| at.since(known.at) <= window) {
        if known.replicas > highest.replicas {
            highest = *known;
        }
    }
    memory.recommended(at, proposal, window);
    decision.cut(LimitKind::DownWindow, highest.replicas, By::Decision(highest.at));
    (highest.replicas != proposal).then_some(ConditionReason::ScaleDownStabilized)
}

/// With a behavior: the count goes up to the lowest recommendation of one window and down to the highest of the other, an age of exactly a window
/// excluded, and stays where it is in between.
fn stabilize(
    rules: &Rulebook<'_>,
    behavior: &Behavior,
    memory: &mut Memory,
    observation: &Observation,
    decision: &mut Decision,
) -> Option<ConditionReason> {
    let (at, current, proposal) = (observation.at, observation.replicas.wanted, decision.wanted);
    let up_window = behavior.scale_up.stabilization.unwrap_or_default();
    let down_window = behavior.scale_down.stabilization.unwrap_or(rules.controller.downscale_stabilization);
    let now = Recommendation { at, replicas: proposal };
    let (mut lowest, mut highest) = (now, now);
    for known in memory.recent(at, up_window.max(down_window)) {
        let age = at.since(known.at);
        if age < up_window && known.replicas < lowest.replicas {
            lowest = *known;
        }
        if age < down_window && known.replicas > highest.replicas {
            highest = *known;
        }
    }
    memory.recommended(at, proposal, up_window.max(down_window));
    let to = current.max(lowest.replicas).min(highest.replicas);
    let grows = proposal >= current;
    let (kind, by) = if grows { (LimitKind::UpWindow, lowest.at) } else { (LimitKind::DownWindow, highest.at) };
    decision.cut(kind, to, By::Decision(by));
    let reason = if grows { ConditionReason::ScaleUpStabilized } else { ConditionReason::ScaleDownStabilized };
    (to != proposal).then_some(reason)
}

/// A cut: its condition, what set it, its kind, and the count it leaves.
type Cut = (ConditionReason, By, LimitKind, u32);

/// Without a behavior a pool at most doubles in one look, or gets 4 where that is more.
fn double_at_most(wanted: u32, current: u32, bounds: Bounds) -> Cut {
    let fastest = current.saturating_mul(2).max(4);
    if wanted < bounds.min {
        (ConditionReason::TooFewReplicas, By::Pool, LimitKind::Min, bounds.min)
    } else if bounds.max > fastest {
        (ConditionReason::ScaleUpLimit, By::Policy, LimitKind::UpRate, wanted.min(fastest))
    } else {
        (ConditionReason::TooManyReplicas, By::Pool, LimitKind::Max, wanted.min(bounds.max))
    }
}

/// With a behavior the paces say how far it may go, and the pool's bounds as well; the nearer of the two is named.
fn pace(behavior: &Behavior, memory: &Memory, observation: &Observation, bounds: Bounds, wanted: u32) -> Cut {
    let (current, at) = (observation.replicas.wanted, observation.at);
    match wanted.cmp(&current) {
        Ordering::Greater => {
            let (by, limit) = up_limit(&behavior.scale_up, memory, i64::from(current), at);
            let limit = count(limit).max(current);
            if bounds.max > limit {
                (ConditionReason::ScaleUpLimit, by, LimitKind::UpRate, wanted.min(limit))
            } else {
                (ConditionReason::TooManyReplicas, By::Pool, LimitKind::Max, wanted.min(bounds.max))
            }
        }
        Ordering::Less => {
            let (by, limit) = down_limit(&behavior.scale_down, memory, i64::from(current), at);
            let limit = count(limit).min(current);
            if bounds.min < limit {
                (ConditionReason::ScaleDownLimit, by, LimitKind::DownRate, wanted.max(limit))
            } else {
                (ConditionReason::TooFewReplicas, By::Pool, LimitKind::Min, wanted.max(bounds.min))
            }
        }
        Ordering::Equal => (ConditionReason::DesiredWithinRange, By::Policy, LimitKind::UpRate, wanted),
    }
}

/// A number of replicas: below zero there are none.
fn count(limit: i64) -> u32 {
    u32::try_from(limit.max(0)).unwrap_or(u32::MAX)
}

fn up_limit(rules: &Rules, memory: &Memory, current: i64, at: Timestamp) -> (By, i64) {
    let limit = |start: i64, pace: &Pace| match pace.kind {
        PaceKind::Pods => start.saturating_add(i64::from(pace.value)),
        // In this order of operations: 110 and 10 % are 121.00000000000001, so 122.
        PaceKind::Percent => (start as f64 * (1.0 + f64::from(pace.value) / 100.0)).ceil() as i64,
    };
    select(rules, &UP, memory, current, at, limit, |new, old| match rules.select {
        Select::Min => new < old,
        Select::Max | Select::Disabled => new > old,
    })
}

fn down_limit(rules: &Rules, memory: &Memory, current: i64, at: Timestamp) -> (By, i64) {
    let limit = |start: i64, pace: &Pace| match pace.kind {
        PaceKind::Pods => start.saturating_sub(i64::from(pace.value)),
        // In this order of operations: 10 less 90 % are 0.9999999999999998, so 0.
        PaceKind::Percent => (start as f64 * (1.0 - f64::from(pace.value) / 100.0)) as i64,
    };
    select(rules, &DOWN, memory, current, at, limit, |new, old| match rules.select {
        Select::Min => new > old,
        Select::Max | Select::Disabled => new < old,
    })
}

/// The limit of the policy that counts, and which that is.
fn select(
    rules: &Rules,
    default: &[Pace],
    memory: &Memory,
    current: i64,
    at: Timestamp,
    limit: impl Fn(i64, &Pace) -> i64,
    is_better: impl Fn(i64, i64) -> bool,
) -> (By, i64) {
    if rules.select == Select::Disabled {
        return (By::Policy, current);
    }
    let mut best: Option<(By, i64)> = None;
    for (rule, pace) in rules.policies.as_deref().unwrap_or(default).iter().enumerate() {
        let (grown, first_up) = inside(&memory.up, pace.period, at);
        let (shrunk, first_down) = inside(&memory.down, pace.period, at);
        let start = current.saturating_sub(grown).saturating_add(shrunk);
        let limit = limit(start, pace);
        if best.is_none_or(|(_, old)| is_better(limit, old)) {
            let since = first_up.into_iter().chain(first_down).min();
            best = Some((By::Rule { rule: u16::try_from(rule).unwrap_or(u16::MAX), start, since }, limit));
        }
    }
    best.unwrap_or((By::Policy, current))
}

/// What changes of a period add up to, and when the first of them was; those that are exactly a period old are out.
fn inside(changes: &[Change], period: Micros, at: Timestamp) -> (i64, Option<Timestamp>) {
    let recent = changes.iter().filter(|change| at.since(change.at) < period);
    recent.fold((0, None), |(sum, first): (i64, Option<Timestamp>), change| {
        (sum.saturating_add(i64::from(change.by)), Some(first.map_or(change.at, |first| first.min(change.at))))
    })
}

/// Whether rules for growing ever leave zero: a share of nothing is nothing.
pub(super) fn leaves_zero(rules: &Rules) -> bool {
    up_limit(rules, &Memory::default(), 0, Timestamp::default()).1 > 0
}
