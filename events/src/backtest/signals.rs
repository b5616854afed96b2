//! Which signals a policy reads, and which of them a back-test can tell.

use crate::scaling::hpa::{Metric, Source};
use crate::scaling::policy::Single;
use crate::scaling::signal::names as live;
use crate::scaling::{AnyPolicy, hpa::Hpa, keda::Keda, step::Step, threshold::Threshold};

/// Names of signals besides those of [`signal::names`](crate::scaling::signal::names).
pub mod names {
    /// Attempts that run.
    pub const RUNNING: &str = "running";
    /// For how long the task that waits longest has waited, in seconds; 0 where none does.
    pub const OLDEST: &str = "oldest_s";
    /// How many more tasks wait than at the beginning of the window, a second: how fast the backlog grows.
    pub const GROWTH: &str = "ready_per_s";
    /// Which share of the slots of ready replicas is busy, in per cent; 0 where there is none. Also what each replica tells of itself.
    pub const BUSY: &str = "busy_percent";
    /// What a replica uses of the CPU that it asks for: as much as its slots are busy.
    pub const CPU: &str = "cpu";
    /// Percentiles of the time from start to end.
    pub const SERVICE_P50: &str = "service_s_p50";
    /// Percentiles of the time from start to end.
    pub const SERVICE_P95: &str = "service_s_p95";
    /// Percentiles of the time from start to end.
    pub const SERVICE_P99: &str = "service_s_p99";
    /// Percentiles of the time from arrival to start.
    pub const WAIT_P50: &str = "wait_s_p50";
    /// Percentiles of the time from arrival to start.
    pub const WAIT_P95: &str = "wait_s_p95";
    /// Percentiles of the time from arrival to start.
    pub const WAIT_P99: &str = "wait_s_p99";
}

/// A signal that a back-test can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Ready,
    Work,
    Running,
    Oldest,
    Arrivals,
    Growth,
    Busy,
    ServiceMean,
    Service(usize),
    Wait(usize),
    StartMean,
}

impl Known {
    pub(super) fn of(name: &str) -> Option<Known> {
        Some(match name {
            live::READY => Known::Ready,
            live::WORK => Known::Work,
            live::ARRIVALS => Known::Arrivals,
            live::SERVICE => Known::ServiceMean,
            live::START => Known::StartMean,
            names::RUNNING => Known::Running,
            names::OLDEST => Known::Oldest,
            names::GROWTH => Known::Growth,
            names::BUSY => Known::Busy,
            names::SERVICE_P50 => Known::Service(50),
            names::SERVICE_P95 => Known::Service(95),
            names::SERVICE_P99 => Known::Service(99),
            names::WAIT_P50 => Known::Wait(50),
            names::WAIT_P95 => Known::Wait(95),
            names::WAIT_P99 => Known::Wait(99),
            _ => return None,
        })
    }
}

/// What a policy looks at.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Signals by name, each once, in the order in which the policy names them.
    pub(super) signals: Vec<String>,
    /// Whether it looks at replicas one by one.
    pub(super) pods: bool,
}

impl Needs {
    pub(super) fn of(policy: &AnyPolicy) -> Needs {
        let mut needs = Needs::default();
        match policy {
            AnyPolicy::Hpa(policy) => needs.hpa(policy),
            AnyPolicy::Keda(policy) => needs.keda(policy),
            AnyPolicy::TargetTracking(policy) => needs.name(&policy.signal),
            AnyPolicy::Step(policy) => needs.step(policy),
            AnyPolicy::Kpa(policy) => needs.name(&policy.signal),
            AnyPolicy::Rate(policy) => policy.signals().into_iter().for_each(|name| needs.name(name)),
            AnyPolicy::Threshold(policy) => needs.threshold(policy),
            AnyPolicy::Composite(policy) => policy.members.iter().for_each(|member| needs.single(&member.rule)),
        }
        needs
    }

    fn single(&mut self, policy: &Single) {
        match policy {
            Single::Hpa(policy) => self.hpa(policy),
            Single::Keda(policy) => self.keda(policy),
            Single::TargetTracking(policy) => self.name(&policy.signal),
            Single::Step(policy) => self.step(policy),
            Single::Kpa(policy) => self.name(&policy.signal),
            Single::Rate(policy) => policy.signals().into_iter().for_each(|name| self.name(name)),
            Single::Threshold(policy) => self.threshold(policy),
        }
    }

    fn name(&mut self, name: &str) {
        if !self.signals.iter().any(|known| known == name) {
            self.signals.push(name.to_owned());
        }
    }

    fn hpa(&mut self, policy: &Hpa) {
        for Metric { source, name, signal, .. } in &policy.metrics {
            match source {
                Source::Resource | Source::ContainerResource { .. } | Source::Pods => self.pods = true,
                Source::Object { .. } | Source::External { .. } => self.name(signal.as_ref().unwrap_or(name)),
            }
        }
    }

    fn keda(&mut self, policy: &Keda) {
        policy.triggers.iter().for_each(|trigger| self.name(&trigger.signal));
    }

    fn step(&mut self, policy: &Step) {
        policy.parts.iter().for_each(|part| self.name(&part.signal));
    }

    fn threshold(&mut self, policy: &Threshold) {
        policy.up.iter().chain(&policy.down).for_each(|rule| self.name(&rule.signal));
        policy.idle.iter().for_each(|idle| self.name(&idle.signal));
    }
}
