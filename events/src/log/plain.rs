//! Plain files beside the log, named by a position: opened without following links, and replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::LogError;
use crate::id::Position;

/// Digits of a position in a file name: as many as the largest one has, so that names sort like positions.
const NAME_DIGITS: usize = 20;
/// What a file that is not yet complete ends in.
pub(super) const UNFINISHED: &str = "tmp";

/// The path of the file that begins at `position`.
pub(super) fn path(folder: &Path, position: Position, extension: &str) -> PathBuf {
    folder.join(format!("{:0width$}.{extension}", position.0, width = NAME_DIGITS))
}

/// The files of this kind, lowest position first; anything else in the folder is passed over, and no folder means no files.
///
/// # Errors
/// [`LogError::Io`], and [`LogError::Foreign`] when the folder is a link or no folder.
pub(super) fn list(folder: &Path, extension: &str) -> Result<Vec<(Position, PathBuf)>, LogError> {
    if !is_there(folder)? {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let path = entry.map_err(io_error("list", folder))?.path();
        if let Some(position) = position_in(&path, extension) {
            found.push((position, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The position that a file name states.
fn position_in(path: &Path, extension: &str) -> Option<Position> {
    let (digits, rest) = path.file_name()?.to_str()?.split_once('.')?;
    let named = rest == extension && digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    named.then(|| digits.parse().ok().map(Position)).flatten()
}

/// Whether there is a folder; a link in its place is refused, because what is behind it belongs to somebody else.
fn is_there(folder: &Path) -> Result<bool, LogError> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(LogError::Foreign { path: folder.to_owned(), reason: "it is not a folder; move it away" }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look at", folder)(error)),
    }
}

/// Opens a regular file for reading. Links are refused, and a pipe does not make us wait.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK)).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("open flags fit the type that open takes")
}

/// Whether a replaced file must outlive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Synced, with its folder, before the call returns.
    Durably,
    /// It can be built again.
    Rebuildable,
}

/// Writes a file beside its place and moves it there, so that a reader finds the old one or the new one.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Full`], and [`LogError::Foreign`] when the folder is a link or no folder.
pub(super) fn replace(path: &Path, keep: Keep, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), LogError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_folder(folder, keep)?;
    let unfinished = path.with_extension(UNFINISHED);
    let written = write_new(&unfinished, keep, write);
    let moved = written.and_then(|()| fs::rename(&unfinished, path));
    if let Err(error) = moved {
        // What remains is of no use; the first failure is the one to tell.
        let _ = fs::remove_file(&unfinished);
        return Err(write_error(path, error));
    }
    match keep {
        Keep::Durably => sync_folder(folder),
        Keep::Rebuildable => Ok(()),
    }
}

fn write_new(path: &Path, keep: Keep, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    // One is left over where a process was killed while it wrote.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    write(&mut file)?;
    match keep {
        Keep::Durably => file.sync_all(),
        Keep::Rebuildable => Ok(()),
    }
}

fn create_folder(folder: &Path, keep: Keep) -> Result<(), LogError> {
    if is_there(folder)? {
        return Ok(());
    }
    fs::create_dir_all(folder).map_err(|error| write_error(folder, error))?;
    match (keep, folder.parent()) {
        (Keep::Durably, Some(parent)) => sync_folder(parent),
        (Keep::Durably, None) | (Keep::Rebuildable, _) => Ok(()),
    }
}

/// Makes the names in a folder outlive a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<(), LogError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|file| file.sync_all()).map_err(io_error("sync", folder))
}

fn write_error(path: &Path, error: io::Error) -> LogError {
    match error.kind() == io::ErrorKind::StorageFull || error.kind() == io::ErrorKind::QuotaExceeded {
        true => LogError::Full { path: path.to_owned() },
        false => io_error("write", path)(error),
    }
}

/// What an error of the system becomes, when `step` was being done to `path`.
pub(super) fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { step, path: path.to_owned(), source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_files_named_by_twenty_digits_are_listed_lowest_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00000000000000000007.idx", "00000000000000000003.idx", "7.idx", "00000000000000000003.snap", "x.idx"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::write(dir.path().join("99999999999999999999.idx"), "").unwrap();
        let found: Vec<_> = list(dir.path(), "idx").unwrap().into_iter().map(|(position, _)| position.0).collect();
        assert_eq!(found, [3, 7]);
        assert!(list(&dir.path().join("nothing"), "idx").unwrap().is_empty());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = path(&dir.path().join("new"), Position(5), "snap");
        replace(&target, Keep::Durably, |file| file.write_all(b"old")).unwrap();
        let failed = replace(&target, Keep::Durably, |file| {
            file.write_all(b"new")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(failed, Err(LogError::Full { .. })));
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn links_and_folders_in_the_place_of_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("real"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("folder")).unwrap();
        assert!(open(&dir.path().join("real")).is_ok());
        assert!(open(&dir.path().join("link")).is_err());
        assert!(open(dir.path()).is_err());
        assert!(matches!(list(&dir.path().join("folder"), "idx"), Err(LogError::Foreign { .. })));
    }
}
