//! Where everything lies in a data directory, and how its files are opened without following links.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::super::LogError;
use super::Engine;
use super::store::{self, StoreId};
use crate::id::Position;

/// The paths of one data directory.
#[derive(Clone, Debug)]
pub(in crate::log) struct Layout {
    pub(in crate::log) dir: PathBuf,
    /// What its segments are.
    pub(in crate::log) engine: Engine,
}

impl Layout {
    pub(in crate::log) fn new(dir: &Path, engine: Engine) -> Layout {
        Layout { dir: dir.to_owned(), engine }
    }

    /// The layout of the log that lies there, and its identity.
    ///
    /// # Errors
    /// [`LogError::NotFound`] without a store file, [`LogError::Foreign`], [`LogError::FormatTooNew`], [`LogError::Io`].
    pub(in crate::log) fn found(dir: &Path) -> Result<(Layout, StoreId), LogError> {
        let identity = store::read(dir)?.ok_or_else(|| LogError::NotFound { path: dir.to_owned() })?;
        Ok((Layout::new(dir, identity.engine), identity.id))
    }

    /// What the names of segments end in.
    const fn extension(&self) -> &'static str {
        match self.engine {
            Engine::File => "seg",
            Engine::Sled => "sled",
        }
    }

    pub(in crate::log) fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    pub(in crate::log) fn store(&self) -> PathBuf {
        self.dir.join(store::STORE)
    }

    pub(in crate::log) fn anchor(&self) -> PathBuf {
        self.dir.join("anchor")
    }

    pub(in crate::log) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(in crate::log) fn segment(&self, first: Position) -> PathBuf {
        self.log().join(format!("{:020}.{}", first.0, self.extension()))
    }

    /// Whether nothing is here but what an interrupted creation leaves, and folders that belong beside a log.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub(in crate::log) fn is_vacant(&self) -> Result<bool, LogError> {
        const KNOWN: [&str; 9] =
            ["lock", "log", "anchor", "anchor.tmp", "store.tmp", "snapshots", "index", "lost+found", "ballast"];
        let mut entries = std::fs::read_dir(&self.dir).map_err(failed("list", &self.dir))?;
        let vacant = entries.try_fold(true, |vacant, entry| {
            entry.map(|entry| vacant && entry.file_name().to_str().is_some_and(|name| KNOWN.contains(&name)))
        });
        vacant.map_err(failed("list", &self.dir))
    }

    /// First positions of all segments by their names, in order. Files with other names are nobody's business here.
    ///
    /// # Errors
    /// [`LogError::Foreign`] when `log` is not a folder, [`LogError::Io`].
    pub(in crate::log) fn segments(&self) -> Result<Vec<Position>, LogError> {
        let log = self.log();
        require_folder(&log)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&log).map_err(failed("list", &log))? {
            let name = entry.map_err(failed("list", &log))?.file_name();
            found.extend(name.to_str().and_then(|name| segment_name(name, self.extension())));
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// The first position in a segment's name; exactly twenty digits, so that each position has one name.
fn segment_name(name: &str, extension: &str) -> Option<Position> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ours.then(|| digits.parse().ok().map(Position)).flatten()
}

fn require_folder(path: &Path) -> Result<(), LogError> {
    let kind = std::fs::symlink_metadata(path).map_err(failed("list", path))?.file_type();
    if kind.is_dir() { Ok(()) } else { Err(foreign(path, "it is not a folder")) }
}

/// Opens a file of ours, or says that there is none.
///
/// # Errors
/// [`LogError::Foreign`] for a link, a folder or anything else that is not a plain file, [`LogError::Io`].
pub(in crate::log) fn open_file(path: &Path, write: bool) -> Result<Option<File>, LogError> {
    open_with(path, OpenOptions::new().read(true).write(write))
}

/// Opens a file of ours, creating an empty one where there is none.
///
/// # Errors
/// As [`open_file`].
pub(in crate::log) fn open_or_create(path: &Path) -> Result<File, LogError> {
    let opened = open_with(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))?;
    opened.ok_or_else(|| failed("create", path)(io::ErrorKind::NotFound.into()))
}

fn open_with(path: &Path, options: &mut OpenOptions) -> Result<Option<File>, LogError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.is_file() => return Err(foreign(path, "it is not a plain file")),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("open", path)(error)),
    }
    // The flags close the gap between looking and opening: no link is followed, and a pipe does not block.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    match options.custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Reads until the buffer is full or the file ends; says how much there was.
pub(in crate::log) fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Wraps what the system said, telling a full disk from the rest.
pub(in crate::log) fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| match source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded {
        true => LogError::Full { path: path.to_owned() },
        false => LogError::Io { step, path: path.to_owned(), source },
    }
}

pub(in crate::log) fn foreign(path: &Path, reason: &'static str) -> LogError {
    LogError::Foreign { path: path.to_owned(), reason }
}
