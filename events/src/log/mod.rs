//! The log: append blocks durably, read them back, find them by position, time and task. No engine's types or errors appear here.

use std::path::PathBuf;
use std::sync::Arc;

use crate::block::{Block, BlockError, Hash, SealedBlock};
use crate::id::{Ordinal, Position};
use crate::time::Timestamp;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod directory;
pub mod file;
pub mod index;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
mod plain;
#[cfg(feature = "sled")]
pub mod sled;
pub mod snapshot;

/// Where a log ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Head {
    /// Position that the next record gets.
    pub next: Position,
    /// Ordinal that the next created task gets.
    pub next_ordinal: Ordinal,
    /// Hash of the last block.
    pub hash: Hash,
    /// Time of the last record.
    pub last_time: Timestamp,
}

impl Head {
    /// The head of a log that ends with this block.
    pub fn after(block: &SealedBlock) -> Head {
        Head {
            next: block.header.next_position(),
            next_ordinal: block.next_ordinal,
            hash: block.hash,
            last_time: block.last_time,
        }
    }
}

/// The one writer of a log.
pub trait EventLog: Send {
    /// Where the next block goes, whether what is there is durable or not.
    fn head(&self) -> Head;

    /// Writes a block behind the head. It is durable after the next [`EventLog::sync`].
    ///
    /// # Errors
    /// [`LogError::Gap`] for a block that does not follow the head, [`LogError::Full`] when there is no space,
    /// [`LogError::Io`]; the last two poison the writer.
    fn append(&mut self, block: &SealedBlock) -> Result<(), LogError>;

    /// Makes everything appended durable and visible to readers.
    ///
    /// # Errors
    /// [`LogError::Io`], after which nothing more is written by this process: a failed sync says nothing about what is on disk.
    fn sync(&mut self) -> Result<(), LogError>;

    /// Hands everything appended to the system, so that the end of the process takes none of it, and makes it visible to readers
    /// without waiting for the disk; for the durability modes that say so.
    ///
    /// # Errors
    /// As [`EventLog::append`].
    fn publish(&mut self) -> Result<(), LogError>;

    /// Does what can wait while nobody waits: syncs the head anchor, prepares the next segment.
    ///
    /// # Errors
    /// As [`EventLog::sync`].
    fn idle(&mut self) -> Result<(), LogError>;

    /// Whether new work may be taken, or space is running out.
    ///
    /// # Errors
    /// [`LogError::Io`] when the space cannot be asked for.
    fn space(&self) -> Result<Space, LogError>;

    /// A reader of everything durable, now and later; any number may exist, on any thread.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Sends a message with the blocks of the next sync, and only with them; a log without topics has nowhere to send it.
    fn send(&mut self, message: Outgoing) {
        drop(message);
    }

    /// Gives up the blocks before the one that holds `keep_from`; whole segments only, so less may go than asked.
    /// Returns the first position that is still there. A base snapshot at or after it must be durable before.
    ///
    /// # Errors
    /// [`LogError::Io`].
    fn retain(&mut self, keep_from: Position) -> Result<Position, LogError>;

    /// Syncs everything, the anchor included, and lets the next process in.
    ///
    /// # Errors
    /// As [`EventLog::sync`].
    fn close(self: Box<Self>) -> Result<(), LogError>;
}

/// A message to others that goes out with the blocks that it belongs to, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where it goes.
    pub topic: String,
    /// Which partition of it; `None` leaves that to the client, by the key.
    pub partition: Option<i32>,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// What it says.
    pub value: Option<Vec<u8>>,
}

/// How much space is left below the low-water mark's reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes free where the log lives.
    pub free_bytes: u64,
    /// New work is refused below this many free bytes.
    pub low_water_bytes: u64,
}

impl Space {
    /// Whether new work should be refused for now.
    pub const fn is_low(self) -> bool {
        self.free_bytes < self.low_water_bytes
    }
}

/// Which records are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Span {
    /// The first position that retention has left.
    pub first: Position,
    /// The position after the last durable record.
    pub next: Position,
}

/// Reads what is durable.
pub trait LogReader: Send + Sync {
    /// Which records are there now.
    fn span(&self) -> Span;

    /// Reads on from the block that holds `from`; a position at the end waits there for blocks to come.
    ///
    /// # Errors
    /// [`LogError::Gone`] for a position that retention has dropped, [`LogError::Beyond`] for one behind the end,
    /// [`LogError::Damaged`], [`LogError::Io`].
    fn cursor(&self, from: Position) -> Result<Box<dyn Cursor>, LogError>;

    /// The position of the first block that ends at or after `time`; the end when there is none.
    ///
    /// # Errors
    /// As [`LogReader::cursor`].
    fn seek_time(&self, time: Timestamp) -> Result<Position, LogError>;

    /// The position of the block in which the task was created; `None` when it is not there.
    ///
    /// # Errors
    /// As [`LogReader::cursor`].
    fn seek_task(&self, task: Ordinal) -> Result<Option<Position>, LogError>;

    /// The hash of the block that ends at `at`, as the block behind it names it; `None` when no block there ends or begins.
    /// Costs little where a segment begins, and at the end.
    ///
    /// # Errors
    /// As [`LogReader::cursor`], but for the positions that it refuses.
    fn hash_before(&self, at: Position) -> Result<Option<Hash>, LogError>;
}

/// Walks over durable blocks in order.
pub trait Cursor: Send {
    /// The next block, or `None` while there is none.
    ///
    /// # Errors
    /// [`LogError::Damaged`] with the position that cannot be read, [`LogError::Io`].
    fn next_block(&mut self) -> Result<Option<Block>, LogError>;
}

/// Why the log could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum LogError {
    /// There is no log where one was expected.
    #[error("no log found in {path}; check --data, or run `ergate demo --data DIR` to create one")]
    NotFound { path: PathBuf },
    /// Another process has the log.
    #[error("{path} is in use by process {pid}; stop it first, or use another --data directory")]
    Locked { path: PathBuf, pid: String },
    /// The block does not follow the head.
    #[error("the block begins at {found} and the log continues at {expected}")]
    Gap { expected: Position, found: Position },
    /// A step of reading or writing failed.
    #[error("failed to {step} {path}; check that this user may use it and that the disk is well")]
    Io {
        /// What was being done, as a verb.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// There is no space left.
    #[error("no space left for {path}; free some space and start again: everything acknowledged is kept")]
    Full { path: PathBuf },
    /// Another engine took the shard over.
    #[error("another engine has taken over shard {shard}: {reason}; this one steps down from it")]
    Fenced { shard: crate::id::ShardId, reason: String },
    /// The brokers did not do what they were asked.
    #[error("failed to {step} on Kafka ({topic}): {reason}; see `ergate kafka doctor`")]
    Kafka { step: &'static str, topic: String, reason: String },
    /// A topic of the namespace is not there.
    #[error("there is no topic {topic}; create the topics of this namespace with `ergate kafka init`, or check --log")]
    NoTopic { topic: String },
    /// An earlier write failed, so this process writes no more.
    #[error("the log refuses to write after an earlier failure ({reason}); restart to recover from what is durable")]
    Poisoned { reason: String },
    /// A block is not what was written.
    #[error(
        "the log is damaged at position {at} ({path}, byte {offset}); restore this file from a copy, or see `ergate log repair --help`"
    )]
    Damaged {
        /// The first position that cannot be read.
        at: Position,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        #[source]
        source: BlockError,
    },
    /// A segment cannot be opened, or a block in it is not what was written.
    #[error(
        "the log is damaged at position {at} ({path}): {reason}; restore this folder from a copy, or see `ergate log repair --help`"
    )]
    Unusable {
        /// The first position that cannot be read.
        at: Position,
        /// The segment.
        path: PathBuf,
        /// What is wrong there.
        reason: String,
    },
    /// A block does not follow the one before it.
    #[error(
        "the chain breaks at position {at}: the block names {found} as its predecessor, which is {expected}; the log was altered"
    )]
    Chain { at: Position, expected: Hash, found: Hash },
    /// A message of a topic is not the block that it should be.
    #[error("offset {offset} of {place} holds no block that can be read: {reason}")]
    NoBlock {
        /// Where the block begins, as far as the message says.
        at: Position,
        /// Topic and partition.
        place: String,
        /// Which message.
        offset: i64,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer build wrote the block of a message.
    #[error("offset {offset} of {place} holds a block of format {found} and this build reads up to {known}; use a newer build")]
    NewerBlock {
        /// Topic and partition.
        place: String,
        /// Which message.
        offset: i64,
        /// Its format.
        found: u16,
        /// The newest format that this build reads.
        known: u16,
    },
    /// Two blocks of a topic claim the same positions.
    #[error("two blocks claim position {at} of shard {shard}, at offsets {first} and {second}: the shard has two histories")]
    Contradiction { at: Position, shard: crate::id::ShardId, first: i64, second: i64 },
    /// Acknowledged blocks are gone from the end.
    #[error(
        "{missing} acknowledged events are missing: the log ends at {found} and was acknowledged up to {anchored}; restore a newer copy, or accept the loss with `ergate log repair --accept-loss {missing}`"
    )]
    Missing {
        /// How far the anchor says the log was acknowledged.
        anchored: Position,
        /// Where the log ends.
        found: Position,
        /// How many events lie between.
        missing: u64,
    },
    /// The head anchor does not fit the log.
    #[error(
        "the head anchor in {path} is unusable ({reason}); if the log is known to be whole, `ergate log repair --accept-loss 0` writes a new one"
    )]
    Anchor { path: PathBuf, reason: &'static str },
    /// A newer build wrote it.
    #[error("{path} has format {found} and this build reads up to {known}; use a newer build")]
    FormatTooNew { path: PathBuf, found: u16, known: u16 },
    /// The log is kept by another engine than the one that is asked for.
    #[error("{path} holds a log of the engine `{found}`, not `{asked}`; name it `{found}:{path}`, or use another directory")]
    OtherEngine { path: PathBuf, found: directory::Engine, asked: directory::Engine },
    /// Something lies where our files should be and is not one of them.
    #[error("{path} is not usable as part of a log: {reason}")]
    Foreign { path: PathBuf, reason: &'static str },
    /// Retention has dropped this position.
    #[error("position {at} is no longer kept; the log begins at {first}")]
    Gone { at: Position, first: Position },
    /// The log is not that long.
    #[error("position {at} is beyond the end of the log at {next}")]
    Beyond { at: Position, next: Position },
}
