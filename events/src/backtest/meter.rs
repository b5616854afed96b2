//! What a policy is shown: measured from what has happened so far, and from nothing else.

use super::fleet::Fleet;
use super::queue::Ready;
use super::signals::{Known, Needs, names};
use crate::scaling::measure::{self, Measure};
use crate::scaling::signal::{Bounds, Phase, Pods, Reading, Replicas, Requested, Signal, Usage, names as live};
use crate::scaling::{AnyPolicy, Observation};
use crate::time::{Micros, Timestamp};

/// The instruments of a run.
#[derive(Debug)]
pub(super) struct Meter {
    known: Vec<Option<Known>>,
    observation: Observation,
    began: Timestamp,
    measure: Measure,
}

/// What there is at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now<'a> {
    pub(super) at: u64,
    pub(super) ready: &'a Ready,
    pub(super) fleet: &'a Fleet,
    pub(super) wanted: u32,
}

impl Meter {
    pub(super) fn new(window: Micros, began: Timestamp) -> Meter {
        let (bounds, replicas) = (Bounds { min: 0, max: 0 }, Replicas::default());
        let observation = Observation { at: began, bounds, replicas, ceiling: None, signals: Vec::new(), pods: None };
        let mut measure = Measure::over(window);
        measure.begin(began);
        Meter { known: Vec::new(), observation, began, measure }
    }

    /// From now on a policy is shown what it looks at.
    pub(super) fn aim(&mut self, policy: &AnyPolicy, bounds: Bounds) {
        let Needs { signals, pods } = Needs::of(policy);
        self.known = signals.iter().map(|name| Known::of(name)).collect();
        let unknown = || Reading::Failed("a back-test does not know this signal".to_owned());
        self.observation.signals = signals.into_iter().map(|name| Signal { name, reading: unknown() }).collect();
        self.observation.pods = pods.then(Vec::new);
        self.bound(bounds);
    }

    /// The pool has other bounds.
    pub(super) const fn bound(&mut self, bounds: Bounds) {
        self.observation.bounds = bounds;
    }

    /// Tasks arrived.
    pub(super) fn arrived(&mut self, at: u64, count: usize) {
        self.measure.totals(self.began.after(Micros(at))).arrivals += count as u64;
    }

    /// An attempt started after having waited.
    pub(super) fn started(&mut self, at: u64, wait: u64) {
        self.measure.totals(self.began.after(Micros(at))).waits.record(Micros(wait));
    }

    /// An attempt ended that took so long.
    pub(super) fn finished(&mut self, at: u64, service: u64) {
        self.measure.totals(self.began.after(Micros(at))).runs.record(Micros(service));
    }

    /// A replica is ready that took so long.
    pub(super) fn replica_ready(&mut self, took: Micros) {
        self.measure.replica_started(took);
    }

    /// There is something to do, or nothing.
    pub(super) fn note_work(&mut self, has_work: bool, at: u64) {
        self.measure.note_work(has_work, self.began.after(Micros(at)));
    }

    /// Everything a policy may know at this moment.
    pub(super) fn observe(&mut self, now: Now<'_>) -> &Observation {
        self.observation.at = self.began.after(Micros(now.at));
        // What runs is a signal, for the half of an engine that sizes pools does not know it: a policy that wants it has to name it.
        self.observation.replicas = Replicas { running: 0, ..now.fleet.seen(now.wanted) };
        for index in 0..self.known.len() {
            if let Some(known) = self.known[index] {
                self.observation.signals[index].reading = self.read(known, &self.observation.signals[index].name, now);
            }
        }
        if self.observation.pods.is_some() {
            self.observation.pods = Some(self.pods(now));
        }
        &self.observation
    }

    fn read(&self, known: Known, name: &str, now: Now<'_>) -> Reading {
        let Replicas { slots, ready, running, .. } = now.fleet.seen(now.wanted);
        let waiting = now.ready.len() as u64;
        match known {
            Known::Ready => measure::count(waiting),
            Known::Work => measure::count(waiting + u64::from(running)),
            Known::Running => measure::count(u64::from(running)),
            Known::Oldest => measure::seconds(Micros(now.ready.oldest().map_or(0, |since| now.at - since))),
            Known::Busy => {
                let slots = f64::from(ready) * f64::from(slots);
                let working = f64::from(now.fleet.counts().running - now.fleet.counts().leaving);
                measure::real(if slots > 0.0 { working / slots * 100.0 } else { 0.0 })
            }
            Known::CpuPercent if ready == 0 => Reading::Failed("no replica takes work, so there is no CPU to measure".to_owned()),
            Known::CpuPercent => self.read(Known::Busy, name, now),
            Known::Measured => {
                let unknown = || Reading::Failed("a back-test does not know this signal".to_owned());
                self.measure.read(name, self.observation.at).unwrap_or_else(unknown)
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
            let usage = if is_ready { vec![used(names::CPU, 1_000), used(live::BUSY, 100_000)] } else { Vec::new() };
            let since = self.began.after(Micros(ready_at));
            pods.push(Pods {
                count: 1,
                phase: if is_ready { Phase::Running } else { Phase::Pending },
                is_deleted: false,
                started: is_ready.then_some(since),
                ready: is_ready.then_some((true, since)),
                requests: vec![Requested { metric: names::CPU.to_owned(), milli: 1_000 }],
                usage,
            });
        });
        pods
    }
}
