//! Built-in task types, one a file.

pub mod fail;
pub mod file_digest;
pub mod noop;
pub mod sleep;

use std::sync::Arc;

use ergate_events::task::TypeSettings;

use crate::{Builder, TaskFunction};

/// A task type that comes with Ergate.
pub struct BuiltIn {
    /// What requests call it.
    pub name: &'static str,
    /// What the rules need to know about it.
    pub settings: TypeSettings,
    /// What runs it.
    pub function: Arc<dyn TaskFunction>,
}

/// All built-in task types.
pub fn all() -> [BuiltIn; 4] {
    [fail::built_in(), file_digest::built_in(), noop::built_in(), sleep::built_in()]
}

/// Registers all built-in task types.
#[must_use]
pub fn register(builder: Builder) -> Builder {
    all().into_iter().fold(builder, |builder, BuiltIn { name, settings, function }| builder.task_with(name, settings, function))
}
