//! Looks which slots of schedules are due, and proposes what is to be done about them.
//!
//! A loop and no actor, for nobody tells it anything: how far each schedule is lies in the accepted state, which it asks for at every look. So a slot
//! whose proposal was refused or lost is found again at the next look, and one that was taken is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use ergate_events::command::Rejection;
use ergate_events::id::ScheduleId;
use ergate_events::schedule::{Duty, Passed, PassedOver, duty};
use ergate_events::state::schedules::Schedule;
use ergate_events::time::{Micros, Timestamp};
use tokio::sync::oneshot;

use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::log_writer::{CopySchedules, LogWriter, Propose};
use crate::proposal::{DueSlots, Proposal};
use crate::submission::SubmitError;

/// Longest time between two looks: a schedule that was resumed, and a wall clock that was set, are seen after that.
const LOOK_EVERY: Micros = Micros::from_millis(500);

/// What a scheduler is made of.
#[derive(Clone)]
pub struct Scheduler {
    /// Decides what is proposed.
    pub writer: Addr<LogWriter>,
    /// Tells the time on the wall.
    pub clock: Arc<dyn Clock>,
    /// The calendars of the schedules that are fired here, by name.
    pub calendars: Arc<BTreeMap<String, Calendar>>,
    /// Whether another task may come in; while it may not, slots wait.
    pub admits: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// The shard takes no more proposals.
struct Closed;

impl Scheduler {
    /// Looks again and again, until the shard takes no more.
    pub async fn run(self) {
        while let Ok(wait) = self.look().await {
            tokio::time::sleep(wait).await;
        }
    }

    /// Deals with what is due; says how long nothing will be.
    async fn look(&self) -> Result<Duration, Closed> {
        let schedules = self.writer.send(CopySchedules).await.map_err(|_| Closed)?;
        let now = self.clock.wall();
        let mut next = now.after(LOOK_EVERY);
        for (id, schedule) in schedules.active() {
            let Some(calendar) = self.calendars.get(&schedule.name).filter(|_| schedule.paused.is_none()) else { continue };
            if calendar.next(schedule.dealt).is_some_and(|slot| slot <= now) && (self.admits)() {
                self.generate(id, schedule, calendar, now).await?;
            }
            next = calendar.next(now).map_or(next, |slot| next.min(slot));
        }
        Ok(next.since(self.clock.wall()).to_std())
    }

    async fn generate(&self, id: ScheduleId, schedule: &Schedule, calendar: &Calendar, now: Timestamp) -> Result<(), Closed> {
        let due = duty(calendar.slots(schedule.dealt), schedule.held, now, schedule.settings.catch_up);
        let fire = due.fire.clone();
        match self.propose(id, schedule, due).await {
            Ok(()) => Ok(()),
            Err(SubmitError::Rejected(rejection)) if rejection.is_busy() || is_outdated(&rejection) => {
                tracing::debug!(schedule = schedule.name, %rejection, "a firing waits");
                Ok(())
            }
            Err(SubmitError::Rejected(rejection)) => {
                tracing::warn!(schedule = schedule.name, %rejection, "a slot is passed over, for its request is refused");
                self.refuse(id, &fire).await
            }
            Err(_) => Err(Closed),
        }
    }

    /// Passes over the first of these slots that was not dealt with.
    async fn refuse(&self, id: ScheduleId, slots: &[Timestamp]) -> Result<(), Closed> {
        let schedules = self.writer.send(CopySchedules).await.map_err(|_| Closed)?;
        let Some(schedule) = schedules.get(id) else { return Ok(()) };
        let Some(slot) = slots.iter().copied().find(|slot| *slot > schedule.dealt) else { return Ok(()) };
        let passed = vec![Passed { from: slot, to: slot, count: 1, because: PassedOver::Refused }];
        match self.propose(id, schedule, Duty { passed, fire: Vec::new() }).await {
            Ok(()) | Err(SubmitError::Rejected(_)) => Ok(()),
            Err(_) => Err(Closed),
        }
    }

    /// Proposes what is to be done and waits until it is durable.
    async fn propose(&self, id: ScheduleId, schedule: &Schedule, duty: Duty) -> Result<(), SubmitError> {
        let due = DueSlots::new(id, &schedule.name, Arc::clone(&schedule.settings), schedule.dealt, duty);
        let (reply, answer) = oneshot::channel();
        let closed = || SubmitError::Closed { reason: "the shard is gone".to_owned() };
        self.writer.send(Propose { proposal: Proposal::Due(due), reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?.map(drop)
    }
}

/// Whether the schedule has changed since it was looked at.
const fn is_outdated(rejection: &Rejection) -> bool {
    matches!(rejection, Rejection::NotNextSlot { .. } | Rejection::UnknownSchedule(_))
}
