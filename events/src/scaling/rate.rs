//! As many replicas as arrivals and backlog need, kept as long as starting one takes.
//!
//! What is kept for chance grows with the square root of the load: square-root staffing (Halfin and Whitt, 1981; Borst, Mandelbaum and Reiman,
//! "Dimensioning large call centers", 2004). A share of the load, as a target utilization keeps, is too much for large pools and too little for
//! small ones.
//!
//! Source of the count: true rates as in DS2 (Kalavri et al., OSDI 2018) and the catch-up term of Flink's autoscaler. Source of the keeping:
//! whoever keeps an idle machine exactly as long as a start would cost pays at most twice what is possible, level by level (ski rental; Lin,
//! Wierman, Andrew and Thereska, "Dynamic right-sizing for power-proportional data centers", 2011).

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::decision::{Answer, By, Decision, Failure, LimitKind, Reason, Verdict};
use super::policy::{Cadence, Policy};
use super::real::Real;
use super::setting::{self, SettingError, require};
use super::signal::{Bounds, Observation, Value, names, replicas};
use crate::time::{Micros, Timestamp};

/// Settings: `n = ceil((load + max(reserve × √load, late)) / (target_utilization × slots))`, where the load is `arrivals × service`, and late is what
/// works off the backlog in time: `backlog × min(1, service / catch_up)`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rate {
    /// Signal: tasks that arrive, a second.
    pub arrivals: String,
    /// Signal: tasks that wait.
    pub backlog: String,
    /// Signal: tasks that run. As long as any does, the pool does not sleep, and until one has ended each counts as a busy slot.
    pub running: String,
    /// Signal: how long a task takes, in seconds.
    pub service: String,
    /// Signal: how long a replica takes to start, in seconds.
    pub start: String,
    /// In what time the backlog should be gone.
    pub catch_up: Micros,
    /// Which share of the time slots should be busy: above 0, at most 1.
    pub target_utilization: Real,
    /// How much more than the load itself is kept for chance: so many times the square root of the busy slots. It is there to work off the
    /// backlog as well, and only what it cannot do in time is added for that: 0, at most 10.
    pub reserve: Real,
    /// For how long an idle replica is kept; `None` is the measured time of a start.
    pub keep_alive: Option<Micros>,
    /// For how long while no start has been measured.
    pub keep_alive_unmeasured: Micros,
}

impl Default for Rate {
    fn default() -> Self {
        Rate {
            arrivals: names::ARRIVALS.to_owned(),
            backlog: names::READY.to_owned(),
            running: names::RUNNING.to_owned(),
            service: names::SERVICE.to_owned(),
            start: names::START.to_owned(),
            // Half a minute is what people wait without asking.
            catch_up: Micros::from_secs(30),
            // What Flink and Knative leave as room.
            target_utilization: Real::constant(0.7),
            reserve: Real::ZERO,
            keep_alive: None,
            keep_alive_unmeasured: Micros::from_secs(60),
        }
    }
}

/// What it remembers: how many replicas were needed until when, the largest first; each later one is smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    needs: VecDeque<Need>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Need {
    until: Timestamp,
    replicas: u32,
}

impl Policy for Rate {
    type Memory = Memory;

    fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
        require(bounds.max >= bounds.min.max(1), "max", bounds.max, "at least 1 and at least the minimum")?;
        for (key, name) in [
            ("arrivals", &self.arrivals),
            ("backlog", &self.backlog),
            ("running", &self.running),
            ("service", &self.service),
            ("start", &self.start),
        ] {
            setting::name(key, name)?;
        }
        setting::span("catch_up", self.catch_up, Micros::from_millis(1), setting::SPAN_MAX)?;
        let utilization = self.target_utilization;
        let is_share = Real::ZERO < utilization && utilization <= Real::ONE;
        require(is_share, "target_utilization", utilization, "above 0 and at most 1")?;
        let (reserve, most) = (self.reserve, Real::constant(10.0));
        require(Real::ZERO <= reserve && reserve <= most, "reserve", reserve, "0 to 10")?;
        setting::span("keep_alive", self.keep_alive.unwrap_or_default(), Micros(0), setting::SPAN_MAX)?;
        setting::span("keep_alive_unmeasured", self.keep_alive_unmeasured, Micros(0), setting::SPAN_MAX)
    }

    fn cadence(&self) -> Cadence {
        Cadence::EVENTS
    }

    fn input(&self, index: u16) -> String {
        match index {
            0 => "the number of busy slots".to_owned(),
            1 => self.backlog.clone(),
            2 => self.arrivals.clone(),
            3 => self.service.clone(),
            _ => self.start.clone(),
        }
    }

    fn evaluate(&self, memory: &mut Memory, observation: &Observation) -> Decision {
        let mut decision = Decision::draft(observation);
        let current = observation.replicas.wanted;
        let [backlog, arrivals, service, start] =
            [&self.backlog, &self.arrivals, &self.service, &self.start].map(|name| observation.count(name));
        let keep_alive = self.keep_alive.unwrap_or_else(|| start.as_ref().map_or(self.keep_alive_unmeasured, |(_, s)| span(*s)));
        let need = match (&backlog, &arrivals) {
            (Ok((_, backlog)), Ok((_, arrivals))) => {
                self.need(observation, *backlog, *arrivals, service.as_ref().ok().map(|it| it.1))
            }
            _ => None,
        };
        let verdict = |read: Result<(Value, f64), Failure>| match read {
            Ok((raw, _)) => Verdict { raw: Some(raw), ratio: None, pods: None, answer: Answer::Nothing },
            Err(failure) => Verdict::failed(failure),
        };
        decision.verdicts.reserve_exact(5);
        decision.verdicts.push(need.as_ref().map_or(Verdict::failed(Failure::NoNumber), |(verdict, _)| verdict.clone()));
        decision.verdicts.extend([backlog, arrivals, service, start].map(verdict));
        let Some((_, need)) = need else {
            decision.reason = Reason::Unknown;
            decision.bound(observation);
            return decision;
        };
        decision.winner = Some(0);
        decision.wanted = need;
        decision.reason = if current == 0 && need > 0 { Reason::Woken } else { Reason::Proposed };
        decision.bound(observation);
        let held = memory.hold(observation.at, decision.wanted, keep_alive);
        // What is idle is kept within the bounds, which may be others than when it came.
        let kept = held.replicas.min(current).min(observation.bounds.max);
        if kept > decision.wanted {
            let until = held.until.after(keep_alive);
            decision.cut(LimitKind::KeepAlive, kept, By::Decision(held.until));
            decision.look_again_at(until);
        }
        if !decision.is_change() {
            decision.reason = Reason::Content;
        }
        decision
    }

    /// It counts needs, not changes.
    fn overruled(&self, _: &mut Memory, _: &Observation, _: u32) {}
}

impl Rate {
    /// The names of the signals that it reads.
    pub fn signals(&self) -> [&str; 5] {
        [&self.backlog, &self.running, &self.arrivals, &self.service, &self.start]
    }

    /// How many replicas the load needs; `service` is unknown until something has finished. `None` where the load is no number.
    fn need(&self, observation: &Observation, backlog: f64, arrivals: f64, service: Option<f64>) -> Option<(Verdict, u32)> {
        // Whoever cannot read it knows what runs where the pool is, if at all.
        let running = observation.count(&self.running).map_or(f64::from(observation.replicas.running), |(_, running)| running);
        let slots = f64::from(observation.replicas.slots.max(1));
        let busy = match service {
            Some(service) => {
                let load = arrivals * service;
                // A task that waits has use for one slot, however short the time.
                let late = backlog * (service / seconds(self.catch_up)).min(1.0);
                let spare = late.max(self.reserve.get() * load.sqrt());
                (load + spare) / self.target_utilization.get()
            }
            // Nobody knows how long they take: a slot for each.
            None => backlog + running,
        };
        let busy = Real::new(busy)?;
        let has_work = backlog > 0.0 || running > 0.0;
        let need = replicas(busy.get() / slots).max(u32::from(has_work));
        let there = f64::from(observation.replicas.wanted) * slots;
        Some((Verdict::of(Value::Real(busy), busy.get() / there, Answer::Replicas(need)), need))
    }
}

impl Memory {
    /// Notes what is needed from now on, and gives the largest need that is not older than `keep_alive`.
    fn hold(&mut self, at: Timestamp, replicas: u32, keep_alive: Micros) -> Need {
        // What was needed last was needed until now.
        if let Some(last) = self.needs.back_mut() {
            last.until = at;
        }
        while self.needs.back().is_some_and(|last| last.replicas <= replicas) {
            self.needs.pop_back();
        }
        while self.needs.front().is_some_and(|first| at.since(first.until) >= keep_alive) {
            self.needs.pop_front();
        }
        let now = Need { until: at, replicas };
        self.needs.push_back(now);
        self.needs.front().copied().unwrap_or(now)
    }
}

fn seconds(span: Micros) -> f64 {
    span.0 as f64 / 1e6
}

fn span(seconds: f64) -> Micros {
    // The cast ends at the limits of u64.
    Micros((seconds * 1e6) as u64)
}
