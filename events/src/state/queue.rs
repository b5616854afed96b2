//! Ready tasks of one type: a row for each priority, in the order in which they became ready.

use crate::id::{Ordinal, Position};
use crate::shared::SharedQueue;
use crate::slab::{Phase, Slab};
use crate::task::PRIORITY_MAX;

/// Stale entries that a queue may hold beyond its ready tasks before it is swept.
const STALE_MAX: usize = 1_024;

/// The ready tasks of a type. An entry whose task went elsewhere stays until it is met or swept.
#[derive(Clone, Debug, Default)]
pub struct ReadyQueue {
    rows: [SharedQueue<Entry>; PRIORITY_MAX as usize + 1],
    ready: usize,
}

/// A task and the event that made it ready: the entry is stale when the task is no longer ready since that event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) task: Ordinal,
    pub(crate) ready_position: Position,
}

impl Entry {
    /// Whether the entry still stands for a ready task.
    pub(crate) fn is_live(&self, tasks: &Slab) -> bool {
        tasks.get(self.task).is_some_and(|task| task.phase == Phase::Ready && task.ready_position == self.ready_position)
    }
}

impl ReadyQueue {
    /// Number of ready tasks.
    pub const fn len(&self) -> usize {
        self.ready
    }

    /// Whether no task is ready.
    pub const fn is_empty(&self) -> bool {
        self.ready == 0
    }

    pub(crate) fn push(&mut self, task: Ordinal, priority: u8, ready_position: Position) {
        self.rows[usize::from(priority.min(PRIORITY_MAX))].push_back(Entry { task, ready_position });
        self.ready += 1;
    }

    /// Notes that one ready task of this priority is so no longer, and drops stale entries from the front.
    pub(crate) fn forget(&mut self, priority: u8, tasks: &Slab) {
        self.ready = self.ready.saturating_sub(1);
        let row = &mut self.rows[usize::from(priority.min(PRIORITY_MAX))];
        while row.front().is_some_and(|entry| !entry.is_live(tasks)) {
            row.drop_front();
        }
        if row.len() > 2 * self.ready + STALE_MAX {
            *row = row.iter().filter(|entry| entry.is_live(tasks)).copied().collect();
        }
    }

    /// The rows from the lowest priority to the highest.
    pub(crate) const fn rows(&self) -> &[SharedQueue<Entry>; PRIORITY_MAX as usize + 1] {
        &self.rows
    }

    /// How many pointers and entries a clone copies.
    #[cfg(test)]
    pub(crate) fn clone_work(&self) -> usize {
        self.rows.iter().map(SharedQueue::clone_work).sum()
    }
}
