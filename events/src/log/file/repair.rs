//! Keeping the beginning of a damaged segment file.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::LogError;
use super::super::directory::disk::{Disk, RealDisk};
use super::super::directory::layout::{Layout, failed, read_full};
use super::segment::{READ_BYTES, Segment};
use crate::id::Position;

/// Replaces a segment by its first `len` bytes, once they are safe; the whole of it remains under `aside`.
pub(super) fn keep_beginning(layout: &Layout, first: Position, aside: &Path, len: u64) -> Result<(), LogError> {
    let segment = Segment::require(layout, first)?;
    let draft = segment.path.with_extension("tmp");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("replace", &draft)(error)),
        Ok(()) | Err(_) => {}
    }
    let copy = RealDisk.create(&draft).map_err(failed("create", &draft))?;
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(READ_BYTES).min(READ_BYTES);
        let read = read_full(&segment.file, &mut buffer[..want], at).map_err(failed("read", &segment.path))?;
        if read == 0 {
            return Err(failed("read", &segment.path)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        copy.write_all_at(&buffer[..read], at).map_err(failed("write", &draft))?;
        at += read as u64;
    }
    RealDisk.sync_all(&copy).map_err(failed("sync", &draft))?;
    std::fs::hard_link(&segment.path, aside).map_err(failed("set aside", &segment.path))?;
    RealDisk.rename(&draft, &segment.path).map_err(failed("replace", &segment.path))
}
