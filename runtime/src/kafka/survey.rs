//! What an engine must find before it joins: brokers that answer, and the topics of its namespace.

use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};

use super::group::log;
use super::settings::KafkaSettings;
use crate::runtime::StartError;

/// How long the brokers may take to answer: they may be starting too.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// How long a topic is looked for: the brokers tell each other of a new one within a moment.
const APPEAR_WITHIN: Duration = Duration::from_secs(3);
/// Pause before the brokers are asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for Quiet {}

/// Looks for everything that an engine needs; answers with the number of shards. Blocks.
///
/// # Errors
/// [`StartError::Brokers`] and [`StartError::Topic`].
pub(super) fn look(settings: &KafkaSettings) -> Result<u16, StartError> {
    let unreachable = |reason: String| StartError::Brokers { brokers: settings.brokers.clone(), reason };
    let consumer = settings.client("start").set("allow.auto.create.topics", "false").create_with_context(Quiet);
    let consumer: BaseConsumer<Quiet> = consumer.map_err(|error| unreachable(error.to_string()))?;
    let topics = settings.topics();
    let wrong = |topic: &str, reason: String| {
        let command = format!("ergate kafka init --log {}", settings.address());
        StartError::Topic { topic: topic.to_owned(), reason, command }
    };
    let partitions = |topic: &str| {
        let until = Instant::now() + APPEAR_WITHIN;
        loop {
            let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|error| unreachable(error.to_string()))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
            if let Some(count) = found.map(|found| found.partitions().len()).filter(|count| *count > 0) {
                return Ok(count);
            }
            if Instant::now() >= until {
                return Err(wrong(topic, "is not there".to_owned()));
            }
            std::thread::sleep(AGAIN_AFTER);
        }
    };
    let (shards, events) = (partitions(&topics.requests)?, partitions(&topics.events)?);
    if shards != events {
        return Err(wrong(&topics.events, format!("has {events} partitions, and {} has {shards}", topics.requests)));
    }
    let others = [topics.capacity, topics.dead_letters].into_iter();
    others.chain(settings.results.then_some(topics.results)).try_for_each(|topic| partitions(&topic).map(drop))?;
    // The number of the last shard is that of the log of pools.
    u16::try_from(shards)
        .ok()
        .filter(|shards| *shards < u16::MAX)
        .ok_or_else(|| wrong(&topics.requests, format!("has {shards} partitions, more than an engine can number")))
}
