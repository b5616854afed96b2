//! Why a pool has the size that it has: the last decision of its policy in a state, with every number that led to it.

use std::cmp::Ordering;

use ergate_events::id::PoolId;
use ergate_events::resources::Fit;
use ergate_events::scaling::decision::{Answer, By, Decision, Limit, LimitKind};
use ergate_events::scaling::signal::{Bounds, Reading};
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::state::State;
use ergate_events::state::scaling::{Decider, Look, Scaling, SizeHold};
use ergate_events::time::Timestamp;
use serde_json::{Value, json};

/// The last decision about a pool, as programs see it; `None` where there is no such pool, or no policy sizes it.
pub fn why(state: &State, pool: &str) -> Option<Value> {
    let (id, size) = state.control.pool(pool)?;
    let scaling = state.control.scaling.get(&id)?;
    let mut told = json!({ "pool": pool, "replicas": size.replicas, "mode": state.control.mode(id).name() });
    tell(&mut told, state, (id, scaling), &scaling.live);
    if let Some(resources) = resources(state, id) {
        told["resources"] = resources;
    }
    if let Some(hold) = hold(state, pool) {
        told["hold"] = hold;
    }
    if !scaling.shadows.is_empty() {
        told["shadows"] = scaling.shadows.iter().map(|(name, shadow)| in_short(name, shadow)).collect();
    }
    Some(told)
}

/// What is said of a pool's resources, and how many replicas fit; `None` where nothing is said.
pub fn resources(state: &State, pool: PoolId) -> Option<Value> {
    let said = state.control.resources.get(&pool)?;
    let mut told =
        json!({ "asked": said.resources.asked, "ceiling": said.resources.ceiling, "set_at": said.set_at.0.to_string() });
    if let Some(fit) = state.control.fit(pool) {
        told["fit"] = json!({ "replicas": fit.replicas(), "by": fit.of.name(), "because": fit.to_string() });
    }
    Some(told)
}

/// The last decision of a shadow of a pool, as programs see it; `None` where there is none.
pub fn why_shadow(state: &State, pool: &str, shadow: &str) -> Option<Value> {
    let (id, size) = state.control.pool(pool)?;
    let scaling = state.control.scaling.get(&id)?;
    let known = scaling.shadows.get(shadow)?;
    let mode = state.control.mode(id).name();
    let mut told = json!({ "pool": pool, "shadow": shadow, "replicas": size.replicas, "mode": mode });
    tell(&mut told, state, (id, scaling), known);
    Some(told)
}

/// Who holds the size of a pool, as programs see it: `size` is what the bounds make of it, and `cut_by` which one; `None` where nobody does.
pub fn hold(state: &State, pool: &str) -> Option<Value> {
    let (id, _) = state.control.pool(pool)?;
    let scaling = state.control.scaling.get(&id)?;
    let hold = scaling.hold_at(state.last_at)?;
    let size = state.control.held_at(id, hold)?;
    let cut_by = match size.cmp(&hold.replicas) {
        Ordering::Less if state.control.ceiling(id).is_some() => Some("ceiling"),
        Ordering::Less => Some("max"),
        Ordering::Greater => Some("min"),
        Ordering::Equal => None,
    };
    Some(json!({
        "replicas": hold.replicas, "size": size, "cut_by": cut_by, "since": hold.since.rfc3339(), "until": hold.until.rfc3339(),
        "by": hold.by, "reason": hold.reason, "set_at": hold.set_at.0.to_string(),
    }))
}

/// A shadow in a line: what it would have, and why.
fn in_short(name: &str, shadow: &Decider) -> Value {
    let last = shadow.last.as_ref();
    json!({
        "name": name, "wanted": last.map(|last| last.decision.wanted), "at": last.map(|last| last.seen.at.rfc3339()),
        "sentence": last.map(|last| last.decision.sentence(|input| shadow.policy().input(input))),
    })
}

fn tell(told: &mut Value, state: &State, (id, scaling): (PoolId, &Scaling), decider: &Decider) {
    told["policy"] = serde_json::from_str(&decider.text).unwrap_or_default();
    (told["min"], told["max"]) = (scaling.bounds.min.into(), scaling.bounds.max.into());
    told["set_at"] = decider.set_at.0.to_string().into();
    if let Some(look) = &decider.last {
        told["decision"] = decision(state, (id, scaling), decider, look);
    }
}

fn decision(state: &State, (id, scaling): (PoolId, &Scaling), decider: &Decider, Look { seen, decision }: &Look) -> Value {
    // What only others read that were asked at the same moment says nothing of this decision.
    let own = seen.signals.iter().filter(|signal| decider.signals().contains(&signal.name));
    let signals = own.map(|signal| match &signal.reading {
        Reading::Value(value) => json!({ "name": signal.name, "value": value.real(), "text": value.to_string() }),
        Reading::Failed(reason) => json!({ "name": signal.name, "failed": reason }),
    });
    let limits = decision.limits.iter().map(|limit| {
        let by = origin_of(state, (id, scaling), decider, limit);
        json!({ "kind": limit.kind, "from": limit.from, "to": limit.to, "by": by })
    });
    json!({
        "at": seen.at.rfc3339(), "from": decision.from, "wanted": decision.wanted, "reason": decision.reason,
        "sentence": decision.sentence(|input| decider.policy().input(input)),
        "replicas": seen.replicas, "signals": signals.collect::<Vec<_>>(), "inputs": inputs(decider.policy(), decision),
        "limits": limits.collect::<Vec<_>>(), "look_again": decision.look_again.map(Timestamp::rfc3339),
    })
}

/// What each input of the policy asked for, and which of them won.
fn inputs(policy: &AnyPolicy, decision: &Decision) -> Vec<Value> {
    let each = decision.verdicts.iter().zip(0_u16..);
    let told = each.map(|(verdict, index)| {
        let asks = match &verdict.answer {
            Answer::Replicas(count) => json!(count),
            Answer::Nothing => Value::Null,
            Answer::Failed(failure) => json!({ "failed": failure.to_string() }),
        };
        json!({
            "name": policy.input(index), "value": verdict.raw.map(|raw| raw.to_string()), "ratio": verdict.ratio.map(|ratio| ratio.get()),
            "asks": asks, "won": decision.winner == Some(index),
        })
    });
    told.collect()
}

/// The event that set a bound of the policy of a pool.
pub(super) fn origin(state: &State, pool: PoolId, scaling: &Scaling, limit: &Limit) -> String {
    origin_of(state, (pool, scaling), &scaling.live, limit)
}

fn origin_of(state: &State, (pool, scaling): (PoolId, &Scaling), decider: &Decider, limit: &Limit) -> String {
    let event = if std::ptr::eq(decider, &scaling.live) { "policy_set" } else { "shadow_set" };
    match limit.by {
        By::Ceiling(fit) => format!("{fit}, {}", said_at(state, pool)),
        By::Pool => format!("policy_set at position {}", scaling.live.set_at.0),
        By::Policy => format!("a setting of the policy, {event} at position {}", decider.set_at.0),
        By::Hold(since) => match scaling.hold.as_ref().filter(|hold| hold.since == since) {
            Some(hold) => held_by(hold),
            None => format!("a hold that began at {}", since.rfc3339()),
        },
        By::Rule { rule, start, since: Some(since) } => {
            format!("rule {rule} of the policy, which counts from {start} since the decision of {}", since.rfc3339())
        }
        By::Rule { rule, start, since: None } => format!("rule {rule} of the policy, which counts from {start}"),
        By::Decision(at) => format!("the decision of {}", at.rfc3339()),
    }
}

/// The event that set the ceiling of a pool.
fn said_at(state: &State, pool: PoolId) -> String {
    let said = state.control.resources.get(&pool);
    said.map_or_else(
        || "pool_resources_set before".to_owned(),
        |said| format!("pool_resources_set at position {}", said.set_at.0),
    )
}

/// Why so many replicas do not fit.
fn too_many(state: &State, pool: PoolId, fit: Fit, count: u32) -> String {
    format!(
        "{} fit under the pool's ceiling of {fit} ({}); raise `ceiling.{}` to {}",
        fit.replicas(),
        said_at(state, pool),
        fit.of.name(),
        fit.needed(count)
    )
}

/// Why a pool does not have so many replicas, and what would have to be otherwise.
pub fn why_not(state: &State, pool: &str, count: u32) -> Option<String> {
    let (id, _) = state.control.pool(pool)?;
    let scaling = state.control.scaling.get(&id)?;
    let (Bounds { min, max }, set_at) = (scaling.bounds, scaling.live.set_at.0);
    let by_max = (count > max).then(|| format!("the pool may have {max} at most (policy_set at position {set_at}); raise `max`"));
    let by_ceiling = state.control.fit(id).filter(|fit| count > fit.replicas()).map(|fit| too_many(state, id, fit, count));
    if by_max.is_some() || by_ceiling.is_some() {
        return Some(by_max.into_iter().chain(by_ceiling).collect::<Vec<_>>().join("; and "));
    }
    if count < min {
        return Some(format!("the pool has {min} at least (policy_set at position {set_at}); lower `min`"));
    }
    let hold = scaling.hold_at(state.last_at).and_then(|hold| Some((hold, state.control.held_at(id, hold)?)));
    if let Some((hold, held)) = hold.filter(|(_, held)| *held != count) {
        return Some(format!("it is held at {held} ({}); `ergate pool release {pool}` ends that", held_by(hold)));
    }
    let Some(Look { decision, .. }) = &scaling.live.last else { return Some("nothing was decided yet".to_owned()) };
    if count == decision.wanted {
        return Some(format!("it should have {count}, as decided last"));
    }
    let is_more = count > decision.wanted;
    let in_the_way = decision.limits.iter().find(|limit| (limit.to < limit.from) == is_more && reaches(limit, count, is_more));
    if let Some(limit) = in_the_way {
        let by = origin(state, id, scaling, limit);
        return Some(format!(
            "{} made {} of {} ({by}); without it there would be as many",
            named(limit.kind),
            limit.to,
            limit.from
        ));
    }
    let winner = decision.winner.and_then(|index| Some((index, decision.verdicts.get(usize::from(index))?)));
    Some(match winner {
        Some((index, verdict)) => {
            let name = scaling.live.policy().input(index);
            let asked = match &verdict.answer {
                Answer::Replicas(asked) => *asked,
                Answer::Nothing | Answer::Failed(_) => decision.wanted,
            };
            let number = verdict.raw.map(|raw| raw.real());
            match number.filter(|number| *number > 0.0 && asked > 0) {
                Some(number) => format!(
                    "{name} asks for {asked}; where replicas follow it evenly it would have to be about {:.3} instead of {number:.3} for {count}",
                    number * f64::from(count) / f64::from(asked)
                ),
                None => format!("{name} asks for {asked}, whatever else there is"),
            }
        }
        None => decision.sentence(|input| scaling.live.policy().input(input)),
    })
}

/// Who holds a size, until when and why, and the event that says so.
fn held_by(hold: &SizeHold) -> String {
    let SizeHold { until, by, reason, set_at, .. } = hold;
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    format!("{by} holds it until {}{because}; size_held at position {}", until.rfc3339(), set_at.0)
}

/// Whether there would be so many replicas without this bound.
const fn reaches(limit: &Limit, count: u32, is_more: bool) -> bool {
    if is_more { limit.from >= count } else { limit.from <= count }
}

pub(super) fn named(kind: LimitKind) -> String {
    format!("{kind:?}").chars().fold(String::new(), |text, letter| match letter.is_uppercase() && !text.is_empty() {
        true => format!("{text} {}", letter.to_ascii_lowercase()),
        false => format!("{text}{}", letter.to_ascii_lowercase()),
    })
}
