//! A log in a directory, and what is the same whatever engine keeps its blocks.
//!
//! ```text
//! DIR/lock      held by the one writer while it lives; its text is the writer's process id
//! DIR/store     format version, identity and engine of the log, written once
//! DIR/anchor    how far the log was acknowledged (anchor.rs)
//! DIR/log/...   segments: files ([`file`](super::file)) or sled databases ([`sled`](super::sled)), named by their first position
//! ```
//! **What is promised.** After [`EventLog::sync`] the blocks survive the end of the process and of the power. What a crash tears is
//! cut at the next opening if nobody was told of it, which is what the anchor says; anything else that does not fit is refused, by
//! name, with nothing changed, until [`repair`] is asked to accept the loss.
//!
//! **The window that remains.** The anchor is written after every sync and synced itself when the writer is idle, when it closes, and
//! under load once both 20 ms and 64 syncs have gone by. A killed process loses nothing of it, for the system keeps what was written. After
//! a power cut it may lag by the blocks of that time, no more; if exactly these blocks are lost as well, by a disk that lied about
//! its sync or a second fault, the log ends early and nothing tells. A disk that keeps its word loses no block.

pub(in crate::log) mod anchor;
pub(in crate::log) mod chain;
mod create;
pub(in crate::log) mod disk;
pub(in crate::log) mod engine;
mod inspect;
mod keeper;
pub(in crate::log) mod layout;
mod repair;
pub(in crate::log) mod store;
pub(in crate::log) mod view;
mod writer;

use std::path::Path;
use std::sync::Arc;

#[cfg(not(feature = "sled"))]
use self::layout::foreign;
use super::file::{FileLog, FileReader};
#[cfg(feature = "sled")]
use super::sled::{SledLog, SledReader};
use super::{EventLog, Head, LogError, LogReader};
use crate::id::Position;

pub use self::inspect::{Inspection, holder, identity, inspect};
pub use self::repair::{Repair, repair};
pub use self::store::{Identity, StoreId};
pub use self::writer::DirectoryLog;

/// What keeps the blocks of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Plain segment files.
    File,
    /// sled databases.
    Sled,
}

impl Engine {
    /// What keeps a new log when nobody names an engine.
    pub const DEFAULT: Engine = if cfg!(feature = "sled") { Engine::Sled } else { Engine::File };

    /// Its name, as in `--log sled:DIR`.
    pub const fn name(self) -> &'static str {
        match self {
            Engine::File => "file",
            Engine::Sled => "sled",
        }
    }

    /// The engine with this name.
    pub fn named(name: &str) -> Option<Engine> {
        [Engine::File, Engine::Sled].into_iter().find(|engine| engine.name() == name)
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a log in a directory is kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether to create a log where there is none.
    pub create: bool,
    /// The engine that a log must have; without it, the one that a log has, and [`Engine::DEFAULT`] for a new one.
    pub engine: Option<Engine>,
    /// Bytes on disk after which the next segment begins; retention gives up whole segments.
    pub segment_bytes: u64,
    /// Bytes of zeros written ahead of the blocks; the engine `file` only.
    pub prealloc_bytes: u64,
    /// New work is refused below this many free bytes.
    pub low_water_bytes: u64,
    /// The identity of a log that is created; drawn by chance when none is given.
    pub store_id: Option<StoreId>,
    /// Where a log that is created begins: at the beginning, or behind what another copy of it has. Whoever reads it needs a state there.
    pub begin: Head,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            create: false,
            engine: None,
            segment_bytes: 64 << 20,
            prealloc_bytes: 4 << 20,
            low_water_bytes: 64 << 20,
            store_id: None,
            begin: Head::default(),
        }
    }
}

/// What opening a log found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the log was created.
    pub created: bool,
    /// The identity of the log.
    pub store: StoreId,
    /// Where the log ends.
    pub head: Head,
    /// A torn block at the end that nobody was told of, and that is gone now.
    pub cut: Option<CutTail>,
    /// Whether blocks were found behind the anchor: the writer before did not close the log.
    pub anchor_was_behind: bool,
}

/// Bytes that were cut from the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutTail {
    /// The position that the first of them would have had.
    pub at: Position,
    /// How many there were, zeros behind them included.
    pub bytes: u64,
}

/// Opens the log in `dir` for writing, recovering from whatever happened to the process before.
///
/// # Errors
/// [`LogError::NotFound`], [`LogError::Locked`], [`LogError::Missing`], [`LogError::Damaged`], [`LogError::Chain`],
/// [`LogError::Anchor`], [`LogError::Foreign`], [`LogError::OtherEngine`], [`LogError::FormatTooNew`], [`LogError::Io`],
/// [`LogError::Full`]. Nothing of the log has been changed then.
pub fn open(dir: &Path, options: &Options) -> Result<(Box<dyn EventLog>, Recovery), LogError> {
    let found = store::read(dir)?.map(|identity| identity.engine);
    match found.or(options.engine).unwrap_or(Engine::DEFAULT) {
        Engine::File => FileLog::open(dir, options.clone()).map(|(log, recovery)| (Box::new(log) as Box<dyn EventLog>, recovery)),
        #[cfg(feature = "sled")]
        Engine::Sled => SledLog::open(dir, options.clone()).map(|(log, recovery)| (Box::new(log) as Box<dyn EventLog>, recovery)),
        #[cfg(not(feature = "sled"))]
        Engine::Sled => Err(foreign(dir, WITHOUT_SLED)),
    }
}

/// Opens the log in `dir` for reading, without changing anything that it says. A log of files may have a running writer, a log of
/// sled may not.
///
/// # Errors
/// As [`open`].
pub fn read(dir: &Path) -> Result<Arc<dyn LogReader>, LogError> {
    let identity = store::read(dir)?.ok_or_else(|| LogError::NotFound { path: dir.to_owned() })?;
    match identity.engine {
        Engine::File => Ok(Arc::new(FileReader::open(dir)?)),
        #[cfg(feature = "sled")]
        Engine::Sled => Ok(Arc::new(SledReader::open(dir)?)),
        #[cfg(not(feature = "sled"))]
        Engine::Sled => Err(foreign(dir, WITHOUT_SLED)),
    }
}

#[cfg(not(feature = "sled"))]
const WITHOUT_SLED: &str = "it is kept by sled, which this build leaves out; build with the feature `sled`";

/// Refuses a log of another engine than the one that is asked for.
pub(in crate::log) fn require_engine(dir: &Path, found: Engine, asked: Engine) -> Result<(), LogError> {
    if found == asked { Ok(()) } else { Err(LogError::OtherEngine { path: dir.to_owned(), found, asked }) }
}
