//! Starts the autoscaler of a runtime, and starts it again whenever it fails.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Arbiter;
use ergate_actors::autoscaler::Autoscaler;
use ergate_actors::autoscaler::sight::{OneLog, Sight};
use ergate_actors::workers::Hub;
use tokio::sync::watch;

use crate::wiring::Parts;

/// How long an autoscaler that failed waits before it looks again.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// Starts the autoscaler of the one log of this process.
pub(crate) fn start(parts: &Parts, workers: &Arc<Hub>) {
    // Everything that it sees is in this log, whose tail moves with it.
    let (_, moved) = watch::channel(());
    start_with(parts, Arc::new(OneLog(Arc::clone(&parts.tally))), moved, workers);
}

/// Starts the autoscaler on a thread of its own: it reads what was counted, which nobody else should wait for. It looks when `moved` does, and ends
/// with the log that it proposes to.
pub(crate) fn start_with(parts: &Parts, sight: Arc<dyn Sight>, moved: watch::Receiver<()>, workers: &Arc<Hub>) {
    let (writer, clock, tail) = (parts.writer.clone(), Arc::clone(&parts.clock), parts.tail.clone());
    let workers = Arc::clone(workers);
    let autoscaler = Autoscaler { writer, clock, tail, moved, sight, workers };
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
