//! What dependencies keep: which tasks are held, which tasks each of them waits for, and which ends have not been told to those that wait for them.
//!
//! A task comes after tasks that were requested before it, so that no chain of them leads back to itself. Nothing here is looked at while no task
//! is held.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::id::Ordinal;
use crate::shared::{SharedMap, SharedSet};
use crate::slab::{Phase, Slab};
use crate::task::{OnFailure, Outcome};
use crate::time::Timestamp;

/// What a held task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    /// Tasks whose end it was not told, in order; it waits for at least one.
    pub after: Arc<[Ordinal]>,
    /// What becomes of it when one of them ends without success.
    pub on_failure: OnFailure,
    /// The moment before which it is not to start even then.
    pub not_before: Option<Timestamp>,
}

/// Holds as they are written: the rest follows from them.
#[derive(Debug, Default, Encode, Decode)]
pub(crate) struct HoldsImage {
    held: Vec<(Ordinal, Hold)>,
    ended: Vec<(Ordinal, Outcome)>,
}

/// All held tasks.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    held: SharedMap<Ordinal, Hold>,
    /// For each task that others come after, which ones.
    dependents: SharedSet<(Ordinal, Ordinal)>,
    /// How tasks ended that still have dependents.
    ended: SharedMap<Ordinal, Outcome>,
}

impl Holds {
    /// Whether no task is held.
    pub const fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What a task waits for, if it is held.
    pub fn get(&self, task: Ordinal) -> Option<&Hold> {
        self.held.get(&task)
    }

    /// All held tasks with what they wait for.
    pub fn iter(&self) -> impl Iterator<Item = (Ordinal, &Hold)> {
        self.held.iter().map(|(task, hold)| (*task, hold))
    }

    /// The tasks that come after this one.
    pub fn dependents(&self, task: Ordinal) -> impl Iterator<Item = Ordinal> {
        let from = self.dependents.iter_from((task, Ordinal(0)));
        from.take_while(move |(of, _)| *of == task).map(|(_, dependent)| *dependent)
    }

    /// How many tasks wait for others, counted once for each that they wait for.
    pub fn links(&self) -> usize {
        self.dependents.len()
    }

    /// Whether a task has ended and not all who wait for it were told.
    pub fn has_ended(&self, task: Ordinal) -> bool {
        self.ended.contains_key(&task)
    }

    /// The first task that has to be told of an end: the task, which one ended, and how.
    pub(crate) fn first_untold(&self) -> Option<(Ordinal, Ordinal, Outcome)> {
        let (ended, outcome) = self.ended.first_key_value()?;
        let dependent = self.dependents(*ended).next()?;
        Some((dependent, *ended, *outcome))
    }

    /// Holds a task until these have ended.
    pub(crate) fn hold(&mut self, task: Ordinal, hold: Hold) {
        for dependency in hold.after.iter() {
            self.dependents.insert((*dependency, task));
        }
        self.held.insert(task, hold);
    }

    /// Notes the end of a task; its dependents are told one by one.
    #[inline]
    pub(crate) fn end(&mut self, task: Ordinal, outcome: Outcome) {
        if !self.is_empty() {
            self.note_end(task, outcome);
        }
    }

    #[cold]
    fn note_end(&mut self, task: Ordinal, outcome: Outcome) {
        if self.dependents(task).next().is_some() {
            self.ended.insert(task, outcome);
        }
    }

    /// Notes that a task was told of an end. Answers with what it waited for when that was the last.
    pub(crate) fn meet(&mut self, task: Ordinal, dependency: Ordinal) -> Option<Hold> {
        if !self.held.get(&task)?.after.contains(&dependency) {
            return None;
        }
        self.unlink(dependency, task);
        let hold = self.held.remove(&task)?;
        let after: Arc<[Ordinal]> = hold.after.iter().copied().filter(|known| *known != dependency).collect();
        if after.is_empty() {
            return Some(hold);
        }
        self.held.insert(task, Hold { after, ..hold });
        None
    }

    /// Forgets what a task waited for that is over.
    #[cold]
    pub(crate) fn release(&mut self, task: Ordinal) {
        if let Some(hold) = self.held.remove(&task) {
            hold.after.iter().for_each(|dependency| self.unlink(*dependency, task));
        }
    }

    fn unlink(&mut self, dependency: Ordinal, task: Ordinal) {
        self.dependents.remove(&(dependency, task));
        if self.dependents(dependency).next().is_none() {
            self.ended.remove(&dependency);
        }
    }
}

/// Snapshots.
impl Holds {
    /// What is written of it.
    pub(crate) fn image(&self) -> HoldsImage {
        HoldsImage {
            held: self.held.iter().map(|(task, hold)| (*task, hold.clone())).collect(),
            ended: self.ended.iter().map(|(task, outcome)| (*task, *outcome)).collect(),
        }
    }

    /// Takes what was written, beside these tasks; false for what contradicts them or itself.
    pub(crate) fn restore(&mut self, image: HoldsImage, tasks: &Slab) -> bool {
        let HoldsImage { held, ended } = image;
        for (task, hold) in held {
            let is_held = tasks.get(task).is_some_and(|known| known.phase == Phase::Held);
            let in_order = hold.after.is_sorted_by(|one, next| one < next) && hold.after.last().is_some_and(|last| *last < task);
            if !is_held || !in_order {
                return false;
            }
            self.hold(task, hold);
        }
        let is_over = |task: Ordinal| tasks.get(task).is_none();
        let fits = ended.iter().all(|(task, _)| is_over(*task) && self.dependents(*task).next().is_some());
        self.ended = ended.into_iter().collect();
        fits && self.dependents.iter().all(|(task, _)| !is_over(*task) || self.ended.contains_key(task))
    }
}
