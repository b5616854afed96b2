//! Cron: which seconds of a calendar a text of five or six fields means. Which moments those are is the time zone's to say.
//!
//! Times here are *local seconds*: the seconds since 1970-01-01T00:00:00 by a clock on the wall, which knows no zone.

use std::fmt;

use crate::time::date;

/// Seconds of a day.
const DAY: u64 = 86_400;
/// Days that are searched for the next match: 29 February can be eight years away.
const SEARCH_DAYS_MAX: u64 = 9 * 366;
/// Longest text, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// One field: what it is called, what it may hold, and names that stand for its first numbers.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The fields, in the order of six; five begin with the minute.
const FIELDS: [Field; 6] = [
    Field { name: "second", least: 0, most: 59, names: &[] },
    Field { name: "minute", least: 0, most: 59, names: &[] },
    Field { name: "hour", least: 0, most: 23, names: &[] },
    Field { name: "day of the month", least: 1, most: 31, names: &[] },
    Field { name: "month", least: 1, most: 12, names: &MONTHS },
    Field { name: "day of the week", least: 0, most: 7, names: &WEEKDAYS },
];

/// Texts that stand for others.
const SHORT: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron text that was understood: a bit for each number that a field may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether one of the two days is enough, because neither field begins with `*`.
    either_day: bool,
    follows_clock: bool,
}

/// What is wrong with a cron text, and where. Prints as a sentence, the text, and a mark under the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CronError {
    text: String,
    /// The first wrong character, counted from 0, and how many there are.
    place: (usize, usize),
    reason: String,
}

impl fmt::Display for CronError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CronError { text, place: (begin, count), reason } = self;
        write!(f, "{reason}\n  {text}\n  {:begin$}{:^<count$}", "", "", count = (*count).max(1))
    }
}

impl Cron {
    /// Reads a text: `minute hour day month weekday`, with the second in front where there are six fields.
    ///
    /// # Errors
    /// [`CronError`] with the place.
    pub fn parse(text: &str) -> Result<Cron, CronError> {
        let parts = fields(SHORT.iter().find(|(name, _)| *name == text.trim()).map_or(text, |(_, long)| long));
        let fail = |place, reason| Err(CronError { text: shown(text), place, reason });
        if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
            return fail((0, 1), format!("a cron text is one line of at most {TEXT_BYTES_MAX} bytes"));
        }
        let skipped = match parts.len() {
            5 => 1,
            6 => 0,
            count => {
                let place =
                    parts.get(6).map_or((text.trim_end().chars().count(), 1), |(begin, part)| (*begin, part.chars().count()));
                let reason = "five fields are expected (minute hour day month weekday), or six with the second in front";
                return fail(place, format!("{reason}; here are {count}"));
            }
        };
        let (mut masks, mut stars) = ([1; 6], [false; 6]);
        for ((begin, part), index) in parts.iter().zip(skipped..) {
            (masks[index], stars[index]) = mask(&FIELDS[index], part).map_err(|(at, count, reason)| CronError {
                text: shown(text),
                place: (begin + at, count),
                reason,
            })?;
        }
        let [seconds, minutes, hours, days, months, weekdays] = masks;
        // Sunday is 0 and 7.
        let weekdays = (weekdays | weekdays >> 7) & 0x7f;
        let cron = Cron {
            seconds,
            minutes,
            hours,
            days,
            months,
            weekdays,
            either_day: !stars[3] && !stars[5],
            follows_clock: stars[..3].iter().any(|star| *star),
        };
        if cron.next(0).is_none() {
            let (begin, part) = parts[parts.len() - 3];
            return fail(
                (begin, part.chars().count()),
                "no month that is named has such a day, so it would never fire".to_owned(),
            );
        }
        Ok(cron)
    }

    /// Whether a `*` stands for seconds, minutes or hours: then it fires as the clock on the wall shows its times, where others mean fixed times
    /// of a day.
    pub const fn follows_clock(&self) -> bool {
        self.follows_clock
    }

    /// The first local second at or after `from` that is meant.
    pub fn next(&self, from: u64) -> Option<u64> {
        let today = from / DAY;
        let first = self.is_on(today).then(|| self.time_of_day(from % DAY)).flatten().map(|time| today * DAY + time);
        first.or_else(|| {
            let day = (today + 1..=today + SEARCH_DAYS_MAX).find(|day| self.is_on(*day))?;
            Some(day * DAY + self.time_of_day(0)?)
        })
    }

    fn is_on(&self, day: u64) -> bool {
        let ((_, month, of_month), weekday) = (date(day), (day + 4) % 7);
        let (of_month, weekday) = (has(self.days, of_month), has(self.weekdays, weekday));
        has(self.months, month) && if self.either_day { of_month || weekday } else { of_month && weekday }
    }

    /// The first second of a day at or after `from`.
    fn time_of_day(&self, from: u64) -> Option<u64> {
        let (hour, minute, second) = (from / 3_600, from / 60 % 60, from % 60);
        if has(self.hours, hour) {
            if has(self.minutes, minute)
                && let Some(second) = at_least(self.seconds, second)
            {
                return Some(hour * 3_600 + minute * 60 + second);
            }
            if let Some(minute) = at_least(self.minutes, minute + 1) {
                return Some(hour * 3_600 + minute * 60 + at_least(self.seconds, 0)?);
            }
        }
        let hour = at_least(self.hours, hour + 1)?;
        Some(hour * 3_600 + at_least(self.minutes, 0)? * 60 + at_least(self.seconds, 0)?)
    }
}

const fn has(mask: u64, number: u64) -> bool {
    mask >> number & 1 == 1
}

fn at_least(mask: u64, number: u64) -> Option<u64> {
    let rest = mask >> number << number;
    (rest != 0).then(|| u64::from(rest.trailing_zeros()))
}

/// The text as a message shows it.
fn shown(text: &str) -> String {
    text.chars().take(TEXT_BYTES_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The fields with the characters before them.
fn fields(text: &str) -> Vec<(usize, &str)> {
    let place = |part: &str| text[..part.as_ptr() as usize - text.as_ptr() as usize].chars().count();
    text.split_whitespace().map(|part| (place(part), part)).collect()
}

/// What is wrong: the first wrong character of a field, how many there are, and why.
type Wrong = (usize, usize, String);

/// The numbers of a field, and whether it begins with `*`.
fn mask(field: &Field, text: &str) -> Result<(u64, bool), Wrong> {
    let (mut mask, mut begin) = (0, 0);
    for item in text.split(',') {
        mask |= item_mask(field, item).map_err(|(at, count, reason)| (begin + at, count, reason))?;
        begin += item.chars().count() + 1;
    }
    Ok((mask, text.starts_with('*')))
}

/// `*`, `7`, `1-5`, each with a step such as `/2` behind a range.
fn item_mask(field: &Field, item: &str) -> Result<u64, Wrong> {
    let count = |text: &str| text.chars().count();
    let (range, step) = item.split_once('/').map_or((item, None), |(range, step)| (range, Some(step)));
    let (first, last) = match range.split_once('-') {
        _ if range == "*" => (field.least, field.most),
        Some((first, last)) => {
            let (from, to) = (number(field, first, 0)?, number(field, last, count(first) + 1)?);
            if from > to {
                return Err((0, count(range), format!("the range {range} runs backwards")));
            }
            (from, to)
        }
        None => number(field, range, 0).map(|only| (only, only))?,
    };
    let Some(step) = step else { return Ok(bits(first, last, 1)) };
    let place = count(range) + 1;
    if range != "*" && !range.contains('-') {
        return Err((0, count(item), format!("a step needs a range: write {range}-{}/{step}, or */{step}", field.most)));
    }
    match step.parse::<u32>() {
        Ok(every) if (1..=field.most).contains(&every) && plain(step) => Ok(bits(first, last, every as usize)),
        _ => Err((place, count(step), format!("{step:?} is no step of the {}; 1 to {} are", field.name, field.most))),
    }
}

fn number(field: &Field, text: &str, at: usize) -> Result<u32, Wrong> {
    let named = field.names.iter().position(|name| name.eq_ignore_ascii_case(text)).and_then(|index| u32::try_from(index).ok());
    let found = named.map(|index| index + field.least).or_else(|| text.parse().ok().filter(|_| plain(text)));
    let names = field.names.first().map_or(String::new(), |name| format!(", or a name such as {name}"));
    found.filter(|number| (field.least..=field.most).contains(number)).ok_or_else(|| {
        let Field { name, least, most, .. } = field;
        (at, text.chars().count(), format!("{text:?} is no {name}; {least} to {most} are{names}"))
    })
}

fn plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn bits(first: u32, last: u32, step: usize) -> u64 {
    (first..=last).step_by(step).fold(0, |mask, number| mask | 1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    /// The next times after a moment, as a clock without a zone would show them.
    fn times(text: &str, from: u64, count: usize) -> Vec<String> {
        let cron = Cron::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let mut next = from;
        let mut show = |_| {
            let found = cron.next(next).expect("it fires again");
            next = found + 1;
            Timestamp(found * 1_000_000).rfc3339()[..19].to_owned()
        };
        (0..count).map(&mut show).collect()
    }

    /// Thursday 2026-01-01T00:00:00.
    const NEW_YEAR: u64 = 1_767_225_600;

    #[test]
    fn fields_mean_what_cron_says() {
        for (text, expected) in [
            ("0 3 * * *", ["2026-01-01T03:00:00", "2026-01-02T03:00:00"]),
            ("30 0 3 * * *", ["2026-01-01T03:00:30", "2026-01-02T03:00:30"]),
            ("*/20 * * * *", ["2026-01-01T00:00:00", "2026-01-01T00:20:00"]),
            ("*/25 * * * * *", ["2026-01-01T00:00:00", "2026-01-01T00:00:25"]),
            ("5,7 9-17/4 * * mon-fri", ["2026-01-01T09:05:00", "2026-01-01T09:07:00"]),
            ("0 0 29 2 *", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
            // Where both days are named, either is enough, as cron has always had it.
            ("0 0 13 * fri", ["2026-01-02T00:00:00", "2026-01-09T00:00:00"]),
            ("0 12 * * 7", ["2026-01-04T12:00:00", "2026-01-11T12:00:00"]),
            ("@monthly", ["2026-01-01T00:00:00", "2026-02-01T00:00:00"]),
            ("59 59 23 31 DEC *", ["2026-12-31T23:59:59", "2027-12-31T23:59:59"]),
        ] {
            assert_eq!(times(text, NEW_YEAR, 2), expected, "{text}");
        }
    }

    #[test]
    fn a_star_for_seconds_minutes_or_hours_follows_the_clock() {
        let follows = |text| Cron::parse(text).expect("it is a cron text").follows_clock();
        assert!(follows("0 * * * *") && follows("*/5 2 * * *") && follows("* 0 3 * * *"));
        assert!(!follows("0 3 * * *") && !follows("0,30 2-4 * * *"));
    }

    #[test]
    fn what_is_wrong_is_marked() {
        for (text, reason, marked) in [
            ("0 25 * * *", "\"25\" is no hour; 0 to 23 are", "  ^^"),
            ("0 3 * * mon-fry", "\"fry\" is no day of the week; 0 to 7 are, or a name such as sun", "            ^^^"),
            ("0 1,2,x * * *", "\"x\" is no hour; 0 to 23 are", "      ^"),
            ("*/0 * * * *", "\"0\" is no step of the minute; 1 to 59 are", "  ^"),
            ("5/10 * * * *", "a step needs a range: write 5-59/10, or */10", "^^^^"),
            ("0 9-8 * * *", "the range 9-8 runs backwards", "  ^^^"),
            (
                "0 3 * *",
                "five fields are expected (minute hour day month weekday), or six with the second in front; here are 4",
                "       ^",
            ),
            (
                "0 0 3 * * * 2026",
                "five fields are expected (minute hour day month weekday), or six with the second in front; here are 7",
                "            ^^^^",
            ),
            ("0 0 31 4,6 *", "no month that is named has such a day, so it would never fire", "    ^^"),
            ("ä 3 * * *", "\"ä\" is no minute; 0 to 59 are", "^"),
            ("", "five fields are expected (minute hour day month weekday), or six with the second in front; here are 0", "^"),
        ] {
            let error = Cron::parse(text).expect_err(text);
            assert_eq!(error.to_string(), format!("{reason}\n  {text}\n  {marked}"));
        }
    }
}
