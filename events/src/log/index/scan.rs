//! The same questions, answered by reading the log: for ranges without an index.

use std::collections::{BTreeSet, VecDeque};

use super::births::births_of;
use super::entry::{Birth, Fact, TypeOf, facts};
use super::{Ending, EndingQuery, FindType, TypeNames, damaged};
use crate::block::Block;
use crate::event::Event;
use crate::id::{Ordinal, Position, TypeId};
use crate::log::{LogError, LogReader, Span};

/// Events that are read at once where the newest are wanted; each further step back reads twice as many.
const WINDOW: u64 = 32 << 10;
/// A task with events in more blocks than this is not read to learn whether it is over.
const LIFE_BLOCKS_MAX: usize = 256;

/// Adds the first positions of the blocks of the range that hold events of the task, in order.
pub(super) fn history(reader: &dyn LogReader, span: Span, task: Ordinal, found: &mut Vec<Position>) -> Result<(), LogError> {
    // Nothing is about a task before the block that creates it.
    let created = reader.seek_task(task)?.unwrap_or(span.first);
    let about = |fact: &Fact<'_>| fact.about == Some(task) || fact.creates.is_some_and(|(created, _)| created == task);
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

/// Whether no later block can be about a task, which its blocks so far tell.
pub(super) fn is_over(reader: &dyn LogReader, task: Ordinal, blocks: &[Position]) -> Result<bool, LogError> {
    let mut life = Life::default();
    if blocks.len() > LIFE_BLOCKS_MAX {
        return Ok(false);
    }
    for at in blocks {
        let Some(block) = reader.cursor(*at)?.next_block()? else { return Ok(false) };
        let mut next = block.header.first_ordinal;
        for record in block.records() {
            let event = record.map_err(|source| damaged(&block, source))?.event;
            let creates = event.creates_task().then_some(next);
            next.0 = next.0.saturating_add(u64::from(creates.is_some()));
            if creates == Some(task) || event.task() == Some(task) {
                life.learn(&event, creates == Some(task));
            }
        }
    }
    Ok(life.is_over())
}

/// What decides whether more can come of a task.
#[derive(Default)]
struct Life {
    /// It is known from its beginning, and no later request can be taken for a repetition of its own.
    without_key: bool,
    /// Attempts that may still give back a slot.
    attempts: Vec<u32>,
    /// It ended, and not as a dead letter, which may be redriven or dropped.
    ended: bool,
}

impl Life {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other events neither end a task nor take or give back a slot")]
    fn learn(&mut self, event: &Event<'_>, creates: bool) {
        match event {
            Event::Requested { key, .. } => self.without_key = key.is_none(),
            Event::Redriven { .. } if creates => self.without_key = true,
            Event::Started { attempt, .. } => self.attempts.push(*attempt),
            Event::Succeeded { attempt, .. } | Event::Failed { attempt, .. } | Event::SlotReleased { attempt, .. } => {
                self.attempts.retain(|open| open != attempt);
            }
            _ => {}
        }
        self.ended |= matches!(event, Event::Succeeded { .. } | Event::Ended { .. });
    }

    const fn is_over(&self) -> bool {
        self.ended && self.without_key && self.attempts.is_empty()
    }
}

/// The newest endings of the range that the query asks for, newest first. Reads the range from its end, and no more of it than
/// is needed.
pub(super) fn endings(
    reader: &dyn LogReader,
    span: Span,
    query: &EndingQuery<'_>,
    find_type: FindType<'_>,
) -> Result<Vec<Ending>, LogError> {
    let mut found = Vec::new();
    let mut next = query.before.map_or(span.next, |before| span.next.min(before));
    let mut step = WINDOW;
    while next > span.first && found.len() < query.limit {
        let first = Position(next.0.saturating_sub(step)).max(span.first);
        let rest = EndingQuery { limit: query.limit - found.len(), ..*query };
        found.extend(endings_in(reader, Span { first, next }, &rest, find_type)?);
        (next, step) = (first, step.saturating_mul(2));
    }
    Ok(found)
}

/// Needs two bytes of memory for each task that the range creates.
fn endings_in(
    reader: &dyn LogReader,
    span: Span,
    query: &EndingQuery<'_>,
    find_type: FindType<'_>,
) -> Result<Vec<Ending>, LogError> {
    let mut types = Types::default();
    let mut found = VecDeque::new();
    each_block(reader, span, |block| {
        types.first_ordinal.get_or_insert(block.header.first_ordinal);
        for fact in facts(block) {
            let Fact { position, at, creates, ends, dead_letter, .. } = fact.map_err(|source| damaged(block, source))?;
            if let Some((_, birth)) = creates {
                types.create(birth, find_type)?;
            }
            let Some((task, outcome)) = ends.filter(|_| position >= span.first && position < span.next) else { continue };
            if query.outcome.is_some_and(|wanted| wanted != outcome) {
                continue;
            }
            let task_type = types.find(task, find_type)?;
            if query.wants(task_type, outcome) {
                found.push_back(Ending { task, task_type, outcome, at, position, dead_letter });
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

/// Adds those of the tasks that the range tells to be dead letters no more.
pub(super) fn revived(
    reader: &dyn LogReader,
    span: Span,
    tasks: &BTreeSet<Ordinal>,
    found: &mut BTreeSet<Ordinal>,
) -> Result<(), LogError> {
    each_block(reader, span, |block| {
        for fact in facts(block) {
            let revives = fact.map_err(|source| damaged(block, source))?.revives;
            found.extend(revives.filter(|task| tasks.contains(task)));
        }
        Ok(())
    })
}

/// Adds the types that the range defines.
pub(super) fn names(reader: &dyn LogReader, span: Span, names: &mut TypeNames) -> Result<(), LogError> {
    each_block(reader, span, |block| {
        for fact in facts(block) {
            let defines = fact.map_err(|source| damaged(block, source))?.defines;
            defines.into_iter().for_each(|(id, name)| names.define(id, name));
        }
        Ok(())
    })
}

/// Where the types come from of all tasks that are created together with this one: the first of them, and one birth for each;
/// `None` when the log does not hold their block.
pub(super) fn births(reader: &dyn LogReader, task: Ordinal) -> Result<Option<(Ordinal, Vec<Birth>)>, LogError> {
    let Some(at) = reader.seek_task(task)? else { return Ok(None) };
    let Some(block) = reader.cursor(at)?.next_block()? else { return Ok(None) };
    Ok(Some((block.header.first_ordinal, births_of(&block)?)))
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
