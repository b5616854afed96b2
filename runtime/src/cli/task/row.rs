//! One task in a list, and the place where a list goes on.

use std::fmt;
use std::str::FromStr;

use ergate::events::id::{Ordinal, Position, ShardId, TaskId, TypeId};
use ergate::events::log::index::{Ending, TypeNames};
use ergate::events::slab::Task;
use ergate::events::state::State;
use ergate::events::task::Outcome;
use ergate::events::time::Timestamp;
use serde_json::json;

use crate::cli::moment::time;
use crate::cli::output;
use crate::cli::table::Table;

/// A place in the list: live tasks come first, by ordinal, then ended ones, by the position of their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Live(Ordinal),
    Ended(Position),
}

/// A task in the list.
pub(super) struct Row {
    task: TaskId,
    task_type: String,
    state: String,
    outcome: Option<Outcome>,
    attempts: Option<u32>,
    /// When it was requested, of live tasks; when it ended, of others.
    at: Timestamp,
    cursor: Cursor,
}

/// A task that has not ended.
pub(super) fn live_row(shard: ShardId, state: &State, ordinal: Ordinal, task: &Task) -> Row {
    Row {
        task: TaskId { shard, ordinal },
        task_type: type_name(state, task.task_type),
        state: format!("{:?}", task.phase).to_ascii_lowercase(),
        outcome: None,
        attempts: Some(task.attempt),
        at: task.requested_at,
        cursor: Cursor::Live(ordinal),
    }
}

/// A task that has; of a dead letter with how often it was started.
pub(super) fn ended_row(shard: ShardId, names: &TypeNames, ending: &Ending, dead_letter: Option<u32>) -> Row {
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

/// Prints a page, and how to get the next one.
///
/// # Errors
/// When standard output is closed or full.
pub(super) fn print(rows: &[Row], limit: usize, quiet: bool) -> anyhow::Result<()> {
    let mut table = Table::new(&["TASK", "TYPE", "STATE", "OUTCOME", "STARTS", "SINCE"]);
    for row in rows {
        let outcome = row.outcome.map_or("-", Outcome::name).to_owned();
        let attempts = row.attempts.map_or_else(|| "-".to_owned(), |attempts| attempts.to_string());
        table.row([row.task.to_string(), row.task_type.clone(), row.state.clone(), outcome, attempts, time(row.at)]);
    }
    table.print()?;
    if let Some(last) = rows.last().filter(|_| rows.len() >= limit && !quiet) {
        output::note(&format!("for more: --before {}", last.cursor));
    }
    Ok(())
}

impl Row {
    /// The task as a JSON object.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({
            "task": self.task, "type": self.task_type, "state": self.state, "outcome": self.outcome,
            "starts": self.attempts, "since": time(self.at), "cursor": self.cursor.to_string(),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cursor::Live(ordinal) => write!(f, "live-{ordinal}"),
            Cursor::Ended(position) => write!(f, "ended-{position}"),
        }
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Cursor, String> {
        let parsed = match text.split_once('-') {
            Some(("live", number)) => number.parse().ok().map(Cursor::Live),
            Some(("ended", number)) => number.parse().ok().map(Cursor::Ended),
            Some(_) | None => None,
        };
        parsed.ok_or_else(|| "write the cursor of a listed task, for example `ended-1200` or `live-42`".to_owned())
    }
}
