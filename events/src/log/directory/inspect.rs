//! What a data directory says about itself, for tools that look at it beside a running writer or without any.

use std::path::{Path, PathBuf};

use super::super::file::look_at_files;
#[cfg(feature = "sled")]
use super::super::sled::look_at_databases;
use super::super::{Head, LogError};
use super::engine::Survey;
use super::layout::{Layout, failed, open_file};
use super::store::{self, LAYOUT_FORMAT};
use super::{CutTail, Engine, Identity, StoreId};
use crate::id::Position;

/// What was found in a data directory, with nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The identity of the log.
    pub store: StoreId,
    /// What keeps its blocks.
    pub engine: Engine,
    /// The version of the directory's layout that this build writes and that the directory does not exceed.
    pub format: u16,
    /// Where retention has let the log begin.
    pub base: Head,
    /// Where the log ends.
    pub head: Head,
    /// How far the anchor says that it was acknowledged.
    pub anchored: Head,
    /// What follows the end and is no block: the next writer cuts it, unless one is just writing it.
    pub torn: Option<CutTail>,
    /// First positions of the segments with their paths, in order; all but the last one are sealed.
    pub segments: Vec<(Position, PathBuf)>,
}

impl Inspection {
    /// The segment in which a position lies.
    pub fn file_of(&self, at: Position) -> Option<&Path> {
        let index = self.segments.partition_point(|(first, _)| *first <= at).checked_sub(1)?;
        Some(&self.segments[index].1)
    }
}

/// Looks at the log in `dir` as a reader would.
///
/// # Errors
/// As [`super::read`].
pub fn inspect(dir: &Path) -> Result<Inspection, LogError> {
    let (layout, _) = Layout::found(dir)?;
    let found = look(&layout)?;
    let segments = found.segments.iter().map(|first| (*first, layout.segment(*first))).collect();
    Ok(Inspection {
        store: found.store,
        engine: layout.engine,
        format: LAYOUT_FORMAT,
        base: found.anchor.base,
        head: found.head,
        anchored: found.anchor.head,
        torn: found.torn,
        segments,
    })
}

fn look(layout: &Layout) -> Result<Survey, LogError> {
    match layout.engine {
        Engine::File => look_at_files(layout),
        #[cfg(feature = "sled")]
        Engine::Sled => look_at_databases(layout),
        #[cfg(not(feature = "sled"))]
        Engine::Sled => Err(super::foreign(&layout.dir, super::WITHOUT_SLED)),
    }
}

/// The identity and the engine of the log in `dir`, whatever its state.
///
/// # Errors
/// [`LogError::NotFound`], [`LogError::Foreign`], [`LogError::FormatTooNew`], [`LogError::Io`].
pub fn identity(dir: &Path) -> Result<Identity, LogError> {
    store::read(dir)?.ok_or_else(|| LogError::NotFound { path: dir.to_owned() })
}

/// The process that has the log in `dir` open for writing, as text; `None` when no process has. Asking takes the lock for an instant.
///
/// # Errors
/// [`LogError::Foreign`], [`LogError::Io`].
pub fn holder(dir: &Path) -> Result<Option<String>, LogError> {
    // The lock is the same whatever the engine.
    let path = Layout::new(dir, Engine::File).lock();
    let Some(file) = open_file(&path, false)? else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(std::fs::TryLockError::WouldBlock) => Ok(Some(store::owner(&file))),
        Err(std::fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}
