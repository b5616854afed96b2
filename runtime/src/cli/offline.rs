//! Opens a log for looking at it, without a server and beside a running one.

use std::path::PathBuf;
use std::sync::Arc;

use ergate::events::block::Block;
use ergate::events::id::Position;
use ergate::events::log::directory::{self, StoreId, identity};
use ergate::events::log::snapshot::{SnapshotInfo, SnapshotStore};
use ergate::events::log::{Head, LogError, LogReader};
use ergate::events::state::State;
use ergate::store::RecoverError;

use super::bar::Bar;
use super::exit::Trouble;
use super::moment::Moment;
use super::record::{self, Record};
use super::{Globals, config};

/// The data directory that flags and configuration name.
pub(crate) fn data_dir(globals: &Globals) -> anyhow::Result<PathBuf> {
    let dir = config::settings(globals)?.log.data;
    if dir.exists() && !dir.is_dir() {
        return Err(Trouble::NotFound(format!("{} is not a directory; check --data", dir.display())).into());
    }
    Ok(dir)
}

/// A log that is looked at.
pub(crate) struct Place {
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// The identity of the store.
    pub(crate) store: StoreId,
    /// Reads the log.
    pub(crate) reader: Arc<dyn LogReader>,
}

/// Opens the log that flags and configuration name.
pub(crate) fn open(globals: &Globals) -> anyhow::Result<Place> {
    let dir = data_dir(globals)?;
    let store = identity(&dir)?.id;
    let reader = directory::read(&dir)?;
    Ok(Place { dir, store, reader })
}

impl Place {
    /// The snapshots beside the log.
    pub(crate) fn snapshots(&self) -> SnapshotStore {
        SnapshotStore::open(&self.dir, self.store.0)
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
        let span = self.reader.span();
        if let Moment::Position(at) = until {
            if at > span.next {
                return Err(LogError::Beyond { at, next: span.next }.into());
            }
            if at < span.first {
                return Err(LogError::Gone { at, first: span.first }.into());
            }
        }
        let state = self.base(until)?;
        self.fold_on(globals, state, until)
    }

    /// Goes on folding from a state to a later moment.
    pub(crate) fn fold_on(&self, globals: &Globals, mut state: State, until: Moment) -> anyhow::Result<State> {
        let span = self.reader.span();
        let end = match until {
            Moment::Position(at) => at,
            Moment::Time(_) => span.next,
        };
        let bar = Bar::new(globals, "folding", state.position.0, end.0);
        let mut cursor = self.reader.cursor(state.position)?;
        while state.position < end {
            let Some(block) = cursor.next_block()? else { break };
            if !apply(&mut state, &block, until)? {
                break;
            }
            bar.at(state.position.0);
        }
        Ok(state)
    }

    /// The newest usable snapshot at or before a moment, or the empty state where the log is whole.
    fn base(&self, until: Moment) -> anyhow::Result<State> {
        let (first, snapshots) = (self.reader.span().first, self.snapshots());
        let mut skipped = 0;
        for info in snapshots.list()? {
            if matches!(until, Moment::Position(at) if info.position > at) || info.position < first {
                continue;
            }
            match self.load(&snapshots, &info) {
                Some((state, _)) if matches!(until, Moment::Time(at) if state.last_at > at) => {}
                Some((state, _)) => return Ok(state),
                None => skipped += 1,
            }
        }
        if first == Position(0) {
            return Ok(State::default());
        }
        let oldest = snapshots.list()?.into_iter().map(|info| info.position).filter(|at| *at >= first).min();
        Err(match oldest {
            Some(oldest) if skipped == 0 => Trouble::NotFound(format!(
                "no snapshot leads to {until}: retention has dropped the events before {first}, and the oldest snapshot is at position {oldest}"
            ))
            .into(),
            Some(_) | None => RecoverError::NoBase { first, skipped }.into(),
        })
    }

    /// A snapshot's state and where it was taken, if it is whole and the log goes on from it.
    pub(crate) fn load(&self, snapshots: &SnapshotStore, info: &SnapshotInfo) -> Option<(State, Head)> {
        let loaded = snapshots.load(info).map_err(anyhow::Error::from);
        let decoded = loaded.and_then(|snapshot| Ok((State::decode(&snapshot.body)?, snapshot.head)));
        match decoded {
            Ok((state, head)) if state.position == head.next && self.follows(&head) => Some((state, head)),
            Ok(_) => {
                tracing::warn!(path = %info.path.display(), "a snapshot was skipped: it was not taken of this log");
                None
            }
            Err(error) => {
                tracing::warn!(path = %info.path.display(), error = format!("{error:#}"), "a snapshot was skipped");
                None
            }
        }
    }

    /// Whether the log goes on from where a snapshot was taken, or ends there with the block that it names.
    fn follows(&self, taken: &Head) -> bool {
        let block = |at| self.reader.cursor(at).and_then(|mut cursor| cursor.next_block()).ok().flatten();
        let span = self.reader.span();
        if taken.next < span.next {
            return block(taken.next)
                .is_some_and(|next| next.header.first_position == taken.next && next.header.previous == taken.hash);
        }
        let before = taken.next.0.checked_sub(1).map(Position).filter(|before| *before >= span.first);
        // A log without any block has only its anchor to tell, which was held against it at the opening.
        taken.next == span.next && before.is_none_or(|before| block(before).is_some_and(|last| last.hash() == taken.hash))
    }
}

/// Whether whoever looks wants more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Enough,
}

/// Folds the records of a block up to a moment; false when that lies in this block.
fn apply(state: &mut State, block: &Block, until: Moment) -> Result<bool, LogError> {
    for record in record::of(block) {
        let record = record?;
        if record.envelope.position < state.position {
            continue;
        }
        let beyond = match until {
            Moment::Position(at) => record.envelope.position >= at,
            Moment::Time(at) => record.envelope.recorded_at > at,
        };
        if beyond {
            return Ok(false);
        }
        state.apply(&record.envelope);
    }
    Ok(true)
}
