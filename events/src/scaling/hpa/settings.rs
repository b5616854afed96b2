//! What an HPA object and its controller are told.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::scaling::real::Real;
use crate::time::Micros;

/// The policy: what stands in the object, and how the controller that reads it is set.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hpa {
    /// What is measured against what; of all proposals the largest counts.
    pub metrics: Vec<Metric>,
    /// How fast it may go; `None` is the controller's old rule (at most twice as many or 4 at once, 300 s of memory for shrinking), which is
    /// not the same as the defaults of a given behavior.
    #[serde(default)]
    pub behavior: Option<Behavior>,
    /// The controller's settings.
    #[serde(default)]
    pub controller: Controller,
    /// How it remembers.
    #[serde(default)]
    pub memory: Memories,
}

/// One metric and its target.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Where it comes from.
    pub source: Source,
    /// Its name; for those of pods the name of their usage.
    pub name: String,
    /// The signal to read, where it is not called as the metric is; for metrics of pods the one that says that they could not be read.
    #[serde(default)]
    pub signal: Option<String>,
    /// What it should be.
    pub target: Target,
}

/// Where a metric comes from.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A resource that pods ask for: `cpu`, `memory`.
    Resource,
    /// The same of one container.
    ContainerResource {
        /// Which.
        container: String,
    },
    /// A number that every pod has.
    Pods,
    /// A number of another object.
    Object {
        /// The kind of that object, as sentences call it.
        kind: String,
    },
    /// A number from outside.
    External {
        /// Its labels as Kubernetes prints a selector; `None` prints `nil`.
        #[serde(default)]
        selector: Option<String>,
    },
}

/// What a metric should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// So many per cent of what pods ask for.
    Utilization(u32),
    /// So much for each pod, in thousandths.
    AverageValueMilli(i64),
    /// So much, in thousandths.
    ValueMilli(i64),
}

/// How fast it may go, by direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behavior {
    /// When it grows.
    pub scale_up: Rules,
    /// When it shrinks.
    pub scale_down: Rules,
}

/// The rules of one direction; what is `None` is the direction's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// For how long every recommendation has to agree: 0 s when growing, the controller's when shrinking.
    pub stabilization: Option<Micros>,
    /// Which of several policies counts.
    pub select: Select,
    /// How far it may go in what time; a given list replaces the default (4 pods or 100 % in 15 s up, 100 % in 15 s down) as a whole.
    pub policies: Option<Vec<Pace>>,
    /// The tolerance of this direction in thousandths, instead of the controller's.
    pub tolerance_milli: Option<u32>,
}

/// Which of several policies counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum Select {
    /// The one that allows most.
    #[default]
    Max,
    /// The one that allows least.
    Min,
    /// None: it does not go in this direction.
    Disabled,
}

/// How far it may go in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// What the value counts.
    pub kind: PaceKind,
    /// So many pods, or per cent of the count at the start of the period.
    pub value: u32,
    /// The period.
    pub period: Micros,
}

/// What the value of a pace counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub enum PaceKind {
    /// Pods.
    Pods,
    /// Per cent.
    Percent,
}

/// The settings of the controller, with its defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Controller {
    /// Time from one look to the next: 15 s.
    pub sync_period: Micros,
    /// How far a ratio may be from 1 without consequence: 0.1.
    pub tolerance: Real,
    /// How that is compared.
    pub tolerance_form: ToleranceForm,
    /// For how long the highest recommendation holds a pool up: 300 s.
    pub downscale_stabilization: Micros,
    /// For how long after its start a pod's CPU may be that of starting: 300 s.
    pub cpu_initialization: Micros,
    /// For how long after its start "not ready" may mean "not ready yet": 30 s.
    pub initial_readiness: Micros,
    /// Whether pools may sleep (feature gate `HPAScaleToZero`).
    pub scale_to_zero: bool,
}

/// How a ratio is compared with the tolerance. The two differ where sums of floating-point numbers do: 1.1 is outside of the first and inside of
/// the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToleranceForm {
    /// |1 − ratio| ≤ tolerance, as up to Kubernetes 1.32, where directions have no tolerances of their own.
    Abs,
    /// 1 − tolerance ≤ ratio ≤ 1 + tolerance, as since 1.33.
    #[default]
    Band,
}

/// How it remembers recommendations and changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Memories {
    /// As the controller does, in lists whose old slots are used again: a change that a longer period of the other direction still needs may be
    /// gone, and without a behavior changes are not kept at all.
    Compatible,
    /// Whatever any setting could still need (an hour of recommendations, half an hour of changes), as the log has it.
    #[default]
    Native,
}

/// Longest stabilization window that the API takes.
pub(super) const WINDOW_MAX: Micros = Micros::from_secs(3_600);
/// Longest period of a pace that the API takes.
pub(super) const PERIOD_MAX: Micros = Micros::from_secs(1_800);

impl Default for Hpa {
    /// What the API server makes of an object without metrics: CPU at 80 %.
    fn default() -> Self {
        let cpu = Metric { source: Source::Resource, name: "cpu".to_owned(), signal: None, target: Target::Utilization(80) };
        Hpa { metrics: vec![cpu], behavior: None, controller: Controller::default(), memory: Memories::default() }
    }
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            sync_period: Micros::from_secs(15),
            tolerance: Real::constant(0.1),
            tolerance_form: ToleranceForm::Band,
            downscale_stabilization: Micros::from_secs(300),
            cpu_initialization: Micros::from_secs(300),
            initial_readiness: Micros::from_secs(30),
            scale_to_zero: true,
        }
    }
}

impl Source {
    /// Whether it is known without any replica.
    pub(super) const fn is_outside(&self) -> bool {
        match self {
            Source::Object { .. } | Source::External { .. } => true,
            Source::Resource | Source::ContainerResource { .. } | Source::Pods => false,
        }
    }
}

impl Metric {
    /// The signal to read.
    pub(super) fn signal(&self) -> &str {
        self.signal.as_deref().unwrap_or(&self.name)
    }
}

impl Behavior {
    /// The longest period of the policies that limit growing.
    pub(super) fn longest_up(&self) -> Micros {
        longest(self.scale_up.policies.as_deref().unwrap_or(&UP))
    }

    /// The longest period of the policies that limit shrinking.
    pub(super) fn longest_down(&self) -> Micros {
        longest(self.scale_down.policies.as_deref().unwrap_or(&DOWN))
    }
}

fn longest(policies: &[Pace]) -> Micros {
    policies.iter().map(|pace| pace.period).max().unwrap_or_default()
}

/// How fast a pool grows unless told otherwise.
pub(super) const UP: [Pace; 2] = [
    Pace { kind: PaceKind::Pods, value: 4, period: Micros::from_secs(15) },
    Pace { kind: PaceKind::Percent, value: 100, period: Micros::from_secs(15) },
];
/// How fast a pool shrinks unless told otherwise.
pub(super) const DOWN: [Pace; 1] = [Pace { kind: PaceKind::Percent, value: 100, period: Micros::from_secs(15) }];
