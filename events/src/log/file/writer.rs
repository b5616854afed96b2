//! The active segment: blocks written behind each other into space that was prepared for them.

use std::fs::File;
use std::path::PathBuf;

use super::super::LogError;
use super::super::directory::disk::Disk;
use super::super::directory::layout::{Layout, failed, foreign, open_file};
use crate::id::Position;

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
/// With fewer syncs than this for each prepared step the metadata they carry costs less than writing everything twice.
const SYNCS_WORTH_PREPARING: u32 = 16;

/// The segment that is being written.
#[derive(Debug)]
pub struct Active {
    path: PathBuf,
    file: File,
    /// Bytes of blocks.
    pub(super) end: u64,
    /// Bytes of blocks and of zeros written behind them.
    prepared: u64,
    /// Where it is decided again whether preparing is worth it.
    step_end: u64,
    /// Syncs since that was last decided.
    syncs: u32,
}

impl Active {
    /// Creates the segment that begins with `first`, durably named.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(super) fn begin(layout: &Layout, disk: &dyn Disk, first: Position) -> Result<Active, LogError> {
        let path = layout.segment(first);
        let file = disk.create(&path).map_err(failed("create", &path))?;
        disk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log()))?;
        Ok(Active { path, file, end: 0, prepared: 0, step_end: 0, syncs: SYNCS_WORTH_PREPARING })
    }

    /// Takes over the last segment of a recovered log, cutting what follows its `end` valid bytes. Everything in it is synced:
    /// a process that was killed may have left it in the page cache only.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Foreign`].
    pub(super) fn take_over(layout: &Layout, disk: &dyn Disk, first: Position, end: u64, len: u64) -> Result<Active, LogError> {
        let path = layout.segment(first);
        let file = open_file(&path, true)?.ok_or_else(|| foreign(&path, "it vanished while the log was opened"))?;
        let mut active = Active { path, file, end, prepared: len, step_end: 0, syncs: SYNCS_WORTH_PREPARING };
        active.trim(disk)?;
        Ok(active)
    }

    /// Writes bytes behind the last block.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(super) fn write(&mut self, disk: &dyn Disk, bytes: &[u8], prealloc: u64, limit: u64) -> Result<(), LogError> {
        let end = self.end + bytes.len() as u64;
        if end > self.prepared.max(self.step_end) {
            if self.syncs >= SYNCS_WORTH_PREPARING {
                self.prepare(disk, end.saturating_add(prealloc).min(limit))?;
            }
            self.step_end = end.saturating_add(prealloc);
            self.syncs = 0;
        }
        disk.write_at(&self.file, bytes, self.end).map_err(failed("write", &self.path))?;
        self.end = end;
        self.prepared = self.prepared.max(end);
        Ok(())
    }

    /// Writes zeros up to `to`, so that syncing the blocks that will stand there has no metadata to write.
    fn prepare(&mut self, disk: &dyn Disk, to: u64) -> Result<(), LogError> {
        while self.prepared < to {
            let len = usize::try_from(to - self.prepared).unwrap_or(ZEROS.len()).min(ZEROS.len());
            disk.write_at(&self.file, &ZEROS[..len], self.prepared).map_err(failed("write", &self.path))?;
            self.prepared += len as u64;
        }
        Ok(())
    }

    /// Prepares more space while nobody waits, if half of a step is used up.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(super) fn prepare_ahead(&mut self, disk: &dyn Disk, prealloc: u64, limit: u64) -> Result<(), LogError> {
        let wanted = self.end.saturating_add(prealloc).min(limit);
        if wanted <= self.prepared || self.prepared - self.end >= prealloc / 2 {
            return Ok(());
        }
        self.prepare(disk, wanted)?;
        disk.sync_data(&self.file).map_err(failed("sync", &self.path))
    }

    /// Makes all blocks durable.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(super) fn make_durable(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        self.syncs = self.syncs.saturating_add(1);
        disk.sync_data(&self.file).map_err(failed("sync", &self.path))
    }

    /// Cuts the file behind its last block and makes all of it durable.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`].
    pub(super) fn trim(&mut self, disk: &dyn Disk) -> Result<(), LogError> {
        if self.prepared != self.end {
            disk.set_len(&self.file, self.end).map_err(failed("cut", &self.path))?;
            self.prepared = self.end;
        }
        disk.sync_all(&self.file).map_err(failed("sync", &self.path))
    }
}
