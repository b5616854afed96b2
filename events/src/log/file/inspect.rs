//! What a data directory says about itself, for tools that look at it beside a running writer or without any.

use std::path::{Path, PathBuf};

use super::super::{Head, LogError};
use super::CutTail;
use super::layout::{Layout, failed, open_file};
use super::shared::assess_settled;
use super::store::{self, LAYOUT_FORMAT, StoreId};
use crate::id::Position;

/// What was found in a data directory, with nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The identity of the store.
    pub store: StoreId,
    /// The version of the directory's layout that this build writes and that the directory does not exceed.
    pub format: u16,
    /// Where retention has let the log begin.
    pub base: Head,
    /// Where the log ends.
    pub head: Head,
    /// How far the anchor says that it was acknowledged.
    pub anchored: Head,
    /// Bytes behind the end that are no block: the next writer cuts them, unless one is just writing them.
    pub torn: Option<CutTail>,
    /// First positions of the segments with their files, in order; all but the last one are sealed.
    pub segments: Vec<(Position, PathBuf)>,
}

impl Inspection {
    /// The file in which a position lies.
    pub fn file_of(&self, at: Position) -> Option<&Path> {
        let index = self.segments.partition_point(|(first, _)| *first <= at).checked_sub(1)?;
        Some(&self.segments[index].1)
    }
}

/// Looks at the log in `dir` as a reader would.
///
/// # Errors
/// As [`super::FileReader::open`].
pub fn inspect(dir: &Path) -> Result<Inspection, LogError> {
    let layout = Layout::new(dir);
    let found = assess_settled(&layout)?;
    let torn = found.torn.then(|| CutTail { at: found.head.next, bytes: found.len - found.end });
    let segments = found.segments.iter().map(|first| (*first, layout.segment(*first))).collect();
    let (store, head) = (found.store, found.head);
    Ok(Inspection { store, format: LAYOUT_FORMAT, base: found.anchor.base, head, anchored: found.anchor.head, torn, segments })
}

/// The identity of the store in `dir`, whatever the state of its log.
///
/// # Errors
/// [`LogError::NotFound`], [`LogError::Foreign`], [`LogError::FormatTooNew`], [`LogError::Io`].
pub fn identity(dir: &Path) -> Result<StoreId, LogError> {
    store::read(&Layout::new(dir))?.ok_or_else(|| LogError::NotFound { path: dir.to_owned() })
}

/// The process that has the log in `dir` open for writing, as text; `None` when no process has. Asking takes the lock for an instant.
///
/// # Errors
/// [`LogError::Foreign`], [`LogError::Io`].
pub fn holder(dir: &Path) -> Result<Option<String>, LogError> {
    let path = Layout::new(dir).lock();
    let Some(file) = open_file(&path, false)? else { return Ok(None) };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(std::fs::TryLockError::WouldBlock) => Ok(Some(store::owner(&file))),
        Err(std::fs::TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
    }
}
