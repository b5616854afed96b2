//! The same questions, answered by reading the log: for ranges without an index.

use std::collections::VecDeque;

use super::entry::{Birth, Fact, TypeOf, facts};
use super::{Ending, EndingQuery, FindType, damaged};
use crate::block::Block;
use crate::id::{Ordinal, Position, TypeId};
use crate::log::{LogError, LogReader, Span};

/// Adds the first positions of the blocks of the range that hold events of the task, in order.
pub(super) fn history(reader: &dyn LogReader, span: Span, task: Ordinal, found: &mut Vec<Position>) -> Result<(), LogError> {
    // Nothing is about a task before the block that creates it.
    let created = reader.seek_task(task)?.unwrap_or(span.first);
    let about = |fact: &Fact| fact.about == Some(task) || fact.creates.is_some_and(|(created, _)| created == task);
    each_block(reader, Span { first: created.max(span.first), ..span }, |block| {
        for fact in facts(block) {
            if about(&fact.map_err(|source| damaged(block, source))?) {
                found.push(block.header.first_position);
                break;
            }
        }
        Ok(())
    })
}

/// The newest endings of the range that the query asks for, newest first. Needs two bytes of memory for each task that the range
/// creates; ranges without an index are short unless the index was lost.
pub(super) fn endings(
    reader: &dyn LogReader,
    span: Span,
    query: &EndingQuery<'_>,
    find_type: FindType<'_>,
) -> Result<Vec<Ending>, LogError> {
    let mut types = Types::default();
    let mut found = VecDeque::new();
    let next = query.before.map_or(span.next, |before| span.next.min(before));
    each_block(reader, Span { next, ..span }, |block| {
        types.first_ordinal.get_or_insert(block.header.first_ordinal);
        for fact in facts(block) {
            let Fact { position, at, creates, ends, .. } = fact.map_err(|source| damaged(block, source))?;
            if let Some((_, birth)) = creates {
                types.create(birth, find_type)?;
            }
            let Some((task, outcome)) = ends.filter(|_| position >= span.first && position < next) else { continue };
            if query.outcome.is_some_and(|wanted| wanted != outcome) {
                continue;
            }
            let task_type = types.find(task, find_type)?;
            if query.wants(task_type, outcome) {
                found.push_back(Ending { task, task_type, outcome, at, position });
            }
            if found.len() > query.limit {
                found.pop_front();
            }
        }
        Ok(())
    })?;
    Ok(found.into_iter().rev().collect())
}

/// The types of the tasks that a walk has seen created.
#[derive(Default)]
struct Types {
    first_ordinal: Option<Ordinal>,
    seen: Vec<TypeOf>,
}

impl Types {
    fn create(&mut self, birth: Birth, find_type: FindType<'_>) -> Result<(), LogError> {
        let task_type = match birth {
            Birth::Typed(id) => Some(id),
            Birth::Like(task) => self.find(task, find_type)?,
        };
        self.seen.push(TypeOf::new(task_type));
        Ok(())
    }

    fn find(&self, task: Ordinal, find_type: FindType<'_>) -> Result<Option<TypeId>, LogError> {
        let index = self.first_ordinal.and_then(|first| task.0.checked_sub(first.0));
        let seen = index.and_then(|index| self.seen.get(usize::try_from(index).ok()?));
        seen.map_or_else(|| find_type(task), |found| Ok(found.known()))
    }
}

/// The type of a task, from the block that creates it; `None` when the log does not hold that block.
pub(super) fn type_of(reader: &dyn LogReader, mut task: Ordinal) -> Result<Option<TypeId>, LogError> {
    loop {
        let Some(at) = reader.seek_task(task)? else { return Ok(None) };
        let Some(block) = reader.cursor(at)?.next_block()? else { return Ok(None) };
        match birth_of(&block, task)? {
            Some(Birth::Typed(id)) => return Ok(Some(id)),
            // A task is redriven after it was created; anything else would lead us in circles.
            Some(Birth::Like(old)) if old < task => task = old,
            Some(Birth::Like(_)) | None => return Ok(None),
        }
    }
}

fn birth_of(block: &Block, task: Ordinal) -> Result<Option<Birth>, LogError> {
    for fact in facts(block) {
        let fact = fact.map_err(|source| damaged(block, source))?;
        if let Some((_, birth)) = fact.creates.filter(|(created, _)| *created == task) {
            return Ok(Some(birth));
        }
    }
    Ok(None)
}

/// Gives every block of the range to `read`.
fn each_block(reader: &dyn LogReader, span: Span, mut read: impl FnMut(&Block) -> Result<(), LogError>) -> Result<(), LogError> {
    if span.first >= span.next {
        return Ok(());
    }
    let mut cursor = reader.cursor(span.first)?;
    while let Some(block) = cursor.next_block()? {
        if block.header.first_position >= span.next {
            break;
        }
        read(&block)?;
    }
    Ok(())
}
