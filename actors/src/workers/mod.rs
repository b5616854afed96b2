//! Workers of an engine: who they are, who of them waits for attempts, and what is on its way to them.
//!
//! ```text
//!  worker ──lease──▶ Session ──waits──▶ Hub ◀──claims── LogWriter (of each shard)
//!     ▲                 ▲                                   │ decides, commits
//!     └────attempts─────┴────────── deliver ── Dispatcher ◀─┘
//! ```
//! A hub decides nothing: it says who waits, in the order in which they began to, and the log writer of a shard with ready tasks records whom it asked
//! for and what each was given. What a worker may still be given is one number for all shards, so that a worker with two slots never has three attempts;
//! what is not durable yet counts as given.

mod abroad;
mod canary;
mod engines;
pub mod runner;
mod session;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ergate_events::id::ShardId;
use ergate_events::worker::WorkerId;

pub use self::abroad::Abroad;
pub use self::canary::Canary;
use self::canary::Share;
use self::engines::Engines;
use self::session::Begun;
pub use self::session::{AskError, Delivery, Leased, Order, Session, WorkerSpec};
use crate::usage::Own;

/// Most workers that an engine knows at one time: at a few hundred bytes each, some megabytes.
pub const WORKERS_MAX: usize = 10_000;
/// How long a worker may be silent before it is forgotten, once others need its place: longer than any lease, and than any wait for attempts.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1_200);
/// Fewest workers among which it is looked for those that are gone.
const LOOK_FROM: usize = 64;
/// Most workers among which what is ready at one moment is dealt.
const CLAIMS_MAX: usize = 16;

/// Tells a log writer that somebody waits.
type Poke = Arc<dyn Fn() + Send + Sync>;

/// The workers of an engine.
#[derive(Default)]
pub struct Hub {
    sessions: Mutex<Known>,
    /// Who waits for attempts, by pool, the longest first. Who waits no longer is passed over.
    waiting: Mutex<BTreeMap<Arc<str>, VecDeque<Arc<Session>>>>,
    /// How many are in those queues.
    queued: AtomicUsize,
    shards: Mutex<BTreeMap<ShardId, Poke>>,
    /// Where workers find engines.
    engines: Arc<Engines>,
    /// By pool.
    canaries: Mutex<BTreeMap<String, Share>>,
    /// What the engine itself uses.
    own: Own,
}

/// The workers that are known.
#[derive(Default)]
struct Known {
    by_id: BTreeMap<WorkerId, Arc<Session>>,
    /// How many there may be before it is looked for those that are gone.
    look_at: usize,
}

/// What a shard may give a worker now.
pub struct Claim {
    /// The worker.
    pub session: Arc<Session>,
    /// How many attempts.
    pub slots: u32,
    /// The shard that may.
    shard: ShardId,
}

/// Why a worker is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// There are as many as there may be.
    #[error("{WORKERS_MAX} workers are connected, the most that one engine serves")]
    Full,
    /// The same identity came with other facts.
    #[error("a worker of this id is known with another pool, name or lease, or other slots, types or labels; draw a new id")]
    Different,
}

impl Hub {
    /// What the engine itself uses, without its workers.
    pub const fn own(&self) -> &Own {
        &self.own
    }

    /// Gives workers of a new version a share of the work of a pool, as long as there are others.
    pub fn set_canary(&self, pool: &str, canary: Canary) {
        lock(&self.canaries).insert(pool.to_owned(), Share::new(canary));
    }

    /// Takes a worker in, or finds it again.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn join(&self, spec: WorkerSpec) -> Result<Arc<Session>, JoinError> {
        let mut known = lock(&self.sessions);
        if let Some(known) = known.by_id.get(&spec.facts.id) {
            return if *known.spec() == spec { Ok(Arc::clone(known)) } else { Err(JoinError::Different) };
        }
        if known.by_id.len() >= known.look_at {
            self.forget_silent(&mut known, FORGOTTEN_AFTER);
        }
        if known.by_id.len() >= WORKERS_MAX {
            return Err(JoinError::Full);
        }
        let session = Arc::new(Session::new(spec, Arc::clone(&self.engines)));
        known.by_id.insert(session.id(), Arc::clone(&session));
        Ok(session)
    }

    /// Forgets those who came and went without a word.
    fn forget_silent(&self, known: &mut Known, silent_for: Duration) {
        let (gone, here) = std::mem::take(&mut known.by_id).into_iter().partition(|(_, session)| session.silence() >= silent_for);
        known.by_id = here;
        known.look_at = (2 * known.by_id.len()).clamp(LOOK_FROM, WORKERS_MAX);
        let gone: BTreeMap<WorkerId, Arc<Session>> = gone;
        gone.into_values().for_each(|session| self.dismiss(&session));
    }

    /// Lets a worker wait no longer.
    fn dismiss(&self, session: &Session) {
        session.stop_waiting();
        if let Some(queue) = lock(&self.waiting).get_mut(&session.spec().pool) {
            let before = queue.len();
            queue.retain(|waiting| waiting.id() != session.id());
            self.queued.fetch_sub(before - queue.len(), Ordering::AcqRel);
        }
    }

    /// A worker that is known.
    pub fn session(&self, id: WorkerId) -> Option<Arc<Session>> {
        lock(&self.sessions).by_id.get(&id).cloned()
    }

    /// All workers.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        lock(&self.sessions).by_id.values().cloned().collect()
    }

    /// Whether no worker is known.
    pub fn is_empty(&self) -> bool {
        lock(&self.sessions).by_id.is_empty()
    }

    /// Forgets a worker.
    pub fn forget(&self, id: WorkerId) {
        let gone = lock(&self.sessions).by_id.remove(&id);
        if let Some(gone) = gone {
            self.dismiss(&gone);
        }
    }

    /// Tells the log writer of a shard from here on when somebody begins to wait.
    pub(crate) fn add_shard(&self, shard: ShardId, poke: Poke) {
        lock(&self.shards).insert(shard, poke);
    }

    /// Another engine leads a shard from here on. What of it was on its way to workers goes nowhere any more: they tell the new leader what they have,
    /// and what they were not given by then returns to its queue.
    pub fn remove_shard(&self, shard: ShardId) {
        lock(&self.shards).remove(&shard);
        let sessions = self.sessions().into_iter();
        sessions.filter(|session| session.forget_shard(shard)).for_each(|session| self.enqueue(session, false));
        lock(&self.shards).values().for_each(|poke| poke());
    }

    /// Where workers find engines, this one first; none where there is only this one.
    pub fn engines(&self) -> Arc<[String]> {
        self.engines.now().1
    }

    /// Notes where workers find engines, this one first, and tells all workers where that is new.
    pub fn set_engines(&self, urls: Vec<String>) {
        if self.engines.set(urls) {
            self.sessions().iter().for_each(|session| session.look_again());
        }
    }

    /// Lets a worker wait for up to so many attempts, until the answer is dropped; or answers at once what it has asked before under this number.
    ///
    /// # Errors
    /// [`AskError`] when it may not ask under this number.
    pub fn wait(&self, session: &Arc<Session>, seq: u64, slots: u32) -> Result<Asked, AskError> {
        let (wait, is_new) = match session.begin_waiting(seq, slots)? {
            Begun::Again(answer) => return Ok(Asked::Again(answer)),
            Begun::Waits(wait, is_new) => (wait, is_new),
        };
        if is_new {
            self.enqueue(Arc::clone(session), false);
        }
        lock(&self.shards).values().for_each(|poke| poke());
        Ok(Asked::Waits(Waiting { session: Arc::clone(session), wait }))
    }

    /// Whether anybody may be waiting.
    pub(crate) fn is_anybody_waiting(&self) -> bool {
        self.queued.load(Ordering::Acquire) > 0
    }

    /// Those who shall be asked for in this pool, where so many tasks are ready: the longest waiting that may have any of them, until all tasks have a
    /// slot; a burst is spread over several.
    pub(crate) fn claim(&self, shard: ShardId, pool: &str, ready: usize, may_have: impl Fn(&Session) -> bool) -> Vec<Claim> {
        // Before the queues are locked: who forgets workers locks them the other way around.
        let mut quota = self.quota(pool, ready);
        let mut waiting = lock(&self.waiting);
        let Some(queue) = waiting.get_mut(pool) else { return Vec::new() };
        let (mut claims, mut others, mut slots) = (Vec::new(), VecDeque::new(), 0_usize);
        let spread = ready.min(CLAIMS_MAX);
        while slots < ready || claims.len() < spread {
            let Some(session) = queue.pop_front() else { break };
            if !may_have(&session) {
                others.push_back(session);
                continue;
            }
            let left = u32::try_from(ready).unwrap_or(u32::MAX).min(quota.left(&session));
            if left == 0 {
                others.push_back(session);
                continue;
            }
            match session.claim(shard, left) {
                Some(taken) => {
                    slots += taken as usize;
                    quota.take(&session, taken);
                    claims.push(Claim { session, slots: taken, shard });
                }
                None => drop(self.queued.fetch_sub(1, Ordering::AcqRel)),
            }
        }
        others.append(queue);
        *queue = others;
        drop(waiting);
        self.queued.fetch_sub(claims.len(), Ordering::AcqRel);
        claims
    }

    /// How the next attempts of a pool are shared between versions of its workers; they are where there are both.
    fn quota(&self, pool: &str, ready: usize) -> Quota {
        let canaries = lock(&self.canaries);
        let Some(share) = canaries.get(pool) else { return Quota::default() };
        let known = lock(&self.sessions);
        let all = || {
            let of_pool = known.by_id.values().filter(|session| &*session.spec().pool == pool);
            of_pool.filter(|session| session.is_attached() && !session.is_draining())
        };
        let new: BTreeSet<WorkerId> = all().filter(|session| share.is_new(session)).map(|session| session.id()).collect();
        if new.is_empty() || new.len() == all().count() {
            return Quota::default();
        }
        let left = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Quota { new, left: Some((left(share.room(ready as u64)), left(share.others(ready as u64)))) }
    }

    /// Gives back what a claim was not given.
    pub(crate) fn settle(&self, claim: Claim, given: u32) {
        let Claim { session, slots, shard } = claim;
        if let Some(share) = lock(&self.canaries).get_mut(&*session.spec().pool) {
            share.note(share.is_new(&session), u64::from(given));
        }
        if session.settle(shard, slots.saturating_sub(given)) {
            self.enqueue(session, given == 0);
        }
    }

    fn enqueue(&self, session: Arc<Session>, is_first: bool) {
        let pool = Arc::clone(&session.spec().pool);
        let mut waiting = lock(&self.waiting);
        let queue = waiting.entry(pool).or_default();
        if is_first {
            queue.push_front(session);
        } else {
            queue.push_back(session);
        }
        self.queued.fetch_add(1, Ordering::AcqRel);
    }
}

/// What versions of workers may be given of the next attempts of a pool; anything without a canary.
#[derive(Default)]
struct Quota {
    new: BTreeSet<WorkerId>,
    /// What is left for the new version, and for the others.
    left: Option<(u32, u32)>,
}

impl Quota {
    fn left(&self, session: &Session) -> u32 {
        self.left.map_or(u32::MAX, |(new, others)| if self.new.contains(&session.id()) { new } else { others })
    }

    fn take(&mut self, session: &Session, count: u32) {
        let is_new = self.new.contains(&session.id());
        if let Some((new, others)) = &mut self.left {
            let left = if is_new { new } else { others };
            *left = left.saturating_sub(count);
        }
    }
}

/// What becomes of a question.
pub enum Asked {
    /// It was asked before, and had this answer.
    Again(Arc<Leased>),
    /// The worker waits.
    Waits(Waiting),
}

/// A worker that waits; dropped, it does so no longer.
pub struct Waiting {
    session: Arc<Session>,
    wait: u64,
}

impl Waiting {
    /// What there is for the worker as soon as there is anything, as the answer to the question with this number.
    ///
    /// # Errors
    /// [`AskError`] when it waits no longer.
    pub async fn leased(&self, seq: u64) -> Result<Arc<Leased>, AskError> {
        self.session.leased(self.wait, seq).await
    }

    /// What there is right now, be it nothing.
    ///
    /// # Errors
    /// As [`Waiting::leased`].
    pub fn end(self, seq: u64) -> Result<Arc<Leased>, AskError> {
        Ok(self.session.answer(self.wait, seq, true)?.unwrap_or_default())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.session.end_waiting(self.wait);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
