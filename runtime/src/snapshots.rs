//! Writes snapshots beside the running shard, and gives up what they make unnecessary.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use actix::Addr;
use ergate_actors::clock::Clock;
use ergate_actors::log_writer::{LogWriter, Retain};
use ergate_actors::snapshot::{SnapshotRule, StateCopy};
use ergate_events::id::Position;
use ergate_events::log::snapshot::SnapshotStore;
use ergate_events::log::{Head, LogError, LogReader};
use ergate_events::state::State;
use ergate_events::time::Micros;

use crate::builder::Retention;

/// Snapshots kept: the newest, and one before it in case the newest is damaged.
const SNAPSHOTS_KEPT: usize = 2;

/// Takes snapshots.
pub(crate) struct Snapshots {
    store: Option<SnapshotStore>,
    reader: Arc<dyn LogReader>,
    retention: Retention,
    clock: Arc<dyn Clock>,
    retain: Arc<OnceLock<Addr<LogWriter>>>,
    /// Whether one is being taken.
    busy: Arc<AtomicBool>,
    /// Gets every snapshot too.
    also: Option<Also>,
}

/// Keeps snapshots elsewhere as well.
pub(crate) type Also = Arc<dyn Fn(&State, &Head) -> Result<(), LogError> + Send + Sync>;

impl Snapshots {
    pub(crate) fn new(
        store: Option<SnapshotStore>,
        reader: Arc<dyn LogReader>,
        retention: Retention,
        clock: Arc<dyn Clock>,
        also: Option<Also>,
    ) -> Snapshots {
        Snapshots { store, reader, retention, clock, retain: Arc::default(), busy: Arc::default(), also }
    }

    /// Where the log writer is put once it exists; it is told what to give up.
    pub(crate) fn retain_slot(&self) -> Arc<OnceLock<Addr<LogWriter>>> {
        Arc::clone(&self.retain)
    }

    /// Whether a snapshot is being taken now.
    pub(crate) fn busy(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.busy)
    }

    /// What the log writer follows: every so many events it makes a copy, which goes to a thread that writes it and drops it.
    pub(crate) fn into_rule(self, every_events: u64, every: Option<Duration>, last: Position) -> SnapshotRule {
        let this = Arc::new(self);
        // Without a place to write to, none is ever due.
        let every_events = if this.store.is_some() { every_events } else { u64::MAX };
        let busy = this.busy();
        let take = Box::new(move |copy: StateCopy, head: Head| {
            let this = Arc::clone(&this);
            let spawned = std::thread::Builder::new().name("ergate-snapshot".to_owned()).spawn(move || {
                if let Err(error) = this.take(copy.state(), &head) {
                    tracing::warn!(%error, "a snapshot was not taken; the log goes on without it");
                }
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "a snapshot was not taken; the log goes on without it");
            }
        });
        let every = every.filter(|_| every_events < u64::MAX);
        SnapshotRule { every_events, every, last_taken: Instant::now(), take, last, busy }
    }

    fn take(&self, state: &State, head: &Head) -> Result<(), LogError> {
        let Some(store) = &self.store else { return Ok(()) };
        store.save(head, &mut |out| state.encode(out))?;
        store.prune(SNAPSHOTS_KEPT, head.next)?;
        if let Some(also) = &self.also {
            also(state, head)?;
        }
        self.give_up(store)
    }

    /// Gives up events that are past retention and before the oldest snapshot that is kept.
    fn give_up(&self, store: &SnapshotStore) -> Result<(), LogError> {
        let Retention { keep_for, keep_events } = self.retention;
        if keep_for.is_none() && keep_events.is_none() {
            return Ok(());
        }
        let Some(oldest) = store.list()?.iter().map(|snapshot| snapshot.position).min() else { return Ok(()) };
        let next = self.reader.span().next;
        let by_count = keep_events.map_or(next, |events| Position(next.0.saturating_sub(events)));
        let by_age = match keep_for {
            Some(age) => {
                self.reader.seek_time(ergate_events::time::Timestamp(self.clock.now().0.saturating_sub(Micros::from(age).0)))?
            }
            None => next,
        };
        if let Some(writer) = self.retain.get() {
            // A full mailbox only puts it off to the next snapshot.
            let _ = writer.try_send(Retain(oldest.min(by_count).min(by_age)));
        }
        Ok(())
    }
}
