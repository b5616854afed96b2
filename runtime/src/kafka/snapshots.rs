//! States on the snapshots topic, for engines that have no copy: a compacted partition a shard.
//!
//! ```text
//! key "SHARD/POSITION/INDEX"   a part of the image, at most 512 KiB
//! key "SHARD"                  which snapshot is the newest: {"position", "ordinal", "time", "hash", "parts", "bytes", "digest"}
//! ```
//! The parts come before the message that names them. When a newer one is named, the parts of the one before are deleted. A snapshot proves
//! nothing: whoever uses one holds its hash against the log, and its digest against the image.

use std::collections::BTreeMap;
use std::time::Duration;

use ergate_events::block::Hash;
use ergate_events::id::{Ordinal, Position};
use ergate_events::log::kafka::rest;
use ergate_events::log::{Head, LogError};
use ergate_events::state::State;
use ergate_events::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::copy::Place;
use super::logs::CAPACITY;
use super::settings::KafkaSettings;
use crate::store::RecoverError;

/// Bytes of one part: far below what brokers take, so that no topic needs a setting for it.
const PART_BYTES: usize = 512 << 10;
/// Largest image that is put on the topic; a larger state is restored from its log.
const IMAGE_BYTES_MAX: usize = 1 << 30;
/// How long the brokers may take for a part.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A state and where it was taken.
pub(crate) struct Base {
    pub(crate) head: Head,
    pub(crate) image: Vec<u8>,
}

/// The message that names the newest snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Newest {
    position: u64,
    ordinal: u64,
    time: u64,
    hash: Hex,
    parts: usize,
    bytes: usize,
    digest: Hex,
}

/// A hash as digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hex(String);

impl Hex {
    fn of(hash: &Hash) -> Hex {
        Hex(hash.to_string())
    }

    fn hash(&self) -> Option<Hash> {
        let byte = |index: usize| u8::from_str_radix(self.0.get(2 * index..2 * index + 2)?, 16).ok();
        let mut hash = [0; 32];
        for (index, place) in hash.iter_mut().enumerate() {
            *place = byte(index)?;
        }
        Some(Hash(hash))
    }
}

fn failed(step: &'static str, topic: &str, reason: impl std::fmt::Display) -> LogError {
    LogError::Kafka { step, topic: topic.to_owned(), reason: reason.to_string() }
}

/// Topic and partition of a shard's snapshots. The capacity log is small and has none.
fn place_of(settings: &KafkaSettings, place: &Place) -> Option<(String, i32)> {
    (place.shard != CAPACITY).then(|| (settings.topics().snapshots, i32::from(place.shard.0)))
}

/// Puts a state on the topic. Blocks until the brokers have it.
///
/// # Errors
/// [`LogError::Kafka`].
pub(crate) fn save(settings: &KafkaSettings, place: &Place, head: &Head, state: &State) -> Result<(), LogError> {
    let Some((topic, partition)) = place_of(settings, place) else { return Ok(()) };
    let mut image = Vec::new();
    state.encode(&mut image).map_err(|error| failed("write a snapshot", &topic, error))?;
    if image.len() > IMAGE_BYTES_MAX {
        return Err(failed(
            "write a snapshot",
            &topic,
            format!("it has {} bytes, over the limit of {IMAGE_BYTES_MAX}", image.len()),
        ));
    }
    let before = read(settings, place)?.newest;
    let producer: BaseProducer = settings
        .client("snapshots")
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .create()
        .map_err(|error| failed("write a snapshot", &topic, error))?;
    let send = |key: String, value: Option<&[u8]>| {
        let mut record = BaseRecord::<str, [u8]>::to(&topic).partition(partition).key(&key);
        record.payload = value;
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    rest(&producer);
                }
                Err((error, _)) => return Err(failed("write a snapshot", &topic, error)),
            }
        }
    };
    let shard = place.shard;
    let parts = image.chunks(PART_BYTES);
    let newest = Newest {
        position: head.next.0,
        ordinal: head.next_ordinal.0,
        time: head.last_time.0,
        hash: Hex::of(&head.hash),
        parts: parts.len(),
        bytes: image.len(),
        digest: Hex::of(&Hash(*blake3::hash(&image).as_bytes())),
    };
    for (index, part) in parts.enumerate() {
        send(format!("{shard}/{}/{index}", head.next), Some(part))?;
    }
    producer.flush(ANSWER_WITHIN).map_err(|error| failed("write a snapshot", &topic, error))?;
    let named = serde_json::to_vec(&newest).map_err(|error| failed("write a snapshot", &topic, error))?;
    send(shard.to_string(), Some(&named))?;
    if let Some(old) = before.filter(|old| old.position != newest.position) {
        (0..old.parts).try_for_each(|index| send(format!("{shard}/{}/{index}", old.position), None))?;
    }
    producer.flush(ANSWER_WITHIN).map_err(|error| failed("write a snapshot", &topic, error))
}

/// The position of the newest snapshot.
///
/// # Errors
/// [`LogError::Kafka`].
pub(crate) fn newest(settings: &KafkaSettings, place: &Place) -> Result<Option<Position>, LogError> {
    Ok(read(settings, place)?.newest.map(|newest| Position(newest.position)))
}

/// The newest snapshot that is whole and lies on the log's chain.
///
/// # Errors
/// [`LogError::Kafka`], and whatever reading the log meets.
pub(crate) fn load(settings: &KafkaSettings, place: &Place) -> Result<Option<Base>, RecoverError> {
    let Found { newest: Some(newest), mut parts } = read(settings, place)? else { return Ok(None) };
    let mut image = Vec::with_capacity(newest.bytes.min(IMAGE_BYTES_MAX));
    for index in 0..newest.parts {
        match parts.remove(&(newest.position, index)) {
            Some(part) => image.extend_from_slice(&part),
            None => return skip(place, "a part of it is missing"),
        }
    }
    let digest = Hash(*blake3::hash(&image).as_bytes());
    if image.len() != newest.bytes || newest.digest.hash() != Some(digest) {
        return skip(place, "its digest does not fit");
    }
    let Some(hash) = newest.hash.hash() else { return skip(place, "its hash cannot be read") };
    let (next, next_ordinal, last_time) = (Position(newest.position), Ordinal(newest.ordinal), Timestamp(newest.time));
    let head = Head { next, next_ordinal, hash, last_time };
    match place.reader(settings).place_after(&head) {
        Ok(_) => Ok(Some(Base { head, image })),
        Err(error @ (LogError::Chain { .. } | LogError::Gone { .. } | LogError::Beyond { .. })) => {
            skip(place, &error.to_string())
        }
        Err(error) => Err(error.into()),
    }
}

fn skip(place: &Place, reason: &str) -> Result<Option<Base>, RecoverError> {
    tracing::warn!(shard = %place.shard, reason, "the snapshot on the topic cannot be used; the log is read from its beginning");
    Ok(None)
}

/// What a partition of the topic holds.
#[derive(Default)]
struct Found {
    newest: Option<Newest>,
    parts: BTreeMap<(u64, usize), Vec<u8>>,
}

/// Reads a whole partition; compaction keeps it small.
fn read(settings: &KafkaSettings, place: &Place) -> Result<Found, LogError> {
    let Some((topic, partition)) = place_of(settings, place) else { return Ok(Found::default()) };
    let mut config = settings.client("snapshots");
    config.set("group.id", "ergate-reader").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("auto.offset.reset", "earliest").set("fetch.wait.max.ms", "20");
    let consumer: BaseConsumer = config.create().map_err(|error| failed("read snapshots", &topic, error))?;
    let mut assignment = TopicPartitionList::new();
    let added = assignment.add_partition_offset(&topic, partition, Offset::Beginning);
    added.and_then(|()| consumer.assign(&assignment)).map_err(|error| failed("read snapshots", &topic, error))?;
    let mut found = Found::default();
    loop {
        match consumer.poll(ANSWER_WITHIN) {
            Some(Ok(message)) => found.take(message.key().unwrap_or_default(), message.payload()),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(found),
            Some(Err(error)) => return Err(failed("read snapshots", &topic, error)),
            None => return Err(failed("read snapshots", &topic, "the brokers do not answer")),
        }
    }
}

impl Found {
    fn take(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Ok(key) = std::str::from_utf8(key) else { return };
        let mut fields = key.split('/');
        let numbers = (fields.nth(1).and_then(|text| text.parse().ok()), fields.next().and_then(|text| text.parse().ok()));
        match (numbers, value) {
            ((Some(position), Some(index)), Some(part)) => drop(self.parts.insert((position, index), part.to_vec())),
            ((Some(position), Some(index)), None) => drop(self.parts.remove(&(position, index))),
            (_, Some(value)) => self.newest = serde_json::from_slice(value).ok().or(self.newest.take()),
            (_, None) => self.newest = None,
        }
    }
}
