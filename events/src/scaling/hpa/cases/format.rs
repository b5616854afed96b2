//! The keys of a scenario file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scaling::hpa::{PaceKind, Select, Target, ToleranceForm};

/// A whole file; keys that are not here are for people.
#[derive(Clone, Debug, Deserialize)]
pub struct File {
    /// Has to be [`SCHEMA`](super::SCHEMA).
    pub schema: String,
    #[serde(default)]
    pub(super) defaults: Defaults,
    /// Scenarios that somebody thought of.
    #[serde(default)]
    pub cases: Vec<Scenario>,
    /// Scenarios by chance.
    #[serde(default)]
    pub fuzz: Vec<Scenario>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Defaults {
    #[serde(default)]
    pub(super) controller: ControllerCase,
    #[serde(default)]
    pub(super) pod: PodCase,
}

/// A row of looks of one controller at one object.
#[derive(Clone, Debug, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub id: String,
    /// Why its expectations are what they are.
    #[serde(default)]
    pub note: Option<String>,
    pub(super) spec: Spec,
    #[serde(default)]
    pub(super) controller: ControllerCase,
    #[serde(default)]
    pub(super) seed: Seed,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) min: Option<u32>,
    pub(super) max: u32,
    #[serde(default)]
    pub(super) behavior: Option<BehaviorCase>,
    pub(super) metrics: Vec<MetricCase>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BehaviorCase {
    #[serde(default)]
    pub(super) scale_up: Option<RulesCase>,
    #[serde(default)]
    pub(super) scale_down: Option<RulesCase>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RulesCase {
    #[serde(default)]
    pub(super) stabilization_s: Option<f64>,
    #[serde(default)]
    pub(super) select: Option<Select>,
    #[serde(default)]
    pub(super) policies: Option<Vec<PaceCase>>,
    #[serde(default)]
    pub(super) tolerance: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PaceCase {
    #[serde(rename = "type")]
    pub(super) kind: PaceKind,
    pub(super) value: u32,
    pub(super) period_s: f64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricCase {
    #[serde(rename = "type")]
    pub(super) source: SourceCase,
    pub(super) name: String,
    #[serde(default)]
    pub(super) container: Option<String>,
    pub(super) target: Target,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum SourceCase {
    Resource,
    ContainerResource,
    Pods,
    Object,
    External,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ControllerCase {
    pub(super) downscale_stabilization_s: Option<f64>,
    pub(super) cpu_init_s: Option<f64>,
    pub(super) initial_readiness_s: Option<f64>,
    pub(super) tolerance: Option<f64>,
    pub(super) tolerance_mode: Option<ToleranceForm>,
    pub(super) scale_to_zero: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Seed {
    pub(super) current: u32,
    pub(super) recommendations: Vec<RecommendationCase>,
    pub(super) up_events: Vec<ChangeCase>,
    pub(super) down_events: Vec<ChangeCase>,
    pub(super) scaled_to_zero: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecommendationCase {
    pub(super) age_s: f64,
    pub(super) replicas: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeCase {
    pub(super) age_s: f64,
    pub(super) change: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) at_s: f64,
    #[serde(default)]
    pub(super) pods: Option<Vec<PodCase>>,
    #[serde(default)]
    pub(super) values: Vec<Option<ValueCase>>,
    #[serde(default)]
    pub(super) status_replicas: Option<u32>,
    pub(super) expect: Told,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PodCase {
    pub(super) count: Option<u32>,
    pub(super) phase: Option<PhaseCase>,
    pub(super) ready: Option<bool>,
    pub(super) deleted: Option<bool>,
    pub(super) started_ago_s: Option<f64>,
    pub(super) ready_changed_ago_s: Option<f64>,
    pub(super) request_milli: Option<i64>,
    pub(super) usage_milli: BTreeMap<String, i64>,
    pub(super) metric_age_s: Option<f64>,
    pub(super) metric_window_s: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) enum PhaseCase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ValueCase {
    #[serde(default)]
    pub(super) error: bool,
    #[serde(default)]
    pub(super) value_milli: Option<i64>,
    #[serde(default)]
    pub(super) values_milli: Option<Vec<i64>>,
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// The count.
    pub replicas: u32,
    /// The text of the event `SuccessfulRescale`; nothing where the count stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Whether a metric failed.
    #[serde(default)]
    pub error: bool,
    /// Status and reason of each condition that was ever set.
    pub conditions: BTreeMap<String, (String, String)>,
}
