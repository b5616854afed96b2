//! Plug-in observers: what a program registers to be told of every turn in the life of a task type's attempts.
//!
//! ```text
//!  durable log ──▶ Projector ──Notice──▶ queue (bounded) ──▶ a thread for each observer
//! ```
//! The projector hands notices over and never waits: what does not fit is counted and said. An observer can therefore neither hold a task up nor
//! change how it ends; who needs every turn, and after a restart too, follows the log.

mod queue;
mod watch;

use std::sync::Arc;

use ergate_events::event::Cause;
use ergate_events::id::{Position, TaskId};
use ergate_events::task::Outcome;
use ergate_events::time::Timestamp;

pub(crate) use self::queue::drop_quietly;
pub use self::queue::{FINISH_WITHIN, NOTICES_BYTES_MAX, NOTICES_MAX, Observer, ObserverCounts, PANICS_MAX};
pub use self::watch::{SharedWatch, Watch};
use crate::executor::factory::FactoryError;

/// Most observers of a runtime: each has a thread.
pub const OBSERVERS_MAX: usize = 64;

/// Makes the observer of one task type when a runtime starts, and anew after it has panicked.
pub trait EventObserverFactory: Send + Sync {
    /// The task type whose attempts are observed.
    fn task_type(&self) -> &str;

    /// Looks whether everything is there that the observer needs.
    ///
    /// # Errors
    /// Whatever is missing; the runtime does not start then.
    fn init(&self) -> Result<(), FactoryError> {
        Ok(())
    }

    /// Makes the observer, which is told of all tasks of the type.
    ///
    /// # Errors
    /// Whatever is wrong; the runtime does not start then. After a panic, the task type is observed no more.
    fn create(&self) -> Result<Box<dyn EventObserver>, FactoryError>;
}

/// Is told what happens to the attempts of a task type, in the order of the log, after it is durable. Whatever it does, blocking and panicking
/// included, is nothing to the tasks.
///
/// Every [`start`](EventObserver::start) is followed by one of `success`, `cancelled` and `error` for the same attempt, unless something was left
/// out because the observer was too slow, or the process ended.
pub trait EventObserver: Send {
    /// An attempt was given a slot.
    fn start(&mut self, attempt: &ObservedAttempt) {
        let _ = attempt;
    }

    /// An attempt told how far it is.
    fn progress(&mut self, attempt: &ObservedAttempt, progress: &ObservedProgress<'_>) {
        let _ = (attempt, progress);
    }

    /// An attempt ended with a result, and its task with it.
    fn success(&mut self, attempt: &ObservedAttempt, outcome: Outcome, result: &[u8]) {
        let _ = (attempt, outcome, result);
    }

    /// Its task was cancelled or killed, which `cause` tells apart.
    fn cancelled(&mut self, attempt: &ObservedAttempt, cause: Cause) {
        let _ = (attempt, cause);
    }

    /// An attempt ended without a result, or its task did before it began.
    fn error(&mut self, attempt: &ObservedAttempt, error: &ObservedError<'_>) {
        let _ = (attempt, error);
    }
}

/// The attempt that something happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedAttempt {
    /// Its task.
    pub task: TaskId,
    /// Which start of the task it is, counted from 1; 0 of a task that ended before the first.
    pub attempt: u32,
    /// The task type.
    pub task_type: Arc<str>,
    /// When it happened.
    pub at: Timestamp,
    /// The record of the task's shard that says so.
    pub position: Position,
}

/// How far an attempt says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedProgress<'a> {
    /// Of the whole, in percent, where it can tell.
    pub percent: Option<u8>,
    /// What it is doing.
    pub stage: &'a str,
    /// More about it.
    pub message: &'a str,
}

/// Why an attempt has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedError<'a> {
    /// The short name of the kind of failure; `timeout` and `lost` are the runtime's own.
    pub class: &'a str,
    /// What happened, for a person.
    pub message: &'a str,
    /// When the next attempt may start; `None` when the task ended with this one.
    pub again: Option<Timestamp>,
    /// Why there is no other attempt.
    pub cause: Option<Cause>,
}
