//! Names in the events of a task, where the log has numbers.

use ergate_events::id::{LimitId, ScheduleId, TaskId, TypeId};
use ergate_events::log::index::TypeNames;
use ergate_events::state::State;
use serde_json::{Map, Value};

/// Where an event of a task has the number of its type, of the limit that it waits for, and of the schedule that wanted it.
const TYPE: &str = "task_type";
const LIMIT: &str = "limit";
const SCHEDULE: &str = "schedule";

/// Puts the name of the task type in the place of its number, and ids of tasks in the place of theirs.
pub fn name_type(event: &mut Map<String, Value>, names: &TypeNames) {
    name_tasks(event);
    put(event, TYPE, |id: TypeId| names.name(id));
}

/// Puts ids in the place of the numbers of the tasks that an event's own task comes after.
pub fn name_tasks(event: &mut Map<String, Value>) {
    let Some(own) = event.get("task").and_then(Value::as_str).and_then(|text| text.parse::<TaskId>().ok()) else { return };
    let name = |value: &mut Value| {
        if let Some(ordinal) = value.as_str().and_then(|text| text.parse().ok()) {
            *value = TaskId { ordinal, ..own }.to_string().into();
        }
    };
    event.get_mut("cause").and_then(|cause| cause.get_mut("dependency")).into_iter().for_each(name);
    for ask in event.get_mut("asks").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(after) = ask.get_mut("after") else { continue };
        if let Some(mut task) = after.get_mut("task").map(Value::take) {
            name(&mut task);
            *after = task;
        } else if let Some(task) = after.get_mut("ended").and_then(|ended| ended.get_mut(0)) {
            name(task);
        }
    }
}

/// Whether an event has the number of something whose name only a state knows.
pub fn needs_state(event: &Map<String, Value>) -> bool {
    event.contains_key(LIMIT) || event.contains_key(SCHEDULE)
}

/// Puts the names of limit and schedule in the place of their numbers.
pub fn name_others(event: &mut Map<String, Value>, state: &State) {
    put(event, LIMIT, |id: LimitId| state.work.flow.limits.get(usize::from(id.0)).map(|limit| limit.name.as_str()));
    put(event, SCHEDULE, |id: ScheduleId| state.control.schedules.get(id).map(|schedule| schedule.name.as_str()));
}

fn put<'a, Id: std::str::FromStr>(event: &mut Map<String, Value>, field: &str, name: impl Fn(Id) -> Option<&'a str>) {
    let Some(value) = event.get_mut(field) else { return };
    if let Some(name) = value.as_str().and_then(|text| text.parse().ok()).and_then(name) {
        *value = name.into();
    }
}
