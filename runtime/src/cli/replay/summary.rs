//! A state in numbers.

use std::collections::BTreeMap;

use ergate::events::block::Hash;
use ergate::events::event::RuleVersions;
use ergate::events::id::{Epoch, ShardId, TaskId};
use ergate::events::slab::{Phase, Task};
use ergate::events::state::State;
use ergate::events::state::control::ReplicaPhase;
use ergate::events::task::Outcome;
use ergate::kafka::logs::shard_name;
use serde::Serialize;

use crate::cli::moment::time;
use crate::cli::output;
use crate::cli::table::{self, Table};

/// What is told of a state.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) shard: ShardId,
    pub(super) position: u64,
    pub(super) time: String,
    epoch: Epoch,
    rules: RuleVersions,
    pub(super) requested: u64,
    pub(super) live: u64,
    pub(super) ready: u64,
    pub(super) running: u64,
    /// Live tasks without a slot.
    pub(super) backlog: u64,
    oldest_waiting: Option<Waiting>,
    pub(super) phases: BTreeMap<&'static str, u64>,
    types: BTreeMap<String, BTreeMap<&'static str, u64>>,
    pub(super) ended: BTreeMap<&'static str, u64>,
    pub(super) dead_letters: u64,
    dead_letter_bytes: u64,
    pub(super) keys: u64,
    pub(super) pools: Vec<PoolSummary>,
    pub(super) replicas: Vec<ReplicaSummary>,
    pub(super) digest: Hash,
}

/// The task that has been without a slot for the longest.
#[derive(Debug, Serialize)]
struct Waiting {
    task: TaskId,
    since: String,
    waited_us: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PoolSummary {
    pub(super) name: String,
    pub(super) replicas: u32,
    pub(super) slots: u32,
    pub(super) ready: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ReplicaSummary {
    pub(super) id: String,
    pub(super) pool: String,
    pub(super) phase: &'static str,
    pub(super) slots: u64,
    pub(super) used: u64,
}

/// The name of a phase, as in JSON.
pub(super) const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Delayed => "delayed",
        Phase::Ready => "ready",
        Phase::Running => "running",
        Phase::Cancelling => "cancelling",
        Phase::Backoff => "backoff",
    }
}

/// The name of a task's type.
pub(super) fn type_name<'a>(state: &'a State, task: &Task) -> &'a str {
    state.work.types.get(usize::from(task.task_type.0)).map_or("-", |known| known.name.as_str())
}

impl Summary {
    pub(super) fn of(shard: ShardId, state: &State) -> Summary {
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

    /// Prints the summary for people.
    ///
    /// # Errors
    /// When standard output is closed or full.
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let RuleVersions { task, retry, dispatch } = self.rules;
        let waiting = self.oldest_waiting.as_ref();
        let waiting = waiting.map(|oldest| format!("task {} since {} ({} µs)", oldest.task, oldest.since, oldest.waited_us));
        table::facts(&[
            ("shard", (self.shard != ShardId(0)).then(|| shard_name(self.shard))),
            ("position", Some(self.position.to_string())),
            ("time", Some(self.time.clone())),
            ("epoch", Some(self.epoch.to_string())),
            ("rules", Some(format!("task {task}, retry {retry}, dispatch {dispatch}"))),
            (
                "tasks",
                Some(format!(
                    "{} requested, {} live: {} ready, {} running, {} in the backlog",
                    self.requested, self.live, self.ready, self.running, self.backlog
                )),
            ),
            ("ended", Some(counts(&self.ended))),
            ("oldest waiting", waiting),
            ("dead letters", Some(format!("{} ({} bytes)", self.dead_letters, self.dead_letter_bytes))),
            ("idempotency keys", Some(self.keys.to_string())),
            ("digest", Some(self.digest.to_string())),
        ])?;
        self.print_types()?;
        self.print_pools()
    }

    fn print_types(&self) -> anyhow::Result<()> {
        if self.types.is_empty() {
            return Ok(());
        }
        output::line("")?;
        let mut table = Table::new(&["TYPE", "LIVE TASKS"]);
        for (name, phases) in &self.types {
            table.row([name.clone(), counts(phases)]);
        }
        table.print()
    }

    fn print_pools(&self) -> anyhow::Result<()> {
        if !self.pools.is_empty() {
            output::line("")?;
            let mut table = Table::new(&["POOL", "REPLICAS", "SLOTS EACH", "READY"]);
            for pool in &self.pools {
                table.row([pool.name.clone(), pool.replicas.to_string(), pool.slots.to_string(), pool.ready.to_string()]);
            }
            table.print()?;
        }
        if self.replicas.is_empty() {
            return Ok(());
        }
        output::line("")?;
        let mut table = Table::new(&["REPLICA", "POOL", "PHASE", "SLOTS", "USED"]);
        for replica in &self.replicas {
            let (slots, used) = (replica.slots.to_string(), replica.used.to_string());
            table.row([replica.id.clone(), replica.pool.clone(), replica.phase.to_owned(), slots, used]);
        }
        table.print()
    }
}

/// Counts that are not zero, with their names.
fn counts(counts: &BTreeMap<&'static str, u64>) -> String {
    let some: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

fn pools(state: &State) -> Vec<PoolSummary> {
    let ready = |name: &str| state.work.pools.iter().find(|pool| pool.name == name).map_or(0, |pool| pool.queue.len() as u64);
    let pools = state.control.pools.iter();
    pools
        .map(|pool| PoolSummary { name: pool.name.clone(), replicas: pool.replicas, slots: pool.slots, ready: ready(&pool.name) })
        .collect()
}

/// Replicas of the control half with the slots that the work half knows of.
fn replicas(state: &State) -> Vec<ReplicaSummary> {
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
            }
        })
        .collect()
}
