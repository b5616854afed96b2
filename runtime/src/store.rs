//! Where a runtime keeps its log, and how it finds its state again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ergate_events::audit::{Audit, Depth, Finding};
use ergate_events::id::Position;
use ergate_events::log::directory::{self, Engine, Options, Recovery, StoreId};
use ergate_events::log::index::TaskIndex;
use ergate_events::log::memory::MemoryLog;
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{EventLog, Head, LogError, LogReader};
use ergate_events::planted::{self, Bug};
use ergate_events::state::State;
use ergate_events::state::image::ImageError;

/// Where a runtime keeps its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory; it ends with the process.
    Memory,
    /// Under this directory, by the engine that keeps the log there, or by the default engine when there is none yet.
    Directory(PathBuf),
    /// In segment files under this directory.
    File(PathBuf),
    /// In sled databases under this directory.
    #[cfg(feature = "sled")]
    Sled(PathBuf),
}

impl Store {
    /// The directory, if it has one.
    pub fn dir(&self) -> Option<&Path> {
        match self {
            Store::Memory => None,
            Store::Directory(dir) | Store::File(dir) => Some(dir),
            #[cfg(feature = "sled")]
            Store::Sled(dir) => Some(dir),
        }
    }

    /// The engine, if one is named.
    const fn engine(&self) -> Option<Engine> {
        match self {
            Store::Memory | Store::Directory(_) => None,
            Store::File(_) => Some(Engine::File),
            #[cfg(feature = "sled")]
            Store::Sled(_) => Some(Engine::Sled),
        }
    }
}

impl std::str::FromStr for Store {
    type Err = String;

    /// Reads `memory`, `DIR`, `file:DIR` or `sled:DIR`.
    fn from_str(text: &str) -> Result<Store, String> {
        let named = |dir: &str| if dir.is_empty() { Err("name a directory".to_owned()) } else { Ok(PathBuf::from(dir)) };
        match text.split_once(':') {
            None if text == "memory" => Ok(Store::Memory),
            Some(("file", dir)) => named(dir).map(Store::File),
            #[cfg(feature = "sled")]
            Some(("sled", dir)) => named(dir).map(Store::Sled),
            Some((engine, _)) if !engine.contains(['/', '.']) => {
                Err(format!("there is no log `{engine}:`; use `sled:DIR`, `file:DIR`, `memory`, or a directory"))
            }
            None | Some(_) => named(text).map(Store::Directory),
        }
    }
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Store::Memory => f.write_str("memory"),
            Store::Directory(dir) => write!(f, "{}", dir.display()),
            Store::File(dir) => write!(f, "file:{}", dir.display()),
            #[cfg(feature = "sled")]
            Store::Sled(dir) => write!(f, "sled:{}", dir.display()),
        }
    }
}

/// A log opened for writing with the state that it holds.
pub(crate) struct Opened {
    pub(crate) log: Box<dyn EventLog>,
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) state: State,
    pub(crate) snapshots: Option<SnapshotStore>,
    /// The indexes beside the log, where it has a directory.
    pub(crate) index: Option<TaskIndex>,
    /// Where the snapshot was taken that the state was folded from.
    pub(crate) snapshot_at: Position,
}

/// Why a state could not be found again.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log can be read and is not what it should be.
    #[error("the log does not add up; see `ergate log verify`")]
    Audit(#[from] Finding),
    /// There is no usable snapshot although the log's beginning is gone.
    #[error(
        "the log begins at position {first} and no usable snapshot leads there ({skipped} were skipped); restore the snapshots folder from a copy"
    )]
    NoBase {
        /// Where the log begins.
        first: Position,
        /// How many snapshots are unusable.
        skipped: usize,
    },
}

impl Store {
    /// Opens the log for writing and folds its state.
    pub(crate) fn open(&self, options: &Options) -> Result<Opened, RecoverError> {
        let Some(dir) = self.dir() else { return Opened::of(Box::new(MemoryLog::new()), None) };
        let (log, recovery) = directory::open(dir, &Options { engine: self.engine().or(options.engine), ..options.clone() })?;
        report(dir, &recovery);
        Opened::of(log, Some((dir, recovery.store)))
    }
}

impl Opened {
    fn of(log: Box<dyn EventLog>, place: Option<(&Path, StoreId)>) -> Result<Opened, RecoverError> {
        let reader = log.reader();
        let snapshots = place.map(|(dir, store)| SnapshotStore::open(dir, store.0));
        snapshots.iter().for_each(SnapshotStore::clear_unfinished);
        let index = place.and_then(|(dir, store)| index(dir, store, &reader));
        let (state, snapshot_at) = recover(reader.as_ref(), log.head(), snapshots.as_ref())?;
        Ok(Opened { log, reader, state, snapshots, index, snapshot_at })
    }
}

/// The indexes beside a log, if they can be used.
pub(crate) fn index(dir: &Path, store: StoreId, reader: &Arc<dyn LogReader>) -> Option<TaskIndex> {
    let opened = TaskIndex::open(dir, store.0, Arc::clone(reader));
    opened.inspect_err(|error| tracing::warn!(%error, "the indexes cannot be used; the log is read instead")).ok()
}

fn report(dir: &Path, recovery: &Recovery) {
    if let Some(cut) = recovery.cut {
        tracing::warn!(dir = %dir.display(), at = cut.at.0, bytes = cut.bytes, "a torn block that nobody was told of was cut from the end of the log");
    }
}

/// Folds the state at the head of a log: from the newest usable snapshot if there is one, from the beginning if not.
///
/// # Errors
/// See [`RecoverError`].
pub fn recover(reader: &dyn LogReader, head: Head, snapshots: Option<&SnapshotStore>) -> Result<(State, Position), RecoverError> {
    let (mut audit, from) = base(reader, head, snapshots)?;
    let mut cursor = reader.cursor(from)?;
    let mut newest = None;
    while let Some(block) = cursor.next_block()? {
        if !planted::is(Bug::DroppedLastBlock) {
            audit.follow(&block)?;
        } else if let Some(block) = newest.replace(block) {
            audit.follow(&block)?;
        }
    }
    Ok((audit.into_state(), from))
}

/// The newest usable snapshot as the beginning of an audit, or the empty state where the log is whole.
fn base(reader: &dyn LogReader, head: Head, snapshots: Option<&SnapshotStore>) -> Result<(Audit, Position), RecoverError> {
    let first = reader.span().first;
    let mut skipped = 0;
    if let Some(store) = snapshots {
        let accept = |taken: &Head| taken.next >= first && follows(reader, head, taken);
        let newest = store.newest_valid(head.next, &accept)?;
        skipped = newest.skipped.len();
        for skipped in &newest.skipped {
            tracing::warn!(path = %skipped.path.display(), reason = %skipped.reason, "a snapshot was skipped");
        }
        if let Some(snapshot) = newest.snapshot {
            match decode(&snapshot.body, snapshot.head.next) {
                Ok(state) => return Ok((Audit::new(Depth::Chain, state, Some(snapshot.head.hash)), snapshot.head.next)),
                Err(error) => {
                    skipped += 1;
                    tracing::warn!(%error, "a snapshot was skipped");
                }
            }
        }
    }
    if first > Position(0) {
        return Err(RecoverError::NoBase { first, skipped });
    }
    Ok((Audit::new(Depth::Chain, State::default(), None), Position(0)))
}

fn decode(body: &[u8], at: Position) -> Result<State, ImageError> {
    let state = State::decode(body)?;
    if state.position == at { Ok(state) } else { Err(ImageError::Inconsistent("it was taken at another position than it says")) }
}

/// Whether the log goes on from where the snapshot was taken.
fn follows(reader: &dyn LogReader, head: Head, taken: &Head) -> bool {
    if taken.next == head.next {
        return taken.hash == head.hash;
    }
    matches!(reader.hash_before(taken.next), Ok(Some(hash)) if hash == taken.hash)
}
