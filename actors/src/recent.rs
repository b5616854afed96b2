//! The newest durable blocks, still decoded: whoever follows the log closely needs neither disk, checksum nor lz4 for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ergate_events::block::Block;
use ergate_events::id::Position;

/// Bodies kept, in bytes: some ten full batches, which is how far the views are behind when the shard does not let up.
pub const RECENT_BYTES_MAX: usize = 4 << 20;

/// The newest durable blocks of a log. The log thread adds, followers take; who finds nothing reads the log.
#[derive(Debug)]
pub struct Recent {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Recent::with_limit(RECENT_BYTES_MAX)
    }
}

#[derive(Debug, Default)]
struct Kept {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
}

impl Recent {
    /// Keeps bodies of at most so many bytes.
    pub fn with_limit(bytes_max: usize) -> Recent {
        Recent { kept: Mutex::default(), bytes_max }
    }

    /// Adds blocks that are durable now; they follow each other and what was added before.
    pub(crate) fn add(&self, blocks: impl Iterator<Item = Block>) {
        let mut kept = self.kept();
        for block in blocks {
            kept.bytes += block.body_len();
            kept.blocks.push_back(Arc::new(block));
        }
        while kept.bytes > self.bytes_max
            && let Some(oldest) = kept.blocks.pop_front()
        {
            kept.bytes -= oldest.body_len();
        }
    }

    /// The block that begins here, if it is kept.
    pub fn at(&self, first: Position) -> Option<Arc<Block>> {
        let kept = self.kept();
        let index = kept.blocks.partition_point(|block| block.header.first_position < first);
        kept.blocks.get(index).filter(|block| block.header.first_position == first).cloned()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
