//! What is read from files, and read again when they change.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What of a file changes when it is written or replaced.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Reads what the files have.
type Reader<T, E> = Box<dyn Fn() -> Result<Arc<T>, E> + Send + Sync>;

/// What was read from files.
pub(super) struct Watched<T: ?Sized, E> {
    /// What it is, in messages.
    what: &'static str,
    files: Vec<PathBuf>,
    read: Reader<T, E>,
    kept: Mutex<Kept<T>>,
}

struct Kept<T: ?Sized> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked: Instant,
}

impl<T: ?Sized, E: Display> Watched<T, E> {
    /// Reads for the first time.
    ///
    /// # Errors
    /// What `read` answers.
    pub(super) fn open(what: &'static str, files: Vec<PathBuf>, read: Reader<T, E>) -> Result<Watched<T, E>, E> {
        // Stamped before it is read: what changes in between is read again.
        let (stamps, value) = (stamps(&files), read()?);
        Ok(Watched { what, files, read, kept: Mutex::new(Kept { value, stamps, looked: Instant::now() }) })
    }

    /// Reads the files again. What cannot be used changes nothing, and the messages say why.
    pub(super) fn reload(&self) {
        let (stamps, value) = (stamps(&self.files), (self.read)());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.stamps = stamps;
        match value {
            Ok(value) => kept.value = value,
            Err(error) => tracing::error!(%error, "{} not read again; what was read before stays in force", self.what),
        }
    }

    /// What the files had when they were last looked at, which is a moment ago.
    pub(super) fn current(&self) -> Arc<T> {
        let changed = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.looked.elapsed() < LOOK_EVERY {
                return Arc::clone(&kept.value);
            }
            kept.looked = Instant::now();
            kept.stamps != stamps(&self.files)
        };
        if changed {
            self.reload();
        }
        Arc::clone(&self.kept.lock().unwrap_or_else(PoisonError::into_inner).value)
    }

    /// The files.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    files.iter().map(|path| stamp(path)).collect()
}

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}
