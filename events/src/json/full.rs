//! An event with what only its place tells.

use serde::Serialize;

use crate::event::{Envelope, Event};
use crate::id::{Ordinal, ShardId, TaskId};

/// An event with its fields, `time` in RFC 3339 beside `recorded_at` in µs, and ids of tasks in full. A redriven task is the new one,
/// `of` the old one. To be written by a [`Line`](super::Line), for which of two fields with one name the later counts.
#[derive(Debug, Serialize)]
pub struct Full<'a> {
    #[serde(flatten)]
    envelope: &'a Envelope<'a>,
    time: &'a str,
    // These take the place of the event's own, which are ordinals.
    #[serde(skip_serializing_if = "Option::is_none")]
    dependency: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<TaskId>,
}

impl<'a> Full<'a> {
    /// An event of this shard, which creates this task or none; `time` is when it was recorded, as
    /// [`Timestamp::rfc3339`](crate::time::Timestamp::rfc3339) prints it.
    pub fn new(envelope: &'a Envelope<'a>, shard: ShardId, creates: Option<Ordinal>, time: &'a str) -> Full<'a> {
        let full = |ordinal| TaskId { shard, ordinal };
        #[expect(clippy::wildcard_enum_match_arm, reason = "two events name an older task")]
        let (of, task) = match envelope.event {
            Event::Deduplicated { of, .. } => (Some(of), None),
            Event::Redriven { task: of, .. } => (Some(of), creates),
            ref other => (None, creates.or(other.task())),
        };
        let dependency = if let Event::DependencyMet { dependency, .. } = envelope.event { Some(full(dependency)) } else { None };
        Full { envelope, time, dependency, of: of.map(full), task: task.map(full) }
    }
}
