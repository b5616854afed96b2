//! Tasks that failed for good and are kept for another try: dead letters, as a state knows them.

use std::collections::BTreeSet;

use ergate_events::event::Cause;
use ergate_events::id::{Ordinal, ShardId, TaskId};
use ergate_events::state::State;
use ergate_events::state::work::DeadLetter;
use ergate_events::time::Timestamp;
use serde_json::{Value, json};

use super::moment::time;

/// The causes that a dead letter may have, for people.
pub const CAUSES: &str = "attempts_exhausted, not_retryable, timed_out, losses_exhausted, cancelled or killed";

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct DeadQuery {
    /// Only tasks of this type.
    pub type_name: Option<String>,
    /// Only those that ended for this cause, as [`cause`] reads it.
    pub cause: Option<String>,
    /// Only those that ended at this time or later.
    pub since: Option<Timestamp>,
    /// Only those that ended before this time.
    pub until: Option<Timestamp>,
    /// Only these.
    pub ids: Option<BTreeSet<Ordinal>>,
}

impl DeadQuery {
    /// Whether a dead letter is asked for.
    pub fn has(&self, state: &State, ordinal: Ordinal, letter: &DeadLetter) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(&ordinal))
            && self.type_name.as_deref().is_none_or(|name| name == type_name(state, letter))
            && self.cause.as_deref().is_none_or(|cause| cause == cause_name(letter.cause))
            && self.since.is_none_or(|since| letter.ended_at >= since)
            && self.until.is_none_or(|until| letter.ended_at < until)
    }

    /// The newest of those that are asked for, before this task where one is named, with what is told of each.
    pub fn newest(&self, shard: ShardId, state: &State, before: Option<TaskId>, limit: usize) -> Vec<(TaskId, Value)> {
        let before = before.map_or(state.next_ordinal(), |before| before.ordinal);
        // The oldest come first in the state, and the newest in the answer.
        let all: Vec<_> = state.work.dead.iter().take_while(|(ordinal, _)| **ordinal < before).collect();
        let newest = all.into_iter().rev().filter(|(ordinal, letter)| self.has(state, **ordinal, letter)).take(limit);
        newest
            .map(|(ordinal, letter)| (TaskId { shard, ordinal: *ordinal }, letter))
            .map(|(id, letter)| (id, told(id, state, letter)))
            .collect()
    }
}

/// Reads the name of a cause.
pub fn cause(text: &str) -> Option<String> {
    CAUSES.split([',', ' ']).any(|name| name == text && !name.is_empty() && name != "or").then(|| text.to_owned())
}

/// A dead letter as programs see it.
fn told(id: TaskId, state: &State, letter: &DeadLetter) -> Value {
    let task = &letter.task;
    json!({
        "task": id, "type": type_name(state, letter), "pool": state.work.settings(task).pool, "cause": cause_name(letter.cause),
        "requested": time(task.requested_at), "ended": time(letter.ended_at), "starts": task.attempt, "failures": task.failures,
        "losses": task.losses, "payload_bytes": letter.payload.len(),
    })
}

fn type_name<'a>(state: &'a State, letter: &DeadLetter) -> &'a str {
    state.work.types.get(usize::from(letter.task.task_type.0)).map_or("-", |known| known.name.as_str())
}

const fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::AttemptsExhausted => "attempts_exhausted",
        Cause::NotRetryable => "not_retryable",
        Cause::TimedOut(_) => "timed_out",
        Cause::LossesExhausted => "losses_exhausted",
        Cause::Cancelled => "cancelled",
        Cause::Killed => "killed",
        Cause::Dependency(_) => "dependency",
    }
}
