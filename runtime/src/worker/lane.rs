//! One call at a time on one connection, with growing waits after those that failed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::line::{Answer, Call, Line, LineError, Road};

/// Wait after the first call that failed; each further one doubles it.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait, whatever the engine asks for.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// How a call ended.
pub(super) type Called = Result<Answer, LineError>;
type Calling = Pin<Box<dyn Future<Output = (Line, Called)>>>;

/// A connection and the call that is on it.
pub(super) struct Lane {
    road: Arc<Road>,
    line: Option<Line>,
    calling: Option<Calling>,
    /// When that was begun.
    begun: Instant,
    /// How many calls failed since the last that did not.
    failures: u32,
    not_before: Option<Instant>,
}

impl Lane {
    pub(super) fn new(road: &Arc<Road>) -> Lane {
        let line = Some(Line::new(Arc::clone(road)));
        Lane { road: Arc::clone(road), line, calling: None, begun: Instant::now(), failures: 0, not_before: None }
    }

    /// Whether a call is on its way.
    pub(super) const fn is_calling(&self) -> bool {
        self.calling.is_some()
    }

    /// Whether a call may begin now.
    pub(super) fn is_free(&self) -> bool {
        self.calling.is_none() && self.not_before.is_none_or(|at| at <= Instant::now())
    }

    /// When a call may begin that waits for its turn.
    pub(super) fn free_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.calling.is_none())
    }

    /// How many calls failed since the last that did not.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// When the last call was begun.
    pub(super) const fn begun(&self) -> Instant {
        self.begun
    }

    /// Begins a call.
    pub(super) fn begin(&mut self, call: Call) {
        let mut line = self.line.take().unwrap_or_else(|| Line::new(Arc::clone(&self.road)));
        (self.begun, self.not_before) = (Instant::now(), None);
        self.calling = Some(Box::pin(async move {
            let answer = line.call(&call).await;
            (line, answer)
        }));
    }

    /// Gives the call up, and its connection.
    pub(super) fn give_up(&mut self) {
        self.calling = None;
    }

    /// The end of the call, once it has come.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Called> {
        let Some(calling) = &mut self.calling else { return Poll::Pending };
        let Poll::Ready((line, answer)) = calling.as_mut().poll(context) else { return Poll::Pending };
        (self.line, self.calling) = (Some(line), None);
        Poll::Ready(answer)
    }

    /// The last call did what it should.
    pub(super) const fn went_well(&mut self) {
        (self.failures, self.not_before) = (0, None);
    }

    /// Lets no call begin before this.
    pub(super) fn hold_until(&mut self, at: Instant) {
        self.not_before = self.not_before.max(Some(at));
    }

    /// The last call has to be repeated, after a wait that grows each time and is as long as the engine asks for, but no longer than `most`.
    pub(super) fn went_wrong(&mut self, asked: Option<Duration>, most: Duration) {
        self.not_before = Some(Instant::now() + pause(self.failures, asked).min(most));
        self.failures += 1;
    }
}

fn pause(failures: u32, asked: Option<Duration>) -> Duration {
    (WAIT_MIN * 2_u32.saturating_pow(failures.min(16))).max(asked.unwrap_or_default()).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_bounded() {
        assert_eq!((pause(0, None), pause(2, None)), (WAIT_MIN, WAIT_MIN * 4));
        assert_eq!(pause(0, Some(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!((pause(99, None), pause(0, Some(Duration::MAX))), (WAIT_MAX, WAIT_MAX));
    }
}
