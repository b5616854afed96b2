//! A log in plain segment files: blocks back to back, and nothing between them and the disk.
//!
//! ```text
//! DIR/lock                           held by the one writer while it lives; its text is the writer's process id
//! DIR/store                          format version and identity of the store, written once
//! DIR/anchor                         how far the log was acknowledged (anchor.rs)
//! DIR/log/00000000000000000000.seg   blocks; the name is the position of the first one
//! ```
//! A block never spans two segments. Zeros are written ahead of the head, so that syncing a block has no metadata to write;
//! a segment is cut to its real length before the next one is created, so only the last one can end in zeros.
//!
//! **What is promised.** After [`EventLog::sync`] the blocks survive the end of the process and of the power. What a crash tears is
//! cut at the next opening if nobody was told of it, which is what the anchor says; anything else that does not fit is refused, by
//! name, with nothing changed, until [`repair`] is asked to accept the loss.
//!
//! A whole block behind a torn one is cut with it only if the anchor says that this writer has written several blocks between two
//! syncs; a writer that syncs every block on its own cannot leave such a tail, so there it is damage.
//!
//! Opening verifies all of the last segment and how the others join; their middles are verified when they are read.
//!
//! **The window that remains.** The anchor is written after every sync and synced itself when the writer is idle, when it closes, and
//! under load once both 20 ms and 64 syncs have gone by. A killed process loses nothing of it, for the system keeps what was written. After
//! a power cut it may lag by the blocks of that time, no more; if exactly these blocks are lost as well, by a disk that lied about
//! its sync or a second fault, the log ends early and nothing tells. A disk that keeps its word loses no block.

mod anchor;
mod create;
mod disk;
mod index;
mod inspect;
mod keeper;
mod layout;
mod reader;
mod recover;
mod repair;
mod scan;
mod segment;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use self::anchor::Anchor;
use self::create::{initialise, unlink};
use self::disk::{Disk, RealDisk};
pub use self::inspect::{Inspection, holder, identity, inspect};
use self::keeper::Keeper;
use self::layout::{Layout, failed, foreign};
pub use self::reader::FileReader;
use self::recover::{Found, Purpose, assess, base_of};
pub use self::repair::{Repair, repair};
use self::shared::{End, Shared};
pub use self::store::StoreId;
use self::writer::Active;
use super::{EventLog, Head, LogError, LogReader, Space};
use crate::block::SealedBlock;
use crate::id::Position;

/// How a [`FileLog`] is kept.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Whether to create a log where there is none.
    pub create: bool,
    /// Bytes after which the next segment begins; retention gives up whole segments.
    pub segment_bytes: u64,
    /// Bytes of zeros written ahead of the blocks.
    pub prealloc_bytes: u64,
    /// New work is refused below this many free bytes.
    pub low_water_bytes: u64,
    /// The identity of a store that is created; drawn by chance when none is given.
    pub store_id: Option<StoreId>,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { create: false, segment_bytes: 64 << 20, prealloc_bytes: 4 << 20, low_water_bytes: 64 << 20, store_id: None }
    }
}

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the log was created.
    pub created: bool,
    /// The identity of the store.
    pub store: StoreId,
    /// Where the log ends.
    pub head: Head,
    /// A torn block at the end that nobody was told of, and that is gone now.
    pub cut: Option<CutTail>,
    /// Whether blocks were found behind the anchor: the writer before did not close the log.
    pub anchor_was_behind: bool,
}

/// Bytes that were cut from the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutTail {
    /// The position that the first of them would have had.
    pub at: Position,
    /// How many there were, zeros behind them included.
    pub bytes: u64,
}

/// The one writer of a log of segment files.
pub struct FileLog {
    layout: Layout,
    options: FileOptions,
    disk: Box<dyn Disk>,
    keeper: Keeper,
    active: Option<Active>,
    head: Head,
    /// Blocks appended since the last sync.
    unsynced: u32,
    /// All segments, the active one last.
    segments: Vec<Position>,
    shared: Arc<Shared>,
    /// What went wrong, once something did.
    poison: Option<String>,
    /// Held until the log is dropped, closed or not.
    _lock: File,
}

impl FileLog {
    /// Opens the log in `dir` for writing, recovering from whatever happened to the process before.
    ///
    /// # Errors
    /// [`LogError::NotFound`], [`LogError::Locked`], [`LogError::Missing`], [`LogError::Damaged`], [`LogError::Chain`],
    /// [`LogError::Anchor`], [`LogError::Foreign`], [`LogError::FormatTooNew`], [`LogError::Io`], [`LogError::Full`]. Nothing
    /// of the log has been changed then.
    pub fn open(dir: &Path, options: FileOptions) -> Result<(FileLog, Recovery), LogError> {
        FileLog::open_on(dir, options, Box::new(RealDisk))
    }

    fn open_on(dir: &Path, options: FileOptions, disk: Box<dyn Disk>) -> Result<(FileLog, Recovery), LogError> {
        let layout = Layout::new(dir);
        if options.create {
            DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        }
        if store::read(&layout)?.is_none() {
            if !options.create {
                return Err(LogError::NotFound { path: dir.to_owned() });
            }
            if !layout.is_vacant()? {
                return Err(foreign(dir, "it holds files and no log; name an empty or new directory"));
            }
        }
        let lock = store::lock(&layout)?;
        let created = store::read(&layout)?.is_none();
        if created {
            initialise(&layout, disk.as_ref(), options.store_id)?;
        }
        let found = assess(&layout, Purpose::Write)?;
        let recovery = recovery(&found, created);
        FileLog::take_over(layout, options, disk, lock, found).map(|log| (log, recovery))
    }

    fn take_over(
        layout: Layout,
        options: FileOptions,
        disk: Box<dyn Disk>,
        lock: File,
        found: Found,
    ) -> Result<FileLog, LogError> {
        let mut keeper = Keeper::open(&layout, found.anchor)?;
        let last = found.segments.last();
        let active = last.map(|first| Active::resume(&layout, disk.as_ref(), *first, found.end, found.len)).transpose()?;
        disk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log()))?;
        keeper.commit(disk.as_ref(), Anchor { head: found.head, loose: false, ..found.anchor })?;
        unlink(&layout, disk.as_ref(), &found.leftover)?;
        let (head, segments) = (found.head, found.segments.clone());
        let shared = Arc::new(Shared::written(&layout, found.into_view()));
        Ok(FileLog { layout, options, disk, keeper, active, head, unsynced: 0, segments, shared, poison: None, _lock: lock })
    }

    fn usable(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(reason) => Err(LogError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Lets a failed step be the last one: what it left on disk, only a new opening can tell.
    fn settle<T>(&mut self, result: Result<T, LogError>) -> Result<T, LogError> {
        result.inspect_err(|error| {
            let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
            self.poison = Some(format!("{error}{cause}"));
        })
    }

    fn fits(&self, block: &SealedBlock) -> Result<(), LogError> {
        let (head, header) = (&self.head, &block.header);
        if header.first_position != head.next {
            return Err(LogError::Gap { expected: head.next, found: header.first_position });
        }
        if header.previous != head.hash {
            return Err(LogError::Chain { at: head.next, expected: head.hash, found: header.previous });
        }
        Ok(())
    }

    fn write(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        let len = block.bytes.len() as u64;
        if self.active.as_ref().is_none_or(|active| active.end > 0 && active.end + len > self.options.segment_bytes) {
            self.next_segment()?;
        }
        if self.unsynced > 0 && !self.keeper.current().loose {
            // From here on a power cut may leave this block and not the one before it, and recovery must know.
            self.keeper.commit(self.disk.as_ref(), Anchor { loose: true, ..*self.keeper.current() })?;
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        active.append(self.disk.as_ref(), &block.bytes, self.options.prealloc_bytes, self.options.segment_bytes)?;
        self.unsynced = self.unsynced.saturating_add(1);
        self.head = Head::after(block);
        Ok(())
    }

    /// Finishes the active segment, which makes all of it durable, and begins the next.
    fn next_segment(&mut self) -> Result<(), LogError> {
        if let Some(active) = &mut self.active {
            active.trim(self.disk.as_ref())?;
        }
        if self.unsynced > 0 {
            self.unsynced = 0;
            self.keeper.advance(self.disk.as_ref(), self.head)?;
        }
        self.active = Some(Active::create(&self.layout, self.disk.as_ref(), self.head.next)?);
        self.segments.push(self.head.next);
        Ok(())
    }

    fn make_durable(&mut self) -> Result<(), LogError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        if let Some(active) = &mut self.active {
            active.sync(self.disk.as_ref())?;
        }
        self.unsynced = 0;
        self.keeper.advance(self.disk.as_ref(), self.head)
    }

    fn rest(&mut self) -> Result<(), LogError> {
        self.make_durable()?;
        let options = &self.options;
        if let Some(active) = &mut self.active {
            match active.prepare_ahead(self.disk.as_ref(), options.prealloc_bytes, options.segment_bytes) {
                // Nothing had to be written yet; a write that does not fit says so itself.
                Ok(()) | Err(LogError::Full { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.keeper.sync(self.disk.as_ref())
    }

    fn finish(&mut self) -> Result<(), LogError> {
        self.make_durable()?;
        if let Some(active) = &mut self.active {
            active.trim(self.disk.as_ref())?;
        }
        self.keeper.commit(self.disk.as_ref(), Anchor { head: self.head, loose: false, ..*self.keeper.current() })
    }

    fn drop_before(&mut self, keep_from: Position) -> Result<(), LogError> {
        self.make_durable()?;
        // The segment that holds `keep_from` stays, and the active one always does.
        let kept = self.segments.partition_point(|first| *first <= keep_from).saturating_sub(1);
        let Some(first) = self.segments.get(kept).copied().filter(|_| kept > 0) else { return Ok(()) };
        let base = if first == self.head.next { self.head } else { base_of(&self.layout, first)? };
        self.keeper.commit(self.disk.as_ref(), Anchor { base, ..*self.keeper.current() })?;
        let dropped: Vec<_> = self.segments.drain(..kept).collect();
        self.publish();
        unlink(&self.layout, self.disk.as_ref(), &dropped)
    }
}

fn recovery(found: &Found, created: bool) -> Recovery {
    let cut = found.torn.then(|| CutTail { at: found.head.next, bytes: found.len - found.end });
    let anchor_was_behind = found.anchor.head.next < found.head.next;
    Recovery { created, store: found.store, head: found.head, cut, anchor_was_behind }
}

impl EventLog for FileLog {
    fn head(&self) -> Head {
        self.head
    }

    fn append(&mut self, block: &SealedBlock) -> Result<(), LogError> {
        self.usable()?;
        self.fits(block)?;
        let written = self.write(block);
        self.settle(written)
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.usable()?;
        let synced = self.make_durable();
        self.settle(synced)?;
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let offset = self.active.as_ref().map_or(0, |active| active.end);
        let end = End { next: self.head.next, next_ordinal: self.head.next_ordinal, offset };
        let segments = &self.segments;
        self.shared.publish(|view| {
            if *view.segments != *segments {
                view.segments = Arc::new(segments.clone());
            }
            view.end = end;
        });
    }

    fn idle(&mut self) -> Result<(), LogError> {
        self.usable()?;
        let rested = self.rest();
        self.settle(rested)?;
        self.publish();
        Ok(())
    }

    fn space(&self) -> Result<Space, LogError> {
        let found = rustix::fs::statvfs(&self.layout.dir).map_err(|error| failed("measure", &self.layout.dir)(error.into()))?;
        let free_bytes = found.f_bavail.saturating_mul(found.f_frsize);
        Ok(Space { free_bytes, low_water_bytes: self.options.low_water_bytes })
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(FileReader::new(Arc::clone(&self.shared)))
    }

    fn retain(&mut self, keep_from: Position) -> Result<Position, LogError> {
        self.usable()?;
        let dropped = self.drop_before(keep_from);
        self.settle(dropped)?;
        Ok(self.segments.first().copied().unwrap_or(self.head.next))
    }

    fn close(mut self: Box<Self>) -> Result<(), LogError> {
        self.usable()?;
        let finished = self.finish();
        self.settle(finished)?;
        self.publish();
        Ok(())
    }
}
