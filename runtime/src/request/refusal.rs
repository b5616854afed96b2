//! Why a record is not a request, in one sentence.

use std::fmt;

/// Characters of what was found, and of a field's name, that are repeated in a refusal.
const SHOWN: usize = 64;

/// Why a record is not a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field that is wrong as the producer wrote it: `priority`, `retry.attempts`, the header `ce_priority`, or `value` where the
    /// value as a whole cannot be read.
    pub field: String,
    /// What was found there and what is expected.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.field, self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A refusal that names a field, which may come from the outside.
    pub(crate) fn new(field: &str, reason: impl Into<String>) -> Refusal {
        Refusal { field: shown(field), reason: reason.into() }
    }

    /// Something that has to be there and is not.
    pub(super) fn missing(field: &str, expected: &str) -> Refusal {
        Refusal::new(field, format!("is missing; {expected} is expected"))
    }

    /// A field that nothing reads, and the known one that was perhaps meant.
    pub(super) fn unknown(field: &str, name: &str, known: &[&str]) -> Refusal {
        let hint = match nearest(name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known are {}", known.join(", ")),
        };
        Refusal::new(field, format!("is not a known field; {hint}"))
    }
}

/// What was found, as it is, where something else is expected.
pub(super) fn instead(found: &str, expected: &str) -> String {
    format!("is {} where {expected} is expected", shown(found))
}

/// A text that was found where another is expected.
pub(super) fn instead_text(found: &str, expected: &str) -> String {
    format!("is \"{}\" where {expected} is expected", shown(found))
}

/// The beginning of a text that may be long and may hold anything; what would move the cursor is escaped.
pub(super) fn shown(text: &str) -> String {
    let (start, rest) = text.char_indices().nth(SHOWN).map_or((text, ""), |(end, _)| text.split_at(end));
    let mut shown = String::with_capacity(start.len());
    for char in start.chars() {
        if char.is_control() { shown.extend(char.escape_unicode()) } else { shown.push(char) }
    }
    if !rest.is_empty() {
        shown.push('…');
    }
    shown
}

/// The known name that a slip or two lead to.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // In short names a slip leads to other words too soon.
    let slips = |known: &str| known.len() / 4;
    let near = known.iter().map(|known| (distance(name, known), *known)).filter(|(distance, known)| *distance <= slips(known));
    near.min().map(|(_, known)| known)
}

/// Letters to insert, drop or change (Levenshtein), where hyphens, underscores and case do not count; names of other lengths are far.
fn distance(name: &str, known: &str) -> usize {
    let letters = |text: &str| -> Vec<u8> {
        text.bytes().filter(|byte| !matches!(byte, b'-' | b'_')).map(|byte| byte.to_ascii_lowercase()).collect()
    };
    if name.len() > known.len() + 8 {
        return usize::MAX;
    }
    let (name, known) = (letters(name), letters(known));
    let mut row: Vec<usize> = (0..=known.len()).collect();
    for (line, a) in name.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, b) in known.iter().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[known.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_the_name_that_was_meant() {
        let known = ["key", "priority", "not_before", "delay"];
        for (name, meant) in [
            ("priorty", Some("priority")),
            ("Priority", Some("priority")),
            ("notBefore", Some("not_before")),
            ("not-before", Some("not_before")),
            ("relay", Some("delay")),
            ("colour", None),
            ("", None),
            ("key_of_something_else", None),
        ] {
            assert_eq!(nearest(name, &known), meant, "{name}");
        }
    }

    #[test]
    fn what_was_found_is_shortened_and_cannot_move_the_cursor() {
        assert_eq!(shown("a\u{1b}[2J\n"), "a\\u{1b}[2J\\u{a}");
        assert_eq!(shown(&"ä".repeat(65)), "ä".repeat(64) + "…");
        assert_eq!(Refusal::missing("type", "a name").to_string(), "`type` is missing; a name is expected");
    }
}
