//! Hands recorded arrivals over when their time comes.

use std::time::{Duration, Instant};

use ergate::events::backtest::{Arrival, Arrivals, ArrivalsError};
use ergate::events::id::TypeId;
use ergate::events::task::PRIORITY_DEFAULT;
use ergate::events::time::Micros;
use ergate::{Extras, RequestBatch, Runtime, SubmitError};

use tokio::task::JoinSet;

use super::Payload;

/// Most requests that are handed over at once.
const BATCH_MAX: usize = 1_000;

/// The same arrivals, faster, and only those of the first so many seconds.
pub(super) fn sped_up(arrivals: &Arrivals, speed: f64, until: Option<Duration>) -> Result<Arrivals, ArrivalsError> {
    let faster = |span: Micros| Micros((span.0 as f64 / speed).round() as u64);
    let tasks = arrivals.tasks().iter().map(|task| Arrival { at: faster(task.at), service: faster(task.service), ..*task });
    let until = until.map_or(Micros(u64::MAX), Micros::from);
    Arrivals::new(arrivals.began(), tasks.take_while(|task| task.at <= until).collect())
}

/// Arrivals that are handed over one after the other.
pub(super) struct Feed<'a> {
    tasks: &'a [Arrival],
    task_type: TypeId,
    fed: usize,
    began: Instant,
    /// Batches that were handed over and may not be durable yet.
    submitting: JoinSet<Result<(), SubmitError>>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(tasks: &'a [Arrival], task_type: TypeId) -> Feed<'a> {
        Feed { tasks, task_type, fed: 0, began: Instant::now(), submitting: JoinSet::new() }
    }

    /// How many were handed over.
    pub(super) const fn fed(&self) -> usize {
        self.fed
    }

    /// Whether all were.
    pub(super) const fn is_over(&self) -> bool {
        self.fed == self.tasks.len()
    }

    /// How long it has gone on.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits for the next arrival and hands over all that have come by then. Nothing is lost, or handed over twice, when this is dropped on the way:
    /// what was handed over counts from that moment on, and nobody waits here until it is durable.
    pub(super) async fn next(&mut self, runtime: &Runtime) -> anyhow::Result<()> {
        let Some(next) = self.tasks.get(self.fed) else { return Ok(()) };
        tokio::time::sleep_until((self.began + next.at.to_std()).into()).await;
        let now = Micros::from(self.elapsed());
        let due = self.tasks[self.fed..].iter().take_while(|task| task.at <= now).take(BATCH_MAX).count().max(1);
        let mut requests = RequestBatch::new();
        for task in &self.tasks[self.fed..self.fed + due] {
            let extras = (task.priority != PRIORITY_DEFAULT)
                .then(|| Box::new(Extras { priority: Some(task.priority), ..Extras::default() }));
            requests.push_with(self.task_type, extras, |bytes| serde_json::to_writer(bytes, &Payload { us: task.service.0 }))?;
        }
        if let Err(error) = runtime.admit(&requests) {
            let SubmitError::Busy { retry_after, .. } = error else { return Err(error.into()) };
            tokio::time::sleep(retry_after.to_std()).await;
            return Ok(());
        }
        self.fed += due;
        let runtime = runtime.clone();
        self.submitting.spawn(async move { runtime.submit_batch(requests).await.map(drop) });
        Ok(())
    }

    /// Whether everything that was handed over so far was taken.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        while let Some(submitted) = self.submitting.try_join_next() {
            submitted??;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ergate::events::time::Timestamp;

    use super::*;

    #[test]
    fn a_trace_is_faster_and_ends_where_it_is_told_to() {
        let task = |at, service| Arrival::new(Micros::from_secs(at), Micros::from_secs(service));
        let all = Arrivals::new(Timestamp(0), vec![task(0, 60), task(60, 30), task(600, 6)]).unwrap();
        let fast = sped_up(&all, 60.0, Some(Duration::from_secs(5))).unwrap();
        let seconds: Vec<_> = fast.tasks().iter().map(|task| (task.at.0, task.service.0)).collect();
        assert_eq!(seconds, [(0, 1_000_000), (1_000_000, 500_000)]);
        assert_eq!(sped_up(&all, 0.5, None).unwrap().span(), Micros::from_secs(1_200));
    }
}
