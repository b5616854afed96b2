//! What clients send to a shard and what they get back.

use std::ops::Range;

use ergate_events::command::Rejection;
use ergate_events::event::Cause;
use ergate_events::id::{Ordinal, Position, ShardId, TaskId, TypeId};
use ergate_events::task::{Ask, Dependency, IdempotencyKey, OnFailure, Outcome, RetryPolicy, Timeouts};
use ergate_events::time::{Micros, Timestamp};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use tokio::sync::oneshot;

/// Requests that travel together: one message, one buffer, one answer.
#[derive(Debug, Default)]
pub struct RequestBatch {
    bytes: Vec<u8>,
    items: Vec<RequestItem>,
    /// Bytes of what few requests have.
    extras: usize,
    /// Requests that name tasks which they come after.
    dependent: usize,
}

#[derive(Debug)]
struct RequestItem {
    task_type: TypeId,
    payload: Range<usize>,
    extras: Option<Box<Extras>>,
}

/// What few requests have.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Idempotency key.
    pub key: Option<String>,
    /// How long the key stays valid; the type's window where it is not given.
    pub key_window: Option<Micros>,
    /// From 0 to 9.
    pub priority: Option<u8>,
    /// Not to be started before.
    pub not_before: Option<Timestamp>,
    /// A retry policy of its own.
    pub retry: Option<RetryPolicy>,
    /// Timeouts of its own.
    pub timeouts: Option<Timeouts>,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// W3C trace context.
    pub trace_parent: Option<String>,
    /// Names and values to find the task by.
    pub labels: Vec<(String, String)>,
    /// The topic that gets the end of the task.
    pub reply_to: Option<String>,
    /// The requester's own name for the request.
    pub correlation_id: Option<String>,
    /// Tasks that have to succeed first, at most [`AFTER_MAX`](ergate_events::task::AFTER_MAX).
    pub after: Vec<After>,
    /// What becomes of it when one of those ends without success.
    pub on_failure: Option<OnFailure>,
}

/// A task that nobody requests.
pub const NOBODY: Ordinal = Ordinal(u64::MAX);

/// A task that another one comes after, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// By its id.
    Task(TaskId),
    /// By the idempotency key of its request.
    Key {
        /// Its type; that of the request itself where it is not given.
        task_type: Option<String>,
        /// The key.
        key: String,
    },
    /// By its id, with how it has ended: what a runtime makes of the others, where it finds that in the log.
    Ended(TaskId, Outcome),
}

/// As a request in JSON has it: an id, or an object with a key.
impl Serialize for After {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            After::Task(task) | After::Ended(task, _) => task.serialize(out),
            After::Key { task_type, key } => {
                let mut named = out.serialize_map(None)?;
                if let Some(task_type) = task_type {
                    named.serialize_entry("type", task_type)?;
                }
                named.serialize_entry("key", key)?;
                named.end()
            }
        }
    }
}

impl From<TaskId> for After {
    fn from(task: TaskId) -> After {
        After::Task(task)
    }
}

impl After {
    /// The task of the same type that has this idempotency key.
    pub fn key(key: impl Into<String>) -> After {
        After::Key { task_type: None, key: key.into() }
    }

    /// The task of this type that has this idempotency key.
    pub fn key_of(task_type: impl Into<String>, key: impl Into<String>) -> After {
        After::Key { task_type: Some(task_type.into()), key: key.into() }
    }

    /// The shard of the task, where it is named by its id.
    const fn shard(&self) -> Option<ShardId> {
        match self {
            After::Task(task) | After::Ended(task, _) => Some(task.shard),
            After::Key { .. } => None,
        }
    }

    /// As the rules of a shard know it. A task of another shard is one that nobody knows there.
    pub fn dependency(&self, shard: ShardId) -> Dependency<'_> {
        match *self {
            After::Task(task) if task.shard == shard => Dependency::Task(task.ordinal),
            After::Ended(task, outcome) if task.shard == shard => Dependency::Ended(task.ordinal, outcome),
            After::Task(_) | After::Ended(..) => Dependency::Task(NOBODY),
            After::Key { ref task_type, ref key } => Dependency::Key(task_type.as_deref(), key),
        }
    }

    fn bytes(&self) -> usize {
        let text =
            if let After::Key { task_type, key } = self { task_type.as_ref().map_or(0, String::len) + key.len() } else { 0 };
        size_of::<After>() + text
    }
}

impl Extras {
    /// Bytes that they take in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let texts = [&self.key, &self.content_type, &self.trace_parent, &self.reply_to, &self.correlation_id]
            .into_iter()
            .flatten()
            .map(String::len);
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len() + size_of::<(String, String)>());
        let after = self.after.iter().map(After::bytes);
        size_of::<Extras>() + texts.chain(labels).chain(after).sum::<usize>()
    }

    /// Why a shard refuses the request for a task of another shard that it names; `None` where it names none.
    pub fn elsewhere(&self, shard: ShardId) -> Option<Rejection> {
        let index = self.after.iter().position(|after| after.shard().is_some_and(|named| named != shard))?;
        Some(Rejection::DependencyElsewhere { index })
    }

    pub(crate) fn key(&self) -> Option<IdempotencyKey<'_>> {
        Some(IdempotencyKey { key: self.key.as_deref()?, window: self.key_window })
    }

    /// What the request asks for of this shard.
    pub fn asks(&self, shard: ShardId) -> Vec<Ask<'_>> {
        let mut asks: Vec<Ask<'_>> = Vec::new();
        asks.extend(self.priority.map(Ask::Priority));
        asks.extend(self.not_before.map(Ask::NotBefore));
        asks.extend(self.retry.map(Ask::Retry));
        asks.extend(self.timeouts.map(Ask::Timeouts));
        asks.extend(self.content_type.as_deref().map(Ask::ContentType));
        asks.extend(self.trace_parent.as_deref().map(Ask::TraceParent));
        asks.extend(self.reply_to.as_deref().map(Ask::ReplyTo));
        asks.extend(self.correlation_id.as_deref().map(Ask::CorrelationId));
        asks.extend(self.labels.iter().map(|(name, value)| Ask::Label(name, value)));
        asks.extend(self.after.iter().map(|after| Ask::After(after.dependency(shard))));
        asks.extend(self.on_failure.map(Ask::OnFailure));
        asks
    }
}

impl RequestBatch {
    /// An empty batch.
    pub fn new() -> RequestBatch {
        RequestBatch::default()
    }

    /// An empty batch with room for this many requests and payload bytes.
    pub fn with_capacity(requests: usize, bytes: usize) -> RequestBatch {
        RequestBatch { bytes: Vec::with_capacity(bytes), items: Vec::with_capacity(requests), ..RequestBatch::default() }
    }

    /// Adds a request.
    pub fn push(&mut self, task_type: TypeId, payload: &[u8], extras: Option<Box<Extras>>) {
        self.push_with(task_type, extras, |bytes| {
            bytes.extend_from_slice(payload);
            Ok::<(), std::convert::Infallible>(())
        })
        .unwrap_or_else(|never| match never {});
    }

    /// Adds a request whose payload `write` appends to the buffer.
    ///
    /// # Errors
    /// What `write` answers; then nothing was added.
    pub fn push_with<E>(
        &mut self,
        task_type: TypeId,
        extras: Option<Box<Extras>>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        self.extras += extras.as_deref().map_or(0, Extras::bytes);
        self.dependent += usize::from(extras.as_deref().is_some_and(|extras| !extras.after.is_empty()));
        self.items.push(RequestItem { task_type, payload: start..self.bytes.len(), extras });
        Ok(())
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes that the batch takes in memory, about: payloads, places and what few requests have.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.items.len() * size_of::<RequestItem>() + self.extras
    }

    /// Whether a request names tasks that it comes after.
    pub const fn names_tasks(&self) -> bool {
        self.dependent > 0
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The requests: type, payload and what few have.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (TypeId, &[u8], Option<&Extras>)> {
        self.items.iter().map(|item| (item.task_type, &self.bytes[item.payload.clone()], item.extras.as_deref()))
    }
}

/// Requests and where their answers go.
pub struct Submission {
    /// What is wanted.
    pub requests: RequestBatch,
    /// Gets the answer once it is durable.
    pub reply: oneshot::Sender<Result<BatchAnswer, SubmitError>>,
    /// Gets the ends of the tasks, when somebody waits for them.
    pub done: Option<oneshot::Sender<BatchEnd>>,
    /// Room for the payloads among everything undecided; given back when they are decided.
    pub room: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// What became of the requests of a batch, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchAnswer {
    /// The answers in runs of equal kind, so that the usual batch is one entry.
    pub runs: Vec<AnswerRun>,
    /// Everything up to here is durable on the shard that answered; where several did, on that of the first request.
    pub position: Position,
}

/// Answers to consecutive requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnswerRun {
    /// Accepted by one shard, with consecutive ordinals.
    Accepted {
        /// The first task.
        first: TaskId,
        /// How many.
        count: u32,
    },
    /// The same request came before; this is its task.
    Duplicate(TaskId),
    /// Refused by the core.
    Rejected(Rejection),
    /// Refused by the engine that read its record, which says why.
    Refused(Box<str>),
}

impl AnswerRun {
    pub(crate) const fn accepted(&self) -> u32 {
        match *self {
            AnswerRun::Accepted { count, .. } => count,
            AnswerRun::Duplicate(_) | AnswerRun::Rejected(_) | AnswerRun::Refused(_) => 0,
        }
    }

    pub(crate) const fn first(&self) -> Option<TaskId> {
        match *self {
            AnswerRun::Accepted { first, .. } => Some(first),
            AnswerRun::Duplicate(_) | AnswerRun::Rejected(_) | AnswerRun::Refused(_) => None,
        }
    }

    /// Takes the next answer into the run, if it goes on there.
    fn takes(&mut self, next: &AnswerRun) -> bool {
        match (self, next) {
            (AnswerRun::Accepted { first, count }, AnswerRun::Accepted { first: task, count: more })
                if first.shard == task.shard && first.ordinal.0 + u64::from(*count) == task.ordinal.0 =>
            {
                *count += more;
                true
            }
            (
                AnswerRun::Accepted { .. } | AnswerRun::Duplicate(_) | AnswerRun::Rejected(_) | AnswerRun::Refused(_),
                AnswerRun::Accepted { .. } | AnswerRun::Duplicate(_) | AnswerRun::Rejected(_) | AnswerRun::Refused(_),
            ) => false,
        }
    }
}

impl BatchAnswer {
    /// Answers that come one at a time, in the order of their requests.
    pub fn of(answers: impl IntoIterator<Item = AnswerRun>, position: Position) -> BatchAnswer {
        let mut runs: Vec<AnswerRun> = Vec::with_capacity(1);
        for next in answers {
            if !runs.last_mut().is_some_and(|last| last.takes(&next)) {
                runs.push(next);
            }
        }
        BatchAnswer { runs, position }
    }

    /// The answers one by one, in the order of their requests.
    pub fn each(&self) -> impl Iterator<Item = AnswerRun> {
        self.runs.iter().flat_map(|run| {
            let count = run.accepted().max(1);
            (0..u64::from(count)).map(move |index| match run {
                AnswerRun::Accepted { first, .. } => {
                    AnswerRun::Accepted { first: TaskId { ordinal: Ordinal(first.ordinal.0 + index), ..*first }, count: 1 }
                }
                AnswerRun::Duplicate(_) | AnswerRun::Rejected(_) | AnswerRun::Refused(_) => run.clone(),
            })
        })
    }

    /// The answers one by one: the task and whether it was there before, or [`SubmitError::Rejected`] or [`SubmitError::Refused`].
    pub fn iter(&self) -> impl Iterator<Item = Result<(TaskId, bool), SubmitError>> {
        self.each().map(|answer| match answer {
            AnswerRun::Accepted { first, .. } => Ok((first, false)),
            AnswerRun::Duplicate(of) => Ok((of, true)),
            AnswerRun::Rejected(rejection) => Err(SubmitError::Rejected(rejection)),
            AnswerRun::Refused(reason) => Err(SubmitError::Refused { reason: reason.into() }),
        })
    }
}

/// How the accepted tasks of a batch ended, in the order of their ids; duplicates are not among them.
#[derive(Debug, Default)]
pub struct BatchEnd {
    /// The first of consecutive tasks on one shard.
    pub(crate) first: TaskId,
    pub(crate) ends: Vec<Option<TaskEnd>>,
    /// Tasks on several shards.
    listed: Vec<(TaskId, TaskEnd)>,
}

impl BatchEnd {
    /// The ends of consecutive tasks on one shard.
    pub(crate) fn run(first: TaskId, ends: Vec<Option<TaskEnd>>) -> BatchEnd {
        BatchEnd { first, ends, listed: Vec::new() }
    }

    /// The ends of tasks anywhere.
    pub fn of(mut ends: Vec<(TaskId, TaskEnd)>) -> BatchEnd {
        ends.sort_by_key(|(task, _)| *task);
        BatchEnd { listed: ends, ..BatchEnd::default() }
    }

    /// Every task with its end.
    pub fn into_ends(self) -> impl Iterator<Item = (TaskId, TaskEnd)> {
        let first = self.first;
        let id = move |index| TaskId { ordinal: Ordinal(first.ordinal.0 + index), ..first };
        (0_u64..).zip(self.ends).filter_map(move |(index, end)| Some((id(index), end?))).chain(self.listed)
    }
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEnd {
    /// How.
    pub outcome: Outcome,
    /// The result of a success.
    pub result: Box<[u8]>,
    /// Why not a success.
    pub failure: Option<Box<EndFailure>>,
}

/// Why a task did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndFailure {
    /// The rule that ended it.
    pub cause: Cause,
    /// The class of the last failure, empty when there was none.
    pub class: String,
    /// The message of the last failure, empty when there was none.
    pub message: String,
}

/// What an engine leads under this number: the last one is that of the log of pools and their sizes.
fn led(shard: ShardId) -> String {
    if shard.0 == u16::MAX { "the capacity log".to_owned() } else { format!("shard {shard}") }
}

/// Why a request has no answer from the core.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The core said no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The request's record was refused by the engine that read it, and went to the dead-letter topic.
    #[error("the request was refused: {reason}")]
    Refused {
        /// What that engine says.
        reason: String,
    },
    /// Only the engine that leads a shard can do that, and this one does not.
    #[error("{} is not led by this engine but by another one, or by none for a moment; ask there, or again", led(*shard))]
    LedElsewhere {
        /// The shard.
        shard: ShardId,
    },
    /// No such task type is registered in this process.
    #[error("task type {name:?} is not registered here; registered are: {known}")]
    UnknownType {
        /// The name that was asked for.
        name: String,
        /// Some that are registered.
        known: String,
    },
    /// The log has no such schedule.
    #[error("there is no schedule {name:?}; there are: {known}")]
    UnknownSchedule {
        /// The name that was asked for.
        name: String,
        /// Some that are there.
        known: String,
    },
    /// The payload cannot be written.
    #[error("the payload cannot be written as JSON: {reason}")]
    Payload {
        /// What serde says.
        reason: String,
    },
    /// A batch is over its limits.
    #[error("a batch of {requests} requests and {bytes} bytes is over the limit of 65536 requests and 64 MiB; split it")]
    BatchTooLarge {
        /// How many.
        requests: usize,
        /// How large.
        bytes: usize,
    },
    /// Not now.
    #[error("busy: {reason}; retry in {retry_after}")]
    Busy {
        /// What is short.
        reason: &'static str,
        /// When another try is worth it.
        retry_after: Micros,
    },
    /// The request may or may not have been recorded.
    #[error("the answer is unknown: {reason}; after a restart the log tells, or submit again with the same idempotency key")]
    Unknown {
        /// What failed.
        reason: String,
    },
    /// The runtime is shutting down or gone.
    #[error("the runtime takes no more work: {reason}")]
    Closed {
        /// Why.
        reason: String,
    },
}
