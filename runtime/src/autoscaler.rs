//! Starts the autoscaler of a runtime, and starts it again whenever it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Arbiter;
use ergate_actors::autoscaler::Autoscaler;

use crate::wiring::Parts;

/// How long an autoscaler that failed waits before it looks again.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// Starts the autoscaler on a thread of its own: it reads what was counted, which nobody else should wait for.
pub(crate) fn start(parts: &Parts) {
    let autoscaler = Autoscaler {
        writer: parts.writer.clone(),
        clock: Arc::clone(&parts.clock),
        tail: parts.tail.clone(),
        tally: Arc::clone(&parts.tally),
    };
    let (arbiter, restarts) = (Arbiter::new(), Arc::clone(&parts.restarts));
    arbiter.spawn(async move {
        while let Err(error) = actix::spawn(autoscaler.clone().run()).await {
            tracing::error!(%error, "the autoscaler failed and starts again");
            restarts.autoscalers.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RESTART_AFTER).await;
        }
        Arbiter::current().stop();
    });
}
