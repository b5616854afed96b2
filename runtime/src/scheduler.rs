//! Starts the scheduler of a runtime that has schedules, and starts it again whenever it fails.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::Arbiter;
use ergate_actors::calendar::Calendar;
use ergate_actors::scheduler::Scheduler;
use ergate_events::schedule::is_schedule_name;

use crate::builder::Builder;
use crate::local::admit;
use crate::runtime::StartError;
use crate::wiring::Parts;

/// How long a scheduler that failed waits before it looks again.
const RESTART_AFTER: Duration = Duration::from_millis(500);

/// The calendars of schedules by name.
pub(crate) type Calendars = BTreeMap<String, Calendar>;

/// The calendars of a builder's schedules; before anything is opened, for what is wrong with one is no fault of the log.
pub(crate) fn calendars(builder: &Builder) -> Result<Calendars, StartError> {
    let schedules = builder.schedules.iter().flatten();
    schedules
        .map(|(name, settings)| {
            let refused = |reason: String| StartError::Schedule { name: name.clone(), reason };
            if !is_schedule_name(name) {
                return Err(refused("its name has letters, digits, `-` and `_`, at most 64 of them".to_owned()));
            }
            if !builder.types.contains_key(&settings.task) {
                let known = builder.types.keys().take(8).cloned().collect::<Vec<_>>().join(", ");
                return Err(refused(format!("its task type {:?} is not registered; registered are: {known}", settings.task)));
            }
            let calendar = Calendar::of(settings).map_err(|error| refused(error.to_string()))?;
            if !settings.is_possible() {
                let rule =
                    "an interval is 1 s to 366 days, a payload at most 64 KiB, a priority at most 9, a label at most 256 bytes";
                return Err(refused(format!("a setting is out of range: {rule}")));
            }
            Ok((name.clone(), calendar))
        })
        .collect()
}

/// Starts the scheduler on a thread of its own: after a long outage it has many slots to count.
pub(crate) fn start(parts: &Parts, calendars: Calendars, tasks_live_max: usize) {
    if calendars.is_empty() {
        return;
    }
    let (counters, tail) = (Arc::clone(&parts.counters), parts.tail.clone());
    let scheduler = Scheduler {
        writer: parts.writer.clone(),
        clock: Arc::clone(&parts.clock),
        calendars: Arc::new(calendars),
        admits: Arc::new(move || admit(&counters, &tail, 1, tasks_live_max).is_ok()),
    };
    let (arbiter, restarts) = (Arbiter::new(), Arc::clone(&parts.restarts));
    arbiter.spawn(async move {
        while let Err(error) = actix::spawn(scheduler.clone().run()).await {
            tracing::error!(%error, "the scheduler failed and starts again");
            restarts.schedulers.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(RESTART_AFTER).await;
        }
        Arbiter::current().stop();
    });
}
