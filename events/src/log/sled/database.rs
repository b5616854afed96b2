//! One open sled database.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use super::super::LogError;
use super::super::directory::layout::{failed, foreign};
use super::chunks::{cut, key, place};
use super::guard::guarded;
use crate::block::SealedBlock;
use crate::id::Position;

/// How long sled may take to open; a database of 64 MiB takes 40 ms, and damage has made it run for ever.
const OPEN_TIME_MAX: Duration = Duration::from_secs(60);
/// How long to wait for a database to be let go by whoever is just closing it.
const LOCK_TIME_MAX: Duration = Duration::from_secs(10);
/// Pages that sled keeps in memory, in bytes. It is a wish: values that are long are counted short.
const CACHE_BYTES: u64 = 64 << 20;
const TREE: &str = "blocks";

/// An open database.
pub(super) struct Database {
    /// Position of its first block.
    pub(super) first: Position,
    pub(super) path: PathBuf,
    db: sled::Db,
    blocks: sled::Tree,
}

/// A chunk as sled has it.
pub(super) struct Chunk {
    pub(super) position: Position,
    pub(super) number: u16,
    pub(super) bytes: sled::IVec,
}

impl Database {
    /// Creates an empty database in a folder that must not exist yet.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`], [`LogError::Unusable`].
    pub(super) fn create(path: &Path, first: Position) -> Result<Database, LogError> {
        DirBuilder::new().mode(0o700).create(path).map_err(failed("create", path))?;
        open_sled(path, first)
    }

    /// Opens a database that exists; `None` when its folder is gone.
    ///
    /// # Errors
    /// [`LogError::Unusable`] when sled cannot open it, or not in time; [`LogError::Foreign`], [`LogError::Io`], [`LogError::Full`].
    pub(super) fn open(path: &Path, first: Position) -> Result<Option<Database>, LogError> {
        if !tidy(path)? {
            return Ok(None);
        }
        if !path.join("db").exists() {
            // sled would create an empty one in its place and say nothing.
            let reason = "its file `db` is missing".to_owned();
            return Err(LogError::Unusable { at: first, path: path.to_owned(), reason });
        }
        match open_patiently(path, first) {
            Err(LogError::Unusable { .. }) if set_snapshots_aside(path)? => open_patiently(path, first).map(Some),
            opened => opened.map(Some),
        }
    }

    /// Stores a block; durable after [`Database::flush`] and a sync of [`Database::file`].
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::Full`], [`LogError::Unusable`].
    pub(super) fn insert(&self, block: &SealedBlock) -> Result<(), LogError> {
        self.insert_bytes(block.header.first_position, &block.bytes)
    }

    /// Stores the bytes of the block that begins at this position.
    ///
    /// # Errors
    /// As [`Database::insert`].
    pub(super) fn insert_bytes(&self, position: Position, bytes: &[u8]) -> Result<(), LogError> {
        let mut chunks = cut(position, bytes);
        guarded("write", &self.path, position, || {
            // In one batch a crash takes all chunks or none.
            let mut batch = sled::Batch::default();
            match (chunks.next(), chunks.next()) {
                (Some((key, chunk)), None) => return self.blocks.insert(key, chunk).map(drop),
                (one, two) => one.into_iter().chain(two).chain(chunks).for_each(|(key, chunk)| batch.insert(&key, chunk)),
            }
            self.blocks.apply_batch(batch)
        })
    }

    /// Hands everything to the system.
    ///
    /// # Errors
    /// As [`Database::insert`].
    pub(super) fn flush(&self) -> Result<(), LogError> {
        guarded("write", &self.path, self.first, || self.db.flush().map(drop))
    }

    /// The file that holds everything, for syncing it: sled's own flush does not.
    pub(super) fn file(&self) -> PathBuf {
        self.path.join("db")
    }

    /// Removes all chunks at or behind a position; says how many bytes they had.
    ///
    /// # Errors
    /// As [`Database::insert`].
    pub(super) fn cut(&self, from: Position) -> Result<u64, LogError> {
        guarded("cut", &self.path, from, || {
            let mut bytes = 0;
            for found in self.blocks.range(key(from, 0)..) {
                let (key, chunk) = found?;
                bytes += chunk.len() as u64;
                self.blocks.remove(key)?;
            }
            Ok(bytes)
        })
    }

    /// Up to `limit` chunks from this one on that lie before `end`, in order.
    ///
    /// # Errors
    /// [`LogError::Unusable`], [`LogError::Io`].
    pub(super) fn chunks(&self, from: (Position, u16), end: Position, limit: usize) -> Result<Vec<Chunk>, LogError> {
        let found = guarded("read", &self.path, from.0, || {
            self.blocks.range(key(from.0, from.1)..key(end, 0)).take(limit).collect::<Result<Vec<_>, _>>()
        })?;
        found.into_iter().map(|(key, bytes)| self.chunk(&key, bytes)).collect()
    }

    /// The position of the last block at or before this one.
    ///
    /// # Errors
    /// [`LogError::Unusable`], [`LogError::Io`].
    pub(super) fn holder(&self, at: Position) -> Result<Option<Position>, LogError> {
        let found = guarded("read", &self.path, at, || self.blocks.range(..=key(at, u16::MAX)).next_back().transpose())?;
        found.map(|(key, bytes)| self.chunk(&key, bytes).map(|chunk| chunk.position)).transpose()
    }

    fn chunk(&self, key: &[u8], bytes: sled::IVec) -> Result<Chunk, LogError> {
        let Some((position, number)) = place(key) else {
            return Err(self.unusable(self.first, "it has a key that is none of ours".to_owned()));
        };
        Ok(Chunk { position, number, bytes })
    }

    /// Names the place at which the database is not what was written.
    pub(super) fn unusable(&self, at: Position, reason: String) -> LogError {
        LogError::Unusable { at, path: self.path.clone(), reason }
    }
}

/// Removes what a kill leaves and sled cannot open with, and refuses what sled would follow out of the folder; false without a folder.
fn tidy(path: &Path) -> Result<bool, LogError> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(foreign(path, "it is not a folder")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("open", path)(error)),
    }
    for entry in path.read_dir().map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let kind = entry.file_type().map_err(failed("list", path))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_symlink() || (kind.is_dir() != (name == "blobs")) {
            return Err(foreign(&entry.path(), "sled has no such thing"));
        }
        if name.starts_with("snap.") && name.ends_with(".generating") {
            std::fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
        }
    }
    Ok(true)
}

/// Gives sled's snapshots other names; it can open without them, by reading all of its file. Whether there were any.
fn set_snapshots_aside(path: &Path) -> Result<bool, LogError> {
    let mut any = false;
    for entry in path.read_dir().map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?.path();
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") {
            std::fs::rename(&entry, entry.with_file_name(format!("unusable.{name}"))).map_err(failed("set aside", &entry))?;
            any = true;
        }
    }
    Ok(any)
}

/// Opens a database, waiting for whoever is closing it in this process.
fn open_patiently(path: &Path, first: Position) -> Result<Database, LogError> {
    let began = now();
    loop {
        match open_sled(path, first) {
            Err(LogError::Io { source, .. }) if is_locked(&source) && began.elapsed() < LOCK_TIME_MAX => {
                std::thread::sleep(Duration::from_millis(2));
            }
            opened => return opened,
        }
    }
}

/// sled says it in words only.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn open_sled(path: &Path, first: Position) -> Result<Database, LogError> {
    let (sender, receiver) = sync_channel(1);
    let folder = path.to_owned();
    let spawned = std::thread::Builder::new().name("ergate-sled-open".to_owned()).spawn(move || {
        let opened = guarded("open", &folder, first, || {
            // Everything of a log is written by its one thread, which flushes by itself.
            let db = sled::Config::new().path(&folder).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
            let blocks = db.open_tree(TREE)?;
            Ok((db, blocks))
        });
        // Nobody listens any more after the time limit.
        let _ = sender.send(opened);
    });
    spawned.map_err(failed("open", path))?;
    let unusable = |reason: String| LogError::Unusable { at: first, path: path.to_owned(), reason };
    match receiver.recv_timeout(OPEN_TIME_MAX) {
        Ok(opened) => opened.map(|(db, blocks)| Database { first, path: path.to_owned(), db, blocks }),
        Err(RecvTimeoutError::Timeout) => Err(unusable(format!("sled did not open it within {} s", OPEN_TIME_MAX.as_secs()))),
        Err(RecvTimeoutError::Disconnected) => Err(unusable("sled gave up opening it".to_owned())),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a lock is waited for changes nothing that is recorded")]
fn now() -> Instant {
    Instant::now()
}
