//! Where a run keeps its log.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use ergate::Store;
use walkdir::WalkDir;

use crate::cli::Globals;

/// What keeps the log, and where if that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Memory,
    File(Option<PathBuf>),
    Sled(Option<PathBuf>),
}

impl Backend {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Backend::Memory => "memory",
            Backend::File(_) => "file",
            Backend::Sled(_) => "sled",
        }
    }

    fn named(&self, globals: &Globals) -> Option<PathBuf> {
        match self {
            Backend::File(Some(dir)) | Backend::Sled(Some(dir)) => Some(dir.clone()),
            Backend::File(None) | Backend::Sled(None) => globals.data.clone(),
            Backend::Memory => None,
        }
    }
}

impl FromStr for Backend {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Backend::Memory),
            None if text == "file" => Ok(Backend::File(None)),
            None if text == "sled" => Ok(Backend::Sled(None)),
            Some(("sled", dir)) if !dir.is_empty() => Ok(Backend::Sled(Some(dir.into()))),
            Some(("file", dir)) if !dir.is_empty() => Ok(Backend::File(Some(dir.into()))),
            None | Some(_) => Err("expected `sled`, `sled:DIR`, `file`, `file:DIR` or `memory`".to_owned()),
        }
    }
}

/// The directory of a run; removed at the end unless it was named for this run alone.
pub(super) struct Scratch {
    backend: Backend,
    dir: PathBuf,
    remove: bool,
}

impl Scratch {
    /// A directory for a run: the named one where the run is `alone`, a new one in it or beside the current directory where not.
    pub(super) fn new(backend: &Backend, alone: bool, globals: &Globals) -> anyhow::Result<Scratch> {
        // Beside the current directory and not in /tmp, which may be memory and would make fsync free.
        let fresh = PathBuf::from(format!("ergate-bench-{}", std::process::id()));
        let (dir, remove) = match backend.named(globals) {
            Some(dir) if alone => (dir, false),
            Some(dir) => (dir.join(fresh), true),
            None => (fresh, true),
        };
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("failed to create {}; name a writable directory with --data", dir.display()))?;
        Ok(Scratch { backend: backend.clone(), dir, remove })
    }

    pub(super) fn store(&self) -> Store {
        match self.backend {
            Backend::Memory => Store::Memory,
            Backend::File(_) => Store::File(self.data()),
            Backend::Sled(_) => Store::Sled(self.data()),
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(super) fn floor_file(&self) -> PathBuf {
        self.dir.join("bare-file")
    }

    /// Bytes that the log's blocks take on disk, whatever keeps them; snapshots and indexes are not the log.
    pub(super) fn disk_bytes(&self) -> u64 {
        allocated(&self.data().join("log"))
    }
}

/// What the system has set aside for everything in a folder. Blocks of `stat` have 512 bytes everywhere.
fn allocated(folder: &Path) -> u64 {
    let files = WalkDir::new(folder).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|found| found.blocks() * 512).sum()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.floor_file());
        if self.remove {
            // What cannot be removed is named by its pid and harmless.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
