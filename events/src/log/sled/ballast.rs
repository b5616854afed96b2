//! A file that holds some space, to be given back when the disk is full: sled writes before it opens, and so could not open there.

use std::io;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};

use super::super::directory::layout::{Layout, open_or_create};

/// Room for a new segment of sled (512 KiB), its snapshot, and what is written before the low-water mark stops new work.
const BALLAST_BYTES: u64 = 4 << 20;

fn path(layout: &Layout) -> PathBuf {
    layout.dir.join("ballast")
}

/// Takes the space if it is not held already. Without it everything works until the disk is full, so a failure is none.
pub(super) fn hold(layout: &Layout) {
    if let Ok(file) = open_or_create(&path(layout))
        && file.metadata().is_ok_and(|found| found.len() < BALLAST_BYTES)
        && fallocate(&file, FallocateFlags::empty(), 0, BALLAST_BYTES).is_err()
    {
        // Part of it would be no use and fills the disk.
        let _ = give_back(layout);
    }
}

/// Gives the space back; whether there was any.
///
/// # Errors
/// What the system says.
pub(super) fn give_back(layout: &Layout) -> io::Result<bool> {
    match std::fs::remove_file(path(layout)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
