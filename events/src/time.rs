//! Moments and spans in microseconds: arithmetic only. Reading the clock is a shell's business.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A moment: microseconds since the Unix epoch, UTC. Never decreases within a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A span of microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Micros(pub u64);

impl Timestamp {
    /// The moment no timer reaches.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// This moment and a span; ends at [`Timestamp::NEVER`] instead of overflowing.
    pub const fn after(self, span: Micros) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }

    /// The moment in RFC 3339, UTC, with µs: `2026-03-01T12:00:00.000000Z`; as a number and `µs` where years have more than four digits.
    pub fn rfc3339(self) -> String {
        if self > LAST_OF_9999 {
            return format!("{}µs", self.0);
        }
        let (seconds, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }

    /// The span from `earlier` to this moment, zero when `earlier` is later.
    pub const fn since(self, earlier: Timestamp) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

/// The last moment whose year has four digits.
const LAST_OF_9999: Timestamp = Timestamp(253_402_300_799_999_999);

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Counts from March on, so that the leap day is the last of its year: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days`.
pub(crate) const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + (month <= 2) as u64, month, day_of_year - (153 * from_march + 2) / 5 + 1)
}

impl Micros {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Micros {
        Micros(millis.saturating_mul(1_000))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Micros {
        Micros(secs.saturating_mul(1_000_000))
    }

    /// The same span for the standard library.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }
}

impl From<std::time::Duration> for Micros {
    fn from(span: std::time::Duration) -> Micros {
        Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_std())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_ends_at_never_and_at_zero_instead_of_overflowing() {
        assert_eq!(Timestamp(5).after(Micros(u64::MAX)), Timestamp::NEVER);
        assert_eq!(Timestamp(5).since(Timestamp(9)), Micros(0));
        assert_eq!(Micros::from_secs(u64::MAX), Micros(u64::MAX));
        assert_eq!(Micros::from_millis(1_500).to_string(), "1.5s");
    }

    #[test]
    fn a_moment_is_printed_as_the_calendar_has_it() {
        let printed = |micros| Timestamp(micros).rfc3339();
        assert_eq!(printed(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(printed(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(printed(1_772_366_400_000_000), "2026-03-01T12:00:00.000000Z");
        assert_eq!(printed(LAST_OF_9999.0), "9999-12-31T23:59:59.999999Z");
        assert_eq!(printed(LAST_OF_9999.0 + 1), "253402300800000000µs");
        // Every day of four centuries is the one after the day before.
        let mut expected = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(date(day), expected);
            let (year, month, today) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = [31, 28 + u64::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            expected = if today < last { (year, month, today + 1) } else { (year + month / 12, month % 12 + 1, 1) };
        }
    }
}
