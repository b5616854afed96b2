//! One record of the log as programs and people see it.

use ergate_events::block::{Block, BlockError};
use ergate_events::event::Envelope;
use ergate_events::id::{Ordinal, Position, ShardId, TaskId};
use ergate_events::json::Full;
use ergate_events::log::LogError;
use ergate_events::ran::Ran;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::moment;
use super::text::escape;

/// Most characters of a value in a one-line summary.
const VALUE_CHARS_MAX: usize = 80;

/// A record with what only its place in the block tells.
pub struct Record<'a> {
    /// What the log holds.
    pub envelope: Envelope<'a>,
    /// Whose log it is.
    pub shard: ShardId,
    /// The task that it creates.
    pub creates: Option<Ordinal>,
}

/// What is told of a block that cannot be read.
pub fn damaged(at: Position, source: BlockError) -> LogError {
    LogError::Damaged { at, path: "log".into(), offset: 0, source }
}

/// The records of a block, in order; ends after the first that cannot be read.
pub fn of(block: &Block) -> impl Iterator<Item = Result<Record<'_>, LogError>> {
    let (mut next, shard) = (block.header.first_ordinal, block.header.shard);
    block.records().map(move |envelope| {
        let envelope = envelope.map_err(|source| damaged(block.header.first_position, source))?;
        let creates = envelope.event.creates_task().then_some(next);
        next.0 = next.0.saturating_add(u64::from(creates.is_some()));
        Ok(Record { envelope, shard, creates })
    })
}

impl Record<'_> {
    /// Whether the record creates this task or is about it.
    pub fn concerns(&self, task: Ordinal) -> bool {
        self.creates == Some(task) || self.envelope.event.task() == Some(task)
    }

    /// The task that the record creates, or else is about.
    pub fn task(&self) -> Option<TaskId> {
        let ordinal = self.creates.or(self.envelope.event.task())?;
        Some(TaskId { shard: self.shard, ordinal })
    }

    /// The record as a program sees it; `time` is when it was recorded, as [`moment::time`] prints it.
    pub fn full<'b>(&'b self, time: &'b str) -> Full<'b> {
        Full::new(&self.envelope, self.shard, self.creates, time)
    }

    /// [`Record::full`] as a tree of values.
    ///
    /// # Errors
    /// When serde cannot write it, which no event makes it do.
    pub fn json(&self) -> Result<Map<String, Value>, serde_json::Error> {
        serde_json::from_value(serde_json::to_value(self.full(&moment::time(self.envelope.recorded_at)))?)
    }
}

/// One line of a record's JSON, with columns of a fixed width, for nobody knows what comes.
pub fn line(object: &Map<String, Value>) -> String {
    let [position, time, event, task, detail] = cells(object);
    escape(format!("{position:>8}  {time}  {event:<17} {task:<8} {detail}").trim_end())
}

/// Position, time, name, task and the rest of a record's JSON, each as a short text.
pub fn cells(object: &Map<String, Value>) -> [String; 5] {
    let text = |name: &str| object.get(name).map_or_else(String::new, plain);
    let detail = object.iter().filter(|(name, value)| !HEAD.contains(&name.as_str()) && !is_empty(value));
    let detail: Vec<String> = detail
        .map(|(name, value)| ran(name, value).map_or_else(|| format!("{name}={}", short(value)), |ran| format!("ran {ran}")))
        .collect();
    [text("position"), text("time"), text("event"), text("task"), detail.join(" ")]
}

/// The columns of [`cells`].
pub const COLUMNS: [&str; 5] = ["POSITION", "TIME", "EVENT", "TASK", "DETAIL"];
const HEAD: [&str; 5] = ["position", "time", "event", "task", "recorded_at"];

/// Where an attempt ran, if that is what this field says.
pub fn ran(name: &str, value: &Value) -> Option<Ran> {
    (name == "ran").then(|| Ran::deserialize(value).ok()).flatten()
}

/// A text without quotes, anything else as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a value only says that nothing was said.
pub fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    text.chars().take(VALUE_CHARS_MAX).chain(['…']).collect()
}
