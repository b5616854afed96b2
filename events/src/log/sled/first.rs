//! The header of a database's first block, in a small file of its own: searches and joins need nothing else of most databases.

use std::path::{Path, PathBuf};

use super::super::LogError;
use super::super::directory::disk::Disk;
use super::super::directory::layout::{failed, open_file, read_full};
use crate::block::{HEADER_BYTES, Header};

const BYTES: usize = HEADER_BYTES + 4;

fn path(database: &Path) -> PathBuf {
    database.join("first")
}

/// Writes it and makes it durable, but for its name.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Full`].
pub(super) fn write(database: &Path, disk: &dyn Disk, header: &Header) -> Result<(), LogError> {
    let path = path(database);
    let mut bytes = [0; BYTES];
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    let crc = crc32c::crc32c(&bytes[..HEADER_BYTES]);
    bytes[HEADER_BYTES..].copy_from_slice(&crc.to_le_bytes());
    let file = disk.create(&path).map_err(failed("create", &path))?;
    disk.write_at(&file, &bytes, 0).map_err(failed("write", &path))?;
    disk.sync_all(&file).map_err(failed("sync", &path))
}

/// Reads it; `None` when it is missing or not what was written, where only the database itself can tell.
///
/// # Errors
/// [`LogError::Foreign`], [`LogError::Io`].
pub(super) fn read(database: &Path) -> Result<Option<Header>, LogError> {
    let path = path(database);
    let Some(file) = open_file(&path, false)? else { return Ok(None) };
    let mut bytes = [0; BYTES];
    let read = read_full(&file, &mut bytes, 0).map_err(failed("read", &path))?;
    let (header, crc) = bytes.split_at(HEADER_BYTES);
    let valid = read == BYTES && crc32c::crc32c(header).to_le_bytes() == crc;
    Ok(if valid { Header::parse(header).ok() } else { None })
}
