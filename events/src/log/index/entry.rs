//! What an index remembers: four kinds of entries, and the facts of a block that they are made from.

use bincode::{Decode, Encode};

use super::Ending;
use super::page::{Entry, put, step, take, walk};
use crate::block::{Block, BlockError};
use crate::event::{Envelope, Event};
use crate::id::{Ordinal, Position, TypeId};
use crate::task::Outcome;
use crate::time::Timestamp;

/// In place of a task type that is not known: the task was created where neither log nor index reaches any more.
const UNKNOWN: u16 = u16::MAX;

/// A block that creates tasks. By ordinal, which is also by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Creation {
    /// Ordinal of the first task that it creates.
    pub(super) first_ordinal: u64,
    /// First position of the block.
    pub(super) block: u64,
}

impl Entry for Creation {
    fn key(&self) -> u64 {
        self.first_ordinal
    }

    fn mask(&self) -> u32 {
        0
    }

    fn write(&self, before: &Self, out: &mut Vec<u8>) {
        put(self.first_ordinal.wrapping_sub(before.first_ordinal), out);
        put(self.block.wrapping_sub(before.block), out);
    }

    fn read(before: &Self, input: &mut &[u8]) -> Option<Self> {
        let first_ordinal = before.first_ordinal.wrapping_add(take(input)?);
        Some(Creation { first_ordinal, block: before.block.wrapping_add(take(input)?) })
    }
}

/// The type of a created task. By ordinal, each with two bytes, so that a task's place in its page can be computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(super) struct TypeOf(u16);

/// Types in a page.
pub(super) const TYPES_PER_PAGE: usize = super::page::PAGE_BYTES / 2;

impl TypeOf {
    pub(super) fn new(task_type: Option<TypeId>) -> TypeOf {
        TypeOf(task_type.map_or(UNKNOWN, |id| id.0))
    }

    pub(super) fn known(self) -> Option<TypeId> {
        (self.0 != UNKNOWN).then_some(TypeId(self.0))
    }
}

impl Entry for TypeOf {
    fn key(&self) -> u64 {
        0
    }

    fn mask(&self) -> u32 {
        0
    }

    fn write(&self, _: &Self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(_: &Self, input: &mut &[u8]) -> Option<Self> {
        let (bytes, rest) = input.split_first_chunk()?;
        *input = rest;
        Some(TypeOf(u16::from_le_bytes(*bytes)))
    }
}

/// A block that holds events of a task which an earlier block created. By task, then by block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Posting {
    pub(super) task: u64,
    /// First position of the block.
    pub(super) block: u64,
}

impl Entry for Posting {
    fn key(&self) -> u64 {
        self.task
    }

    fn mask(&self) -> u32 {
        0
    }

    fn write(&self, before: &Self, out: &mut Vec<u8>) {
        put(self.task.wrapping_sub(before.task), out);
        put(step(before.block, self.block), out);
    }

    fn read(before: &Self, input: &mut &[u8]) -> Option<Self> {
        let task = before.task.wrapping_add(take(input)?);
        Some(Posting { task, block: walk(before.block, take(input)?) })
    }
}

/// The end of a task. By position, which is also by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    position: u64,
    task: u64,
    at: u64,
    /// The outcome's number in the lowest three bits, the type in the sixteen above, then [`DEAD`].
    kind: u32,
    /// How often a dead letter was started; 0 for all others, which do not store it.
    starts: u32,
}

/// In an end's kind: the task became a dead letter.
const DEAD: u32 = 1 << 19;

impl End {
    pub(super) fn of(ending: &Ending) -> End {
        let kind = u32::from(TypeOf::new(ending.task_type).0) << 3 | u32::from(number(ending.outcome));
        let dead = if ending.dead_letter.is_some() { DEAD } else { 0 };
        let starts = ending.dead_letter.unwrap_or(0);
        End { position: ending.position.0, task: ending.task.0, at: ending.at.0, kind: kind | dead, starts }
    }

    /// The ending; `None` when its outcome is none of ours.
    pub(super) fn ending(self) -> Option<Ending> {
        Some(Ending {
            task: Ordinal(self.task),
            task_type: TypeOf((self.kind >> 3) as u16).known(),
            outcome: *Outcome::ALL.get((self.kind & 7) as usize)?,
            at: Timestamp(self.at),
            position: Position(self.position),
            dead_letter: (self.kind & DEAD != 0).then_some(self.starts),
        })
    }
}

impl Entry for End {
    fn key(&self) -> u64 {
        self.position
    }

    fn mask(&self) -> u32 {
        outcome_bit(self.kind & 7) | type_bit(self.kind >> 3 & 0xffff)
    }

    fn write(&self, before: &Self, out: &mut Vec<u8>) {
        put(self.position.wrapping_sub(before.position), out);
        put(step(before.task, self.task), out);
        put(self.at.wrapping_sub(before.at), out);
        put(u64::from(self.kind), out);
        if self.kind & DEAD != 0 {
            put(u64::from(self.starts), out);
        }
    }

    fn read(before: &Self, input: &mut &[u8]) -> Option<Self> {
        let position = before.position.wrapping_add(take(input)?);
        let task = walk(before.task, take(input)?);
        let at = before.at.wrapping_add(take(input)?);
        let kind = u32::try_from(take(input)?).ok()?;
        let starts = if kind & DEAD != 0 { u32::try_from(take(input)?).ok()? } else { 0 };
        Some(End { position, task, at, kind, starts })
    }
}

/// The number of an outcome on disk: its place among all of them.
pub(super) const fn number(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => 0,
        Outcome::Partial => 1,
        Outcome::Failed => 2,
        Outcome::Cancelled => 3,
        Outcome::Skipped => 4,
    }
}

pub(super) const fn outcome_bit(number: u32) -> u32 {
    1 << (number & 7)
}

/// Types share the bits that the outcomes leave.
pub(super) const fn type_bit(id: u32) -> u32 {
    1 << (8 + id % 24)
}

/// Where a new task's type comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Birth {
    /// Its request names the type.
    Typed(TypeId),
    /// It was redriven and has the type of this task.
    Like(Ordinal),
}

/// What one record says about tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact<'a> {
    pub(super) position: Position,
    pub(super) at: Timestamp,
    /// The task that it is about, created before.
    pub(super) about: Option<Ordinal>,
    /// The task that it creates.
    pub(super) creates: Option<(Ordinal, Birth)>,
    /// The task that it ends.
    pub(super) ends: Option<(Ordinal, Outcome)>,
    /// Of an end as a dead letter, how often the task was started.
    pub(super) dead_letter: Option<u32>,
    /// The task that is a dead letter no more.
    pub(super) revives: Option<Ordinal>,
    /// The task type that it defines.
    pub(super) defines: Option<(TypeId, &'a str)>,
}

/// The facts of a block in order; ends after the first record that cannot be read.
pub(super) fn facts(block: &Block) -> impl Iterator<Item = Result<Fact<'_>, BlockError>> {
    let mut next_ordinal = block.header.first_ordinal;
    // What makes a dead letter of a task is decided with its end and recorded before it, and names the attempt.
    let mut last_attempt = (None, 0);
    block.records().map(move |record| {
        let Envelope { position, recorded_at, event } = record?;
        let creates = birth(&event).map(|birth| (next_ordinal, birth));
        next_ordinal.0 = next_ordinal.0.saturating_add(u64::from(creates.is_some()));
        let about = event.task();
        last_attempt = attempt(&event).map_or(last_attempt, |attempt| (about, attempt));
        let starts = if last_attempt.0 == about { last_attempt.1 } else { 0 };
        Ok(Fact {
            position,
            at: recorded_at,
            about,
            creates,
            ends: event.ends(),
            dead_letter: matches!(event, Event::DeadLettered { .. }).then_some(starts),
            revives: about.filter(|_| matches!(event, Event::Redriven { .. } | Event::DeadLetterDropped { .. })),
            defines: if let Event::TypeDefined { task_type, name, .. } = event { Some((task_type, name)) } else { None },
        })
    })
}

/// The attempt whose failure the event tells.
fn attempt(event: &Event<'_>) -> Option<u32> {
    if let Event::Failed { attempt, .. } | Event::TimedOut { attempt, .. } | Event::Lost { attempt, .. } = event {
        Some(*attempt)
    } else {
        None
    }
}

fn birth(event: &Event<'_>) -> Option<Birth> {
    if let Event::Requested { task_type, .. } = event {
        return Some(Birth::Typed(*task_type));
    }
    if let Event::Redriven { task, .. } = event {
        return Some(Birth::Like(*task));
    }
    None
}
