//! Why a pool has the size that it has: the last decision of its policy in a state, with every number that led to it.

use ergate_events::id::PoolId;
use ergate_events::resources::Fit;
use ergate_events::scaling::decision::{Answer, By, Decision, Limit, LimitKind};
use ergate_events::scaling::signal::{Bounds, Reading};
use ergate_events::scaling::{AnyPolicy, Policy};
use ergate_events::state::State;
use ergate_events::state::scaling::{Look, Scaling};
use ergate_events::time::Timestamp;
use serde_json::{Value, json};

/// The last decision about a pool, as programs see it; `None` where there is no such pool, or no policy sizes it.
pub fn why(state: &State, pool: &str) -> Option<Value> {
    let (id, size) = state.control.pool(pool)?;
    let scaling = state.control.scaling.get(&id)?;
    let mut told = json!({
        "pool": pool, "replicas": size.replicas, "mode": state.control.mode(id).name(),
        "policy": serde_json::from_str::<Value>(&scaling.text).unwrap_or_default(),
        "min": scaling.bounds.min, "max": scaling.bounds.max, "set_at": scaling.set_at.0.to_string(),
    });
    if let Some(resources) = resources(state, id) {
        told["resources"] = resources;
    }
    if let Some(look) = &scaling.last {
        told["decision"] = decision(state, id, scaling, look);
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

fn decision(state: &State, pool: PoolId, scaling: &Scaling, Look { seen, decision }: &Look) -> Value {
    let signals = seen.signals.iter().map(|signal| match &signal.reading {
        Reading::Value(value) => json!({ "name": signal.name, "value": value.real(), "text": value.to_string() }),
        Reading::Failed(reason) => json!({ "name": signal.name, "failed": reason }),
    });
    let limits = decision.limits.iter().map(
        |limit| json!({ "kind": limit.kind, "from": limit.from, "to": limit.to, "by": origin(state, pool, scaling, limit) }),
    );
    json!({
        "at": seen.at.rfc3339(), "from": decision.from, "wanted": decision.wanted, "reason": decision.reason,
        "sentence": decision.sentence(|input| scaling.policy().input(input)),
        "replicas": seen.replicas, "signals": signals.collect::<Vec<_>>(), "inputs": inputs(scaling.policy(), decision),
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

/// The event that set a bound.
pub(super) fn origin(state: &State, pool: PoolId, scaling: &Scaling, limit: &Limit) -> String {
    match limit.by {
        By::Ceiling(fit) => format!("{fit}, {}", said_at(state, pool)),
        By::Pool => format!("policy_set at position {}", scaling.set_at.0),
        By::Policy => format!("a setting of the policy, policy_set at position {}", scaling.set_at.0),
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
    let Bounds { min, max } = scaling.bounds;
    let by_max = (count > max)
        .then(|| format!("the pool may have {max} at most (policy_set at position {}); raise `max`", scaling.set_at.0));
    let by_ceiling = state.control.fit(id).filter(|fit| count > fit.replicas()).map(|fit| too_many(state, id, fit, count));
    if by_max.is_some() || by_ceiling.is_some() {
        return Some(by_max.into_iter().chain(by_ceiling).collect::<Vec<_>>().join("; and "));
    }
    if count < min {
        return Some(format!("the pool has {min} at least (policy_set at position {}); lower `min`", scaling.set_at.0));
    }
    let Some(Look { decision, .. }) = &scaling.last else { return Some("nothing was decided yet".to_owned()) };
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
            let name = scaling.policy().input(index);
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
        None => decision.sentence(|input| scaling.policy().input(input)),
    })
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
