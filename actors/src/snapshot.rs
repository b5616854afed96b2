//! When snapshots are taken: one at a time, from a copy of the accepted state that costs the shard next to nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ergate_events::id::Position;
use ergate_events::log::Head;
use ergate_events::state::State;

/// Fewer events than this are folded sooner than a snapshot is read.
const EVENTS_MIN: u64 = 1_000;

/// When snapshots are taken, and what takes them.
pub struct SnapshotRule {
    /// A snapshot is due after so many events.
    pub every_events: u64,
    /// And after so much time, if a few events came since the last one.
    pub every: Option<Duration>,
    /// When the last one was taken.
    pub last_taken: Instant,
    /// Gets a copy of the state and the head it was made at; it drops the copy where it has written it, not here.
    pub take: Box<dyn FnMut(StateCopy, Head) + Send>,
    /// Where the last one was taken.
    pub last: Position,
    /// Whether there is a copy that is to be written or is being written.
    pub busy: Arc<AtomicBool>,
}

/// A copy of the accepted state on its way to a snapshot; as long as it lives, no other is made.
pub struct StateCopy {
    // Dropped in this order: only when the memory is given back, the next copy may be made.
    state: Box<State>,
    _busy: Busy,
}

struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl SnapshotRule {
    /// A copy of this state if a snapshot is due and none is being taken.
    pub(crate) fn copy(&mut self, state: &State) -> Option<StateCopy> {
        let since = state.position.0.saturating_sub(self.last.0);
        let is_time = since >= EVENTS_MIN && self.every.is_some_and(|every| self.last_taken.elapsed() >= every);
        if (since < self.every_events && !is_time) || self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        (self.last, self.last_taken) = (state.position, Instant::now());
        Some(StateCopy { state: Box::new(state.clone()), _busy: Busy(Arc::clone(&self.busy)) })
    }

    /// Gives up a copy that cannot be used; the next block tries again.
    pub(crate) fn give_up(&mut self, copy: StateCopy) {
        self.last = Position(copy.state.position.0.saturating_sub(self.every_events));
        copy.drop_elsewhere();
    }
}

impl StateCopy {
    /// The state.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Drops it on a thread of its own: what the shard has changed since is the copy's alone, and giving back a million tasks takes long.
    pub(crate) fn drop_elsewhere(self) {
        let thread = std::thread::Builder::new().name("ergate-drop".to_owned());
        if let Err(error) = thread.spawn(move || drop(self)) {
            tracing::warn!(%error, "no thread gives back the memory of a copy of the state; the shard pauses for it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(every_events: u64) -> SnapshotRule {
        let (every, last_taken) = (None, Instant::now());
        SnapshotRule { every_events, every, last_taken, take: Box::new(|_, _| ()), last: Position(0), busy: Arc::default() }
    }

    fn at(position: u64) -> State {
        let mut state = State::default();
        state.position = Position(position);
        state
    }

    /// Every block made a copy of its own, which was thrown away again on the shard's thread because the snapshot before was not written yet.
    #[test]
    fn no_copy_is_made_while_another_lives_and_the_next_block_gets_one() {
        let mut rule = rule(100);
        assert!(rule.copy(&at(99)).is_none(), "none is due");
        let first = rule.copy(&at(100)).expect("one is due");
        assert!(rule.copy(&at(250)).is_none(), "the first is not written yet");
        drop(first);
        let second = rule.copy(&at(251)).expect("one is overdue");
        assert_eq!((second.state().position, rule.last), (Position(251), Position(251)));
    }

    #[test]
    fn after_a_copy_that_was_given_up_the_next_block_tries_again() {
        let mut rule = rule(100);
        let copy = rule.copy(&at(100)).expect("one is due");
        rule.give_up(copy);
        let started = std::time::Instant::now();
        while rule.busy.load(Ordering::Acquire) {
            assert!(started.elapsed().as_secs() < 10, "the copy is dropped");
            std::thread::yield_now();
        }
        assert!(rule.copy(&at(101)).is_some());
    }

    #[test]
    fn a_log_without_snapshots_is_never_copied() {
        assert!(rule(u64::MAX).copy(&at(u64::MAX - 1)).is_none());
    }
}
