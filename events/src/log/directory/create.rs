//! Making the files of a new log.

use std::path::Path;

use super::super::{Head, LogError};
use super::anchor::{self, Anchor};
use super::disk::Disk;
use super::layout::{Layout, failed, foreign};
use super::store::{self, Identity, StoreId};

/// Creates what a store consists of; the store file comes last, so an interrupted creation begins again.
///
/// # Errors
/// [`LogError::Foreign`] over a log that lost its store file, [`LogError::Io`], [`LogError::Full`].
pub(in crate::log) fn initialise(layout: &Layout, disk: &dyn Disk, id: Option<StoreId>, begin: Head) -> Result<(), LogError> {
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
    store::write_whole(layout, disk, &layout.anchor(), &Anchor { base: begin, head: begin, ..Anchor::empty(id) }.to_file())?;
    store::write(layout, disk, Identity { id, engine: layout.engine })?;
    match layout.dir.canonicalize().ok().as_deref().and_then(Path::parent) {
        Some(parent) => disk.sync_dir(parent).map_err(failed("sync", parent)),
        None => Ok(()),
    }
}
