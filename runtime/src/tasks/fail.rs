//! `fail`: fails as told, to see retries and dead letters.

use ergate_events::task::TypeSettings;
use serde::Deserialize;

use super::BuiltIn;
use crate::TaskError;
use ergate_actors::executor::function::IntoTask;

/// What requests call it.
pub const NAME: &str = "fail";

/// How to fail.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The short name of the kind of failure.
    #[serde(default = "asked_for")]
    pub class: String,
    /// What happened.
    #[serde(default)]
    pub message: String,
    /// Whether another attempt is worth it.
    #[serde(default)]
    pub retryable: bool,
}

fn asked_for() -> String {
    "asked_for".to_owned()
}

pub(super) fn built_in() -> BuiltIn {
    BuiltIn { name: NAME, settings: TypeSettings::default(), function: fail.into_task() }
}

async fn fail(Payload { class, message, retryable }: Payload) -> Result<(), TaskError> {
    Err(if retryable { TaskError::new(class, message) } else { TaskError::permanent(class, message) })
}
