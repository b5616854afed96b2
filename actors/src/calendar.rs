//! The calendar of a schedule: which moments are its slots. Knows time zones, from the system or, where it has none, from a copy of the IANA
//! database that is built in.
//!
//! On the two days a year when local clocks are set, a cron text with fixed times (no `*` for seconds, minutes or hours) fires each of them once: a
//! time that does not exist at the first moment after the gap, a time that exists twice the first time. With a `*` it fires as local clocks show its
//! times: what they skip it skips, what they show twice it fires twice.

use ergate_events::cron::{Cron, CronError};
use ergate_events::nearest::nearest;
use ergate_events::schedule::{ScheduleSettings, When};
use ergate_events::time::{Micros, Timestamp};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// Microseconds of a second.
const SECOND: u64 = 1_000_000;
/// Transitions of a zone that are passed in search of a time that clocks show between them: two a year, for longer than cron looks ahead.
const TRANSITIONS_MAX: usize = 64;

/// Why a schedule has no calendar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// The text is not cron.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// The text is no moment.
    #[error(
        "{0:?} is no moment; write one with its offset such as 2030-01-31T12:00:00Z, or without for a moment in the schedule's time zone"
    )]
    Moment(String),
    /// Nobody knows the time zone.
    #[error("there is no time zone of this name{}\n  {name}\n  {:>width$}", meant(.nearest.as_deref()), "^", width = .place + 1)]
    Zone {
        /// Its name.
        name: String,
        /// One with nearly that name.
        nearest: Option<String>,
        /// The first character that differs from it, counted from 0.
        place: usize,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; the nearest is {nearest}"))
}

impl CalendarError {
    /// The setting that is at fault.
    pub const fn key(&self) -> &'static str {
        match self {
            CalendarError::Cron(_) => "cron",
            CalendarError::Moment(_) => "at",
            CalendarError::Zone { .. } => "timezone",
        }
    }
}

/// When a schedule is due.
#[derive(Clone, Debug)]
pub struct Calendar {
    when: Times,
    zone: TimeZone,
}

#[derive(Clone, Debug)]
enum Times {
    Cron(Cron),
    Every(Micros),
    At(Timestamp),
}

impl Calendar {
    /// The calendar of a schedule.
    ///
    /// # Errors
    /// [`CalendarError`] with the place in the text.
    pub fn of(settings: &ScheduleSettings) -> Result<Calendar, CalendarError> {
        let when = match &settings.when {
            When::Cron(text) => Times::Cron(Cron::parse(text)?),
            When::Every(span) => Times::Every(*span),
            When::At(at) => Times::At(*at),
        };
        Ok(Calendar { when, zone: zone(&settings.timezone)? })
    }

    /// The first slot after a moment; `None` when there is none left.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            Times::Cron(cron) => {
                let second = i64::try_from(after.0 / SECOND).ok()?;
                let found = if cron.follows_clock() { self.by_clock(cron, second) } else { self.fixed(cron, second) };
                found.and_then(|second| u64::try_from(second).ok()?.checked_mul(SECOND)).map(Timestamp)
            }
            Times::Every(Micros(span)) => (after.0 / span.max(&1)).checked_add(1)?.checked_mul(*span).map(Timestamp),
            Times::At(at) => Some(*at).filter(|at| *at > after),
        }
    }

    /// The slots after a moment, in order.
    pub fn slots(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |slot| self.next(*slot))
    }

    /// A moment as clocks show it in the schedule's time zone: `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub fn local(&self, at: Timestamp) -> String {
        let shown = i64::try_from(at.0).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        shown.map_or_else(|| at.rfc3339(), |at| at.to_zoned(self.zone.clone()).to_string())
    }

    /// The first of fixed times after a second.
    fn fixed(&self, cron: &Cron, after: i64) -> Option<i64> {
        // What local clocks show now lies before every time that is still to come; in the second pass of an hour also before some that have been.
        let mut local = u64::try_from(after + self.offset(after)?).unwrap_or(0);
        loop {
            let found = cron.next(local)?;
            let second = self.moment(found)?;
            if second > after {
                return Some(second);
            }
            local = found + 1;
        }
    }

    /// The second at which local clocks show this for the first time, or would have if they did not skip it.
    fn moment(&self, local: u64) -> Option<i64> {
        let local = i64::try_from(local).ok()?;
        let shown = Offset::UTC.to_datetime(jiff::Timestamp::from_second(local).ok()?);
        Some(match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => local - i64::from(offset.seconds()),
            AmbiguousOffset::Fold { before, .. } => local - i64::from(before.seconds()),
            AmbiguousOffset::Gap { before, .. } => {
                let behind = jiff::Timestamp::from_second(local - i64::from(before.seconds()) + 1).ok()?;
                self.zone.preceding(behind).next()?.timestamp().as_second()
            }
        })
    }

    /// The first second behind another at which local clocks show a time.
    fn by_clock(&self, cron: &Cron, after: i64) -> Option<i64> {
        let mut from = after + 1;
        for _ in 0..TRANSITIONS_MAX {
            let offset = self.offset(from)?;
            let found = i64::try_from(cron.next(u64::try_from(from + offset).unwrap_or(0))?).ok()? - offset;
            let transition = self.zone.following(jiff::Timestamp::from_second(from).ok()?).next();
            match transition.map(|transition| transition.timestamp().as_second()) {
                Some(transition) if transition <= found => from = transition,
                Some(_) | None => return Some(found),
            }
        }
        None
    }

    /// How far local clocks are ahead, in seconds.
    fn offset(&self, second: i64) -> Option<i64> {
        let at = jiff::Timestamp::from_second(second).ok()?;
        Some(i64::from(self.zone.to_offset(at).seconds()))
    }
}

/// Reads a moment, which is one in this time zone where it has no offset of its own.
///
/// # Errors
/// [`CalendarError::Moment`], [`CalendarError::Zone`].
pub fn moment(text: &str, timezone: &str) -> Result<Timestamp, CalendarError> {
    let refused = || CalendarError::Moment(text.chars().take(64).collect());
    let micros = |at: jiff::Timestamp| u64::try_from(at.as_microsecond()).map(Timestamp).map_err(|_| refused());
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return micros(at);
    }
    let shown: jiff::civil::DateTime = text.parse().map_err(|_| refused())?;
    let local = Offset::UTC.to_timestamp(shown).ok().and_then(|at| u64::try_from(at.as_second()).ok()).ok_or_else(refused)?;
    let calendar = Calendar { when: Times::At(Timestamp(0)), zone: zone(timezone)? };
    let second = calendar.moment(local).ok_or_else(refused)?;
    jiff::Timestamp::from_second(second).map_err(|_| refused()).and_then(micros)
}

/// The time zone with this IANA name.
///
/// # Errors
/// [`CalendarError::Zone`] with the nearest one.
pub fn zone(name: &str) -> Result<TimeZone, CalendarError> {
    let database = jiff::tz::db();
    database.get(name).map_err(|_| {
        let known: Vec<_> = database.available().collect();
        let meant = nearest(name, known.iter().map(jiff::tz::TimeZoneName::as_str));
        let same = |meant: &str| name.chars().zip(meant.chars()).take_while(|(a, b)| a == b).count();
        let shown = name.chars().take(64).map(|c| if c.is_control() { ' ' } else { c }).collect();
        CalendarError::Zone { name: shown, place: meant.map_or(0, same).min(64), nearest: meant.map(str::to_owned) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(cron: &str, timezone: &str) -> Calendar {
        let when = When::Cron(cron.to_owned());
        let settings = ScheduleSettings { timezone: timezone.to_owned(), ..ScheduleSettings::new(when, "job") };
        Calendar::of(&settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn at(text: &str) -> Timestamp {
        let moment: jiff::Timestamp = text.parse().expect("it is a moment");
        Timestamp(u64::try_from(moment.as_microsecond()).expect("it is behind 1970"))
    }

    /// The slots after a moment, as UTC has them, to the minute.
    fn slots(cron: &str, timezone: &str, after: &str, count: usize) -> Vec<String> {
        let all = calendar(cron, timezone);
        all.slots(at(after)).take(count).map(|slot| slot.rfc3339()[5..16].to_owned()).collect()
    }

    /// In Berlin 02:00 to 03:00 did not exist on 2026-03-29: at 01:00 UTC clocks went from 02:00 to 03:00.
    #[test]
    fn in_spring_a_fixed_time_that_does_not_exist_fires_once_after_the_gap() {
        let berlin = |cron| slots(cron, "Europe/Berlin", "2026-03-27T12:00:00Z", 3);
        assert_eq!(berlin("30 2 * * *"), ["03-28T01:30", "03-29T01:00", "03-30T00:30"]);
        assert_eq!(berlin("0 3 * * *"), ["03-28T02:00", "03-29T01:00", "03-30T01:00"]);
        // Three times of the gap, and the moment at its end, are one moment.
        let day = slots("0,15,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 4);
        assert_eq!(day, ["03-29T01:00", "03-29T01:15", "03-29T01:30", "03-30T00:00"]);
    }

    /// In Berlin 02:00 to 03:00 existed twice on 2026-10-25: at 01:00 UTC clocks went from 03:00 to 02:00.
    #[test]
    fn in_autumn_a_fixed_time_that_exists_twice_fires_the_first_time() {
        let berlin = |cron| slots(cron, "Europe/Berlin", "2026-10-23T12:00:00Z", 3);
        assert_eq!(berlin("30 2 * * *"), ["10-24T00:30", "10-25T00:30", "10-26T01:30"]);
        assert_eq!(berlin("0 3 * * *"), ["10-24T01:00", "10-25T02:00", "10-26T02:00"]);
        // Whoever looks in the second pass finds nothing left of the hour.
        assert_eq!(slots("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26T01:30"]);
    }

    #[test]
    fn with_a_star_a_cron_follows_the_clock_on_both_days() {
        let spring = slots("0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 4);
        assert_eq!(spring, ["03-29T00:00", "03-29T01:00", "03-29T02:00", "03-29T03:00"]);
        let autumn = slots("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 4);
        assert_eq!(autumn, ["10-25T00:00", "10-25T01:00", "10-25T02:00", "10-25T03:00"]);
        // Clocks showed 02:00 and 02:30 not at all, and twice.
        assert_eq!(slots("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2), ["03-30T00:00", "03-30T00:30"]);
        let twice = slots("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 5);
        assert_eq!(twice, ["10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-26T01:00"]);
    }

    /// Half an hour on Lord Howe, a whole day that Apia skipped, a zone that clocks never leave, and one that is behind UTC.
    #[test]
    fn odd_zones_keep_the_rules() {
        let lord_howe = slots("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T12:00:00Z", 3);
        assert_eq!(lord_howe, ["10-02T15:45", "10-03T15:30", "10-04T15:15"]);
        assert_eq!(slots("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3), ["12-29T22:00", "12-30T10:00", "12-30T22:00"]);
        assert_eq!(slots("0 3 * * *", "UTC", "2026-03-28T12:00:00Z", 2), ["03-29T03:00", "03-30T03:00"]);
        assert_eq!(slots("30 2 8 3 *", "America/New_York", "2026-03-01T00:00:00Z", 1), ["03-08T07:00"]);
    }

    #[test]
    fn an_interval_counts_from_1970_and_a_moment_comes_once() {
        let of = |when| Calendar::of(&ScheduleSettings::new(when, "job")).expect("it needs no text");
        let every = of(When::Every(Micros::from_secs(600)));
        assert_eq!(
            every.slots(at("2026-01-01T00:05:00Z")).take(2).collect::<Vec<_>>(),
            [at("2026-01-01T00:10:00Z"), at("2026-01-01T00:20:00Z")]
        );
        assert_eq!(every.next(at("2026-01-01T00:10:00Z")), Some(at("2026-01-01T00:20:00Z")));
        let once = of(When::At(at("2026-01-01T00:10:00Z")));
        assert_eq!(once.slots(Timestamp(0)).collect::<Vec<_>>(), [at("2026-01-01T00:10:00Z")]);
    }

    #[test]
    fn a_zone_that_nobody_knows_is_marked_where_it_differs_from_the_nearest() {
        let error = zone("Europe/Berln").expect_err("there is no such place");
        assert_eq!(
            error.to_string(),
            "there is no time zone of this name; the nearest is Europe/Berlin\n  Europe/Berln\n             ^"
        );
        assert_eq!(
            calendar("0 3 * * *", "Europe/Berlin").local(at("2026-03-29T01:00:00Z")),
            "2026-03-29T03:00:00+02:00[Europe/Berlin]"
        );
    }
}
