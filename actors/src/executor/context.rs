//! What a running task function knows about its attempt and can say about it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use ergate_events::id::{AttemptId, Epoch, Fence, Ordinal, ShardId, TaskId};
use ergate_events::ran::{DEVICE_BYTES_MAX, Ran};
use ergate_events::task::{MESSAGE_BYTES_MAX, Outcome, TEXT_BYTES_MAX};
use ergate_events::time::{Micros, Timestamp};

use super::function::shorten;
use crate::clock::Clock;

/// How often the progress of an attempt is recorded at most: often enough to watch, and a small part of what a task writes.
const PROGRESS_EVERY: Micros = Micros::from_secs(1);

/// How far an attempt is, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How much is done, from 0 to 100; `None` where nobody can tell.
    pub percent: Option<u8>,
    /// What it is at, at most [`TEXT_BYTES_MAX`] bytes.
    pub stage: String,
    /// What a person may want to know, at most [`MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
}

impl Progress {
    /// Progress within its limits: a percentage over 100 is 100, texts that are too long are cut.
    pub fn new(percent: Option<u8>, stage: &str, message: &str) -> Progress {
        let (mut stage, mut message) = (stage.to_owned(), message.to_owned());
        shorten(&mut stage, TEXT_BYTES_MAX);
        shorten(&mut message, MESSAGE_BYTES_MAX);
        Progress { percent: percent.map(|percent| percent.min(100)), stage, message }
    }
}

/// The attempt that a task function runs for.
#[derive(Clone)]
pub struct Context {
    pub(crate) control: Arc<SlotControl>,
    pub(crate) generation: u64,
    pub(crate) shard: ShardId,
    pub(crate) task: Ordinal,
    pub(crate) number: u32,
    pub(crate) epoch: Epoch,
    pub(crate) deadline: Timestamp,
    pub(crate) checkpoint: Option<Arc<[u8]>>,
    pub(crate) trace_parent: Option<Arc<str>>,
}

impl Context {
    /// The attempt: which start of which task.
    pub fn attempt(&self) -> AttemptId {
        AttemptId { task: TaskId { shard: self.shard, ordinal: self.task }, number: self.number }
    }

    /// A token that grows with every attempt of the task: give it to whatever the function changes, and refuse lower ones there.
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, attempt: self.number }
    }

    /// When the attempt is ended by force.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// What the attempt before this one kept by [`Context::keep`].
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.checkpoint.as_deref()
    }

    /// The W3C trace context (`traceparent`) of whoever asked for the task.
    pub fn trace_parent(&self) -> Option<&str> {
        self.trace_parent.as_deref()
    }

    /// A sign of life, for task types with a heartbeat timeout.
    pub fn heartbeat(&self) {
        self.control.seen.store(self.control.clock.now().0, Ordering::Relaxed);
    }

    /// A sign of life with details that the next attempt will receive; only changed details are recorded.
    pub fn keep(&self, details: &[u8]) {
        self.heartbeat();
        let mut state = self.control.lock();
        if state.generation == self.generation {
            state.checkpoint = Some(details.to_vec());
            state.wake();
        }
    }

    /// A sign of life that says how far the attempt is; it is recorded, of several within a second the newest. See [`Progress`] for the limits.
    pub fn progress(&self, percent: Option<u8>, stage: &str, message: &str) {
        self.heartbeat();
        let progress = Progress::new(percent, stage, message);
        let mut state = self.control.lock();
        if state.generation == self.generation && state.progress.as_ref() != Some(&progress) {
            state.progress = Some(progress);
            // Whoever records it is woken once, however often it changes until then.
            if !std::mem::replace(&mut state.untold, true) {
                state.wake();
            }
        }
    }

    /// The newest progress that the attempt told.
    pub fn last_progress(&self) -> Option<Progress> {
        let state = self.control.lock();
        state.progress.clone().filter(|_| state.generation == self.generation)
    }

    /// Says on which device the attempt runs and what that takes, for the log; said again, the newer counts. It is recorded together with the
    /// attempt's outcome, right before it, and not at all when the attempt is ended by force.
    ///
    /// A device's name that is too long is cut. Nothing is recorded of a batch that never began (`batch_size` 0), and what is beyond another limit
    /// of [`Ran`] is left out with a warning.
    pub fn ran_on(&self, mut ran: Ran) {
        shorten(&mut ran.device, DEVICE_BYTES_MAX);
        let mut state = self.control.lock();
        if state.generation == self.generation {
            state.ran = Some(Box::new(ran)).filter(|ran| ran.batch_size > 0);
        }
    }

    /// Says that only part of the work could be done: a success is recorded as PARTIAL.
    pub fn set_partial(&self) {
        self.set_outcome(Outcome::Partial);
    }

    /// Says that there was nothing to do: a success is recorded as SKIPPED.
    pub fn set_skipped(&self) {
        self.set_outcome(Outcome::Skipped);
    }

    fn set_outcome(&self, outcome: Outcome) {
        let mut state = self.control.lock();
        if state.generation == self.generation {
            state.outcome = outcome;
        }
    }

    /// Whether somebody asked the attempt to stop.
    pub fn is_cancelled(&self) -> bool {
        let state = self.control.lock();
        state.cancelled || state.generation != self.generation
    }

    /// Waits until somebody asks the attempt to stop.
    pub async fn cancelled(&self) {
        poll_fn(|context| {
            let mut state = self.control.lock();
            if state.cancelled || state.generation != self.generation {
                return Poll::Ready(());
            }
            if !state.watchers.iter().any(|known| known.will_wake(context.waker())) {
                state.watchers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// What the executor and the function of one slot share; used again for the next attempt in the slot.
pub(crate) struct SlotControl {
    pub(crate) clock: Arc<dyn Clock>,
    /// Last sign of life, µs.
    pub(crate) seen: AtomicU64,
    /// Whether the slot is queued for polling.
    pub(crate) queued: AtomicBool,
    state: Mutex<SlotState>,
}

#[derive(Debug)]
pub(crate) struct SlotState {
    /// Grows with every attempt in the slot, so that a context that outlives its attempt is told apart.
    pub(crate) generation: u64,
    pub(crate) cancelled: bool,
    pub(crate) outcome: Outcome,
    pub(crate) checkpoint: Option<Vec<u8>>,
    pub(crate) progress: Option<Progress>,
    /// Whether that was not reported yet.
    pub(crate) untold: bool,
    /// Where it ran, for the end of the attempt.
    pub(crate) ran: Option<Box<Ran>>,
    /// When progress was reported last.
    pub(crate) told_at: Timestamp,
    /// Whoever waits to be cancelled: a function may have handed its context to several futures.
    watchers: Vec<Waker>,
    /// Wakes the executor for the slot.
    waker: Option<Waker>,
}

impl SlotState {
    /// What is to be reported of how far the attempt is: the newest, unless something was reported just now and this is not the last word.
    pub(crate) fn take_progress(&mut self, clock: &dyn Clock, is_last: bool) -> Option<Progress> {
        if !self.untold {
            return None;
        }
        let now = clock.now();
        if !is_last && now.since(self.told_at) < PROGRESS_EVERY {
            return None;
        }
        (self.untold, self.told_at) = (false, now);
        self.progress.clone()
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl SlotControl {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> SlotControl {
        let state = SlotState {
            generation: 0,
            cancelled: false,
            outcome: Outcome::Succeeded,
            checkpoint: None,
            progress: None,
            untold: false,
            ran: None,
            told_at: Timestamp(0),
            watchers: Vec::new(),
            waker: None,
        };
        SlotControl { clock, seen: AtomicU64::new(0), queued: AtomicBool::new(false), state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        self.lock().waker = Some(waker);
    }

    /// Begins a new attempt; returns its generation.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.generation += 1;
        state.cancelled = false;
        state.outcome = Outcome::Succeeded;
        state.checkpoint = None;
        (state.progress, state.untold, state.told_at) = (None, false, Timestamp(0));
        state.ran = None;
        state.watchers.clear();
        state.generation
    }

    /// Asks the attempt to stop.
    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        state.watchers.drain(..).for_each(Waker::wake);
    }

    /// Ends the attempt: contexts of it say "cancelled" from here on. Returns the outcome that a success has, and where the attempt ran.
    pub(crate) fn end(&self) -> (Outcome, Option<Box<Ran>>) {
        let mut state = self.lock();
        state.generation += 1;
        state.watchers.drain(..).for_each(Waker::wake);
        (state.outcome, state.ran.take())
    }
}
