//! `sleep`: waits, holding its slot.

use std::time::Duration;

use ergate_events::task::TypeSettings;
use serde::Deserialize;

use super::BuiltIn;
use crate::TaskError;
use ergate_actors::executor::function::IntoTask;

/// What requests call it.
pub const NAME: &str = "sleep";

/// How long to wait.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Milliseconds.
    pub ms: u64,
}

pub(super) fn built_in() -> BuiltIn {
    BuiltIn { name: NAME, settings: TypeSettings::default(), function: sleep.into_task() }
}

async fn sleep(Payload { ms }: Payload) -> Result<(), TaskError> {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    Ok(())
}
