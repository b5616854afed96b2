//! Schedules: what each is, how far it is, and when it is due next.

use ergate_actors::calendar::Calendar;
use ergate_events::id::{ShardId, TaskId};
use ergate_events::schedule::{CatchUp, Label, Overlap, PassedOver, ScheduleSettings, When, name_of};
use ergate_events::state::State;
use ergate_events::state::schedules::Schedule;
use ergate_events::time::Timestamp;
use serde_json::{Map, Value, json};

use super::moment::time;

/// Firings that a preview tells where nobody says how many, and at most.
pub const PREVIEW: (usize, usize) = (10, 1_000);

/// The schedule of a state with this name, unless it was removed.
pub fn find<'a>(state: &'a State, name: &str) -> Option<&'a Schedule> {
    state.control.schedules.named(name).map(|(_, known)| known).filter(|known| !known.removed)
}

/// What is told where there is no such schedule.
pub fn missing(name: &str) -> String {
    let shown: String = name.chars().take(64).collect();
    format!("there is no schedule {shown:?}; `ergate schedule list` shows those that are there")
}

/// Every schedule of a state, by name, as programs see them at this time.
pub fn schedules(shard: ShardId, state: &State, now: Timestamp) -> Vec<Value> {
    state.control.schedules.active().into_iter().map(|(_, known)| schedule_json(shard, state, known, now)).collect()
}

/// A schedule as programs see it at this time.
pub fn schedule_json(shard: ShardId, state: &State, known: &Schedule, now: Timestamp) -> Value {
    let Schedule { name, settings, paused, last, fired, passed, .. } = known;
    let ScheduleSettings { when, timezone, task, payload, labels, priority, catch_up, overlap } = &**settings;
    let calendar = Calendar::of(settings).ok().filter(|_| paused.is_none());
    let next = calendar.and_then(|calendar| Some(firing(&calendar, calendar.next(now.max(known.dealt))?)));
    let (cron, every, at) = match when {
        When::Cron(text) => (Some(text), None, None),
        When::Every(span) => (None, Some(span.to_string()), None),
        When::At(at) => (None, None, Some(time(*at))),
    };
    let last = last.map(|last| {
        let (ordinal, is_live) = (last.task, state.work.tasks.get(last.task).is_some());
        json!({ "slot": time(last.slot), "task": TaskId { shard, ordinal }, "live": is_live })
    });
    let passed: Map<String, Value> =
        PassedOver::ALL.iter().zip(passed).map(|(because, count)| (because.name().to_owned(), Value::from(*count))).collect();
    json!({
        "name": name, "cron": cron, "every": every, "at": at, "timezone": timezone, "task": task, "payload": payload,
        "labels": labels.iter().map(|Label { name, value }| (name.clone(), Value::from(value.clone()))).collect::<Map<_, _>>(),
        "priority": priority, "catch_up": name_of(&CatchUp::ALL, *catch_up), "overlap": name_of(&Overlap::ALL, *overlap),
        "paused": paused.as_ref().map(|pause| json!({ "since": time(pause.since), "by": pause.by, "reason": pause.reason })),
        "next": next, "last": last, "fired": fired, "passed": passed,
    })
}

/// The next firings of a schedule after a moment, in UTC and as its clocks show them; it has none without a calendar.
pub fn preview(known: &Schedule, after: Timestamp, count: usize) -> Vec<Value> {
    let Ok(calendar) = Calendar::of(&known.settings) else { return Vec::new() };
    calendar.slots(after).take(count).map(|slot| firing(&calendar, slot)).collect()
}

fn firing(calendar: &Calendar, slot: Timestamp) -> Value {
    json!({ "slot": time(slot), "local": calendar.local(slot) })
}
