//! Runs committed attempts of one replica on a thread of its own and reports their outcomes in batches.
//!
//! An attempt is polled where it arrives; one that is not ready then waits in its slot until it is woken. Slots, wakers and the boxes of
//! futures are made once and used again, so an attempt costs no allocation here.

#[cfg(any(feature = "http", feature = "process"))]
mod bytes;
pub mod context;
pub mod factory;
pub mod function;
#[cfg(any(feature = "http", feature = "process"))]
mod gate;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "process")]
pub mod process;
#[cfg(any(feature = "http", feature = "process"))]
pub mod word;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Wake, Waker};

use actix::{Actor, AsyncContext, Handler, Message, StreamHandler};
use ergate_events::id::{Epoch, Ordinal, ReplicaId, ShardId, TypeId};
use ergate_events::ran::Ran;
use ergate_events::task::{CHECKPOINT_BYTES_MAX, Outcome};
use ergate_events::time::{Micros, Timestamp};
use tokio::sync::mpsc;

use self::context::{Context, SlotControl};
use self::function::{Runner, TaskError, TaskFunction, panicked};
use crate::clock::Clock;
use crate::effects::{Attempts, Origin, Whole};
use crate::report::{Item, OwnedFailure, Report};

/// How often attempts with a heartbeat timeout are looked at.
const BEAT_EVERY: std::time::Duration = std::time::Duration::from_millis(50);
/// Messages that may wait for an executor beyond one for each slot: control messages.
const CONTROL_MAX: usize = 1_024;

/// The functions of a process, by the index that [`ExecutorParts::functions`] gives them.
pub type Functions = Arc<[Arc<dyn TaskFunction>]>;

/// What an executor is made of.
pub struct ExecutorParts {
    /// The shard whose tasks it runs.
    pub shard: ShardId,
    /// Whose slots it serves.
    pub replica: ReplicaId,
    /// How many.
    pub slots: u32,
    /// The opening of the log in which it was started.
    pub epoch: Epoch,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// What it can run.
    pub functions: Functions,
    /// Which function serves a definition; `None` where this process has none.
    pub types: Vec<Option<usize>>,
    /// Where its reports go.
    pub reports: mpsc::Sender<Report>,
    /// Whether it tells signs of life of attempts with a heartbeat timeout, for somebody else to measure; else it tells of those that are missing.
    pub tells_signs: bool,
}

/// Runs the attempts of one replica.
pub struct Executor {
    parts: ExecutorParts,
    runners: Vec<Box<dyn Runner>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    woken: Arc<Woken>,
    report: Report,
    /// Whether a report waits for room in its lane.
    waiting: bool,
    beating: bool,
    draining: bool,
}

struct Slot {
    control: Arc<SlotControl>,
    waker: Waker,
    running: Option<Running>,
    /// What the function says in the log of the process is said of this attempt.
    span: tracing::Span,
}

#[derive(Clone, Copy)]
struct Running {
    task: Ordinal,
    attempt: u32,
    runner: usize,
    heartbeat: Option<Micros>,
    /// When a sign of life was told last, and the sign that it told.
    told: (Timestamp, Timestamp),
    /// It no longer counts: only its slot is reported when it ends.
    aborted: bool,
}

/// Slots that were woken and wait to be polled.
#[derive(Default)]
struct Woken {
    queue: Mutex<(Vec<usize>, Option<Waker>)>,
}

impl Woken {
    fn push(&self, slot: usize) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.0.push(slot);
        if let Some(waker) = queue.1.take() {
            waker.wake();
        }
    }
}

struct SlotWaker {
    slot: usize,
    control: Arc<SlotControl>,
    woken: Arc<Woken>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.control.queued.swap(true, Ordering::AcqRel) {
            self.woken.push(self.slot);
        }
    }
}

/// Says how an attempt ended to whoever follows its span.
fn say_end(span: &tracing::Span, recorded: Outcome, error: Option<&TaskError>, aborted: bool) {
    if span.is_disabled() {
        return;
    }
    if let Some(error) = error {
        span.record("error", error.text());
    }
    let outcome = if error.is_some() { Outcome::Failed } else { recorded };
    span.record("outcome", if aborted { "ABORTED" } else { outcome.name() });
}

/// What the log of the process says of an attempt while its function runs; nothing unless somebody wants to know (level `info`), and costs
/// nothing then.
fn span(own: &Context) -> tracing::Span {
    let id = || own.attempt();
    // The second of four parts of a trace context names the trace.
    let trace = || own.trace_parent().and_then(|context| context.split('-').nth(1));
    let empty = tracing::field::Empty;
    // The last two the span that asked, and whether it is recorded.
    let parent = || own.trace_parent().and_then(|context| context.splitn(3, '-').nth(2));
    tracing::info_span!(
        "attempt",
        task = %id().task,
        attempt = own.number,
        trace = trace(),
        parent = parent(),
        outcome = empty,
        error = empty,
    )
}

/// The woken slots as a stream of batches.
struct WokenStream(Arc<Woken>);

impl futures_core::Stream for WokenStream {
    type Item = Vec<usize>;

    fn poll_next(self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Option<Vec<usize>>> {
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.0.is_empty() {
            queue.1 = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(std::mem::take(&mut queue.0)))
    }
}

impl Executor {
    /// An executor with all slots free.
    pub fn new(parts: ExecutorParts) -> Executor {
        let runners = parts.functions.iter().map(|function| function.runner()).collect();
        let slots = parts.slots as usize;
        Executor {
            parts,
            runners,
            slots: Vec::new(),
            free: (0..slots).rev().collect(),
            woken: Arc::default(),
            report: Report::default(),
            waiting: false,
            beating: false,
            draining: false,
        }
    }

    fn begin(&mut self, whole: Whole<'_>, context: &mut actix::Context<Self>) {
        let Whole { attempt, payload, checkpoint, trace_parent } = whole;
        let Some(index) = self.free.pop() else {
            // The dispatcher counts the same slots; more attempts than slots would be its error and must not be lost.
            self.fail(attempt.task, attempt.number, TaskError::new("no_slot", "the replica had no free slot"));
            return;
        };
        self.make_slots(index);
        let Some(runner) = self.runner_of(attempt.task_type) else {
            self.free.push(index);
            self.fail(
                attempt.task,
                attempt.number,
                TaskError::new("no_function", format!("this process registered no function for {}", attempt.task_type)),
            );
            return;
        };
        let (shard, epoch) = (self.parts.shard, self.parts.epoch);
        let origin = attempt.origin.as_deref().copied().unwrap_or(Origin { shard, task: attempt.task, epoch });
        let slot = &mut self.slots[index];
        let own = Context {
            generation: slot.control.begin(),
            control: Arc::clone(&slot.control),
            shard: origin.shard,
            task: origin.task,
            number: attempt.number,
            epoch: origin.epoch,
            deadline: attempt.deadline,
            checkpoint: checkpoint.map(Arc::from),
            trace_parent: trace_parent.map(Arc::from),
        };
        slot.span = span(&own);
        let (task, attempt, heartbeat) = (attempt.task, attempt.number, attempt.heartbeat);
        let begun_at = heartbeat.map_or(Timestamp(0), |_| self.parts.clock.now());
        slot.running = Some(Running { task, attempt, runner, heartbeat, told: (begun_at, begun_at), aborted: false });
        if heartbeat.is_some() {
            slot.control.seen.store(begun_at.0, Ordering::Relaxed);
            self.beat_later(context);
        }
        let (span, runner) = (&self.slots[index].span, &mut self.runners[runner]);
        let begun = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| runner.begin(index, own, payload))));
        match begun {
            Ok(Ok(())) => self.poll(index),
            Ok(Err(error)) => self.finish(index, Err(error)),
            Err(panic) => self.finish(index, Err(panicked(panic.as_ref()))),
        }
    }

    fn make_slots(&mut self, index: usize) {
        while self.slots.len() <= index {
            let control = Arc::new(SlotControl::new(Arc::clone(&self.parts.clock)));
            let slot = self.slots.len();
            let waker = Waker::from(Arc::new(SlotWaker { slot, control: Arc::clone(&control), woken: Arc::clone(&self.woken) }));
            control.set_waker(waker.clone());
            self.slots.push(Slot { control, waker, running: None, span: tracing::Span::none() });
        }
    }

    fn runner_of(&self, task_type: TypeId) -> Option<usize> {
        self.parts.types.get(usize::from(task_type.0)).copied().flatten()
    }

    fn poll(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let Some(running) = slot.running else { return };
        let waker = slot.waker.clone();
        let mut context = std::task::Context::from_waker(&waker);
        let start = self.report.bytes.len();
        let runner = &mut self.runners[running.runner];
        let bytes = &mut self.report.bytes;
        let polled = slot.span.in_scope(|| catch_unwind(AssertUnwindSafe(|| runner.poll(index, &mut context, bytes))));
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(outcome)) => self.finish(index, outcome.map(|()| start)),
            Err(panic) => {
                self.report.bytes.truncate(start);
                let error = panicked(panic.as_ref());
                // Dropping what panicked may panic again; its place is then never used again, which costs memory and nothing else.
                let _ = catch_unwind(AssertUnwindSafe(|| self.runners[running.runner].abort(index)));
                self.finish(index, Err(error));
            }
        }
    }

    /// Frees a slot and reports how its attempt ended; a result lies in the report's buffer from `Ok(start)` on.
    fn finish(&mut self, index: usize, outcome: Result<usize, TaskError>) {
        // A success has no next attempt to hand a checkpoint to, and its result is what lies at the end of the report's buffer.
        if outcome.is_err() {
            self.take_told(index, true);
        }
        let slot = &mut self.slots[index];
        let Some(Running { task, attempt, aborted, .. }) = slot.running.take() else { return };
        let span = std::mem::replace(&mut slot.span, tracing::Span::none());
        let (recorded, ran) = slot.control.end();
        say_end(&span, recorded, outcome.as_ref().err(), aborted);
        self.free.push(index);
        if let Some(ran) = ran.filter(|_| !aborted) {
            self.report_ran(task, attempt, ran);
        }
        match outcome {
            _ if aborted => {
                if let Ok(start) = outcome {
                    self.report.bytes.truncate(start);
                }
                self.report.items.push(Item::Released { task, attempt, replica: self.parts.replica });
            }
            Ok(start) => {
                let result = start..self.report.bytes.len();
                let size = result.len();
                if size > ergate_events::task::PAYLOAD_BYTES_MAX {
                    self.report.bytes.truncate(start);
                    let message = format!(
                        "the result has {size} bytes, over the limit of {}; store it elsewhere and return where",
                        ergate_events::task::PAYLOAD_BYTES_MAX
                    );
                    self.fail(task, attempt, TaskError::permanent("result_too_large", message));
                } else {
                    self.report.items.push(Item::Succeeded { task, attempt, outcome: recorded, result });
                }
            }
            Err(error) => self.fail(task, attempt, error),
        }
    }

    fn fail(&mut self, task: Ordinal, attempt: u32, error: TaskError) {
        let failure: Box<OwnedFailure> = Box::new(error.into_failure());
        self.report.items.push(Item::Failed { task, attempt, failure });
    }

    /// Reports what the attempt in a slot told since the last look: its checkpoint, and how far it is, where that was not reported for a while or
    /// is the last word. Says whether there is something to report later.
    fn take_told(&mut self, index: usize, is_last: bool) -> bool {
        let slot = &self.slots[index];
        let Some(Running { task, attempt, aborted: false, .. }) = slot.running else { return false };
        let mut state = slot.control.lock();
        let (details, progress) = (state.checkpoint.take(), state.take_progress(&*self.parts.clock, is_last));
        let is_later = state.untold;
        drop(state);
        if let Some(details) = details {
            self.report_checkpoint(task, attempt, &details);
        }
        self.report.items.extend(progress.map(|progress| Item::Progress { task, attempt, progress: Box::new(progress) }));
        is_later
    }

    /// Reports where an attempt ran, right before its outcome.
    fn report_ran(&mut self, task: Ordinal, attempt: u32, ran: Box<Ran>) {
        match ran.fault() {
            None => self.report.items.push(Item::Ran { task, attempt, ran }),
            Some((what, rule)) => tracing::warn!(task = task.0, what, rule, "where an attempt ran was not recorded"),
        }
    }

    fn report_checkpoint(&mut self, task: Ordinal, attempt: u32, details: &[u8]) {
        if details.len() > CHECKPOINT_BYTES_MAX {
            tracing::warn!(task = task.0, bytes = details.len(), "a checkpoint over the limit was not recorded");
            return;
        }
        let start = self.report.bytes.len();
        self.report.bytes.extend_from_slice(details);
        self.report.items.push(Item::Checkpoint { task, attempt, details: start..self.report.bytes.len() });
    }

    /// Sends what there is to report. While the lane is full the report grows, by at most what the slots hold.
    fn flush(&mut self, context: &mut actix::Context<Self>) {
        if self.draining && self.free.len() == self.parts.slots as usize {
            // By the lane of the reports: any other way could overtake them, and what they tell of would be lost with the replica.
            self.report.idle = Some(self.parts.replica);
        }
        if self.report.is_empty() || self.waiting {
            return;
        }
        match self.parts.reports.try_send(std::mem::take(&mut self.report)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(report)) => {
                self.report = report;
                self.waiting = true;
                let (reports, address) = (self.parts.reports.clone(), context.address());
                actix::spawn(async move {
                    // Room for one; a closed lane means that the shard is gone, and this executor goes with it.
                    drop(reports.reserve().await);
                    let _ = address.send(Flush).await;
                });
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }

    fn slot_of(&self, task: Ordinal, attempt: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.running.is_some_and(|running| running.task == task && running.attempt == attempt))
    }

    fn beat_later(&mut self, context: &mut actix::Context<Self>) {
        if self.beating {
            return;
        }
        self.beating = true;
        let address = context.address();
        actix::spawn(async move {
            tokio::time::sleep(BEAT_EVERY).await;
            let _ = address.send(Beat).await;
        });
    }

    /// Reports attempts that gave no sign of life in time; says whether any attempt still has to be looked at.
    fn beat(&mut self) -> bool {
        let now = self.parts.clock.now();
        let mut watched = false;
        for index in 0..self.slots.len() {
            watched |= self.take_told(index, false);
            let Some(Running { task, attempt, heartbeat: Some(limit), aborted: false, .. }) = self.slots[index].running else {
                continue;
            };
            let last_seen = Timestamp(self.slots[index].control.seen.load(Ordering::Relaxed));
            watched = true;
            if self.parts.tells_signs {
                self.tell_sign(index, now, last_seen);
            } else if now.since(last_seen) > limit {
                self.report.items.push(Item::Silent { task, attempt, last_seen });
                // Reported once; the abort that follows frees the slot.
                if let Some(running) = &mut self.slots[index].running {
                    running.heartbeat = None;
                }
            }
        }
        watched
    }

    /// Tells that an attempt gave a sign of life since that was told last, and that at most three times within its limit.
    fn tell_sign(&mut self, index: usize, now: Timestamp, last_seen: Timestamp) {
        let Some(running) = &mut self.slots[index].running else { return };
        let Running { task, attempt, heartbeat, told: (at, sign), .. } = *running;
        if last_seen > sign && now.since(at).0 >= heartbeat.map_or(0, |limit| limit.0 / 3) {
            running.told = (now, last_seen);
            self.report.alive.push((task, attempt));
        }
    }
}

impl Actor for Executor {
    type Context = actix::Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.parts.slots as usize + CONTROL_MAX);
        Executor::add_stream(WokenStream(Arc::clone(&self.woken)), context);
    }
}

/// From the dispatcher: say that you run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Hello;

impl Handler<Hello> for Executor {
    type Result = ();

    fn handle(&mut self, Hello: Hello, _: &mut Self::Context) {}
}

/// From the dispatcher: run these; they are committed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Run(pub(crate) Attempts);

impl Handler<Run> for Executor {
    type Result = ();

    fn handle(&mut self, Run(attempts): Run, context: &mut Self::Context) {
        attempts.iter().for_each(|whole| self.begin(whole, context));
        self.flush(context);
    }
}

impl StreamHandler<Vec<usize>> for Executor {
    fn handle(&mut self, woken: Vec<usize>, context: &mut Self::Context) {
        for index in woken {
            self.slots[index].control.queued.store(false, Ordering::Release);
            if self.take_told(index, false) {
                self.beat_later(context);
            }
            self.poll(index);
        }
        self.flush(context);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

/// From the dispatcher: ask an attempt to stop (`hard`: end it now and give its slot back).
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    pub(crate) task: Ordinal,
    pub(crate) attempt: u32,
    pub(crate) hard: bool,
}

impl Handler<Stop> for Executor {
    type Result = ();

    fn handle(&mut self, Stop { task, attempt, hard }: Stop, context: &mut Self::Context) {
        let Some(index) = self.slot_of(task, attempt) else { return };
        self.slots[index].control.cancel();
        if hard {
            let Some(running) = &mut self.slots[index].running else { return };
            running.aborted = true;
            let runner = running.runner;
            let gone = catch_unwind(AssertUnwindSafe(|| self.runners[runner].abort(index))).unwrap_or(true);
            if gone {
                self.finish(index, Ok(self.report.bytes.len()));
            }
        }
        self.flush(context);
    }
}

/// From the dispatcher: definitions of task types have changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Types(pub(crate) Vec<Option<usize>>);

impl Handler<Types> for Executor {
    type Result = ();

    fn handle(&mut self, Types(types): Types, _: &mut Self::Context) {
        self.parts.types = types;
    }
}

/// From the dispatcher: say when nothing is running any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Drain;

impl Handler<Drain> for Executor {
    type Result = ();

    fn handle(&mut self, Drain: Drain, context: &mut Self::Context) {
        self.draining = true;
        self.flush(context);
    }
}

/// From itself: there may be room for a report again.
#[derive(Message)]
#[rtype(result = "()")]
struct Flush;

impl Handler<Flush> for Executor {
    type Result = ();

    fn handle(&mut self, Flush: Flush, context: &mut Self::Context) {
        self.waiting = false;
        self.flush(context);
    }
}

/// From itself: look at heartbeats.
#[derive(Message)]
#[rtype(result = "()")]
struct Beat;

impl Handler<Beat> for Executor {
    type Result = ();

    fn handle(&mut self, Beat: Beat, context: &mut Self::Context) {
        self.beating = false;
        if self.beat() {
            self.beat_later(context);
        }
        self.flush(context);
    }
}

/// For tests: panics in the handler, which ends the actor for good.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Panic;

impl Handler<Panic> for Executor {
    type Result = ();

    #[expect(clippy::panic, reason = "that is its purpose")]
    fn handle(&mut self, Panic: Panic, _: &mut Self::Context) {
        panic!("an executor was told to panic");
    }
}
