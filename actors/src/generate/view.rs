//! What a generator sees: the tasks of its type at one position of the log, all of it durable.

use std::sync::Arc;

use ergate_events::id::{Ordinal, Position, ShardId, TaskId, TypeId};
use ergate_events::log::LogError;
use ergate_events::log::index::{EndingQuery, TaskIndex};
use ergate_events::slab::{Phase, Task};
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::{Micros, Timestamp};
use serde_json::Value;

use super::{GeneratorContext, Slot};

/// Most ended tasks that are told at once.
pub const ENDED_MAX: usize = 1_000;

/// The tasks of one type at one position of the log.
pub struct View {
    pub(super) slot: Slot,
    pub(super) shard: ShardId,
    /// A copy, which shares what has not changed since.
    pub(super) state: Box<State>,
    /// Every definition that the task type has had.
    ids: Vec<TypeId>,
    index: Arc<TaskIndex>,
    context: GeneratorContext,
}

/// A task that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveTask<'a> {
    /// Which task.
    pub id: TaskId,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its payload.
    pub payload: &'a [u8],
    /// Starts so far.
    pub attempt: u32,
    /// When it was requested.
    pub requested_at: Timestamp,
}

/// A task that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedTask {
    /// Which task.
    pub id: TaskId,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub at: Timestamp,
}

impl View {
    pub(super) fn new(
        name: &str,
        slot: Slot,
        shard: ShardId,
        state: Box<State>,
        index: Arc<TaskIndex>,
        context: GeneratorContext,
    ) -> View {
        let definitions = state.work.types.iter().zip(0..=u16::MAX);
        let ids = definitions.filter(|(definition, _)| definition.name == name).map(|(_, id)| TypeId(id)).collect();
        View { slot, shard, state, ids, index, context }
    }

    /// The slot that is generated for, which names the batch.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The position of the log up to which the view is true.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// The configuration that the program registered for the task type; [`Value::Null`] where there is none.
    pub fn configuration(&self) -> &Value {
        self.context.configuration()
    }

    /// Whether the runtime wants to stop: what takes long should look now and then.
    pub fn is_stopping(&self) -> bool {
        self.context.is_stopping()
    }

    /// Tasks that have not ended, oldest first.
    pub fn live(&self) -> impl Iterator<Item = LiveTask<'_>> {
        let own = self.state.work.tasks.iter().filter(|(_, task, _)| self.ids.contains(&task.task_type));
        own.map(|(ordinal, task, payload)| self.live_task(ordinal, task, payload))
    }

    /// Tasks that wait: for a slot, a limit, a moment or their next attempt; oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = LiveTask<'_>> {
        self.live().filter(|task| !task.is_running())
    }

    /// Tasks that have a slot, oldest first.
    pub fn running(&self) -> impl Iterator<Item = LiveTask<'_>> {
        self.live().filter(LiveTask::is_running)
    }

    /// The tasks that ended last, newest first; at most `limit`, and at most [`ENDED_MAX`].
    ///
    /// # Errors
    /// [`LogError`] when the log cannot be read.
    pub fn ended(&self, limit: usize) -> Result<Vec<EndedTask>, LogError> {
        let limit = limit.min(ENDED_MAX);
        let query = EndingQuery { types: Some(&self.ids), before: Some(self.position()), limit, ..EndingQuery::default() };
        let endings = self.index.endings(&query, None)?;
        let id = |ordinal| TaskId { shard: self.shard, ordinal };
        Ok(endings.iter().map(|ending| EndedTask { id: id(ending.task), outcome: ending.outcome, at: ending.at }).collect())
    }

    /// How long the keys of new tasks stay valid: for this slot at least, whenever it is asked for again.
    pub(super) fn key_window(&self) -> Option<Micros> {
        let window = self.state.work.types.get(usize::from(self.ids.last()?.0))?.settings.key_window;
        Some(window.max(Micros(self.slot.every().0.saturating_mul(2))))
    }

    fn live_task<'a>(&self, ordinal: Ordinal, task: &Task, payload: &'a [u8]) -> LiveTask<'a> {
        let id = TaskId { shard: self.shard, ordinal };
        LiveTask { id, phase: task.phase, payload, attempt: task.attempt, requested_at: task.requested_at }
    }
}

impl LiveTask<'_> {
    /// Whether it has a slot.
    pub const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Cancelling)
    }
}
