//! The last step of every batch: tasks are told of the ends that they wait for, those that limits let through become ready, and ready tasks get free
//! slots, until nothing moves any more.

use crate::dependency;
use crate::dispatch::{Assignment, STARTS_MAX, assignments};
use crate::event::Event;
use crate::id::{LimitId, Ordinal};
use crate::state::{State, Work};
use crate::time::Timestamp;

/// Most tasks that ends and limits stop or let through in one batch, so that it stays well below the size of a block.
pub const ADMISSIONS_MAX: usize = 4_096;

/// What is left of the last step of a batch.
#[derive(Debug, Default)]
pub struct Settling {
    /// Starts that were decided together, the next one last.
    starts: Vec<Assignment>,
    started: usize,
    admitted: usize,
    /// Whether slots were looked for since a task became ready.
    is_dealt: bool,
}

impl Settling {
    /// Begins the step anew.
    pub fn begin(&mut self) {
        self.starts.clear();
        (self.started, self.admitted, self.is_dealt) = (0, 0, false);
    }

    /// What happens next, or `None` when the batch is over. Whatever it is, it has to be folded before the next question.
    pub fn next(&mut self, state: &State, at: Timestamp) -> Option<Event<'static>> {
        loop {
            if let Some(Assignment { task, attempt, replica }) = self.starts.pop() {
                return Some(Event::Started { task, attempt, replica });
            }
            if self.admitted < ADMISSIONS_MAX
                && let Some(event) = dependency::next(&state.work).or_else(|| admission(&state.work, at))
            {
                self.admitted += 1;
                self.is_dealt &= !matches!(event, Event::Admitted { .. } | Event::DependencyMet { .. });
                return Some(event);
            }
            if self.is_dealt {
                return None;
            }
            self.deal(state, at);
        }
    }

    /// Whether there may be more to do than one batch has room for.
    pub const fn is_full(&self) -> bool {
        self.started >= STARTS_MAX || self.admitted >= ADMISSIONS_MAX
    }

    /// Deals free slots to ready tasks.
    fn deal(&mut self, state: &State, at: Timestamp) {
        self.is_dealt = true;
        assignments(state, at, &mut self.starts);
        self.starts.truncate(STARTS_MAX - self.started);
        self.started += self.starts.len();
        self.starts.reverse();
    }
}

/// The next task that a limit stops or that all let through (task rule version 1): first those that come to the gate, which go behind those that
/// wait already, then the first of each bucket that may have room again.
fn admission(work: &Work, at: Timestamp) -> Option<Event<'static>> {
    let flow = &work.flow;
    if let Some(task) = flow.first_at_gate() {
        let full = buckets(work, task).find(|(_, bucket)| flow.is_waited_for(*bucket) || !flow.has_room(*bucket, at));
        return Some(passed(task, full.map(|(limit, _)| limit)));
    }
    let (task, _) = flow.first_due(at)?;
    let full = buckets(work, task).find(|(_, bucket)| !flow.has_room(*bucket, at));
    Some(passed(task, full.map(|(limit, _)| limit)))
}

/// The limits of a task with its bucket in each.
fn buckets(work: &Work, task: Ordinal) -> impl Iterator<Item = (LimitId, crate::state::flow::BucketKey)> {
    let known = work.tasks.get(task);
    known.into_iter().flat_map(move |known| work.flow.buckets_of(task, known.task_type)).map(|bucket| (bucket.limit, bucket))
}

const fn passed(task: Ordinal, full: Option<LimitId>) -> Event<'static> {
    match full {
        Some(limit) => Event::Limited { task, limit },
        None => Event::Admitted { task },
    }
}
