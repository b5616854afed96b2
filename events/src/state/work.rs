//! The work half: the tasks of one shard, the queues they wait in and the slots they run in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bincode::{Decode, Encode};

use super::flow::{Flow, Labels};
use super::holds::{Hold, Holds};
use super::keys::{KeyEntry, KeyTable};
use super::queue::ReadyQueue;
use super::replicas::{Replicas, Slot};
use crate::event::{Cause, Departure, Digest, Envelope, Event, Timeout};
use crate::id::{LimitId, Ordinal, Position, ReplicaId, TypeId};
use crate::shared::{SharedMap, SharedSet};
use crate::slab::{Phase, Slab, Task};
use crate::task::{Ask, Dependency, IdempotencyKey, OnFailure, Outcome, PRIORITY_MAX, RetryPolicy, Timeouts, TypeSettings};
use crate::time::Timestamp;
use crate::worker::{WORKER_FIRST, WorkerFacts};

/// One definition of a task type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskType {
    /// The name that requests use.
    pub name: String,
    /// Everything the rules need to know about it.
    pub settings: Arc<TypeSettings>,
    /// Index of its pool in [`Work::pools`].
    pub pool: u32,
}

/// A pool as a shard sees it.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// The definitions of task types that it runs.
    pub types: Vec<TypeId>,
}

/// What workers asked for, for as long as the batch lasts in which they did.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    at: Timestamp,
    by: Vec<(ReplicaId, u32)>,
}

impl Asked {
    /// Who asked at this moment, and for how many attempts they have not been given yet.
    pub fn at(&self, at: Timestamp) -> &[(ReplicaId, u32)] {
        if self.at == at { &self.by } else { &[] }
    }

    fn ask(&mut self, replica: ReplicaId, slots: u32, at: Timestamp) {
        if self.at != at {
            self.at = at;
            self.by.clear();
        }
        // Once each, however often it asks: its free slots are given out once.
        match self.by.iter_mut().find(|(asking, _)| *asking == replica) {
            Some((_, asked)) => *asked = asked.saturating_add(slots),
            None => self.by.push((replica, slots)),
        }
    }

    fn take(&mut self, replica: ReplicaId, at: Timestamp) {
        if self.at == at
            && let Some((_, left)) = self.by.iter_mut().find(|(asking, _)| *asking == replica)
        {
            *left = left.saturating_sub(1);
        }
    }
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// A delay or a back-off ends.
    Wake,
    /// The task waited too long for a slot.
    ScheduleToStart,
    /// The task took too long in all.
    ScheduleToClose,
    /// The cancelled attempt took too long to clean up.
    CancelGrace,
}

/// How far an attempt says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// Of the whole, in percent, where it can tell.
    pub percent: Option<u8>,
    /// What it is doing.
    pub stage: String,
    /// More about it.
    pub message: String,
}

/// A task that failed for good and is kept for redrive.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The task as it was at its end.
    pub task: Task,
    /// Its payload.
    pub payload: Box<[u8]>,
    /// Why it ended.
    pub cause: Cause,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// The tasks of one shard and everything they need.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// By [`TypeId`]; a redefined name has several.
    pub types: Vec<TaskType>,
    /// The newest definition of each name.
    pub type_names: BTreeMap<String, TypeId>,
    /// In the order of their first mention.
    pub pools: Vec<Pool>,
    /// Ready tasks, by [`TypeId`].
    pub(crate) queues: Vec<ReadyQueue>,
    /// Live tasks.
    pub tasks: Slab,
    /// Slots.
    pub replicas: Replicas,
    /// The replicas that are workers.
    pub workers: SharedMap<ReplicaId, Arc<WorkerFacts>>,
    /// How many workers have joined.
    pub(crate) workers_seen: u32,
    /// What workers ask for right now.
    pub asked: Asked,
    /// The task types that replicas run that are not workers; every one where nobody has said so.
    pub serves: Option<Arc<Vec<String>>>,
    /// What happens when, but for the ends of running attempts, which [`Replicas`] knows.
    pub timers: SharedSet<(Timestamp, Ordinal, TimerKind)>,
    /// Idempotency keys.
    pub keys: KeyTable,
    /// Dead letters, oldest first.
    pub dead: SharedMap<Ordinal, Arc<DeadLetter>>,
    /// Payload bytes of all dead letters.
    pub dead_bytes: usize,
    /// Ended tasks by outcome, in the order of [`Outcome::ALL`].
    pub ended: [u64; 5],
    /// How far running attempts say that they are.
    pub progress: SharedMap<Ordinal, Arc<Progress>>,
    /// Limits, and what waits for them.
    pub flow: Flow,
    /// Tasks that wait for the ends of others.
    pub holds: Holds,
    /// Offset of the next request record, where requests come from a topic; elsewhere a count that nobody reads.
    pub source_next: u64,
}

impl Work {
    /// The settings a task was accepted under.
    pub fn settings(&self, task: &Task) -> &TypeSettings {
        &self.types[usize::from(task.task_type.0)].settings
    }

    /// The retry policy of a task.
    pub fn retry_policy<'a>(&'a self, task: &'a Task) -> &'a RetryPolicy {
        task.extra.as_ref().and_then(|extra| extra.retry.as_ref()).unwrap_or(&self.settings(task).retry)
    }

    /// The timeouts of a task.
    pub fn timeouts<'a>(&'a self, task: &'a Task) -> &'a Timeouts {
        task.extra.as_ref().and_then(|extra| extra.timeouts.as_ref()).unwrap_or(&self.settings(task).timeouts)
    }

    /// The earliest moment at which something may be due.
    pub fn next_due(&self) -> Timestamp {
        let timer = self.timers.first().map_or(Timestamp::NEVER, |(due, _, _)| *due);
        timer.min(self.replicas.next_deadline()).min(self.flow.next_due())
    }

    /// Index of the pool with this name, made on its first mention.
    fn pool_index(&mut self, name: &str) -> u32 {
        let index = self.pools.iter().position(|pool| pool.name == name).unwrap_or_else(|| {
            self.pools.push(Pool { name: name.to_owned(), ..Pool::default() });
            self.pools.len() - 1
        });
        u32::try_from(index).expect("there are fewer pools than types and replicas")
    }

    /// Folds an event of the work half; others change nothing. An event that cannot be meant for this state changes nothing either:
    /// whether it should be there is the audit's question.
    pub(crate) fn apply(&mut self, envelope: &Envelope<'_>) {
        let (at, position) = (envelope.recorded_at, envelope.position);
        match envelope.event {
            Event::Requested { task_type, payload, ref key, ref asks } => {
                self.request(task_type, payload, key.as_ref(), asks, at, position)
            }
            Event::Started { task, attempt, replica } => self.start(task, attempt, replica, at),
            Event::Succeeded { task, outcome, .. } => self.finish(task, outcome, at),
            Event::Failed { task, .. } => self.fail(task, at),
            Event::TimedOut { task, timeout, .. } => self.time_out(task, timeout, at),
            Event::HeartbeatMissed { .. } | Event::Deduplicated { .. } | Event::RequestRefused { .. } => {}
            Event::SourceMoved { next } => self.source_next = next,
            Event::LimitDefined { limit, name, ref allows, .. } => self.flow.define(limit, name, allows),
            Event::TypeLimited { task_type, ref limits, .. } => self.flow.limit_type(task_type, limits),
            Event::Progressed { task, percent, stage, message, .. } => self.progress(task, percent, stage, message),
            Event::Limited { task, limit } => self.limit(task, limit),
            Event::Admitted { task } => self.admit_limited(task, at, position),
            Event::DependencyMet { task, dependency, .. } => self.meet(task, dependency, at, position),
            Event::RetryScheduled { task, due } => self.schedule_retry(task, due),
            Event::Ready { task } => self.make_ready(task, at, position),
            Event::Lost { task, attempt, departure } => self.lose(task, attempt, departure, at, position),
            Event::SlotReleased { task, attempt, replica } => self.release(task, attempt, replica),
            Event::Checkpointed { task, details, .. } => {
                if let Some(task) = self.tasks.get_mut(task) {
                    task.extra_mut().checkpoint = Some(details.into());
                }
            }
            Event::CancelRequested { task, .. } => self.request_cancel(task, at),
            Event::KillRequested { .. } => {}
            Event::Ended { task, outcome, .. } => {
                if self.end(task, outcome, at, Replicas::hold).is_some() {
                    self.flow.forget(task);
                    self.count(outcome);
                }
            }
            Event::DeadLettered { task, cause } => self.bury(task, cause, at),
            Event::DeadLetterDropped { task } => self.exhume(task),
            Event::Redriven { task, .. } => self.redrive(task, at, position),
            Event::TypeDefined { task_type, name, ref settings, .. } => self.define_type(task_type, name, settings),
            Event::ReplicaJoined { replica, pool, slots } => self.join_replica(replica, pool, slots),
            Event::ReplicaDraining { replica } => {
                if let Some(replica) = self.replicas.present.get_mut(&replica) {
                    replica.draining = true;
                }
            }
            Event::ReplicaLeft { replica, departure } => self.leave(replica, departure),
            Event::TypesServed { ref types } => self.serves = Some(Arc::new(types.clone())),
            Event::WorkerJoined { replica, pool, slots, ref worker } => self.join_worker(replica, pool, slots, worker),
            Event::WorkAsked { replica, slots } => self.asked.ask(replica, slots, at),
            Event::WorkerMissed { replica, .. } => self.leave(replica, Departure::Lost),
            Event::AttemptReturned { .. } | Event::ConcurrencyChanged { .. } | Event::AttemptRan { .. } => {}
            Event::Opened { .. }
            | Event::ClockStepped { .. }
            | Event::LossAccepted { .. }
            | Event::PoolDefined { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. }
            | Event::ShardsObserved { .. }
            | Event::ScheduleDefined { .. }
            | Event::ScheduleRemoved { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::Fired { .. }
            | Event::Triggered { .. }
            | Event::SlotsPassed { .. }
            | Event::ProcessExited { .. }
            | Event::PolicySet { .. }
            | Event::PoolObserved { .. }
            | Event::PoolScaled { .. }
            | Event::ShadowSet { .. }
            | Event::SizeHeld { .. }
            | Event::PoolResourcesSet { .. }
            | Event::PoolModeSet { .. } => {}
        }
        self.source_next = self.source_next.saturating_add(u64::from(envelope.event.answers_record()));
    }

    fn request(
        &mut self,
        task_type: TypeId,
        payload: &[u8],
        key: Option<&IdempotencyKey<'_>>,
        asks: &[Ask<'_>],
        at: Timestamp,
        position: Position,
    ) {
        let Some(definition) = self.types.get(usize::from(task_type.0)) else {
            // The ordinal is used up all the same, or later tasks would be taken for others.
            self.tasks.skip_to(Ordinal(self.tasks.next().0 + 1));
            return;
        };
        let mut task = Task::new(task_type, definition.settings.priority, at, position, None);
        let not_before = take_asks(&mut task, asks);
        let mut labels =
            asks.iter().filter_map(|ask| if let Ask::Label(name, value) = ask { Some((*name, *value)) } else { None });
        // Most tasks have none, and an empty list would be an allocation, too.
        if let Some(first) = labels.next() {
            let labels: Labels = std::iter::once(first).chain(labels).map(|(name, value)| (name.into(), value.into())).collect();
            self.flow.labels.insert(self.tasks.next(), labels);
        }
        if let Some(key) = key {
            let hash = KeyTable::hash(&definition.name, key.key);
            let expires = at.after(key.window.unwrap_or(definition.settings.key_window));
            let entry = KeyEntry { task: self.tasks.next(), digest: Digest::of(payload), expires };
            self.keys.insert(hash, entry, at);
        }
        if asks.iter().any(|ask| matches!(ask, Ask::After(_))) {
            self.hold_or_admit(task, payload, asks, not_before, at);
        } else {
            self.admit(task, payload, not_before, at);
        }
    }

    /// Keeps a new task until those have ended that it comes after, if any of them is live.
    #[cold]
    #[inline(never)]
    fn hold_or_admit(&mut self, mut task: Task, payload: &[u8], asks: &[Ask<'_>], not_before: Option<Timestamp>, at: Timestamp) {
        let named = |ask: &Ask<'_>| if let Ask::After(Dependency::Task(task)) = ask { Some(*task) } else { None };
        let live = |task: &Ordinal| self.tasks.get(*task).is_some();
        let after: BTreeSet<Ordinal> = asks.iter().filter_map(named).filter(live).collect();
        if after.is_empty() {
            self.admit(task, payload, not_before, at);
            return;
        }
        task.phase = Phase::Held;
        let limit = self.timeouts(&task).schedule_to_close;
        let ordinal = self.tasks.insert(task, payload);
        if let Some(limit) = limit {
            self.timers.insert((at.after(limit), ordinal, TimerKind::ScheduleToClose));
        }
        let on_failure = OnFailure::of(asks);
        self.holds.hold(ordinal, Hold { after: after.into_iter().collect(), on_failure, not_before });
    }

    /// Tells a held task that one has ended which it comes after; with the last it goes where a new task would go.
    #[cold]
    #[inline(never)]
    fn meet(&mut self, ordinal: Ordinal, dependency: Ordinal, at: Timestamp, position: Position) {
        let Some(hold) = self.holds.meet(ordinal, dependency) else { return };
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        match hold.not_before.filter(|due| *due > at) {
            Some(due) => {
                (task.phase, task.due) = (Phase::Delayed, due);
                self.timers.insert((due, ordinal, TimerKind::Wake));
            }
            None => self.go_on(ordinal, at, position),
        }
    }

    /// Puts a new task where it has to wait.
    fn admit(&mut self, mut task: Task, payload: &[u8], not_before: Option<Timestamp>, at: Timestamp) {
        let (priority, task_type, position) = (task.priority, task.task_type, task.ready_position);
        let timeouts = *self.timeouts(&task);
        let delayed = not_before.filter(|due| *due > at);
        let limited = delayed.is_none() && self.flow.limits(task.task_type);
        if let Some(due) = delayed {
            task.phase = Phase::Delayed;
            task.due = due;
        } else if limited {
            task.phase = Phase::Limited;
        }
        let ordinal = self.tasks.insert(task, payload);
        if let Some(limit) = timeouts.schedule_to_close {
            self.timers.insert((at.after(limit), ordinal, TimerKind::ScheduleToClose));
        }
        match delayed {
            Some(due) => {
                self.timers.insert((due, ordinal, TimerKind::Wake));
            }
            None if limited => self.flow.arrive(ordinal, position),
            None => {
                self.queue(ordinal, task_type, priority, position);
                if let Some(limit) = timeouts.schedule_to_start {
                    self.timers.insert((at.after(limit), ordinal, TimerKind::ScheduleToStart));
                }
            }
        }
    }

    fn start(&mut self, ordinal: Ordinal, attempt: u32, replica: ReplicaId, at: Timestamp) {
        let Some(task) = self.tasks.get(ordinal) else { return };
        if task.phase != Phase::Ready {
            return;
        }
        let (priority, ready_at, task_type) = (task.priority, task.ready_at, task.task_type);
        let timeouts = *self.timeouts(task);
        let deadline = at.after(timeouts.start_to_close);
        let Some(slot) = self.replicas.present.get_mut(&replica).and_then(|replica| replica.take(ordinal, attempt, deadline))
        else {
            return;
        };
        if let Some(limit) = timeouts.schedule_to_start {
            self.timers.remove(&(ready_at.after(limit), ordinal, TimerKind::ScheduleToStart));
        }
        if let Some(task) = self.tasks.get_mut(ordinal) {
            task.phase = Phase::Running;
            task.attempt = attempt;
            task.replica = replica;
            task.slot = slot;
        }
        self.unqueue(task_type, priority);
        if replica >= WORKER_FIRST {
            self.asked.take(replica, at);
        }
        if !self.flow.passages.is_empty() {
            self.flow.start(ordinal, at);
        }
    }

    /// Lets a task at the gate wait for a limit.
    fn limit(&mut self, ordinal: Ordinal, limit: LimitId) {
        if let Some(task) = self.tasks.get(ordinal).filter(|task| task.phase == Phase::Limited) {
            self.flow.wait(ordinal, task, limit);
        }
    }

    /// Queues a task that its limits let through.
    fn admit_limited(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(task) = self.tasks.get(ordinal).filter(|task| task.phase == Phase::Limited) else { return };
        self.flow.admit(ordinal, task);
        if let Some(task) = self.tasks.get_mut(ordinal) {
            task.phase = Phase::Ready;
        }
        self.enqueue(ordinal, at, position);
    }

    fn finish(&mut self, ordinal: Ordinal, outcome: Outcome, at: Timestamp) {
        // The executor reported, so the slot is free.
        if self.end(ordinal, outcome, at, Replicas::give_back).is_some() {
            self.flow.forget(ordinal);
            self.count(outcome);
        }
    }

    fn fail(&mut self, ordinal: Ordinal, at: Timestamp) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        if !task.has_slot() {
            return;
        }
        task.failures = task.failures.saturating_add(1);
        let (replica, slot) = (task.replica, task.slot);
        self.leave_slot(ordinal);
        self.give_permits_back(ordinal, at);
        self.replicas.give_back(replica, slot);
        self.replicas.forget_gone(replica);
    }

    /// Takes the permits of a task back whose attempt is over.
    fn give_permits_back(&mut self, ordinal: Ordinal, at: Timestamp) {
        if let Some(task) = self.tasks.get(ordinal) {
            self.flow.release(ordinal, task, false, at);
        }
    }

    fn time_out(&mut self, ordinal: Ordinal, timeout: Timeout, at: Timestamp) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        match timeout {
            Timeout::StartToClose | Timeout::Heartbeat => {
                if !task.has_slot() {
                    return;
                }
                task.failures = task.failures.saturating_add(1);
                let (replica, slot) = (task.replica, task.slot);
                self.leave_slot(ordinal);
                self.give_permits_back(ordinal, at);
                self.replicas.time_out(replica, slot, at);
                self.replicas.forget_gone(replica);
            }
            // The end that follows by rule takes the task out with its timers.
            Timeout::ScheduleToStart | Timeout::ScheduleToClose | Timeout::CancelGrace => {}
        }
    }

    fn progress(&mut self, ordinal: Ordinal, percent: Option<u8>, stage: &str, message: &str) {
        if self.tasks.get(ordinal).is_some() {
            let progress = Progress { percent, stage: stage.to_owned(), message: message.to_owned() };
            self.progress.insert(ordinal, Arc::new(progress));
        }
    }

    /// Moves a task that had a slot to back-off, until the next event says for how long.
    fn leave_slot(&mut self, ordinal: Ordinal) {
        self.forget_progress(ordinal);
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        let was_cancelling = task.phase == Phase::Cancelling;
        let due = task.due;
        task.phase = Phase::Backoff;
        task.due = Timestamp::NEVER;
        if was_cancelling {
            self.timers.remove(&(due, ordinal, TimerKind::CancelGrace));
        }
    }

    fn forget_progress(&mut self, ordinal: Ordinal) {
        if !self.progress.is_empty() {
            self.progress.remove(&ordinal);
        }
    }

    fn schedule_retry(&mut self, ordinal: Ordinal, due: Timestamp) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        if task.phase == Phase::Backoff {
            let before = std::mem::replace(&mut task.due, due);
            self.timers.remove(&(before, ordinal, TimerKind::Wake));
            self.timers.insert((due, ordinal, TimerKind::Wake));
        }
    }

    fn make_ready(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        if !matches!(task.phase, Phase::Delayed | Phase::Backoff) {
            return;
        }
        let due = std::mem::replace(&mut task.due, Timestamp::NEVER);
        self.timers.remove(&(due, ordinal, TimerKind::Wake));
        self.go_on(ordinal, at, position);
    }

    /// Lets a task go on to its limits or to the queue that nothing else keeps any more.
    fn go_on(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        let is_limited = self.flow.limits(task.task_type);
        task.phase = if is_limited { Phase::Limited } else { Phase::Ready };
        (task.ready_at, task.ready_position) = (at, position);
        if is_limited {
            self.flow.arrive(ordinal, position);
        } else {
            self.enqueue(ordinal, at, position);
        }
    }

    /// Queues a task that was just made ready.
    fn enqueue(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        task.ready_at = at;
        task.ready_position = position;
        let (priority, task_type) = (task.priority, task.task_type);
        self.queue(ordinal, task_type, priority, position);
        let limit = self.tasks.get(ordinal).and_then(|task| self.timeouts(task).schedule_to_start);
        if let Some(limit) = limit {
            self.timers.insert((at.after(limit), ordinal, TimerKind::ScheduleToStart));
        }
    }

    fn lose(&mut self, ordinal: Ordinal, attempt: u32, departure: Departure, at: Timestamp, position: Position) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        if !task.has_slot() || task.attempt != attempt {
            return;
        }
        task.losses = task.losses.saturating_add(u32::from(departure == Departure::Lost));
        let (replica, slot) = (task.replica, task.slot);
        self.leave_slot(ordinal);
        if let Some(task) = self.tasks.get_mut(ordinal) {
            task.phase = Phase::Ready;
        }
        if !self.flow.passages.is_empty() {
            self.flow.restart(ordinal);
        }
        self.enqueue(ordinal, at, position);
        self.replicas.give_back(replica, slot);
        self.replicas.forget_gone(replica);
    }

    fn release(&mut self, task: Ordinal, attempt: u32, id: ReplicaId) {
        if let Some(slot) = self.replicas.held_slot(id, task, attempt) {
            self.replicas.give_back(id, slot);
        }
    }

    fn request_cancel(&mut self, ordinal: Ordinal, at: Timestamp) {
        let Some(task) = self.tasks.get(ordinal) else { return };
        if task.phase != Phase::Running {
            return;
        }
        let due = at.after(self.settings(task).cancel_grace);
        if let Some(task) = self.tasks.get_mut(ordinal) {
            task.phase = Phase::Cancelling;
            task.due = due;
        }
        self.timers.insert((due, ordinal, TimerKind::CancelGrace));
    }

    /// Takes a task out with everything that waits for it; `leave` says what becomes of a slot that it has.
    fn end(
        &mut self,
        ordinal: Ordinal,
        outcome: Outcome,
        at: Timestamp,
        leave: impl FnOnce(&mut Replicas, ReplicaId, u32),
    ) -> Option<Task> {
        let task = self.tasks.remove(ordinal)?;
        self.holds.end(ordinal, outcome);
        self.forget_progress(ordinal);
        self.flow.release(ordinal, &task, task.phase == Phase::Ready, at);
        let timeouts = *self.timeouts(&task);
        if let Some(limit) = timeouts.schedule_to_close {
            self.timers.remove(&(task.requested_at.after(limit), ordinal, TimerKind::ScheduleToClose));
        }
        match task.phase {
            Phase::Delayed | Phase::Backoff => {
                self.timers.remove(&(task.due, ordinal, TimerKind::Wake));
            }
            Phase::Ready => {
                if let Some(limit) = timeouts.schedule_to_start {
                    self.timers.remove(&(task.ready_at.after(limit), ordinal, TimerKind::ScheduleToStart));
                }
                self.unqueue(task.task_type, task.priority);
            }
            Phase::Limited => {}
            Phase::Held => self.holds.release(ordinal),
            Phase::Running | Phase::Cancelling => {
                if task.phase == Phase::Cancelling {
                    self.timers.remove(&(task.due, ordinal, TimerKind::CancelGrace));
                }
                leave(&mut self.replicas, task.replica, task.slot);
                self.replicas.forget_gone(task.replica);
            }
        }
        Some(task)
    }

    fn count(&mut self, outcome: Outcome) {
        let index = Outcome::ALL.iter().position(|known| *known == outcome).expect("ALL lists every outcome");
        self.ended[index] += 1;
    }

    fn bury(&mut self, ordinal: Ordinal, cause: Cause, at: Timestamp) {
        let Some(payload) = self.tasks.payload(ordinal).map(Box::<[u8]>::from) else { return };
        let Some(task) = self.end(ordinal, Outcome::Failed, at, Replicas::hold) else { return };
        self.count(Outcome::Failed);
        self.dead_bytes += payload.len();
        self.dead.insert(ordinal, Arc::new(DeadLetter { task, payload, cause, ended_at: at }));
    }

    fn exhume(&mut self, ordinal: Ordinal) {
        if let Some(letter) = self.dead.remove(&ordinal) {
            self.dead_bytes -= letter.payload.len();
            self.flow.forget(ordinal);
        }
    }

    fn redrive(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(letter) = self.dead.get(&ordinal) else {
            self.tasks.skip_to(Ordinal(self.tasks.next().0 + 1));
            return;
        };
        let letter = Arc::clone(letter);
        let old = &letter.task;
        if let Some(labels) = self.flow.labels.get(&ordinal).cloned() {
            self.flow.labels.insert(self.tasks.next(), labels);
        }
        self.exhume(ordinal);
        // A new task with a full budget; the old one's idempotency key stays with the old one.
        let task = Task::new(old.task_type, old.priority, at, position, old.extra.clone());
        self.admit(task, &letter.payload, None, at);
    }

    fn define_type(&mut self, id: TypeId, name: &str, settings: &TypeSettings) {
        if usize::from(id.0) == self.types.len() {
            let pool = self.pool_index(&settings.pool);
            self.types.push(TaskType { name: name.to_owned(), settings: Arc::new(settings.clone()), pool });
            self.type_names.insert(name.to_owned(), id);
            self.pools[pool as usize].types.push(id);
            self.queues.push(ReadyQueue::default());
        }
    }

    /// The ready tasks of a pool, by the definition of their type.
    pub(crate) fn ready<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = (TypeId, &'a ReadyQueue)> {
        let queue = |id: &TypeId| Some((*id, self.queues.get(usize::from(id.0))?));
        pool.types.iter().filter_map(queue).filter(|(_, queue)| !queue.is_empty())
    }

    /// The definitions of which tasks are ready in a pool.
    pub fn ready_types<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = TypeId> + 'a {
        self.ready(pool).map(|(id, _)| id)
    }

    /// How many tasks are ready in a pool.
    pub fn ready_count(&self, pool: &Pool) -> usize {
        self.ready(pool).map(|(_, queue)| queue.len()).sum()
    }

    /// Puts a ready task in the queue of its type.
    fn queue(&mut self, ordinal: Ordinal, task_type: TypeId, priority: u8, position: Position) {
        self.queues[usize::from(task_type.0)].push(ordinal, priority, position);
    }

    /// Notes that a task of this type is ready no longer.
    fn unqueue(&mut self, task_type: TypeId, priority: u8) {
        self.queues[usize::from(task_type.0)].forget(priority, &self.tasks);
    }

    fn join_replica(&mut self, id: ReplicaId, pool: &str, slots: u32) {
        if !self.replicas.knows(id) {
            let pool = self.pool_index(pool);
            self.replicas.join(id, pool, slots);
        }
    }

    /// Whether a worker with so many slots may join.
    pub fn has_room_for_worker(&self, slots: u32) -> bool {
        self.next_worker().is_some() && self.replicas.have_room(slots)
    }

    /// The id that the next worker gets, while there are any left.
    pub fn next_worker(&self) -> Option<ReplicaId> {
        WORKER_FIRST.0.checked_add(self.workers_seen).map(ReplicaId)
    }

    fn join_worker(&mut self, id: ReplicaId, pool: &str, slots: u32, worker: &WorkerFacts) {
        if !self.replicas.knows(id) && Some(id) == self.next_worker() {
            self.join_replica(id, pool, slots);
            self.workers.insert(id, Arc::new(worker.clone()));
            self.workers_seen += 1;
        }
    }

    fn leave(&mut self, id: ReplicaId, departure: Departure) {
        self.replicas.leave(id, departure);
        if id >= WORKER_FIRST {
            self.workers.remove(&id);
        }
    }

    /// The replica that keeps a slot for this attempt although it no longer counts.
    pub fn holder(&self, task: Ordinal, attempt: u32) -> Option<ReplicaId> {
        self.replicas.holder(task, attempt)
    }

    /// The newest attempt of this task that keeps a slot although it no longer counts, and its replica.
    pub fn holder_of(&self, task: Ordinal) -> Option<(ReplicaId, u32)> {
        self.replicas.holder_of(task)
    }

    /// Rebuilds queues and timers from the tasks; for loading a snapshot.
    pub(crate) fn rebuild(&mut self) {
        let mut ready: Vec<(Position, Ordinal)> = Vec::new();
        let mut timers = Vec::new();
        for (ordinal, task, _) in self.tasks.iter() {
            let timeouts = self.timeouts(task);
            if let Some(limit) = timeouts.schedule_to_close {
                timers.push((task.requested_at.after(limit), ordinal, TimerKind::ScheduleToClose));
            }
            match task.phase {
                Phase::Ready => {
                    ready.push((task.ready_position, ordinal));
                    if let Some(limit) = timeouts.schedule_to_start {
                        timers.push((task.ready_at.after(limit), ordinal, TimerKind::ScheduleToStart));
                    }
                }
                Phase::Delayed | Phase::Backoff => {
                    timers.push((task.due, ordinal, TimerKind::Wake));
                }
                Phase::Cancelling => {
                    timers.push((task.due, ordinal, TimerKind::CancelGrace));
                }
                Phase::Running | Phase::Limited | Phase::Held => {}
            }
        }
        ready.sort_unstable();
        for (position, ordinal) in ready {
            let Some(task) = self.tasks.get(ordinal) else { continue };
            let (task_type, priority) = (task.task_type, task.priority);
            self.queue(ordinal, task_type, priority, position);
        }
        // In order they fill their nodes.
        timers.sort_unstable();
        self.timers = timers.into_iter().collect();
    }

    /// Busy and held slots of all replicas, for invariants and views.
    pub fn slots(&self) -> impl Iterator<Item = (ReplicaId, &Slot)> {
        self.replicas.iter().chain(self.replicas.gone()).flat_map(|(id, replica)| replica.slots().map(move |slot| (id, slot)))
    }
}

/// Writes what the request asks for into the task; returns the moment before which it is not to start.
fn take_asks(task: &mut Task, asks: &[Ask<'_>]) -> Option<Timestamp> {
    let mut not_before = None;
    for ask in asks {
        match *ask {
            Ask::Priority(priority) => task.priority = priority.min(PRIORITY_MAX),
            Ask::NotBefore(due) => not_before = Some(due),
            Ask::Retry(policy) => task.extra_mut().retry = Some(policy),
            Ask::Timeouts(timeouts) => task.extra_mut().timeouts = Some(timeouts),
            Ask::ContentType(text) => task.extra_mut().content_type = Some(text.into()),
            Ask::TraceParent(text) => task.extra_mut().trace_parent = Some(text.into()),
            Ask::ReplyTo(text) => task.extra_mut().reply_to = Some(text.into()),
            Ask::CorrelationId(text) => task.extra_mut().correlation_id = Some(text.into()),
            Ask::Label(_, _) | Ask::After(_) | Ask::OnFailure(_) | Ask::FiredBy(_) => {}
        }
    }
    not_before
}
