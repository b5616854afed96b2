//! Asks one generator when its time has come, and hands over what it says.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use ergate_events::id::{ShardId, TypeId};
use ergate_events::log::index::TaskIndex;
use ergate_events::state::State;
use ergate_events::time::{Micros, Timestamp};

use super::host::NoBatch;
use super::{GeneratorHost, Slot, View};
use crate::log_writer::chain;
use crate::submission::{BatchAnswer, RequestBatch, SubmitError};

/// After a failure a generator is asked again so much later, or in the next slot if that comes sooner.
pub const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A generator is asked at most so much too late, or a tenth of its slot.
const LATE_MAX: Duration = Duration::from_secs(1);

/// A future that stays on its thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The shard as a generator needs it.
pub trait Desk {
    /// Which shard.
    fn shard(&self) -> ShardId;
    /// The time.
    fn now(&self) -> Timestamp;
    /// The indexes of its log.
    fn index(&self) -> Arc<TaskIndex>;
    /// A copy of its state of which everything is durable; the error says why there is none.
    fn look(&self) -> LocalFuture<'_, Result<Box<State>, String>>;
    /// The number of a task type in requests, if it is registered.
    fn request_type(&self, name: &str) -> Option<TypeId>;
    /// Whether the shard is led here no more.
    fn is_over(&self) -> bool;
    /// Records requests; the answer is durable.
    fn submit(&self, requests: RequestBatch) -> LocalFuture<'_, Result<BatchAnswer, SubmitError>>;
}

/// What became of asking a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// There are new tasks.
    Accepted,
    /// All its tasks were there already.
    Duplicate,
    /// There was nothing to do.
    Empty,
    /// It failed, or nobody could ask it.
    Failed,
    /// It panicked.
    Panicked,
    /// The runtime did not take what it generated, or not all of it.
    Refused,
    /// It did not answer in time. What it says later is counted as well.
    Overdue,
}

impl BatchOutcome {
    /// All of them, with their names.
    pub const ALL: [(BatchOutcome, &'static str); 7] = [
        (BatchOutcome::Accepted, "accepted"),
        (BatchOutcome::Duplicate, "duplicate"),
        (BatchOutcome::Empty, "empty"),
        (BatchOutcome::Failed, "failed"),
        (BatchOutcome::Panicked, "panicked"),
        (BatchOutcome::Refused, "refused"),
        (BatchOutcome::Overdue, "overdue"),
    ];
}

/// How often a generator was asked, by what became of it.
#[derive(Debug, Default)]
pub struct GeneratorCounts([AtomicU64; BatchOutcome::ALL.len()]);

impl GeneratorCounts {
    /// How often that became of it.
    pub fn get(&self, outcome: BatchOutcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }

    fn count(&self, outcome: BatchOutcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks one generator.
pub struct Generator<D> {
    host: GeneratorHost,
    desk: Arc<D>,
    every: Micros,
    /// When it is asked next.
    due: Timestamp,
    /// Since when it has not answered.
    asking: Option<Timestamp>,
    /// Whether it was said that it does not answer.
    is_overdue: bool,
}

impl<D: Desk + 'static> Generator<D> {
    /// Asks this generator about the shard behind this desk.
    pub fn new(host: GeneratorHost, desk: Arc<D>) -> Generator<D> {
        let every = Micros::from(host.every());
        Generator { host, desk, every, due: Timestamp(0), asking: None, is_overdue: false }
    }

    /// Notes what became of a slot.
    fn settle(&mut self, slot: Slot, outcome: BatchOutcome, is_settled: bool) {
        if self.host.context().is_stopping() {
            return;
        }
        let now = self.desk.now();
        if std::mem::take(&mut self.is_overdue) {
            let (generator, took) = (self.host.task_type(), now.since(self.asking.unwrap_or(now)));
            tracing::info!(generator, %took, "a generator that did not answer has answered");
        }
        self.asking = None;
        self.host.counts().count(outcome);
        let again = now.after(AGAIN_AFTER.into()).min(Slot::of(now, self.every).end());
        self.due = if is_settled { slot.end() } else { again };
    }

    /// Says once that the generator does not answer.
    fn look_after(&mut self, since: Timestamp, now: Timestamp) {
        let (waited, limit) = (now.since(since), Micros::from(self.host.within()));
        if waited < limit || std::mem::replace(&mut self.is_overdue, true) {
            return;
        }
        self.host.counts().count(BatchOutcome::Overdue);
        tracing::error!(generator = self.host.task_type(), %limit, "a generator does not answer, and is not asked again until it does");
    }
}

impl<D: Desk + 'static> Actor for Generator<D> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let address = context.address();
        let pause = (self.host.every() / 10).min(LATE_MAX);
        // Not `run_interval`: actix polls its timers only while the mailbox is empty.
        actix::spawn(async move {
            // This is the one address that keeps the actor.
            while address.connected() {
                // A full mailbox holds one already.
                let _ = address.try_send(Tick);
                tokio::time::sleep(pause).await;
            }
        });
    }
}

/// From the timer: it may be time.
#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

impl<D: Desk + 'static> Handler<Tick> for Generator<D> {
    type Result = ();

    fn handle(&mut self, Tick: Tick, context: &mut Context<Self>) {
        if self.host.context().is_stopping() {
            return context.stop();
        }
        if self.desk.is_over() {
            self.host.rest();
            return context.stop();
        }
        let now = self.desk.now();
        if let Some(since) = self.asking {
            return self.look_after(since, now);
        }
        if now < self.due {
            return;
        }
        self.asking = Some(now);
        let slot = Slot::of(now, self.every);
        let (host, desk) = (self.host.clone(), Arc::clone(&self.desk));
        let asked = async move { ask(&host, desk.as_ref(), slot).await }.into_actor(self);
        context.spawn(asked.map(move |(outcome, is_settled), actor, _| actor.settle(slot, outcome, is_settled)));
    }
}

/// Asks a generator about a slot, hands over what it says, and tells what became of it: whether the slot is settled, or is to be asked about again.
async fn ask(host: &GeneratorHost, desk: &impl Desk, slot: Slot) -> (BatchOutcome, bool) {
    let generator = host.task_type();
    let state = match desk.look().await {
        Ok(state) => state,
        Err(reason) => {
            tracing::warn!(generator, %slot, reason, "a generator cannot be asked, because the log cannot be seen");
            return (BatchOutcome::Failed, false);
        }
    };
    let view = View::new(generator, slot, desk.shard(), state, desk.index(), host.context().clone());
    let answer = host.ask(Box::new(view)).await;
    if host.context().is_stopping() {
        // The next start asks for the same slot.
        return (BatchOutcome::Failed, false);
    }
    match answer {
        Some((view, Ok(batch))) => submit(generator, desk, &view, batch).await,
        Some((_, Err(NoBatch::Failed(reason)))) => {
            tracing::warn!(generator, %slot, reason, "a generator failed, and is asked again later");
            (BatchOutcome::Failed, false)
        }
        Some((_, Err(NoBatch::Panicked(reason)))) => {
            tracing::error!(generator, %slot, reason, "a generator panicked; another one takes its place, and is asked later");
            (BatchOutcome::Panicked, false)
        }
        None => {
            tracing::error!(generator, %slot, "the thread of a generator is gone, and nothing is generated any more");
            (BatchOutcome::Failed, false)
        }
    }
}

/// Records a batch, and says what became of it.
async fn submit(generator: &str, desk: &impl Desk, view: &View, batch: super::GeneratedBatch) -> (BatchOutcome, bool) {
    if batch.is_empty() {
        return (BatchOutcome::Empty, true);
    }
    let Some((id, key_window)) = desk.request_type(generator).zip(view.key_window()) else {
        tracing::error!(generator, "the task type of a generator is not defined on this shard");
        return (BatchOutcome::Failed, false);
    };
    let name = batch.name(view.slot());
    let answer = match desk.submit(batch.into_requests(generator, id, &name, key_window)).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(
                generator,
                batch = name,
                error = chain(&error),
                "what a generator wants was not taken, and it is asked again later"
            );
            return (BatchOutcome::Refused, false);
        }
    };
    let (mut new, mut there, mut refusals) = (0_u32, 0_u32, Vec::new());
    for task in answer.iter() {
        match task {
            Ok((_, false)) => new += 1,
            Ok((_, true)) => there += 1,
            Err(error) => refusals.push(error),
        }
    }
    tracing::info!(generator, batch = name, new, there, refused = refusals.len(), "a batch was generated");
    let outcome = match (refusals.first(), new) {
        (Some(error), _) => {
            tracing::error!(
                generator,
                batch = name,
                refused = refusals.len(),
                error = chain(error),
                "tasks of a batch were refused"
            );
            BatchOutcome::Refused
        }
        (None, 0) => BatchOutcome::Duplicate,
        (None, _) => BatchOutcome::Accepted,
    };
    (outcome, true)
}
