//! What executors report: many outcomes in one message with one buffer.

use std::ops::Range;

use ergate_events::command::{Command, Rejection};
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::ran::Ran;
use ergate_events::shard::Answer;
use ergate_events::task::{Failure, Outcome};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::WorkerId;

use tokio::sync::oneshot;

use crate::executor::context::Progress;
use crate::executor::function::TaskError;
use crate::submission::SubmitError;

/// News about attempts.
#[derive(Debug, Default)]
pub struct Report {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// Attempts that gave a sign of life, where somebody else measures that.
    pub(crate) alive: Vec<(Ordinal, u32)>,
    /// A replica that drains and has nothing left to do or to report but this.
    pub(crate) idle: Option<ReplicaId>,
    /// The worker that it is from, which has to hold the attempts; nobody else's are asked for.
    pub(crate) worker: Option<WorkerId>,
    /// Gets what became of each item once that is durable.
    pub(crate) reply: Option<ReportReply>,
}

/// Where it is told what became of the items of a report.
pub(crate) type ReportReply = oneshot::Sender<ReportAnswers>;
/// What became of each item of a report; or why nothing became of any.
pub type ReportAnswers = Result<Vec<Result<(), Rejection>>, SubmitError>;

/// News about one attempt.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// It ended with a result.
    Succeeded { task: Ordinal, attempt: u32, outcome: Outcome, result: Range<usize> },
    /// It ended without one.
    Failed { task: Ordinal, attempt: u32, failure: Box<OwnedFailure> },
    /// It was told to stop and did.
    Released { task: Ordinal, attempt: u32, replica: ReplicaId },
    /// It told how far it is.
    Checkpoint { task: Ordinal, attempt: u32, details: Range<usize> },
    /// It told how far it is, for whoever watches.
    Progress { task: Ordinal, attempt: u32, progress: Box<Progress> },
    /// It told on which device it ran; its outcome is the next item.
    Ran { task: Ordinal, attempt: u32, ran: Box<Ran> },
    /// It was given back, or told to stop and did.
    Returned { task: Ordinal, attempt: u32, was_stopped: bool },
    /// It gave no sign of life.
    Silent { task: Ordinal, attempt: u32, last_seen: Timestamp },
}

/// A failure that owns its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnedFailure {
    pub(crate) class: String,
    pub(crate) message: String,
    pub(crate) retryable: bool,
    pub(crate) delay: Option<Micros>,
}

impl Item {
    /// What the answer to its command says of it: the outcome of an attempt that no longer counts did not count, though it gave the slot back.
    pub(crate) fn verdict(&self, answer: Answer) -> Result<(), Rejection> {
        let (task, attempt) = self.attempt();
        let is_outcome = matches!(self, Item::Succeeded { .. } | Item::Failed { .. } | Item::Returned { was_stopped: false, .. });
        let accepted = answer?;
        if is_outcome && accepted.released { Err(Rejection::StaleAttempt { task, attempt }) } else { Ok(()) }
    }

    /// What it is about.
    pub(crate) const fn attempt(&self) -> (Ordinal, u32) {
        match *self {
            Item::Succeeded { task, attempt, .. }
            | Item::Failed { task, attempt, .. }
            | Item::Released { task, attempt, .. }
            | Item::Checkpoint { task, attempt, .. }
            | Item::Progress { task, attempt, .. }
            | Item::Ran { task, attempt, .. }
            | Item::Returned { task, attempt, .. }
            | Item::Silent { task, attempt, .. } => (task, attempt),
        }
    }
}

impl Report {
    /// News of a worker; what became of each item is told once that is durable.
    pub fn of_worker(worker: WorkerId) -> (Report, oneshot::Receiver<ReportAnswers>) {
        let (reply, answers) = oneshot::channel();
        (Report { worker: Some(worker), reply: Some(reply), ..Report::default() }, answers)
    }

    /// An attempt ended with a result.
    pub fn succeeded(&mut self, task: Ordinal, attempt: u32, outcome: Outcome, result: &[u8]) {
        let result = self.append(result);
        self.items.push(Item::Succeeded { task, attempt, outcome, result });
    }

    /// An attempt ended without one.
    pub fn failed(&mut self, task: Ordinal, attempt: u32, error: TaskError) {
        self.items.push(Item::Failed { task, attempt, failure: Box::new(error.into_failure()) });
    }

    /// An attempt was given back (`was_stopped`: was told to stop, and did).
    pub fn returned(&mut self, task: Ordinal, attempt: u32, was_stopped: bool) {
        self.items.push(Item::Returned { task, attempt, was_stopped });
    }

    /// An attempt told how far it is.
    pub fn progressed(&mut self, task: Ordinal, attempt: u32, progress: Progress) {
        self.items.push(Item::Progress { task, attempt, progress: Box::new(progress) });
    }

    /// An attempt ran on this device. Its outcome has to be the next news.
    pub fn ran(&mut self, task: Ordinal, attempt: u32, ran: Box<Ran>) {
        self.items.push(Item::Ran { task, attempt, ran });
    }

    /// An attempt keeps these details for the next one.
    pub fn kept(&mut self, task: Ordinal, attempt: u32, details: &[u8]) {
        let details = self.append(details);
        self.items.push(Item::Checkpoint { task, attempt, details });
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no news.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.alive.is_empty() && self.idle.is_none()
    }

    /// The news as commands for the shard.
    pub fn commands(&self) -> impl Iterator<Item = Command<'_>> {
        self.items.iter().map(|item| match *item {
            Item::Succeeded { task, attempt, outcome, ref result } => {
                Command::Succeed { task, attempt, outcome, result: &self.bytes[result.clone()] }
            }
            Item::Failed { task, attempt, ref failure } => {
                let OwnedFailure { ref class, ref message, retryable, delay } = **failure;
                Command::Fail { task, attempt, failure: Failure { class, message, retryable, delay } }
            }
            Item::Released { task, attempt, replica } => Command::ReleaseSlot { task, attempt, replica },
            Item::Checkpoint { task, attempt, ref details } => {
                Command::Checkpoint { task, attempt, details: &self.bytes[details.clone()] }
            }
            Item::Progress { task, attempt, ref progress } => {
                let Progress { percent, ref stage, ref message } = **progress;
                Command::Progress { task, attempt, percent, stage, message }
            }
            Item::Ran { task, attempt, ref ran } => Command::Ran { task, attempt, ran },
            Item::Silent { task, attempt, last_seen } => Command::MissHeartbeat { task, attempt, last_seen },
            Item::Returned { task, attempt, .. } => Command::ReturnAttempt { task, attempt },
        })
    }
}
