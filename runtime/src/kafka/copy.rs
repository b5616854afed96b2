//! The copy of a shard on this machine, with its state: opened, brought up to what is committed, and kept warm.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ergate_events::audit::{Audit, Depth};
use ergate_events::id::{Position, ShardId};
use ergate_events::log::directory::{self, Options, StoreId};
use ergate_events::log::index::TaskIndex;
use ergate_events::log::kafka::{Chained, KafkaReader, Received, append, restore_copy};
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{EventLog, Head, LogError, LogReader};

use super::logs::{self, CAPACITY};
use super::settings::KafkaSettings;
use super::snapshots;
use crate::store::{self, RecoverError, recover};

/// A copy that is this many events behind begins anew at a snapshot of the topic, where there is a later one.
const BEHIND_MAX: u64 = 1_000_000;

/// Where a shard's log and its copy are.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) shard: ShardId,
    /// Topic and partition.
    pub(crate) topic: (String, i32),
    /// The directory of the copy.
    pub(crate) dir: PathBuf,
    /// Of which cluster's log it is a copy.
    store: StoreId,
    options: Options,
}

impl Place {
    /// The place of a shard; `cluster` is the id of the cluster.
    pub(crate) fn new(settings: &KafkaSettings, shard: ShardId, data: &Path, options: &Options, cluster: &str) -> Place {
        let topics = settings.topics();
        let topic = if shard == CAPACITY { (topics.capacity, 0) } else { (topics.events, i32::from(shard.0)) };
        let name = logs::shard_name(shard);
        let dir = data.join(settings.namespace()).join(name);
        let store = logs::store(cluster, &topic.0, topic.1);
        Place { shard, topic, dir, store, options: options.clone() }
    }

    /// Reads the topic.
    pub(crate) fn reader(&self, settings: &KafkaSettings) -> KafkaReader {
        KafkaReader::new(&settings.client("restore"), &self.topic.0, self.topic.1, self.shard)
    }

    /// Snapshots beside the copy.
    pub(crate) fn snapshots(&self) -> SnapshotStore {
        SnapshotStore::open(&self.dir, self.store.0)
    }

    /// Indexes beside the copy.
    pub(crate) fn index(&self, reader: &Arc<dyn LogReader>) -> Option<TaskIndex> {
        store::index(&self.dir, self.store, reader)
    }

    /// Opens the copy, folds it and brings both up to what is committed. A copy that does not go on in the topic is made anew. Blocks.
    ///
    /// # Errors
    /// When the brokers do not answer, the copy cannot be written, or the log contradicts itself.
    pub(crate) fn warm(&self, settings: &KafkaSettings) -> Result<Warm, RecoverError> {
        match self.open(settings).and_then(|warm| self.follow(warm, settings)) {
            Err(RecoverError::Log(error)) if is_other_history(&error) => {
                tracing::error!(shard = %self.shard, %error, kept = %self.aside().display(), "the copy of this shard does not go on in its topic: it is kept aside and made anew");
                self.anew(settings)
            }
            Err(error @ RecoverError::NoBase { .. }) => {
                tracing::warn!(shard = %self.shard, %error, "the copy of this shard has no beginning and is made anew");
                self.anew(settings)
            }
            other => other,
        }
    }

    /// Brings a copy up to what is committed; one that a snapshot of the topic is far ahead of begins anew there.
    fn follow(&self, warm: Warm, settings: &KafkaSettings) -> Result<Warm, RecoverError> {
        if !warm.is_far_behind(self, settings)? {
            return warm.catch_up(&self.reader(settings));
        }
        drop(warm);
        remove(&self.dir)?;
        self.open(settings)?.catch_up(&self.reader(settings))
    }

    /// Begins a copy anew. What is there is kept aside, the last one only: it may hold what brokers have lost.
    fn anew(&self, settings: &KafkaSettings) -> Result<Warm, RecoverError> {
        remove(&self.aside())?;
        let moved = std::fs::rename(&self.dir, self.aside());
        moved.map_err(|source| LogError::Io { step: "put aside", path: self.dir.clone(), source })?;
        self.open(settings)?.catch_up(&self.reader(settings))
    }

    /// Where a copy is kept that does not go on in its topic.
    fn aside(&self) -> PathBuf {
        self.dir.with_extension("aside")
    }

    /// Opens the copy as it is, or makes one that begins where the topic's newest snapshot was taken.
    fn open(&self, settings: &KafkaSettings) -> Result<Warm, RecoverError> {
        if let Some(parent) = self.dir.parent() {
            std::fs::create_dir_all(parent).map_err(|source| LogError::Io { step: "create", path: parent.to_owned(), source })?;
        }
        let is_new = !self.dir.join("store").exists();
        let base = if is_new { snapshots::load(settings, self)? } else { None };
        let begin = base.as_ref().map_or_else(Head::default, |base| base.head);
        let options = Options { create: true, store_id: Some(self.store), begin, ..self.options.clone() };
        let (copy, recovery) = directory::open(&self.dir, &options)?;
        if recovery.store != self.store {
            let reason = "it is a copy of another cluster's or namespace's log";
            return Err(LogError::Foreign { path: self.dir.clone(), reason }.into());
        }
        let snapshots = self.snapshots();
        snapshots.clear_unfinished();
        if let Some(base) = base {
            snapshots.save(&base.head, &mut |out| out.write_all(&base.image))?;
        }
        let head = copy.head();
        let (state, snapshot_at) = recover(copy.reader().as_ref(), head, Some(&snapshots))?;
        let audit = Audit::new(Depth::Chain, state, Some(head.hash));
        Ok(Warm { shard: self.shard, copy, audit, chained: Chained::after(self.shard, &head), offset: None, snapshot_at })
    }
}

fn remove(dir: &Path) -> Result<(), LogError> {
    match std::fs::remove_dir_all(dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::Io { step: "remove", path: dir.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether an error says that a copy and the topic are not the same log.
pub(super) const fn is_other_history(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Chain { .. }
            | LogError::Gone { .. }
            | LogError::Beyond { .. }
            | LogError::Missing { .. }
            | LogError::Damaged { .. }
            | LogError::Unusable { .. }
            | LogError::Anchor { .. }
            | LogError::Foreign { .. }
            | LogError::Gap { .. }
    )
}

/// A copy with the state at its end.
pub(crate) struct Warm {
    pub(crate) shard: ShardId,
    pub(crate) copy: Box<dyn EventLog>,
    pub(crate) audit: Audit,
    chained: Chained,
    /// Where the topic goes on, where that is known.
    pub(crate) offset: Option<i64>,
    pub(crate) snapshot_at: Position,
}

impl Warm {
    /// Whether a snapshot of the topic is a better beginning than this copy.
    fn is_far_behind(&self, place: &Place, settings: &KafkaSettings) -> Result<bool, RecoverError> {
        let next = place.reader(settings).measure()?.next;
        let here = self.copy.head().next;
        Ok(next.0.saturating_sub(here.0) > BEHIND_MAX && snapshots::newest(settings, place)?.is_some_and(|at| at > here))
    }

    /// Whether this is all that will ever be committed before an offset where a new owner has marked the end. At the one offset that may lie
    /// between is the marker of the last block's transaction, or something undecided that is given up with the mark: a block that was committed
    /// would have its marker before the end, too, for an owner is let in only when that is written.
    pub(crate) fn reaches(&self, end: i64) -> bool {
        self.offset.is_some_and(|offset| offset + 1 >= end)
    }

    /// Follows the topic to its end.
    ///
    /// # Errors
    /// When the topic does not go on from here, or contradicts itself.
    pub(crate) fn catch_up(mut self, topic: &KafkaReader) -> Result<Warm, RecoverError> {
        let audit = &mut self.audit;
        let mut each = |block: &ergate_events::block::Block| audit.follow(block).map_err(RecoverError::from);
        self.offset = Some(restore_copy(self.copy.as_mut(), topic, self.offset, &mut each)?);
        self.chained = Chained::after(self.shard, &self.copy.head());
        Ok(self)
    }

    /// Takes the next block from the topic; it becomes visible to readers with [`EventLog::publish`].
    ///
    /// # Errors
    /// When it does not follow.
    pub(crate) fn take(&mut self, received: &Received) -> Result<(), RecoverError> {
        if self.chained.takes(received)? {
            self.audit.follow(&received.block)?;
            append(self.copy.as_mut(), &received.block)?;
        }
        self.offset = Some(received.offset + 1);
        Ok(())
    }
}
