//! KEDA's ScaledObject: its own loop wakes a pool and puts it to sleep, and an HPA does what is in between.
//!
//! Source: KEDA 2.20 and its main branch of August 2026.

mod modifiers;
mod settings;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{By, Decision, LimitKind, Reason, Verdict};
use super::hpa::{self, ConditionReason, Rulebook, Target};
use super::policy::{Cadence, Policy};
use super::setting::SettingError;
use super::signal::{Bounds, Observation};
use crate::time::{Micros, Timestamp};

pub use settings::{Fallback, FallbackBehavior, Keda, Modifiers, Pause, Trigger};

/// What it remembers.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// When it looked for the first time.
    created: Option<Timestamp>,
    /// When it polled last.
    polled: Option<Timestamp>,
    /// When its HPA looked last.
    synced: Option<Timestamp>,
    /// When a trigger was active last.
    active: Option<Timestamp>,
    /// Failures in a row of each trigger.
    failures: Vec<u32>,
    hpa: hpa::Memory,
}

impl Policy for Keda {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        settings::check(self, bounds)?;
        self.rulebook(bounds).check()
    }

    fn cadence(&self) -> Cadence {
        let timer = self.polling.min(self.controller.sync_period);
        match (self.follows_events, Cadence::EVENTS) {
            (true, Cadence::OnEvents { up, down, .. }) => Cadence::OnEvents { up, down, timer },
            (true | false, Cadence::Every(_) | Cadence::OnEvents { .. }) => Cadence::Every(timer),
        }
    }

    fn input(&self, index: u16) -> String {
        let trigger = self.triggers.get(usize::from(index));
        if self.scaling_modifiers.is_some() && usize::from(index) == self.triggers.len() {
            return modifiers::INPUT.to_owned();
        }
        trigger.map_or_else(|| format!("trigger {index}"), |trigger| trigger.signal.clone())
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let at = observation.at;
        memory.created.get_or_insert(at);
        let is_due = |last: Option<Timestamp>, period| last.is_none_or(|last| at.since(last) >= period);
        if let Some(paused) = self.paused(observation) {
            return paused;
        }
        let mut decision = None;
        if self.follows_events || is_due(memory.polled, self.polling) {
            memory.polled = Some(at);
            decision = self.poll(memory, observation);
        }
        let current = observation.replicas.wanted;
        let has_changed = decision.as_ref().is_some_and(|decision: &Decision| decision.is_change());
        // An HPA that looked at a pool asleep would lift it to its minimum, which is why KEDA itself knows no other idle count than 0.
        let is_asleep =
            current == 0 || self.idle_replicas.is_some_and(|idle| current <= idle && current < observation.bounds.min);
        if !has_changed && !is_asleep && is_due(memory.synced, self.controller.sync_period) {
            memory.synced = Some(at);
            let cooling = decision.take();
            let mut synced = self.sync(memory, observation);
            // Between its activity and its sleep the HPA goes on, with what little there is to do.
            if let Some(cooling) = cooling {
                synced.look_again = cooling.look_again;
                if !synced.is_change() && synced.reason != Reason::Unknown {
                    synced.reason = cooling.reason;
                }
            }
            decision = Some(synced);
        }
        let mut decision = decision.unwrap_or_else(|| Decision::draft(observation));
        self.held(observation, &mut decision);
        decision
    }

    fn overruled(&self, memory: &mut Memory, observation: &Observation, wanted: u32) {
        hpa::overruled(&self.rulebook(observation.bounds), &mut memory.hpa, observation, wanted);
    }
}

impl Keda {
    /// The rules of its HPA: never below 1, for sleeping is KEDA's own business.
    fn rulebook(&self, bounds: Bounds) -> Rulebook<'_> {
        let bounds = Bounds { min: bounds.min.max(1), max: bounds.max };
        let (behavior, controller) = (self.behavior.as_ref(), &self.controller);
        Rulebook { behavior, controller, memory: self.memory, bounds, looks_outside: true }
    }

    /// Somebody holds the count.
    fn paused(&self, observation: &Observation) -> Option<Decision> {
        let mut decision = Decision::draft(observation);
        decision.reason = Reason::Paused;
        match self.pause {
            Pause::Paused => {}
            Pause::At(replicas) => decision.cut(LimitKind::Pause, replicas.min(observation.bounds.max), By::Policy),
            Pause::Running | Pause::ScaleIn | Pause::ScaleOut => return None,
        }
        Some(decision)
    }

    /// Somebody holds one direction.
    fn held(&self, observation: &Observation, decision: &mut Decision) {
        let current = observation.replicas.wanted;
        let is_held = match self.pause {
            Pause::ScaleIn => decision.wanted < current,
            Pause::ScaleOut => decision.wanted > current,
            Pause::Running | Pause::Paused | Pause::At(_) => false,
        };
        if is_held {
            decision.cut(LimitKind::Pause, current, By::Policy);
        }
    }

    /// KEDA's own look: whether there is anything to do at all. `None` leaves everything to the HPA.
    fn poll(&self, memory: &mut Memory, observation: &Observation) -> Option<Decision> {
        let (at, current, bounds) = (observation.at, observation.replicas.wanted, observation.bounds);
        memory.failures.resize(self.triggers.len(), 0);
        let (mut active, mut has_failed) = (None, false);
        for ((index, trigger), failures) in (0..).zip(&self.triggers).zip(&mut memory.failures) {
            match observation.read(&trigger.signal) {
                Ok(value) => {
                    *failures = 0;
                    let is_active = value.real().max(0.0) > trigger.activation.get();
                    if active.is_none() && self.scaling_modifiers.is_none() && is_active {
                        active = Some(index);
                    }
                }
                Err(_) => {
                    *failures = failures.saturating_add(1);
                    has_failed = true;
                }
            }
        }
        if let Some(modifiers) = &self.scaling_modifiers {
            match modifiers.value(&self.triggers, observation) {
                Ok(value) if value > modifiers.activation => active = u16::try_from(self.triggers.len()).ok(),
                Ok(_) => {}
                Err(_) => has_failed = true,
            }
        }
        let mut decision = Decision::draft(observation);
        if active.is_some() || self.force_activation {
            if current == 0 || (self.idle_replicas.is_some() && current < bounds.min) {
                decision.verdicts = self.verdicts(observation);
                (decision.winner, decision.reason) = (active, Reason::Woken);
                decision.wanted = bounds.min.max(1);
                decision.bound(observation);
                memory.active = Some(at);
                return Some(decision);
            }
            if !has_failed {
                memory.active = Some(at);
            }
            return None;
        }
        if has_failed && self.fallback.is_none_or(|fallback| fallback.replicas != 0) {
            decision.verdicts = self.verdicts(observation);
            decision.reason = Reason::Unknown;
            return (current == 0).then_some(decision);
        }
        self.sleep(memory, observation, decision)
    }

    /// Nothing is active.
    fn sleep(&self, memory: &Memory, observation: &Observation, mut decision: Decision) -> Option<Decision> {
        let (at, current, bounds) = (observation.at, observation.replicas.wanted, observation.bounds);
        let to = self.idle_replicas.unwrap_or(bounds.min);
        let may_sleep = self.idle_replicas.is_some_and(|idle| current > idle) || (current > 0 && bounds.min == 0);
        if may_sleep {
            let (since, wait) = match memory.active {
                Some(active) => (active, self.cooldown),
                None => (memory.created.unwrap_or(at), self.initial_cooldown),
            };
            decision.verdicts = self.verdicts(observation);
            if at.since(since) > wait {
                decision.reason = Reason::Idle;
                decision.wanted = to;
            } else {
                decision.reason = Reason::CoolingDown;
                decision.look_again_at(since.after(wait).after(Micros(1)));
            }
            return Some(decision);
        }
        if self.idle_replicas.is_none() && current < bounds.min {
            decision.reason = Reason::OutOfBounds;
            decision.cut(LimitKind::Min, bounds.min, By::Pool);
            return Some(decision);
        }
        None
    }

    /// What each trigger says, without its proposal.
    fn verdicts(&self, observation: &Observation) -> Vec<Verdict> {
        let rules = self.rulebook(observation.bounds);
        if let Some(modifiers) = &self.scaling_modifiers {
            return modifiers.verdicts(&rules, &self.triggers, None, observation);
        }
        self.triggers.iter().map(|trigger| self.verdict(&rules, trigger, None, observation)).collect()
    }

    /// A look of the HPA.
    fn sync(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let rules = self.rulebook(observation.bounds);
        let failures = &memory.failures;
        let mut is_fallback = false;
        let failure = |_| Some(ConditionReason::FailedGetExternalMetric);
        let mut decision = hpa::run(&rules, &mut memory.hpa, observation, failure, |rules| {
            if let Some(modifiers) = &self.scaling_modifiers {
                let failed = failures.iter().copied().max().unwrap_or(0);
                let fallback = self.fallback.filter(|fallback| failed > fallback.failures);
                is_fallback = fallback.is_some();
                return modifiers.verdicts(rules, &self.triggers, fallback, observation);
            }
            let verdict = |(index, trigger): (usize, &Trigger)| {
                let failed = failures.get(index).copied().unwrap_or(0);
                let fallback = self.fallback.filter(|fallback| failed > fallback.failures);
                is_fallback |= fallback.is_some();
                self.verdict(rules, trigger, fallback, observation)
            };
            self.triggers.iter().enumerate().map(verdict).collect()
        });
        if is_fallback && matches!(decision.reason, Reason::Proposed | Reason::Content) {
            decision.reason = Reason::Fallback;
        }
        decision
    }

    /// What a trigger proposes; in place of one that failed too often, the number that makes the HPA propose the fallback.
    fn verdict(&self, rules: &Rulebook<'_>, trigger: &Trigger, fallback: Option<Fallback>, observation: &Observation) -> Verdict {
        let milli = match (observation.read(&trigger.signal), fallback) {
            (Ok(value), _) => value.milli().max(0),
            (Err(failure), None) => return Verdict::failed(failure),
            (Err(_), Some(fallback)) => fallback.milli(trigger.target, observation),
        };
        hpa::outside(rules, trigger.target, milli, observation).unwrap_or_else(Verdict::failed)
    }
}

impl Fallback {
    /// The number that makes an HPA with this target propose the fallback, in thousandths.
    fn milli(self, target: Target, observation: &Observation) -> i64 {
        let replicas = self.replicas(observation.replicas.wanted);
        let (target, by) = match target {
            Target::ValueMilli(target) => (target, i64::from(observation.replicas.ready.max(1))),
            Target::AverageValueMilli(target) => (target, 1),
            Target::Utilization(percent) => (i64::from(percent), 1),
        };
        target.saturating_mul(i64::from(replicas)) / by
    }
}
