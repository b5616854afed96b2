//! A running runtime: submit, wait, look, stop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate_actors::dispatcher::Restarts;
use ergate_actors::log_thread::{Durability, LogCounters};
use ergate_actors::log_writer::{Close, CopyState, LogWriter, Propose, WatchTask};
use ergate_actors::proposal::Proposal;
use ergate_actors::submission::{BatchAnswer, BatchEnd, Extras, RequestBatch, Submission, SubmitError, TaskEnd};
use ergate_events::id::{Ordinal, Position, TaskId, TypeId};
use ergate_events::log::{LogError, LogReader, Space};
use ergate_events::state::State;
use ergate_events::time::Micros;
use ergate_events::view::Progress;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, TryAcquireError, oneshot};

use crate::builder::Builder;
use crate::store::RecoverError;
use crate::wiring::{self, Parts};

/// Most requests in one batch.
pub const BATCH_REQUESTS_MAX: usize = 65_536;
/// Most payload bytes in one batch, and in all batches that wait to be decided together.
pub const UNDECIDED_BYTES_MAX: usize = 64 << 20;
/// How long a shutdown waits for a snapshot that is being written: gigabytes on a slow disk. After that it stays unfinished.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a caller that finds the runtime full is asked to wait.
const RETRY_AFTER: Micros = Micros::from_millis(100);

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A task type or pool was refused.
    #[error("a task type or pool was refused")]
    Refused(#[from] SubmitError),
    /// The log has work that this process cannot do; see [`Builder::own_tasks_only`].
    #[error(
        "the log has {tasks} unfinished tasks of types that are not known here ({types}); run them with the program that submitted them, or use another data directory"
    )]
    NotOwn {
        /// How many.
        tasks: usize,
        /// Of which types.
        types: String,
    },
    /// The log failed while the runtime took it over.
    #[error("the log failed at the start: {reason}")]
    LogFailed {
        /// Why, with everything that caused it.
        reason: String,
    },
    /// There is no thread to run on.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// It panicked; the log says where.
    #[error("the runtime panicked while it started; its messages say where")]
    Panicked,
}

/// A running runtime. Clones share it; [`Runtime::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    front: Front,
    durability: Durability,
    tasks_live_max: usize,
    room: Arc<Semaphore>,
    /// Taken by whoever has shut it down; locked by whoever does.
    thread: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What a runtime stands in front of.
pub(crate) enum Front {
    /// The one shard of a log that only this process has.
    Local(Box<Parts>),
    /// An engine among others.
    #[cfg(feature = "kafka")]
    Kafka(Box<crate::kafka::Engine>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a handle nobody can stop it any more, and its log would stay locked. What was acknowledged is durable.
        match &self.front {
            Front::Local(parts) => parts.system.stop(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.abandon(),
        }
    }
}

impl Runtime {
    /// Begins to put a runtime together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(builder: &Builder, front: Front, thread: Option<JoinHandle<()>>) -> Runtime {
        let room = Arc::new(Semaphore::new(UNDECIDED_BYTES_MAX >> 10));
        let (durability, tasks_live_max) = (builder.durability, builder.tasks_live_max);
        Runtime { inner: Arc::new(Inner { front, durability, tasks_live_max, room, thread: tokio::sync::Mutex::new(thread) }) }
    }

    /// The one shard of a log that only this process has.
    #[expect(clippy::panic, reason = "being replaced")]
    fn parts(&self) -> &Parts {
        match &self.inner.front {
            Front::Local(parts) => parts,
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => panic!("not on Kafka yet"),
        }
    }

    /// What the engine leads, where there is one.
    #[cfg(feature = "kafka")]
    pub fn engine(&self) -> Option<crate::kafka::Standing> {
        match &self.inner.front {
            Front::Local(_) => None,
            Front::Kafka(engine) => Some(engine.standing.borrow().clone()),
        }
    }

    /// Submits a task and waits until it is durable.
    ///
    /// # Errors
    /// [`SubmitError`], see [`Runtime::submit_batch`]; [`SubmitError::Rejected`] when the payload cannot be written as JSON.
    pub async fn submit(&self, task_type: &str, payload: &(impl Serialize + ?Sized)) -> Result<Task, SubmitError> {
        self.submit_with(task_type, payload, Extras::default()).await
    }

    /// Submits a task with what few tasks have.
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
        let Batch { answer, done } = self.submit_batch(batch).await?;
        let (ordinal, duplicate) = answer.iter().next().unwrap_or(Ok((Ordinal(0), false)))?;
        let done = if duplicate { None } else { Some(done) };
        Ok(Task { id: TaskId::embedded(ordinal), duplicate, position: answer.position, done, runtime: self.clone() })
    }

    /// The id of a registered task type, for filling a [`RequestBatch`].
    ///
    /// # Errors
    /// [`SubmitError::UnknownType`] with the registered names.
    pub fn task_type(&self, name: &str) -> Result<TypeId, SubmitError> {
        let types = &self.parts().types;
        types.get(name).copied().ok_or_else(|| SubmitError::UnknownType {
            name: name.chars().take(64).collect(),
            known: types.keys().take(8).cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Submits many tasks at once and waits until the answers are durable. Waits while the runtime has no room to decide them.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too much is live or space runs out, [`SubmitError::Unknown`] when the log failed before the
    /// answer was durable, [`SubmitError::Closed`] when the runtime has stopped.
    pub async fn submit_batch(&self, requests: RequestBatch) -> Result<Batch, SubmitError> {
        self.admit(&requests)?;
        let permits = permits(&requests);
        let room = Arc::clone(&self.inner.room).acquire_many_owned(permits).await.map_err(|_| self.closed())?;
        let (reply, answer) = oneshot::channel();
        let (done, end) = oneshot::channel();
        let submission = Submission { requests, reply, done: Some(done), room: Some(room) };
        self.parts().submissions.send(submission).await.map_err(|_| self.closed())?;
        Ok(Batch { answer: answer.await.map_err(|_| self.unknown())??, done: end })
    }

    /// As [`Runtime::submit_batch`], but answers [`SubmitError::Busy`] where that would wait for room.
    ///
    /// # Errors
    /// As [`Runtime::submit_batch`].
    pub async fn try_submit_batch(&self, requests: RequestBatch) -> Result<Batch, SubmitError> {
        self.admit(&requests)?;
        let busy = SubmitError::Busy { reason: "too much waits to be recorded", retry_after: RETRY_AFTER };
        let room = match Arc::clone(&self.inner.room).try_acquire_many_owned(permits(&requests)) {
            Ok(room) => room,
            Err(TryAcquireError::NoPermits) => return Err(busy),
            Err(TryAcquireError::Closed) => return Err(self.closed()),
        };
        let (reply, answer) = oneshot::channel();
        let (done, end) = oneshot::channel();
        let submission = Submission { requests, reply, done: Some(done), room: Some(room) };
        self.parts().submissions.try_send(submission).map_err(|error| match error {
            TrySendError::Full(_) => busy,
            TrySendError::Closed(_) => self.closed(),
        })?;
        Ok(Batch { answer: answer.await.map_err(|_| self.unknown())??, done: end })
    }

    /// Whether new work may come in.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] and [`SubmitError::BatchTooLarge`], as [`Runtime::submit_batch`] would answer, which takes the batch with it.
    pub fn admit(&self, requests: &RequestBatch) -> Result<(), SubmitError> {
        if requests.len() > BATCH_REQUESTS_MAX || requests.bytes() > UNDECIDED_BYTES_MAX {
            return Err(SubmitError::BatchTooLarge { requests: requests.len(), bytes: requests.bytes() });
        }
        let parts = &self.parts();
        if parts.counters.space_is_low.load(Relaxed) {
            return Err(SubmitError::Busy {
                reason: "the disk is nearly full; free some space",
                retry_after: Micros::from_secs(1),
            });
        }
        if parts.tail.borrow().live + requests.len() > self.inner.tasks_live_max {
            return Err(SubmitError::Busy { reason: "too many tasks are waiting or running", retry_after: RETRY_AFTER });
        }
        Ok(())
    }

    /// Waits for the end of a task, which may have ended long ago.
    ///
    /// # Errors
    /// [`WaitError`] when there is no such task, or its end is no longer in the log.
    pub async fn wait(&self, task: TaskId) -> Result<TaskEnd, WaitError> {
        self.wait_all([task].into()).await?.remove(&task).ok_or(WaitError::NoSuchTask(task))
    }

    /// Waits for the ends of many tasks, which may have ended long ago; one pass over the log finds those. Tasks of which the log has no
    /// end are left out.
    ///
    /// # Errors
    /// [`WaitError::Stopped`], [`WaitError::Log`].
    pub async fn wait_all(&self, tasks: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, TaskEnd>, WaitError> {
        let (mut live, mut ended, mut complete) = (Vec::new(), BTreeSet::new(), true);
        for task in tasks {
            let (watch, end) = oneshot::channel();
            let watched = self.parts().writer.send(WatchTask { task: task.ordinal, watch }).await;
            match watched.map_err(|_| WaitError::Stopped)? {
                None => live.push((task, end)),
                Some(position) => {
                    complete &= self.durable_at(position).await?;
                    ended.insert(task.ordinal);
                }
            }
        }
        let mut ends = BTreeMap::new();
        if !ended.is_empty() {
            let (reader, wanted) = (Arc::clone(&self.parts().reader), ended.len());
            let found = tokio::task::spawn_blocking(move || crate::history::ends_of(reader.as_ref(), ended)).await;
            let found = found.map_err(|_| WaitError::Stopped)??;
            if !complete && found.len() < wanted {
                return Err(WaitError::Stopped);
            }
            ends.extend(found.into_iter().map(|(ordinal, end)| (TaskId::embedded(ordinal), end)));
        }
        for (task, end) in live {
            ends.insert(task, end.await.map_err(|_| WaitError::Stopped)?);
        }
        Ok(ends)
    }

    /// Waits until everything before a position is durable; says `false` when it never will be.
    async fn durable_at(&self, position: Position) -> Result<bool, WaitError> {
        let mut tail = self.parts().tail.clone();
        let reached = tail.wait_for(|tail| tail.head.next >= position || tail.failed.is_some()).await;
        reached.map(|tail| tail.head.next >= position).map_err(|_| WaitError::Stopped)
    }

    /// Asks a task to stop; its attempt may clean up first.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when there is no such task or it has ended.
    pub async fn cancel(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        self.propose(Proposal::Cancel { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() }).await
    }

    /// Ends a task now.
    ///
    /// # Errors
    /// As [`Runtime::cancel`].
    pub async fn kill(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        self.propose(Proposal::Kill { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() }).await
    }

    /// Tries a dead letter again, as a new task.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when it is not a dead letter.
    pub async fn redrive(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        self.propose(Proposal::Redrive { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() }).await
    }

    /// Sets the size of a pool.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when the size is out of range.
    pub async fn resize_pool(
        &self,
        pool: &str,
        replicas: u32,
        slots: u32,
        by: &str,
        reason: &str,
    ) -> Result<Position, SubmitError> {
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        self.propose(Proposal::DefinePool { pool, replicas, slots, by, reason }).await
    }

    /// Records a proposal and waits until the answer is durable.
    ///
    /// # Errors
    /// As [`Runtime::submit_batch`].
    pub async fn propose(&self, proposal: Proposal) -> Result<Position, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.parts().writer.send(Propose { proposal, reply }).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.unknown())?
    }

    /// A copy of the accepted state, which may be ahead of what is durable.
    ///
    /// # Errors
    /// [`WaitError::Stopped`].
    pub async fn state(&self) -> Result<Box<State>, WaitError> {
        self.parts().writer.send(CopyState).await.map_err(|_| WaitError::Stopped)
    }

    /// Counts and waits of everything durable, as far as the projector is.
    pub fn progress(&self) -> Progress {
        self.parts().progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the view of [`Runtime::progress`] without copying it.
    pub fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        read(&self.parts().progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything before this position is durable.
    pub fn durable(&self) -> Position {
        self.parts().tail.borrow().head.next
    }

    /// Tasks that had not ended when the newest durable block was decided.
    pub fn live(&self) -> usize {
        self.parts().tail.borrow().live
    }

    /// Why the log refuses to go on, if it does.
    pub fn failure(&self) -> Option<String> {
        self.parts().tail.borrow().failed.clone()
    }

    /// Waits until the log fails, or the runtime stops.
    pub async fn failed(&self) -> Option<String> {
        let mut tail = self.parts().tail.clone();
        loop {
            if let Some(reason) = tail.borrow().failed.clone() {
                return Some(reason);
            }
            if tail.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Reads the durable log.
    pub fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.parts().reader)
    }

    /// What the log thread has done.
    pub fn log_counters(&self) -> &LogCounters {
        &self.parts().counters
    }

    /// How much space is left for the log, as its thread last saw it; nothing is free and nothing wanted before it looked.
    pub fn space(&self) -> Space {
        let LogCounters { free_bytes, low_water_bytes, .. } = self.log_counters();
        Space { free_bytes: free_bytes.load(Relaxed), low_water_bytes: low_water_bytes.load(Relaxed) }
    }

    /// How often actors were started again.
    pub fn restarts(&self) -> &Restarts {
        &self.parts().restarts
    }

    /// When replies are given.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// The time by the runtime's clock.
    pub fn now(&self) -> ergate_events::time::Timestamp {
        self.parts().clock.now()
    }

    /// The shard's actor, for tests.
    #[doc(hidden)]
    pub fn writer(&self) -> &actix::Addr<LogWriter> {
        &self.parts().writer
    }

    /// The projector, for tests.
    #[doc(hidden)]
    pub fn projector(&self) -> actix::Addr<ergate_actors::projector::Projector> {
        self.parts().projector.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets running attempts finish for at most `drain`, makes everything durable and stops. Tasks that are not done go on at the next start.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be closed; what was acknowledged is durable all the same.
    pub async fn shutdown_within(&self, drain: Duration) -> Result<(), LogError> {
        self.inner.room.close();
        #[cfg(feature = "kafka")]
        if let Front::Kafka(engine) = &self.inner.front {
            engine.stop(drain).await;
            return Ok(());
        }
        let mut thread = self.inner.thread.lock().await;
        if thread.is_none() {
            return Ok(());
        }
        wiring::drain(self.parts(), drain).await;
        self.finish_snapshot().await;
        self.finish_indexes().await;
        let (reply, closed) = oneshot::channel();
        let outcome = match self.parts().writer.send(Close { reply }).await {
            Ok(()) => closed.await.unwrap_or_else(|_| Err(panicked())),
            Err(_) => Err(panicked()),
        };
        self.parts().system.stop();
        if let Some(thread) = thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the shard's thread panicked");
            }
        }
        outcome
    }

    /// As [`Runtime::shutdown_within`] ten seconds.
    ///
    /// # Errors
    /// As [`Runtime::shutdown_within`].
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.shutdown_within(Duration::from_secs(10)).await
    }

    /// Waits for a snapshot that is being written, which must not go on when another process may have the directory.
    async fn finish_snapshot(&self) {
        let started = Instant::now();
        while self.parts().snapshotting.load(std::sync::atomic::Ordering::Acquire) && started.elapsed() < SNAPSHOT_WAIT_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Indexes what was written last, which must not go on when another process may have the directory.
    async fn finish_indexes(&self) {
        let Some(indexer) = self.parts().indexer.clone() else { return };
        if tokio::task::spawn_blocking(move || indexer.finish()).await.is_err() {
            tracing::error!("building the indexes panicked");
        }
    }

    fn closed(&self) -> SubmitError {
        SubmitError::Closed { reason: self.failure().unwrap_or_else(|| "it was shut down".to_owned()) }
    }

    fn unknown(&self) -> SubmitError {
        SubmitError::Unknown {
            reason: self.failure().unwrap_or_else(|| "the runtime stopped before the answer was durable".to_owned()),
        }
    }
}

/// What a log writer that is gone before it was closed has done.
fn panicked() -> LogError {
    LogError::Poisoned { reason: "the log writer panicked".to_owned() }
}

/// Kilobytes of room that a batch needs.
fn permits(requests: &RequestBatch) -> u32 {
    u32::try_from((requests.bytes() >> 10) + 1).unwrap_or(u32::MAX).min((UNDECIDED_BYTES_MAX >> 10) as u32)
}

/// A batch whose answers are durable.
#[derive(Debug)]
pub struct Batch {
    /// What became of each request.
    pub answer: BatchAnswer,
    done: oneshot::Receiver<BatchEnd>,
}

impl Batch {
    /// Waits until every accepted task has ended.
    ///
    /// # Errors
    /// [`WaitError::Stopped`] when the runtime stops before.
    pub async fn wait(self) -> Result<BatchEnd, WaitError> {
        self.done.await.map_err(|_| WaitError::Stopped)
    }
}

/// A task whose request is durable.
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whether an earlier request with the same idempotency key created it.
    pub duplicate: bool,
    /// Everything up to here is durable, this request included.
    pub position: Position,
    done: Option<oneshot::Receiver<BatchEnd>>,
    runtime: Runtime,
}

impl Task {
    /// Waits for the end of the task.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn end(self) -> Result<TaskEnd, WaitError> {
        match self.done {
            Some(done) => {
                let end = done.await.map_err(|_| WaitError::Stopped)?;
                end.into_ends().next().map(|(_, end)| end).ok_or(WaitError::NoSuchTask(self.id))
            }
            None => self.runtime.wait(self.id).await,
        }
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

fn describe(failure: &ergate_actors::submission::EndFailure) -> String {
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

/// The names of all registered task types with their ids.
impl Runtime {
    /// Registered task types by name.
    pub fn task_types(&self) -> &BTreeMap<String, TypeId> {
        &self.parts().types
    }
}
