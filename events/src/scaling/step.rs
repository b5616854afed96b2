//! Step scaling after AWS Application Auto Scaling: an alarm, and steps by how far the metric is beyond it.
//!
//! **A model**, as `target_tracking.rs` is. Source: the API model of Application Auto Scaling and its user guide, November 2026.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{Answer, By, Decision, LimitKind, Reason, Verdict};
use super::points::{Points, Statistic};
use super::policy::{Cadence, Policy};
use super::real::Real;
use super::setting::{self, SettingError, require};
use super::signal::{Bounds, Observation, Value};
use super::target_tracking::cooldown;
use crate::time::{Micros, Timestamp};

/// Settings: one part for each AWS policy, most often one that grows and one that shrinks. Any that wants to grow does; it shrinks where one wants
/// to and none wants to grow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The parts.
    pub parts: Vec<Part>,
}

/// One step scaling policy and its alarm.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The signal.
    pub signal: String,
    /// What a period is known by.
    #[serde(default)]
    pub statistic: Statistic,
    /// On which side of the threshold the alarm is.
    pub side: Side,
    /// The threshold.
    pub threshold: Real,
    /// The period of a point: 60 s.
    #[serde(default = "period")]
    pub period: Micros,
    /// So many points in a row beyond the threshold are an alarm.
    pub points: u32,
    /// What the adjustments of the steps mean.
    pub adjustment: Adjustment,
    /// The steps, from the lowest to the highest; each begins where the one before ends.
    pub steps: Vec<Stair>,
    /// A change in per cent is at least so many replicas.
    #[serde(default)]
    pub min_adjustment: u32,
    /// After a change, only a larger one in the same direction goes through for so long: 300 s.
    #[serde(default = "cooldown")]
    pub cooldown: Micros,
}

/// The side of a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// At the threshold or above; steps contain their lower ends.
    Above,
    /// At the threshold or below; steps contain their upper ends.
    Below,
}

/// What an adjustment means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adjustment {
    /// So many more, or fewer.
    Change,
    /// So many per cent more, or fewer.
    Percent,
    /// So many.
    Exact,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stair {
    /// Its lower end, counted from the threshold; `None` is as low as there is.
    #[serde(default)]
    pub lower: Option<Real>,
    /// Its upper end.
    #[serde(default)]
    pub upper: Option<Real>,
    /// How much.
    pub by: i64,
}

const fn period() -> Micros {
    Micros::from_secs(60)
}

/// What it remembers, for each part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    parts: Vec<PartMemory>,
    grown: Option<(Timestamp, u32)>,
    shrunk: Option<(Timestamp, u32)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PartMemory {
    points: Points,
}

impl Policy for Step {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        require(bounds.max >= bounds.min.max(1), "max", bounds.max, "at least 1 and at least the minimum")?;
        setting::inputs("parts", self.parts.len())?;
        self.parts.iter().enumerate().try_for_each(|(index, part)| part.check(&format!("parts[{index}]")))
    }

    fn cadence(&self) -> Cadence {
        let shortest = self.parts.iter().map(|part| part.period).min().unwrap_or(period());
        Cadence::Every(Micros((shortest.0 / 4).max(1)))
    }

    fn input(&self, index: u16) -> String {
        self.parts.get(usize::from(index)).map_or_else(|| format!("part {index}"), |part| part.signal.clone())
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let mut decision = Decision::draft(observation);
        let (at, current) = (observation.at, observation.replicas.wanted);
        memory.parts.resize_with(self.parts.len(), PartMemory::default);
        for (part, known) in self.parts.iter().zip(&mut memory.parts) {
            decision.verdicts.push(part.verdict(known, observation));
        }
        if let Some((winner, proposal)) = self.winner(&decision, current) {
            decision.winner = Some(winner);
            decision.wanted = proposal;
            decision.reason = if proposal == current { Reason::Content } else { Reason::Proposed };
            let cooldown = self.parts.get(usize::from(winner)).map(|part| part.cooldown).unwrap_or_default();
            memory.cool(at, cooldown, &mut decision);
        } else if decision.failures().next().is_some() {
            decision.reason = Reason::Unknown;
        }
        decision.bound(observation);
        memory.note(at, current, decision.wanted);
        decision
    }

    fn overruled(&self, memory: &mut Memory, observation: &Observation, wanted: u32) {
        memory.grown = memory.grown.filter(|(at, _)| *at != observation.at);
        memory.shrunk = memory.shrunk.filter(|(at, _)| *at != observation.at);
        memory.note(observation.at, observation.replicas.wanted, wanted);
    }
}

impl Step {
    /// The proposal that grows most, or if none grows the one that shrinks least.
    fn winner(&self, decision: &Decision, current: u32) -> Option<(u16, u32)> {
        let (largest, proposal) = decision.largest()?;
        if proposal > current {
            return Some((largest, proposal));
        }
        // Somebody who cannot see must not be shrunk by somebody who can.
        decision.failures().next().is_none().then_some((largest, proposal))
    }
}

impl Memory {
    /// What a cooldown leaves of a proposal: changes of the same direction only as far as they go beyond the one that began it, and no shrinking
    /// after growing.
    fn cool(&self, at: Timestamp, cooldown: Micros, decision: &mut Decision) {
        let recent = |change: Option<(Timestamp, u32)>| change.filter(|(made, _)| at.since(*made) < cooldown);
        let current = decision.from;
        if decision.wanted > current {
            if let Some((made, from)) = recent(self.grown) {
                // What was added already is part of what is asked for now.
                let asked = decision.wanted - current;
                decision.cut(LimitKind::UpCooldown, from.saturating_add(asked).max(current), By::Decision(made));
            }
        } else if decision.wanted < current
            && let Some((made, _)) = recent(self.shrunk).or(recent(self.grown))
        {
            decision.cut(LimitKind::DownCooldown, current, By::Decision(made));
        }
    }

    fn note(&mut self, at: Timestamp, from: u32, to: u32) {
        if to > from {
            (self.grown, self.shrunk) = (Some((at, from)), None);
        } else if to < from {
            self.shrunk = Some((at, from));
        }
    }
}

impl Part {
    fn check(&self, key: &str) -> Result<(), SettingError> {
        setting::name(&format!("{key}.signal"), &self.signal)?;
        setting::span(&format!("{key}.period"), self.period, Micros::from_secs(1), Micros::from_secs(3_600))?;
        require((1..=1_440).contains(&self.points), &format!("{key}.points"), self.points, "1 to 1440")?;
        setting::span(&format!("{key}.cooldown"), self.cooldown, Micros(0), setting::SPAN_MAX)?;
        setting::inputs(&format!("{key}.steps"), self.steps.len())?;
        for (index, stair) in self.steps.iter().enumerate() {
            let key = format!("{key}.steps[{index}]");
            let is_open = stair.lower.is_none() || stair.upper.is_none();
            require(
                is_open || stair.lower < stair.upper,
                &key,
                "a step that ends where it begins or before",
                "lower below upper",
            )?;
            require(stair.by.unsigned_abs() <= 1_000_000, &key, stair.by, "-1000000 to 1000000")?;
            let is_exact = self.adjustment == Adjustment::Exact;
            require(!is_exact || stair.by >= 0, &key, stair.by, "a count of 0 or more")?;
            let Some(next) = self.steps.get(index + 1) else { continue };
            let joins = stair.upper.is_some() && stair.upper == next.lower;
            require(joins, &key, "a step with a gap or an overlap after it", "an upper end that is the next one's lower end")?;
        }
        Ok(())
    }

    fn verdict(&self, known: &mut PartMemory, observation: &Observation) -> Verdict {
        let read = observation.read(&self.signal);
        let sample = read.as_ref().ok().map(|value| value.real());
        let kept = self.points as usize;
        let has_ended = known.points.see(observation.at, sample, self.period, self.statistic, kept);
        let raw = match (read, known.points.newest().filter(|_| has_ended)) {
            (Err(failure), _) => return Verdict::failed(failure),
            (Ok(raw), None) => return Verdict { raw: Some(raw), ratio: None, pods: None, answer: Answer::Nothing },
            (Ok(_), Some(point)) => point,
        };
        let is_beyond = |point: Real| match self.side {
            Side::Above => point >= self.threshold,
            Side::Below => point <= self.threshold,
        };
        let current = observation.replicas.wanted;
        let proposal = known.points.all(kept, is_beyond).then(|| self.adjusted(raw, current)).flatten();
        Verdict::of(Value::Real(raw), raw.get() / self.threshold.get(), proposal.map_or(Answer::Nothing, Answer::Replicas))
    }

    /// What the step of a point asks for.
    fn adjusted(&self, point: Real, current: u32) -> Option<u32> {
        let beyond = Real::new(point.get() - self.threshold.get())?;
        let is_in = |stair: &&Stair| match self.side {
            Side::Above => stair.lower.is_none_or(|lower| lower <= beyond) && stair.upper.is_none_or(|upper| beyond < upper),
            Side::Below => stair.lower.is_none_or(|lower| lower < beyond) && stair.upper.is_none_or(|upper| beyond <= upper),
        };
        let by = self.steps.iter().find(is_in)?.by;
        let change = match self.adjustment {
            Adjustment::Exact => return Some(u32::try_from(by.max(0)).unwrap_or(u32::MAX)),
            Adjustment::Change => by,
            Adjustment::Percent => self.percent(by, current),
        };
        Some(u32::try_from(i64::from(current).saturating_add(change).max(0)).unwrap_or(u32::MAX))
    }

    /// So many per cent in replicas: above 1 cut down, below −1 cut towards 0, between 0 and 1 one, between 0 and −1 one less.
    fn percent(&self, by: i64, current: u32) -> i64 {
        let hundredths = i64::from(current).saturating_mul(by);
        let whole = hundredths / 100;
        let change = if whole == 0 { hundredths.signum() } else { whole };
        let least = i64::from(self.min_adjustment);
        if change != 0 && change.abs() < least { change.signum() * least } else { change }
    }
}
