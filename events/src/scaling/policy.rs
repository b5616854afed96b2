//! What every policy can do, and all policies behind one name.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::composite::{self, Composite};
use super::decision::Decision;
use super::hpa::{self, Hpa};
use super::keda::{self, Keda};
use super::kpa::{self, Kpa};
use super::rate::{self, Rate};
use super::setting::SettingError;
use super::signal::{Bounds, Observation};
use super::step::{self, Step};
use super::target_tracking::{self, TargetTracking};
use super::threshold::{self, Threshold};
use crate::time::Micros;

/// When a policy wants to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cadence {
    /// Every so often, whatever happens.
    Every(Micros),
    /// Whenever something happened, but not more often than this, and by a timer in between.
    OnEvents {
        /// Shortest time from a decision to the next one that may grow the pool.
        up: Micros,
        /// Shortest time from a decision to the next one that may shrink it.
        down: Micros,
        /// Longest time without a look.
        timer: Micros,
    },
}

impl Cadence {
    /// What a policy that follows events does unless told otherwise: an enqueue is acted on at once, and a burst is one decision.
    pub const EVENTS: Cadence =
        Cadence::OnEvents { up: Micros::from_millis(10), down: Micros::from_secs(1), timer: Micros::from_secs(15) };
}

/// A rule that sizes a pool.
///
/// A policy is its settings and nothing more: what it remembers is handed in, what it sees is handed in, and it looks nowhere else. So the same
/// three give the same decision, in the engine, in an audit and in a simulation.
///
/// The memory is changed in place. A pure function from one memory to the next is the same thing for whoever keeps a copy, and a simulation that
/// decides a million times does not copy a window of recommendations a million times.
pub trait Policy {
    /// What it remembers from one decision to the next; the default is a policy that has seen nothing.
    type Memory: Clone + Default + PartialEq;

    /// Whether the settings make sense for a pool with these bounds.
    ///
    /// # Errors
    /// Names the setting, its value and what is allowed.
    fn check(&self, bounds: Bounds) -> Result<(), SettingError>;

    /// When it wants to be asked.
    fn cadence(&self) -> Cadence;

    /// Decides, and remembers what the next decision needs.
    fn evaluate(&self, memory: &mut Self::Memory, observation: &Observation) -> Decision;

    /// Hears that the decision just made was not carried out and the pool got `wanted` instead: another member of a composite wanted more, an
    /// operator or a ceiling was in the way, or the policy only runs in another's shadow. Whoever counts its own changes corrects them.
    fn overruled(&self, memory: &mut Self::Memory, observation: &Observation, wanted: u32);

    /// What an input is called in a sentence.
    fn input(&self, index: u16) -> String;
}

/// Declares an enumeration of policies and one of their memories: a line each.
macro_rules! policies {
    ($(#[$about:meta])* $any:ident, $(#[$remembers:meta])* $memories:ident: $($(#[$doc:meta])* $name:ident($settings:ty, $memory:ty),)*) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
        #[serde(tag = "policy", rename_all = "snake_case")]
        pub enum $any {
            $($(#[$doc])* $name($settings),)*
        }

        $(#[$remembers])*
        #[derive(Clone, Debug, Default, PartialEq, Encode, Decode, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $memories {
            /// Nothing yet.
            #[default]
            New,
            $($(#[$doc])* $name($memory),)*
        }

        impl Policy for $any {
            type Memory = $memories;

            fn check(&self, bounds: Bounds) -> Result<(), SettingError> {
                match self { $($any::$name(policy) => policy.check(bounds),)* }
            }

            fn cadence(&self) -> Cadence {
                match self { $($any::$name(policy) => policy.cadence(),)* }
            }

            fn evaluate(&self, memory: &mut $memories, observation: &Observation) -> Decision {
                match self {
                    $($any::$name(policy) => {
                        // What another kind of policy remembered means nothing to this one.
                        if !matches!(memory, $memories::$name(_)) {
                            *memory = $memories::$name(Default::default());
                        }
                        let mut decision = match memory {
                            $memories::$name(memory) => policy.evaluate(memory, observation),
                            #[allow(unreachable_patterns, clippy::wildcard_enum_match_arm, reason = "it was made so above")]
                            _ => Decision::draft(observation),
                        };
                        // Policies know one maximum; which of two it is, is the same for all of them.
                        decision.name_ceiling(observation);
                        decision
                    })*
                }
            }

            fn overruled(&self, memory: &mut $memories, observation: &Observation, wanted: u32) {
                match (self, memory) {
                    $(($any::$name(policy), $memories::$name(memory)) => policy.overruled(memory, observation, wanted),)*
                    // A memory of another kind has decided nothing.
                    (_, $memories::New $(| $memories::$name(_))*) => {}
                }
            }

            fn input(&self, index: u16) -> String {
                match self { $($any::$name(policy) => policy.input(index),)* }
            }
        }
    };
}

policies! {
    /// Any policy.
    AnyPolicy,
    /// What any policy remembers.
    Memory:
    /// Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`.
    Hpa(Hpa, hpa::Memory),
    /// KEDA's ScaledObject.
    Keda(Keda, keda::Memory),
    /// Target tracking as AWS Application Auto Scaling does it.
    TargetTracking(TargetTracking, target_tracking::Memory),
    /// Step scaling as AWS Application Auto Scaling does it.
    Step(Step, step::Memory),
    /// Knative's pod autoscaler.
    Kpa(Kpa, kpa::Memory),
    /// Arrivals and backlog against service time.
    Rate(Rate, rate::Memory),
    /// Rules of the form "above this for so long: one more".
    Threshold(Threshold, threshold::Memory),
    /// The largest of several.
    Composite(Composite, composite::Memory),
}

impl AnyPolicy {
    /// What it remembers of a pool of this size before its first look. An HPA leaves a pool alone that somebody else set to 0, so one that begins with
    /// no replica has to know that it is to wake it.
    pub fn begin(&self, size: u32) -> Memory {
        match self {
            _ if size > 0 => Memory::New,
            AnyPolicy::Hpa(_) => Memory::Hpa(hpa::Memory::asleep()),
            AnyPolicy::Composite(composite) => Memory::Composite(composite.asleep()),
            AnyPolicy::Keda(_)
            | AnyPolicy::TargetTracking(_)
            | AnyPolicy::Step(_)
            | AnyPolicy::Kpa(_)
            | AnyPolicy::Rate(_)
            | AnyPolicy::Threshold(_) => Memory::New,
        }
    }
}

policies! {
    /// Any policy that is not made of others.
    Single,
    /// What such a policy remembers.
    SingleMemory:
    /// Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`.
    Hpa(Hpa, hpa::Memory),
    /// KEDA's ScaledObject.
    Keda(Keda, keda::Memory),
    /// Target tracking as AWS Application Auto Scaling does it.
    TargetTracking(TargetTracking, target_tracking::Memory),
    /// Step scaling as AWS Application Auto Scaling does it.
    Step(Step, step::Memory),
    /// Knative's pod autoscaler.
    Kpa(Kpa, kpa::Memory),
    /// Arrivals and backlog against service time.
    Rate(Rate, rate::Memory),
    /// Rules of the form "above this for so long: one more".
    Threshold(Threshold, threshold::Memory),
}
