//! Which lines the log has already: every task of a source has a label that says which line it was.

use std::collections::{BTreeMap, BTreeSet};

use ergate_events::event::Event;
use ergate_events::id::Position;
use ergate_events::log::{LogError, LogReader};
use ergate_events::task::Ask;

/// The label of a task that comes from a source: `NAME/FILE@OFFSET`.
pub(super) use crate::request::SOURCE_LABEL as LABEL;

/// The value of the label of a line.
pub(super) fn label(source: &str, file: &str, offset: u64) -> String {
    format!("{source}/{file}@{offset}")
}

/// The file and the offset that a label of this source names.
fn line_of<'a>(source: &str, value: &'a str) -> Option<(&'a str, u64)> {
    let (file, offset) = value.strip_prefix(source)?.strip_prefix('/')?.rsplit_once('@')?;
    Some((file, offset.parse().ok()?))
}

/// What a log has of a source.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Offsets of lines by file.
    pub(super) lines: BTreeMap<String, BTreeSet<u64>>,
    /// Everything before this was looked at.
    pub(super) position: u64,
}

/// The lines of a source that were taken at `from` or later.
///
/// # Errors
/// [`LogError`].
pub(super) fn taken(reader: &dyn LogReader, source: &str, from: u64) -> Result<Taken, LogError> {
    let span = reader.span();
    if from < span.first.0 || from > span.next.0 {
        tracing::warn!(
            source,
            position = from,
            first = span.first.0,
            next = span.next.0,
            "the log does not reach to where a source was; lines may be taken twice, or be missing where the log is an older copy"
        );
    }
    let from = from.clamp(span.first.0, span.next.0);
    let mut taken = Taken { position: span.next.0, ..Taken::default() };
    if from == span.next.0 {
        return Ok(taken);
    }
    let mut cursor = reader.cursor(Position(from))?;
    while let Some(block) = cursor.next_block()?.filter(|block| block.header.first_position < span.next) {
        for envelope in block.records() {
            let damaged = |source| {
                let (at, path) = (block.header.first_position, "the log".into());
                LogError::Damaged { at, path, offset: 0, source }
            };
            let envelope = envelope.map_err(damaged)?;
            let Event::Requested { ref asks, .. } = envelope.event else { continue };
            let value = asks.iter().find_map(|ask| if let Ask::Label(LABEL, value) = ask { Some(*value) } else { None });
            // A block may begin before the position, with lines that are before their file's offset or were of another file.
            if let Some((file, offset)) = value.and_then(|value| line_of(source, value)).filter(|_| envelope.position.0 >= from) {
                taken.lines.entry(file.to_owned()).or_default().insert(offset);
            }
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_its_line_and_no_other_source_s() {
        for (file, offset) in [("a.ndjson", 0), ("odd@7@name", u64::MAX), ("ä b", 12)] {
            let value = label("orders", file, offset);
            assert_eq!(line_of("orders", &value), Some((file, offset)));
            assert_eq!(line_of("order", &value), None);
        }
        assert_eq!(line_of("orders", "orders/a.ndjson"), None);
        assert_eq!(line_of("orders", "orders/a@-1"), None);
    }
}
