//! Plug-in executors: what a program registers to run a kind of task that is not one function.

use std::error::Error;
use std::sync::Arc;

use ergate_events::task::TypeSettings;

use super::function::TaskFunction;

/// Why a factory cannot make its executor.
pub type FactoryError = Box<dyn Error + Send + Sync>;

/// Makes the executor of one task type when a runtime starts.
///
/// A runtime calls [`init`](ExecutorFactory::init) and then [`create`](ExecutorFactory::create) once, before anything runs. What is created runs the
/// attempts on the threads of all replicas.
pub trait ExecutorFactory: Send + Sync {
    /// The task type, as requests name it.
    fn task_type(&self) -> &str;

    /// What the rules need to know about the task type.
    fn settings(&self) -> TypeSettings {
        TypeSettings::default()
    }

    /// Looks whether everything is there that the executor needs.
    ///
    /// # Errors
    /// Whatever is missing; the runtime does not start then.
    fn init(&self) -> Result<(), FactoryError> {
        Ok(())
    }

    /// Makes what runs the attempts.
    ///
    /// # Errors
    /// Whatever is wrong; the runtime does not start then.
    fn create(&self) -> Result<Arc<dyn TaskFunction>, FactoryError>;
}
