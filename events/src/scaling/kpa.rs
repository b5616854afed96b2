//! Knative's pod autoscaler: the average of a long window, and that of a short one in panic.
//!
//! Source: the autoscaler of Knative Serving, mid-2026: `pkg/autoscaler/scaling` and the defaults of `config-autoscaler`.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{Answer, By, Decision, LimitKind, Reason, Verdict};
use super::policy::{Cadence, Policy};
use super::real::Real;
use super::setting::{self, SettingError, require};
use super::signal::{Bounds, Observation, Value, names, replicas};
use crate::time::{Micros, Timestamp};

/// Settings, with Knative's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kpa {
    /// Signal: what is to be done now, ready and running.
    pub signal: String,
    /// How much of it one replica can do at once; `None` is its slots.
    pub concurrency: Option<Real>,
    /// Which share of that a replica should have: 0.7.
    pub target_utilization: Real,
    /// The long window: 60 s.
    pub stable_window: Micros,
    /// The short window, as a share of the long one: 0.1.
    pub panic_window: Real,
    /// Panic begins where the short window asks for so many times the ready replicas: 2.
    pub panic_threshold: Real,
    /// At most so many times the ready replicas in one look: 1000.
    pub scale_up_rate: Real,
    /// At least the ready replicas by so much in one look: 2.
    pub scale_down_rate: Real,
    /// For how long the highest proposal holds: 0 s.
    pub scale_down_delay: Micros,
    /// For how long nothing has to be asked for before the last replica goes: 30 s.
    pub scale_to_zero_grace: Micros,
    /// Time from one look to the next: 2 s.
    pub tick: Micros,
}

impl Default for Kpa {
    fn default() -> Self {
        Kpa {
            signal: names::WORK.to_owned(),
            concurrency: None,
            target_utilization: Real::constant(0.7),
            stable_window: Micros::from_secs(60),
            panic_window: Real::constant(0.1),
            panic_threshold: Real::constant(2.0),
            scale_up_rate: Real::constant(1_000.0),
            scale_down_rate: Real::constant(2.0),
            scale_down_delay: Micros(0),
            scale_to_zero_grace: Micros::from_secs(30),
            tick: Micros::from_secs(2),
        }
    }
}

/// What it remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What was seen within the long window, oldest first.
    samples: VecDeque<(Timestamp, Real)>,
    /// Since when it panics, or has had reason to last.
    panic: Option<Timestamp>,
    /// The most that it wanted in this panic.
    panic_most: u32,
    /// What it wanted within the delay, oldest first.
    wanted: VecDeque<(Timestamp, u32)>,
    /// Since when nothing is asked for.
    idle: Option<Timestamp>,
}

/// Most samples of a window: at Knative's two seconds they are enough for four hours.
const SAMPLES_MAX: usize = 8_192;

impl Policy for Kpa {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        require(bounds.max >= bounds.min.max(1), "max", bounds.max, "at least 1 and at least the minimum")?;
        setting::name("signal", &self.signal)?;
        setting::positive("concurrency", self.concurrency.unwrap_or(Real::ONE))?;
        let is_share = |share: Real| Real::ZERO < share && share <= Real::ONE;
        require(is_share(self.target_utilization), "target_utilization", self.target_utilization, "above 0 and at most 1")?;
        require(is_share(self.panic_window), "panic_window", self.panic_window, "above 0 and at most 1")?;
        require(self.panic_threshold > Real::ONE, "panic_threshold", self.panic_threshold, "above 1")?;
        require(self.scale_up_rate > Real::ONE, "scale_up_rate", self.scale_up_rate, "above 1")?;
        require(self.scale_down_rate > Real::ONE, "scale_down_rate", self.scale_down_rate, "above 1")?;
        setting::span("tick", self.tick, Micros::from_millis(100), Micros::from_secs(3_600))?;
        setting::span("stable_window", self.stable_window, self.tick, Micros::from_secs(3_600))?;
        setting::span("scale_down_delay", self.scale_down_delay, Micros(0), Micros::from_secs(3_600))?;
        setting::span("scale_to_zero_grace", self.scale_to_zero_grace, Micros(0), setting::SPAN_MAX)
    }

    fn cadence(&self) -> Cadence {
        Cadence::Every(self.tick)
    }

    fn input(&self, index: u16) -> String {
        let window = if index == 0 { "stable" } else { "panic" };
        format!("{} on average over the {window} window", self.signal)
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let mut decision = Decision::draft(observation);
        let at = observation.at;
        let sample = match observation.count(&self.signal) {
            Ok((_, number)) => Real::new(number).unwrap_or(Real::ZERO),
            Err(failure) => {
                decision.verdicts.push(Verdict::failed(failure));
                decision.reason = Reason::Unknown;
                decision.bound(observation);
                return decision;
            }
        };
        memory.see(at, sample, self.stable_window);
        let ready = f64::from(observation.replicas.ready.max(1));
        let concurrency = self.concurrency.map_or_else(|| f64::from(observation.replicas.slots.max(1)), Real::get);
        let target = concurrency * self.target_utilization.get();
        let short = Micros((self.stable_window.0 as f64 * self.panic_window.get()) as u64);
        let most = replicas(self.scale_up_rate.get() * ready);
        let least = (ready / self.scale_down_rate.get()) as u32;
        let asks: [u32; 2] = [self.stable_window, short].map(|window| {
            let average = memory.average(at, window);
            let asked = replicas(average / target).max(least).min(most);
            let raw = Value::Real(Real::new(average).unwrap_or(Real::ZERO));
            decision.verdicts.push(Verdict::of(raw, average / target / ready, Answer::Replicas(asked)));
            asked
        });
        let panics = f64::from(replicas(memory.average(at, short) / target)) / ready >= self.panic_threshold.get();
        self.settle(memory, observation, &mut decision, asks, panics);
        decision.bound(observation);
        if !decision.is_change() && decision.reason == Reason::Proposed {
            decision.reason = Reason::Content;
        }
        decision
    }

    /// It counts what it wanted, not what was done.
    fn overruled(&self, _: &mut Memory, _: &Observation, _: u32) {}
}

impl Kpa {
    /// Chooses between the windows, and holds what must not go yet.
    fn settle(&self, memory: &mut Memory, observation: &Observation, decision: &mut Decision, asks: [u32; 2], panics: bool) {
        let (at, [stable, short]) = (observation.at, asks);
        if panics {
            memory.panic = Some(at);
        } else if memory.panic.is_some_and(|since| at.since(since) > self.stable_window) {
            memory.panic = None;
            memory.panic_most = 0;
        }
        let is_short = memory.panic.is_some() && short > stable;
        decision.winner = Some(u16::from(is_short));
        decision.reason = Reason::Proposed;
        decision.wanted = if is_short { short } else { stable };
        if let Some(since) = memory.panic {
            decision.reason = Reason::Panic;
            memory.panic_most = memory.panic_most.max(decision.wanted).max(observation.bounds.nearest(decision.from));
            decision.cut(LimitKind::Panic, memory.panic_most, By::Decision(since));
        }
        self.delay(memory, at, decision);
        memory.idle = if decision.wanted == 0 { Some(memory.idle.unwrap_or(at)) } else { None };
        if let Some(since) = memory.idle.filter(|since| decision.from > 0 && at.since(*since) < self.scale_to_zero_grace) {
            decision.reason = Reason::CoolingDown;
            decision.cut(LimitKind::DownCooldown, 1, By::Decision(since));
            decision.look_again_at(since.after(self.scale_to_zero_grace));
        }
    }

    /// Keeps the highest proposal of the delay.
    fn delay(&self, memory: &mut Memory, at: Timestamp, decision: &mut Decision) {
        if self.scale_down_delay == Micros(0) {
            memory.wanted.clear();
            return;
        }
        while memory.wanted.back().is_some_and(|(_, wanted)| *wanted <= decision.wanted) {
            memory.wanted.pop_back();
        }
        while memory.wanted.front().is_some_and(|(made, _)| at.since(*made) >= self.scale_down_delay) {
            memory.wanted.pop_front();
        }
        memory.wanted.push_back((at, decision.wanted));
        if let Some((made, wanted)) = memory.wanted.front() {
            decision.cut(LimitKind::DownWindow, *wanted, By::Decision(*made));
        }
    }
}

impl Memory {
    fn see(&mut self, at: Timestamp, sample: Real, window: Micros) {
        let is_old = |(seen, _): &(Timestamp, Real)| at.since(*seen) >= window;
        while self.samples.front().is_some_and(is_old) || self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((at, sample));
    }

    /// The average of the samples that are younger than a window; the one just seen always is.
    fn average(&self, at: Timestamp, window: Micros) -> f64 {
        let mut count = 0.0;
        let mut average = 0.0;
        // A running average does not overflow where a sum does.
        for (_, sample) in self.samples.iter().rev().take_while(|(seen, _)| *seen == at || at.since(*seen) < window) {
            count += 1.0;
            average += (sample.get() - average) / count;
        }
        average
    }
}
