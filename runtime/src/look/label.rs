//! Which tasks have certain labels: live tasks and dead letters as the state says, others as the log does where they were requested.
//!
//! The indexes know no labels. Tasks that end together were mostly requested together, so each block that requests tasks is read once for all of
//! them and a page of a list has a bound on what it reads; it is short where that is used up, and the list goes on from there.

use std::collections::BTreeMap;
use std::fmt;

use ergate_events::block::Block;
use ergate_events::event::Event;
use ergate_events::id::{Ordinal, Position};
use ergate_events::log::{LogError, LogReader};
use ergate_events::state::State;
use ergate_events::task::{ASKS_MAX, Ask, TEXT_BYTES_MAX};

use super::list::Log;
use super::record;

/// Most bytes of blocks that are read for one page, uncompressed, with what finding them costs.
pub(super) const PAGE_BYTES_MAX: u64 = 64 << 20;
/// To look for a block costs as much as to read so many bytes: at most 4,096 are looked for.
const SEEK_BYTES: u64 = 16 << 10;
/// A block costs as much as so many bytes at least: at most 65,536 are read.
const BLOCK_BYTES_MIN: u64 = 1 << 10;
/// To look at a task costs as much as so many bytes, whether or not its block must be read: at most a million are looked at.
const TASK_BYTES: u64 = 64;
/// Most tasks in front of the one that is looked for, whose blocks are read with its own because they are likely to be looked for next.
const AHEAD_MAX: u64 = 4_096;
/// Most blocks that are read for each of them. A task has its request, its start and its end in a block each where it is alone.
const AHEAD_BLOCKS_MAX: u64 = 4;
/// Most labels that a list may ask for: no task has more.
pub const LABELS_MAX: usize = ASKS_MAX;

/// A label that tasks must have, as its name, `=`, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(String);

impl Label {
    /// What a label is, for whoever gave something else.
    pub const EXPECTED: &'static str = "a label NAME=VALUE, each of at most 256 bytes,";

    /// Reads `NAME=VALUE`; `None` for what no task can have. Either may have more `=` in it, and the value may be empty.
    pub fn read(text: &str) -> Option<Label> {
        let (name, _) = text.split_once('=')?;
        (!name.is_empty() && text.len() <= 2 * TEXT_BYTES_MAX + 1).then(|| Label(text.to_owned()))
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.0.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) == Some(value)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Finds out which tasks have all the labels that a list asks for.
pub(super) struct Labelled<'a> {
    wanted: &'a [Label],
    state: Option<&'a State>,
    /// Where requests are: in the log, and where that begins later, in one that begins earlier.
    readers: [Option<&'a dyn LogReader>; 2],
    /// What blocks say, by the first task that they create.
    read: BTreeMap<Ordinal, Births>,
    /// Tasks in front of the next one that are read with it, and how many these may become.
    ahead: u64,
    ahead_max: u64,
    /// The requests of this task and of those before it are in no log.
    gone: Option<Ordinal>,
    /// How much of `used_max` is used up, which is [`PAGE_BYTES_MAX`] but for tests.
    used: u64,
    used_max: u64,
}

/// The tasks that a block creates.
struct Births {
    /// The one after the last.
    next: Ordinal,
    /// Those that were requested with the labels, in order.
    matching: Vec<Ordinal>,
    /// Those that were redriven, and of which dead letter, in order.
    redriven: Vec<(Ordinal, Ordinal)>,
}

impl<'a> Labelled<'a> {
    pub(super) fn new(wanted: &'a [Label], state: Option<&'a State>, log: &Log<'a>, used_max: u64) -> Labelled<'a> {
        let readers = [Some(log.reader), log.older];
        Labelled { wanted, state, readers, read: BTreeMap::new(), ahead: 1, ahead_max: AHEAD_MAX, gone: None, used: 0, used_max }
    }

    /// Whether a task that the state knows has the labels.
    pub(super) fn live(&self, state: &State, task: Ordinal) -> bool {
        let labels = || state.work.flow.labels.get(&task);
        self.wanted.is_empty() || labels().is_some_and(|labels| self.all_in(|wanted| labels.iter().any(|(n, v)| wanted.is(n, v))))
    }

    /// Whether a task has the labels; `None` where too much was read to find that out. The first task that is asked about is always found out.
    ///
    /// # Errors
    /// What the log meets.
    pub(super) fn has(&mut self, task: Ordinal) -> Result<Option<bool>, LogError> {
        if self.wanted.is_empty() {
            return Ok(Some(true));
        }
        if let Some(state) = self.state.filter(|state| state.work.flow.labels.contains_key(&task)) {
            return Ok(Some(self.live(state, task)));
        }
        if self.used >= self.used_max {
            return Ok(None);
        }
        self.used += TASK_BYTES;
        self.requested_with(task).map(Some)
    }

    /// Whether a task, or the dead letter that it was made of, was requested with the labels.
    fn requested_with(&mut self, mut task: Ordinal) -> Result<bool, LogError> {
        loop {
            let Some(births) = self.births(task)? else { return Ok(false) };
            if births.matching.binary_search(&task).is_ok() {
                return Ok(true);
            }
            let of = births.redriven.binary_search_by_key(&task, |(new, _)| *new).map(|index| births.redriven[index].1);
            match of {
                // Anything else would lead us in circles.
                Ok(old) if old < task => task = old,
                Ok(_) | Err(_) => return Ok(false),
            }
        }
    }

    /// What the block says that creates a task; `None` where no log has it any more.
    fn births(&mut self, task: Ordinal) -> Result<Option<&Births>, LogError> {
        if self.gone.is_some_and(|gone| task <= gone) {
            return Ok(None);
        }
        if self.known(task).is_none() {
            self.find(task)?;
        }
        if self.known(task).is_none() {
            self.gone = Some(task);
        }
        Ok(self.known(task))
    }

    fn known(&self, task: Ordinal) -> Option<&Births> {
        self.read.range(..=task).next_back().map(|(_, births)| births).filter(|births| task < births.next)
    }

    /// Reads the block that creates a task, with those before it where tasks are looked for in descending order.
    fn find(&mut self, task: Ordinal) -> Result<(), LogError> {
        let above = self.read.range(task..).next().map(|(first, _)| first.0 - task.0);
        let descending = above.is_some_and(|above| above <= self.ahead);
        self.ahead = if descending { (self.ahead * 2).min(self.ahead_max) } else { 1 };
        let below = self.read.range(..task).next_back().map_or(0, |(_, births)| births.next.0);
        let from = Ordinal(below.max((task.0 + 1).saturating_sub(self.ahead)));
        self.read_way(from, task)?;
        if self.known(task).is_none() && from < task {
            // Too many blocks lie between them that create no task, or the log begins between them.
            self.ahead_max = (self.ahead / 2).max(1);
            self.read_way(task, task)?;
        }
        Ok(())
    }

    /// Reads from the block that creates one task to that which creates another.
    fn read_way(&mut self, from: Ordinal, to: Ordinal) -> Result<(), LogError> {
        self.used += SEEK_BYTES;
        let Some((reader, at)) = self.seek(from)? else { return Ok(()) };
        let mut cursor = reader.cursor(at)?;
        for block_index in 0..(to.0 - from.0 + 1) * AHEAD_BLOCKS_MAX {
            if self.known(to).is_some() || block_index > 0 && self.used >= self.used_max {
                break;
            }
            let Some(block) = cursor.next_block()? else { break };
            self.used += u64::from(block.header.body_len).max(BLOCK_BYTES_MIN);
            self.learn(&block)?;
        }
        Ok(())
    }

    /// The log that has the request of a task, and where.
    fn seek(&self, task: Ordinal) -> Result<Option<(&'a dyn LogReader, Position)>, LogError> {
        for reader in self.readers.into_iter().flatten() {
            if let Some(at) = reader.seek_task(task)? {
                return Ok(Some((reader, at)));
            }
        }
        Ok(None)
    }

    fn learn(&mut self, block: &Block) -> Result<(), LogError> {
        let first = block.header.first_ordinal;
        let mut births = Births { next: first, matching: Vec::new(), redriven: Vec::new() };
        for record in record::of(block) {
            let record = record?;
            let Some(task) = record.creates else { continue };
            births.next = Ordinal(task.0.saturating_add(1));
            if let Event::Redriven { task: old, .. } = record.envelope.event {
                births.redriven.push((task, old));
            } else if let Event::Requested { asks, .. } = record.envelope.event
                && self.all_in(|wanted| asks.iter().any(|ask| matches!(ask, Ask::Label(name, value) if wanted.is(name, value))))
            {
                births.matching.push(task);
            }
        }
        if births.next > first {
            self.read.insert(first, births);
        }
        Ok(())
    }

    fn all_in(&self, has: impl FnMut(&Label) -> bool) -> bool {
        self.wanted.iter().all(has)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
