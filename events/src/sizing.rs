//! What is decided about the sizes of pools: a policy or a shadow is set, a size is held, or policies are shown what there is.

use std::borrow::Cow;

use crate::command::{PoolRef, Rejection};
use crate::decide::{texts, within};
use crate::event::{Event, PoolMode};
use crate::id::PoolId;
use crate::resources::PoolResources;
use crate::scaling::signal::{Bounds, Reading};
use crate::scaling::usage::ReplicaReading;
use crate::scaling::{AnyPolicy, Policy};
use crate::state::control::Control;
use crate::time::{Micros, Timestamp};

/// Longest policy, in bytes of its JSON: hundreds of rules.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Most shadows of one pool: each is evaluated as often as a policy is.
pub const SHADOWS_MAX: usize = 16;
/// Longest name of a shadow: it stands in lines for people, in addresses and in keys of the configuration.
pub const SHADOW_NAME_BYTES_MAX: usize = 64;
/// Shortest hold of a size: a policy decides again within a second of its end.
pub const HOLD_MIN: Micros = Micros::from_secs(1);
/// Longest hold of a size, 31 days: what is to last longer belongs into the bounds of the pool.
pub const HOLD_MAX: Micros = Micros::from_secs(31 * 86_400);
/// Longest reason why a signal could not be read.
const FAILURE_BYTES_MAX: usize = 256;
/// Most replicas that a policy may want, as [`Event::PoolDefined`] has it.
const REPLICAS_MAX: u32 = 10_000;
/// Most replicas that one look records: those that a policy may want, and as many that are on their way out.
const SEEN_MAX: usize = 2 * REPLICAS_MAX as usize;

/// Whether a shadow may be called so: letters, digits, `-` and `_`, at most [`SHADOW_NAME_BYTES_MAX`] of them.
pub fn is_shadow_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=SHADOW_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

fn find(control: &Control, pool: PoolRef<'_>) -> Result<PoolId, Rejection> {
    let pool = match pool {
        PoolRef::Name(name) => control.pool(name).map(|(pool, _)| pool),
        PoolRef::Id(pool) => Some(pool).filter(|pool| usize::from(pool.0) < control.pools.len()),
    };
    pool.ok_or(Rejection::UnknownPool)
}

/// The policy of a text; whoever proposed it has said more: it reads and checks it first.
fn parse(policy: &str, bounds: Bounds) -> Result<(), Rejection> {
    let parsed: AnyPolicy = serde_json::from_str(policy).map_err(|_| Rejection::Policy)?;
    parsed.check(bounds).map_err(|_| Rejection::Policy)
}

pub(crate) fn set_policy<'a>(
    control: &Control,
    pool: PoolRef<'a>,
    policy: &'a str,
    (least, most): (u32, u32),
    (by, reason): (&'a str, &'a str),
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    within("the policy", policy.len(), POLICY_BYTES_MAX)?;
    let pool = find(control, pool)?;
    let bounds = Bounds { min: least, max: most };
    if !policy.is_empty() {
        if serde_json::from_str::<AnyPolicy>(policy).is_err() {
            return Err(Rejection::Policy);
        }
        if least > most || most > REPLICAS_MAX {
            let rule = "the fewest replicas at most the most, and those at most 10000";
            return Err(Rejection::OutOfRange { what: "the policy", rule });
        }
        parse(policy, bounds)?;
        fits(control.resources.get(&pool).map(|known| &known.resources), control.slots(pool), least)?;
    }
    let known = control.scaling.get(&pool);
    let is_same = known.map_or(policy.is_empty(), |known| known.live.text == policy && known.bounds == bounds);
    if !is_same {
        out.push(Event::PolicySet { pool, policy: Cow::Borrowed(policy), least, most, by, reason });
    }
    Ok(())
}

/// Whether so many replicas with so many slots fit under a ceiling.
pub(crate) fn fits(resources: Option<&PoolResources>, slots: u32, wanted: u32) -> Result<(), Rejection> {
    match resources.and_then(|resources| resources.fit(slots)) {
        Some(fit) if fit.replicas() < wanted => Err(Rejection::Ceiling { wanted, fit }),
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn set_resources<'a>(
    control: &Control,
    pool: PoolRef<'a>,
    resources: &'a PoolResources,
    (by, reason): (&'a str, &'a str),
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    let pool = find(control, pool)?;
    if let Some((what, rule)) = resources.conflict() {
        return Err(Rejection::OutOfRange { what, rule });
    }
    let size = control.pools.get(usize::from(pool.0)).ok_or(Rejection::UnknownPool)?;
    let floor = control.scaling.get(&pool).map_or(size.replicas, |scaling| scaling.bounds.min);
    fits(Some(resources), size.slots, floor)?;
    let known = control.resources.get(&pool).map(|known| known.resources).unwrap_or_default();
    if known != *resources {
        out.push(Event::PoolResourcesSet { pool, resources: Box::new(*resources), by, reason });
    }
    Ok(())
}

/// What was seen of a pool, and for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// The policies that are asked, a bit each.
    pub(crate) asked: u32,
    /// One for each signal that one of these names.
    pub(crate) readings: &'a [Reading],
    /// Tasks that are ready or running, by shard, where shards share the pool.
    pub(crate) work: &'a [u64],
    /// Each replica, where one of the policies looks at them.
    pub(crate) replicas: &'a [ReplicaReading],
}

pub(crate) fn set_shadow<'a>(
    control: &Control,
    pool: PoolRef<'a>,
    (shadow, policy): (&'a str, &'a str),
    (by, reason): (&'a str, &'a str),
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    within("the policy", policy.len(), POLICY_BYTES_MAX)?;
    let pool = find(control, pool)?;
    let Some(scaling) = control.scaling.get(&pool) else {
        if policy.is_empty() {
            return Ok(());
        }
        let rule = "one that a policy sizes: a shadow is evaluated beside that; give the pool a policy first";
        return Err(Rejection::OutOfRange { what: "the pool of a shadow", rule });
    };
    if !is_shadow_name(shadow) {
        let rule = "1 to 64 letters, digits, - and _";
        return Err(Rejection::OutOfRange { what: "the name of a shadow", rule });
    }
    let known = scaling.shadows.get(shadow);
    if !policy.is_empty() {
        parse(policy, scaling.bounds)?;
        if known.is_none() && scaling.shadows.len() >= SHADOWS_MAX {
            return Err(Rejection::OutOfRange { what: "the number of shadows", rule: "at most 16 a pool; remove one first" });
        }
    }
    if known.map_or(!policy.is_empty(), |known| known.text != policy) {
        out.push(Event::ShadowSet { pool, shadow, policy: Cow::Borrowed(policy), by, reason });
    }
    Ok(())
}

pub(crate) fn hold<'a>(
    control: &Control,
    pool: PoolRef<'a>,
    (replicas, until): (Option<u32>, Timestamp),
    (by, reason): (&'a str, &'a str),
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    let pool = find(control, pool)?;
    let scaling = control.scaling.get(&pool);
    let Some(count) = replicas else {
        // Nobody holds it: then it is as asked for.
        if scaling.is_some_and(|scaling| scaling.hold_at(at).is_some()) {
            out.push(Event::SizeHeld { pool, replicas, until: Timestamp(0), by, reason });
        }
        return Ok(());
    };
    if scaling.is_none() {
        let rule = "one that a policy sizes: without one, a size holds until somebody sets another; leave the time away";
        return Err(Rejection::OutOfRange { what: "the pool of a hold", rule });
    }
    if count > REPLICAS_MAX {
        return Err(Rejection::OutOfRange { what: "the size that is held", rule: "at most 10000 replicas" });
    }
    if until <= at || until.since(at) > HOLD_MAX {
        return Err(Rejection::OutOfRange { what: "the end of a hold", rule: "a moment to come, at most 31 days away" });
    }
    out.push(Event::SizeHeld { pool, replicas, until, by, reason });
    Ok(())
}

pub(crate) fn observe<'a>(
    control: &Control,
    pool: PoolId,
    told: Seen<'a>,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let Seen { asked, readings, work, replicas } = told;
    let scaling = control.scaling.get(&pool).ok_or(Rejection::UnknownPool)?;
    within("the list of shards", work.len(), usize::from(u16::MAX))?;
    within("the list of replicas", replicas.len(), SEEN_MAX)?;
    for reading in readings {
        if let Reading::Failed(reason) = reading {
            within("the reason of a reading", reason.len(), FAILURE_BYTES_MAX)?;
        }
    }
    if control.mode(pool) != PoolMode::Running {
        return Err(Rejection::OutOfRange { what: "the pool", rule: "one that runs: a paused or drained one is not sized" });
    }
    let all = scaling.deciders().fold(0, |all, (bit, ..)| all | bit);
    if asked == 0 || asked & !all != 0 {
        return Err(Rejection::OutOfRange { what: "the asked policies", rule: "at least one, and only those that the pool has" });
    }
    let rule = "one reading for each signal that the asked policies name";
    let seen = control.observation(pool, told, at).ok_or(Rejection::OutOfRange { what: "the readings", rule })?;
    out.push(Event::PoolObserved { pool, readings: readings.to_vec(), work: work.to_vec(), asked, seen: replicas.to_vec() });
    for decided in scaling.decide(asked, &seen) {
        let decision = decided.decision;
        let is_told = decided.last.is_some_and(|last| match decided.shadow {
            None => decision.says_the_same(last),
            Some(_) => decision.wants_the_same(last),
        });
        if !is_told {
            // A decision is made of numbers and texts, which can always be written.
            let text = serde_json::to_string(&decision).unwrap_or_default();
            let shadow = decided.shadow.map(|name| Cow::Owned(name.to_owned()));
            out.push(Event::PoolScaled { pool, replicas: decision.wanted, decision: Cow::Owned(text), shadow });
        }
    }
    Ok(())
}
