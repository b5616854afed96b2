//! Which of the blocks of a partition are the log.

use super::message::Received;
use crate::block::Hash;
use crate::id::{Position, ShardId};
use crate::log::{Head, LogError};

/// Follows the chain through what is read from a partition.
#[derive(Clone, Copy, Debug)]
pub struct Chained {
    shard: ShardId,
    next: Position,
    /// Hash of the block before; `None` where nothing is known of it yet.
    previous: Option<Hash>,
    /// Blocks that were there twice.
    repeated: u64,
}

impl Chained {
    /// Goes on where a log ends.
    pub fn after(shard: ShardId, head: &Head) -> Chained {
        Chained { shard, next: head.next, previous: Some(head.hash), repeated: 0 }
    }

    /// Takes the first block as it is, whatever lies before it.
    pub fn anywhere(shard: ShardId, next: Position) -> Chained {
        Chained { shard, next, previous: None, repeated: 0 }
    }

    /// Position of the record that comes next.
    pub const fn next(&self) -> Position {
        self.next
    }

    /// Hash of the last block.
    pub const fn hash(&self) -> Option<Hash> {
        self.previous
    }

    /// How many blocks were there twice.
    pub const fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Whether a block is the next one; `false` for one that was seen before.
    ///
    /// # Errors
    /// [`LogError::Gap`] when blocks are missing before it, [`LogError::Chain`] when it contradicts those before.
    pub fn takes(&mut self, received: &Received) -> Result<bool, LogError> {
        let header = &received.block.header;
        let at = header.first_position;
        if header.shard != self.shard {
            let reason = format!("the block at position {at} is of shard {}, not {}", header.shard, self.shard);
            return Err(super::failed("read a block", "events", reason));
        }
        if at > self.next {
            return Err(LogError::Gap { expected: self.next, found: at });
        }
        let is_repeated = header.next_position() <= self.next && self.previous.is_some_and(|_| at < self.next);
        if is_repeated {
            return self.skip(received);
        }
        if at < self.next {
            return Err(LogError::Gap { expected: self.next, found: at });
        }
        if let Some(expected) = self.previous.filter(|expected| *expected != header.previous) {
            return Err(LogError::Chain { at, expected, found: header.previous });
        }
        self.next = header.next_position();
        self.previous = Some(received.hash);
        Ok(true)
    }

    /// A block at positions that are taken: the newest one again is a repetition, another one there a contradiction. Of older ones nothing
    /// is remembered here; whoever verifies a whole log compares them.
    fn skip(&mut self, received: &Received) -> Result<bool, LogError> {
        let header = &received.block.header;
        match self.previous {
            Some(hash) if header.next_position() == self.next && hash != received.hash => {
                Err(LogError::Chain { at: header.first_position, expected: hash, found: received.hash })
            }
            Some(_) | None => {
                self.repeated += 1;
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{Block, OpenBlock};
    use crate::event::Event;
    use crate::id::{Epoch, Ordinal};
    use crate::time::Timestamp;

    fn block(position: u64, previous: Hash, at: u64) -> Received {
        let mut open = OpenBlock::new(ShardId(3), Epoch(1), Position(position), Ordinal(0));
        (0..2).for_each(|index| open.push(Timestamp(at + index), &Event::Ready { task: Ordinal(index) }));
        let sealed = open.seal(previous);
        Received {
            offset: 0,
            block: Block::parse(&sealed.bytes).expect("it was sealed"),
            hash: sealed.hash,
            bytes: 0,
            source_next: None,
        }
    }

    #[test]
    fn the_next_block_is_taken_a_repeated_one_is_not_and_anything_else_is_an_error() {
        let mut chained = Chained::after(ShardId(3), &Head::default());
        let first = block(0, Hash::ZERO, 1);
        let second = block(2, first.hash, 5);
        assert!(chained.takes(&first).expect("it is the first"));
        assert!(!chained.takes(&first).expect("it is there twice"));
        assert!(chained.takes(&second).expect("it follows"));
        assert!(!chained.takes(&first).expect("it is there three times"));
        assert_eq!(chained.repeated(), 2);
        let other = block(2, first.hash, 6);
        assert!(matches!(chained.takes(&other), Err(LogError::Chain { .. })), "two blocks claim the same positions");
        assert!(matches!(chained.takes(&block(4, first.hash, 9)), Err(LogError::Chain { .. })));
        assert!(matches!(chained.takes(&block(6, second.hash, 9)), Err(LogError::Gap { .. })));
        assert!(matches!(chained.takes(&block(3, second.hash, 9)), Err(LogError::Gap { .. })), "it overlaps");
        assert!(chained.takes(&block(4, second.hash, 9)).expect("errors change nothing"));
    }
}
