//! Tasks that could start if there were a slot, in the order in which an engine starts them.

use std::collections::VecDeque;

use crate::dispatch::PRIORITY_STEP;
use crate::task::PRIORITY_MAX;

/// Tasks by their index, with the moments from which on they were ready.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// By priority; each in the order of time.
    queues: [VecDeque<(u64, u32)>; PRIORITY_MAX as usize + 1],
    count: usize,
}

impl Ready {
    pub(super) fn push(&mut self, task: u32, at: u64, priority: u8) {
        if let Some(queue) = self.queues.get_mut(usize::from(priority)) {
            queue.push_back((at, task));
            self.count += 1;
        }
    }

    /// The task that is started next and since when it is ready: each step of priority counts as if it had come so much earlier.
    pub(super) fn pop(&mut self) -> Option<(u64, u32)> {
        let fronts = self.queues.iter().enumerate().filter_map(|(priority, queue)| {
            let (at, task) = *queue.front()?;
            Some((at + PRIORITY_STEP.0 * (self.queues.len() - priority) as u64, task, priority))
        });
        let (_, _, priority) = fronts.min()?;
        self.count -= 1;
        self.queues[priority].pop_front()
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Since when the one is ready that has been for longest.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.queues.iter().filter_map(|queue| queue.front().map(|(at, _)| *at)).min()
    }

    /// All of them, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.queues.iter().flatten().copied()
    }
}
