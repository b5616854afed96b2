//! Which signals a policy reads.

use super::policy::{AnyPolicy, Single};
use super::signal::names;
use super::{hpa, keda, rate, step, threshold, usage};

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

/// Whether a policy is shown replicas one by one.
pub fn replicas(policy: &AnyPolicy) -> bool {
    let of_hpa = |policy: &hpa::Hpa| policy.metrics.iter().any(is_seen_in_replicas);
    match policy {
        AnyPolicy::Hpa(policy) => of_hpa(policy),
        AnyPolicy::Composite(policy) => {
            policy.members.iter().any(|member| if let Single::Hpa(policy) = &member.rule { of_hpa(policy) } else { false })
        }
        AnyPolicy::Keda(_)
        | AnyPolicy::TargetTracking(_)
        | AnyPolicy::Step(_)
        | AnyPolicy::Kpa(_)
        | AnyPolicy::Rate(_)
        | AnyPolicy::Threshold(_) => false,
    }
}

/// Whether a metric is one of those that an engine measures of each replica. There is no signal of its name then.
fn is_seen_in_replicas(metric: &hpa::Metric) -> bool {
    let names: &[&str] = match metric.source {
        hpa::Source::Resource | hpa::Source::ContainerResource { .. } => &[usage::CPU, usage::MEMORY],
        hpa::Source::Pods => &[names::BUSY, usage::CPU, usage::MEMORY],
        hpa::Source::Object { .. } | hpa::Source::External { .. } => &[],
    };
    metric.signal.is_none() && names.contains(&metric.name.as_str())
}

fn of_hpa(policy: &hpa::Hpa) -> Vec<&String> {
    let outside = policy.metrics.iter().filter(|metric| !is_seen_in_replicas(metric));
    outside.map(|metric| metric.signal.as_ref().unwrap_or(&metric.name)).collect()
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
