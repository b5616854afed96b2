//! What the HPA says: conditions, events and their texts, as its controller words them.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::settings::{Hpa, Metric, Source, Target};
use crate::scaling::decision::{Answer, Decision, Reason};
use crate::scaling::policy::Policy;

/// The conditions of an HPA object. They stay until another one takes their place; one that nobody ever set is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Whether the count can be read and changed, and whether a window holds it.
    pub able_to_scale: Option<Condition>,
    /// Whether a count can be calculated.
    pub scaling_active: Option<Condition>,
    /// Whether a bound cut it.
    pub scaling_limited: Option<Condition>,
    /// Whether there is no replica because this policy wanted none.
    pub scaled_to_zero: Option<Condition>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Whether it holds.
    pub is_true: bool,
    /// Why.
    pub reason: ConditionReason,
    /// What its message names.
    pub detail: Detail,
}

/// What the message of a condition names.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Nothing.
    None,
    /// A count.
    Replicas(u32),
    /// A metric, by its place in the policy.
    Metric(u16),
    /// An error.
    Failed(String),
}

/// Declares the reasons of conditions: each is printed as it is called.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The reason of a condition; it prints as in Kubernetes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
        pub enum ConditionReason {
            $($(#[$doc])* $name,)*
        }

        impl ConditionReason {
            /// The word that Kubernetes has for it.
            pub const fn word(self) -> &'static str {
                match self { $(ConditionReason::$name => stringify!($name),)* }
            }
        }
    };
}

reasons! {
    /// The count was read.
    SucceededGetScale,
    /// The proposal is what may be done.
    ReadyForNewScale,
    /// A window holds it down.
    ScaleUpStabilized,
    /// A window holds it up.
    ScaleDownStabilized,
    /// The count was changed.
    SucceededRescale,
    /// A metric gave a count.
    ValidMetricFound,
    /// There is no replica, and this policy may not start one.
    ScalingDisabled,
    /// A resource metric failed.
    FailedGetResourceMetric,
    /// A metric of a container failed.
    FailedGetContainerResourceMetric,
    /// A metric of pods failed.
    FailedGetPodsMetric,
    /// A metric of another object failed.
    FailedGetObjectMetric,
    /// A metric from outside failed.
    FailedGetExternalMetric,
    /// It may not grow faster.
    ScaleUpLimit,
    /// It may not shrink faster.
    ScaleDownLimit,
    /// The pool may not be larger.
    TooManyReplicas,
    /// The pool may not be smaller.
    TooFewReplicas,
    /// No bound cut it.
    DesiredWithinRange,
    /// This policy wanted no replica.
    ScaledToZero,
    /// It wanted some.
    NotScaledToZero,
}

impl Condition {
    /// It holds.
    pub(super) const fn yes(reason: ConditionReason) -> Option<Condition> {
        Some(Condition { is_true: true, reason, detail: Detail::None })
    }

    /// It does not hold.
    pub(super) const fn no(reason: ConditionReason) -> Option<Condition> {
        Some(Condition { is_true: false, reason, detail: Detail::None })
    }

    /// The message, for the policy that set the condition.
    pub fn message(&self, policy: &Hpa) -> String {
        let detail = match &self.detail {
            Detail::None => String::new(),
            Detail::Replicas(count) => count.to_string(),
            Detail::Metric(index) => policy.input(*index),
            Detail::Failed(text) => text.clone(),
        };
        let text = match self.reason {
            ConditionReason::SucceededGetScale => "the HPA controller was able to get the target's current scale",
            ConditionReason::ReadyForNewScale => "recommended size matches current size",
            ConditionReason::ScaleUpStabilized => {
                "recent recommendations were lower than current one, applying the lowest recent recommendation"
            }
            ConditionReason::ScaleDownStabilized => {
                "recent recommendations were higher than current one, applying the highest recent recommendation"
            }
            ConditionReason::SucceededRescale => {
                return format!("the HPA controller was able to update the target scale to {detail}");
            }
            ConditionReason::ValidMetricFound => {
                return format!("the HPA was able to successfully calculate a replica count from {detail}");
            }
            ConditionReason::ScalingDisabled => "scaling is disabled since the replica count of the target is zero",
            ConditionReason::FailedGetResourceMetric
            | ConditionReason::FailedGetContainerResourceMetric
            | ConditionReason::FailedGetPodsMetric
            | ConditionReason::FailedGetObjectMetric
            | ConditionReason::FailedGetExternalMetric => {
                return format!("the HPA was unable to compute the replica count: {detail}");
            }
            ConditionReason::ScaleUpLimit => "the desired replica count is increasing faster than the maximum scale rate",
            ConditionReason::ScaleDownLimit => "the desired replica count is decreasing faster than the maximum scale rate",
            ConditionReason::TooManyReplicas => "the desired replica count is more than the maximum replica count",
            ConditionReason::TooFewReplicas => "the desired replica count is less than the minimum replica count",
            ConditionReason::DesiredWithinRange => "the desired count is within the acceptable range",
            ConditionReason::ScaledToZero => "the HPA controller scaled the workload to zero",
            ConditionReason::NotScaledToZero => "the HPA controller did not scale the workload to zero",
        };
        text.to_owned()
    }
}

impl Conditions {
    /// Whether this policy put the pool to sleep.
    pub(super) fn is_scaled_to_zero(&self) -> bool {
        self.scaled_to_zero.as_ref().is_some_and(|condition| condition.is_true)
    }

    /// Those that were ever set, with the names that Kubernetes has for them.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Condition)> {
        let all = [
            ("AbleToScale", &self.able_to_scale),
            ("ScalingActive", &self.scaling_active),
            ("ScalingLimited", &self.scaling_limited),
            ("ScaledToZero", &self.scaled_to_zero),
        ];
        all.into_iter().filter_map(|(name, condition)| Some((name, condition.as_ref()?)))
    }
}

impl Source {
    /// The reason when it fails.
    pub(super) const fn failure(&self) -> ConditionReason {
        match self {
            Source::Resource => ConditionReason::FailedGetResourceMetric,
            Source::ContainerResource { .. } => ConditionReason::FailedGetContainerResourceMetric,
            Source::Pods => ConditionReason::FailedGetPodsMetric,
            Source::Object { .. } => ConditionReason::FailedGetObjectMetric,
            Source::External { .. } => ConditionReason::FailedGetExternalMetric,
        }
    }
}

impl Metric {
    /// What sentences call it.
    pub fn text(&self) -> String {
        let name = &self.name;
        let is_share = matches!(self.target, Target::Utilization(_));
        match &self.source {
            Source::Resource if is_share => format!("{name} resource utilization (percentage of request)"),
            Source::ContainerResource { .. } if is_share => {
                format!("{name} container resource utilization (percentage of request)")
            }
            Source::Resource | Source::ContainerResource { .. } => format!("{name} resource"),
            Source::Pods => format!("pods metric {name}"),
            Source::Object { kind } if matches!(self.target, Target::ValueMilli(_)) => format!("{kind} metric {name}"),
            // The controller words an object's average as if it came from outside.
            Source::Object { .. } => format!("external metric {name}(nil)"),
            Source::External { selector } => format!("external metric {name}({})", selector.as_deref().unwrap_or("nil")),
        }
    }
}

impl Hpa {
    /// The text of the event `SuccessfulRescale` that a decision leads to; `None` where nothing changes.
    pub fn event(&self, decision: &Decision) -> Option<String> {
        decision.is_change().then(|| format!("New size: {}; reason: {}", decision.wanted, self.rescale_reason(decision)))
    }

    fn rescale_reason(&self, decision: &Decision) -> String {
        if decision.reason == Reason::OutOfBounds {
            let side = if decision.wanted < decision.from { "above Spec.MaxReplicas" } else { "below Spec.MinReplicas" };
            return format!("Current number of replicas {side}");
        }
        let Some(winner) = decision.winner else { return String::new() };
        let proposal = match decision.verdicts.get(usize::from(winner)).map(|verdict| &verdict.answer) {
            Some(Answer::Replicas(count)) => *count,
            Some(Answer::Nothing | Answer::Failed(_)) | None => return String::new(),
        };
        match proposal.cmp(&decision.from) {
            std::cmp::Ordering::Greater => format!("{} above target", self.input(winner)),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            // A window alone moved the count.
            std::cmp::Ordering::Equal => String::new(),
        }
    }
}
