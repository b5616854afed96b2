//! How far the work is: counts, backlog, replicas and waits.

use std::collections::{BTreeMap, VecDeque};

use super::Histogram;
use crate::event::{Envelope, Event, Timeout};
use crate::id::{Ordinal, PoolId, Position, ReplicaId};
use crate::state::State;
use crate::state::control::ReplicaPhase;
use crate::task::Outcome;
use crate::time::Timestamp;

/// Counts and waits of everything up to a position.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// True up to here.
    pub position: Position,
    /// Time of the last event.
    pub at: Timestamp,
    /// Tasks created.
    pub requested: u64,
    /// Attempts started.
    pub started: u64,
    /// Attempts that failed, timed out or were lost.
    pub unsuccessful: u64,
    /// Requests that repeated an earlier one.
    pub deduplicated: u64,
    /// Ended tasks by outcome, in the order of [`Outcome::ALL`].
    pub ended: [u64; 5],
    /// Attempts that have a slot.
    pub running: u64,
    /// Replicas that are up, by pool.
    pub replicas: BTreeMap<String, i64>,
    /// Waits from request to first start.
    pub start_waits: Histogram,
    /// Waits from request to end.
    pub end_waits: Histogram,
    next: Ordinal,
    ages: Ages,
    pools: Vec<String>,
    /// Pools of replicas that were asked for, and whether they came up.
    pool_of: BTreeMap<ReplicaId, (PoolId, bool)>,
}

impl Progress {
    /// The view of a state; how long tasks that have ended before had waited is not known any more.
    pub fn of(state: &State) -> Progress {
        let work = &state.work;
        let mut progress = Progress {
            position: state.position,
            at: state.last_at,
            requested: state.next_ordinal().0,
            ended: work.ended,
            next: state.next_ordinal(),
            pools: state.control.pools.iter().map(|pool| pool.name.clone()).collect(),
            ..Progress::default()
        };
        for (ordinal, task, _) in work.tasks.iter() {
            progress.ages.insert(ordinal, task.requested_at);
            progress.running += u64::from(task.has_slot() && progress.ages.set_running(ordinal, true));
        }
        for (replica, life) in &state.control.replicas {
            progress.pool_of.insert(*replica, (life.pool, false));
            if life.phase != ReplicaPhase::Requested {
                progress.replica_up(*replica);
            }
        }
        progress
    }

    /// Adds the counts and waits of another shard. The sum shows how far several shards are and folds no events any more: its position
    /// is the number of events of all, its time that of the newest.
    pub fn merge(&mut self, other: &Progress) {
        self.position = Position(self.position.0 + other.position.0);
        self.at = self.at.max(other.at);
        self.requested += other.requested;
        self.started += other.started;
        self.unsuccessful += other.unsuccessful;
        self.deduplicated += other.deduplicated;
        self.ended.iter_mut().zip(other.ended).for_each(|(count, more)| *count += more);
        self.running += other.running;
        for (pool, count) in &other.replicas {
            *self.replicas.entry(pool.clone()).or_default() += count;
        }
        self.start_waits.merge(&other.start_waits);
        self.end_waits.merge(&other.end_waits);
    }

    /// Tasks that have ended.
    pub fn done(&self) -> u64 {
        self.ended.iter().sum()
    }

    /// Tasks that have not ended.
    pub fn live(&self) -> u64 {
        self.requested.saturating_sub(self.done())
    }

    /// Tasks that have neither ended nor a slot.
    pub fn backlog(&self) -> u64 {
        self.live().saturating_sub(self.running)
    }

    /// Replicas that are up in all pools.
    pub fn replicas_total(&self) -> i64 {
        self.replicas.values().sum()
    }

    /// Folds one event.
    pub fn apply(&mut self, envelope: &Envelope<'_>) {
        let at = envelope.recorded_at;
        self.position = envelope.position.next();
        self.at = at;
        if envelope.event.creates_task() {
            self.requested += 1;
            self.ages.insert(self.next, at);
            self.next = Ordinal(self.next.0 + 1);
        }
        if let Some((task, outcome)) = envelope.event.ends() {
            self.end(task, outcome, at);
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events are not counted")]
        match envelope.event {
            Event::Started { task, attempt, .. } => {
                self.started += 1;
                self.running += u64::from(self.ages.set_running(task, true));
                if attempt == 1
                    && let Some(requested) = self.ages.get(task)
                {
                    self.start_waits.record(at.since(requested));
                }
            }
            Event::Failed { task, .. } | Event::Lost { task, .. } => self.fail(task),
            Event::TimedOut { task, timeout: Timeout::StartToClose | Timeout::Heartbeat, .. } => self.fail(task),
            Event::Deduplicated { .. } => self.deduplicated += 1,
            Event::PoolDefined { name, .. } if !self.pools.iter().any(|known| known == name) => self.pools.push(name.to_owned()),
            Event::ReplicaRequested { replica, pool } => drop(self.pool_of.insert(replica, (pool, false))),
            Event::ReplicaReady { replica } => self.replica_up(replica),
            Event::ReplicaStopped { replica, .. } => self.replica_down(replica),
            _ => {}
        }
    }

    fn end(&mut self, task: Ordinal, outcome: Outcome, at: Timestamp) {
        if let Some(index) = Outcome::ALL.iter().position(|known| *known == outcome) {
            self.ended[index] += 1;
        }
        self.running -= u64::from(self.ages.set_running(task, false));
        if let Some(requested) = self.ages.remove(task) {
            self.end_waits.record(at.since(requested));
        }
    }

    fn fail(&mut self, task: Ordinal) {
        self.unsuccessful += 1;
        self.running -= u64::from(self.ages.set_running(task, false));
    }

    fn replica_up(&mut self, replica: ReplicaId) {
        let Some((pool, up)) = self.pool_of.get_mut(&replica) else { return };
        let change = i64::from(!std::mem::replace(up, true));
        let pool = *pool;
        self.count_replica(pool, change);
    }

    /// A replica may stop before it came up, and was not counted then.
    fn replica_down(&mut self, replica: ReplicaId) {
        if let Some((pool, up)) = self.pool_of.remove(&replica) {
            self.count_replica(pool, -i64::from(up));
        }
    }

    fn count_replica(&mut self, pool: PoolId, change: i64) {
        if let Some(name) = self.pools.get(usize::from(pool.0)) {
            *self.replicas.entry(name.clone()).or_default() += change;
        }
    }
}

/// Tasks in a page of [`Ages`].
const PAGE: u64 = 256;

/// When live tasks were requested: pages by ordinal, freed when they are empty.
#[derive(Clone, Debug, Default)]
struct Ages {
    first: u64,
    pages: VecDeque<Option<Box<Page>>>,
}

#[derive(Clone, Debug)]
struct Page {
    /// 0 where there is no live task.
    times: [u64; PAGE as usize],
    running: [bool; PAGE as usize],
    live: u32,
}

impl Ages {
    fn insert(&mut self, task: Ordinal, at: Timestamp) {
        let number = task.0 / PAGE;
        if self.pages.is_empty() {
            self.first = number;
        }
        while self.first + self.pages.len() as u64 <= number {
            self.pages.push_back(None);
        }
        let page = self.pages[(number - self.first) as usize]
            .get_or_insert_with(|| Box::new(Page { times: [0; PAGE as usize], running: [false; PAGE as usize], live: 0 }));
        page.times[(task.0 % PAGE) as usize] = at.0.max(1);
        page.live += 1;
    }

    fn get(&self, task: Ordinal) -> Option<Timestamp> {
        let index = usize::try_from((task.0 / PAGE).checked_sub(self.first)?).ok()?;
        let time = self.pages.get(index)?.as_ref()?.times[(task.0 % PAGE) as usize];
        (time > 0).then_some(Timestamp(time))
    }

    /// Notes whether a live task has a slot; says whether that is news.
    fn set_running(&mut self, task: Ordinal, running: bool) -> bool {
        if self.get(task).is_none() {
            return false;
        }
        let Some(Some(page)) = self.pages.get_mut((task.0 / PAGE - self.first) as usize) else { return false };
        std::mem::replace(&mut page.running[(task.0 % PAGE) as usize], running) != running
    }

    fn remove(&mut self, task: Ordinal) -> Option<Timestamp> {
        let found = self.get(task)?;
        let slot = &mut self.pages[(task.0 / PAGE - self.first) as usize];
        let page = slot.as_mut()?;
        page.times[(task.0 % PAGE) as usize] = 0;
        page.live -= 1;
        if page.live == 0 {
            *slot = None;
        }
        while let Some(None) = self.pages.front() {
            self.pages.pop_front();
            self.first += 1;
        }
        Some(found)
    }
}
