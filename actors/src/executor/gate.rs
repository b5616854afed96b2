//! So many attempts at one time; the others wait in their slots.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::context::Context;
use super::function::TaskError;

/// How often an attempt that waits says that it lives: well below any heartbeat timeout that makes sense.
const BEAT_EVERY: Duration = Duration::from_millis(200);

/// Waits until the attempt may go on, with heartbeats.
///
/// # Errors
/// When somebody asks it to stop before.
pub(super) async fn enter(gate: &Arc<Semaphore>, context: &Context) -> Result<OwnedSemaphorePermit, TaskError> {
    if let Ok(permit) = Arc::clone(gate).try_acquire_owned() {
        return Ok(permit);
    }
    let mut waiting = std::pin::pin!(Arc::clone(gate).acquire_owned());
    loop {
        tokio::select! {
            permit = &mut waiting => return permit.map_err(|_| TaskError::new("aborted", "the executor was closed before the work began")),
            () = context.cancelled() => return Err(cancelled("before the work began")),
            () = tokio::time::sleep(BEAT_EVERY) => context.heartbeat(),
        }
    }
}

/// The failure of an attempt that was asked to stop and did.
pub(super) fn cancelled(when: &str) -> TaskError {
    TaskError::new("cancelled", format!("the attempt was asked to stop {when}"))
}
