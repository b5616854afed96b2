//! A log in plain segment files: blocks back to back, and nothing between them and the disk.
//!
//! ```text
//! DIR/log/00000000000000000000.seg   blocks; the name is the position of the first one
//! ```
//! A block never spans two segments. Zeros are written ahead of the head, so that syncing a block has no metadata to write;
//! a segment is cut to its real length before the next one is created, so only the last one can end in zeros.
//!
//! A whole block behind a torn one is cut with it only if the anchor says that this writer has written several blocks between two
//! syncs; a writer that syncs every block on its own cannot leave such a tail, so there it is damage.
//!
//! Opening verifies all of the last segment and how the others join; their middles are verified when they are read. A reader begins
//! with the last acknowledged block instead of the last segment, if that is where the anchor says; and it needs no
//! lock, so any number of processes may read beside the writer.

mod index;
mod reader;
mod recover;
mod repair;
mod scan;
mod segment;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::directory::chain::Chain;
use super::directory::disk::Disk;
use super::directory::engine::{ActiveSegment, Follow, Survey};
use super::directory::layout::Layout;
use super::directory::view::End;
use super::directory::{DirectoryLog, Engine, Options};
use super::{Head, LogError, LogReader};
use crate::block::{Hash, SealedBlock};
use crate::id::Position;

pub use self::reader::FileReader;
use self::recover::{Purpose, Tail, assess};
use self::scan::{Stop, scan};
use self::segment::Segment;
use self::shared::{Shared, assess_settled};
pub use self::writer::Active;

/// The one writer of a log of segment files.
pub type FileLog = DirectoryLog<Active>;

/// Looks at a log of files as a reader would.
pub(super) fn look_at_files(layout: &Layout) -> Result<Survey, LogError> {
    assess_settled(layout, Purpose::Inspect).map(|found| found.survey)
}

impl ActiveSegment for Active {
    const ENGINE: Engine = Engine::File;
    type Shared = Shared;
    type Found = Tail;

    fn survey(layout: &Layout) -> Result<(Survey, Tail), LogError> {
        assess(layout, Purpose::Write).map(|found| (found.survey, found.tail))
    }

    fn resume(layout: &Layout, disk: &dyn Disk, survey: &Survey, tail: Tail) -> Result<(Option<Active>, Arc<Shared>), LogError> {
        let last = survey.segments.last();
        let active = last.map(|first| Active::take_over(layout, disk, *first, tail.end, tail.len)).transpose()?;
        Ok((active, Arc::new(Shared::written(layout, survey.view(tail.end)))))
    }

    fn create(_: &Arc<Shared>, layout: &Layout, disk: &dyn Disk, block: &SealedBlock) -> Result<Active, LogError> {
        Active::begin(layout, disk, block.header.first_position)
    }

    fn bytes(&self) -> u64 {
        self.end
    }

    fn is_full_for(&self, bytes: u64, options: &Options) -> bool {
        self.end > 0 && self.end + bytes > options.segment_bytes
    }

    fn append(&mut self, disk: &dyn Disk, block: &SealedBlock, options: &Options) -> Result<(), LogError> {
        self.write(disk, &block.bytes, options.prealloc_bytes, options.segment_bytes)
    }

    fn hand_over(&mut self) -> Result<(), LogError> {
        // Every append is a write.
        Ok(())
    }

    fn sync(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        self.make_durable(disk)
    }

    fn rest(&mut self, disk: &dyn Disk, options: &Options) -> Result<(), LogError> {
        match self.prepare_ahead(disk, options.prealloc_bytes, options.segment_bytes) {
            // Nothing had to be written yet; a write that does not fit says so itself.
            Ok(()) | Err(LogError::Full { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn seal(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        self.trim(disk)
    }

    fn publish(shared: &Shared, segments: &[Position], end: End) {
        shared.advance_to(segments, end);
    }

    fn reader(shared: &Arc<Shared>) -> Arc<dyn LogReader> {
        Arc::new(FileReader::new(Arc::clone(shared)))
    }

    fn base_of(layout: &Layout, first: Position) -> Result<Head, LogError> {
        recover::base_of(layout, first)
    }

    fn seal_of(layout: &Layout, first: Position) -> Result<Hash, LogError> {
        recover::seal_of(layout, first)
    }

    fn remove(layout: &Layout, disk: &dyn Disk, first: Position) -> io::Result<()> {
        disk.remove(&layout.segment(first))
    }

    fn follow(layout: &Layout, first: Position, chain: &mut Chain) -> Result<Follow, LogError> {
        let segment = Segment::require(layout, first)?;
        match scan(&segment, chain, 0)? {
            (_, Stop::Clean) => Ok(Follow::Whole),
            // What a newer build wrote is not damage.
            (_, Stop::Unfit(error @ LogError::FormatTooNew { .. })) => Err(error),
            (offset, Stop::Truncated(_) | Stop::Torn(_) | Stop::Unfit(_)) => Ok(Follow::Broken(offset)),
        }
    }

    fn evidence(
        layout: &Layout,
        segments: &[Position],
        offset: u64,
        anchored: Position,
        found: Position,
    ) -> Result<Position, LogError> {
        recover::evidence(layout, segments, offset, anchored, found)
    }

    fn hash_before(layout: &Layout, segments: &[Position], at: Position, head: Head) -> Result<Option<Hash>, LogError> {
        recover::hash_before(layout, segments, at, head)
    }

    fn keep_beginning(layout: &Layout, first: Position, aside: &Path, bytes: u64, _: Position) -> Result<(), LogError> {
        repair::keep_beginning(layout, first, aside, bytes)
    }
}
