//! What a schedule is, and which of its slots are fired once they are due.
//!
//! A *slot* is a moment at which a schedule is due; it is the identity of a firing. Which moments are slots is a calendar's to say, which knows time
//! zones and is not part of the core: slots come to it like every other reading of the outside world.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::cron::Cron;
use crate::id::ScheduleId;
use crate::task::{ASKS_MAX, Ask, PRIORITY_MAX, TEXT_BYTES_MAX};
use crate::time::{Micros, Timestamp};

/// Most schedules in the life of a log.
pub const SCHEDULES_MAX: usize = 1_024;
/// Longest name of a schedule, in bytes: with a slot it has to fit into an idempotency key.
pub const SCHEDULE_NAME_BYTES_MAX: usize = 64;
/// Longest payload of a schedule, in bytes: the payloads of all schedules are kept in memory.
pub const SCHEDULE_PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// A slot is on time up to so long after it, and missed from then on: longer than a restart takes, shorter than anybody would call an outage.
pub const LATE_MAX: Micros = Micros::from_secs(10);
/// Most missed slots that `run-all` fires after one outage; the newest.
pub const CATCH_UP_MAX: usize = 1_000;
/// Most slots that are looked at in one go: twelve days of seconds. Behind more than that, all that are looked at are missed for good.
pub const LOOK_SLOTS_MAX: u64 = 1 << 20;
/// Shortest interval: slots are as fine as those of cron.
pub const EVERY_MIN: Micros = Micros::from_secs(1);
/// Longest interval.
pub const EVERY_MAX: Micros = Micros::from_secs(366 * 24 * 3_600);
/// How long the key of a firing stays valid. That a slot fires once does not depend on it; the key is how a person finds the task.
pub const FIRING_KEY_WINDOW: Micros = Micros::from_secs(3_600);

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At the times of a cron text, in the schedule's time zone.
    Cron(String),
    /// At every multiple of a span since 1970-01-01T00:00:00Z.
    Every(Micros),
    /// Once.
    At(Timestamp),
}

/// What becomes of slots that were missed because nobody was there to fire them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are passed over.
    #[default]
    Skip,
    /// The newest fires, and stands for the others.
    RunOnce,
    /// Each fires, oldest first, at most [`CATCH_UP_MAX`].
    RunAll,
}

/// What becomes of a firing while the task of the one before is live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It fires.
    #[default]
    Allow,
    /// It is passed over.
    Skip,
    /// It fires, and the task before is cancelled.
    CancelPrevious,
}

/// Why a slot was not fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PassedOver {
    /// Nobody was there at its time.
    Missed,
    /// The task of the firing before was live.
    Overlap,
    /// The schedule was paused.
    Paused,
    /// Its request cannot be taken, now or later.
    Refused,
}

/// A name and a value to find tasks by.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// Everything about a schedule but its name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// When it is due.
    pub when: When,
    /// The IANA name of the time zone of a cron text.
    pub timezone: String,
    /// The type of its tasks.
    pub task: String,
    /// The payload of its tasks.
    pub payload: String,
    /// The labels of its tasks.
    pub labels: Vec<Label>,
    /// Their priority, where it is not that of their type.
    pub priority: Option<u8>,
    /// What becomes of missed slots.
    pub catch_up: CatchUp,
    /// What becomes of firings while the task of the one before is live.
    pub overlap: Overlap,
}

impl CatchUp {
    /// All of them under the names that people use.
    pub const ALL: [(&'static str, CatchUp); 3] =
        [("skip", CatchUp::Skip), ("run-once", CatchUp::RunOnce), ("run-all", CatchUp::RunAll)];
}

impl Overlap {
    /// All of them under the names that people use.
    pub const ALL: [(&'static str, Overlap); 3] =
        [("allow", Overlap::Allow), ("skip", Overlap::Skip), ("cancel-previous", Overlap::CancelPrevious)];
}

impl PassedOver {
    /// All of them, in the order of their numbers.
    pub const ALL: [PassedOver; 4] = [PassedOver::Missed, PassedOver::Overlap, PassedOver::Paused, PassedOver::Refused];

    /// The printed form.
    pub const fn name(self) -> &'static str {
        match self {
            PassedOver::Missed => "missed",
            PassedOver::Overlap => "overlap",
            PassedOver::Paused => "paused",
            PassedOver::Refused => "refused",
        }
    }
}

/// The name of one of them.
pub fn name_of<T: Copy + PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

impl ScheduleSettings {
    /// A schedule of tasks of this type with the payload `null`, in UTC, that passes over what it missed and lets tasks overlap.
    pub fn new(when: When, task: &str) -> ScheduleSettings {
        ScheduleSettings {
            when,
            timezone: "UTC".to_owned(),
            task: task.to_owned(),
            payload: "null".to_owned(),
            labels: Vec::new(),
            priority: None,
            catch_up: CatchUp::default(),
            overlap: Overlap::default(),
        }
    }

    /// Whether all is within its limits. The time zone is looked up where there is a calendar.
    pub fn is_possible(&self) -> bool {
        let is_text = |text: &str| text.len() <= TEXT_BYTES_MAX;
        let is_due = match &self.when {
            When::Cron(text) => Cron::parse(text).is_ok(),
            When::Every(span) => (EVERY_MIN..=EVERY_MAX).contains(span),
            When::At(_) => true,
        };
        let labels = self.labels.iter().all(|label| is_text(&label.name) && is_text(&label.value) && !label.name.is_empty());
        let texts = is_text(&self.timezone) && is_text(&self.task) && !self.task.is_empty() && labels;
        let counts = self.payload.len() <= SCHEDULE_PAYLOAD_BYTES_MAX && self.labels.len() < ASKS_MAX;
        is_due && texts && counts && self.priority.is_none_or(|priority| priority <= PRIORITY_MAX)
    }

    /// What its requests ask for where these are the settings of this schedule.
    pub(crate) fn asks(&self, schedule: ScheduleId) -> Vec<Ask<'_>> {
        let labels = self.labels.iter().map(|Label { name, value }| Ask::Label(name, value));
        self.priority.map(Ask::Priority).into_iter().chain(labels).chain([Ask::FiredBy(schedule)]).collect()
    }
}

/// The idempotency key of a firing.
pub fn firing_key(name: &str, slot: Timestamp) -> String {
    format!("schedule/{name}/{}", slot.rfc3339())
}

/// Whether this can name a schedule: letters, digits, `-` and `_`.
pub fn is_schedule_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=SCHEDULE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// Slots of one schedule that are passed over together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The first of them.
    pub from: Timestamp,
    /// The last of them.
    pub to: Timestamp,
    /// How many.
    pub count: u64,
    /// Why.
    pub because: PassedOver,
}

impl Passed {
    /// One more slot, later than all so far.
    fn and(passed: Option<Passed>, slot: Timestamp, because: PassedOver) -> Option<Passed> {
        let first = Passed { from: slot, to: slot, count: 0, because };
        let passed = passed.unwrap_or(first);
        Some(Passed { to: slot, count: passed.count + 1, ..passed })
    }
}

/// What is to be done about slots: first some are passed over, then some are fired, all in the order of their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duty {
    /// What fell into a pause, then what was missed.
    pub passed: Vec<Passed>,
    /// What fires.
    pub fire: Vec<Timestamp>,
}

/// What is to be done at `now` about slots that nobody has dealt with: all that are due, oldest first. Those up to `held` fell into a pause.
pub fn duty(slots: impl Iterator<Item = Timestamp>, held: Timestamp, now: Timestamp, catch_up: CatchUp) -> Duty {
    let keep = match catch_up {
        CatchUp::Skip => 0,
        CatchUp::RunOnce => 1,
        CatchUp::RunAll => CATCH_UP_MAX,
    };
    let (mut paused, mut missed, mut late, mut on_time) = (None, None, VecDeque::new(), Vec::new());
    let mut slots = slots.take_while(|slot| *slot <= now);
    for slot in slots.by_ref().take(usize::try_from(LOOK_SLOTS_MAX).unwrap_or(usize::MAX)) {
        if slot <= held {
            paused = Passed::and(paused, slot, PassedOver::Paused);
        } else if now.since(slot) <= LATE_MAX {
            on_time.push(slot);
        } else {
            late.push_back(slot);
            if late.len() > keep {
                missed = late.pop_front().and_then(|oldest| Passed::and(missed, oldest, PassedOver::Missed));
            }
        }
    }
    if slots.next().is_some() {
        missed = late.drain(..).fold(missed, |missed, slot| Passed::and(missed, slot, PassedOver::Missed));
    }
    Duty { passed: paused.into_iter().chain(missed).collect(), fire: late.into_iter().chain(on_time).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000;

    /// Slots at each full hour of `hours`, looked at `minutes` after the last one.
    fn after(hours: std::ops::RangeInclusive<u64>, minutes: u64, catch_up: CatchUp) -> Duty {
        let now = Timestamp(hours.end() * HOUR + minutes * 60_000_000);
        duty((*hours.start()..).map(|hour| Timestamp(hour * HOUR)), Timestamp(0), now, catch_up)
    }

    fn missed(hours: std::ops::RangeInclusive<u64>) -> Vec<Passed> {
        let count = hours.end() - hours.start() + 1;
        let (from, to) = (Timestamp(hours.start() * HOUR), Timestamp(hours.end() * HOUR));
        vec![Passed { from, to, count, because: PassedOver::Missed }]
    }

    #[test]
    fn a_slot_on_time_fires_whatever_the_policy() {
        for (_, catch_up) in CatchUp::ALL {
            let expected = Duty { passed: Vec::new(), fire: vec![Timestamp(7 * HOUR)] };
            assert_eq!(after(7..=7, 0, catch_up), expected);
        }
    }

    #[test]
    fn what_an_outage_missed_is_passed_over_or_fired_once_or_each() {
        let fire = |hours: std::ops::RangeInclusive<u64>| hours.map(|hour| Timestamp(hour * HOUR)).collect::<Vec<_>>();
        assert_eq!(after(1..=72, 30, CatchUp::Skip), Duty { passed: missed(1..=72), fire: Vec::new() });
        assert_eq!(after(1..=72, 30, CatchUp::RunOnce), Duty { passed: missed(1..=71), fire: fire(72..=72) });
        assert_eq!(after(1..=72, 30, CatchUp::RunAll), Duty { passed: Vec::new(), fire: fire(1..=72) });
        assert_eq!(after(1..=1_500, 30, CatchUp::RunAll), Duty { passed: missed(1..=500), fire: fire(501..=1_500) });
        // The slot that is on time fires beside what stands for the missed ones.
        assert_eq!(after(1..=72, 0, CatchUp::Skip), Duty { passed: missed(1..=71), fire: fire(72..=72) });
        assert_eq!(after(1..=72, 0, CatchUp::RunOnce), Duty { passed: missed(1..=70), fire: fire(71..=72) });
    }

    #[test]
    fn a_slot_is_on_time_for_ten_seconds() {
        let fires = |late| {
            let slots = std::iter::once(Timestamp(HOUR));
            !duty(slots, Timestamp(0), Timestamp(HOUR).after(late), CatchUp::Skip).fire.is_empty()
        };
        assert!(fires(LATE_MAX));
        assert!(!fires(Micros(LATE_MAX.0 + 1)));
    }

    #[test]
    fn what_fell_into_a_pause_is_not_missed() {
        let slots = (1..).map(|hour| Timestamp(hour * HOUR));
        let duty = duty(slots, Timestamp(5 * HOUR), Timestamp(8 * HOUR + HOUR / 2), CatchUp::RunOnce);
        let paused = Passed { from: Timestamp(HOUR), to: Timestamp(5 * HOUR), count: 5, because: PassedOver::Paused };
        assert_eq!(duty.passed, [vec![paused], missed(6..=7)].concat());
        assert_eq!(duty.fire, [Timestamp(8 * HOUR)]);
    }

    #[test]
    fn more_slots_than_are_looked_at_are_missed_for_good() {
        let now = Timestamp((LOOK_SLOTS_MAX + 100) * 1_000_000);
        let duty = duty((1..).map(|second| Timestamp(second * 1_000_000)), Timestamp(0), now, CatchUp::RunAll);
        assert_eq!((duty.passed.len(), duty.passed[0].count, duty.fire.len()), (1, LOOK_SLOTS_MAX, 0));
    }
}
