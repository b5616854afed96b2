//! A log in memory, for tests and for runtimes whose work need not outlive them.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Cursor, EventLog, Head, LogError, LogReader, Space, Span};
use crate::block::{Block, Hash, SealedBlock};
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

/// A log that ends with its process.
#[derive(Debug, Default)]
pub struct MemoryLog {
    head: Head,
    pending: Vec<Stored>,
    shared: Arc<RwLock<Shared>>,
}

/// What readers see.
#[derive(Debug, Default)]
struct Shared {
    blocks: Vec<Stored>,
    next: Position,
}

#[derive(Clone, Debug)]
struct Stored {
    first: Position,
    next: Position,
    next_ordinal: Ordinal,
    last_time: Timestamp,
    hash: Hash,
    previous: Hash,
    bytes: Arc<[u8]>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> MemoryLog {
        MemoryLog::default()
    }
}

impl EventLog for MemoryLog {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        if block.header.first_position != self.head.next {
            return Err(LogError::Gap { expected: self.head.next, found: block.header.first_position });
        }
        if block.header.previous != self.head.hash {
            return Err(LogError::Chain { at: self.head.next, expected: self.head.hash, found: block.header.previous });
        }
        self.pending.push(Stored {
            first: block.header.first_position,
            next: block.header.next_position(),
            next_ordinal: block.next_ordinal,
            last_time: block.last_time,
            hash: block.hash,
            previous: block.header.previous,
            bytes: block.bytes.as_slice().into(),
        });
        self.head = Head::after(block);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.publish()
    }

    fn publish(&mut self) -> Result<(), LogError> {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        shared.blocks.append(&mut self.pending);
        shared.next = self.head.next;
        Ok(())
    }

    fn idle(&mut self) -> Result<(), LogError> {
        Ok(())
    }

    fn space(&self) -> Result<Space, LogError> {
        Ok(Space { free_bytes: u64::MAX, low_water_bytes: 0 })
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(MemoryReader { shared: Arc::clone(&self.shared) })
    }

    fn retain(&mut self, keep_from: Position) -> Result<Position, LogError> {
        let blocks = &mut self.shared.write().unwrap_or_else(PoisonError::into_inner).blocks;
        let dropped = blocks.partition_point(|block| block.next <= keep_from);
        blocks.drain(..dropped);
        Ok(blocks.first().map_or(self.head.next, |block| block.first))
    }

    fn close(mut self: Box<Self>) -> Result<(), LogError> {
        self.sync()
    }
}

/// Reads a [`MemoryLog`].
struct MemoryReader {
    shared: Arc<RwLock<Shared>>,
}

impl MemoryReader {
    fn with<T>(&self, read: impl FnOnce(&[Stored]) -> T) -> T {
        read(&self.shared.read().unwrap_or_else(PoisonError::into_inner).blocks)
    }
}

impl LogReader for MemoryReader {
    fn span(&self) -> Span {
        let shared = self.shared.read().unwrap_or_else(PoisonError::into_inner);
        Span { first: shared.blocks.first().map_or(shared.next, |block| block.first), next: shared.next }
    }

    fn cursor(&self, from: Position) -> Result<Box<dyn Cursor>, LogError> {
        let span = self.span();
        if from < span.first {
            return Err(LogError::Gone { at: from, first: span.first });
        }
        if from > span.next {
            return Err(LogError::Beyond { at: from, next: span.next });
        }
        Ok(Box::new(MemoryCursor { at: from, reader: MemoryReader { shared: Arc::clone(&self.shared) } }))
    }

    fn seek_time(&self, time: Timestamp) -> Result<Position, LogError> {
        let next = self.span().next;
        Ok(self.with(|blocks| {
            let index = blocks.partition_point(|block| block.last_time < time);
            blocks.get(index).map_or(next, |block| block.first)
        }))
    }

    fn seek_task(&self, task: Ordinal) -> Result<Option<Position>, LogError> {
        let found = self.with(|blocks| {
            let index = blocks.partition_point(|block| block.next_ordinal <= task);
            blocks.get(index).cloned()
        });
        // The first block that is kept may begin behind the task.
        let Some(stored) = found else { return Ok(None) };
        let block = parse(&stored)?;
        Ok((block.header.first_ordinal <= task).then_some(stored.first))
    }

    fn hash_before(&self, at: Position) -> Result<Option<Hash>, LogError> {
        Ok(self.with(|blocks| {
            let behind = blocks.partition_point(|block| block.first < at);
            let named = blocks.get(behind).filter(|block| block.first == at).map(|block| block.previous);
            named.or_else(|| blocks.last().filter(|block| block.next == at).map(|block| block.hash))
        }))
    }
}

/// Walks over a [`MemoryLog`].
struct MemoryCursor {
    at: Position,
    reader: MemoryReader,
}

impl Cursor for MemoryCursor {
    fn next_block(&mut self) -> Result<Option<Block>, LogError> {
        let found = self.reader.with(|blocks| {
            let index = blocks.partition_point(|block| block.next <= self.at);
            blocks.get(index).cloned()
        });
        let Some(stored) = found else { return Ok(None) };
        if self.at < stored.first {
            return Err(LogError::Gone { at: self.at, first: stored.first });
        }
        self.at = stored.next;
        parse(&stored).map(Some)
    }
}

fn parse(stored: &Stored) -> Result<Block, LogError> {
    Block::parse(&stored.bytes).map_err(|source| LogError::Damaged {
        at: stored.first,
        path: PathBuf::from("memory"),
        offset: 0,
        source,
    })
}
