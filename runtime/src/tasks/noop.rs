//! `noop`: takes any JSON and does nothing, to see what the runtime itself costs.

use ergate_events::task::TypeSettings;
use serde::de::IgnoredAny;

use super::BuiltIn;
use crate::TaskError;
use ergate_actors::executor::function::IntoTask;

/// What requests call it.
pub const NAME: &str = "noop";

pub(super) fn built_in() -> BuiltIn {
    BuiltIn { name: NAME, settings: TypeSettings::default(), function: noop.into_task() }
}

async fn noop(_: IgnoredAny) -> Result<(), TaskError> {
    Ok(())
}
