//! What an engine does differently from the other ones: the segment that is written, and how an end is found after a crash.

use std::sync::Arc;

use super::super::{Head, LogError, LogReader};
use super::anchor::Anchor;
use super::chain::Chain;
use super::disk::Disk;
use super::layout::Layout;
use super::store::StoreId;
use super::view::{End, View};
use super::{CutTail, Engine, Options};
use crate::block::{Hash, SealedBlock};
use crate::id::Position;

/// What was found in a data directory.
#[derive(Debug)]
pub(in crate::log) struct Survey {
    pub(in crate::log) store: StoreId,
    pub(in crate::log) anchor: Anchor,
    /// First positions of the segments that belong to the log, in order.
    pub(in crate::log) segments: Vec<Position>,
    /// Segments before the log's beginning, which retention was about to take away.
    pub(in crate::log) leftover: Vec<Position>,
    /// Where the valid blocks end.
    pub(in crate::log) head: Head,
    /// Bytes in front of the head's last block in its segment.
    pub(in crate::log) last_at: u64,
    /// What follows the head and may be cut, because nobody was told of it.
    pub(in crate::log) torn: Option<CutTail>,
}

impl Survey {
    /// The view of a log whose last segment has so many bytes of blocks.
    pub(in crate::log) fn view(&self, offset: u64) -> View {
        View { segments: Arc::new(self.segments.clone()), end: End::of(&self.head, offset) }
    }
}

/// Where following the chain through one segment has ended.
pub(in crate::log) enum Follow {
    /// At the segment's end.
    Whole,
    /// Before something that is no block, or not the next one, after so many bytes.
    Broken(u64),
}

/// The segment that is being written, and its engine.
pub(in crate::log) trait ActiveSegment: Sized + Send + 'static {
    /// How its engine is called.
    const ENGINE: Engine;
    /// What the writer shares with its readers.
    type Shared: Send + Sync + 'static;
    /// What was found beyond the survey.
    type Found;

    /// Looks at a log that nobody else writes, changing nothing of it.
    ///
    /// # Errors
    /// [`LogError::Missing`], [`LogError::Damaged`], [`LogError::Chain`], [`LogError::Anchor`] and whatever reading meets.
    fn survey(layout: &Layout) -> Result<(Survey, Self::Found), LogError>;

    /// Takes over what was found: cuts what follows the head, and makes everything before it durable.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn resume(
        layout: &Layout,
        disk: &dyn Disk,
        survey: &Survey,
        found: Self::Found,
    ) -> Result<(Option<Self>, Arc<Self::Shared>), LogError>;

    /// Creates the segment that begins with this block, durably named and still empty.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn create(shared: &Arc<Self::Shared>, layout: &Layout, disk: &dyn Disk, block: &SealedBlock) -> Result<Self, LogError>;

    /// Bytes of blocks.
    fn bytes(&self) -> u64;

    /// Whether it has blocks and no room for so many bytes more.
    fn is_full_for(&self, bytes: u64, options: &Options) -> bool;

    /// Writes a block behind the last one.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn append(&mut self, disk: &dyn Disk, block: &SealedBlock, options: &Options) -> Result<(), LogError>;

    /// Hands all blocks to the system, so that they outlive the process.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn hand_over(&mut self) -> Result<(), LogError>;

    /// Makes all blocks durable.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn sync(&mut self, disk: &dyn Disk) -> Result<(), LogError>;

    /// Does what can wait while nobody waits.
    ///
    /// # Errors
    /// [`LogError::Io`].
    fn rest(&mut self, disk: &dyn Disk, options: &Options) -> Result<(), LogError>;

    /// Makes all blocks durable before another segment follows, or none.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn seal(&mut self, disk: &dyn Disk) -> Result<(), LogError>;

    /// Shows readers which segments there are and where the last one ends.
    fn publish(shared: &Self::Shared, segments: &[Position], end: End);

    /// A reader of what is published.
    fn reader(shared: &Arc<Self::Shared>) -> Arc<dyn LogReader>;

    /// Where a log begins whose first segment this is.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when the segment does not begin with a block, [`LogError::Io`].
    fn base_of(layout: &Layout, first: Position) -> Result<Head, LogError>;

    /// What tells a sealed segment from one that was replaced, cut or emptied, without reading all of it.
    ///
    /// # Errors
    /// [`LogError::Damaged`] when the segment does not begin with a block, [`LogError::Io`].
    fn seal_of(layout: &Layout, first: Position) -> Result<Hash, LogError>;

    /// Takes a segment away.
    ///
    /// # Errors
    /// What the system says.
    fn remove(layout: &Layout, disk: &dyn Disk, first: Position) -> std::io::Result<()>;

    /// Follows the chain through one segment.
    ///
    /// # Errors
    /// [`LogError::FormatTooNew`], [`LogError::Io`].
    fn follow(layout: &Layout, first: Position, chain: &mut Chain) -> Result<Follow, LogError>;

    /// How far the log once reached, as far as anything still tells: the anchor, names, and blocks behind the place where the
    /// chain ends, which is `offset` in the first of `segments`, at `found`.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Foreign`].
    fn evidence(
        layout: &Layout,
        segments: &[Position],
        offset: u64,
        anchored: Position,
        found: Position,
    ) -> Result<Position, LogError>;

    /// The hash of the block that ends at `at`; `None` when no block does.
    ///
    /// # Errors
    /// [`LogError::Damaged`] for a block on the way, [`LogError::Io`].
    fn hash_before(layout: &Layout, segments: &[Position], at: Position, head: Head) -> Result<Option<Hash>, LogError>;

    /// Replaces a segment by its beginning, which ends with the block before `next` after `bytes` bytes, once that is safe; the
    /// whole of it remains under `aside`.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    fn keep_beginning(
        layout: &Layout,
        first: Position,
        aside: &std::path::Path,
        bytes: u64,
        next: Position,
    ) -> Result<(), LogError>;
}
