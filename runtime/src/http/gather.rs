//! Single requests that come at one time travel together: one message to the shard, one place in its queue, one answer.
//!
//! Nobody waits for others to come. While as many batches as are useful are on their way, the next one fills; the first request after that sends
//! it off. So a lone request goes at once, and of many that wait each costs little.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use actix_web::rt;
use ergate_actors::submission::{Extras, RequestBatch, SubmitError};
use ergate_events::id::{TaskId, TypeId};
use tokio::sync::oneshot;

use crate::{Batch, Runtime};

/// Batches on their way at one time: one that is made durable, one that fills the next block.
const BATCHES_IN_FLIGHT: usize = 2;
/// Most requests in one batch.
const BATCH_REQUESTS: usize = 1_000;
/// Payload bytes after which a batch is full.
const BATCH_BYTES: usize = 4 << 20;

/// What became of one request.
pub(super) type Answer = Result<(TaskId, bool), SubmitError>;

/// The requests of one thread that wait to be sent off.
#[derive(Clone, Default)]
pub(super) struct Gather(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    batches: RefCell<Vec<Filling>>,
    in_flight: Cell<usize>,
}

#[derive(Default)]
struct Filling {
    requests: RequestBatch,
    replies: Vec<oneshot::Sender<Answer>>,
}

impl Gather {
    /// Submits a request and waits until the answer is durable: the task, and whether it was there before.
    pub(super) async fn submit(
        &self,
        runtime: &Runtime,
        task_type: TypeId,
        payload: &[u8],
        extras: Option<Box<Extras>>,
    ) -> Answer {
        if extras.as_ref().is_some_and(|extras| !extras.after.is_empty()) {
            return alone(runtime, task_type, payload, extras).await;
        }
        let (reply, answer) = oneshot::channel();
        self.add(task_type, payload, extras, reply);
        if self.0.in_flight.get() < BATCHES_IN_FLIGHT {
            self.0.in_flight.set(self.0.in_flight.get() + 1);
            rt::spawn(self.clone().send(runtime.clone()));
        }
        answer.await.unwrap_or_else(|_| {
            Err(SubmitError::Unknown { reason: "the service stopped before the answer was durable".to_owned() })
        })
    }

    fn add(&self, task_type: TypeId, payload: &[u8], extras: Option<Box<Extras>>, reply: oneshot::Sender<Answer>) {
        let mut batches = self.0.batches.borrow_mut();
        if batches.last().is_none_or(|last| last.requests.len() >= BATCH_REQUESTS || last.requests.bytes() >= BATCH_BYTES) {
            batches.push(Filling::default());
        }
        if let Some(last) = batches.last_mut() {
            last.requests.push(task_type, payload, extras);
            last.replies.push(reply);
        }
    }

    /// Sends off what waits, until nothing does. It runs behind the requests that are being read now, so those travel along.
    async fn send(self, runtime: Runtime) {
        let _running = Running(&self.0.in_flight);
        tokio::task::yield_now().await;
        loop {
            let next = {
                let mut batches = self.0.batches.borrow_mut();
                if batches.is_empty() { None } else { Some(batches.remove(0)) }
            };
            let Some(Filling { requests, replies }) = next else { return };
            answer(runtime.try_submit_batch(requests).await, replies);
        }
    }
}

/// Submits a request that names others by itself: it may have to be asked twice, and nobody else should wait for that.
async fn alone(runtime: &Runtime, task_type: TypeId, payload: &[u8], extras: Option<Box<Extras>>) -> Answer {
    let mut requests = RequestBatch::with_capacity(1, payload.len());
    requests.push(task_type, payload, extras);
    let unanswered = || SubmitError::Unknown { reason: "the request has no answer".to_owned() };
    runtime.try_submit_batch(requests).await?.answer.iter().next().unwrap_or_else(|| Err(unanswered()))
}

/// Counts a sender until it ends, however it does.
struct Running<'a>(&'a Cell<usize>);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn answer(outcome: Result<Batch, SubmitError>, replies: Vec<oneshot::Sender<Answer>>) {
    match outcome {
        // Whoever went away in the meantime wants no answer.
        Ok(batch) => replies.into_iter().zip(batch.answer.iter()).for_each(|(reply, answer)| drop(reply.send(answer))),
        Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
    }
}
