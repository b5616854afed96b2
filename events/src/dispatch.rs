//! Which ready task goes to which free slot, and in what order.

use crate::id::{Ordinal, ReplicaId, TypeId};
use crate::slab::Slab;
use crate::state::queue::{Entry, ReadyQueue};
use crate::state::{State, Work};
use crate::time::{Micros, Timestamp};
use crate::worker::WORKER_FIRST;

/// Most tasks started in one batch, so that a batch stays well below the size of a block.
pub const STARTS_MAX: usize = 4_096;

/// How much earlier a task seems to have become ready for each step of priority (version 1).
///
/// A task of a lower priority is overtaken for at most this long a step and then goes first: nothing waits for ever.
/// Half a minute is long beside a queue that flows and short beside one that people complain about.
pub const PRIORITY_STEP: Micros = Micros::from_secs(30);

/// A ready task and the replica whose slot it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The task.
    pub task: Ordinal,
    /// Its next attempt's number.
    pub attempt: u32,
    /// Who runs it.
    pub replica: ReplicaId,
}

/// Fills `out` with the tasks to start at this moment, at most [`STARTS_MAX`], by the dispatch rule that the log names.
pub fn assignments(state: &State, at: Timestamp, out: &mut Vec<Assignment>) {
    match state.rules.dispatch {
        1 => deal(state, out, free_replicas_v1),
        2 => deal(state, out, |work, pool| free_replicas_v2(work, pool, at)),
        _ => {}
    }
}

/// A replica with free slots.
struct Free {
    id: ReplicaId,
    /// How many may be given out.
    slots: usize,
    /// Of which it can run tasks, of the pool's types in their order; `None` for all.
    serves: Option<Vec<TypeId>>,
}

impl Free {
    fn serves(&self, task_type: TypeId) -> bool {
        self.serves.as_ref().is_none_or(|known| known.binary_search(&task_type).is_ok())
    }
}

/// Versions 1 and 2, which differ in whose slots are free: pools in order; in each, tasks by (ready time − priority × [`PRIORITY_STEP`]), dealt in turn
/// to the replicas with free slots that can run them, beginning with the least used one; a task that none of them can run keeps none from others; none
/// in a pool that is paused or drained. Waiting time and priority are compared at the moment a task became ready, so the order among ready tasks never
/// changes and costs nothing to keep.
fn deal(State { work, control, .. }: &State, out: &mut Vec<Assignment>, free_replicas: impl Fn(&Work, u32) -> Vec<Free>) {
    for (index, pool) in (0_u32..).zip(&work.pools) {
        if work.ready_count(pool) == 0 || out.len() >= STARTS_MAX || control.holds(&pool.name) {
            continue;
        }
        let mut replicas = free_replicas(work, index);
        let mut order = Order::new(work.ready(pool), &work.tasks);
        let mut turn = 0;
        while !replicas.is_empty() && out.len() < STARTS_MAX {
            let Some((task_type, task)) = order.next() else { break };
            let from = if turn < replicas.len() { turn } else { 0 };
            let mut indices = (from..replicas.len()).chain(0..from);
            let Some(index) = indices.find(|index| replicas[*index].serves(task_type)) else {
                order.give_up(task_type);
                continue;
            };
            let replica = &mut replicas[index];
            let attempt = work.tasks.get(task).map_or(1, |task| task.attempt.saturating_add(1));
            out.push(Assignment { task, attempt, replica: replica.id });
            replica.slots -= 1;
            if replica.slots == 0 {
                replicas.remove(index);
                turn = index;
            } else {
                turn = index + 1;
            }
        }
    }
}

/// Version 1: every replica of a pool with free slots, the least used first; each can run every task of its pool.
fn free_replicas_v1(work: &Work, pool: u32) -> Vec<Free> {
    least_used_first(free_of(work, pool).map(|(used, id, slots)| (used, Free { id, slots, serves: None })))
}

/// Version 2: the same of replicas that are no workers, which can run what their process can; and workers that ask in this batch, for as many attempts
/// as they ask for, which can run what they say.
fn free_replicas_v2(work: &Work, pool: u32, at: Timestamp) -> Vec<Free> {
    let types = work.pools.get(pool as usize).map_or(&[][..], |pool| &pool.types);
    let serves = |can: &dyn Fn(&str) -> bool| {
        let known: Vec<TypeId> = types.iter().copied().filter(|id| can(&work.types[usize::from(id.0)].name)).collect();
        if known.len() == types.len() { None } else { Some(known) }
    };
    let own = work.serves.as_ref().map(|names| serves(&|name| names.binary_search_by(|known| known.as_str().cmp(name)).is_ok()));
    let own = own.flatten();
    let local = free_of(work, pool).take_while(|(_, id, _)| *id < WORKER_FIRST);
    let local = local.map(|(used, id, slots)| (used, Free { id, slots, serves: own.clone() }));
    let workers = work.asked.at(at).iter().filter_map(|(id, asked)| {
        let replica = work.replicas.get(*id).filter(|replica| replica.pool == pool)?;
        let facts = work.workers.get(id)?;
        let slots = replica.free().min(*asked as usize);
        let free = Free { id: *id, slots, serves: serves(&|name| facts.serves(name)) };
        (slots > 0).then_some((replica.used(), free))
    });
    least_used_first(local.chain(workers))
}

/// Replicas of a pool with free slots, by their ids: how many are used, and how many are free.
fn free_of(work: &Work, pool: u32) -> impl Iterator<Item = (usize, ReplicaId, usize)> {
    let free = work.replicas.iter().filter(move |(_, replica)| replica.pool == pool && replica.free() > 0);
    free.map(|(id, replica)| (replica.used(), id, replica.free()))
}

fn least_used_first(replicas: impl Iterator<Item = (usize, Free)>) -> Vec<Free> {
    let mut replicas: Vec<_> = replicas.collect();
    replicas.sort_by_key(|(used, replica)| (*used, replica.id));
    replicas.into_iter().map(|(_, replica)| replica).collect()
}

/// Walks over the ready tasks of a pool in dispatch order.
struct Order<'a> {
    tasks: &'a Slab,
    /// The rows with tasks that are left.
    heads: Vec<Head<'a>>,
}

/// The next task of one type and one priority.
struct Head<'a> {
    key: (i128, u64),
    task: Ordinal,
    task_type: TypeId,
    queue: &'a ReadyQueue,
    row: usize,
    cursor: usize,
}

impl<'a> Order<'a> {
    fn new(queues: impl Iterator<Item = (TypeId, &'a ReadyQueue)>, tasks: &'a Slab) -> Order<'a> {
        let rows = queues.flat_map(|(task_type, queue)| (0..queue.rows().len()).map(move |row| (task_type, queue, row)));
        let heads = rows.filter_map(|(task_type, queue, row)| Head::find(task_type, queue, row, 0, tasks)).collect();
        Order { tasks, heads }
    }

    fn next(&mut self) -> Option<(TypeId, Ordinal)> {
        let (index, first) = self.heads.iter().enumerate().min_by_key(|(_, head)| head.key)?;
        let next = (first.task_type, first.task);
        match Head::find(first.task_type, first.queue, first.row, first.cursor + 1, self.tasks) {
            Some(head) => self.heads[index] = head,
            None => drop(self.heads.swap_remove(index)),
        }
        Some(next)
    }

    /// Leaves out the tasks of this type from here on.
    fn give_up(&mut self, task_type: TypeId) {
        self.heads.retain(|head| head.task_type != task_type);
    }
}

impl<'a> Head<'a> {
    /// The first task of a row at or after the cursor that is still ready.
    fn find(task_type: TypeId, queue: &'a ReadyQueue, row: usize, mut cursor: usize, tasks: &Slab) -> Option<Head<'a>> {
        let entries = &queue.rows()[row];
        loop {
            let entry: Entry = *entries.get(cursor)?;
            if entry.is_live(tasks) {
                let ready_at = tasks.get(entry.task).map_or(0, |task| task.ready_at.0);
                let headstart = i128::from(PRIORITY_STEP.0) * row as i128;
                let key = (i128::from(ready_at) - headstart, entry.ready_position.0);
                return Some(Head { key, task: entry.task, task_type, queue, row, cursor });
            }
            cursor += 1;
        }
    }
}
