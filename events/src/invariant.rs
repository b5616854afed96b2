//! Named truths about every state, shared by unit tests, the simulator and debug builds.

use std::collections::BTreeMap;

use crate::decide::{DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX};
use crate::id::{Ordinal, ReplicaId};
use crate::shared::SharedQueue;
use crate::slab::Phase;
use crate::state::flow::Passage;
use crate::state::queue::ReadyQueue;
use crate::state::replicas::Slot;
use crate::state::work::TimerKind;
use crate::state::{State, Work};

/// A truth that does not hold, with what breaks it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invariant `{name}` is broken: {details}")]
pub struct Broken {
    /// Which one.
    pub name: &'static str,
    /// By what.
    pub details: String,
}

type Check = fn(&State) -> Result<(), String>;

const ALL: [(&str, Check); 9] = [
    ("a running task has exactly one slot and a busy slot has a running task", slots_match_tasks),
    ("free slots and used slots add up", slots_add_up),
    ("every waiting task has its timer and every timer its task", timers_match_tasks),
    ("every ready task is queued once, and is counted", queues_match_tasks),
    ("every limited task waits once, and buckets count what tasks hold", flow_matches_tasks),
    ("every held task waits for older tasks, and for none whose end it was told", holds_match_tasks),
    ("no live task has used up its attempts or losses", budgets_hold),
    ("every request is live, ended or skipped, once", requests_are_accounted_for),
    ("dead letters stay within their limits", dead_letters_are_bounded),
];

/// Checks every invariant.
///
/// # Errors
/// The first that does not hold.
pub fn check(state: &State) -> Result<(), Broken> {
    ALL.iter().try_for_each(|(name, check)| check(state).map_err(|details| Broken { name, details }))
}

fn slots_match_tasks(state: &State) -> Result<(), String> {
    let mut busy: BTreeMap<Ordinal, (ReplicaId, u32)> = BTreeMap::new();
    for (replica, slot) in state.work.slots() {
        if let Slot::Busy { task, attempt, .. } = *slot
            && busy.insert(task, (replica, attempt)).is_some()
        {
            return Err(format!("task {task} has two slots"));
        }
    }
    for (ordinal, task, _) in state.work.tasks.iter() {
        let slot = busy.remove(&ordinal);
        let expected = task.has_slot().then_some((task.replica, task.attempt));
        if slot != expected {
            return Err(format!("task {ordinal} is {:?} with slot {slot:?}", task.phase));
        }
    }
    busy.first_key_value().map_or(Ok(()), |(task, _)| Err(format!("a slot is busy with task {task}, which is not live")))
}

fn slots_add_up(state: &State) -> Result<(), String> {
    state.work.replicas.iter().try_for_each(|(id, replica)| {
        let used = replica.slots().filter(|slot| **slot != Slot::Free).count();
        if used == replica.used() { Ok(()) } else { Err(format!("replica {id} counts {} used slots of {used}", replica.used())) }
    })
}

fn timers_match_tasks(state: &State) -> Result<(), String> {
    let work = &state.work;
    let mut expected = 0;
    for (ordinal, task, _) in work.tasks.iter() {
        let timeouts = work.timeouts(task);
        let phase_timer = match task.phase {
            Phase::Delayed | Phase::Backoff => Some((task.due, TimerKind::Wake)),
            Phase::Cancelling => Some((task.due, TimerKind::CancelGrace)),
            Phase::Ready => timeouts.schedule_to_start.map(|limit| (task.ready_at.after(limit), TimerKind::ScheduleToStart)),
            Phase::Running | Phase::Limited | Phase::Held => None,
        };
        let whole = timeouts.schedule_to_close.map(|limit| (task.requested_at.after(limit), TimerKind::ScheduleToClose));
        for (due, kind) in phase_timer.into_iter().chain(whole) {
            expected += 1;
            if !work.timers.contains(&(due, ordinal, kind)) {
                return Err(format!("task {ordinal} has no timer {kind:?} at {}", due.0));
            }
        }
    }
    if expected == work.timers.len() { Ok(()) } else { Err(format!("{} timers for {expected} waits", work.timers.len())) }
}

fn queues_match_tasks(state: &State) -> Result<(), String> {
    let ready = state.work.tasks.iter().filter(|(_, task, _)| task.phase == Phase::Ready).count();
    let work = &state.work;
    let counted: usize = work.queues.iter().map(ReadyQueue::len).sum();
    let by_pool: usize = work.pools.iter().map(|pool| work.ready_count(pool)).sum();
    let queued: usize = work.queues.iter().map(|queue| live_entries(queue, work)).sum();
    if [counted, by_pool, queued] == [ready; 3] {
        Ok(())
    } else {
        Err(format!("{ready} ready, {counted} and {by_pool} counted, {queued} queued"))
    }
}

fn live_entries(queue: &ReadyQueue, work: &Work) -> usize {
    queue.rows().iter().flat_map(SharedQueue::iter).filter(|entry| entry.is_live(&work.tasks)).count()
}

fn flow_matches_tasks(state: &State) -> Result<(), String> {
    let (work, mut counts) = (&state.work, BTreeMap::<_, (u32, u32, u32)>::new());
    for (ordinal, passage) in work.flow.passages.iter() {
        let phase = work.tasks.get(*ordinal).map(|task| task.phase);
        let fits = match passage {
            Passage::Gate => phase == Some(Phase::Limited),
            Passage::Waits(key) => {
                counts.entry(*key).or_default().2 += 1;
                phase == Some(Phase::Limited)
            }
            Passage::Holds(keys) => {
                let ready = u32::from(phase == Some(Phase::Ready));
                for key in keys.iter() {
                    let count = counts.entry(*key).or_default();
                    (count.0, count.1) = (count.0 + 1, count.1 + ready);
                }
                matches!(phase, Some(Phase::Ready | Phase::Running | Phase::Cancelling))
            }
        };
        if !fits {
            return Err(format!("task {ordinal} is {phase:?} and stands as {passage:?}"));
        }
    }
    let is_lost = |(ordinal, task): (Ordinal, Phase)| task == Phase::Limited && !work.flow.passages.contains_key(&ordinal);
    if let Some((lost, _, _)) = work.tasks.iter().find(|(ordinal, task, _)| is_lost((*ordinal, task.phase))) {
        return Err(format!("task {lost} is limited and waits nowhere"));
    }
    work.flow.buckets().try_for_each(|(key, bucket)| {
        let counted = counts.get(key).copied().unwrap_or_default();
        let found = (bucket.held, bucket.ready, bucket.waiting);
        if found == counted { Ok(()) } else { Err(format!("bucket {key:?} counts {found:?} of {counted:?}")) }
    })
}

fn holds_match_tasks(state: &State) -> Result<(), String> {
    let (work, mut links) = (&state.work, 0);
    for (task, hold) in work.holds.iter() {
        links += hold.after.len();
        let is_held = work.tasks.get(task).is_some_and(|known| known.phase == Phase::Held);
        // Whoever comes after older tasks only cannot come after itself.
        let is_older = hold.after.last().is_some_and(|last| *last < task) && hold.after.is_sorted_by(|one, next| one < next);
        let is_linked = |dependency: &Ordinal| work.holds.dependents(*dependency).any(|dependent| dependent == task);
        let is_open = |dependency: &Ordinal| work.tasks.get(*dependency).is_some() != work.holds.has_ended(*dependency);
        if !is_held || !is_older || !hold.after.iter().all(|dependency| is_linked(dependency) && is_open(dependency)) {
            return Err(format!("task {task} is held by {hold:?}"));
        }
    }
    let held = work.tasks.iter().filter(|(_, task, _)| task.phase == Phase::Held).count();
    if held == work.holds.iter().count() && links == work.holds.links() {
        Ok(())
    } else {
        Err(format!("{held} held tasks, {} holds of {links} links, {} counted", work.holds.iter().count(), work.holds.links()))
    }
}

fn budgets_hold(state: &State) -> Result<(), String> {
    let work = &state.work;
    let over = work
        .tasks
        .iter()
        .find(|(_, task, _)| task.failures >= work.retry_policy(task).attempts || task.losses > work.settings(task).losses_max);
    over.map_or(Ok(()), |(ordinal, task, _)| {
        Err(format!("task {ordinal} failed {} times and was lost {} times", task.failures, task.losses))
    })
}

fn requests_are_accounted_for(state: &State) -> Result<(), String> {
    let work = &state.work;
    let ended: u64 = work.ended.iter().sum();
    let total = ended + work.tasks.len() as u64;
    if total == work.tasks.next().0 {
        Ok(())
    } else {
        Err(format!("{} requests, {ended} ended, {} live", work.tasks.next(), work.tasks.len()))
    }
}

fn dead_letters_are_bounded(state: &State) -> Result<(), String> {
    let work = &state.work;
    let bytes: usize = work.dead.values().map(|letter| letter.payload.len()).sum();
    let within = work.dead.len() <= DEAD_LETTERS_MAX && bytes == work.dead_bytes && bytes <= DEAD_LETTER_BYTES_MAX;
    if within { Ok(()) } else { Err(format!("{} letters of {bytes} bytes, {} counted", work.dead.len(), work.dead_bytes)) }
}
