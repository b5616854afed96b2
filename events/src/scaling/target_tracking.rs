//! Target tracking after AWS Application Auto Scaling: a thermostat with two alarms.
//!
//! **A model.** AWS publishes the alarms (3 × 60 s above the target, 15 × 60 s below a lower threshold) and the cooldowns, but neither the lower
//! threshold nor by how much a service shrinks. Where it is silent this policy says what it does and claims no equality. Source: the API model of
//! Application Auto Scaling and its user guide, November 2026; 0.9 is what people observe.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{Answer, By, Decision, LimitKind, Reason, Verdict};
use super::points::{Points, Statistic};
use super::policy::{Cadence, Policy};
use super::real::Real;
use super::setting::{self, SettingError, require};
use super::signal::{Bounds, Observation, Value, replicas};
use crate::time::{Micros, Timestamp};

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetTracking {
    /// Signal: one that halves when the replicas double, such as utilization or backlog for each replica.
    pub signal: String,
    /// What it should be.
    pub target: Real,
    /// What a minute is known by.
    #[serde(default)]
    pub statistic: Statistic,
    /// After growing, only a larger step goes through for so long: 300 s.
    #[serde(default = "cooldown")]
    pub scale_out_cooldown: Micros,
    /// After shrinking, nothing shrinks for so long: 300 s.
    #[serde(default = "cooldown")]
    pub scale_in_cooldown: Micros,
    /// It never shrinks.
    #[serde(default)]
    pub disable_scale_in: bool,
    /// The alarms.
    #[serde(default)]
    pub alarms: Alarms,
}

/// The two alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// The period of a point: 60 s.
    pub period: Micros,
    /// So many points in a row above the target grow it: 3.
    pub high_points: u32,
    /// So many points in a row below the lower threshold shrink it: 15.
    pub low_points: u32,
    /// The lower threshold as a share of the target: 0.9.
    pub low_share: Real,
}

impl Default for Alarms {
    fn default() -> Self {
        Alarms { period: Micros::from_secs(60), high_points: 3, low_points: 15, low_share: Real::constant(0.9) }
    }
}

/// What AWS uses for ECS services.
pub(super) const fn cooldown() -> Micros {
    Micros::from_secs(300)
}

/// What it remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    points: Points,
    grown: Option<Grown>,
    shrunk: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grown {
    at: Timestamp,
    /// What it had before: what was added since is on its way, and the signal does not show it yet.
    from: u32,
}

impl Policy for TargetTracking {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        require(bounds.max >= bounds.min.max(1), "max", bounds.max, "at least 1 and at least the minimum")?;
        setting::name("signal", &self.signal)?;
        setting::positive("target", self.target)?;
        setting::span("scale_out_cooldown", self.scale_out_cooldown, Micros(0), setting::SPAN_MAX)?;
        setting::span("scale_in_cooldown", self.scale_in_cooldown, Micros(0), setting::SPAN_MAX)?;
        setting::span("alarms.period", self.alarms.period, Micros::from_secs(1), Micros::from_secs(3_600))?;
        for (key, points) in [("alarms.high_points", self.alarms.high_points), ("alarms.low_points", self.alarms.low_points)] {
            require((1..=1_440).contains(&points), key, points, "1 to 1440")?;
        }
        let share = self.alarms.low_share;
        require(Real::ZERO < share && share <= Real::ONE, "alarms.low_share", share, "above 0 and at most 1")
    }

    fn cadence(&self) -> Cadence {
        // Often enough that every period has several samples.
        Cadence::Every(Micros((self.alarms.period.0 / 4).max(1)))
    }

    fn input(&self, _: u16) -> String {
        self.signal.clone()
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let mut decision = Decision::draft(observation);
        let (at, current) = (observation.at, observation.replicas.wanted);
        let read = observation.count(&self.signal);
        let kept = self.alarms.high_points.max(self.alarms.low_points) as usize;
        let sample = read.as_ref().ok().map(|(_, number)| *number);
        let has_ended = memory.points.see(at, sample, self.alarms.period, self.statistic, kept);
        if let Err(failure) = read {
            decision.verdicts.push(Verdict::failed(failure));
        }
        if let Some(point) = memory.points.newest().filter(|_| has_ended) {
            self.alarm(memory, at, &mut decision, point);
        }
        if decision.winner.is_none() && decision.failures().next().is_some() {
            decision.reason = Reason::Unknown;
        }
        decision.bound(observation);
        if decision.wanted > current {
            memory.grown = Some(Grown { at, from: current });
            memory.shrunk = None;
        } else if decision.wanted < current {
            memory.shrunk = Some(at);
        }
        decision
    }

    fn overruled(&self, memory: &mut Memory, observation: &Observation, wanted: u32) {
        let (at, from) = (observation.at, observation.replicas.wanted);
        memory.grown = memory.grown.filter(|grown| grown.at != at);
        memory.shrunk = memory.shrunk.filter(|shrunk| *shrunk != at);
        if wanted > from {
            memory.grown = Some(Grown { at, from });
        } else if wanted < from {
            memory.shrunk = Some(at);
        }
    }
}

impl TargetTracking {
    /// What follows from the alarms when a period has ended.
    fn alarm(&self, memory: &Memory, at: Timestamp, decision: &mut Decision, point: Real) {
        let (target, current) = (self.target.get(), decision.from);
        let ratio = point.get() / target;
        let proportional = |count: u32| replicas(f64::from(count) * ratio);
        let low = Real::new(target * self.alarms.low_share.get()).unwrap_or(self.target);
        let is_high = memory.points.all(self.alarms.high_points as usize, |point| point > self.target);
        let is_low = memory.points.all(self.alarms.low_points as usize, |point| point < low);
        let proposal = match (is_high, is_low) {
            (true, _) => Some(proportional(current).max(current)),
            (_, true) => Some(proportional(current).min(current)),
            _ => None,
        };
        let answer = proposal.map_or(Answer::Nothing, Answer::Replicas);
        decision.verdicts.push(Verdict::of(Value::Real(point), ratio, answer));
        let Some(proposal) = proposal else { return };
        decision.winner = u16::try_from(decision.verdicts.len() - 1).ok();
        decision.wanted = proposal;
        decision.reason = if current == 0 { Reason::Asleep } else { Reason::Proposed };
        if is_high {
            let recent = memory.grown.filter(|grown| at.since(grown.at) < self.scale_out_cooldown);
            if let Some(grown) = recent {
                decision.cut(LimitKind::UpCooldown, proportional(grown.from).max(current), By::Decision(grown.at));
            }
        } else if self.disable_scale_in {
            decision.cut(LimitKind::DownDisabled, current, By::Policy);
        } else if let Some(shrunk) = memory.shrunk.filter(|shrunk| at.since(*shrunk) < self.scale_in_cooldown) {
            decision.cut(LimitKind::DownCooldown, current, By::Decision(shrunk));
        }
    }
}
