//! Pools that have a policy, as the accepted state has them.

use std::collections::BTreeMap;

use actix::{Context, Handler, Message};
use ergate_events::event::PoolMode;
use ergate_events::id::{PoolId, Position};
use ergate_events::scaling::signal::Observation;
use ergate_events::scaling::{Cadence, Policy, usage};
use ergate_events::state::State;
use ergate_events::state::scaling::{Decider, Scaling};
use ergate_events::time::Timestamp;

use super::LogWriter;
use crate::autoscaler::fleet::Fleet;

/// From the autoscaler: the pools that have a policy and run, as the accepted state has them.
#[derive(Message)]
#[rtype(result = "Vec<SizedPool>")]
pub struct LookAtPools;

/// A pool with a policy.
#[derive(Clone, Debug)]
pub struct SizedPool {
    /// Its id.
    pub pool: PoolId,
    /// Its name.
    pub name: String,
    /// Its policy and the shadows beside it.
    pub policies: Vec<SizedBy>,
    /// How many replicas it should have.
    pub wanted: u32,
    /// How many it may have.
    pub most: u32,
    /// Tasks that are ready.
    pub ready: u64,
    /// Attempts that run.
    pub running: u64,
    /// Busy slots of replicas that take work, and all of theirs.
    pub busy: (u64, u64),
    /// The event that said what its replicas ask for and may have together.
    pub resources_at: Option<Position>,
    /// What its replicas are, where one of its policies wants to know what they use or how busy each is.
    pub fleet: Option<Fleet>,
    /// What was seen last for its policy, by whoever looked then.
    pub seen: Option<Observation>,
    /// At which event somebody began to hold its size, and until when that is so.
    pub hold: Option<(Position, Timestamp)>,
}

/// A policy of a pool.
#[derive(Clone, Debug)]
pub struct SizedBy {
    /// The bit by which it is asked.
    pub bit: u32,
    /// The event that set it.
    pub set_at: Position,
    /// The signals that it reads.
    pub signals: Vec<String>,
    /// Whether it is shown replicas one by one.
    pub reads_replicas: bool,
    /// When it wants to decide.
    pub cadence: Cadence,
    /// When it wanted to look again at the latest.
    pub look_again: Option<Timestamp>,
}

impl SizedBy {
    /// Whether it sizes the pool; a shadow does not.
    pub const fn is_live(&self) -> bool {
        self.bit == Scaling::LIVE
    }

    /// Whether it wants to know what replicas use, or how busy each of them is.
    pub fn wants_usage(&self) -> bool {
        self.reads_replicas || self.signals.iter().any(|name| usage::is_usage(name))
    }
}

impl Handler<LookAtPools> for LogWriter {
    type Result = actix::MessageResult<LookAtPools>;

    fn handle(&mut self, LookAtPools: LookAtPools, _: &mut Context<Self>) -> Self::Result {
        actix::MessageResult(sized(self.shard.state()))
    }
}

/// From whoever shares a pool's replicas out over shards: what this one has of each pool, as the accepted state has it.
#[derive(Message)]
#[rtype(result = "BTreeMap<String, AtWork>")]
pub struct LookAtWork;

/// What a shard has of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct AtWork {
    /// How many replicas it should have; `None` where it has no size.
    pub replicas: Option<u32>,
    /// How many slots each.
    pub slots: u32,
    /// Whether a task is ready or running.
    pub is_busy: bool,
}

impl Handler<LookAtWork> for LogWriter {
    type Result = actix::MessageResult<LookAtWork>;

    fn handle(&mut self, LookAtWork: LookAtWork, _: &mut Context<Self>) -> Self::Result {
        let state = self.shard.state();
        let mut pools: BTreeMap<String, AtWork> = BTreeMap::new();
        for size in &state.control.pools {
            let known = AtWork { replicas: Some(size.replicas), slots: size.slots, is_busy: false };
            pools.insert(size.name.clone(), known);
        }
        for (index, pool) in (0_u32..).zip(&state.work.pools) {
            let mut replicas = state.work.replicas.iter().filter(|(_, replica)| replica.pool == index);
            let is_busy = state.work.ready_count(pool) > 0 || replicas.any(|(_, replica)| replica.used() > 0);
            pools.entry(pool.name.clone()).or_default().is_busy = is_busy;
        }
        actix::MessageResult(pools)
    }
}

fn sized(state: &State) -> Vec<SizedPool> {
    let control = &state.control;
    let running = control.scaling.iter().filter(|(pool, _)| control.mode(**pool) == PoolMode::Running);
    let pools = running.filter_map(|(pool, scaling)| {
        let size = control.pools.get(usize::from(pool.0))?;
        let known = state.work.pools.iter().position(|known| known.name == size.name);
        let index = known.and_then(|index| u32::try_from(index).ok());
        let replicas = || state.work.replicas.iter().map(|(_, replica)| replica).filter(|replica| Some(replica.pool) == index);
        let taking = || replicas().filter(|replica| !replica.draining);
        let policies: Vec<SizedBy> = scaling.deciders().map(|(bit, _, decider)| sized_by(bit, decider)).collect();
        Some(SizedPool {
            pool: *pool,
            name: size.name.clone(),
            wanted: size.replicas,
            most: control.ceiling(*pool).map_or(scaling.bounds.max, |fit| fit.replicas()),
            ready: known.map_or(0, |index| state.work.ready_count(&state.work.pools[index]) as u64),
            running: replicas().map(|replica| replica.used() as u64).sum(),
            busy: (taking().map(|replica| replica.used() as u64).sum(), taking().map(|replica| replica.size() as u64).sum()),
            resources_at: control.resources.get(pool).map(|said| said.set_at),
            fleet: policies.iter().any(SizedBy::wants_usage).then(|| Fleet::of(state, *pool, &size.name)),
            seen: scaling.live.last.as_ref().map(|last| last.seen.clone()),
            hold: scaling.hold.as_ref().map(|hold| (hold.set_at, hold.until)),
            policies,
        })
    });
    pools.collect()
}

fn sized_by(bit: u32, decider: &Decider) -> SizedBy {
    SizedBy {
        bit,
        set_at: decider.set_at,
        signals: decider.signals().to_vec(),
        reads_replicas: decider.reads_replicas(),
        cadence: decider.policy().cadence(),
        look_again: decider.last.as_ref().and_then(|last| last.decision.look_again),
    }
}
