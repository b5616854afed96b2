//! Tasks that could start if there were a slot: the highest priority first, then the earliest.

use std::collections::VecDeque;

use crate::task::PRIORITY_MAX;

/// Tasks by their index.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queues: [VecDeque<u32>; PRIORITY_MAX as usize + 1],
    /// A bit for each priority of which there is a task.
    some: u16,
    count: usize,
}

impl Ready {
    pub(super) fn push(&mut self, task: u32, priority: u8) {
        if let Some(queue) = self.queues.get_mut(usize::from(priority)) {
            queue.push_back(task);
            self.some |= 1 << priority;
            self.count += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<u32> {
        let priority = self.some.checked_ilog2()?;
        let queue = self.queues.get_mut(priority as usize)?;
        let task = queue.pop_front()?;
        if queue.is_empty() {
            self.some &= !(1 << priority);
        }
        self.count -= 1;
        Some(task)
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The one that arrived first; indices are in the order of arrival.
    pub(super) fn oldest(&self) -> Option<u32> {
        self.queues.iter().filter_map(|queue| queue.front().copied()).min()
    }

    /// All of them, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.queues.iter().flatten().copied()
    }
}
