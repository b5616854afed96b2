//! One task in a list, and the place where a list goes on.

use std::fmt;
use std::str::FromStr;

use ergate_events::id::{Ordinal, Position, ShardId, TaskId, TypeId};
use ergate_events::log::index::{Ending, TypeNames};
use ergate_events::slab::Task;
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::Timestamp;
use serde_json::json;

use super::moment::time;

/// A place in the list: the tasks come first that were live when it was begun, by ordinal, then those that had ended by then, by the position of
/// their end. So one that ends between two pages is neither left out nor listed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Behind this task, which was live.
    Live {
        /// The task.
        before: Ordinal,
        /// Where the log ended when the list was begun; without it, the list begins anew behind the task.
        as_of: Option<Position>,
    },
    /// Behind the end at this position.
    Ended(Position),
}

/// A task in the list.
pub struct Row {
    /// Its id.
    pub task: TaskId,
    /// The name of its type; a dash where the log no longer tells.
    pub task_type: String,
    /// Its phase, or `ended`, or `dead`.
    pub state: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// How often it was started, where that is known.
    pub attempts: Option<u32>,
    /// When it was requested, of live tasks; when it ended, of others.
    pub at: Timestamp,
    /// Where a list goes on behind it.
    pub cursor: Cursor,
}

/// A task that has not ended.
pub fn live_row(shard: ShardId, state: &State, ordinal: Ordinal, task: &Task, as_of: Position) -> Row {
    Row {
        task: TaskId { shard, ordinal },
        task_type: type_name(state, task.task_type),
        state: format!("{:?}", task.phase).to_ascii_lowercase(),
        outcome: None,
        attempts: Some(task.attempt),
        at: task.requested_at,
        cursor: Cursor::Live { before: ordinal, as_of: Some(as_of) },
    }
}

/// A task that has; of a dead letter with how often it was started.
pub fn ended_row(shard: ShardId, names: &TypeNames, ending: &Ending, dead_letter: Option<u32>) -> Row {
    let task_type = ending.task_type.and_then(|id| names.name(id)).unwrap_or("-");
    Row {
        task: TaskId { shard, ordinal: ending.task },
        task_type: task_type.to_owned(),
        state: if dead_letter.is_some() { "dead" } else { "ended" }.to_owned(),
        outcome: Some(ending.outcome),
        attempts: dead_letter,
        at: ending.at,
        cursor: Cursor::Ended(ending.position),
    }
}

fn type_name(state: &State, id: TypeId) -> String {
    let known = state.work.types.get(usize::from(id.0));
    known.map_or_else(|| "-".to_owned(), |known| known.name.clone())
}

impl Row {
    /// The task as a JSON object.
    pub fn json(&self) -> serde_json::Value {
        json!({
            "task": self.task, "type": self.task_type, "state": self.state, "outcome": self.outcome,
            "starts": self.attempts, "since": time(self.at), "cursor": self.cursor.to_string(),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Live { before, as_of: None } => write!(f, "live-{before}"),
            Cursor::Live { before, as_of: Some(as_of) } => write!(f, "live-{before}-{as_of}"),
            Cursor::Ended(position) => write!(f, "ended-{position}"),
        }
    }
}

fn live_place(text: &str) -> Option<Cursor> {
    let (before, as_of) = text.split_once('-').map_or((text, None), |(before, as_of)| (before, Some(as_of)));
    Some(Cursor::Live { before: before.parse().ok()?, as_of: as_of.map(str::parse).transpose().ok()? })
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Cursor, String> {
        let parsed = match text.split_once('-') {
            Some(("live", place)) => live_place(place),
            Some(("ended", number)) => number.parse().ok().map(Cursor::Ended),
            Some(_) | None => None,
        };
        parsed.ok_or_else(|| "write the cursor of a listed task, for example `ended-1200` or `live-42`".to_owned())
    }
}
