//! What a worker is to be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ergate_actors::executor::function::TaskFunction;
use ergate_events::worker::WorkerId;
use tokio::sync::watch;

use super::pace::Concurrency;

/// Called once when the engine knows the worker.
pub(super) type Ready = Box<dyn FnOnce() + Send>;

/// What a worker is to be.
pub(super) struct Plan {
    pub(super) id: WorkerId,
    pub(super) pool: String,
    pub(super) slots: u32,
    pub(super) concurrency: Concurrency,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) lease: Duration,
    /// How long attempts may go on after somebody asked for an end.
    pub(super) drain: Duration,
    /// What it can run, by the names of task types.
    pub(super) tasks: BTreeMap<String, Arc<dyn TaskFunction>>,
    pub(super) ready: Option<Ready>,
    /// How many attempts it may have at this moment, where that is less than it has slots.
    pub(super) room: Option<watch::Receiver<u32>>,
}

impl Plan {
    /// The names of what it can run, in their order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }

    /// How long it is silent at most while it has work.
    pub(super) fn sign_every(&self) -> Duration {
        self.lease / 3
    }
}
