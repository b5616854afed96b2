//! Making the files of a new store, and taking away segments that retention gave up.

use std::path::Path;

use super::super::{Head, LogError};
use super::anchor::{self, Anchor};
use super::disk::Disk;
use super::layout::{Layout, failed, foreign};
use super::store::{self, StoreId};
use crate::id::Position;

/// Creates what a store consists of; the store file comes last, so an interrupted creation begins again.
///
/// # Errors
/// [`LogError::Foreign`] over a log that lost its store file, [`LogError::Io`], [`LogError::Full`].
pub(super) fn initialise(layout: &Layout, disk: &dyn Disk, id: Option<StoreId>) -> Result<(), LogError> {
    let log = layout.log();
    match std::fs::create_dir(&log) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed("create", &log)(error)),
        Ok(()) | Err(_) => {}
    }
    if !layout.segments()?.is_empty() {
        return Err(foreign(&layout.store(), "it is missing and there are segments"));
    }
    if anchor::newest(&layout.anchor())?.is_some_and(|anchor| anchor.head != Head::default()) {
        return Err(foreign(&layout.store(), "it is missing and the anchor knows of events"));
    }
    let id = id.map_or_else(StoreId::draw, Ok)?;
    store::write_whole(layout, disk, &layout.anchor(), &Anchor::empty(id).to_file())?;
    store::write(layout, disk, id)?;
    match layout.dir.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) => disk.sync_dir(parent).map_err(failed("sync", parent)),
        None => Ok(()),
    }
}

/// Takes segments away, the oldest first, so that what remains is always without a gap.
///
/// # Errors
/// [`LogError::Io`].
pub(super) fn unlink(layout: &Layout, disk: &dyn Disk, segments: &[Position]) -> Result<(), LogError> {
    for first in segments {
        let path = layout.segment(*first);
        match disk.remove(&path) {
            // Somebody was faster; gone is gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed("remove", &path))?,
        }
    }
    if segments.is_empty() { Ok(()) } else { disk.sync_dir(&layout.log()).map_err(failed("sync", &layout.log())) }
}
