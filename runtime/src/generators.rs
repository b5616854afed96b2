//! Starts the generators of a shard that only this process has, on a thread of their own.

use std::sync::Arc;

use actix::{Actor, Arbiter};
use ergate_actors::generate::{Desk, Generator, LocalFuture};
use ergate_actors::submission::{BatchAnswer, RequestBatch, SubmitError};
use ergate_events::id::ShardId;
use ergate_events::log::index::TaskIndex;
use ergate_events::state::State;
use ergate_events::time::Timestamp;

use crate::builder::Builder;
use crate::wiring::Parts;

/// A shard as its generators need it.
struct ShardDesk {
    parts: Parts,
    tasks_live_max: usize,
}

/// Starts them; they end with the system, or when their hosts are stopped.
pub(crate) fn start(builder: &Builder, parts: &Parts) {
    if builder.plugins.generators().is_empty() {
        return;
    }
    let desk = Arc::new(ShardDesk { parts: parts.clone(), tasks_live_max: builder.tasks_live_max });
    let arbiter = Arbiter::new().handle();
    for host in builder.plugins.generators() {
        let (host, desk) = (host.clone(), Arc::clone(&desk));
        Generator::start_in_arbiter(&arbiter, move |_| Generator::new(host, desk));
    }
}

impl ShardDesk {
    async fn durable_state(&self) -> Result<Box<State>, String> {
        let state = self.parts.state().await.map_err(|error| error.to_string())?;
        match self.parts.durable_at(state.position).await {
            Ok(true) => Ok(state),
            Ok(false) => Err(self.parts.failure().unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn record(&self, requests: RequestBatch) -> Result<BatchAnswer, SubmitError> {
        self.parts.admit(requests.len(), self.tasks_live_max)?;
        Ok(self.parts.submit(requests, None).await?.answer)
    }
}

impl Desk for ShardDesk {
    fn shard(&self) -> ShardId {
        self.parts.shard
    }

    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    fn index(&self) -> Arc<TaskIndex> {
        Arc::clone(&self.parts.index)
    }

    fn look(&self) -> LocalFuture<'_, Result<Box<State>, String>> {
        Box::pin(self.durable_state())
    }

    fn submit(&self, requests: RequestBatch) -> LocalFuture<'_, Result<BatchAnswer, SubmitError>> {
        Box::pin(self.record(requests))
    }
}
