//! The projector's side of observers: finds out what events mean for them, and hands it over without waiting.

use std::sync::{Arc, Mutex};

use ergate_events::event::Envelope;
use ergate_events::id::{ShardId, TaskId};
use ergate_events::state::State;
use ergate_events::view::Observed;
use ergate_events::view::observed::Notice;

use super::{ObservedAttempt, Observer};

/// What the projectors of a shard share: one that starts again goes on with it, so that nothing is told twice.
pub type SharedWatch = Arc<Mutex<Watch>>;

/// Watches one shard for all observers.
pub struct Watch {
    shard: ShardId,
    view: Observed,
    observers: Arc<[Observer]>,
}

impl Watch {
    /// Watches a shard from this state on; `None` where nobody observes anything.
    pub fn start(shard: ShardId, state: &State, observers: &Arc<[Observer]>) -> Option<SharedWatch> {
        let names: Arc<[String]> = observers.iter().map(|observer| observer.task_type().to_string()).collect();
        let watch = || Watch { shard, view: Observed::of(state, names), observers: Arc::clone(observers) };
        (!observers.is_empty()).then(|| Arc::new(Mutex::new(watch())))
    }

    /// Tells what a durable event means.
    pub fn apply(&mut self, envelope: &Envelope<'_>) {
        let (shard, observers) = (self.shard, &self.observers);
        self.view.apply(envelope, &mut |notice| offer(shard, observers, notice));
    }

    /// Tells what was kept for the rest of its block.
    pub fn end_block(&mut self) {
        let (shard, observers) = (self.shard, &self.observers);
        self.view.end_block(&mut |notice| offer(shard, observers, notice));
    }
}

fn offer(shard: ShardId, observers: &[Observer], notice: Notice) {
    let Notice { observed, task: ordinal, attempt, at, position, what } = notice;
    let Some(observer) = observers.get(observed) else { return };
    let (task, task_type) = (TaskId { shard, ordinal }, Arc::clone(observer.task_type()));
    observer.offer(ObservedAttempt { task, attempt, task_type, at, position }, what);
}
