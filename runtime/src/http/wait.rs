//! Waiting for the end of a task, for a while.

use std::time::Duration;

use ergate_actors::submission::TaskEnd;
use ergate_events::id::TaskId;

use super::problem::Problem;
use super::service::Service;

/// Waits for the end of a task that is known to be live, for at most so long, or until the service stops; `None` when it has not ended by then.
pub(super) async fn end_within(service: &Service, task: TaskId, wait: Duration) -> Result<Option<TaskEnd>, Problem> {
    if wait.is_zero() {
        return Ok(None);
    }
    tokio::select! {
        end = service.runtime.wait(task) => Ok(Some(end?)),
        () = tokio::time::sleep(wait) => Ok(None),
        () = service.stopped() => Ok(None),
    }
}
