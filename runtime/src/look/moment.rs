//! Places in a log as people write them, and times as they read them.

use std::fmt;
use std::str::FromStr;

use ergate_events::id::Position;
use ergate_events::time::Timestamp;

/// Plain numbers above this are µs since the Unix epoch, others positions: as a time it lies in January 1970, as a position it is
/// further than any log has come.
const POSITION_MAX: u64 = 1_000_000_000_000;

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the event at this position.
    Position(Position),
    /// After the last event of this time.
    Time(Timestamp),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Moment, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number: u64 = text.parse().map_err(|_| "the number is too large for a position or a time in µs".to_owned())?;
            return Ok(if number > POSITION_MAX { Moment::Time(Timestamp(number)) } else { Moment::Position(Position(number)) });
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| {
            "write a position (`1200`), a time with its offset (`2026-03-01T12:00:00Z`), or µs since 1970 (a number above 10^12)"
                .to_owned()
        })?;
        let micros = u64::try_from(time.as_microsecond()).map_err(|_| "the time is before 1970".to_owned())?;
        Ok(Moment::Time(Timestamp(micros)))
    }
}

impl Moment {
    /// As it is read again, by a service for one.
    pub fn text(&self) -> String {
        match self {
            Moment::Position(position) => position.to_string(),
            Moment::Time(at) => time(*at),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Position(position) => write!(f, "position {position}"),
            Moment::Time(at) => f.write_str(&time(*at)),
        }
    }
}

/// A moment in RFC 3339, UTC, with µs; as a bare number where no calendar reaches.
pub fn time(at: Timestamp) -> String {
    at.rfc3339()
}

/// As [`time`], and a dash for a moment that never comes.
pub fn due(at: Timestamp) -> String {
    if at == Timestamp::NEVER { "-".to_owned() } else { time(at) }
}

/// Reads a bare position, for flags that take no time.
pub fn position(text: &str) -> Result<Position, String> {
    text.parse().map_err(|_| "write a position as a plain number, for example `1200`".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_positions_and_large_ones_times() {
        assert_eq!("1200".parse(), Ok(Moment::Position(Position(1200))));
        assert_eq!("1000000000000".parse(), Ok(Moment::Position(Position(1_000_000_000_000))));
        assert_eq!("1772366400000000".parse(), Ok(Moment::Time(Timestamp(1_772_366_400_000_000))));
        assert_eq!("2026-03-01T12:00:00Z".parse(), Ok(Moment::Time(Timestamp(1_772_366_400_000_000))));
        assert_eq!("2026-03-01T13:00:00+01:00".parse(), Ok(Moment::Time(Timestamp(1_772_366_400_000_000))));
    }

    #[test]
    fn anything_else_is_refused_with_the_forms_that_are_taken() {
        for text in ["", "yesterday", "-3", "2026-03-01", "1e9", "99999999999999999999999"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        assert!("noon".parse::<Moment>().unwrap_err().contains("2026-03-01T12:00:00Z"));
    }

    #[test]
    fn times_are_printed_in_utc_whatever_they_are() {
        assert_eq!(time(Timestamp(1_772_366_400_000_001)), "2026-03-01T12:00:00.000001Z");
        assert_eq!(time(Timestamp(u64::MAX)), "18446744073709551615µs");
    }
}
