//! What executors report: many outcomes in one message with one buffer.

use std::ops::Range;

use ergate_events::command::{Command, Rejection};
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::shard::Answer;
use ergate_events::task::{Failure, Outcome};
use ergate_events::time::{Micros, Timestamp};

use tokio::sync::oneshot;

use crate::executor::context::Progress;
use crate::submission::SubmitError;

/// News about attempts.
#[derive(Debug, Default)]
pub struct Report {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// A replica that drains and has nothing left to do or to report but this.
    pub(crate) idle: Option<ReplicaId>,
    /// Gets what became of each item once that is durable.
    pub(crate) reply: Option<ReportReply>,
}

/// Where it is told what became of the items of a report.
pub(crate) type ReportReply = oneshot::Sender<Result<Vec<Result<(), Rejection>>, SubmitError>>;

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
    /// It was given back.
    Returned { task: Ordinal, attempt: u32 },
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
        let (task, attempt) = match *self {
            Item::Succeeded { task, attempt, .. } | Item::Failed { task, attempt, .. } | Item::Returned { task, attempt } => (task, attempt),
            Item::Released { .. } | Item::Checkpoint { .. } | Item::Progress { .. } | Item::Silent { .. } => return answer.map(drop),
        };
        let accepted = answer?;
        if accepted.released { Err(Rejection::StaleAttempt { task, attempt }) } else { Ok(()) }
    }
}

impl Report {
    /// Whether there is no news.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.idle.is_none()
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
            Item::Silent { task, attempt, last_seen } => Command::MissHeartbeat { task, attempt, last_seen },
            Item::Returned { task, attempt } => Command::ReturnAttempt { task, attempt },
        })
    }
}
