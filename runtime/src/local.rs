//! What a runtime asks of a shard that is led here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ergate_actors::log_thread::LogCounters;
use ergate_actors::log_writer::{Close, CopyState, Propose, Tail, WatchTask, Watched};
use ergate_actors::proposal::Proposal;
use ergate_actors::submission::{RequestBatch, Submission, SubmitError, TaskEnd};
use ergate_events::id::{Position, TaskId};
use ergate_events::log::LogError;
use ergate_events::state::State;
use ergate_events::time::Micros;
use ergate_events::view::Progress;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use crate::runtime::RETRY_AFTER;
use crate::task::{Awaited, Batch, WaitError};
use crate::wiring::Parts;

/// How long a shutdown waits for a snapshot that is being written: gigabytes on a slow disk. After that it stays unfinished.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(30);

impl Parts {
    pub(crate) async fn submit(&self, requests: RequestBatch, room: Option<OwnedSemaphorePermit>) -> Result<Batch, SubmitError> {
        let (submission, awaited) = submission(requests, room);
        self.submissions.send(submission).await.map_err(|_| self.closed())?;
        awaited.batch().await.ok_or_else(|| self.unknown())?
    }

    pub(crate) async fn try_submit(&self, requests: RequestBatch, room: OwnedSemaphorePermit) -> Result<Batch, SubmitError> {
        let (submission, awaited) = submission(requests, Some(room));
        self.submissions.try_send(submission).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::Busy { reason: crate::runtime::UNDECIDED, retry_after: RETRY_AFTER },
            TrySendError::Closed(_) => self.closed(),
        })?;
        awaited.batch().await.ok_or_else(|| self.unknown())?
    }

    /// Whether so many new tasks may come in.
    pub(crate) fn admit(&self, requests: usize, tasks_live_max: usize) -> Result<(), SubmitError> {
        admit(&self.counters, &self.tail, requests, tasks_live_max)
    }

    /// The ends of the shard's tasks among these; those of which the log has none are left out.
    pub(crate) async fn wait_all(&self, tasks: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, TaskEnd>, WaitError> {
        let (mut live, mut ended, mut complete) = (Vec::new(), BTreeSet::new(), true);
        for task in tasks.into_iter().filter(|task| task.shard == self.shard) {
            let (watch, end) = oneshot::channel();
            let watched = self.writer.send(WatchTask { task: task.ordinal, watch }).await;
            match watched.map_err(|_| WaitError::Stopped)? {
                Watched::Live => live.push((task, end)),
                Watched::Before(position) => {
                    complete &= self.durable_at(position).await?;
                    ended.insert(task.ordinal);
                }
                Watched::Stopped => return Err(WaitError::Stopped),
            }
        }
        let mut ends = BTreeMap::new();
        if !ended.is_empty() {
            let (reader, wanted) = (Arc::clone(&self.reader), ended.len());
            let found = tokio::task::spawn_blocking(move || crate::history::ends_of(reader.as_ref(), ended)).await;
            let found = found.map_err(|_| WaitError::Stopped)??;
            if !complete && found.len() < wanted {
                return Err(WaitError::Stopped);
            }
            ends.extend(found.into_iter().map(|(ordinal, end)| (TaskId { shard: self.shard, ordinal }, end)));
        }
        for (task, end) in live {
            ends.insert(task, end.await.map_err(|_| WaitError::Stopped)?);
        }
        Ok(ends)
    }

    /// Waits until everything before a position is durable; says `false` when it never will be.
    pub(crate) async fn durable_at(&self, position: Position) -> Result<bool, WaitError> {
        let mut tail = self.tail.clone();
        let reached = tail.wait_for(|tail| tail.head.next >= position || tail.failed.is_some()).await;
        reached.map(|tail| tail.head.next >= position).map_err(|_| WaitError::Stopped)
    }

    pub(crate) async fn propose(&self, proposal: Proposal) -> Result<Position, SubmitError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Propose { proposal, reply }).await.map_err(|_| self.closed())?;
        answer.await.map_err(|_| self.unknown())?
    }

    pub(crate) async fn state(&self) -> Result<Box<State>, WaitError> {
        self.writer.send(CopyState).await.map_err(|_| WaitError::Stopped)
    }

    pub(crate) fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        read(&self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.tail.borrow().failed.clone()
    }

    /// Waits until the log fails, or the shard stops.
    pub(crate) async fn failed(&self) -> Option<String> {
        let mut tail = self.tail.clone();
        let failed = tail.wait_for(|tail| tail.failed.is_some()).await.ok()?;
        failed.failed.clone()
    }

    pub(crate) fn closed(&self) -> SubmitError {
        SubmitError::Closed { reason: self.failure().unwrap_or_else(|| "it was shut down".to_owned()) }
    }

    pub(crate) fn unknown(&self) -> SubmitError {
        SubmitError::Unknown {
            reason: self.failure().unwrap_or_else(|| "the runtime stopped before the answer was durable".to_owned()),
        }
    }

    /// Makes everything durable and closes the log.
    pub(crate) async fn close(&self) -> Result<(), LogError> {
        self.finish_snapshot().await;
        self.finish_indexes().await;
        let ((quiet, _), (reply, closed)) = (oneshot::channel(), oneshot::channel());
        match self.writer.send(Close { quiet, reply }).await {
            Ok(()) => closed.await.unwrap_or_else(|_| Err(panicked())),
            Err(_) => Err(panicked()),
        }
    }

    /// Waits for a snapshot that is being written, which must not go on when another process may have the directory.
    async fn finish_snapshot(&self) {
        let started = Instant::now();
        while self.snapshotting.load(Acquire) && started.elapsed() < SNAPSHOT_WAIT_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Indexes what was written last, which must not go on when another process may have the directory.
    async fn finish_indexes(&self) {
        let Some(indexer) = self.indexer.clone() else { return };
        if tokio::task::spawn_blocking(move || indexer.finish()).await.is_err() {
            tracing::error!("building the indexes panicked");
        }
    }
}

/// Whether so many new tasks may come into a shard.
pub(crate) fn admit(
    counters: &LogCounters,
    tail: &watch::Receiver<Tail>,
    requests: usize,
    tasks_live_max: usize,
) -> Result<(), SubmitError> {
    if counters.space_is_low.load(Relaxed) {
        let reason = "the disk is nearly full; free some space";
        return Err(SubmitError::Busy { reason, retry_after: Micros::from_secs(1) });
    }
    if tail.borrow().live + requests > tasks_live_max {
        return Err(SubmitError::Busy { reason: "too many tasks are waiting or running", retry_after: RETRY_AFTER });
    }
    Ok(())
}

/// What a log writer that is gone before it was closed has done.
fn panicked() -> LogError {
    LogError::Poisoned { reason: "the log writer panicked".to_owned() }
}

/// A batch on its way to a shard, and what comes back.
fn submission(requests: RequestBatch, room: Option<OwnedSemaphorePermit>) -> (Submission, Awaited) {
    let (reply, answer) = oneshot::channel();
    let (done, end) = oneshot::channel();
    (Submission { requests, reply, done: Some(done), room }, Awaited { answer, end })
}
