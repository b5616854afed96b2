//! Finds the files of a tree on a thread of its own and turns them into batches of requests.

use std::collections::BTreeMap;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use ergate::events::id::TypeId;
use ergate::tasks::file_digest::Payload;
use tokio::sync::mpsc;
use walkdir::{DirEntry, WalkDir};

use crate::cli::pump::Work;

/// Batches that wait for the pump; the walk waits while there are so many.
const BATCHES_AHEAD: usize = 2;

/// Why an entry was passed over.
const LINK: &str = "symbolic links";
const SPECIAL: &str = "pipes, sockets and devices";
const UNREADABLE: &str = "unreadable directories";
const OWN: &str = "own output";

/// What the walk has seen so far.
#[derive(Default)]
pub(super) struct Seen {
    files: AtomicU64,
    at_end: AtomicBool,
    skipped: Mutex<BTreeMap<&'static str, u64>>,
}

impl Seen {
    /// Files found.
    pub(super) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Files found, once all are.
    pub(super) fn total(&self) -> Option<u64> {
        self.at_end.load(Ordering::Acquire).then(|| self.files())
    }

    /// Entries passed over, by reason.
    pub(super) fn skipped(&self) -> BTreeMap<&'static str, u64> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn skip(&self, reason: &'static str) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }
}

/// What to walk.
pub(super) struct Walk {
    /// The tree as the user calls it.
    pub(super) dir: PathBuf,
    /// A file of ours that may lie in the tree.
    pub(super) own: Option<PathBuf>,
    /// What is asked for each file.
    pub(super) task_type: TypeId,
}

impl Walk {
    /// Starts to walk; every request is tagged with its path as the user would call it.
    pub(super) fn start(self) -> anyhow::Result<(mpsc::Receiver<Work<PathBuf>>, Arc<Seen>)> {
        let root = self.dir.canonicalize().with_context(|| format!("failed to find the directory {}", self.dir.display()))?;
        anyhow::ensure!(root.is_dir(), "{} is not a directory; name one with --dir", self.dir.display());
        let (batches, source) = mpsc::channel(BATCHES_AHEAD);
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        std::thread::Builder::new().name("ergate-walk".to_owned()).spawn(move || {
            self.walk(&root, &batches, &shared);
            shared.at_end.store(true, Ordering::Release);
        })?;
        Ok((source, seen))
    }

    fn walk(&self, root: &Path, batches: &mpsc::Sender<Work<PathBuf>>, seen: &Seen) {
        let mut work = Work::new();
        let entries = WalkDir::new(root).into_iter().filter_entry(|entry| self.enters(entry, seen));
        for entry in entries {
            let Ok(entry) = entry else {
                seen.skip(UNREADABLE);
                continue;
            };
            if !self.takes(&entry, seen) {
                continue;
            }
            let name = self.name(entry.path().strip_prefix(root).unwrap_or(entry.path()));
            let payload = Payload::of(entry.path());
            // Texts are always written.
            let _ = work.requests.push_with(self.task_type, None, |bytes| serde_json::to_writer(bytes, &payload));
            work.tags.push(name);
            seen.files.fetch_add(1, Ordering::Relaxed);
            if work.is_full() && batches.blocking_send(std::mem::replace(&mut work, Work::new())).is_err() {
                return;
            }
        }
        if !work.is_empty() {
            // Without a receiver the run is over.
            let _ = batches.blocking_send(work);
        }
    }

    /// A path in the tree as the user would call it.
    fn name(&self, relative: &Path) -> PathBuf {
        if self.dir == Path::new(".") { relative.to_owned() } else { self.dir.join(relative) }
    }

    /// Whether an entry is looked at, and into if it is a directory.
    fn enters(&self, entry: &DirEntry, seen: &Seen) -> bool {
        let reason = match entry.file_name().to_str() {
            _ if entry.depth() == 0 => None,
            Some(".git") => Some("named .git"),
            _ if !entry.file_type().is_dir() => None,
            Some("target") => Some("directories named target"),
            _ if is_log(entry.path()) => Some("directories with an Ergate log"),
            Some(_) | None => None,
        };
        reason.is_none_or(|reason| {
            seen.skip(reason);
            false
        })
    }

    fn takes(&self, entry: &DirEntry, seen: &Seen) -> bool {
        let kind = entry.file_type();
        let reason = match () {
            () if kind.is_dir() => return false,
            () if kind.is_symlink() => LINK,
            () if is_special(kind) => SPECIAL,
            () if self.own.as_deref() == Some(entry.path()) => OWN,
            () => return true,
        };
        seen.skip(reason);
        false
    }
}

fn is_special(kind: FileType) -> bool {
    kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device()
}

/// Whether a directory holds a log: ours, or that of an earlier run.
fn is_log(dir: &Path) -> bool {
    dir.join("anchor").is_file() && dir.join("store").is_file() && dir.join("log").is_dir()
}
