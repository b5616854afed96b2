//! What a policy is shown: measured from what has happened so far, and from nothing else.

use std::collections::VecDeque;

use super::arrivals::Arrival;
use super::fleet::Fleet;
use super::queue::Ready;
use super::ring::Ring;
use super::setup::Setup;
use super::signals::{Known, Needs, names};
use crate::scaling::Observation;
use crate::scaling::real::Real;
use crate::scaling::signal::{Phase, Pods, Reading, Replicas, Signal, Usage, Value};
use crate::time::{Micros, Timestamp};

/// The instruments of a run.
#[derive(Debug)]
pub(super) struct Meter {
    known: Vec<Option<Known>>,
    has_pods: bool,
    observation: Observation,
    began: Timestamp,
    window: u64,
    /// The first task that arrived within the window.
    first_in_window: usize,
    services: Ring,
    waits: Ring,
    /// When tasks started within the window, if anybody asks.
    starts: Option<VecDeque<u64>>,
    /// Starts of replicas that ended, and how long they took together.
    replica_starts: (u64, u128),
}

/// What there is at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub(super) at: u64,
    pub(super) tasks: &'a [Arrival],
    /// So many of them have arrived.
    pub(super) arrived: usize,
    pub(super) ready: &'a Ready,
    pub(super) fleet: &'a Fleet,
    pub(super) wanted: u32,
}

impl Meter {
    pub(super) fn new(setup: &Setup, began: Timestamp) -> Meter {
        let Needs { signals, pods } = Needs::of(&setup.policy);
        let known: Vec<_> = signals.iter().map(|name| Known::of(name)).collect();
        let asks = |is_asked: fn(Known) -> bool| known.iter().flatten().any(|known| is_asked(*known));
        let services = Ring::new(asks(|known| matches!(known, Known::Service(_))));
        let waits = Ring::new(asks(|known| matches!(known, Known::Wait(_))));
        let starts = asks(|known| known == Known::Growth).then(VecDeque::new);
        let reading = |known: Option<Known>| {
            Reading::Failed(match known {
                Some(_) => "nothing has been measured yet".to_owned(),
                None => "a back-test does not know this signal".to_owned(),
            })
        };
        let signals = signals.into_iter().zip(&known).map(|(name, known)| Signal { name, reading: reading(*known) }).collect();
        let replicas = Replicas::default();
        let observation = Observation { at: began, bounds: setup.bounds, replicas, signals, pods: pods.then(Vec::new) };
        let window = setup.window.0.max(1);
        let (first_in_window, replica_starts) = (0, (0, 0));
        Meter { known, has_pods: pods, observation, began, window, first_in_window, services, waits, starts, replica_starts }
    }

    /// A task started after having waited.
    pub(super) fn started(&mut self, at: u64, wait: u64) {
        self.waits.push(wait);
        if let Some(starts) = &mut self.starts {
            starts.push_back(at);
        }
    }

    /// A task ended that took so long.
    pub(super) fn finished(&mut self, service: u64) {
        self.services.push(service);
    }

    /// A replica is ready that took so long.
    pub(super) fn replica_ready(&mut self, took: u64) {
        self.replica_starts.0 += 1;
        self.replica_starts.1 += u128::from(took);
    }

    /// Everything a policy may know at this moment.
    pub(super) fn observe(&mut self, now: Now<'_>) -> &Observation {
        self.observation.at = self.began.after(Micros(now.at));
        self.observation.replicas = now.fleet.seen(now.wanted);
        while self.first_in_window < now.arrived && now.tasks[self.first_in_window].at.0 + self.window <= now.at {
            self.first_in_window += 1;
        }
        for index in 0..self.known.len() {
            if let Some(value) = self.known[index].and_then(|known| self.read(known, now)) {
                self.observation.signals[index].reading = Reading::Value(value);
            }
        }
        if self.has_pods {
            self.observation.pods = Some(self.pods(now));
        }
        &self.observation
    }

    fn read(&mut self, known: Known, now: Now<'_>) -> Option<Value> {
        let seconds = |micros: f64| Some(Value::Real(Real::new(micros / 1e6)?));
        let per_second = |count: f64| Some(Value::Real(Real::new(count * 1e6 / self.window as f64)?));
        let Replicas { slots, ready, running, .. } = self.observation.replicas;
        let waiting = now.ready.len();
        match known {
            Known::Ready => Some(integer(waiting)),
            Known::Work => Some(integer(waiting + running as usize)),
            Known::Running => Some(integer(running as usize)),
            Known::Oldest => seconds(now.ready.oldest().map_or(0.0, |task| (now.at - now.tasks[task as usize].at.0) as f64)),
            Known::Arrivals => per_second((now.arrived - self.first_in_window) as f64),
            Known::Growth => {
                let (at, window) = (now.at, self.window);
                let starts = self.starts.as_mut()?;
                while starts.front().is_some_and(|start| start + window <= at) {
                    starts.pop_front();
                }
                per_second((now.arrived - self.first_in_window) as f64 - starts.len() as f64)
            }
            Known::Busy => {
                let slots = f64::from(ready) * f64::from(slots);
                let working = f64::from(now.fleet.counts().running - now.fleet.counts().leaving);
                Some(Value::Real(Real::new(if slots > 0.0 { working / slots * 100.0 } else { 0.0 })?))
            }
            Known::ServiceMean => seconds(self.services.mean()?),
            Known::Service(percent) => seconds(self.services.percentile(percent)?),
            Known::Wait(percent) => seconds(self.waits.percentile(percent)?),
            Known::StartMean => {
                let (count, sum) = self.replica_starts;
                (count > 0).then(|| seconds(sum as f64 / count as f64))?
            }
        }
    }

    /// Replicas as Kubernetes would describe them, each of which asks for a core and uses as much of it as its slots are busy.
    fn pods(&self, now: Now<'_>) -> Vec<Pods> {
        let mut pods = Vec::new();
        let slots = i64::from(self.observation.replicas.slots.max(1));
        now.fleet.each(|ready_at, running| {
            let is_ready = ready_at <= now.at;
            let used = |metric: &str, most: i64| Usage {
                metric: metric.to_owned(),
                milli: i64::from(running) * most / slots,
                at: self.observation.at,
                window: Micros(0),
            };
            let usage = if is_ready { vec![used(names::CPU, 1_000), used(names::BUSY, 100_000)] } else { Vec::new() };
            let since = self.began.after(Micros(ready_at));
            pods.push(Pods {
                count: 1,
                phase: if is_ready { Phase::Running } else { Phase::Pending },
                is_deleted: false,
                started: is_ready.then_some(since),
                ready: is_ready.then_some((true, since)),
                request_milli: Some(1_000),
                usage,
            });
        });
        pods
    }
}

fn integer(count: usize) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}
