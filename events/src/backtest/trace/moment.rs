//! Times as traces write them.

use crate::time::Micros;

/// Seconds with any decimals, to the nearest microsecond.
pub(super) fn seconds(text: &str) -> Option<Micros> {
    of_seconds(text.trim().parse().ok()?)
}

/// A number of seconds, to the nearest microsecond; `None` below zero and for what is no number.
pub(super) fn of_seconds(seconds: f64) -> Option<Micros> {
    // The cast ends at the limits of u64, which a limit of arrivals refuses.
    (seconds.is_finite() && seconds >= 0.0).then(|| Micros((seconds * 1e6).round() as u64))
}

/// `2023-11-16 18:17:03.9799600`, with `T` for the space and `Z` at the end as well: microseconds since 1970, as of UTC.
pub(super) fn calendar(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches('Z');
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (time.next()?.parse::<u64>().ok()?, time.next()?.parse::<u64>().ok()?);
    let last = time.next()?;
    let (second, fraction) = last.split_once('.').unwrap_or((last, ""));
    let second = second.parse::<u64>().ok()?;
    let is_day = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_day || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros(fraction)?)
}

/// The digits after the point as microseconds; further ones are cut off.
fn micros(digits: &str) -> Option<u64> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let known = digits.bytes().chain(std::iter::repeat(b'0')).take(6);
    Some(known.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// Days since 1970-01-01: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`, for years after 0.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn a_moment_is_read_as_it_is_printed() {
        for micros in [0, 951_782_400_000_001, 1_700_158_623_979_960, 1_772_366_400_000_000] {
            let text = Timestamp(micros).rfc3339();
            assert_eq!(calendar(&text), Some(micros), "{text}");
        }
        assert_eq!(calendar("2023-11-16 18:17:03.9799600"), Some(1_700_158_623_979_960));
        assert_eq!(calendar("2024-11-15 00:00:03"), Some(1_731_628_803_000_000));
        for text in [
            "",
            "2023-11-16",
            "2023-13-01 00:00:00",
            "2023-11-16 25:00:00",
            "2023-11-16 1:2",
            "2023-11-16 18:17:03.x",
            "-1-1-1 0:0:0",
        ] {
            assert_eq!(calendar(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_are_kept_to_the_microsecond() {
        assert_eq!(seconds(" 1.0000005 "), Some(Micros(1_000_001)));
        assert_eq!(seconds("1e3"), Some(Micros::from_secs(1_000)));
        for text in ["-1", "nan", "inf", "", "1,5"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
