//! Which signals a policy reads.

use super::policy::{AnyPolicy, Single};
use super::{hpa, keda, rate, step, threshold};

/// The names of the signals that a policy reads, each once, in the order of its settings: the order in which readings are recorded.
pub fn signals(policy: &AnyPolicy) -> Vec<String> {
    let names: Vec<&String> = match policy {
        AnyPolicy::Hpa(policy) => of_hpa(policy),
        AnyPolicy::Keda(policy) => of_keda(policy),
        AnyPolicy::TargetTracking(policy) => vec![&policy.signal],
        AnyPolicy::Step(policy) => of_step(policy),
        AnyPolicy::Kpa(policy) => vec![&policy.signal],
        AnyPolicy::Rate(policy) => of_rate(policy),
        AnyPolicy::Threshold(policy) => of_threshold(policy),
        AnyPolicy::Composite(policy) => policy.members.iter().flat_map(|member| of_single(&member.rule)).collect(),
    };
    let mut each: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        if !each.contains(name) {
            each.push(name.clone());
        }
    }
    each
}

/// The signals of several policies, each once, in the order of the policies: the order in which readings for all of them are recorded.
pub fn each_once<'a>(of_each: impl IntoIterator<Item = &'a [String]>) -> Vec<&'a str> {
    let mut each: Vec<&str> = Vec::new();
    for name in of_each.into_iter().flatten() {
        if !each.contains(&name.as_str()) {
            each.push(name);
        }
    }
    each
}

fn of_single(policy: &Single) -> Vec<&String> {
    match policy {
        Single::Hpa(policy) => of_hpa(policy),
        Single::Keda(policy) => of_keda(policy),
        Single::TargetTracking(policy) => vec![&policy.signal],
        Single::Step(policy) => of_step(policy),
        Single::Kpa(policy) => vec![&policy.signal],
        Single::Rate(policy) => of_rate(policy),
        Single::Threshold(policy) => of_threshold(policy),
    }
}

fn of_hpa(policy: &hpa::Hpa) -> Vec<&String> {
    policy.metrics.iter().map(|metric| metric.signal.as_ref().unwrap_or(&metric.name)).collect()
}

fn of_keda(policy: &keda::Keda) -> Vec<&String> {
    policy.triggers.iter().map(|trigger| &trigger.signal).collect()
}

fn of_step(policy: &step::Step) -> Vec<&String> {
    policy.parts.iter().map(|part| &part.signal).collect()
}

fn of_rate(policy: &rate::Rate) -> Vec<&String> {
    vec![&policy.backlog, &policy.running, &policy.arrivals, &policy.service, &policy.start]
}

fn of_threshold(policy: &threshold::Threshold) -> Vec<&String> {
    let rules = policy.up.iter().chain(&policy.down).map(|rule| &rule.signal);
    rules.chain(policy.idle.iter().map(|idle| &idle.signal)).collect()
}
