//! Finding a block inside a segment: an entry for every 64 KiB, then a walk over headers.

use super::super::LogError;
use super::segment::{SKIP_BYTES, Segment, Window};
use crate::block::{BlockError, HEADER_BYTES, Header};
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

/// Bytes between two entries.
const STRIDE_BYTES: u64 = 64 << 10;

/// Where a block begins, in all the ways that one can look for it. None of them ever decreases along the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) position: Position,
    pub(super) ordinal: Ordinal,
    pub(super) time: Timestamp,
}

impl Mark {
    fn of(header: &Header, offset: u64) -> Mark {
        Mark { offset, position: header.first_position, ordinal: header.first_ordinal, time: header.first_time }
    }

    fn follows(&self, before: &Mark) -> bool {
        self.position > before.position && self.ordinal >= before.ordinal && self.time >= before.time
    }
}

/// The entries of one segment, as far as anybody has looked.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: Vec<Mark>,
    /// Offset of the first block that is not covered yet, and the position it must have.
    covered: Option<(u64, Position)>,
}

impl Index {
    /// The last block before `limit` of which `before` is true; `before` is true up to some block and false from there on.
    ///
    /// # Errors
    /// [`LogError::Damaged`] for a header that cannot be or does not follow the one before it, [`LogError::Io`].
    pub(super) fn last_where(
        &mut self,
        segment: &Segment,
        limit: u64,
        before: &dyn Fn(&Mark) -> bool,
    ) -> Result<Option<Mark>, LogError> {
        if self.entries.last().is_none_or(before) {
            self.cover(segment, limit, before)?;
        }
        let index = self.entries.partition_point(before);
        let Some(entry) = index.checked_sub(1).and_then(|index| self.entries.get(index)) else { return Ok(None) };
        let (mut best, mut walk) = (*entry, Walk::new(entry.offset, entry.position));
        while let Some(mark) = walk.next(segment, limit)? {
            if !before(&mark) {
                break;
            }
            best = mark;
        }
        Ok(Some(best))
    }

    /// Extends the entries up to the first block of which `before` is not true, or up to `limit`.
    fn cover(&mut self, segment: &Segment, limit: u64, before: &dyn Fn(&Mark) -> bool) -> Result<(), LogError> {
        let (offset, position) = self.covered.unwrap_or((0, segment.first));
        let mut walk = Walk::new(offset, position);
        while let Some(mark) = walk.next(segment, limit)? {
            let last = self.entries.last();
            if last.is_none_or(|last| mark.offset >= last.offset + STRIDE_BYTES) {
                self.entries.push(mark);
            }
            self.covered = Some((walk.offset, walk.position));
            if !before(&mark) {
                break;
            }
        }
        Ok(())
    }
}

/// Goes from header to header.
struct Walk {
    offset: u64,
    position: Position,
    last: Option<Mark>,
    window: Window,
}

impl Walk {
    const fn new(offset: u64, position: Position) -> Walk {
        Walk { offset, position, last: None, window: Window::new(HEADER_BYTES) }
    }

    fn next(&mut self, segment: &Segment, limit: u64) -> Result<Option<Mark>, LogError> {
        if self.offset >= limit {
            return Ok(None);
        }
        let (at, offset) = (self.position, self.offset);
        let header = match self.window.header(&segment.file, offset, limit) {
            Ok(header) => header,
            // Zeros at the end of a segment that a crash left untrimmed.
            Err(error) => return self.end(segment, limit, segment.error(at, offset, error)),
        };
        let mark = Mark::of(&header, offset);
        if mark.position != self.position || self.last.is_some_and(|last| !mark.follows(&last)) {
            return Err(segment.error(at, offset, BlockError::Header("it does not follow the block before it")));
        }
        self.last = Some(mark);
        // Behind a large block nothing of what would be read with the next header is of use.
        self.window.set_chunk(if header.block_len() > SKIP_BYTES { HEADER_BYTES } else { SKIP_BYTES });
        self.offset += header.block_len() as u64;
        self.position = header.next_position();
        Ok(Some(mark))
    }

    fn end(&mut self, segment: &Segment, limit: u64, error: LogError) -> Result<Option<Mark>, LogError> {
        let absent = matches!(&error, LogError::Damaged { source: BlockError::Absent, .. });
        if absent && segment.is_zero(self.offset, limit)? { Ok(None) } else { Err(error) }
    }
}

/// The first block of a segment; `None` when it has none.
///
/// # Errors
/// As [`Index::last_where`].
pub(super) fn first_mark(segment: &Segment, limit: u64) -> Result<Option<Mark>, LogError> {
    Walk::new(0, segment.first).next(segment, limit)
}
