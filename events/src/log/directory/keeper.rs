//! Keeping the head anchor: when it is written, and when it is synced.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::{Head, LogError};
use super::anchor::Anchor;
use super::disk::Disk;
use super::layout::{Layout, failed, open_file};

/// Under load the anchor is synced when both this time and this number of syncs have gone by. On a fast disk the time is the
/// later of the two and keeps the cost at one sync in 20 ms; on a slow one the number is, and keeps it at one sync in 64.
const SYNC_AFTER: Duration = Duration::from_millis(20);
const SYNC_AFTER_COUNT: u32 = 64;

/// The anchor file of the one writer.
#[derive(Debug)]
pub(in crate::log) struct Keeper {
    path: PathBuf,
    file: File,
    current: Anchor,
    synced_at: Instant,
    /// Writes since the last sync.
    unsynced: u32,
}

impl Keeper {
    /// Opens the anchor file, whose newest slot says `current`.
    ///
    /// # Errors
    /// [`LogError::Anchor`] when it is missing, [`LogError::Foreign`], [`LogError::Io`].
    pub(in crate::log) fn open(layout: &Layout, current: Anchor) -> Result<Keeper, LogError> {
        let path = layout.anchor();
        let missing = || LogError::Anchor { path: path.clone(), reason: "it is missing" };
        let file = open_file(&path, true)?.ok_or_else(missing)?;
        Ok(Keeper { path, file, current, synced_at: now(), unsynced: 0 })
    }

    pub(in crate::log) const fn current(&self) -> &Anchor {
        &self.current
    }

    /// Notes a durable head; syncs the note when enough of them have come together.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(in crate::log) fn advance(&mut self, disk: &dyn Disk, head: Head) -> Result<(), LogError> {
        self.write(disk, Anchor { head, ..self.current })?;
        if self.unsynced >= SYNC_AFTER_COUNT && now().duration_since(self.synced_at) >= SYNC_AFTER {
            self.sync(disk)?;
        }
        Ok(())
    }

    /// Notes something that must be durable before the next step.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(in crate::log) fn commit(&mut self, disk: &dyn Disk, anchor: Anchor) -> Result<(), LogError> {
        self.write(disk, anchor)?;
        self.sync(disk)
    }

    fn write(&mut self, disk: &dyn Disk, anchor: Anchor) -> Result<(), LogError> {
        let next = Anchor { counter: self.current.counter.wrapping_add(1), ..anchor };
        disk.write_at(&self.file, &next.to_slot(), next.offset()).map_err(failed("write", &self.path))?;
        self.current = next;
        self.unsynced += 1;
        Ok(())
    }

    /// Makes the newest note durable, if it is not.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(in crate::log) fn sync(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        if self.unsynced == 0 {
            return Ok(());
        }
        disk.sync_data(&self.file).map_err(failed("sync", &self.path))?;
        self.unsynced = 0;
        self.synced_at = now();
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "how often the anchor is synced changes nothing that is recorded")]
fn now() -> Instant {
    Instant::now()
}
