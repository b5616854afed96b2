//! Which settings of an HPA make sense: what its API takes, and what would never wake a pool.

use super::normalize;
use super::rulebook::Rulebook;
use super::settings::{Controller, Hpa, Metric, PERIOD_MAX, Rules, Source, Target, WINDOW_MAX};
use crate::scaling::real::Real;
use crate::scaling::setting::{self, SettingError, require};
use crate::scaling::signal::Bounds;
use crate::time::Micros;

pub(super) fn check(policy: &Hpa, bounds: Bounds) -> Result<(), SettingError> {
    setting::inputs("metrics", policy.metrics.len())?;
    for (index, metric) in policy.metrics.iter().enumerate() {
        check_metric(metric, &format!("metrics[{index}]"))?;
    }
    policy.rulebook(bounds).check()
}

impl Rulebook<'_> {
    /// Whether they make sense.
    pub(in crate::scaling) fn check(&self) -> Result<(), SettingError> {
        let bounds = self.bounds;
        require(bounds.max >= bounds.min.max(1), "max", bounds.max, "at least 1 and at least the minimum")?;
        let may_sleep = self.controller.scale_to_zero && self.looks_outside;
        let allowed = "at least 1 without scale to zero and a metric of type Object or External";
        require(bounds.min > 0 || may_sleep, "min", bounds.min, allowed)?;
        check_controller(self.controller)?;
        let Some(behavior) = self.behavior else { return Ok(()) };
        check_rules(&behavior.scale_up, "behavior.scale_up")?;
        check_rules(&behavior.scale_down, "behavior.scale_down")?;
        if bounds.min == 0 {
            let text = "a policy that allows more than 0 replicas from 0: add one of kind Pods";
            let leaves_zero = normalize::leaves_zero(&behavior.scale_up);
            require(leaves_zero, "behavior.scale_up.policies", "a list that never leaves 0", text)?;
        }
        Ok(())
    }
}

fn check_metric(metric: &Metric, key: &str) -> Result<(), SettingError> {
    setting::name(&format!("{key}.name"), &metric.name)?;
    let (outside, allowed) = match metric.source {
        Source::Resource | Source::ContainerResource { .. } => (false, "utilization or average_value_milli"),
        Source::Pods => (false, "average_value_milli"),
        Source::Object { .. } | Source::External { .. } => (true, "average_value_milli or value_milli"),
    };
    let is_resource = !outside && metric.source != Source::Pods;
    let target = format!("{key}.target");
    match metric.target {
        Target::Utilization(percent) => {
            require(is_resource, &target, "utilization", allowed)?;
            require((1..=i32::MAX.cast_unsigned()).contains(&percent), &target, percent, "at least 1 %")
        }
        Target::AverageValueMilli(milli) => require(milli > 0, &target, milli, "above 0"),
        Target::ValueMilli(milli) => {
            require(outside, &target, "value_milli", allowed)?;
            require(milli > 0, &target, milli, "above 0")
        }
    }
}

fn check_controller(controller: &Controller) -> Result<(), SettingError> {
    setting::span("controller.sync_period", controller.sync_period, Micros::from_millis(100), WINDOW_MAX)?;
    require(controller.tolerance >= Real::ZERO, "controller.tolerance", controller.tolerance, "0 or more")?;
    setting::span("controller.downscale_stabilization", controller.downscale_stabilization, Micros(0), WINDOW_MAX)?;
    setting::span("controller.cpu_initialization", controller.cpu_initialization, Micros(0), setting::SPAN_MAX)?;
    setting::span("controller.initial_readiness", controller.initial_readiness, Micros(0), setting::SPAN_MAX)
}

fn check_rules(rules: &Rules, key: &str) -> Result<(), SettingError> {
    if let Some(window) = rules.stabilization {
        setting::span(&format!("{key}.stabilization"), window, Micros(0), WINDOW_MAX)?;
    }
    for (index, pace) in rules.policies.iter().flatten().enumerate() {
        let key = format!("{key}.policies[{index}]");
        require((1..=i32::MAX.cast_unsigned()).contains(&pace.value), &format!("{key}.value"), pace.value, "above 0")?;
        setting::span(&format!("{key}.period"), pace.period, Micros::from_secs(1), PERIOD_MAX)?;
    }
    match &rules.policies {
        Some(policies) => setting::inputs(&format!("{key}.policies"), policies.len()),
        None => Ok(()),
    }
}
