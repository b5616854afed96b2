//! Following the chain from block to block, whatever they are read from.

use super::super::{Head, LogError};
use crate::block::{Block, BlockError, Hash, Header};
use crate::id::{Ordinal, Position, ShardId};

/// How far the chain was followed.
#[derive(Clone, Debug)]
pub(in crate::log) struct Chain {
    /// Position and hash that the next block must fit; the rest of the head comes from the last block's records.
    pub(in crate::log) next: Position,
    pub(in crate::log) hash: Hash,
    pub(in crate::log) shard: Option<ShardId>,
    pub(in crate::log) last: Option<Block>,
}

/// Why a whole block is not the next one of the chain.
pub(in crate::log) enum Misfit {
    /// It belongs to another place.
    Place(&'static str),
    /// It belongs behind another block.
    Predecessor(LogError),
}

impl Chain {
    pub(in crate::log) const fn at(next: Position, hash: Hash) -> Chain {
        Chain { next, hash, shard: None, last: None }
    }

    /// The chain behind a block that was verified elsewhere.
    pub(in crate::log) fn behind(block: Block) -> Chain {
        Chain { next: block.header.next_position(), hash: block.hash(), shard: Some(block.header.shard), last: Some(block) }
    }

    /// Goes one block further, if it is the one that follows.
    ///
    /// # Errors
    /// [`Misfit`].
    pub(in crate::log) fn follow(&mut self, block: Block) -> Result<(), Misfit> {
        self.check(&block.header).map_err(Misfit::Place)?;
        if block.header.previous != self.hash {
            let (expected, found) = (self.hash, block.header.previous);
            return Err(Misfit::Predecessor(LogError::Chain { at: self.next, expected, found }));
        }
        *self = Chain::behind(block);
        Ok(())
    }

    fn check(&self, header: &Header) -> Result<(), &'static str> {
        if header.first_position != self.next {
            return Err("its position does not follow the block before it");
        }
        match self.shard {
            Some(shard) if shard != header.shard => Err("it belongs to another shard than the block before it"),
            Some(_) | None => Ok(()),
        }
    }
}

/// The head of a log that ends with this block.
///
/// # Errors
/// When its records cannot be read.
pub(in crate::log) fn head_after(block: &Block) -> Result<Head, BlockError> {
    let mut created = 0;
    let mut last_time = block.header.first_time;
    for record in block.records() {
        let record = record?;
        created += u64::from(record.event.creates_task());
        last_time = record.recorded_at;
    }
    let ordinal = block.header.first_ordinal.0.checked_add(created);
    Ok(Head {
        next: block.header.next_position(),
        next_ordinal: Ordinal(ordinal.ok_or(BlockError::Body("its ordinals overflow"))?),
        hash: block.hash(),
        last_time,
    })
}

/// The head of a log that begins with the block of this header.
pub(in crate::log) fn head_before(header: &Header) -> Head {
    Head { next: header.first_position, next_ordinal: header.first_ordinal, hash: header.previous, last_time: header.first_time }
}
