//! How work comes into a runtime.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ergate_actors::submission::{Extras, RequestBatch, SubmitError};
#[cfg(feature = "kafka")]
use ergate_events::id::ShardId;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};

use super::{BATCH_REQUESTS_MAX, Batch, Front, RETRY_AFTER, Runtime, Task, UNDECIDED, UNDECIDED_BYTES_MAX};
use crate::wiring::Parts;

/// Submitting.
///
/// A request is *accepted* when the event that says so is durable: synced on this machine, or committed on Kafka, where any engine of the namespace
/// may be the one that accepts and executes it. From then on its task ends, whatever happens to this process.
impl Runtime {
    /// Submits a task and waits until it is accepted. On Kafka that takes as long as some engine needs to read the request and commit; while no
    /// engine leads its shard, it waits.
    ///
    /// # Errors
    /// [`SubmitError`], see [`Runtime::submit_batch`]; [`SubmitError::Payload`] when the payload cannot be written as JSON,
    /// [`SubmitError::Rejected`] or, on Kafka, [`SubmitError::Refused`] when the answer is no.
    pub async fn submit(&self, task_type: &str, payload: &(impl Serialize + ?Sized)) -> Result<Task, SubmitError> {
        self.submit_with(task_type, payload, Extras::default()).await
    }

    /// Submits a task with what few tasks have. On Kafka a retry policy of its own has the jitter of its type, for a request cannot name one.
    ///
    /// # Errors
    /// As [`Runtime::submit`].
    pub async fn submit_with(
        &self,
        task_type: &str,
        payload: &(impl Serialize + ?Sized),
        extras: Extras,
    ) -> Result<Task, SubmitError> {
        let mut batch = RequestBatch::with_capacity(1, 128);
        let id = self.task_type(task_type)?;
        batch
            .push_with(id, Some(Box::new(extras)), |bytes| serde_json::to_writer(bytes, payload))
            .map_err(|error| SubmitError::Payload { reason: error.to_string() })?;
        Task::of(self.submit_batch(batch).await?, self.clone())
    }

    /// Submits many tasks at once and waits until the answers are durable. Waits while the runtime has no room to decide them.
    ///
    /// On Kafka a request with an idempotency key goes to the shard that Kafka's clients choose for a record with that key, so that the same
    /// key meets the same shard whoever publishes it; the others of a batch go to one shard, which is another one for each batch.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too much is live, space runs out or brokers do not answer; [`SubmitError::Unknown`] when the log failed, or the
    /// brokers or this engine did, before the answer was durable; [`SubmitError::Closed`] when the runtime has stopped.
    pub async fn submit_batch(&self, requests: RequestBatch) -> Result<Batch, SubmitError> {
        self.admit(&requests)?;
        let room = Arc::clone(&self.inner.room).acquire_many_owned(permits(&requests)).await.map_err(|_| self.closed())?;
        match &self.inner.front {
            Front::Local(parts) if requests.names_tasks() => self.submit_dependents(parts, &requests, room).await,
            Front::Local(parts) => parts.submit(requests, Some(room)).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => Ok(engine.submit(requests, None, room).await?.or_ask(self.clone())),
        }
    }

    /// As [`Runtime::submit_batch`], all of it to one shard whatever the keys are.
    #[cfg(feature = "kafka")]
    pub(crate) async fn submit_to(&self, shard: ShardId, requests: RequestBatch) -> Result<Batch, SubmitError> {
        let Front::Kafka(engine) = &self.inner.front else { return self.submit_batch(requests).await };
        self.admit(&requests)?;
        let room = Arc::clone(&self.inner.room).acquire_many_owned(permits(&requests)).await.map_err(|_| self.closed())?;
        engine.submit(requests, Some(shard), room).await
    }

    /// As [`Runtime::submit_batch`], but answers [`SubmitError::Busy`] where that would wait for room.
    ///
    /// # Errors
    /// As [`Runtime::submit_batch`].
    pub async fn try_submit_batch(&self, requests: RequestBatch) -> Result<Batch, SubmitError> {
        self.admit(&requests)?;
        let room = self.room_now(&requests)?;
        match &self.inner.front {
            Front::Local(parts) if requests.names_tasks() => self.submit_dependents(parts, &requests, room).await,
            Front::Local(parts) => self.noted(parts.try_submit(requests, room).await),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => Ok(engine.submit(requests, None, room).await?.or_ask(self.clone())),
        }
    }

    /// Submits requests that name tasks; `_room` is theirs until they are answered.
    async fn submit_dependents(
        &self,
        parts: &Parts,
        requests: &RequestBatch,
        _room: OwnedSemaphorePermit,
    ) -> Result<Batch, SubmitError> {
        Ok(Batch::untold(parts.submit_dependents(requests).await?, self.clone()))
    }

    fn room_now(&self, requests: &RequestBatch) -> Result<OwnedSemaphorePermit, SubmitError> {
        let room = Arc::clone(&self.inner.room).try_acquire_many_owned(permits(requests));
        self.noted(room.map_err(|error| match error {
            TryAcquireError::NoPermits => SubmitError::Busy { reason: UNDECIDED, retry_after: RETRY_AFTER },
            TryAcquireError::Closed => self.closed(),
        }))
    }

    /// Whether new work may come in. On Kafka it always may: where too much is live already, requests wait in their topic.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] and [`SubmitError::BatchTooLarge`], as [`Runtime::submit_batch`] would answer, which takes the batch with it.
    pub fn admit(&self, requests: &RequestBatch) -> Result<(), SubmitError> {
        if requests.len() > BATCH_REQUESTS_MAX || requests.bytes() > UNDECIDED_BYTES_MAX {
            return Err(SubmitError::BatchTooLarge { requests: requests.len(), bytes: requests.bytes() });
        }
        match &self.inner.front {
            Front::Local(parts) => self.noted(parts.admit(requests.len(), self.inner.tasks_live_max)),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => Ok(()),
        }
    }

    /// Counts an answer that asks the caller to come again.
    fn noted<T>(&self, answer: Result<T, SubmitError>) -> Result<T, SubmitError> {
        if let Err(SubmitError::Busy { .. }) = answer {
            self.inner.busy.fetch_add(1, Relaxed);
        }
        answer
    }

    pub(super) fn closed(&self) -> SubmitError {
        SubmitError::Closed { reason: self.failure().unwrap_or_else(|| "it was shut down".to_owned()) }
    }
}

/// Kilobytes of room that a batch needs.
fn permits(requests: &RequestBatch) -> u32 {
    u32::try_from((requests.bytes() >> 10) + 1).unwrap_or(u32::MAX).min((UNDECIDED_BYTES_MAX >> 10) as u32)
}
