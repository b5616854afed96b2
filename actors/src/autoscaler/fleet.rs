//! The replicas of a pool one by one, and what each of them uses: what the log knows of them, and what they said last.

use std::collections::BTreeMap;

use ergate_events::id::PoolId;
use ergate_events::resources::Asked;
use ergate_events::scaling::usage::{ReplicaReading, Stage, TOLD_WITHIN};
use ergate_events::state::State;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::{WORKER_FIRST, WorkerId};

use crate::usage::{Own, used};
use crate::workers::Hub;

/// Thousandths.
const WHOLE: usize = 1_000;

/// What the log of this process knows of a pool's replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// What one of them asks for.
    pub asked: Asked,
    /// Asked for, and not up yet.
    pub starting: usize,
    /// Up and not draining, as processes and threads of engines are.
    pub ready: usize,
    /// Threads of this engine, each with how many of its slots are busy in thousandths, and whether it drains.
    pub threads: Vec<(u32, bool)>,
    /// The same of workers that have asked for work.
    pub workers: BTreeMap<WorkerId, (u32, bool)>,
}

impl Fleet {
    /// What a state has of a pool.
    pub fn of(state: &State, pool: PoolId, name: &str) -> Fleet {
        let mut fleet = Fleet { asked: state.control.asked(pool), ..Fleet::default() };
        for life in state.control.replicas.values().filter(|life| life.pool == pool) {
            match life.phase {
                ReplicaPhase::Requested => fleet.starting += 1,
                ReplicaPhase::Ready => fleet.ready += 1,
                ReplicaPhase::Draining => {}
            }
        }
        let index = state.work.pools.iter().position(|known| known.name == name).and_then(|index| u32::try_from(index).ok());
        for (id, replica) in state.work.replicas.iter().filter(|(_, replica)| Some(replica.pool) == index) {
            let busy = (replica.used() * WHOLE).checked_div(replica.size()).unwrap_or_default();
            let known = (u32::try_from(busy).unwrap_or(u32::MAX), replica.draining);
            match state.work.workers.get(&id) {
                Some(facts) => drop(fleet.workers.insert(facts.id, known)),
                None if id < WORKER_FIRST => fleet.threads.push(known),
                None => {}
            }
        }
        fleet
    }

    /// Each replica with what it uses. `up` are those of all shards, where nobody here knows each of them.
    ///
    /// Threads of the engine share what its process uses, and nothing says which of them uses what: each has an even part. Where several pools are threads
    /// of one engine, each of them is told the whole.
    pub fn read(&self, pool: &str, hub: &Hub, up: Option<u32>, now: Timestamp) -> Vec<ReplicaReading> {
        let mut all: Vec<ReplicaReading> = self.threads(hub.own(), now);
        let sessions = hub.sessions().into_iter().filter(|session| &*session.spec().pool == pool && session.is_attached());
        for session in sessions {
            let (busy_milli, is_draining) = self.workers.get(&session.id()).copied().unwrap_or_default();
            let stage = if is_draining || session.is_draining() { Stage::Draining } else { Stage::Ready };
            let told = session.usage(TOLD_WITHIN.to_std());
            let used = told.map(|(usage, ago)| used(&usage, ago, now));
            all.push(ReplicaReading { stage, since: before(now, session.age().into()), busy_milli, used });
        }
        let known = all.iter().filter(|replica| replica.stage == Stage::Ready).count();
        let ready = up.map_or(self.ready, |up| up as usize);
        // Those of other engines, and processes that nobody has heard of: they are there, and tell nothing here.
        let silent = ReplicaReading { stage: Stage::Ready, since: Timestamp(0), busy_milli: 0, used: None };
        all.extend(std::iter::repeat_n(silent.clone(), ready.saturating_sub(known)));
        let starting = ReplicaReading { stage: Stage::Starting, since: now, ..silent };
        // Workers that come by themselves are those that the log has asked for, and it does not hear which is which.
        let awaited = self.starting.saturating_sub(known.saturating_sub(ready));
        all.extend(std::iter::repeat_n(starting, awaited));
        all
    }

    fn threads(&self, own: &Own, now: Timestamp) -> Vec<ReplicaReading> {
        let count = self.threads.iter().filter(|(_, is_draining)| !is_draining).count();
        let whole = if count > 0 { own.read(now) } else { None };
        let share = |amount: Option<u64>| amount.map(|amount| amount / count.max(1) as u64);
        let since = before(now, own.age().into());
        let each = self.threads.iter().map(|(busy_milli, is_draining)| {
            let used = whole.filter(|_| !is_draining).map(|mut used| {
                (used.cpu_milli, used.memory_bytes) = (share(used.cpu_milli), share(used.memory_bytes));
                used
            });
            let stage = if *is_draining { Stage::Draining } else { Stage::Ready };
            ReplicaReading { stage, since, busy_milli: *busy_milli, used }
        });
        each.collect()
    }
}

/// What the replicas of a pool use together that have told lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Told {
    /// How many have told.
    pub replicas: u64,
    /// CPU, in cores.
    pub cpu_cores: f64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

impl Told {
    /// What workers of this engine have told, and what the engine itself uses where `has_threads` says that it has replicas of the pool.
    pub fn of(pool: &str, hub: &Hub, has_threads: bool, now: Timestamp) -> Told {
        let mut told = Told::default();
        let own = has_threads.then(|| hub.own().read(now)).flatten();
        let sessions = hub.sessions().into_iter().filter(|session| &*session.spec().pool == pool);
        let of_workers = sessions.filter_map(|session| session.usage(TOLD_WITHIN.to_std()));
        for one in own.into_iter().chain(of_workers.map(|(usage, ago)| used(&usage, ago, now))) {
            told.replicas += 1;
            told.cpu_cores += one.cpu_milli.unwrap_or_default() as f64 / 1_000.0;
            told.memory_bytes = told.memory_bytes.saturating_add(one.memory_bytes.unwrap_or_default());
        }
        told
    }
}

const fn before(now: Timestamp, ago: Micros) -> Timestamp {
    Timestamp(now.0.saturating_sub(ago.0))
}
