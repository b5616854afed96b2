//! What follows from the passing of time and from what is gone: the first step of every batch (task rule version 1).

use crate::decide::{after_failure, end_failed};
use crate::event::{Cause, Event, Timeout};
use crate::id::{Ordinal, ReplicaId};
use crate::leases::lost;
use crate::slab::{Phase, Task};
use crate::state::State;
use crate::state::control::Adjustment;
use crate::state::work::TimerKind;
use crate::task::Outcome;
use crate::time::Timestamp;

/// Most things that fall due in one batch; the rest follows in the next, so that a batch stays well below the size of a block.
pub const DUE_MAX: usize = 1_024;

/// Appends what falls due next at this moment, and nothing when nothing does. Applying it makes the next call find the next thing.
///
/// The order is fixed: timers by (time, task, kind), overdue attempts by replica and slot, attempts of replicas that are gone,
/// then the sizes of pools.
pub fn next_due(state: &State, at: Timestamp, out: &mut Vec<Event<'static>>) {
    if state.rules.task != 1 {
        return;
    }
    if let Some((due, ordinal, kind)) = state.work.timers.first().copied().filter(|(due, _, _)| *due <= at) {
        timer(state, due, ordinal, kind, out);
    } else if let Some((ordinal, attempt)) = state.work.replicas.iter().find_map(|(_, replica)| replica.overdue(at)) {
        overdue(state, ordinal, attempt, at, out);
    } else if let Some((ordinal, attempt, departure)) = state.work.replicas.to_return() {
        if let Some(task) = state.work.tasks.get(ordinal).filter(|task| task.attempt == attempt) {
            lost(state, ordinal, task, departure, out);
        }
    } else if state.is_unsettled() {
        adjust(state, out);
    }
}

fn timer(state: &State, _due: Timestamp, ordinal: Ordinal, kind: TimerKind, out: &mut Vec<Event<'static>>) {
    let Some(task) = state.work.tasks.get(ordinal) else { return };
    let attempt = task.attempt;
    match kind {
        TimerKind::Wake => out.push(Event::Ready { task: ordinal }),
        TimerKind::ScheduleToStart => expire(state, ordinal, task, Timeout::ScheduleToStart, out),
        TimerKind::ScheduleToClose => expire(state, ordinal, task, Timeout::ScheduleToClose, out),
        TimerKind::CancelGrace => {
            out.push(Event::TimedOut { task: ordinal, attempt, timeout: Timeout::CancelGrace });
            out.push(Event::Ended { task: ordinal, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
        }
    }
}

/// A limit on the task as a whole ends it.
fn expire(state: &State, ordinal: Ordinal, task: &Task, timeout: Timeout, out: &mut Vec<Event<'static>>) {
    out.push(Event::TimedOut { task: ordinal, attempt: task.attempt, timeout });
    if task.phase == Phase::Cancelling {
        out.push(Event::Ended { task: ordinal, outcome: Outcome::Cancelled, cause: Cause::Cancelled });
    } else {
        end_failed(&state.work, ordinal, task, Cause::TimedOut(timeout), out);
    }
}

fn overdue(state: &State, ordinal: Ordinal, attempt: u32, at: Timestamp, out: &mut Vec<Event<'static>>) {
    let Some(task) = state.work.tasks.get(ordinal) else { return };
    out.push(Event::TimedOut { task: ordinal, attempt, timeout: Timeout::StartToClose });
    after_failure(state, ordinal, task, true, None, at, out);
}

fn adjust(state: &State, out: &mut Vec<Event<'static>>) {
    match state.control.adjustment() {
        Some(Adjustment::Request(pool)) => {
            out.push(Event::ReplicaRequested { replica: ReplicaId(state.control.next_replica), pool })
        }
        Some(Adjustment::Drain(replica)) => out.push(Event::DrainRequested { replica }),
        None => {}
    }
}
