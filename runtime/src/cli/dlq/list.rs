//! `ergate dlq list`: records that were refused, with what they said and why that was no request.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use ergate::kafka::refused::{Entry, Letter, LetterId, Source};
use serde_json::{Map, Value, json};

use super::Topics;
use crate::cli::moment::time;
use crate::cli::table::Table;
use crate::cli::{Exit, Format, Globals, output};

/// Most characters of a record in a table.
const EXCERPT_CHARS_MAX: usize = 60;

/// Which records.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    topics: Topics,
    /// At most so many, the newest of each partition
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Only records whose reason has this text in it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only records that were not sent again
    #[arg(long)]
    open: bool,
}

pub(crate) fn run(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let letters = args.topics.open(globals)?;
    let (mut newest, mut redriven) = (VecDeque::new(), BTreeSet::new());
    letters.each(&mut |entry| {
        match entry {
            Entry::Mark(of) => drop(redriven.insert(of)),
            Entry::Nothing => {}
            Entry::Letter(letter) => args.keep(*letter, &mut newest),
        }
        Ok::<_, anyhow::Error>(())
    })?;
    newest.retain(|letter| !args.open || !redriven.contains(&letter.id));
    match globals.output {
        Format::Json => newest.iter().try_for_each(|letter| output::json(&json(letter, redriven.contains(&letter.id))))?,
        Format::Table => print(&newest, &redriven)?,
    }
    Ok(Exit::Done)
}

impl ListArgs {
    /// Keeps a record that is asked for, and as many of its partition as are shown.
    fn keep(&self, letter: Letter, newest: &mut VecDeque<Letter>) {
        if self.reason.as_ref().is_some_and(|text| !letter.reason.contains(text)) {
            return;
        }
        let partition = letter.id.partition;
        newest.push_back(letter);
        // Partitions come one after the other.
        let begin = newest.partition_point(|kept| kept.id.partition < partition);
        if newest.len() - begin > self.limit {
            newest.remove(begin);
        }
    }
}

fn print(letters: &VecDeque<Letter>, redriven: &BTreeSet<LetterId>) -> anyhow::Result<()> {
    let mut table = Table::new(&["ID", "FROM", "BYTES", "REDRIVEN", "RECORD", "REASON"]);
    for letter in letters {
        let from = letter.source.as_ref().map_or_else(|| "-".to_owned(), |from| format!("{}-{}", from.partition, from.offset));
        let bytes = letter.value.as_ref().map(|value| value.len() as u64);
        let bytes = letter.cut_from.or(bytes).map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let was = if redriven.contains(&letter.id) { "yes" } else { "-" };
        table.row([letter.id.to_string(), from, bytes, was.to_owned(), excerpt(letter), letter.reason.clone()]);
    }
    table.print()
}

/// The beginning of a record on one line.
fn excerpt(letter: &Letter) -> String {
    let Some(value) = &letter.value else { return "(no value)".to_owned() };
    let begin = &value[..value.len().min(4 * EXCERPT_CHARS_MAX)];
    let text = String::from_utf8_lossy(begin);
    let short: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    if short.len() < text.len() || begin.len() < value.len() { format!("{short}…") } else { short }
}

fn json(letter: &Letter, redriven: bool) -> Value {
    let Letter { id, at, source, reason, key, headers, value, cut_from } = letter;
    let source = source
        .as_ref()
        .map(|Source { topic, partition, offset }| json!({ "topic": topic, "partition": partition, "offset": offset }));
    let mut object = Map::new();
    object.insert("id".to_owned(), id.to_string().into());
    object.insert("offset".to_owned(), id.offset.into());
    object.insert("time".to_owned(), at.map(time).into());
    object.insert("source".to_owned(), source.into());
    object.insert("reason".to_owned(), reason.as_str().into());
    object.insert("redriven".to_owned(), redriven.into());
    object.insert("bytes".to_owned(), value.as_ref().map_or(0, Vec::len).into());
    // What is longer than a dead letter may be has only its beginning here.
    object.extend(cut_from.map(|bytes| ("cut_from".to_owned(), bytes.into())));
    bytes(&mut object, "key", key.as_deref());
    bytes(&mut object, "value", value.as_deref());
    let header = |(name, value): &(String, Option<Vec<u8>>)| {
        let mut header = Map::new();
        header.insert("name".to_owned(), name.as_str().into());
        bytes(&mut header, "value", value.as_deref());
        Value::Object(header)
    };
    object.insert("headers".to_owned(), headers.iter().map(header).collect::<Vec<_>>().into());
    object.into()
}

/// Bytes under this name where they are text, under `NAME_hex` where they are not.
fn bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let (name, value) = match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (name.to_owned(), Value::Null),
        Some(Ok(text)) => (name.to_owned(), text.into()),
        Some(Err(bytes)) => {
            let mut hex = String::with_capacity(2 * bytes.len());
            // Writing to a string cannot fail.
            for byte in bytes {
                let _ = write!(hex, "{byte:02x}");
            }
            (format!("{name}_hex"), hex.into())
        }
    };
    object.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(partition: i32, offset: i64, value: Option<&[u8]>) -> Letter {
        let id = LetterId { partition, offset };
        let reason = "value: not JSON".to_owned();
        let value = value.map(<[u8]>::to_vec);
        Letter { id, at: None, source: None, reason, key: None, headers: Vec::new(), value, cut_from: None }
    }

    #[test]
    fn the_newest_of_each_partition_are_kept() {
        let topics = Topics { log: String::new() };
        let args = ListArgs { topics, limit: 2, reason: Some("JSON".to_owned()), open: false };
        let mut newest = VecDeque::new();
        for (partition, offset) in [(0, 1), (0, 2), (0, 3), (1, 1), (3, 5), (3, 6), (3, 8)] {
            args.keep(letter(partition, offset, None), &mut newest);
        }
        args.keep(Letter { reason: "type".to_owned(), ..letter(3, 9, None) }, &mut newest);
        let ids: Vec<_> = newest.iter().map(|letter| letter.id.to_string()).collect();
        assert_eq!(ids, ["0-2", "0-3", "1-1", "3-6", "3-8"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_hexadecimal() {
        let text = json(&letter(0, 1, Some(b"{")), false);
        assert_eq!((&text["value"], &text["bytes"]), (&json!("{"), &json!(1)));
        let bytes = json(&letter(0, 1, Some(b"\xff\x00a")), true);
        assert_eq!((&bytes["value_hex"], &bytes["redriven"]), (&json!("ff0061"), &json!(true)));
        assert_eq!(json(&letter(0, 1, None), false)["value"], Value::Null);
    }

    #[test]
    fn an_excerpt_is_short_and_says_when_there_is_more() {
        assert_eq!(excerpt(&letter(0, 1, Some(b"{\"type\"}"))), "{\"type\"}");
        assert_eq!(excerpt(&letter(0, 1, Some(&[b'a'; 61]))).chars().count(), 61);
        assert!(excerpt(&letter(0, 1, Some(&[b'a'; 10_000]))).ends_with('…'));
        assert_eq!(excerpt(&letter(0, 1, None)), "(no value)");
    }
}
