//! Publishes the requests of a run, as any program would: a plain producer, keys left out, shards in turn.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate::events::log::kafka::rest;
use ergate::kafka::KafkaSettings;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::SHARDS;
use crate::cli::bench::{BenchArgs, load};

/// Digits at the beginning of a payload that say which one it is.
pub(super) const INDEX_DIGITS: usize = 10;
/// How long the brokers may take to take what is left at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(60);
/// Records between two looks at the client's news.
const POLL_EVERY: u64 = 1_000;

/// Settings that every client of the bench has.
pub(super) fn client(settings: &KafkaSettings) -> ClientConfig {
    settings.clients.common(&settings.url)
}

/// Starts the thread; with a rate, request n is due n / rate seconds after `began`.
pub(super) fn start(
    settings: &KafkaSettings,
    args: &BenchArgs,
    began: Instant,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let mut config = client(settings);
    config.set("acks", "all").set("linger.ms", if args.rate.is_some() { "0" } else { "5" });
    config.set("queue.buffering.max.messages", "200000");
    let producer: BaseProducer = config.create()?;
    let topic = settings.topics().requests;
    let (payloads, tasks, rate) = (load::payloads(args), args.tasks, args.rate);
    Ok(std::thread::spawn(move || {
        let mut value = Vec::new();
        for index in 0..tasks {
            value.clear();
            value.extend_from_slice(br#"{"type":"noop","payload":"#);
            let payload = value.len();
            value.extend_from_slice(&payloads[index as usize % payloads.len()]);
            value.push(b'}');
            if let Some(rate) = rate {
                value[payload + 1..][..INDEX_DIGITS].copy_from_slice(format!("{index:0INDEX_DIGITS$}").as_bytes());
                std::thread::sleep((began + due(index, rate)).saturating_duration_since(Instant::now()));
            }
            let shard = i32::try_from(index % u64::from(SHARDS))?;
            put(&producer, BaseRecord::to(&topic).partition(shard).payload(&value))?;
            if rate.is_some() || index % POLL_EVERY == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        Ok(producer.flush(FLUSH_WITHIN)?)
    }))
}

/// When a request is due.
pub(super) fn due(index: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(index as f64 / rate.max(1e-6))
}

/// Hands a record to the client, waiting while its queue is full.
pub(super) fn put(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], Vec<u8>>) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                record = same;
                rest(producer);
            }
            Err((error, _)) => return Err(error),
        }
    }
}
