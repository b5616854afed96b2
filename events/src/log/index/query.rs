//! Which finished tasks are wanted, and what is told of each.

use super::entry::{number, outcome_bit, type_bit};
use crate::id::{Ordinal, Position, TypeId};
use crate::task::Outcome;
use crate::time::Timestamp;

/// Which finished tasks are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndingQuery<'a> {
    /// Tasks of one of these types only; a name that was redefined has several.
    pub types: Option<&'a [TypeId]>,
    /// Tasks that ended like this only.
    pub outcome: Option<Outcome>,
    /// Tasks that ended before this position only: the last one of the page before.
    pub before: Option<Position>,
    /// At most so many.
    pub limit: usize,
}

/// A finished task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which task.
    pub task: Ordinal,
    /// Its type; `None` when it was created before what the log and its indexes still hold.
    pub task_type: Option<TypeId>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub at: Timestamp,
    /// The record that ended it.
    pub position: Position,
    /// Of a task that became a dead letter with that, how often it was started. It may have been redriven or dropped since, see
    /// [`super::TaskIndex::revived`].
    pub dead_letter: Option<u32>,
}

impl EndingQuery<'_> {
    /// Whether entries with these bits may be among the wanted.
    pub(super) fn may_match(&self, mask: u32) -> bool {
        let outcome = self.outcome.is_none_or(|outcome| mask & outcome_bit(u32::from(number(outcome))) != 0);
        outcome && self.types.is_none_or(|types| types.iter().any(|id| mask & type_bit(u32::from(id.0)) != 0))
    }

    /// Whether an ending of this kind is among the wanted.
    pub(super) fn wants(&self, task_type: Option<TypeId>, outcome: Outcome) -> bool {
        let right_type = || self.types.is_none_or(|types| task_type.is_some_and(|id| types.contains(&id)));
        self.outcome.is_none_or(|wanted| wanted == outcome) && right_type()
    }

    /// Whether an ending at this position is before the cursor.
    pub(super) fn reaches(&self, position: Position) -> bool {
        self.before.is_none_or(|before| position < before)
    }
}
