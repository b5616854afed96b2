//! One worker as its engine knows it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ergate_events::id::{Epoch, Ordinal, ShardId};
use ergate_events::worker::{WorkerFacts, WorkerId};
use tokio::sync::Notify;

use super::engines::Engines;
use super::lock;
use crate::effects::Attempts;
use crate::usage::Usage;

/// Bytes of attempts after which an answer is full.
const ANSWER_BYTES: usize = 4 << 20;

/// Most questions of a worker that are remembered as asked more than once: a call that was given up is late by a few questions at most.
const REPEATED_MAX: usize = 64;

/// What a worker came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSpec {
    /// What it says of itself.
    pub facts: Arc<WorkerFacts>,
    /// Its pool.
    pub pool: Arc<str>,
    /// How many attempts it runs at a time.
    pub slots: u32,
}

/// Attempts on their way to a worker: they are its own, and the log says so.
pub struct Delivery {
    /// The shard of their tasks.
    pub shard: ShardId,
    /// The opening of the log in which they were started.
    pub epoch: Epoch,
    /// The names of task types, by their ids.
    pub types: Arc<[Arc<str>]>,
    /// The attempts.
    pub attempts: Attempts,
}

/// What a worker is to do about an attempt that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The shard of its task.
    pub shard: ShardId,
    /// The task.
    pub task: Ordinal,
    /// Which start of it.
    pub attempt: u32,
    /// Whether it no longer counts; else it may clean up first.
    pub is_hard: bool,
}

/// What there is for a worker.
#[derive(Default)]
pub struct Leased {
    /// Attempts that it has not heard of.
    pub deliveries: Vec<Arc<Delivery>>,
    /// What it is to stop.
    pub orders: Vec<Order>,
    /// Whether it is given nothing more: this is the last of what was on its way to it.
    pub is_draining: bool,
    /// Where engines are, where that is not what it was told last.
    pub engines: Option<Arc<[String]>>,
}

/// Why a worker is given nothing now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It has to say first what it runs.
    #[error("this engine does not know what the worker runs: register again, with all that is running")]
    Unattached,
    /// Another question of the same worker came after it.
    #[error("the same worker has asked again since; if that was another process, give each an id of its own")]
    Superseded,
    /// Questions are counted, so that no answer is lost or given twice.
    #[error("question {seq} is out of order, {expected} is next; if two processes have this id, give each its own")]
    OutOfOrder {
        /// Its number.
        seq: u64,
        /// The number that was to come.
        expected: u64,
    },
}

/// How a question begins.
pub(super) enum Begun {
    /// It was asked before, and had this answer.
    Again(Arc<Leased>),
    /// It is this wait; the flag says whether it has to stand in line for it.
    Waits(u64, bool),
}

/// One worker. See the module's documentation.
pub struct Session {
    spec: WorkerSpec,
    state: Mutex<State>,
    news: Notify,
    engines: Arc<Engines>,
}

struct State {
    /// Counts its waits, so that a claim of one is not settled with another.
    wait: u64,
    /// For how many attempts it waits; zero when it does not wait.
    wanted: u32,
    /// Whether it stands in a queue of its hub, or is claimed and comes back to it.
    queued: bool,
    /// How many attempts it was promised by each shard that are not on their way to it yet: the worker does not know of them when it asks again.
    promised: BTreeMap<ShardId, u32>,
    deliveries: Vec<Delivery>,
    orders: Vec<Order>,
    draining: bool,
    /// Whether it has said what it runs since this engine knows it.
    attached: bool,
    /// Whether it is registering: what still comes for it was decided before, and goes back to the queue.
    registering: bool,
    /// The number of its last answer, and that answer until the worker has it.
    answered: (u64, Option<Arc<Leased>>),
    /// Numbers of questions that it has asked more than once, the last few.
    repeated: VecDeque<u64>,
    /// Attempts that have to give signs of life of their own: how often, and the last one.
    beats: BTreeMap<(ShardId, Ordinal, u32), (Duration, Instant)>,
    /// The last sign of life.
    seen: Instant,
    /// When it was given something last.
    leased_at: Instant,
    /// How often the list of engines had changed that it was told last.
    engines_told: u64,
    /// How many attempts at a time it does best with, where it says so.
    concurrency: Option<u32>,
    /// What it said last that it uses, and when.
    usage: Option<(Usage, Instant)>,
    /// When this engine came to know it.
    joined: Instant,
}

impl State {
    /// How many attempts it may still be promised: what it is given beside, it does not know of.
    fn asking(&self) -> u32 {
        let promised: usize = self.promised.values().map(|count| *count as usize).sum();
        let coming = promised + self.deliveries.iter().map(|delivery| delivery.attempts.items.len()).sum::<usize>();
        self.wanted.saturating_sub(u32::try_from(coming).unwrap_or(u32::MAX))
    }

    /// Whether nothing is on its way to it, and nothing will be.
    fn is_through(&self) -> bool {
        self.draining && self.deliveries.is_empty() && self.promised.values().all(|promised| *promised == 0)
    }

    /// So many of the attempts that a shard promised are on their way, or will never be.
    fn keep_promise(&mut self, shard: ShardId, attempts: u32) {
        if let Some(left) = self.promised.get_mut(&shard) {
            *left = left.saturating_sub(attempts);
        }
    }

    /// Whether the worker may ask under this number: each answer is kept until it says, with the next number, that it has it.
    fn check(&mut self, seq: u64) -> Result<Option<Arc<Leased>>, AskError> {
        if !self.attached || self.registering {
            return Err(AskError::Unattached);
        }
        match &self.answered {
            (last, Some(answer)) if *last == seq => Ok(Some(Arc::clone(answer))),
            (last, _) if *last + 1 == seq => {
                self.answered.1 = None;
                Ok(None)
            }
            (last, _) => Err(AskError::OutOfOrder { seq, expected: *last + 1 }),
        }
    }
}

impl Session {
    pub(super) fn new(spec: WorkerSpec, engines: Arc<Engines>) -> Session {
        let now = Instant::now();
        let state = State {
            wait: 0,
            wanted: 0,
            queued: false,
            promised: BTreeMap::new(),
            deliveries: Vec::new(),
            orders: Vec::new(),
            draining: false,
            attached: false,
            registering: false,
            answered: (0, None),
            repeated: VecDeque::new(),
            beats: BTreeMap::new(),
            seen: now,
            leased_at: now,
            engines_told: 0,
            concurrency: None,
            usage: None,
            joined: now,
        };
        Session { spec, state: Mutex::new(state), news: Notify::new(), engines }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Which worker it is.
    pub fn id(&self) -> WorkerId {
        self.spec.facts.id
    }

    /// What it came with.
    pub const fn spec(&self) -> &WorkerSpec {
        &self.spec
    }

    /// Notes a sign of life.
    pub fn touch(&self) {
        self.lock().seen = Instant::now();
    }

    /// How long it has been silent, from the last sign of life or the last attempt that it was given on.
    pub fn silence(&self) -> Duration {
        let state = self.lock();
        state.seen.max(state.leased_at).elapsed()
    }

    /// How many attempts at a time it does best with, where it has said so.
    pub fn concurrency(&self) -> Option<u32> {
        self.lock().concurrency
    }

    /// Notes how many attempts at a time it does best with.
    pub fn set_concurrency(&self, concurrency: u32) {
        self.lock().concurrency = Some(concurrency);
    }

    /// Notes what it says that it uses.
    pub fn set_usage(&self, usage: Usage) {
        self.lock().usage = Some((usage, Instant::now()));
    }

    /// What it said last that it uses, and how long ago; `None` where it said nothing yet, or nothing for this long.
    pub fn usage(&self, within: Duration) -> Option<(Usage, Duration)> {
        let (usage, at) = self.lock().usage?;
        Some((usage, at.elapsed())).filter(|(_, ago)| *ago < within)
    }

    /// For how long this engine has known it.
    pub fn age(&self) -> Duration {
        self.lock().joined.elapsed()
    }

    /// Whether it has said what it runs since this engine knows it.
    pub fn is_attached(&self) -> bool {
        self.lock().attached
    }

    /// It says what it runs: what was on its way to it is forgotten, and comes back if it is not among that. It is given nothing until
    /// [`Session::attached`].
    pub fn attach(&self) {
        let mut state = self.lock();
        (state.attached, state.registering, state.seen) = (true, true, Instant::now());
        state.deliveries.clear();
        state.promised.clear();
        state.orders.clear();
        state.answered = (0, None);
        state.repeated.clear();
        // The answer to its registration tells them.
        state.engines_told = self.engines.now().0;
        // A question that waits from before would be answered under a number that the worker no longer counts from.
        (state.wait, state.wanted) = (state.wait + 1, 0);
        drop(state);
        self.news.notify_waiters();
    }

    /// All shards have heard what it runs.
    pub fn attached(&self) {
        self.lock().registering = false;
    }

    /// It has to say again what it runs, for something on its way to it may be lost. Until then it waits for nothing.
    pub(crate) fn detach(&self) {
        let mut state = self.lock();
        (state.attached, state.wanted) = (false, 0);
        drop(state);
        self.news.notify_waiters();
    }

    /// Lets it look again whether there is anything for it.
    pub(super) fn look_again(&self) {
        self.news.notify_waiters();
    }

    /// Forgets what of a shard was on its way to it, or may be asked for again; says whether it has to stand in line for what it was promised by that.
    pub(super) fn forget_shard(&self, shard: ShardId) -> bool {
        let mut state = self.lock();
        state.deliveries.retain(|delivery| delivery.shard != shard);
        state.promised.remove(&shard);
        state.orders.retain(|order| order.shard != shard);
        state.beats.retain(|(of, ..), _| *of != shard);
        if let Some(answer) = state.answered.1.take() {
            let Leased { deliveries, orders, is_draining, engines } = &*answer;
            let deliveries = deliveries.iter().filter(|delivery| delivery.shard != shard).cloned().collect();
            let orders = orders.iter().filter(|order| order.shard != shard).copied().collect();
            state.answered.1 = Some(Arc::new(Leased { deliveries, orders, is_draining: *is_draining, engines: engines.clone() }));
        }
        let is_new = state.asking() > 0 && !state.queued;
        state.queued |= is_new;
        is_new
    }

    /// Gives it nothing more.
    pub fn drain(&self) {
        let mut state = self.lock();
        (state.draining, state.wanted) = (true, 0);
        drop(state);
        self.news.notify_waiters();
    }

    /// Whether it is given nothing more.
    pub fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// It asks again under this number: what it has asked before under it may come later than this, from the same process.
    pub fn repeats(&self, seq: u64) {
        let mut state = self.lock();
        if state.repeated.len() >= REPEATED_MAX {
            state.repeated.pop_front();
        }
        state.repeated.push_back(seq);
    }

    /// Begins a wait, which ends the one before. The number is looked at under the same lock: an answer that the wait before is given in
    /// between would be lost.
    ///
    /// # Errors
    /// [`AskError`] when it may not ask under this number.
    pub(super) fn begin_waiting(&self, seq: u64, slots: u32) -> Result<Begun, AskError> {
        let mut state = self.lock();
        state.seen = Instant::now();
        match state.check(seq) {
            Ok(None) => {}
            Ok(Some(again)) => return Ok(Begun::Again(again)),
            Err(error) => {
                if matches!(error, AskError::OutOfOrder { .. }) && !state.repeated.contains(&seq) {
                    // Two processes have this id, and the other one would keep alive what this one has: it says first what is its own.
                    (state.attached, state.wanted) = (false, 0);
                    drop(state);
                    self.news.notify_waiters();
                }
                return Err(error);
            }
        }
        state.wait += 1;
        state.wanted = if state.draining { 0 } else { slots.min(self.spec.slots) };
        let is_new = state.asking() > 0 && !state.queued;
        state.queued |= is_new;
        let wait = state.wait;
        drop(state);
        // Whoever waited before is told that it does so no longer.
        self.news.notify_waiters();
        Ok(Begun::Waits(wait, is_new))
    }

    pub(super) fn end_waiting(&self, wait: u64) {
        let mut state = self.lock();
        if state.wait == wait {
            state.wanted = 0;
        }
    }

    pub(super) fn stop_waiting(&self) {
        self.lock().wanted = 0;
    }

    /// Takes up to so many of the attempts that it waits for; `None` when it does not wait, and then it stands in line no longer.
    pub(super) fn claim(&self, shard: ShardId, most: u32) -> Option<u32> {
        let mut state = self.lock();
        let taken = state.asking().min(most);
        if taken == 0 {
            state.queued = false;
            return None;
        }
        *state.promised.entry(shard).or_default() += taken;
        Some(taken)
    }

    /// Takes back what it was not given of a claim; says whether it stands in line again.
    pub(super) fn settle(&self, shard: ShardId, left: u32) -> bool {
        let mut state = self.lock();
        state.keep_promise(shard, left);
        state.queued = state.asking() > 0;
        let (is_queued, is_through) = (state.queued, state.is_through());
        drop(state);
        if is_through {
            self.news.notify_waiters();
        }
        is_queued
    }

    /// Puts attempts on their way to it. They are its own from now on, so its lease begins.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        let (mut state, now) = (self.lock(), Instant::now());
        state.keep_promise(delivery.shard, u32::try_from(delivery.attempts.items.len()).unwrap_or(u32::MAX));
        if !state.attached || state.registering {
            // It did not name them among what it runs, or cannot have yet: they are given back when it registers.
            return;
        }
        let watched = delivery.attempts.items.iter().filter_map(|attempt| Some((attempt, attempt.heartbeat?)));
        let beats = watched.map(|(attempt, limit)| ((delivery.shard, attempt.task, attempt.number), (limit.to_std(), now)));
        state.beats.extend(beats);
        state.deliveries.push(delivery);
        state.leased_at = now;
        drop(state);
        self.news.notify_waiters();
    }

    /// Notes a sign of life of one of its attempts.
    pub fn beat(&self, shard: ShardId, task: Ordinal, attempt: u32) {
        if let Some((_, last)) = self.lock().beats.get_mut(&(shard, task, attempt)) {
            *last = Instant::now();
        }
    }

    /// One of its attempts is over.
    pub fn end_attempt(&self, shard: ShardId, task: Ordinal, attempt: u32) {
        let mut state = self.lock();
        if !state.beats.is_empty() {
            state.beats.remove(&(shard, task, attempt));
        }
        if !state.orders.is_empty() {
            state.orders.retain(|order| (order.shard, order.task, order.attempt) != (shard, task, attempt));
        }
    }

    /// Attempts of a shard that gave no sign of life in time, each once, and for how long they have been silent.
    pub(crate) fn take_silent(&self, of: ShardId) -> Vec<(Ordinal, u32, Duration)> {
        let mut state = self.lock();
        let silent = state.beats.iter().filter(|((shard, ..), (limit, last))| *shard == of && last.elapsed() > *limit);
        let silent: Vec<_> = silent.map(|((_, task, attempt), (_, last))| (*task, *attempt, last.elapsed())).collect();
        for (task, attempt, _) in &silent {
            state.beats.remove(&(of, *task, *attempt));
        }
        silent
    }

    /// Tells it to stop an attempt.
    pub(crate) fn order(&self, order: Order) {
        self.lock().orders.push(order);
        self.news.notify_waiters();
    }

    /// What there is for it, as soon as there is anything: the answer with this number.
    pub(super) async fn leased(&self, wait: u64, seq: u64) -> Result<Arc<Leased>, AskError> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // From here on nothing is missed.
            news.as_mut().enable();
            if let Some(answer) = self.answer(wait, seq, false)? {
                return Ok(answer);
            }
            news.await;
        }
    }

    /// What there is for it right now, if anything: the answer with this number. `is_last` answers also where there is nothing.
    pub(super) fn answer(&self, wait: u64, seq: u64, is_last: bool) -> Result<Option<Arc<Leased>>, AskError> {
        let mut state = self.lock();
        if !state.attached {
            return Err(AskError::Unattached);
        }
        if state.wait != wait {
            return Err(AskError::Superseded);
        }
        let (changes, engines) = self.engines.now();
        let engines = (changes != state.engines_told).then_some(engines);
        let is_empty = state.deliveries.is_empty() && state.orders.is_empty() && engines.is_none();
        if is_empty && !is_last && !state.is_through() {
            return Ok(None);
        }
        state.engines_told = changes;
        let orders = std::mem::take(&mut state.orders);
        let deliveries = take_some(&mut state.deliveries);
        let answer = Arc::new(Leased { deliveries, orders, is_draining: state.is_through(), engines });
        state.wanted = 0;
        state.answered = (seq, Some(Arc::clone(&answer)));
        Ok(Some(answer))
    }

    /// What it is to stop, where it is not told with new attempts. An answer may be lost, so it is told again until it was told in an answer that the
    /// worker says it has, or the attempt is over.
    pub fn orders(&self) -> Vec<Order> {
        self.lock().orders.clone()
    }
}

/// Takes attempts for one answer, as many as fit; the first always does.
fn take_some(waiting: &mut Vec<Delivery>) -> Vec<Arc<Delivery>> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    while bytes < ANSWER_BYTES && !waiting.is_empty() {
        let Delivery { shard, epoch, types, mut attempts } = waiting.remove(0);
        let rest = attempts.split_behind(ANSWER_BYTES - bytes);
        bytes += attempts.len_in_bytes();
        taken.push(Arc::new(Delivery { shard, epoch, types: Arc::clone(&types), attempts }));
        if !rest.items.is_empty() {
            waiting.insert(0, Delivery { shard, epoch, types, attempts: rest });
            break;
        }
    }
    taken
}
