//! The floor: one bare transactional producer that writes the same bytes to as many partitions.

use std::time::{Duration, Instant};

use ergate::events::log::kafka::rest;
use ergate::kafka::KafkaSettings;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::follow::reader;
use super::publish::put;
use super::{SHARDS, STUCK_AFTER};

/// Bytes of messages that are kept as samples; they are written again and again.
const SAMPLE_BYTES: usize = 64 << 20;
/// How long the brokers may take for one step.
const WITHIN: Duration = Duration::from_secs(60);
/// How long one poll for a message waits.
const POLL: Duration = Duration::from_millis(5);

/// What the floor came to.
pub(super) struct Floor {
    pub(super) seconds: f64,
    /// Bytes of the values of all events.
    pub(super) bytes: u64,
}

/// Writes the events once more, as messages without meaning, in as many commits as one shard made: the shards committed side by side.
pub(super) fn run(settings: &KafkaSettings, commits: u64) -> anyhow::Result<Floor> {
    let (samples, bytes) = samples(settings)?;
    anyhow::ensure!(!samples.is_empty(), "no events were written, so there is nothing to compare with");
    let a_commit = (bytes / (commits / u64::from(SHARDS)).max(1)).max(1);
    let topic = settings.topics().results;
    let id = format!("{}-floor", settings.url.namespace());
    let producer: BaseProducer = settings.clients.producer(&settings.url, &id).create()?;
    producer.init_transactions(WITHIN)?;
    let (began, mut written, mut open) = (Instant::now(), 0, 0);
    for (index, value) in samples.iter().cycle().enumerate() {
        if open == 0 {
            producer.begin_transaction()?;
        }
        let shard = i32::try_from(index as u64 % u64::from(SHARDS))?;
        put(&producer, BaseRecord::to(&topic).partition(shard).payload(value))?;
        written += value.len() as u64;
        open += value.len() as u64;
        if open >= a_commit || written >= bytes {
            commit(&producer)?;
            open = 0;
        }
        if written >= bytes {
            break;
        }
    }
    Ok(Floor { seconds: began.elapsed().as_secs_f64(), bytes })
}

fn commit(producer: &BaseProducer) -> Result<(), KafkaError> {
    // The client's own flush sleeps for a tenth of a second at a time.
    while producer.in_flight_count() > 0 {
        rest(producer);
    }
    producer.commit_transaction(WITHIN)
}

/// The first messages of the run, and how many bytes there are in all.
fn samples(settings: &KafkaSettings) -> anyhow::Result<(Vec<Vec<u8>>, u64)> {
    let consumer = reader(settings)?;
    let (mut samples, mut kept, mut bytes, mut ends) = (Vec::new(), 0, 0, 0);
    let mut heard = Instant::now();
    while ends < SHARDS {
        anyhow::ensure!(heard.elapsed() < STUCK_AFTER, "the events of the run cannot be read");
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let value = message.payload().unwrap_or_default();
                bytes += value.len() as u64;
                if kept < SAMPLE_BYTES {
                    kept += value.len();
                    samples.push(value.to_vec());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    Ok((samples, bytes))
}
