//! A state in numbers.

use std::collections::BTreeMap;

use ergate_events::block::Hash;
use ergate_events::event::{PoolMode, RuleVersions};
use ergate_events::id::{Epoch, PoolId, ShardId, TaskId};
use ergate_events::slab::{Phase, Task};
use ergate_events::state::State;
use ergate_events::state::control::ReplicaPhase;
use ergate_events::task::Outcome;
use serde::Serialize;
use serde_json::{Value, json};

use super::moment::time;
use super::why;

/// What is told of a state.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Whose state it is.
    pub shard: ShardId,
    /// Every event before this position is in it.
    pub position: u64,
    /// The time of the last of them.
    pub time: String,
    /// How often a process has taken the log over.
    pub epoch: Epoch,
    /// The rules that decide.
    pub rules: RuleVersions,
    /// Tasks that were ever requested.
    pub requested: u64,
    /// Tasks that have not ended.
    pub live: u64,
    /// Live tasks that wait for a slot and nothing else.
    pub ready: u64,
    /// Live tasks with a slot.
    pub running: u64,
    /// Live tasks without a slot.
    pub backlog: u64,
    /// The task that has waited for the longest.
    pub oldest_waiting: Option<Waiting>,
    /// Live tasks by phase.
    pub phases: BTreeMap<&'static str, u64>,
    /// Live tasks by type and phase.
    pub types: BTreeMap<String, BTreeMap<&'static str, u64>>,
    /// Tasks that have ended, by outcome.
    pub ended: BTreeMap<&'static str, u64>,
    /// Dead letters that wait for an operator.
    pub dead_letters: u64,
    /// Bytes of their payloads.
    pub dead_letter_bytes: u64,
    /// Idempotency keys in use.
    pub keys: u64,
    /// All pools.
    pub pools: Vec<PoolSummary>,
    /// All replicas.
    pub replicas: Vec<ReplicaSummary>,
    /// The hash of the whole state.
    pub digest: Hash,
}

/// The task that has been without a slot for the longest.
#[derive(Debug, Serialize)]
pub struct Waiting {
    /// Its id.
    pub task: TaskId,
    /// When it was requested.
    pub since: String,
    /// How long ago that was.
    pub waited_us: u64,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSummary {
    /// Its name.
    pub name: String,
    /// How many replicas it should have.
    pub replicas: u32,
    /// Slots of each.
    pub slots: u32,
    /// Tasks that wait for a slot.
    pub ready: u64,
    /// Whether it starts tasks.
    pub mode: PoolMode,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaSummary {
    /// Its id.
    pub id: String,
    /// The pool that it belongs to.
    pub pool: String,
    /// Where it is in its life.
    pub phase: &'static str,
    /// How many attempts it can run at one time.
    pub slots: u64,
    /// How many it runs.
    pub used: u64,
    /// What people call the worker, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// The name of a phase, as in JSON.
pub const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Delayed => "delayed",
        Phase::Ready => "ready",
        Phase::Running => "running",
        Phase::Cancelling => "cancelling",
        Phase::Backoff => "backoff",
        Phase::Limited => "limited",
        Phase::Held => "held",
    }
}

/// The name of a task's type.
pub fn type_name<'a>(state: &'a State, task: &Task) -> &'a str {
    state.work.types.get(usize::from(task.task_type.0)).map_or("-", |known| known.name.as_str())
}

impl Summary {
    /// Counts what is in a state; takes time and memory for each live task once.
    pub fn of(shard: ShardId, state: &State) -> Summary {
        let work = &state.work;
        let (mut phases, mut types) = (BTreeMap::new(), BTreeMap::<String, BTreeMap<&'static str, u64>>::new());
        let (mut running, mut oldest) = (0, None);
        for (ordinal, task, _) in work.tasks.iter() {
            let phase = phase_name(task.phase);
            *phases.entry(phase).or_default() += 1;
            *types.entry(type_name(state, task).to_owned()).or_default().entry(phase).or_default() += 1;
            running += u64::from(task.has_slot());
            if !task.has_slot() && oldest.is_none_or(|(at, _)| task.requested_at < at) {
                oldest = Some((task.requested_at, ordinal));
            }
        }
        let live = work.tasks.len() as u64;
        Summary {
            shard,
            position: state.position.0,
            time: time(state.last_at),
            epoch: state.epoch,
            rules: state.rules,
            requested: state.next_ordinal().0,
            live,
            ready: phases.get("ready").copied().unwrap_or(0),
            running,
            backlog: live - running,
            oldest_waiting: oldest.map(|(at, ordinal)| Waiting {
                task: TaskId { shard, ordinal },
                since: time(at),
                waited_us: state.last_at.since(at).0,
            }),
            phases,
            types,
            ended: Outcome::ALL.iter().zip(work.ended).map(|(outcome, count)| (outcome.name(), count)).collect(),
            dead_letters: work.dead.len() as u64,
            dead_letter_bytes: work.dead_bytes as u64,
            keys: work.keys.len() as u64,
            pools: pools(state),
            replicas: replicas(state),
            digest: state.digest(),
        }
    }
}

/// All pools of a state.
pub fn pools(state: &State) -> Vec<PoolSummary> {
    let ready =
        |name: &str| state.work.pools.iter().find(|pool| pool.name == name).map_or(0, |pool| state.work.ready_count(pool) as u64);
    let pools = (0..).map(PoolId).zip(&state.control.pools);
    pools
        .map(|(id, pool)| PoolSummary {
            name: pool.name.clone(),
            replicas: pool.replicas,
            slots: pool.slots,
            ready: ready(&pool.name),
            mode: state.control.mode(id),
        })
        .collect()
}

/// A pool with what is there of it, as programs see it.
pub fn pool_json(state: &State, pool: &PoolSummary) -> Value {
    let members: Vec<_> = replicas(state).into_iter().filter(|replica| replica.pool == pool.name).collect();
    let up = up(&members);
    let mut value = json!({
        "name": pool.name, "mode": pool.mode.name(), "replicas": pool.replicas, "slots": pool.slots, "ready": pool.ready, "replicas_up": up,
        "slots_up": members.iter().map(|replica| replica.slots).sum::<u64>(), "running": members.iter().map(|replica| replica.used).sum::<u64>(),
    });
    if let Some(resources) = state.control.pool(&pool.name).and_then(|(id, _)| why::resources(state, id)) {
        value["resources"] = resources;
    }
    value
}

/// How many replicas are up: those of the engine, and workers. A process of the engine is asked for as a replica, and joins as a worker when there is
/// work for it first.
fn up(members: &[ReplicaSummary]) -> usize {
    let ready = || members.iter().filter(|replica| replica.phase == "ready");
    let workers = ready().filter(|replica| replica.worker.is_some()).count();
    let processes = ready().filter(|replica| replica.worker.is_none() && replica.slots == 0).count();
    ready().count() - workers - processes + workers.max(processes)
}

/// As [`pool_json`], with each replica.
pub fn pool_with_members(state: &State, pool: &PoolSummary) -> Value {
    let mut value = pool_json(state, pool);
    let members = replicas(state).into_iter().filter(|replica| replica.pool == pool.name);
    value["members"] = members.map(|replica| json!(replica)).collect();
    value
}

/// Replicas of the control half with the slots that the work half knows of, and workers that have asked for work.
pub fn replicas(state: &State) -> Vec<ReplicaSummary> {
    let replicas = state.control.replicas.iter();
    replicas
        .map(|(id, life)| {
            let slots = state.work.replicas.get(*id);
            ReplicaSummary {
                id: id.to_string(),
                pool: state.control.pools.get(usize::from(life.pool.0)).map_or_else(String::new, |pool| pool.name.clone()),
                phase: match life.phase {
                    ReplicaPhase::Requested => "requested",
                    ReplicaPhase::Ready => "ready",
                    ReplicaPhase::Draining => "draining",
                },
                slots: slots.map_or(0, |replica| replica.size() as u64),
                used: slots.map_or(0, |replica| replica.used() as u64),
                worker: None,
            }
        })
        .chain(workers(state))
        .collect()
}

fn workers(state: &State) -> impl Iterator<Item = ReplicaSummary> {
    state.work.workers.iter().filter_map(|(id, facts)| {
        let replica = state.work.replicas.get(*id)?;
        Some(ReplicaSummary {
            id: id.to_string(),
            pool: state.work.pools.get(replica.pool as usize).map_or_else(String::new, |pool| pool.name.clone()),
            phase: if replica.draining { "draining" } else { "ready" },
            slots: replica.size() as u64,
            used: replica.used() as u64,
            worker: Some(facts.name.clone()),
        })
    })
}
