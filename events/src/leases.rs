//! What workers ask of a shard, and what becomes of attempts whose worker is silent or gives them back.

use crate::command::Rejection;
use crate::decide::{current, end_failed, known, room_for_slots, stale, texts, within};
use crate::event::{Cause, Departure, Event};
use crate::id::{Ordinal, ReplicaId};
use crate::slab::{Phase, Task};
use crate::state::replicas::SLOTS_MAX;
use crate::state::{State, Work};
use crate::task::{MESSAGE_BYTES_MAX, Outcome};
use crate::time::Timestamp;
use crate::worker::WorkerFacts;

pub(crate) fn serve_types<'a>(work: &Work, types: &'a [String], out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    types.iter().try_for_each(|name| texts(&[("the name of a task type", name)]))?;
    if types.len() > crate::decide::TYPES_MAX || !types.is_sorted_by(|one, next| one < next) {
        return Err(Rejection::OutOfRange { what: "the task types of the process", rule: "at most 4096, in order, each once" });
    }
    if work.serves.as_deref().map(Vec::as_slice) != Some(types) {
        out.push(Event::TypesServed { types: types.to_vec() });
    }
    Ok(())
}

pub(crate) fn join<'a>(
    work: &Work,
    replica: ReplicaId,
    (pool, slots): (&'a str, u32),
    worker: &'a WorkerFacts,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    room_for_slots(work, pool, slots)?;
    if let Some((what, rule)) = worker.fault() {
        return Err(Rejection::OutOfRange { what, rule });
    }
    // One after the other, so that no id is given out twice.
    known(Some(replica) == work.next_worker() && !work.replicas.knows(replica), replica)?;
    out.push(Event::WorkerJoined { replica, pool, slots, worker: Box::new(worker.clone()) });
    Ok(())
}

pub(crate) fn ask(work: &Work, replica: ReplicaId, slots: u32, out: &mut Vec<Event<'_>>) -> Result<(), Rejection> {
    if slots == 0 || slots > SLOTS_MAX {
        return Err(Rejection::OutOfRange { what: "the number of attempts asked for", rule: "1 to 65536" });
    }
    let is_there = work.replicas.get(replica).is_some_and(|worker| !worker.draining);
    known(is_there && work.workers.contains_key(&replica), replica)?;
    out.push(Event::WorkAsked { replica, slots });
    Ok(())
}

pub(crate) fn change_concurrency<'a>(
    work: &Work,
    replica: ReplicaId,
    (before, concurrency): (u32, u32),
    reason: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    known(work.workers.contains_key(&replica), replica)?;
    within("the reason", reason.len(), MESSAGE_BYTES_MAX)?;
    if concurrency == 0 || concurrency > SLOTS_MAX || before == concurrency {
        return Err(Rejection::OutOfRange { what: "the concurrency of the worker", rule: "1 to 65536, and another than before" });
    }
    out.push(Event::ConcurrencyChanged { replica, before, concurrency, reason });
    Ok(())
}

pub(crate) fn miss(
    work: &Work,
    replica: ReplicaId,
    last_seen: Timestamp,
    at: Timestamp,
    out: &mut Vec<Event<'_>>,
) -> Result<(), Rejection> {
    let worker = work.workers.get(&replica).ok_or(Rejection::WrongReplica(replica))?;
    if at.since(last_seen) < worker.lease {
        return Err(Rejection::OutOfRange { what: "the silence of the worker", rule: "at least as long as its lease" });
    }
    out.push(Event::WorkerMissed { replica, last_seen });
    Ok(())
}

pub(crate) fn give_back(state: &State, ordinal: Ordinal, attempt: u32, out: &mut Vec<Event<'_>>) -> Result<(), Rejection> {
    let task = match current(&state.work, ordinal, attempt) {
        Ok(task) => task,
        Err(rejection) => return stale(&state.work, ordinal, attempt, rejection, out),
    };
    out.push(Event::AttemptReturned { task: ordinal, attempt });
    lost(state, ordinal, task, Departure::Drained, out);
    Ok(())
}

/// An attempt whose replica will not end it returns to the queue, unless its task was to be cancelled or has lost too many (task rule version 1).
pub(crate) fn lost(state: &State, ordinal: Ordinal, task: &Task, departure: Departure, out: &mut Vec<Event<'_>>) {
    out.push(Event::Lost { task: ordinal, attempt: task.attempt, departure });
    // What was given back or was drained too soon says nothing about the task.
    let losses = task.losses.saturating_add(u32::from(departure == Departure::Lost));
    if task.phase == Phase::Cancelling {
        out.push(Event::Ended { task: ordinal, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
    } else if losses > state.work.settings(task).losses_max {
        end_failed(&state.work, ordinal, task, Cause::LossesExhausted, out);
    }
}
