//! Reads the committed messages of a topic, partition by partition, up to where it ended when reading began.

use std::time::{Duration, Instant};

use ergate_events::log::LogError;
use ergate_events::log::kafka::Patience;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::settings::KafkaSettings;

/// How long one question to the brokers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a poll waits for a message.
const POLL: Duration = Duration::from_secs(1);
/// How long the brokers may be silent before that is told.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// Whether whoever reads wants more of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Yes,
    No,
}

/// A topic that is read.
pub(crate) struct Messages {
    consumer: BaseConsumer,
    topic: String,
    patience: Patience,
}

impl Messages {
    pub(crate) fn of(settings: &KafkaSettings, topic: &str, patience: Patience) -> Result<Messages, LogError> {
        Messages::seen(settings, topic, patience, "read_committed")
    }

    /// Shows what is not decided, too, and what was given up.
    pub(crate) fn with_undecided(settings: &KafkaSettings, topic: &str, patience: Patience) -> Result<Messages, LogError> {
        Messages::seen(settings, topic, patience, "read_uncommitted")
    }

    fn seen(settings: &KafkaSettings, topic: &str, patience: Patience, isolation: &str) -> Result<Messages, LogError> {
        let mut config = settings.client("messages");
        config
            // Offsets are kept by nobody: a client without a group has no other use for the name.
            .set("group.id", "ergate-reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", isolation)
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        let consumer = config.create().map_err(|error| failed("read", topic, error))?;
        Ok(Messages { consumer, topic: topic.to_owned(), patience })
    }

    /// How many partitions the topic has.
    pub(crate) fn partitions(&self) -> Result<i32, LogError> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), ANSWER_WITHIN);
        let metadata = metadata.map_err(|error| failed("ask for the topic", &self.topic, error))?;
        let topic = metadata.topics().first();
        match topic.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Err(LogError::NoTopic { topic: self.topic.clone() }),
            Some(error) => Err(failed("ask for the topic", &self.topic, error)),
            None => Ok(topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))),
        }
    }

    /// Shows the messages of a partition from an offset on to `see`, until it has seen enough or the partition ends.
    pub(crate) fn each<E: From<LogError>>(
        &self,
        partition: i32,
        from: i64,
        see: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<More, E>,
    ) -> Result<(), E> {
        let failed = |error: KafkaError| failed("read", &self.topic, error);
        let (low, end) = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER_WITHIN).map_err(failed)?;
        if from.max(low) >= end {
            return Ok(());
        }
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&self.topic, partition, Offset::Offset(from.max(low))).map_err(failed)?;
        self.consumer.assign(&assignment).map_err(failed)?;
        let mut heard = Instant::now();
        loop {
            let reason = match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.offset() >= end || see(&message)? == More::No {
                        return Ok(());
                    }
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) => error.to_string(),
                None => "the brokers do not answer".to_owned(),
            };
            let silent = heard.elapsed();
            if silent >= self.patience.answer_within {
                return Err(LogError::Kafka { step: "read", topic: self.topic.clone(), reason }.into());
            }
            if let Some(listener) = self.patience.listener.as_ref().filter(|_| silent >= SAY_AFTER) {
                listener(silent, &reason);
            }
        }
    }
}

fn failed(step: &'static str, topic: &str, reason: impl std::fmt::Display) -> LogError {
    LogError::Kafka { step, topic: topic.to_owned(), reason: reason.to_string() }
}
