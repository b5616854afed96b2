//! Observations as tests write them, and a pool that does at once what is decided.

use ergate_events::scaling::hpa::{Metric, Source, Target};
use ergate_events::scaling::real::Real;
use ergate_events::scaling::signal::{Bounds, Phase, Pods, Reading, Replicas, Requested, Signal, Usage, Value};
use ergate_events::scaling::{Decision, Observation, Policy};
use ergate_events::time::{Micros, Timestamp};

/// When the clock of the tests starts: a whole number of minutes and of two minutes after 1970.
pub(crate) const START: u64 = 1_772_366_400;

pub(crate) const fn at(seconds: u64) -> Timestamp {
    Timestamp((START + seconds) * 1_000_000)
}

pub(crate) const fn secs(seconds: u64) -> Micros {
    Micros::from_secs(seconds)
}

pub(crate) fn real(number: f64) -> Real {
    Real::new(number).unwrap()
}

pub(crate) fn signal(name: &str, number: f64) -> Signal {
    Signal { name: name.to_owned(), reading: Reading::Value(Value::Real(real(number))) }
}

pub(crate) fn broken(name: &str) -> Signal {
    Signal { name: name.to_owned(), reading: Reading::Failed("the broker is away".to_owned()) }
}

/// A pool of ready replicas with a slot each.
pub(crate) fn seen(seconds: u64, wanted: u32, bounds: (u32, u32), signals: Vec<Signal>) -> Observation {
    Observation {
        at: at(seconds),
        bounds: Bounds { min: bounds.0, max: bounds.1 },
        ceiling: None,
        replicas: Replicas { wanted, live: wanted, ready: wanted, slots: 1, ..Replicas::default() },
        signals,
        pods: None,
    }
}

/// Pods that all use so much per cent of the one core that each asks for, and of whatever else they measure.
pub(crate) fn pods(count: u32, usage: &[(&str, i64)], now: Timestamp) -> Vec<Pods> {
    let long_ago = Timestamp(now.0 - 3_600_000_000);
    let usage =
        usage.iter().map(|(metric, milli)| Usage { metric: (*metric).to_owned(), milli: *milli, at: now, window: secs(0) });
    vec![Pods {
        count,
        phase: Phase::Running,
        is_deleted: false,
        started: Some(long_ago),
        ready: Some((true, long_ago)),
        requests: ["cpu", "memory"].map(|metric| Requested { metric: metric.to_owned(), milli: 1_000 }).to_vec(),
        usage: usage.collect(),
    }]
}

pub(crate) fn external(name: &str, each: i64) -> Metric {
    let target = Target::AverageValueMilli(each * 1_000);
    Metric { source: Source::External { selector: None }, name: name.to_owned(), signal: None, target }
}

/// A pool under a policy, in which every decision is carried out at once.
pub(crate) struct Pool<'a, P: Policy> {
    pub(crate) policy: &'a P,
    pub(crate) memory: P::Memory,
    pub(crate) bounds: (u32, u32),
    pub(crate) wanted: u32,
}

impl<'a, P: Policy> Pool<'a, P> {
    pub(crate) fn new(policy: &'a P, bounds: (u32, u32), wanted: u32) -> Self {
        policy.check(Bounds { min: bounds.0, max: bounds.1 }).unwrap();
        Pool { policy, memory: P::Memory::default(), bounds, wanted }
    }

    pub(crate) fn look(&mut self, seconds: u64, signals: Vec<Signal>) -> Decision {
        let observation = seen(seconds, self.wanted, self.bounds, signals);
        self.see(&observation)
    }

    pub(crate) fn see(&mut self, observation: &Observation) -> Decision {
        let decision = self.policy.evaluate(&mut self.memory, observation);
        assert_eq!(decision.from, self.wanted);
        self.wanted = decision.wanted;
        decision
    }

    pub(crate) fn sentence(&self, decision: &Decision) -> String {
        decision.sentence(|index| self.policy.input(index))
    }
}
