//! Opens a log for looking at it, without a server and beside a running one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ergate::events::id::{Position, ShardId};
use ergate::events::log::directory::{self, StoreId, holder, identity};
use ergate::events::log::index::{Pace, TaskIndex};
use ergate::events::log::kafka::{Extent, KafkaReader};
use ergate::events::log::snapshot::{SnapshotInfo, SnapshotStore};
use ergate::events::log::{Head, LogReader, Span};
use ergate::events::state::State;
use ergate::look::LookError;
use ergate::look::fold::Source;

use super::bar::Bar;
use super::exit::{Trouble, looked};
use super::moment::Moment;
use super::record::{self, Record};
use super::{Globals, config};

/// Events at the end of a log that are rather read than indexed.
const REST_EVENTS: u64 = 256;

/// The data directory that flags and configuration name.
pub(crate) fn data_dir(globals: &Globals) -> anyhow::Result<PathBuf> {
    let dir = config::settings(globals)?.log.data;
    require_folder(&dir)?;
    Ok(dir)
}

/// Refuses what is there and is no directory.
pub(crate) fn require_folder(dir: &Path) -> anyhow::Result<()> {
    if dir.exists() && !dir.is_dir() {
        return Err(Trouble::NotFound(format!("{} is not a directory; check --data", dir.display())).into());
    }
    Ok(())
}

/// A log that is looked at: one shard.
pub(crate) struct Place {
    /// The data directory; of a log on Kafka the one where this machine keeps a copy, if it does.
    pub(crate) dir: PathBuf,
    /// The identity of the store.
    pub(crate) store: StoreId,
    /// Whose log it is.
    pub(crate) shard: ShardId,
    /// Reads the log.
    pub(crate) reader: Arc<dyn LogReader>,
    /// The partition, of a log on Kafka.
    pub(crate) topic: Option<Topic>,
    /// The copy that it is, of a service's log.
    #[expect(dead_code, reason = "it is held so that the copy is there for as long as somebody looks at it")]
    pub(crate) copy: Option<super::logs::Copy>,
}

/// The partition that holds a log.
pub(crate) struct Topic {
    /// Reads it.
    pub(crate) reader: KafkaReader,
    /// What it held when the log was opened. Every verb but one that follows ends there, though engines may go on.
    pub(crate) extent: Extent,
}

impl Place {
    /// The log in a directory.
    pub(crate) fn directory(dir: &Path) -> anyhow::Result<Place> {
        let store = identity(dir)?.id;
        let reader = directory::read(dir)?;
        let shard = shard_of(reader.as_ref());
        Ok(Place { dir: dir.to_owned(), store, shard, reader, topic: None, copy: None })
    }

    /// Which records there are.
    pub(crate) fn span(&self) -> Span {
        self.reader.span()
    }

    /// The snapshots beside the log.
    pub(crate) fn snapshots(&self) -> SnapshotStore {
        SnapshotStore::open(&self.dir, self.store.0)
    }

    /// The log's indexes; what is missing of them is built where that is possible and nobody else does it.
    pub(crate) fn index(&self, globals: &Globals) -> anyhow::Result<TaskIndex> {
        let index = TaskIndex::open(&self.dir, self.store.0, Arc::clone(&self.reader))?;
        let (from, next) = (index.reaches()?, self.reader.span().next);
        if next.0.saturating_sub(from.0) < REST_EVENTS || self.topic.is_some() || self.is_written() {
            return Ok(index);
        }
        let bar = Bar::new(globals, "indexing", from.0, next.0);
        let built = index.extend(next, REST_EVENTS, &mut |at| {
            bar.at(at.0);
            Pace::GoOn
        });
        if let Err(error) = built {
            tracing::warn!(%error, "the indexes could not be completed; the log is read instead");
        }
        Ok(index)
    }

    /// Whether another process may write here, or nobody can. A log of sled is held by whoever reads it, and that is us.
    fn is_written(&self) -> bool {
        let ours = std::process::id().to_string();
        let held = !matches!(holder(&self.dir), Ok(pid) if pid.as_ref().is_none_or(|pid| *pid == ours));
        held || rustix::fs::access(&self.dir, rustix::fs::Access::WRITE_OK).is_err()
    }

    /// Shows every record from `from` on to `each` until that says that it has seen enough, or the end is reached.
    pub(crate) fn each_record(
        &self,
        from: Position,
        each: &mut dyn FnMut(&Record<'_>) -> anyhow::Result<Next>,
    ) -> anyhow::Result<()> {
        let mut cursor = self.reader.cursor(from)?;
        while let Some(block) = cursor.next_block()? {
            for record in record::of(&block) {
                let record = record?;
                if record.envelope.position >= from && each(&record)? == Next::Enough {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Folds the state at the end of the log.
    pub(crate) fn fold_all(&self, globals: &Globals) -> anyhow::Result<State> {
        self.fold(globals, Moment::Position(self.reader.span().next))
    }

    /// Folds the state at a moment, from the nearest snapshot before it or from the beginning.
    pub(crate) fn fold(&self, globals: &Globals, until: Moment) -> anyhow::Result<State> {
        self.folding(globals, until, Position(0), |source, seen| source.fold(until, seen))
    }

    /// Goes on folding from a state to a later moment.
    pub(crate) fn fold_on(&self, globals: &Globals, state: State, until: Moment) -> anyhow::Result<State> {
        let from = state.position;
        self.folding(globals, until, from, |source, seen| source.fold_on(state, until, seen))
    }

    fn folding(
        &self,
        globals: &Globals,
        until: Moment,
        from: Position,
        fold: impl FnOnce(&Source<'_>, &mut dyn FnMut(Position)) -> Result<State, LookError>,
    ) -> anyhow::Result<State> {
        let end = match until {
            Moment::Position(at) => at,
            Moment::Time(_) => self.span().next,
        };
        let (bar, snapshots) = (Bar::new(globals, "folding", from.0, end.0), self.snapshots());
        let source = Source { reader: self.reader.as_ref(), snapshots: Some(&snapshots) };
        fold(&source, &mut |at| bar.at(at.0)).map_err(looked)
    }

    /// A snapshot's state and where it was taken, if it is whole and the log goes on from it.
    pub(crate) fn load(&self, snapshots: &SnapshotStore, info: &SnapshotInfo) -> Option<(State, Head)> {
        Source { reader: self.reader.as_ref(), snapshots: Some(snapshots) }.load(info)
    }
}

/// The shard whose log it is, as its last block says; 0 where there is none, or none that can be read.
fn shard_of(reader: &dyn LogReader) -> ShardId {
    let last = Position(reader.span().next.0.saturating_sub(1));
    let block = reader.cursor(last).and_then(|mut cursor| cursor.next_block());
    block.ok().flatten().map_or(ShardId(0), |block| block.header.shard)
}

/// Whether whoever looks wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Enough,
}
