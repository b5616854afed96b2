//! The work half: the tasks of one shard, the queues they wait in and the slots they run in.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::{KeyEntry, KeyTable};
use super::queue::ReadyQueue;
use super::replicas::{Replicas, Slot};
use crate::event::{Cause, Departure, Digest, Envelope, Event, Timeout};
use crate::id::{Ordinal, Position, ReplicaId, TypeId};
use crate::shared::{SharedMap, SharedSet};
use crate::slab::{Phase, Slab, Task};
use crate::task::{Ask, IdempotencyKey, Outcome, PRIORITY_MAX, RetryPolicy, Timeouts, TypeSettings};
use crate::time::Timestamp;

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
    /// Its ready tasks.
    pub queue: ReadyQueue,
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
    /// Live tasks.
    pub tasks: Slab,
    /// Slots.
    pub replicas: Replicas,
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
        timer.min(self.replicas.next_deadline())
    }

    /// Index of the pool with this name, made on its first mention.
    fn pool_index(&mut self, name: &str) -> u32 {
        let index = self.pools.iter().position(|pool| pool.name == name).unwrap_or_else(|| {
            self.pools.push(Pool { name: name.to_owned(), queue: ReadyQueue::default() });
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
            Event::Succeeded { task, outcome, .. } => self.finish(task, outcome),
            Event::Failed { task, .. } => self.fail(task),
            Event::TimedOut { task, timeout, .. } => self.time_out(task, timeout, at),
            Event::HeartbeatMissed { .. } | Event::Deduplicated { .. } | Event::RequestRefused { .. } => {}
            Event::SourceMoved { next } => self.source_next = next,
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
                if self.end(task, Replicas::hold).is_some() {
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
            Event::ReplicaLeft { replica, departure } => self.replicas.leave(replica, departure),
            Event::Opened { .. }
            | Event::ClockStepped { .. }
            | Event::LossAccepted { .. }
            | Event::PoolDefined { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. }
            | Event::ShardsObserved { .. } => {}
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
        if let Some(key) = key {
            let hash = KeyTable::hash(&definition.name, key.key);
            let expires = at.after(key.window.unwrap_or(definition.settings.key_window));
            let entry = KeyEntry { task: self.tasks.next(), digest: Digest::of(payload), expires };
            self.keys.insert(hash, entry, at);
        }
        self.admit(task, payload, not_before, at);
    }

    /// Puts a new task where it has to wait.
    fn admit(&mut self, mut task: Task, payload: &[u8], not_before: Option<Timestamp>, at: Timestamp) {
        let (priority, pool, position) = (task.priority, self.types[usize::from(task.task_type.0)].pool, task.ready_position);
        let timeouts = *self.timeouts(&task);
        let delayed = not_before.filter(|due| *due > at);
        if let Some(due) = delayed {
            task.phase = Phase::Delayed;
            task.due = due;
        }
        let ordinal = self.tasks.insert(task, payload);
        if let Some(limit) = timeouts.schedule_to_close {
            self.timers.insert((at.after(limit), ordinal, TimerKind::ScheduleToClose));
        }
        match delayed {
            Some(due) => {
                self.timers.insert((due, ordinal, TimerKind::Wake));
            }
            None => {
                self.pools[pool as usize].queue.push(ordinal, priority, position);
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
        let (priority, ready_at, pool) = (task.priority, task.ready_at, self.types[usize::from(task.task_type.0)].pool);
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
        self.pools[pool as usize].queue.forget(priority, &self.tasks);
    }

    fn finish(&mut self, ordinal: Ordinal, outcome: Outcome) {
        // The executor reported, so the slot is free.
        if self.end(ordinal, Replicas::give_back).is_some() {
            self.count(outcome);
        }
    }

    fn fail(&mut self, ordinal: Ordinal) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        if !task.has_slot() {
            return;
        }
        task.failures = task.failures.saturating_add(1);
        let (replica, slot) = (task.replica, task.slot);
        self.leave_slot(ordinal);
        self.replicas.give_back(replica, slot);
        self.replicas.forget_gone(replica);
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
                self.replicas.time_out(replica, slot, at);
                self.replicas.forget_gone(replica);
            }
            // The end that follows by rule takes the task out with its timers.
            Timeout::ScheduleToStart | Timeout::ScheduleToClose | Timeout::CancelGrace => {}
        }
    }

    /// Moves a task that had a slot to back-off, until the next event says for how long.
    fn leave_slot(&mut self, ordinal: Ordinal) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        let was_cancelling = task.phase == Phase::Cancelling;
        let due = task.due;
        task.phase = Phase::Backoff;
        task.due = Timestamp::NEVER;
        if was_cancelling {
            self.timers.remove(&(due, ordinal, TimerKind::CancelGrace));
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
        let due = task.due;
        task.due = Timestamp::NEVER;
        task.phase = Phase::Ready;
        self.timers.remove(&(due, ordinal, TimerKind::Wake));
        self.enqueue(ordinal, at, position);
    }

    /// Queues a task that was just made ready.
    fn enqueue(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(task) = self.tasks.get_mut(ordinal) else { return };
        task.ready_at = at;
        task.ready_position = position;
        let (priority, task_type) = (task.priority, usize::from(task.task_type.0));
        self.pools[self.types[task_type].pool as usize].queue.push(ordinal, priority, position);
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
    fn end(&mut self, ordinal: Ordinal, leave: impl FnOnce(&mut Replicas, ReplicaId, u32)) -> Option<Task> {
        let task = self.tasks.remove(ordinal)?;
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
                let pool = self.types[usize::from(task.task_type.0)].pool;
                self.pools[pool as usize].queue.forget(task.priority, &self.tasks);
            }
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
        let Some(task) = self.end(ordinal, Replicas::hold) else { return };
        self.count(Outcome::Failed);
        self.dead_bytes += payload.len();
        self.dead.insert(ordinal, Arc::new(DeadLetter { task, payload, cause, ended_at: at }));
    }

    fn exhume(&mut self, ordinal: Ordinal) {
        if let Some(letter) = self.dead.remove(&ordinal) {
            self.dead_bytes -= letter.payload.len();
        }
    }

    fn redrive(&mut self, ordinal: Ordinal, at: Timestamp, position: Position) {
        let Some(letter) = self.dead.get(&ordinal) else {
            self.tasks.skip_to(Ordinal(self.tasks.next().0 + 1));
            return;
        };
        let letter = Arc::clone(letter);
        let old = &letter.task;
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
        }
    }

    fn join_replica(&mut self, id: ReplicaId, pool: &str, slots: u32) {
        if !self.replicas.knows(id) {
            let pool = self.pool_index(pool);
            self.replicas.join(id, pool, slots);
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
                Phase::Running => {}
            }
        }
        ready.sort_unstable();
        for (position, ordinal) in ready {
            let Some(task) = self.tasks.get(ordinal) else { continue };
            let pool = self.types[usize::from(task.task_type.0)].pool;
            self.pools[pool as usize].queue.push(ordinal, task.priority, position);
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
            Ask::Label(_, _) => {}
        }
    }
    not_before
}
