//! The rules for schedules: how they are defined, paused and resumed, and what a due slot leads to (task rule version 1).
//!
//! A slot is dealt with once: it fires or is passed over, and every slot up to it is behind the schedule for good. A firing and the request that it
//! makes are decided together, so they lie in one block: there is no moment at which one is in the log without the other.

use crate::command::Rejection;
use crate::decide::{cancel, request, texts};
use crate::event::{Digest, Event};
use crate::id::{Ordinal, ScheduleId, TypeId};
use crate::schedule::{
    FIRING_KEY_WINDOW, Overlap, Passed, PassedOver, SCHEDULES_MAX, ScheduleSettings, firing_key, is_schedule_name,
};
use crate::state::schedules::Schedule;
use crate::state::{State, Work, keys::KeyTable};
use crate::task::IdempotencyKey;
use crate::time::Timestamp;

/// Who cancels the task of the firing before, and why.
const PREVIOUS: (&str, &str) = ("schedule", "the next firing is due");

/// The task of a firing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Firing<'a> {
    /// It is requested now, with the key that [`firing_key`] makes and as the settings say, which must be those of the schedule.
    Request {
        /// The key.
        key: &'a str,
        /// The settings.
        plan: &'a ScheduleSettings,
    },
    /// It was requested just before; in an audit.
    Done(Ordinal),
}

pub(crate) fn define<'a>(
    state: &State,
    name: &'a str,
    plan: &ScheduleSettings,
    by: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by)])?;
    if !is_schedule_name(name) || !plan.is_possible() {
        let rule = "a name of letters, digits, `-` and `_`; a cron text, an interval of 1 s to 366 days or a moment; at most 64 KiB of payload";
        return Err(Rejection::OutOfRange { what: "the schedule", rule });
    }
    let all = &state.control.schedules;
    let schedule = match all.named(name) {
        Some((_, known)) if *known.settings == *plan && !known.removed => return Ok(()),
        Some((schedule, _)) => schedule,
        None if all.list.len() >= SCHEDULES_MAX => {
            return Err(Rejection::OutOfRange { what: "the number of schedules", rule: "at most 1024 in the life of a log" });
        }
        None => ScheduleId(u16::try_from(all.list.len()).expect("SCHEDULES_MAX is below 65,536")),
    };
    out.push(Event::ScheduleDefined { schedule, name, plan: Box::new(plan.clone()), by });
    Ok(())
}

pub(crate) fn remove<'a>(state: &State, schedule: ScheduleId, by: &'a str, out: &mut Vec<Event<'a>>) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by)])?;
    let known = state.control.schedules.get(schedule).ok_or(Rejection::UnknownSchedule(schedule))?;
    if !known.removed {
        out.push(Event::ScheduleRemoved { schedule, by });
    }
    Ok(())
}

pub(crate) fn pause<'a>(
    state: &State,
    schedule: ScheduleId,
    by: &'a str,
    reason: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    if active(state, schedule)?.paused.is_none() {
        out.push(Event::SchedulePaused { schedule, by, reason });
    }
    Ok(())
}

pub(crate) fn resume<'a>(
    state: &State,
    schedule: ScheduleId,
    by: &'a str,
    reason: &'a str,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    if active(state, schedule)?.paused.is_some() {
        out.push(Event::ScheduleResumed { schedule, by, reason });
    }
    Ok(())
}

/// A slot is due. One that was dealt with leads to nothing.
pub(crate) fn fire<'a>(
    state: &State,
    schedule: ScheduleId,
    (after, slot): (Option<Timestamp>, Timestamp),
    firing: Firing<'a>,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    let Some(known) = next_slot(state, schedule, after, slot)? else { return Ok(()) };
    if known.settings.overlap == Overlap::Skip && previous(&state.work, known).is_some() {
        out.push(Event::SlotsPassed { schedule, from: slot, to: slot, count: 1, because: PassedOver::Overlap });
        return Ok(());
    }
    let task = start(state, schedule, known, slot, firing, at, out)?;
    out.push(Event::Fired { schedule, slot, task });
    Ok(())
}

/// Somebody wants a firing beside the slots.
pub(crate) fn trigger<'a>(
    state: &State,
    schedule: ScheduleId,
    slot: Timestamp,
    firing: Firing<'a>,
    (by, reason): (&'a str, &'a str),
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<(), Rejection> {
    texts(&[("the name of who did it", by), ("the reason", reason)])?;
    let known = active(state, schedule)?;
    if let (Overlap::Skip, Some(of)) = (known.settings.overlap, previous(&state.work, known)) {
        return Err(Rejection::Overlaps { schedule, of });
    }
    let task = start(state, schedule, known, slot, firing, at, out)?;
    out.push(Event::Triggered { schedule, slot, task, by, reason });
    Ok(())
}

/// Slots are behind the schedule and did not fire.
pub(crate) fn pass_over(
    state: &State,
    schedule: ScheduleId,
    after: Option<Timestamp>,
    passed: Passed,
    out: &mut Vec<Event<'_>>,
) -> Result<(), Rejection> {
    let Passed { from, to, count, because } = passed;
    let Some(known) = next_slot(state, schedule, after, to)? else { return Ok(()) };
    let is_so = match because {
        PassedOver::Missed | PassedOver::Refused => true,
        PassedOver::Paused => to <= known.held,
        PassedOver::Overlap => known.settings.overlap == Overlap::Skip && previous(&state.work, known).is_some(),
    };
    if from <= known.dealt || from > to || count == 0 || !is_so {
        let rule = "behind what was dealt with, at least one, and for a reason that holds";
        return Err(Rejection::OutOfRange { what: "what is passed over", rule });
    }
    out.push(Event::SlotsPassed { schedule, from, to, count, because });
    Ok(())
}

/// The schedule if it is there and was not removed.
fn active(state: &State, schedule: ScheduleId) -> Result<&Schedule, Rejection> {
    let known = state.control.schedules.get(schedule).filter(|known| !known.removed);
    known.ok_or(Rejection::UnknownSchedule(schedule))
}

/// The schedule if this slot may be dealt with; `None` where it was. Whoever looked at the slots says behind which one, so that none between is lost.
fn next_slot(
    state: &State,
    schedule: ScheduleId,
    after: Option<Timestamp>,
    slot: Timestamp,
) -> Result<Option<&Schedule>, Rejection> {
    let known = active(state, schedule)?;
    if slot <= known.dealt {
        return Ok(None);
    }
    if known.paused.is_some() || after.is_some_and(|after| after != known.dealt) {
        return Err(Rejection::NotNextSlot { schedule, slot });
    }
    Ok(Some(known))
}

/// The task of the last firing while it is live.
fn previous(work: &Work, known: &Schedule) -> Option<Ordinal> {
    known.last.map(|last| last.task).filter(|task| work.tasks.get(*task).is_some())
}

/// Requests the task of a firing and cancels the one before, if that is wanted.
fn start<'a>(
    state: &State,
    schedule: ScheduleId,
    known: &Schedule,
    slot: Timestamp,
    firing: Firing<'a>,
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<Ordinal, Rejection> {
    let work = &state.work;
    let task_type = *work.type_names.get(&known.settings.task).ok_or(Rejection::NoScheduledType(schedule))?;
    let task = match firing {
        Firing::Request { key, plan } => ask(work, schedule, known, task_type, (slot, key, plan), at, out)?,
        Firing::Done(task) if is_task_of(work, known, slot, task, at) => task,
        Firing::Done(task) => return Err(Rejection::UnknownTask(task)),
    };
    if let (Overlap::CancelPrevious, Some(previous)) = (known.settings.overlap, previous(work, known))
        && previous != task
    {
        cancel(work, previous, PREVIOUS.0, PREVIOUS.1, out)?;
    }
    Ok(task)
}

fn ask<'a>(
    work: &Work,
    schedule: ScheduleId,
    known: &Schedule,
    task_type: TypeId,
    (slot, key, plan): (Timestamp, &'a str, &'a ScheduleSettings),
    at: Timestamp,
    out: &mut Vec<Event<'a>>,
) -> Result<Ordinal, Rejection> {
    if *known.settings != *plan || key != firing_key(&known.name, slot) {
        return Err(Rejection::NotNextSlot { schedule, slot });
    }
    let next = work.tasks.next();
    let wanted = IdempotencyKey { key, window: Some(FIRING_KEY_WINDOW) };
    request(work, task_type, plan.payload.as_bytes(), Some(wanted), &plan.asks(schedule), at, out)?;
    // That the key was known is no answer to anybody: the firing names the task.
    let repeated = out.pop_if(|event| matches!(event, Event::Deduplicated { .. }));
    Ok(repeated.and_then(|event| event.task()).unwrap_or(next))
}

/// Whether the key of a firing stands for this task.
fn is_task_of(work: &Work, known: &Schedule, slot: Timestamp, task: Ordinal, at: Timestamp) -> bool {
    let hash = KeyTable::hash(&known.settings.task, &firing_key(&known.name, slot));
    let digest = Digest::of(known.settings.payload.as_bytes());
    work.keys.get(hash, at).is_some_and(|entry| entry.task == task && entry.digest == digest)
}
