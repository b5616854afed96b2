//! Moves work from a source into a runtime: a bounded number of batches in flight, until the source ends, somebody interrupts, or the
//! log fails.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;

use ergate::events::id::TaskId;
use ergate::events::log::LogError;
use ergate::{Batch, RequestBatch, Runtime, SubmitError, TaskEnd, WaitError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::progress::{DRAW_EVERY, Display, number};
use super::signals::Signals;
use super::space::SpaceWatch;

/// Most requests in one batch.
pub(crate) const BATCH_REQUESTS: usize = 1_000;
/// Payload bytes after which a batch is sent off.
pub(crate) const BATCH_BYTES: usize = 4 << 20;
/// Batches whose tasks have not all ended; with the two limits above this bounds the memory of a run of any length.
const BATCHES_IN_FLIGHT: usize = 8;

/// A batch with one tag for each request, by which its answer is known.
pub(crate) struct Work<T> {
    pub(crate) requests: RequestBatch,
    pub(crate) tags: Vec<T>,
    /// What the source itself refused on the way, and why.
    pub(crate) refused: Vec<(T, String)>,
}

impl<T> Work<T> {
    pub(crate) fn new() -> Work<T> {
        Work { requests: RequestBatch::new(), tags: Vec::new(), refused: Vec::new() }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.refused.is_empty()
    }

    /// Whether it is time to send it off.
    pub(crate) fn is_full(&self) -> bool {
        self.tags.len() + self.refused.len() >= BATCH_REQUESTS || self.requests.bytes() >= BATCH_BYTES
    }
}

/// What became of a request.
pub(crate) enum Answer {
    /// The answer is no.
    Refused(SubmitError),
    /// The task, whether it was there before, and its end.
    Ended { id: TaskId, duplicate: bool, end: Result<TaskEnd, WaitError> },
}

/// Takes the answers.
pub(crate) trait Sink<T> {
    /// A batch is durable: its tags, and what the source refused.
    fn taken(&mut self, tags: &[T], refused: Vec<(T, String)>) -> anyhow::Result<()>;
    /// A request has its answer. An error ends the run.
    fn answered(&mut self, tag: T, answer: Answer) -> anyhow::Result<()>;
    /// Called after a batch of answers and about ten times a second: how many have an answer, of how many where that is known.
    fn progress(&mut self) -> anyhow::Result<(u64, Option<u64>)>;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Every request has its answer.
    AtEnd,
    /// A signal came; answers are missing.
    Interrupted,
}

/// Submits what comes from `source` and hands every answer to `sink`.
pub(crate) async fn run<T: Send + 'static>(
    runtime: &Runtime,
    signals: &mut Signals,
    display: &mut Display,
    source: mpsc::Receiver<Work<T>>,
    sink: &mut impl Sink<T>,
) -> anyhow::Result<Stopped> {
    let mut feed = Feed { runtime, source, held: None, submitting: None, at_end: false };
    let mut in_flight: JoinSet<Vec<(T, Answer)>> = JoinSet::new();
    let mut tick = tokio::time::interval(DRAW_EVERY);
    let mut space = SpaceWatch::default();
    while !(feed.at_end && in_flight.is_empty()) {
        tokio::select! {
            biased;
            () = signals.next() => {
                // What was handed over is waited for, so that the sink knows what was taken.
                if let Some((_, known)) = feed.settle().await? {
                    sink.taken(&known.tags, known.refused)?;
                }
                return Ok(Stopped::Interrupted);
            }
            Some(reason) = runtime.failed() => return Err(failure(reason)),
            _ = tick.tick() => {
                let (done, total) = sink.progress()?;
                display.update(done, total, &detail(runtime));
                space.look(runtime);
            }
            Some(answers) = in_flight.join_next() => {
                answers?.into_iter().try_for_each(|(tag, answer)| sink.answered(tag, answer))?;
                sink.progress()?;
            }
            taken = feed.next(), if !feed.at_end && in_flight.len() < BATCHES_IN_FLIGHT => if let Some((batch, Known { tags, refused })) = taken? {
                sink.taken(&tags, refused)?;
                in_flight.spawn(follow(runtime.clone(), batch, tags));
            },
        }
    }
    sink.progress()?;
    Ok(Stopped::AtEnd)
}

/// The error of a verb whose log refused to go on.
pub(crate) fn failure(reason: String) -> anyhow::Error {
    LogError::Poisoned { reason }.into()
}

fn detail(runtime: &Runtime) -> String {
    let (backlog, replicas) = runtime.with_progress(|progress| (progress.backlog(), progress.replicas_total()));
    format!(", backlog {}, replicas {replicas}", number(backlog))
}

type Submitting = Pin<Box<dyn Future<Output = Result<Batch, SubmitError>> + Send>>;

/// What is remembered of a batch that was handed over.
struct Known<T> {
    tags: Vec<T>,
    refused: Vec<(T, String)>,
}

/// Submits what comes from a source.
struct Feed<'a, T> {
    runtime: &'a Runtime,
    source: mpsc::Receiver<Work<T>>,
    /// Taken from the source, and not yet admitted.
    held: Option<Work<T>>,
    /// Handed over, and not yet durable.
    submitting: Option<(Submitting, Known<T>)>,
    at_end: bool,
}

impl<T> Feed<'_, T> {
    /// Submits the next batch once there is one and room for it; `None` at the end of the source. Nothing is lost when this is dropped
    /// and called again.
    async fn next(&mut self) -> anyhow::Result<Option<(Batch, Known<T>)>> {
        if self.submitting.is_none() && !self.hand_over().await? {
            self.at_end = true;
            return Ok(None);
        }
        self.settle().await
    }

    /// Waits until what was handed over is durable.
    async fn settle(&mut self) -> anyhow::Result<Option<(Batch, Known<T>)>> {
        let Some((submitting, _)) = &mut self.submitting else { return Ok(None) };
        let batch = submitting.await;
        Ok(self.submitting.take().map(|(_, known)| known).zip(Some(batch?)).map(|(known, batch)| (batch, known)))
    }

    /// Hands over the next batch; says whether there was one.
    async fn hand_over(&mut self) -> anyhow::Result<bool> {
        if self.held.is_none() {
            self.held = self.source.recv().await;
        }
        let Some(work) = &self.held else { return Ok(false) };
        while let Err(error) = self.runtime.admit(&work.requests) {
            let SubmitError::Busy { retry_after, .. } = error else { return Err(error.into()) };
            tokio::time::sleep(retry_after.to_std()).await;
        }
        let Some(Work { requests, tags, refused }) = self.held.take() else { return Ok(false) };
        let runtime = self.runtime.clone();
        self.submitting = Some((Box::pin(async move { runtime.submit_batch(requests).await }), Known { tags, refused }));
        Ok(true)
    }
}

/// Waits for the answers of a batch.
async fn follow<T>(runtime: Runtime, batch: Batch, tags: Vec<T>) -> Vec<(T, Answer)> {
    let answers: Vec<_> = batch.answer.iter().collect();
    let known = answers.iter().flatten().filter(|(_, duplicate)| *duplicate).map(|(task, _)| *task).collect();
    let ends = ends(&runtime, batch, known).await;
    let answer = |answer| match answer {
        Err(rejection) => Answer::Refused(rejection),
        Ok((id, duplicate)) => {
            let end = ends.as_ref().map(|ends| ends.get(&id).cloned());
            let end = end.map_or(Err(WaitError::Stopped), |end| end.ok_or(WaitError::NoSuchTask(id)));
            Answer::Ended { id, duplicate, end }
        }
    };
    tags.into_iter().zip(answers.into_iter().map(answer)).collect()
}

/// The ends of a batch's own tasks, and of those that its requests repeat; `None` when the runtime stops before.
async fn ends(runtime: &Runtime, batch: Batch, known: BTreeSet<TaskId>) -> Option<BTreeMap<TaskId, TaskEnd>> {
    let mut ends: BTreeMap<_, _> = batch.wait().await.ok()?.into_ends().collect();
    if !known.is_empty() {
        ends.extend(runtime.wait_all(known).await.ok()?);
    }
    Some(ends)
}
