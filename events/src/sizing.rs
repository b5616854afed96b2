//! What is decided about the sizes of pools: a policy is set, or shown what there is.

use std::borrow::Cow;

use crate::command::{PoolRef, Rejection};
use crate::decide::{texts, within};
use crate::event::{Event, PoolMode};
use crate::id::PoolId;
use crate::scaling::signal::{Bounds, Reading};
use crate::scaling::{AnyPolicy, Policy};
use crate::state::control::Control;
use crate::time::Timestamp;

/// Longest policy, in bytes of its JSON: hundreds of rules.
pub const POLICY_BYTES_MAX: usize = 64 << 10;
/// Longest reason why a signal could not be read.
const FAILURE_BYTES_MAX: usize = 256;
/// Most replicas that a policy may want, as [`Event::PoolDefined`] has it.
const REPLICAS_MAX: u32 = 10_000;

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
    let pool = match pool {
        PoolRef::Name(name) => control.pool(name).map(|(pool, _)| pool),
        PoolRef::Id(pool) => Some(pool).filter(|pool| usize::from(pool.0) < control.pools.len()),
    };
    let pool = pool.ok_or(Rejection::UnknownPool)?;
    if !policy.is_empty() {
        let (bounds, what) = (Bounds { min: least, max: most }, "the policy");
        // Whoever proposed it has said more: it reads and checks it first.
        let parsed: AnyPolicy = serde_json::from_str(policy).map_err(|_| Rejection::Policy)?;
        if least > most || most > REPLICAS_MAX {
            return Err(Rejection::OutOfRange { what, rule: "the fewest replicas at most the most, and those at most 10000" });
        }
        parsed.check(bounds).map_err(|_| Rejection::Policy)?;
    }
    let known = control.scaling.get(&pool);
    let is_same =
        known.map_or(policy.is_empty(), |known| known.text == policy && (known.bounds.min, known.bounds.max) == (least, most));
    if !is_same {
        out.push(Event::PolicySet { pool, policy: Cow::Borrowed(policy), least, most, by, reason });
    }
    Ok(())
}

pub(crate) fn observe<'a>(
    control: &Control,
    pool: PoolId,
    (readings, work): (&'a [Reading], &'a [u64]),
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let scaling = control.scaling.get(&pool).ok_or(Rejection::UnknownPool)?;
    within("the list of shards", work.len(), usize::from(u16::MAX))?;
    for reading in readings {
        if let Reading::Failed(reason) = reading {
            within("the reason of a reading", reason.len(), FAILURE_BYTES_MAX)?;
        }
    }
    if control.mode(pool) != PoolMode::Running {
        return Err(Rejection::OutOfRange { what: "the pool", rule: "one that runs: a paused or drained one is not sized" });
    }
    let rule = "one reading for each signal that the policy names";
    let seen = control.observation(pool, readings, at).ok_or(Rejection::OutOfRange { what: "the readings", rule })?;
    let decision = scaling.decide(&seen);
    out.push(Event::PoolObserved { pool, readings: readings.to_vec(), work: work.to_vec() });
    let is_told = scaling.last.as_ref().is_some_and(|last| decision.says_the_same(&last.decision));
    if !is_told {
        // A decision is made of numbers and texts, which can always be written.
        let text = serde_json::to_string(&decision).unwrap_or_default();
        out.push(Event::PoolScaled { pool, replicas: decision.wanted, decision: Cow::Owned(text) });
    }
    Ok(())
}
