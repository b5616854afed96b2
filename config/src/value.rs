//! Values as people write them: durations, sizes, counts, and the few words that stand for more.

use std::fmt;
use std::time::Duration;

/// A value as it was found, before anybody knows what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// A quoted text of a file.
    Text(String),
    /// A whole number of a file.
    Number(u64),
    /// A text of the environment or a flag, which may stand for a number too.
    Word(String),
    /// A table of a file that says where the value is: `{ file = "…" }` or `{ env = "…" }`.
    Reference(&'static str, String),
    /// A list of a file.
    List(Vec<Raw>),
    /// Anything else that TOML has, by its name and text.
    Other(&'static str, String),
}

impl Raw {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Raw::Text(text) | Raw::Word(text) => Some(text),
            Raw::Number(_) | Raw::Reference(..) | Raw::List(_) | Raw::Other(..) => None,
        }
    }

    /// A count between two bounds.
    pub(crate) fn count(&self, least: u64, most: u64) -> Option<u64> {
        let number = match self {
            Raw::Number(number) => Some(*number),
            Raw::Word(word) => number(&word.replace('_', "")),
            Raw::Text(_) | Raw::Reference(..) | Raw::List(_) | Raw::Other(..) => None,
        };
        number.filter(|number| (least..=most).contains(number))
    }

    /// Yes or no.
    pub(crate) fn flag(&self) -> Option<bool> {
        match self {
            Raw::Word(text) | Raw::Other("boolean", text) => text.parse().ok(),
            Raw::Text(_) | Raw::Number(_) | Raw::Reference(..) | Raw::List(_) | Raw::Other(..) => None,
        }
    }

    /// A list of texts, in which a number counts as its text. From the environment, as TOML has it: `["a", "b"]`.
    pub(crate) fn texts(&self) -> Option<Vec<String>> {
        match self {
            Raw::List(items) => items.iter().map(Raw::word).collect(),
            Raw::Word(text) => crate::load::list(text)?.texts(),
            Raw::Text(_) | Raw::Number(_) | Raw::Reference(..) | Raw::Other(..) => None,
        }
    }

    fn word(&self) -> Option<String> {
        match self {
            Raw::Text(text) | Raw::Word(text) => Some(text.clone()),
            Raw::Number(number) => Some(number.to_string()),
            Raw::Reference(..) | Raw::List(_) | Raw::Other(..) => None,
        }
    }

    /// A number with up to three places, in thousandths, between two bounds.
    pub(crate) fn thousandths(&self, least: u32, most: u32) -> Option<u32> {
        let text = match self {
            Raw::Number(number) => number.to_string(),
            Raw::Word(text) | Raw::Other("fraction", text) => text.clone(),
            Raw::Text(_) | Raw::Reference(..) | Raw::List(_) | Raw::Other(..) => return None,
        };
        let (whole, places) = text.split_once('.').unwrap_or((&text, ""));
        let thousandths = (places.len() <= 3).then(|| number(&format!("{places:0<3}"))).flatten()?;
        let all = number(whole)?.checked_mul(1_000)?.checked_add(thousandths)?;
        u32::try_from(all).ok().filter(|all| (least..=most).contains(all))
    }

    /// What it is, without saying what it holds.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Raw::Text(_) | Raw::Word(_) => "a text",
            Raw::Number(_) => "a number",
            Raw::Reference(..) => "a reference",
            Raw::List(_) => "a list",
            Raw::Other(..) => "something else",
        }
    }

    /// Bytes with a unit.
    pub(crate) fn size(&self) -> Option<u64> {
        let (number, unit) = split(self.text()?)?;
        let shift = SIZES.iter().find(|(name, _)| *name == unit)?.1;
        number.checked_mul(1 << shift)
    }

    /// A span of time with a unit.
    pub(crate) fn duration(&self) -> Option<Duration> {
        duration(self.text()?)
    }
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(64).collect::<String>();
        match self {
            Raw::Text(text) | Raw::Word(text) => write!(f, "the text {:?}", short(text)),
            Raw::Number(number) => write!(f, "the number {number}"),
            Raw::Reference(kind, target) => write!(f, "the reference {{ {kind} = {:?} }}", short(target)),
            Raw::List(items) => write!(f, "a list of {}", items.len()),
            Raw::Other(kind, text) => write!(f, "the {kind} {}", short(text)),
        }
    }
}

const SIZES: [(&str, u32); 5] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
const SPANS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// A number and the unit behind it, with or without a space between.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((number(&text[..end])?, text[end..].trim_start()))
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let micros = SPANS.iter().find(|(name, _)| *name == unit)?.1;
    number.checked_mul(micros).map(Duration::from_micros)
}

/// A duration in the largest unit that gives a whole number.
pub(crate) fn show_duration(span: Duration) -> String {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let fits = |unit: &&(&str, u64)| micros >= unit.1 && micros.is_multiple_of(unit.1);
    let (name, unit) = SPANS.iter().rev().find(fits).unwrap_or(&SPANS[2]);
    format!("{}{name}", micros / unit)
}

/// A size in the largest unit that gives a whole number.
pub fn show_size(bytes: u64) -> String {
    let fits = |unit: &&(&str, u32)| bytes >= 1 << unit.1 && bytes.is_multiple_of(1 << unit.1);
    let (name, shift) = SIZES.iter().rev().find(fits).unwrap_or(&SIZES[0]);
    format!("{}{name}", bytes >> shift)
}

/// When replies are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the disk confirms.
    Fsync,
    /// After the write; a sync follows at most this long after.
    Interval(Duration),
    /// After the write, whatever becomes of it.
    Memory,
}

impl Durability {
    pub(crate) fn parse(raw: &Raw) -> Option<Durability> {
        match raw.text()? {
            "fsync" => Some(Durability::Fsync),
            "memory" => Some(Durability::Memory),
            other => duration(other.strip_prefix("interval:")?).filter(|span| !span.is_zero()).map(Durability::Interval),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Fsync => f.write_str("fsync"),
            Durability::Interval(span) => write!(f, "interval:{}", show_duration(*span)),
            Durability::Memory => f.write_str("memory"),
        }
    }
}

/// How much is kept: all of it, or so much.
pub type Keep<T> = Option<T>;

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Raw {
        Raw::Word(text.to_owned())
    }

    #[test]
    fn durations_and_sizes_are_read_and_shown_alike() {
        for text in ["0s", "1us", "50ms", "10s", "90m", "24h", "7d"] {
            let span = word(text).duration().expect(text);
            assert_eq!(word(&show_duration(span)).duration(), Some(span), "{text}");
        }
        for text in ["0B", "1B", "64KiB", "64MiB", "3GiB", "1TiB"] {
            let bytes = word(text).size().expect(text);
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(word("10 s").duration(), Some(Duration::from_secs(10)));
    }

    #[test]
    fn anything_without_a_unit_or_beyond_all_bounds_is_refused() {
        for text in ["", "10", "ten s", "-1s", "1.5s", "1w", "99999999999999999d", "10S"] {
            assert_eq!(word(text).duration(), None, "{text}");
        }
        for text in ["", "64", "64MB", "64 mib", "99999999999TiB"] {
            assert_eq!(word(text).size(), None, "{text}");
        }
        assert_eq!(Raw::Number(10).duration(), None);
        assert_eq!(Raw::Text("10".to_owned()).count(0, 99), None);
        assert_eq!(word("2_000").count(1, 9_999), Some(2_000));
        assert_eq!(Durability::parse(&word("interval:0ms")), None);
        assert_eq!(Durability::parse(&word("interval:50ms")), Some(Durability::Interval(Duration::from_millis(50))));
    }
}
