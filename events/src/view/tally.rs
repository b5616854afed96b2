//! What is counted of a shard for metrics: by task type, from events alone.

use std::collections::{BTreeMap, VecDeque};

use super::waiting::Waiting;
use super::{ReplicaTime, Spans};
use crate::event::{Envelope, Event, Timeout};
use crate::id::{Ordinal, PoolId, Position, ReplicaId, TypeId};
use crate::scaling::measure::STARTS_MAX;
use crate::slab::Phase;
use crate::state::State;
use crate::state::control::{Control, ReplicaPhase};
use crate::task::{Ask, Dependency, Outcome};
use crate::time::{Micros, Timestamp};
use crate::worker::WORKER_FIRST;

/// What happened to the tasks of a type since the tally began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that became tasks.
    pub requests: u64,
    /// Requests that repeated an earlier one.
    pub deduplicated: u64,
    /// Dead letters that became new tasks.
    pub redrives: u64,
    /// Attempts started.
    pub attempts: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Attempts that were lost with their replica, or returned by one that was drained.
    pub lost: u64,
    /// Timeouts, in the order of [`TIMEOUTS`].
    pub timeouts: [u64; TIMEOUTS.len()],
    /// Further attempts scheduled.
    pub retries: u64,
    /// Times that a limit kept a task from being ready.
    pub limited: u64,
    /// Ended tasks, in the order of [`Outcome::ALL`].
    pub ended: [u64; Outcome::ALL.len()],
    /// Tasks that failed for good and were kept.
    pub dead_letters: u64,
    /// From ready to started, of each attempt.
    pub waits: Spans,
    /// From started to the end of the attempt, unless it was lost.
    pub runs: Spans,
}

/// How long replicas took to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    /// How many did.
    pub count: u64,
    /// The last of them, the newest last; at most [`STARTS_MAX`].
    pub last: VecDeque<Micros>,
}

/// All timeouts, with their names.
pub const TIMEOUTS: [(Timeout, &str); 5] = [
    (Timeout::ScheduleToStart, "schedule_to_start"),
    (Timeout::StartToClose, "start_to_close"),
    (Timeout::ScheduleToClose, "schedule_to_close"),
    (Timeout::Heartbeat, "heartbeat"),
    (Timeout::CancelGrace, "cancel_grace"),
];

/// All phases of a live task, with their names.
pub const PHASES: [(Phase, &str); 7] = [
    (Phase::Held, "held"),
    (Phase::Delayed, "delayed"),
    (Phase::Limited, "limited"),
    (Phase::Ready, "ready"),
    (Phase::Running, "running"),
    (Phase::Cancelling, "cancelling"),
    (Phase::Backoff, "backoff"),
];

impl Counts {
    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.deduplicated += other.deduplicated;
        self.redrives += other.redrives;
        self.attempts += other.attempts;
        self.failures += other.failures;
        self.lost += other.lost;
        self.timeouts.iter_mut().zip(other.timeouts).for_each(|(count, more)| *count += more);
        self.retries += other.retries;
        self.limited += other.limited;
        self.ended.iter_mut().zip(other.ended).for_each(|(count, more)| *count += more);
        self.dead_letters += other.dead_letters;
        self.waits.merge(&other.waits);
        self.runs.merge(&other.runs);
    }
}

/// What is there of a task type, and what happened to it.
#[derive(Clone, Debug, Default)]
pub struct TypeTally {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// What happened.
    pub counts: Counts,
    /// Dead letters that are kept.
    pub dead: u64,
    /// Live tasks, in the order of [`PHASES`].
    pub phases: [u64; PHASES.len()],
    /// Those that are ready.
    queue: Waiting,
    is_limited: bool,
}

impl TypeTally {
    /// Tasks that are ready and have no slot.
    pub const fn depth(&self) -> u64 {
        self.queue.count()
    }

    /// Since when the oldest of them is ready; at most a tenth of a second, or 0.2 % of its age, too early.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.queue.oldest()
    }

    fn enter(&mut self, live: Live) {
        self.phases[index(live.phase)] += 1;
        if live.phase == Phase::Ready {
            self.queue.enter(live.since);
        }
    }

    fn leave(&mut self, live: Live) {
        self.phases[index(live.phase)] -= 1;
        if live.phase == Phase::Ready {
            self.queue.leave(live.since);
        }
    }
}

/// Counts of a shard, and what is there, up to a position.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// True up to here.
    pub position: Position,
    /// By [`TypeId`]; a redefined name has several.
    pub types: Vec<TypeTally>,
    /// Pools and their replicas.
    pub control: Control,
    /// How long replicas were there since the tally began.
    pub replica_time: ReplicaTime,
    /// Request records that were refused.
    pub refused: u64,
    /// Offset of the next request record, where requests come from a topic.
    pub source_next: u64,
    /// Starts of replicas by pool, from asking for one until it was up: how many there were, and the last of them.
    pub starts: BTreeMap<PoolId, Starts>,
    /// When replicas were asked for that are not up yet.
    starting: BTreeMap<ReplicaId, (PoolId, Timestamp)>,
    /// Pools and sizes of the replicas that are there.
    slots: BTreeMap<ReplicaId, (String, u64)>,
    dead: BTreeMap<Ordinal, TypeId>,
    next: Ordinal,
    tasks: Tasks,
    /// Held tasks that are to wait for a moment after that.
    held_until: BTreeMap<Ordinal, Timestamp>,
}

impl Tally {
    /// What is there in a state; nothing has happened yet.
    pub fn of(state: &State) -> Tally {
        let work = &state.work;
        let mut tally = Tally {
            position: state.position,
            control: state.control.clone(),
            replica_time: ReplicaTime::of(&state.control, state.last_at),
            source_next: work.source_next,
            next: state.next_ordinal(),
            ..Tally::default()
        };
        for (definition, id) in work.types.iter().zip(0..=u16::MAX) {
            tally.define(&definition.name, &definition.settings.pool);
            tally.set_limited(TypeId(id), work.flow.limits(TypeId(id)));
        }
        for (id, replica) in work.replicas.iter() {
            let pool = work.pools.get(replica.pool as usize).map_or_else(String::new, |pool| pool.name.clone());
            tally.slots.insert(id, (pool, replica.size() as u64));
        }
        work.dead.iter().for_each(|(ordinal, letter)| tally.bury(*ordinal, letter.task.task_type));
        let mut tasks: Vec<_> = work.tasks.iter().map(|(ordinal, task, _)| (task.ready_at, ordinal, task)).collect();
        tasks.sort_unstable_by_key(|(ready_at, ordinal, _)| (*ready_at, *ordinal));
        for (ready_at, ordinal, task) in tasks {
            // How long attempts ran already is not known any more; they count from here.
            let since = if task.has_slot() { state.last_at } else { ready_at };
            tally.insert(ordinal, Live { task_type: task.task_type, phase: task.phase, since });
        }
        let until = work.holds.iter().filter_map(|(task, hold)| Some((task, hold.not_before?)));
        tally.held_until = until.filter(|(_, due)| *due > state.last_at).collect();
        tally
    }

    /// Slots of the replicas that are there, by pool.
    pub fn slots(&self) -> impl Iterator<Item = (&str, u64)> {
        self.slots.values().map(|(pool, slots)| (pool.as_str(), *slots))
    }

    /// How many workers of a pool there are, and how many slots they have.
    pub fn workers(&self, pool: &str) -> (usize, u64) {
        let own = self.slots.range(WORKER_FIRST..).filter(|(_, (known, _))| known == pool);
        own.fold((0, 0), |(count, slots), (_, (_, more))| (count + 1, slots + more))
    }

    /// Whether a pool has replicas that are no workers: threads of the engine.
    pub fn has_threads(&self, pool: &str) -> bool {
        self.slots.range(..WORKER_FIRST).any(|(_, (known, _))| known == pool)
    }

    /// Replicas by pool and phase.
    pub fn replicas(&self) -> impl Iterator<Item = (&str, ReplicaPhase)> {
        let pool = |id: usize| self.control.pools.get(id).map(|pool| pool.name.as_str());
        self.control.replicas.values().filter_map(move |life| Some((pool(usize::from(life.pool.0))?, life.phase)))
    }

    /// Folds one event. What cannot be meant for this tally changes nothing.
    pub fn apply(&mut self, envelope: &Envelope<'_>) {
        let at = envelope.recorded_at;
        // First, so that an event that is trouble is not folded again.
        self.position = envelope.position.next();
        self.source_next = self.source_next.saturating_add(u64::from(envelope.event.answers_record()));
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events are of the control half, or not counted")]
        match envelope.event {
            Event::Requested { task_type, ref asks, .. } => self.request(task_type, asks, at),
            Event::Redriven { task, .. } => self.redrive(task, at),
            Event::Deduplicated { task_type, .. } => self.count(task_type, |counts| counts.deduplicated += 1),
            Event::RequestRefused { .. } => self.refused += 1,
            Event::SourceMoved { next } => self.source_next = next,
            Event::Started { task, .. } => self.start(task, at),
            Event::Succeeded { task, outcome, .. } | Event::Ended { task, outcome, .. } => drop(self.end(task, outcome, at)),
            Event::DeadLettered { task, .. } => self.dead_letter(task, at),
            Event::DeadLetterDropped { task } => drop(self.exhume(task)),
            Event::Failed { task, .. } => {
                self.leave_slot(task, at, |counts| counts.failures += 1);
            }
            Event::TimedOut { task, timeout, .. } => self.time_out(task, timeout, at),
            Event::RetryScheduled { task, .. } => self.count_of(task, |counts| counts.retries += 1),
            Event::Limited { task, .. } => self.count_of(task, |counts| counts.limited += 1),
            Event::Ready { task } => self.make_ready(task, at),
            Event::DependencyMet { task, left: 0, .. } => self.release(task, at),
            Event::Admitted { task } => self.change(task, |phase| phase == Phase::Limited, Phase::Ready, at),
            Event::Lost { task, .. } => {
                self.count_of(task, |counts| counts.lost += 1);
                self.change(task, has_slot, Phase::Ready, at);
            }
            Event::CancelRequested { task, .. } => self.cancel(task),
            Event::TypeDefined { task_type, name, ref settings, .. } if usize::from(task_type.0) == self.types.len() => {
                self.define(name, &settings.pool);
            }
            Event::TypeLimited { task_type, ref limits, .. } => self.set_limited(task_type, !limits.is_empty()),
            Event::ReplicaJoined { replica, pool, slots } | Event::WorkerJoined { replica, pool, slots, .. } => {
                self.slots.entry(replica).or_insert_with(|| (pool.to_owned(), u64::from(slots)));
            }
            Event::ReplicaLeft { replica, .. } | Event::WorkerMissed { replica, .. } => drop(self.slots.remove(&replica)),
            _ => {
                self.replica_time.apply(envelope);
                self.note_start(&envelope.event, at);
                self.control.apply(envelope);
            }
        }
    }

    /// Notes when a replica is asked for, and how long it took until it is up.
    fn note_start(&mut self, event: &Event<'_>, at: Timestamp) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events say nothing of starts")]
        match *event {
            Event::ReplicaRequested { replica, pool } => drop(self.starting.insert(replica, (pool, at))),
            Event::ReplicaReady { replica } => {
                let Some((pool, since)) = self.starting.remove(&replica) else { return };
                let starts = self.starts.entry(pool).or_default();
                starts.count += 1;
                starts.last.push_back(at.since(since));
                if starts.last.len() > STARTS_MAX {
                    starts.last.pop_front();
                }
            }
            Event::DrainRequested { replica } | Event::ReplicaStopped { replica, .. } => drop(self.starting.remove(&replica)),
            _ => {}
        }
    }

    fn define(&mut self, name: &str, pool: &str) {
        self.types.push(TypeTally { name: name.to_owned(), pool: pool.to_owned(), ..TypeTally::default() });
    }

    fn set_limited(&mut self, id: TypeId, is_limited: bool) {
        if let Some(tally) = self.types.get_mut(usize::from(id.0)) {
            tally.is_limited = is_limited;
        }
    }

    fn is_limited(&self, id: TypeId) -> bool {
        self.types.get(usize::from(id.0)).is_some_and(|tally| tally.is_limited)
    }

    fn request(&mut self, task_type: TypeId, asks: &[Ask<'_>], at: Timestamp) {
        let not_before = asks.iter().rev().find_map(|ask| if let Ask::NotBefore(due) = ask { Some(*due) } else { None });
        let not_before = not_before.filter(|due| *due > at);
        let is_held = asks.iter().any(|ask| matches!(ask, Ask::After(Dependency::Task(_))));
        if is_held && let Some(due) = not_before {
            self.held_until.insert(self.next, due);
        }
        let phase = if is_held { Phase::Held } else { self.phase(task_type, not_before.is_some()) };
        self.create(task_type, phase, at);
        self.count(task_type, |counts| counts.requests += 1);
    }

    fn redrive(&mut self, task: Ordinal, at: Timestamp) {
        match self.exhume(task) {
            Some(task_type) => {
                self.create(task_type, self.phase(task_type, false), at);
                self.count(task_type, |counts| counts.redrives += 1);
            }
            None => self.next = Ordinal(self.next.0 + 1),
        }
    }

    /// Where a task goes that no other task keeps.
    fn phase(&self, task_type: TypeId, is_delayed: bool) -> Phase {
        match (is_delayed, self.is_limited(task_type)) {
            (true, _) => Phase::Delayed,
            (false, true) => Phase::Limited,
            (false, false) => Phase::Ready,
        }
    }

    /// Lets a task go on whose last dependency has ended.
    fn release(&mut self, task: Ordinal, at: Timestamp) {
        let Some(live) = self.tasks.get(task) else { return };
        let is_delayed = self.held_until.remove(&task).is_some_and(|due| due > at);
        self.change(task, |phase| phase == Phase::Held, self.phase(live.task_type, is_delayed), at);
    }

    fn create(&mut self, task_type: TypeId, phase: Phase, at: Timestamp) {
        let ordinal = self.next;
        self.next = Ordinal(ordinal.0 + 1);
        self.insert(ordinal, Live { task_type, phase, since: at });
    }

    fn insert(&mut self, ordinal: Ordinal, live: Live) {
        if let Some(tally) = self.types.get_mut(usize::from(live.task_type.0)) {
            tally.enter(live);
            self.tasks.insert(ordinal, live);
        }
    }

    fn start(&mut self, task: Ordinal, at: Timestamp) {
        let Some(live) = self.tasks.get(task).filter(|live| live.phase == Phase::Ready) else { return };
        self.change(task, |_| true, Phase::Running, at);
        self.count(live.task_type, |counts| {
            counts.attempts += 1;
            counts.waits.record(at.since(live.since));
        });
    }

    /// Takes a task out; says of which type it was.
    fn end(&mut self, task: Ordinal, outcome: Outcome, at: Timestamp) -> Option<TypeId> {
        let live = self.tasks.remove(task)?;
        if live.phase == Phase::Held {
            self.held_until.remove(&task);
        }
        let tally = self.types.get_mut(usize::from(live.task_type.0))?;
        tally.leave(live);
        if has_slot(live.phase) {
            tally.counts.runs.record(at.since(live.since));
        }
        if let Some(index) = Outcome::ALL.iter().position(|known| *known == outcome) {
            tally.counts.ended[index] += 1;
        }
        Some(live.task_type)
    }

    fn dead_letter(&mut self, task: Ordinal, at: Timestamp) {
        if let Some(task_type) = self.end(task, Outcome::Failed, at) {
            self.bury(task, task_type);
            self.count(task_type, |counts| counts.dead_letters += 1);
        }
    }

    fn bury(&mut self, task: Ordinal, task_type: TypeId) {
        self.dead.insert(task, task_type);
        if let Some(tally) = self.types.get_mut(usize::from(task_type.0)) {
            tally.dead += 1;
        }
    }

    fn exhume(&mut self, task: Ordinal) -> Option<TypeId> {
        let task_type = self.dead.remove(&task)?;
        if let Some(tally) = self.types.get_mut(usize::from(task_type.0)) {
            tally.dead -= 1;
        }
        Some(task_type)
    }

    fn time_out(&mut self, task: Ordinal, timeout: Timeout, at: Timestamp) {
        let count = |counts: &mut Counts| {
            if let Some(index) = TIMEOUTS.iter().position(|(known, _)| *known == timeout) {
                counts.timeouts[index] += 1;
            }
        };
        match timeout {
            Timeout::StartToClose | Timeout::Heartbeat => self.leave_slot(task, at, count),
            Timeout::ScheduleToStart | Timeout::ScheduleToClose | Timeout::CancelGrace => self.count_of(task, count),
        }
    }

    /// Ends an attempt; what follows says when the next one comes, or that there is none.
    fn leave_slot(&mut self, task: Ordinal, at: Timestamp, count: impl FnOnce(&mut Counts)) {
        let Some(live) = self.tasks.get(task).filter(|live| has_slot(live.phase)) else { return };
        self.change(task, |_| true, Phase::Backoff, at);
        self.count(live.task_type, |counts| {
            count(counts);
            counts.runs.record(at.since(live.since));
        });
    }

    fn make_ready(&mut self, task: Ordinal, at: Timestamp) {
        let Some(live) = self.tasks.get(task) else { return };
        let phase = if self.is_limited(live.task_type) { Phase::Limited } else { Phase::Ready };
        self.change(task, |phase| matches!(phase, Phase::Delayed | Phase::Backoff), phase, at);
    }

    /// An attempt that is told to stop runs on until it does.
    fn cancel(&mut self, task: Ordinal) {
        if let Some(live) = self.tasks.get(task) {
            self.change(task, |phase| phase == Phase::Running, Phase::Cancelling, live.since);
        }
    }

    /// Moves a task to another phase, if its phase is one to move from.
    fn change(&mut self, task: Ordinal, is_from: impl FnOnce(Phase) -> bool, phase: Phase, since: Timestamp) {
        let Some(live) = self.tasks.get(task).filter(|live| is_from(live.phase)) else { return };
        let changed = Live { phase, since, ..live };
        self.tasks.set(task, changed);
        if let Some(tally) = self.types.get_mut(usize::from(live.task_type.0)) {
            tally.leave(live);
            tally.enter(changed);
        }
    }

    fn count(&mut self, task_type: TypeId, count: impl FnOnce(&mut Counts)) {
        if let Some(tally) = self.types.get_mut(usize::from(task_type.0)) {
            count(&mut tally.counts);
        }
    }

    fn count_of(&mut self, task: Ordinal, change: impl FnOnce(&mut Counts)) {
        if let Some(live) = self.tasks.get(task) {
            self.count(live.task_type, change);
        }
    }
}

const fn has_slot(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Cancelling)
}

/// The place of a phase in [`PHASES`].
const fn index(phase: Phase) -> usize {
    match phase {
        Phase::Held => 0,
        Phase::Delayed => 1,
        Phase::Limited => 2,
        Phase::Ready => 3,
        Phase::Running => 4,
        Phase::Cancelling => 5,
        Phase::Backoff => 6,
    }
}

/// A live task.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Live {
    /// When it became ready, or its attempt started.
    since: Timestamp,
    task_type: TypeId,
    phase: Phase,
}

/// Tasks in a page of [`Tasks`].
const PAGE: u64 = 256;

/// Live tasks: pages by ordinal, freed when they are empty; 16 bytes a task.
#[derive(Clone, Debug, Default)]
struct Tasks {
    first: u64,
    pages: VecDeque<Option<Box<Page>>>,
}

#[derive(Clone, Debug)]
struct Page {
    tasks: [Option<Live>; PAGE as usize],
    live: u32,
}

impl Tasks {
    /// The page of a task, if it is there.
    fn page(&self, task: Ordinal) -> Option<usize> {
        let index = usize::try_from((task.0 / PAGE).checked_sub(self.first)?).ok()?;
        (index < self.pages.len()).then_some(index)
    }

    fn get(&self, task: Ordinal) -> Option<Live> {
        self.pages[self.page(task)?].as_ref()?.tasks[(task.0 % PAGE) as usize]
    }

    fn set(&mut self, task: Ordinal, live: Live) {
        if let Some(index) = self.page(task)
            && let Some(page) = &mut self.pages[index]
        {
            page.tasks[(task.0 % PAGE) as usize] = Some(live);
        }
    }

    fn insert(&mut self, task: Ordinal, live: Live) {
        let number = task.0 / PAGE;
        if self.pages.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.pages.push_front(None);
            self.first -= 1;
        }
        while self.first + self.pages.len() as u64 <= number {
            self.pages.push_back(None);
        }
        let page = self.pages[(number - self.first) as usize]
            .get_or_insert_with(|| Box::new(Page { tasks: [None; PAGE as usize], live: 0 }));
        page.tasks[(task.0 % PAGE) as usize] = Some(live);
        page.live += 1;
    }

    fn remove(&mut self, task: Ordinal) -> Option<Live> {
        let index = self.page(task)?;
        let page = self.pages[index].as_mut()?;
        let live = page.tasks[(task.0 % PAGE) as usize].take()?;
        page.live -= 1;
        if page.live == 0 {
            self.pages[index] = None;
        }
        while let Some(None) = self.pages.front() {
            self.pages.pop_front();
            self.first += 1;
        }
        Some(live)
    }
}
