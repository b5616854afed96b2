//! What is decided about the sizes of pools: a policy is set, or shown what there is.

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
use crate::time::Timestamp;

/// Longest policy, in bytes of its JSON: hundreds of rules.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Longest reason why a signal could not be read.
const FAILURE_BYTES_MAX: usize = 256;
/// Most replicas that a policy may want, as [`Event::PoolDefined`] has it.
const REPLICAS_MAX: u32 = 10_000;
/// Most replicas that one look records: those that a policy may want, and as many that are on their way out.
const SEEN_MAX: usize = 2 * REPLICAS_MAX as usize;

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
    let pool = known_pool(control, pool)?;
    if !policy.is_empty() {
        let (bounds, what) = (Bounds { min: least, max: most }, "the policy");
        // Whoever proposed it has said more: it reads and checks it first.
        let parsed: AnyPolicy = serde_json::from_str(policy).map_err(|_| Rejection::Policy)?;
        if least > most || most > REPLICAS_MAX {
            return Err(Rejection::OutOfRange { what, rule: "the fewest replicas at most the most, and those at most 10000" });
        }
        parsed.check(bounds).map_err(|_| Rejection::Policy)?;
        fits(control.resources.get(&pool).map(|known| &known.resources), control.slots(pool), least)?;
    }
    let known = control.scaling.get(&pool);
    let is_same =
        known.map_or(policy.is_empty(), |known| known.text == policy && (known.bounds.min, known.bounds.max) == (least, most));
    if !is_same {
        out.push(Event::PolicySet { pool, policy: Cow::Borrowed(policy), least, most, by, reason });
    }
    Ok(())
}

/// The id of a pool that there is.
fn known_pool(control: &Control, pool: PoolRef<'_>) -> Result<PoolId, Rejection> {
    let pool = match pool {
        PoolRef::Name(name) => control.pool(name).map(|(pool, _)| pool),
        PoolRef::Id(pool) => Some(pool).filter(|pool| usize::from(pool.0) < control.pools.len()),
    };
    pool.ok_or(Rejection::UnknownPool)
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
    let pool = known_pool(control, pool)?;
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

/// What was seen of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    /// One for each signal that its policy names.
    pub(crate) readings: &'a [Reading],
    /// Tasks that are ready or running, by shard, where shards share the pool.
    pub(crate) work: &'a [u64],
    /// Each replica, where the policy looks at them.
    pub(crate) replicas: &'a [ReplicaReading],
}

pub(crate) fn observe<'a>(
    control: &Control,
    pool: PoolId,
    Seen { readings, work, replicas }: Seen<'a>,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
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
    let rule = "one reading for each signal that the policy names";
    let seen = control.observation(pool, readings, replicas, at).ok_or(Rejection::OutOfRange { what: "the readings", rule })?;
    let decision = scaling.decide(&seen);
    out.push(Event::PoolObserved { pool, readings: readings.to_vec(), work: work.to_vec(), seen: replicas.to_vec() });
    let is_told = scaling.last.as_ref().is_some_and(|last| decision.says_the_same(&last.decision));
    if !is_told {
        // A decision is made of numbers and texts, which can always be written.
        let text = serde_json::to_string(&decision).unwrap_or_default();
        out.push(Event::PoolScaled { pool, replicas: decision.wanted, decision: Cow::Owned(text) });
    }
    Ok(())
}
