//! Which signals a policy reads, and which of them a back-test can tell.

use crate::scaling::hpa::{Metric, Source};
use crate::scaling::measure::Measure;
use crate::scaling::policy::Single;
use crate::scaling::signal::names as live;
use crate::scaling::{AnyPolicy, hpa::Hpa, keda::Keda, step::Step, threshold::Threshold};
use crate::time::Timestamp;

/// Names of what only a back-test makes up for replicas, besides those of [`signal::names`](crate::scaling::signal::names).
pub mod names {
    /// What a replica uses of the CPU that it asks for: as much as its slots are busy.
    pub const CPU: &str = "cpu";
}

/// A signal that a back-test can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Ready,
    Work,
    Running,
    Oldest,
    Busy,
    /// As much of its CPU as its slots are busy, of replicas that take work.
    CpuPercent,
    /// What an engine measures in the same way.
    Measured,
}

impl Known {
    pub(super) fn of(name: &str) -> Option<Known> {
        Some(match name {
            live::READY => Known::Ready,
            live::WORK => Known::Work,
            live::RUNNING => Known::Running,
            live::OLDEST => Known::Oldest,
            live::BUSY => Known::Busy,
            live::CPU_PERCENT => Known::CpuPercent,
            _ => Measure::default().read(name, Timestamp(0)).map(|_| Known::Measured)?,
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
