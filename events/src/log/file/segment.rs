//! One segment file as a reader sees it: blocks back to back, zeros or nothing behind the last one.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::super::LogError;
use super::super::directory::layout::{Layout, failed, open_file, read_full};
use crate::block::{Block, BlockError, HEADER_BYTES, Header};
use crate::id::Position;

/// Bytes read at once where everything is read: large enough that the system call costs nothing.
pub(super) const READ_BYTES: usize = 1 << 20;
/// Bytes read at once where only headers are read: small enough to skip the bodies of larger blocks.
pub(super) const SKIP_BYTES: usize = 16 << 10;

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// The position in its name.
    pub(super) first: Position,
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// Why a block could not be read.
pub(super) enum ReadError {
    Io(io::Error),
    Block(BlockError),
}

impl From<BlockError> for ReadError {
    fn from(error: BlockError) -> ReadError {
        ReadError::Block(error)
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> ReadError {
        ReadError::Io(error)
    }
}

impl Segment {
    /// Opens the segment with this name for reading; `None` when it is gone.
    ///
    /// # Errors
    /// [`LogError::Foreign`], [`LogError::Io`].
    pub(super) fn open(layout: &Layout, first: Position) -> Result<Option<Segment>, LogError> {
        let path = layout.segment(first);
        let file = open_file(&path, false)?;
        Ok(file.map(|file| Segment { first, path, file }))
    }

    /// As [`Segment::open`], where a missing file is a failure.
    ///
    /// # Errors
    /// As [`Segment::open`].
    pub(super) fn require(layout: &Layout, first: Position) -> Result<Segment, LogError> {
        let missing = || failed("open", &layout.segment(first))(io::ErrorKind::NotFound.into());
        Segment::open(layout, first)?.ok_or_else(missing)
    }

    /// Bytes of the file, zeros at its end included.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(super) fn len(&self) -> Result<u64, LogError> {
        Ok(self.file.metadata().map_err(failed("measure", &self.path))?.len())
    }

    /// Names the place at which reading failed.
    pub(super) fn error(&self, at: Position, offset: u64, error: impl Into<ReadError>) -> LogError {
        match error.into() {
            ReadError::Io(source) => failed("read", &self.path)(source),
            ReadError::Block(BlockError::FormatTooNew { found, known }) => {
                LogError::FormatTooNew { path: self.path.clone(), found, known }
            }
            ReadError::Block(source) => LogError::Damaged { at, path: self.path.clone(), offset, source },
        }
    }

    /// Whether nothing but zeros stands between two offsets. Holes are skipped, so a huge sparse file costs nothing.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(super) fn is_zero(&self, from: u64, to: u64) -> Result<bool, LogError> {
        let mut buffer = vec![0; READ_BYTES];
        let mut at = self.next_data(from);
        while at < to {
            let want = usize::try_from(to - at).unwrap_or(usize::MAX).min(READ_BYTES);
            let read = read_full(&self.file, &mut buffer[..want], at).map_err(failed("read", &self.path))?;
            if buffer[..read].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            if read < want {
                break;
            }
            at = self.next_data(at + read as u64);
        }
        Ok(true)
    }

    /// The first offset at or behind `from` that is not in a hole; the end of all files when there is none.
    pub(super) fn next_data(&self, from: u64) -> u64 {
        match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(at) => at,
            Err(Errno::NXIO) => u64::MAX,
            // Not every file system knows its holes; reading them as zeros is slower and says the same.
            Err(_) => from,
        }
    }
}

/// A stretch of a file in memory that moves forward as it is read; grows only for a block that is larger.
#[derive(Debug)]
pub(super) struct Window {
    buffer: Vec<u8>,
    filled: usize,
    start: u64,
    chunk: usize,
}

impl Window {
    /// An empty window that reads `chunk` bytes at once.
    pub(super) const fn new(chunk: usize) -> Window {
        Window { buffer: Vec::new(), filled: 0, start: 0, chunk }
    }

    /// Reads so many bytes at once from now on.
    pub(super) const fn set_chunk(&mut self, chunk: usize) {
        self.chunk = chunk;
    }

    /// Forgets what was read; needed when another file is read through the same window.
    pub(super) const fn reset(&mut self) {
        self.filled = 0;
    }

    /// The bytes from `at`: at least `want`, less only where `limit` or the file ends, more where they are there already.
    pub(super) fn bytes(&mut self, file: &File, at: u64, want: usize, limit: u64) -> io::Result<&[u8]> {
        let left = usize::try_from(limit.saturating_sub(at)).unwrap_or(usize::MAX);
        if self.held(at) < want.min(left) {
            let len = want.max(self.chunk).min(left);
            if self.buffer.len() < len {
                // A header may claim more than the file has, so memory follows the file and not the claim.
                let there = file.metadata()?.len().saturating_sub(at);
                self.buffer.resize(len.min(usize::try_from(there).unwrap_or(usize::MAX)).max(self.buffer.len()), 0);
            }
            let len = len.min(self.buffer.len());
            self.filled = 0;
            self.filled = read_full(file, &mut self.buffer[..len], at)?;
            self.start = at;
        }
        let held = self.held(at);
        let from = self.filled - held;
        Ok(&self.buffer[from..from + held.min(left)])
    }

    fn held(&self, at: u64) -> usize {
        let end = self.start + self.filled as u64;
        if at < self.start || at >= end { 0 } else { usize::try_from(end - at).unwrap_or(0) }
    }

    /// The header at `at`.
    pub(super) fn header(&mut self, file: &File, at: u64, limit: u64) -> Result<Header, ReadError> {
        Ok(Header::parse(self.bytes(file, at, HEADER_BYTES, limit)?)?)
    }

    /// The block at `at`, its checksum verified.
    pub(super) fn block(&mut self, file: &File, at: u64, limit: u64) -> Result<Block, ReadError> {
        let header = match self.header(file, at, limit) {
            Err(ReadError::Block(newer @ BlockError::FormatTooNew { .. })) => return Err(self.newer(file, at, limit, newer)?),
            header => header?,
        };
        Ok(Block::parse(self.bytes(file, at, header.block_len(), limit)?)?)
    }

    /// A newer build's block is whole; a flipped bit in the format is damage.
    fn newer(&mut self, file: &File, at: u64, limit: u64, newer: BlockError) -> Result<ReadError, ReadError> {
        let len = Header::claimed_len(self.bytes(file, at, HEADER_BYTES, limit)?);
        let block = self.bytes(file, at, len, limit)?;
        let whole = block.get(..len).is_some_and(Header::is_whole);
        Ok(if whole { newer } else { BlockError::Header("its format is unknown and its checksum does not match") }.into())
    }
}
