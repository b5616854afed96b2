//! Which of the blocks of a partition are the log.

use std::collections::VecDeque;

use super::message::Received;
use crate::block::{Hash, Header};
use crate::id::{Position, ShardId};
use crate::log::{Head, LogError};

/// Newest blocks that are remembered, to be held against late ones: more than a shard commits while a transaction may stay open.
const SEEN_MAX: usize = 16_384;

/// Follows the chain through what is read from a partition.
#[derive(Clone, Debug)]
pub struct Chained {
    shard: ShardId,
    next: Position,
    /// Hash of the block before; `None` where nothing is known of it yet.
    previous: Option<Hash>,
    /// Blocks that were there twice.
    repeated: u64,
    /// The newest blocks, oldest first.
    seen: VecDeque<Seen>,
}

/// A block that was taken.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: Position,
    hash: Hash,
    offset: i64,
}

impl Chained {
    /// Goes on where a log ends.
    pub const fn after(shard: ShardId, head: &Head) -> Chained {
        Chained { shard, next: head.next, previous: Some(head.hash), repeated: 0, seen: VecDeque::new() }
    }

    /// Goes on behind a block of the log.
    pub const fn behind(last: &Received) -> Chained {
        let Header { shard, .. } = last.block.header;
        let next = last.block.header.next_position();
        Chained { shard, next, previous: Some(last.hash), repeated: 0, seen: VecDeque::new() }
    }

    /// Takes the first block as it is, whatever lies before it.
    pub const fn anywhere(shard: ShardId, next: Position) -> Chained {
        Chained { shard, next, previous: None, repeated: 0, seen: VecDeque::new() }
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

    /// Whether a block is the next one; `false` for one that was seen before. One from before what is remembered counts as seen, see
    /// [`Chained::has_forgotten`].
    ///
    /// # Errors
    /// [`LogError::Gap`] when blocks are missing before it, [`LogError::Contradiction`] when it claims positions of another block,
    /// [`LogError::Chain`] when it names another predecessor.
    pub fn takes(&mut self, received: &Received) -> Result<bool, LogError> {
        let header = &received.block.header;
        let at = header.first_position;
        if header.shard != self.shard {
            let reason = format!(
                "offset {}: the block at position {at} is of shard {}, not {}",
                received.offset, header.shard, self.shard
            );
            return Err(super::failed("read a block", "events", reason));
        }
        if at > self.next {
            return Err(LogError::Gap { expected: self.next, found: at });
        }
        if at < self.next {
            return self.skip(received);
        }
        if let Some(expected) = self.previous.filter(|expected| *expected != header.previous) {
            return Err(LogError::Chain { at, expected, found: header.previous });
        }
        if self.seen.len() == SEEN_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { first: at, hash: received.hash, offset: received.offset });
        self.next = header.next_position();
        self.previous = Some(received.hash);
        Ok(true)
    }

    /// Whether a block claims positions of blocks from before what is remembered, so that it must be held against the log itself.
    pub fn has_forgotten(&self, received: &Received) -> bool {
        let at = received.block.header.first_position;
        at < self.next && self.seen.front().is_none_or(|oldest| at < oldest.first)
    }

    /// A block at positions that are taken: the one there again is a repetition, another one there a contradiction.
    fn skip(&mut self, received: &Received) -> Result<bool, LogError> {
        let header = &received.block.header;
        let at = header.first_position;
        if header.next_position() > self.next && self.seen.is_empty() {
            return Err(LogError::Gap { expected: self.next, found: at });
        }
        let known = self.seen.partition_point(|seen| seen.first <= at).checked_sub(1).map(|index| self.seen[index]);
        if let Some(known) = known.filter(|known| known.hash != received.hash) {
            return Err(LogError::Contradiction { at, shard: self.shard, first: known.offset, second: received.offset });
        }
        self.repeated += 1;
        Ok(false)
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
        let offset = i64::try_from(at).expect("it is small");
        let mut open = OpenBlock::new(ShardId(3), Epoch(1), Position(position), Ordinal(0));
        (0..2).for_each(|index| open.push(Timestamp(at + index), &Event::Ready { task: Ordinal(index) }));
        let sealed = open.seal(previous);
        Received {
            offset,
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
        for other in [block(2, first.hash, 6), block(0, Hash::ZERO, 7), block(3, second.hash, 8)] {
            let found = chained.takes(&other).expect_err("two blocks claim the same positions").to_string();
            let (first, second) = (if other.offset == 7 { 1 } else { 5 }, other.offset);
            assert!(found.contains(&format!("offsets {first} and {second}")), "{found}");
        }
        assert!(matches!(chained.takes(&block(4, first.hash, 9)), Err(LogError::Chain { .. })));
        assert!(matches!(chained.takes(&block(6, second.hash, 9)), Err(LogError::Gap { .. })));
        assert!(chained.takes(&block(4, second.hash, 9)).expect("errors change nothing"));
    }

    #[test]
    fn what_lies_before_the_beginning_cannot_be_told_from_memory() {
        let mut chained = Chained::anywhere(ShardId(3), Position(2));
        let first = block(0, Hash::ZERO, 1);
        let second = block(2, first.hash, 5);
        assert!(chained.has_forgotten(&first) && !chained.has_forgotten(&second));
        assert!(chained.takes(&second).expect("it is where reading begins"));
        assert!(chained.has_forgotten(&first) && !chained.has_forgotten(&second));
        assert!(!chained.takes(&first).expect("whoever asked has compared it"));
        assert_eq!(chained.repeated(), 1);
    }
}
