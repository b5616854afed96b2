//! Several policies for one pool: the one that wants most decides, or a formula over what they want.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{Answer, Decision, Failure, Reason, Verdict};
use super::formula::Formula;
use super::hpa;
use super::policy::{Cadence, Policy, Single, SingleMemory};
use super::setting::{self, SettingError};
use super::signal::{Bounds, Observation, Value, replicas};
use crate::time::{Micros, Timestamp};

/// Settings. A member is any policy but another composite: settings that contain themselves could not be read back within a bound.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composite {
    /// The members, with a name each.
    pub members: Vec<Member>,
    /// How many replicas follow from what the members want, over their names; `None` is the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub formula: Option<Formula>,
}

/// One of several policies.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What sentences call it.
    pub name: String,
    /// The policy.
    pub rule: Single,
}

/// What the members remember, in their order.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    members: Vec<MemberMemory>,
}

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberMemory {
    known: SingleMemory,
    /// When it looked last, and how many it wanted.
    looked: Option<(Timestamp, u32)>,
}

impl Policy for Composite {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        setting::inputs("members", self.members.len())?;
        for (index, member) in self.members.iter().enumerate() {
            let key = format!("members[{index}]");
            setting::name(&format!("{key}.name"), &member.name)?;
            member.rule.check(bounds).map_err(|error| SettingError { key: format!("{key}.rule.{}", error.key), ..error })?;
        }
        if let Some(formula) = &self.formula {
            formula.check("formula", self.members.iter().map(|member| member.name.as_str()))?;
        }
        Ok(())
    }

    /// As often as the most impatient member. A member with a period of its own is asked when that is over, and until then what it said stands.
    fn cadence(&self) -> Cadence {
        let cadences = self.members.iter().map(|member| member.rule.cadence());
        cadences.reduce(fastest).unwrap_or(Cadence::EVENTS)
    }

    fn input(&self, index: u16) -> String {
        if self.formula.is_some() && usize::from(index) == self.members.len() {
            return "the formula".to_owned();
        }
        self.members.get(usize::from(index)).map_or_else(|| format!("member {index}"), |member| member.name.clone())
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let mut decision = Decision::draft(observation);
        memory.members.resize_with(self.members.len(), MemberMemory::default);
        let mut best: Option<(usize, Decision)> = None;
        for (index, (member, memory)) in self.members.iter().zip(&mut memory.members).enumerate() {
            let of_member = memory.ask(&member.rule, observation);
            let failure = of_member.failures().next().map(|(_, failure)| failure.clone());
            let answer = match failure.filter(|_| of_member.reason == Reason::Unknown) {
                Some(failure) => Answer::Failed(failure),
                None => Answer::Replicas(of_member.wanted),
            };
            let raw = Some(Value::Integer(of_member.wanted.into()));
            decision.verdicts.push(Verdict { raw, ratio: None, pods: None, answer });
            if let Some(at) = of_member.look_again {
                decision.look_again_at(at);
            }
            // A member that does not know wants what there is: nothing shrinks on the word of the others.
            if best.as_ref().is_none_or(|(_, best)| of_member.wanted > best.wanted) {
                best = Some((index, of_member));
            }
        }
        if let Some(formula) = &self.formula {
            self.calculate(formula, &mut decision);
        } else if let Some((index, best)) = best {
            decision.winner = u16::try_from(index).ok();
            (decision.wanted, decision.reason, decision.limits) = (best.wanted, best.reason, best.limits);
        }
        decision.bound(observation);
        for (member, memory) in self.members.iter().zip(&mut memory.members) {
            if memory.looked.is_some_and(|(at, wanted)| at == observation.at && wanted != decision.wanted) {
                member.rule.overruled(&mut memory.known, observation, decision.wanted);
            }
        }
        decision
    }

    fn overruled(&self, memory: &mut Memory, observation: &Observation, wanted: u32) {
        for (member, memory) in self.members.iter().zip(&mut memory.members) {
            if memory.looked.is_some_and(|(at, _)| at == observation.at) {
                member.rule.overruled(&mut memory.known, observation, wanted);
            }
        }
    }
}

impl Composite {
    /// What its members remember of a pool that begins with no replica, see [`AnyPolicy::begin`](super::AnyPolicy::begin).
    pub(super) fn asleep(&self) -> Memory {
        let known = |member: &Member| match member.rule {
            Single::Hpa(_) => SingleMemory::Hpa(hpa::Memory::asleep()),
            Single::Keda(_)
            | Single::TargetTracking(_)
            | Single::Step(_)
            | Single::Kpa(_)
            | Single::Rate(_)
            | Single::Threshold(_) => SingleMemory::New,
        };
        Memory { members: self.members.iter().map(|member| MemberMemory { known: known(member), looked: None }).collect() }
    }

    /// What the formula makes of what the members want. Where one of those in it knows too little, nothing changes.
    fn calculate(&self, formula: &Formula, decision: &mut Decision) {
        let mut wanted = Vec::with_capacity(formula.names().len());
        for name in formula.names() {
            let index = self.members.iter().position(|member| member.name == *name);
            match index.and_then(|index| decision.verdicts.get(index)).map(|verdict| &verdict.answer) {
                Some(Answer::Replicas(count)) => wanted.push(f64::from(*count)),
                Some(Answer::Failed(_) | Answer::Nothing) | None => {
                    decision.reason = Reason::Unknown;
                    return;
                }
            }
        }
        let Some(value) = formula.value(|index| wanted.get(index).copied().unwrap_or(f64::NAN)) else {
            decision.verdicts.push(Verdict::failed(Failure::NoNumber));
            decision.reason = Reason::Unknown;
            return;
        };
        decision.wanted = replicas(value.get());
        decision.winner = u16::try_from(decision.verdicts.len()).ok();
        let answer = Answer::Replicas(decision.wanted);
        decision.verdicts.push(Verdict { raw: Some(Value::Real(value)), ratio: None, pods: None, answer });
        decision.reason = if decision.is_change() { Reason::Proposed } else { Reason::Content };
    }
}

impl MemberMemory {
    /// What the member wants: anew if it is time for it, and otherwise what it wanted.
    fn ask(&mut self, rule: &Single, observation: &Observation) -> Decision {
        if let (Cadence::Every(period), Some((at, wanted))) = (rule.cadence(), self.looked)
            && observation.at.since(at) < period
        {
            let mut decision = Decision::draft(observation);
            decision.wanted = wanted;
            decision.look_again_at(at.after(period));
            return decision;
        }
        let decision = rule.evaluate(&mut self.known, observation);
        self.looked = Some((observation.at, decision.wanted));
        decision
    }
}

/// The cadence that leaves neither waiting.
fn fastest(one: Cadence, other: Cadence) -> Cadence {
    match (one, other) {
        (Cadence::Every(one), Cadence::Every(other)) => Cadence::Every(one.min(other)),
        (Cadence::OnEvents { up, down, timer }, Cadence::Every(period))
        | (Cadence::Every(period), Cadence::OnEvents { up, down, timer }) => {
            Cadence::OnEvents { up, down, timer: timer.min(period) }
        }
        (Cadence::OnEvents { up, down, timer }, Cadence::OnEvents { up: sooner, down: later, timer: other }) => {
            Cadence::OnEvents { up: up.min(sooner), down: down.min(later), timer: Micros(timer.0.min(other.0)) }
        }
    }
}
