//! What a ScaledObject is told.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::scaling::formula::Formula;
use crate::scaling::hpa::{Behavior, Controller, Memories, Target};
use crate::scaling::real::Real;
use crate::scaling::setting::{self, SettingError, require};
use crate::scaling::signal::Bounds;
use crate::time::Micros;

/// Settings, with KEDA's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keda {
    /// What wakes it and what it is sized by.
    pub triggers: Vec<Trigger>,
    /// How often it looks at the triggers by itself: 30 s.
    #[serde(default = "polling")]
    pub polling: Micros,
    /// Looks at the triggers at every event as well, as triggers that push do. Its HPA keeps to its own period: what it may do in one look it
    /// could otherwise do with each task that comes.
    #[serde(default)]
    pub follows_events: bool,
    /// For how long no trigger has to be active before it goes to sleep: 300 s.
    #[serde(default = "cooldown")]
    pub cooldown: Micros,
    /// The same from the beginning on, while none has ever been active: 0 s.
    #[serde(default)]
    pub initial_cooldown: Micros,
    /// How many replicas sleep; `None` is the pool's minimum. KEDA itself knows no other count than 0 here.
    #[serde(default)]
    pub idle_replicas: Option<u32>,
    /// One number made of those of the triggers, by which it is sized instead of by each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling_modifiers: Option<Modifiers>,
    /// What to do when triggers cannot be read.
    #[serde(default)]
    pub fallback: Option<Fallback>,
    /// Whether somebody holds it.
    #[serde(default)]
    pub pause: Pause,
    /// Counts as active whatever the triggers say.
    #[serde(default)]
    pub force_activation: bool,
    /// The behavior of its HPA.
    #[serde(default)]
    pub behavior: Option<Behavior>,
    /// The settings of the controller that runs its HPA.
    #[serde(default)]
    pub controller: Controller,
    /// How that remembers.
    #[serde(default)]
    pub memory: Memories,
}

/// One trigger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// What a formula calls it; `None` is the name of its signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The signal.
    pub signal: String,
    /// So much for each replica (`average_value_milli`), or in all (`value_milli`).
    pub target: Target,
    /// It is active above this: 0.
    #[serde(default)]
    pub activation: Real,
}

/// A number made of those of the triggers, in the words of KEDA's `scalingModifiers`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modifiers {
    /// How it is made, over the names of the triggers.
    pub formula: Formula,
    /// So much for each replica (`average_value_milli`), or in all (`value_milli`).
    pub target: Target,
    /// It is active above this: 0.
    #[serde(default)]
    pub activation: Real,
}

/// What to do when a trigger cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// After more failures in a row than this …
    pub failures: u32,
    /// … there should be so many replicas.
    pub replicas: u32,
    /// Whether it may be more or fewer.
    #[serde(default)]
    pub behavior: FallbackBehavior,
}

/// How the replicas of a fallback are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackBehavior {
    /// Exactly so many.
    #[default]
    Static,
    /// As many as there are.
    CurrentReplicas,
    /// As many as there are, if those are more.
    CurrentReplicasIfHigher,
    /// As many as there are, if those are fewer.
    CurrentReplicasIfLower,
}

/// Whether somebody holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// Nobody.
    #[default]
    Running,
    /// It stays where it is.
    Paused,
    /// It goes there and stays; unlike KEDA's, never above the pool's maximum.
    At(u32),
    /// It does not shrink.
    ScaleIn,
    /// It does not grow.
    ScaleOut,
}

const fn polling() -> Micros {
    Micros::from_secs(30)
}

const fn cooldown() -> Micros {
    Micros::from_secs(300)
}

pub(super) fn check(policy: &Keda, bounds: Bounds) -> Result<(), SettingError> {
    setting::inputs("triggers", policy.triggers.len())?;
    for (index, trigger) in policy.triggers.iter().enumerate() {
        setting::name(&format!("triggers[{index}].signal"), &trigger.signal)?;
        if let Some(name) = &trigger.name {
            setting::name(&format!("triggers[{index}].name"), name)?;
        }
        check_target(&format!("triggers[{index}].target"), trigger.target)?;
    }
    if let Some(modifiers) = &policy.scaling_modifiers {
        modifiers.formula.check("scaling_modifiers.formula", policy.triggers.iter().map(Trigger::name))?;
        check_target("scaling_modifiers.target", modifiers.target)?;
    }
    setting::span("polling", policy.polling, Micros::from_secs(1), Micros::from_secs(86_400))?;
    setting::span("cooldown", policy.cooldown, Micros(0), setting::SPAN_MAX)?;
    setting::span("initial_cooldown", policy.initial_cooldown, Micros(0), setting::SPAN_MAX)?;
    if let Some(idle) = policy.idle_replicas {
        require(idle < bounds.min, "idle_replicas", idle, "fewer than the pool's minimum")?;
    }
    Ok(())
}

fn check_target(key: &str, target: Target) -> Result<(), SettingError> {
    match target {
        Target::AverageValueMilli(milli) | Target::ValueMilli(milli) => require(milli > 0, key, milli, "above 0"),
        Target::Utilization(_) => require(false, key, "utilization", "average_value_milli or value_milli"),
    }
}

impl Trigger {
    /// What a formula calls it.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.signal)
    }
}

impl Fallback {
    /// How many replicas that is where there are so many.
    pub(super) fn replicas(self, current: u32) -> u32 {
        match self.behavior {
            FallbackBehavior::Static => self.replicas,
            FallbackBehavior::CurrentReplicas => current,
            FallbackBehavior::CurrentReplicasIfHigher => current.max(self.replicas),
            FallbackBehavior::CurrentReplicasIfLower => current.min(self.replicas),
        }
    }
}
