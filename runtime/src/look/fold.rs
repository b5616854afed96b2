//! The state at any moment, folded from the nearest snapshot before it.

use ergate_events::block::Block;
use ergate_events::event::Event;
use ergate_events::id::Position;
use ergate_events::log::snapshot::{SnapshotInfo, SnapshotStore};
use ergate_events::log::{Head, LogError, LogReader};
use ergate_events::state::State;

use super::moment::Moment;
use super::{LookError, record};
use crate::store::RecoverError;

/// What states are folded from.
pub struct Source<'a> {
    /// The log.
    pub reader: &'a dyn LogReader,
    /// The snapshots beside it, where there are any.
    pub snapshots: Option<&'a SnapshotStore>,
}

impl Source<'_> {
    /// Folds the state at a moment, from the nearest snapshot before it or from the beginning; `seen` hears how far it is. It takes a tenth of a
    /// second for each million events from there on.
    ///
    /// # Errors
    /// [`LogError::Beyond`] and [`LogError::Gone`] for a position that the log does not have, [`LookError::NotFound`] and
    /// [`RecoverError::NoBase`] where no snapshot leads to the moment, and what the log meets.
    pub fn fold(&self, until: Moment, seen: &mut dyn FnMut(Position)) -> Result<State, LookError> {
        let state = self.within(until)?;
        self.fold_on(state, until, seen)
    }

    /// As [`Source::fold`]; `seen` has every event that is folded, with the state before it, but none that a snapshot has.
    ///
    /// # Errors
    /// As [`Source::fold`].
    pub fn fold_seeing(&self, until: Moment, seen: &mut dyn FnMut(&State, &Event<'_>)) -> Result<State, LookError> {
        let state = self.within(until)?;
        self.go_on(state, until, seen, &mut |_| {})
    }

    /// The newest usable snapshot at or before a moment that the log has.
    fn within(&self, until: Moment) -> Result<State, LookError> {
        let span = self.reader.span();
        if let Moment::Position(at) = until {
            if at > span.next {
                return Err(LogError::Beyond { at, next: span.next }.into());
            }
            if at < span.first {
                return Err(LogError::Gone { at, first: span.first }.into());
            }
        }
        self.base(until)
    }

    /// Goes on folding from a state to a later moment.
    ///
    /// # Errors
    /// What the log meets.
    pub fn fold_on(&self, state: State, until: Moment, seen: &mut dyn FnMut(Position)) -> Result<State, LookError> {
        self.go_on(state, until, &mut |_, _| {}, seen)
    }

    fn go_on(
        &self,
        mut state: State,
        until: Moment,
        each: &mut dyn FnMut(&State, &Event<'_>),
        seen: &mut dyn FnMut(Position),
    ) -> Result<State, LookError> {
        let end = match until {
            Moment::Position(at) => at,
            Moment::Time(_) => self.reader.span().next,
        };
        let mut cursor = self.reader.cursor(state.position)?;
        while state.position < end {
            let Some(block) = cursor.next_block()? else { break };
            if !apply(&mut state, &block, until, each)? {
                break;
            }
            seen(state.position);
        }
        Ok(state)
    }

    /// The newest usable snapshot at or before a moment, or the empty state where the log is whole.
    fn base(&self, until: Moment) -> Result<State, LookError> {
        let first = self.reader.span().first;
        let all = self.snapshots.map_or_else(|| Ok(Vec::new()), SnapshotStore::list)?;
        let mut skipped = 0;
        for info in &all {
            if matches!(until, Moment::Position(at) if info.position > at) || info.position < first {
                continue;
            }
            match self.load(info) {
                Some((state, _)) if matches!(until, Moment::Time(at) if state.last_at > at) => {}
                Some((state, _)) => return Ok(state),
                None => skipped += 1,
            }
        }
        if first == Position(0) {
            return Ok(State::default());
        }
        let oldest = all.into_iter().map(|info| info.position).filter(|at| *at >= first).min();
        Err(match oldest {
            Some(oldest) if skipped == 0 => LookError::NotFound(format!(
                "no snapshot leads to {until}: retention has dropped the events before {first}, and the oldest snapshot is at position {oldest}"
            )),
            Some(_) | None => RecoverError::NoBase { first, skipped }.into(),
        })
    }

    /// A snapshot's state and where it was taken, if it is whole and the log goes on from it.
    pub fn load(&self, info: &SnapshotInfo) -> Option<(State, Head)> {
        let loaded = self.snapshots?.load(info).map_err(|error| error.to_string());
        let decoded = loaded.and_then(|snapshot| {
            let state = State::decode(&snapshot.body).map_err(|error| error.to_string())?;
            Ok((state, snapshot.head))
        });
        match decoded {
            Ok((state, head)) if state.position == head.next && self.follows(&head) => Some((state, head)),
            Ok(_) => {
                tracing::warn!(path = %info.path.display(), "a snapshot was skipped: it was not taken of this log");
                None
            }
            Err(error) => {
                tracing::warn!(path = %info.path.display(), error, "a snapshot was skipped");
                None
            }
        }
    }

    /// Whether the log goes on from where a snapshot was taken, or ends there with the block that it names.
    fn follows(&self, taken: &Head) -> bool {
        matches!(self.reader.hash_before(taken.next), Ok(Some(hash)) if hash == taken.hash)
    }
}

/// Folds the records of a block up to a moment; false when that lies in this block.
fn apply(state: &mut State, block: &Block, until: Moment, each: &mut dyn FnMut(&State, &Event<'_>)) -> Result<bool, LogError> {
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
        each(state, &record.envelope.event);
        state.apply(&record.envelope);
    }
    Ok(true)
}
