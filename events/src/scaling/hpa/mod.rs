//! Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`: the same count, sentence and conditions as its controller, to the last bit.
//!
//! Source: the controller as described in its enhancement proposals (KEP 853 behavior, 4951 tolerance, 2021 scale to zero) and observed by
//! scenario files (`cases`), which any build can be held against with `ergate policy conformance`.

pub mod cases;
mod check;
mod memory;
mod metric;
mod normalize;
mod pods;
mod rulebook;
mod settings;
mod words;

pub use memory::{Change, Memory, Recommendation};
pub(super) use metric::outside;
pub(super) use rulebook::Rulebook;
pub use settings::{Behavior, Controller, Hpa, Memories, Metric, Pace, PaceKind, Rules, Select, Source, Target, ToleranceForm};
pub use words::{Condition, ConditionReason, Conditions, Detail};

use super::decision::{Answer, By, Decision, LimitKind, Reason, Verdict};
use super::policy::{Cadence, Policy};
use super::setting::SettingError;
use super::signal::{Bounds, Observation};

impl Policy for Hpa {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        check::check(self, bounds)
    }

    fn cadence(&self) -> Cadence {
        Cadence::Every(self.controller.sync_period)
    }

    fn input(&self, index: u16) -> String {
        self.metrics.get(usize::from(index)).map_or_else(|| format!("metric {index}"), Metric::text)
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let rules = self.rulebook(observation.bounds);
        let failure = |index: usize| self.metrics.get(index).map(|metric| metric.source.failure());
        run(&rules, memory, observation, failure, |rules| {
            self.metrics.iter().map(|metric| metric::verdict(rules, metric, observation)).collect()
        })
    }

    fn overruled(&self, memory: &mut Memory, observation: &Observation, wanted: u32) {
        overruled(&self.rulebook(observation.bounds), memory, observation, wanted);
    }
}

/// One look of the controller: `verdicts` asks the metrics, and `failure` names the reason when one of them fails.
pub(super) fn run(
    rules: &Rulebook<'_>,
    memory: &mut Memory,
    observation: &Observation,
    failure: impl Fn(usize) -> Option<ConditionReason>,
    verdicts: impl FnOnce(&Rulebook<'_>) -> Vec<Verdict>,
) -> Decision {
    let (current, bounds) = (observation.replicas.wanted, rules.bounds);
    memory.begin(rules.memory, observation.at, current);
    memory.conditions.able_to_scale = Condition::yes(ConditionReason::SucceededGetScale);
    let mut decision = Decision::draft(observation);
    let was_scaled_to_zero = rules.controller.scale_to_zero && memory.conditions.is_scaled_to_zero();
    if current == 0 && !(was_scaled_to_zero && (bounds.min != 0 || rules.looks_outside)) {
        memory.conditions.scaling_active = Condition::no(ConditionReason::ScalingDisabled);
        decision.reason = Reason::Asleep;
        return decision;
    }
    if current > bounds.max || (current != 0 && current < bounds.min) {
        decision.reason = Reason::OutOfBounds;
        let (kind, to) = if current > bounds.max { (LimitKind::Max, bounds.max) } else { (LimitKind::Min, bounds.min) };
        decision.cut(kind, to, By::Pool);
    } else {
        decision.verdicts = verdicts(rules);
        if !choose(memory, current, &mut decision, failure) {
            return decision;
        }
        normalize::normalize(rules, memory, observation, &mut decision);
        if current == 0 && bounds.min != 0 && decision.wanted < bounds.min {
            decision.cut(LimitKind::Min, bounds.min, By::Pool);
        }
    }
    if decision.is_change() {
        rescaled(rules, memory, observation, decision.wanted);
    }
    decision
}

/// Takes the largest proposal; false where too many metrics failed to change anything.
fn choose(
    memory: &mut Memory,
    current: u32,
    decision: &mut Decision,
    failure: impl Fn(usize) -> Option<ConditionReason>,
) -> bool {
    let mut kept: Option<(usize, u32)> = None;
    for (index, verdict) in decision.verdicts.iter().enumerate() {
        let Answer::Replicas(count) = verdict.answer else { continue };
        // Of equals the first keeps its place, and a zero gives its place away.
        if kept.is_none_or(|(_, most)| most == 0 || count > most) {
            kept = Some((index, count));
        }
    }
    let failed = decision.failures().next().map(|(index, failure)| (index, failure.to_string()));
    // What shrinks a pool must be known in full; what grows it may be known in part.
    let Some((index, proposal)) = kept.filter(|(_, count)| failed.is_none() || *count >= current) else {
        memory.conditions.scaling_active = failed
            .and_then(|(index, text)| Some(Condition { is_true: false, reason: failure(index)?, detail: Detail::Failed(text) }));
        decision.reason = Reason::Unknown;
        return false;
    };
    let index = u16::try_from(index).unwrap_or(u16::MAX);
    let detail = Detail::Metric(index);
    memory.conditions.scaling_active = Some(Condition { is_true: true, reason: ConditionReason::ValidMetricFound, detail });
    decision.winner = Some(index);
    decision.wanted = proposal;
    decision.reason = if proposal == current { Reason::Content } else { Reason::Proposed };
    true
}

/// Notes that the count changes.
fn rescaled(rules: &Rulebook<'_>, memory: &mut Memory, observation: &Observation, wanted: u32) {
    let current = observation.replicas.wanted;
    let detail = Detail::Replicas(wanted);
    memory.conditions.able_to_scale = Some(Condition { is_true: true, reason: ConditionReason::SucceededRescale, detail });
    // Without the feature nobody touches the condition.
    if rules.controller.scale_to_zero {
        let is_asleep = current > 0 && wanted == 0 && rules.bounds.min == 0 && rules.looks_outside;
        memory.conditions.scaled_to_zero = if is_asleep {
            Condition::yes(ConditionReason::ScaledToZero)
        } else {
            Condition::no(ConditionReason::NotScaledToZero)
        };
    }
    memory.changed(rules, observation.at, current, wanted);
}

/// Takes back the change that the last look decided and notes the one that was made instead.
pub(super) fn overruled(rules: &Rulebook<'_>, memory: &mut Memory, observation: &Observation, wanted: u32) {
    for changes in [&mut memory.up, &mut memory.down] {
        changes.retain(|change| change.at != observation.at);
    }
    if wanted != observation.replicas.wanted {
        rescaled(rules, memory, observation, wanted);
    }
}
