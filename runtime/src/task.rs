//! What was submitted, as whoever submitted it sees it.

use std::fmt;

use ergate_actors::submission::{BatchAnswer, BatchEnd, EndFailure, SubmitError, TaskEnd};
use ergate_events::id::{Position, ShardId, TaskId};
use ergate_events::log::LogError;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::runtime::Runtime;

/// A batch whose answers are durable.
pub struct Batch {
    /// What became of each request.
    pub answer: BatchAnswer,
    done: oneshot::Receiver<BatchEnd>,
    /// Who knows the ends if they are not told: of requests that name tasks, and on Kafka, where the connection on which they come may break.
    again: Option<Runtime>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("answer", &self.answer).finish_non_exhaustive()
    }
}

/// What a batch that was handed over waits for.
pub(crate) struct Awaited {
    pub(crate) answer: oneshot::Receiver<Result<BatchAnswer, SubmitError>>,
    pub(crate) end: oneshot::Receiver<BatchEnd>,
}

impl Awaited {
    /// Waits for the answers; `None` when whoever had the batch is gone.
    pub(crate) async fn batch(self) -> Option<Result<Batch, SubmitError>> {
        let answer = self.answer.await.ok()?;
        Some(answer.map(|answer| Batch { answer, done: self.end, again: None }))
    }
}

impl Batch {
    /// Waits until every accepted task has ended.
    ///
    /// # Errors
    /// [`WaitError::Stopped`] when the runtime stops before.
    pub async fn wait(self) -> Result<BatchEnd, WaitError> {
        let Batch { answer, done, again } = self;
        match (done.await, again) {
            (Ok(end), _) => Ok(end),
            (Err(_), None) => Err(WaitError::Stopped),
            (Err(_), Some(runtime)) => {
                let accepted = answer.iter().flatten().filter(|(_, duplicate)| !duplicate).map(|(task, _)| task);
                Ok(BatchEnd::of(runtime.wait_all(accepted.collect()).await?.into_iter().collect()))
            }
        }
    }

    /// A batch of which nobody tells the ends, so that the runtime looks for them.
    pub(crate) fn untold(answer: BatchAnswer, runtime: Runtime) -> Batch {
        let (_, done) = oneshot::channel();
        Batch { answer, done, again: Some(runtime) }
    }

    /// Lets the runtime look for the ends if they are not told.
    #[cfg(feature = "kafka")]
    pub(crate) fn or_ask(self, runtime: Runtime) -> Batch {
        Batch { again: Some(runtime), ..self }
    }
}

/// A task whose request is durable.
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whether an earlier request with the same idempotency key created it.
    pub duplicate: bool,
    /// Everything up to here is durable on the task's shard, this request included.
    pub position: Position,
    done: Option<oneshot::Receiver<BatchEnd>>,
    runtime: Runtime,
}

impl Task {
    /// The one task of a batch.
    pub(crate) fn of(batch: Batch, runtime: Runtime) -> Result<Task, SubmitError> {
        let Batch { answer, done, .. } = batch;
        let (id, duplicate) = answer.iter().next().unwrap_or(Ok((TaskId::default(), false)))?;
        Ok(Task { id, duplicate, position: answer.position, done: (!duplicate).then_some(done), runtime })
    }

    /// Waits for the end of the task.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn end(self) -> Result<TaskEnd, WaitError> {
        if let Some(done) = self.done
            && let Ok(end) = done.await
        {
            return end.into_ends().next().map(|(_, end)| end).ok_or(WaitError::NoSuchTask(self.id));
        }
        self.runtime.wait(self.id).await
    }

    /// Waits for the result of the task.
    ///
    /// # Errors
    /// [`WaitError::Unsuccessful`] with the reason when the task did not succeed, [`WaitError::Result`] when the result is not an `R`.
    pub async fn result<R: DeserializeOwned>(self) -> Result<R, WaitError> {
        let id = self.id;
        let end = self.end().await?;
        match end.failure {
            Some(failure) => Err(WaitError::Unsuccessful { task: id, outcome: end.outcome.name(), failure: describe(&failure) }),
            None => serde_json::from_slice(&end.result).map_err(|source| WaitError::Result { task: id, source }),
        }
    }
}

fn describe(failure: &EndFailure) -> String {
    let cause = format!("{:?}", failure.cause);
    if failure.message.is_empty() { cause } else { format!("{cause}: {}: {}", failure.class, failure.message) }
}

/// Why a task's end is not known here.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The runtime stopped; the task goes on at the next start.
    #[error("the runtime stopped before the task ended; it goes on at the next start")]
    Stopped,
    /// There is no such task, or retention has dropped its end.
    #[error("no end of task {0} is in the log: it was never requested, or retention has dropped it")]
    NoSuchTask(TaskId),
    /// Only the engine that leads a shard knows its state, and this one does not.
    #[error("shard {0} is not led by this engine but by another one, or by none for a moment")]
    LedElsewhere(ShardId),
    /// The task did not succeed.
    #[error("task {task} ended {outcome} ({failure})")]
    Unsuccessful {
        /// The task.
        task: TaskId,
        /// How it ended.
        outcome: &'static str,
        /// Why.
        failure: String,
    },
    /// The result is of another shape.
    #[error("the result of task {task} is not of the type asked for")]
    Result {
        /// The task.
        task: TaskId,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}
