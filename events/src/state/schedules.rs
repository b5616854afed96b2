//! Schedules: what each is, how far it is, and what became of its slots.

use std::sync::Arc;

use bincode::{Decode, Encode};

use crate::event::{Envelope, Event};
use crate::id::{Ordinal, ScheduleId};
use crate::schedule::{PassedOver, ScheduleSettings};
use crate::time::Timestamp;

/// Since when a schedule fires nothing, and who wanted that.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, serde::Serialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Who.
    pub by: String,
    /// And why.
    pub reason: String,
}

/// The newest firing of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LastFiring {
    /// Its slot.
    pub slot: Timestamp,
    /// Its task.
    pub task: Ordinal,
}

/// One schedule.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// What it is.
    pub settings: Arc<ScheduleSettings>,
    /// Whether it is no longer wanted; it fires nothing then.
    pub removed: bool,
    /// Whether it waits to be resumed.
    pub paused: Option<Pause>,
    /// Every slot up to here was dealt with; at first, the moment of the definition.
    pub dealt: Timestamp,
    /// Slots up to here fell into a pause.
    pub held: Timestamp,
    /// The newest firing, a triggered one included.
    pub last: Option<LastFiring>,
    /// Firings so far, triggered ones included.
    pub fired: u64,
    /// Slots that were passed over, in the order of [`PassedOver::ALL`].
    pub passed: [u64; 4],
}

/// All schedules of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Schedules {
    /// By [`ScheduleId`].
    pub list: Vec<Schedule>,
}

impl Schedules {
    /// The schedule with this id.
    pub fn get(&self, schedule: ScheduleId) -> Option<&Schedule> {
        self.list.get(usize::from(schedule.0))
    }

    /// The schedule with this name.
    pub fn named(&self, name: &str) -> Option<(ScheduleId, &Schedule)> {
        (0..).map(ScheduleId).zip(&self.list).find(|(_, schedule)| schedule.name == name)
    }

    /// Those that were not removed, by name.
    pub fn active(&self) -> Vec<(ScheduleId, &Schedule)> {
        let mut active: Vec<_> = (0..).map(ScheduleId).zip(&self.list).filter(|(_, schedule)| !schedule.removed).collect();
        active.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        active
    }

    /// Folds an event of schedules; others change nothing.
    pub(crate) fn apply(&mut self, envelope: &Envelope<'_>) {
        let at = envelope.recorded_at;
        #[expect(clippy::wildcard_enum_match_arm, reason = "`Event::half` lists who folds what")]
        match envelope.event {
            Event::ScheduleDefined { schedule, name, ref plan, .. } => self.define(schedule, name, plan, at),
            Event::ScheduleRemoved { schedule, .. } => self.change(schedule, |known| known.removed = true),
            Event::SchedulePaused { schedule, by, reason } => self.change(schedule, |known| {
                known.paused = Some(Pause { since: at, by: by.to_owned(), reason: reason.to_owned() });
            }),
            Event::ScheduleResumed { schedule, .. } => self.change(schedule, |known| {
                known.paused = None;
                known.held = at;
            }),
            Event::Fired { schedule, slot, task } => self.change(schedule, |known| {
                known.dealt = known.dealt.max(slot);
                known.fired += 1;
                known.last = Some(LastFiring { slot, task });
            }),
            Event::Triggered { schedule, slot, task, .. } => self.change(schedule, |known| {
                known.fired += 1;
                known.last = Some(LastFiring { slot, task });
            }),
            Event::SlotsPassed { schedule, to, count, because, .. } => self.change(schedule, |known| {
                known.dealt = known.dealt.max(to);
                let passed = &mut known.passed[because as usize];
                *passed = passed.saturating_add(count);
            }),
            _ => {}
        }
    }

    /// A schedule whose times changed begins anew: what the old times missed is not what the new ones mean.
    fn define(&mut self, schedule: ScheduleId, name: &str, plan: &ScheduleSettings, at: Timestamp) {
        let (index, count) = (usize::from(schedule.0), self.list.len());
        let settings = Arc::new(plan.clone());
        if index == count {
            let (paused, last, passed) = (None, None, [0; PassedOver::ALL.len()]);
            let name = name.to_owned();
            let new = Schedule { name, settings, removed: false, paused, dealt: at, held: at, last, fired: 0, passed };
            self.list.push(new);
        } else if let Some(known) = self.list.get_mut(index) {
            let times = |settings: &ScheduleSettings| (settings.when.clone(), settings.timezone.clone());
            if known.removed || times(&known.settings) != times(plan) {
                known.dealt = known.dealt.max(at);
            }
            (known.settings, known.removed) = (settings, false);
        }
    }

    fn change(&mut self, schedule: ScheduleId, change: impl FnOnce(&mut Schedule)) {
        if let Some(known) = self.list.get_mut(usize::from(schedule.0)) {
            change(known);
        }
    }
}
