//! Blocks and events to JSON.

use std::io::Write;

use super::full::Full;
use super::line::{Line, text};
use crate::block::{Block, BlockError, Hash, Header};
use crate::event::{Envelope, Event};
use crate::id::{Ordinal, ShardId};
use crate::task::Outcome;
use crate::time::Timestamp;

/// Appends a block as one JSON object without line breaks. `hash` is the block's own: whoever sealed or followed it has it.
///
/// # Errors
/// When a record of the block cannot be read; nothing is appended then.
pub fn encode(block: &Block, hash: Hash, out: &mut Vec<u8>) -> Result<(), BlockError> {
    let begin = out.len();
    let encoded = append(block, hash, out);
    if encoded.is_err() {
        out.truncate(begin);
    }
    encoded
}

fn append(block: &Block, hash: Hash, out: &mut Vec<u8>) -> Result<(), BlockError> {
    header(&block.header, hash, out);
    let (mut events, mut next, mut is_first) = (EventWriter::default(), block.header.first_ordinal, true);
    for envelope in block.records() {
        let envelope = envelope?;
        let creates = envelope.event.creates_task().then_some(next);
        next.0 = next.0.checked_add(u64::from(creates.is_some())).ok_or(BlockError::Body("its ordinals overflow"))?;
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        events.append(&envelope, block.header.shard, creates, out);
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn header(header: &Header, hash: Hash, out: &mut Vec<u8>) {
    let Header { format, shard, epoch, count, first_position, first_ordinal, first_time: Timestamp(at), previous, .. } = header;
    let written = write!(
        out,
        "{{\"format\":{format},\"shard\":\"{shard}\",\"epoch\":\"{epoch}\",\"position\":\"{first_position}\",\"count\":{count},\
         \"ordinal\":\"{first_ordinal}\",\"recorded_at\":{at},\"previous\":\"{previous}\",\"hash\":\"{hash}\",\"events\":["
    );
    written.expect("a vector takes every byte");
}

/// Writes events as JSON objects with their fields in the order of their names, as `ergate log export` prints them.
#[derive(Debug, Default)]
pub struct EventWriter {
    line: Line,
    /// The time of the last event and how it is printed: all events of a batch have one.
    time: Option<(Timestamp, String)>,
}

impl EventWriter {
    /// Appends an event of this shard, which creates this task or none.
    pub fn append(&mut self, envelope: &Envelope<'_>, shard: ShardId, creates: Option<Ordinal>, out: &mut Vec<u8>) {
        let EventWriter { line, time: last } = self;
        let (at, known) = (envelope.recorded_at, last.take().filter(|(at, _)| *at == envelope.recorded_at));
        let (_, time) = last.insert(known.unwrap_or_else(|| (at, at.rfc3339())));
        if !usual(envelope, shard, creates, time, out) {
            let line = line.write(&Full::new(envelope, shard, creates, time)).expect("every event has a JSON form");
            out.extend_from_slice(line.trim_ascii_end());
        }
    }
}

/// Appends an event of a task that goes well, which nearly all are, without serde's layers; false for others.
#[expect(clippy::wildcard_enum_match_arm, reason = "what it does not know is serde's")]
fn usual(envelope: &Envelope<'_>, shard: ShardId, creates: Option<Ordinal>, time: &str, out: &mut Vec<u8>) -> bool {
    match &envelope.event {
        Event::Requested { task_type, payload, key: None, asks } if asks.is_empty() => {
            let (Some(task), Ok(payload)) = (creates, str::from_utf8(payload)) else { return false };
            out.extend_from_slice(b"{\"asks\":[],\"event\":\"requested\",\"key\":null,\"payload\":");
            string(payload, out);
            place(envelope, out);
            id(b",\"task\":\"", shard, task, out);
            out.extend_from_slice(b"\",\"task_type\":\"type-");
            number(u64::from(task_type.0), out);
            out.push(b'"');
        }
        Event::Started { task, attempt, replica } => {
            out.extend_from_slice(b"{\"attempt\":");
            number(u64::from(*attempt), out);
            out.extend_from_slice(b",\"event\":\"started\"");
            place(envelope, out);
            out.extend_from_slice(b",\"replica\":\"r");
            number(u64::from(replica.0), out);
            id(b"\",\"task\":\"", shard, *task, out);
            out.push(b'"');
        }
        Event::Succeeded { task, attempt, outcome: Outcome::Succeeded, result } => {
            let Ok(result) = str::from_utf8(result) else { return false };
            out.extend_from_slice(b"{\"attempt\":");
            number(u64::from(*attempt), out);
            out.extend_from_slice(b",\"event\":\"succeeded\",\"outcome\":\"SUCCEEDED\"");
            place(envelope, out);
            out.extend_from_slice(b",\"result\":");
            string(result, out);
            id(b",\"task\":\"", shard, *task, out);
            out.push(b'"');
        }
        _ => return false,
    }
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}");
    true
}

fn place(envelope: &Envelope<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"position\":\"");
    number(envelope.position.0, out);
    out.extend_from_slice(b"\",\"recorded_at\":");
    number(envelope.recorded_at.0, out);
}

fn id(before: &[u8], shard: ShardId, task: Ordinal, out: &mut Vec<u8>) {
    out.extend_from_slice(before);
    number(u64::from(shard.0), out);
    out.push(b'-');
    number(task.0, out);
}

fn string(string: &str, out: &mut Vec<u8>) {
    text(string, out).expect("a vector takes every byte");
}

fn number(number: u64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect("a vector takes every byte");
}
