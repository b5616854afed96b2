//! `scalingModifiers`: one number made of all triggers, by which the pool is woken and sized.

use super::settings::{Fallback, Modifiers, Trigger};
use crate::scaling::decision::{Answer, Failure, Verdict};
use crate::scaling::hpa::{self, Rulebook};
use crate::scaling::real::Real;
use crate::scaling::signal::{Observation, Value};

/// What sentences call the number; its verdict stands behind those of the triggers.
pub(super) const INPUT: &str = "the formula";

impl Modifiers {
    /// The number. A trigger below zero counts as 0, as KEDA has it; one that cannot be read is no 0, and neither is a result that is no number.
    pub(super) fn value(&self, triggers: &[Trigger], observation: &Observation) -> Result<Real, Failure> {
        let mut values = Vec::with_capacity(self.formula.names().len());
        for name in self.formula.names() {
            let trigger = triggers.iter().find(|trigger| trigger.name() == name).ok_or(Failure::Missing)?;
            values.push(observation.read(&trigger.signal)?.real().max(0.0));
        }
        self.formula.value(|index| values.get(index).copied().unwrap_or(f64::NAN)).ok_or(Failure::NoNumber)
    }

    /// What each trigger says, which proposes nothing by itself, and what the formula proposes; in place of one that failed too often, the number
    /// that makes the HPA propose the fallback.
    pub(super) fn verdicts(
        &self,
        rules: &Rulebook<'_>,
        triggers: &[Trigger],
        fallback: Option<Fallback>,
        observation: &Observation,
    ) -> Vec<Verdict> {
        let of_trigger = |trigger: &Trigger| match (observation.read(&trigger.signal), fallback) {
            (Ok(value), _) => Verdict { raw: Some(value), ratio: None, pods: None, answer: Answer::Nothing },
            (Err(failure), None) => Verdict::failed(failure),
            // What stands in for it is not to be held up by it.
            (Err(_), Some(_)) => Verdict { raw: None, ratio: None, pods: None, answer: Answer::Nothing },
        };
        let milli = match (self.value(triggers, observation), fallback) {
            (_, Some(fallback)) => Ok(fallback.milli(self.target, observation)),
            (Ok(value), None) => Ok(Value::Real(value).milli().max(0)),
            (Err(failure), None) => Err(failure),
        };
        let composed = milli.and_then(|milli| hpa::outside(rules, self.target, milli, observation));
        triggers.iter().map(of_trigger).chain([composed.unwrap_or_else(Verdict::failed)]).collect()
    }
}
