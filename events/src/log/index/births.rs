//! The types of tasks whose range has no index, from the blocks that create them: each block is read once for all its tasks.

use std::collections::BTreeMap;

use super::entry::{Birth, facts};
use super::{damaged, scan};
use crate::block::Block;
use crate::id::Ordinal;
use crate::log::{LogError, LogReader};

/// Blocks remembered at once; each creates a few thousand tasks at most.
const BLOCKS_MAX: usize = 64;

/// What was read so far. It stays true, for the log is only ever appended to.
#[derive(Debug, Default)]
pub(super) struct Births {
    /// By the first ordinal that the block creates.
    blocks: BTreeMap<Ordinal, Vec<Birth>>,
}

impl Births {
    /// Where the type of a task comes from; `None` when the log does not hold the block that creates it.
    pub(super) fn find(&mut self, reader: &dyn LogReader, task: Ordinal) -> Result<Option<Birth>, LogError> {
        if let Some(birth) = self.known(task) {
            return Ok(Some(birth));
        }
        let Some((first, births)) = scan::births(reader, task)? else { return Ok(None) };
        if self.blocks.len() >= BLOCKS_MAX {
            self.blocks.clear();
        }
        self.blocks.insert(first, births);
        Ok(self.known(task))
    }

    fn known(&self, task: Ordinal) -> Option<Birth> {
        let (first, births) = self.blocks.range(..=task).next_back()?;
        births.get(usize::try_from(task.0 - first.0).ok()?).copied()
    }
}

/// Where the types of the tasks come from that a block creates.
pub(super) fn births_of(block: &Block) -> Result<Vec<Birth>, LogError> {
    let births = facts(block).filter_map(|fact| fact.map(|fact| fact.creates.map(|(_, birth)| birth)).transpose());
    births.collect::<Result<_, _>>().map_err(|source| damaged(block, source))
}
