//! Which ready task goes to which free slot, and in what order.

use crate::id::{Ordinal, ReplicaId};
use crate::slab::Slab;
use crate::state::queue::{Entry, ReadyQueue};
use crate::state::{State, Work};
use crate::time::Micros;

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

/// Fills `out` with the tasks to start now, at most [`STARTS_MAX`], by the dispatch rule that the log names.
pub fn assignments(state: &State, out: &mut Vec<Assignment>) {
    // One version so far; a changed rule becomes a second arm and the first one stays as it is.
    if state.rules.dispatch == 1 {
        assignments_v1(state, out);
    }
}

/// Version 1: pools in order; in each, tasks by (ready time − priority × [`PRIORITY_STEP`]), dealt in turn to the replicas with
/// free slots, beginning with the least used one; none in a pool that is paused or drained. Waiting time and priority are compared at the moment a task became ready, so the order
/// among ready tasks never changes and costs nothing to keep.
fn assignments_v1(State { work, control, .. }: &State, out: &mut Vec<Assignment>) {
    for (index, pool) in (0_u32..).zip(&work.pools) {
        if pool.queue.is_empty() || out.len() >= STARTS_MAX || control.holds(&pool.name) {
            continue;
        }
        let mut replicas = free_replicas(work, index);
        let mut order = Order::new(&pool.queue, &work.tasks);
        let mut turn = 0;
        while !replicas.is_empty() && out.len() < STARTS_MAX {
            let Some(task) = order.next() else { break };
            turn = if turn < replicas.len() { turn } else { 0 };
            let (id, free) = &mut replicas[turn];
            out.push(Assignment {
                task,
                attempt: work.tasks.get(task).map_or(1, |task| task.attempt.saturating_add(1)),
                replica: *id,
            });
            *free -= 1;
            if *free == 0 {
                replicas.remove(turn);
            } else {
                turn += 1;
            }
        }
    }
}

/// Replicas of a pool with free slots and how many, the least used first.
fn free_replicas(work: &Work, pool: u32) -> Vec<(ReplicaId, usize)> {
    let mut replicas: Vec<_> = work
        .replicas
        .iter()
        .filter(|(_, replica)| replica.pool == pool && replica.free() > 0)
        .map(|(id, replica)| (replica.used(), id, replica.free()))
        .collect();
    replicas.sort_unstable();
    replicas.into_iter().map(|(_, id, free)| (id, free)).collect()
}

/// Walks over the ready tasks of a queue in dispatch order.
struct Order<'a> {
    queue: &'a ReadyQueue,
    tasks: &'a Slab,
    cursors: [usize; crate::task::PRIORITY_MAX as usize + 1],
}

impl<'a> Order<'a> {
    fn new(queue: &'a ReadyQueue, tasks: &'a Slab) -> Order<'a> {
        Order { queue, tasks, cursors: [0; crate::task::PRIORITY_MAX as usize + 1] }
    }

    /// The first live entry of a row at or after its cursor, which moves there.
    fn head(&mut self, row: usize) -> Option<Entry> {
        let entries = &self.queue.rows()[row];
        loop {
            let entry = *entries.get(self.cursors[row])?;
            if entry.is_live(self.tasks) {
                return Some(entry);
            }
            self.cursors[row] += 1;
        }
    }

    fn next(&mut self) -> Option<Ordinal> {
        let mut best: Option<((i128, u64), usize, Ordinal)> = None;
        for row in 0..self.cursors.len() {
            if self.queue.rows()[row].len() == self.cursors[row] {
                continue;
            }
            let Some(entry) = self.head(row) else { continue };
            let ready_at = self.tasks.get(entry.task).map_or(0, |task| task.ready_at.0);
            let headstart = i128::from(PRIORITY_STEP.0) * row as i128;
            let key = (i128::from(ready_at) - headstart, entry.ready_position.0);
            if best.is_none_or(|(other, _, _)| key < other) {
                best = Some((key, row, entry.task));
            }
        }
        let (_, row, task) = best?;
        self.cursors[row] += 1;
        Some(task)
    }
}
