//! JSON to blocks.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::mirror::{Fields, UNKNOWN};
use super::value::Hex;
use crate::block::{BODY_BYTES_MAX, Block, BlockError, Hash, OpenBlock};
use crate::codec::FORMAT;
use crate::id::{Epoch, Ordinal, Position, ShardId, TaskId};
use crate::time::Timestamp;

/// Why JSON is not a block.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum JsonError {
    /// It is not JSON, or a field of the block is missing, unknown, repeated or of another kind; the cause says which and where.
    #[error("the JSON is not that of a block")]
    Malformed(#[source] serde_json::Error),
    /// A newer build wrote it.
    #[error("the block has format {found} and this build reads up to {known}; use a newer build")]
    FormatTooNew { found: u16, known: u16 },
    /// A field of the block says what cannot be.
    #[error("the block at position {position} is damaged: {reason}")]
    Block { position: Position, reason: &'static str },
    /// A field of an event is missing, unknown, repeated, of another kind, or says what cannot be.
    #[error("the event at position {position} is damaged: {reason}")]
    Event { position: Position, reason: String },
    /// A newer build wrote it.
    #[error("the event at position {position} was written by a newer build ({reason}); use a newer build")]
    EventTooNew { position: Position, reason: String },
    /// The events have no canonical bytes that could be read again: one is too large.
    #[error("the block at position {position} would not be readable")]
    Unreadable {
        position: Position,
        #[source]
        source: BlockError,
    },
    /// Something was altered.
    #[error("the block at position {position} has the hash {found} and names {named}; it was altered")]
    Hash { position: Position, named: Hash, found: Hash },
}

/// Reads a block back from JSON, with its hash. The block is as if it had been stored without compression.
///
/// # Errors
/// [`JsonError`] for anything but the one object of [`encode`](super::encode), its fields in any order but `events` last: the hash is that
/// of the canonical bytes which follow from the fields, and everything that the hash does not cover is checked against them.
pub fn decode(bytes: &[u8]) -> Result<(Block, Hash), JsonError> {
    let mut refused = None;
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let read = Reading { refused: &mut refused }.deserialize(&mut from);
    let read = read.and_then(|read| from.end().map(|()| read));
    let (head, open) = read.map_err(|error| refused.unwrap_or(JsonError::Malformed(error)))?;
    let (position, named) = (head.position, head.hash);
    let block = open.into_block(head.format, head.previous);
    let found = block.hash();
    if found != named {
        return Err(JsonError::Hash { position, named, found });
    }
    for record in block.records() {
        record.map_err(|source| JsonError::Unreadable { position, source })?;
    }
    Ok((block, found))
}

/// What a block says about itself before its events.
#[derive(Clone, Copy, Debug)]
struct Head {
    format: u16,
    shard: ShardId,
    epoch: Epoch,
    position: Position,
    count: u32,
    ordinal: Ordinal,
    recorded_at: Timestamp,
    previous: Hash,
    hash: Hash,
}

/// The fields of a block.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Format,
    Shard,
    Epoch,
    Position,
    Count,
    Ordinal,
    RecordedAt,
    Previous,
    Hash,
    Events,
}

/// The fields that were read so far.
#[derive(Default)]
struct Slots {
    format: Option<u16>,
    shard: Option<ShardId>,
    epoch: Option<Epoch>,
    position: Option<Position>,
    count: Option<u32>,
    ordinal: Option<Ordinal>,
    recorded_at: Option<Timestamp>,
    previous: Option<Hex<32>>,
    hash: Option<Hex<32>>,
}

impl Slots {
    fn complete<E: de::Error>(&self) -> Result<Head, E> {
        Ok(Head {
            format: need("format", self.format)?,
            shard: need("shard", self.shard)?,
            epoch: need("epoch", self.epoch)?,
            position: need("position", self.position)?,
            count: need("count", self.count)?,
            ordinal: need("ordinal", self.ordinal)?,
            recorded_at: need("recorded_at", self.recorded_at)?,
            previous: Hash(need("previous", self.previous)?.0),
            hash: Hash(need("hash", self.hash)?.0),
        })
    }
}

fn need<T, E: de::Error>(name: &'static str, value: Option<T>) -> Result<T, E> {
    value.ok_or_else(|| E::custom(format_args!("field `{name}` is missing before `events`")))
}

fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<(), A::Error> {
    match slot.replace(map.next_value()?) {
        Some(_) => Err(de::Error::duplicate_field(name)),
        None => Ok(()),
    }
}

/// Reads a block; says in `refused` why it stopped where it knows better than serde's error can say.
struct Reading<'r> {
    refused: &'r mut Option<JsonError>,
}

impl Reading<'_> {
    fn refuse<E: de::Error>(&mut self, error: JsonError) -> E {
        let said = E::custom(&error);
        *self.refused = Some(error);
        said
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = (Head, OpenBlock);
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = (Head, OpenBlock);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a block")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut slots = Slots::default();
        while let Some(name) = map.next_key()? {
            match name {
                Name::Format => {
                    once(&mut slots.format, "format", &mut map)?;
                    match slots.format.unwrap_or_default() {
                        0 => return Err(de::Error::custom("field `format` is 0, and formats count from 1")),
                        found if found > FORMAT => return Err(self.refuse(JsonError::FormatTooNew { found, known: FORMAT })),
                        _ => {}
                    }
                }
                Name::Shard => once(&mut slots.shard, "shard", &mut map)?,
                Name::Epoch => once(&mut slots.epoch, "epoch", &mut map)?,
                Name::Position => once(&mut slots.position, "position", &mut map)?,
                Name::Count => once(&mut slots.count, "count", &mut map)?,
                Name::Ordinal => once(&mut slots.ordinal, "ordinal", &mut map)?,
                Name::RecordedAt => once(&mut slots.recorded_at, "recorded_at", &mut map)?,
                Name::Previous => once(&mut slots.previous, "previous", &mut map)?,
                Name::Hash => once(&mut slots.hash, "hash", &mut map)?,
                Name::Events => {
                    let head = slots.complete()?;
                    let open = map.next_value_seed(Events::new(&head, &mut self))?;
                    return match map.next_key::<Name>()? {
                        Some(_) => Err(de::Error::custom("a field follows `events`, which must be the last")),
                        None => Ok((head, open)),
                    };
                }
            }
        }
        Err(de::Error::missing_field("events"))
    }
}

/// Reads the events of a block and pushes each as it comes.
struct Events<'r, 'q> {
    head: Head,
    open: OpenBlock,
    at: Timestamp,
    /// The last time and how it is printed.
    time: (Timestamp, String),
    reading: &'r mut Reading<'q>,
}

impl<'r, 'q> Events<'r, 'q> {
    fn new(head: &Head, reading: &'r mut Reading<'q>) -> Events<'r, 'q> {
        let open = OpenBlock::new(head.shard, head.epoch, head.position, head.ordinal);
        let time = (head.recorded_at, head.recorded_at.rfc3339());
        Events { head: *head, open, at: head.recorded_at, time, reading }
    }

    fn refuse<E: de::Error>(&mut self, reason: &'static str) -> E {
        self.reading.refuse(JsonError::Block { position: self.head.position, reason })
    }

    /// Says of which event an error is.
    fn blame<E: de::Error>(&mut self, error: E) -> E {
        let (position, reason) = (self.open.next_position(), error.to_string());
        let is_new = reason.starts_with(UNKNOWN);
        *self.reading.refused =
            Some(if is_new { JsonError::EventTooNew { position, reason } } else { JsonError::Event { position, reason } });
        error
    }

    /// Appends an event, or says which field is wrong.
    fn push(&mut self, fields: &Fields<'_>) -> Result<(), String> {
        let expected = self.open.next_position();
        if fields.position != expected {
            return Err(format!("field `position` is {} where {expected} follows", fields.position));
        }
        let at = fields.recorded_at;
        if at < self.at || (self.open.count() == 0 && at != self.at) {
            return Err(format!("field `recorded_at` is {} where {} or later follows", at.0, self.at.0));
        }
        if self.time.0 != at {
            self.time = (at, at.rfc3339());
        }
        if fields.time.as_ref().is_some_and(|time| time.as_str() != self.time.1) {
            return Err(format!("field `time` is not {}, which `recorded_at` is", self.time.1));
        }
        let event = fields.as_event().map_err(|misfit| misfit.to_string())?;
        let created = event.creates_task().then(|| TaskId { shard: self.head.shard, ordinal: self.open.next_ordinal() });
        if created.is_some_and(|created| created.ordinal.0 == u64::MAX) {
            return Err("it creates more tasks than there are ordinals".to_owned());
        }
        for (name, task) in fields.tasks() {
            match created.filter(|_| name == "task") {
                Some(created) if created != task => return Err(format!("field `task` is {task} where {created} follows")),
                Some(_) | None if task.shard != self.head.shard => {
                    return Err(format!("field `{name}` is {task}, which is of another shard"));
                }
                Some(_) | None => {}
            }
        }
        self.open.push(at, &event);
        self.at = at;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = OpenBlock;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<OpenBlock, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = OpenBlock;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<OpenBlock, A::Error> {
        let Head { position, count, .. } = self.head;
        if count == 0 || position.0.checked_add(u64::from(count)).is_none() {
            return Err(self.refuse("field `count` is 0, or leads beyond the last position"));
        }
        while let Some(fields) = list.next_element::<Fields<'_>>().map_err(|error| self.blame(error))? {
            if self.open.count() == count {
                return Err(self.refuse("it has more events than field `count` says"));
            }
            if let Err(reason) = self.push(&fields) {
                return Err(self.blame(de::Error::custom(reason)));
            }
            if self.open.body_len() > BODY_BYTES_MAX {
                return Err(self.refuse("its events are longer than a block may be"));
            }
        }
        if self.open.count() < count {
            return Err(self.refuse("it has fewer events than field `count` says"));
        }
        if self.open.format() != self.head.format {
            return Err(self.refuse("it names another format than its events have"));
        }
        Ok(self.open)
    }
}
