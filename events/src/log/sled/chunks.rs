//! How a block becomes keys and values, and keys and values a block again.

use crate::block::{BlockError, Header};
use crate::id::Position;

/// Longest value in bytes. A leaf of sled holds up to 17 of them, and one longer than a quarter of its 512 KiB segments, 128 KiB,
/// would go to a file that sled never syncs.
pub(super) const CHUNK_BYTES_MAX: usize = 7_000;
const KEY_BYTES: usize = 10;

/// Where a chunk lies: big-endian, so that the order of keys is the order of the log.
pub(super) fn key(position: Position, chunk: u16) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&position.0.to_be_bytes());
    key[8..].copy_from_slice(&chunk.to_be_bytes());
    key
}

/// The position and the number of a chunk; `None` for a key of another length.
pub(super) fn place(key: &[u8]) -> Option<(Position, u16)> {
    let key: &[u8; KEY_BYTES] = key.try_into().ok()?;
    let position = u64::from_be_bytes(*key.first_chunk()?);
    Some((Position(position), u16::from_be_bytes(*key.last_chunk()?)))
}

/// A block's chunks with their keys.
///
/// # Panics
/// For a block of more than 65,536 chunks, which is 28 times the longest one.
pub(super) fn cut(position: Position, block: &[u8]) -> impl Iterator<Item = ([u8; KEY_BYTES], &[u8])> {
    let numbered = (0_u32..).zip(block.chunks(CHUNK_BYTES_MAX));
    numbered.map(move |(number, chunk)| (key(position, u16::try_from(number).expect("a block is at most 16 MiB")), chunk))
}

/// The chunks of one block, collected in order.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    chunks: u16,
}

impl Pieces {
    /// Takes the next chunk; says whether the block is whole with it.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub(super) fn take(&mut self, number: u16, chunk: &[u8]) -> Result<bool, BlockError> {
        if number != self.chunks {
            return Err(BlockError::Body("a chunk of it is missing"));
        }
        self.bytes.extend_from_slice(chunk);
        self.chunks += 1;
        Ok(self.bytes.len() >= Header::parse(&self.bytes)?.block_len())
    }

    /// The bytes of all chunks.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a block has begun and is not whole yet.
    pub(super) const fn is_open(&self) -> bool {
        self.chunks > 0
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.chunks = 0;
    }
}
