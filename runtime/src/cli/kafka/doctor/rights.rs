//! What this user may do, by trying it in ways that leave nothing behind.
//!
//! The client library has no request for one's own rights, so each is tried. Writing is tried with a record that every broker must refuse, for
//! it asks for an acknowledgement that does not exist (`acks=2`): a user without the right is told so before the broker looks at the record.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ergate::kafka::Topic;
use ergate::kafka::admin::PATIENCE;
use ergate::kafka::context::Listener;
use ergate::kafka::survey::Survey;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::Patient;
use crate::cli::doctor::Check;

/// How long a topic may take to say that it is at its end, and a group to tell its positions.
const READ_PATIENCE: Duration = Duration::from_secs(5);

/// Tries to read, to write and to see the group.
pub(super) fn checks(patient: &Patient<'_>, surveys: &[Survey]) -> Vec<Check> {
    let there: Vec<&Survey> = surveys.iter().filter(|survey| survey.found.is_some()).collect();
    if there.is_empty() {
        let untried = |check| Check::warn(check, "not tried: there is no topic yet", "create them with `ergate kafka init`");
        return vec![untried("reading"), untried("writing"), group(patient)];
    }
    vec![reading(patient, &there), writing(patient, &there), group(patient)]
}

fn reading(patient: &Patient<'_>, there: &[&Survey]) -> Check {
    let mut config = patient.settings.reader(patient.url);
    config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer<Listener> = match config.create_with_context(Listener::default()) {
        Ok(consumer) => consumer,
        Err(error) => return Check::fail("reading", error.to_string(), "look at the options under [kafka.options]"),
    };
    let refused = there.iter().filter_map(|survey| Some(format!("{}: {}", survey.topic, read(&consumer, &survey.name).err()?)));
    let refused: Vec<String> = refused.collect();
    match refused.is_empty() {
        true => Check::ok("reading", format!("{} of 6 topics, without joining a group", there.len())),
        false => Check::fail("reading", refused.join("; "), "grant Read and Describe on the topics of the namespace"),
    }
}

/// Waits for the word that there is nothing more, which only a broker that lets one read gives.
fn read(consumer: &BaseConsumer<Listener>, topic: &str) -> Result<(), KafkaError> {
    let mut end = TopicPartitionList::new();
    end.add_partition_offset(topic, 0, Offset::End)?;
    consumer.assign(&end)?;
    let started = Instant::now();
    while started.elapsed() < READ_PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if is_refusal(&error) => return Err(error),
            // A connection that comes and goes.
            Some(Err(_)) | None => {}
        }
    }
    Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut))
}

fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
        )
    )
}

/// Hears what becomes of records.
#[derive(Clone, Default)]
struct Deliveries {
    listener: Listener,
    heard: Arc<Mutex<Vec<Result<(), KafkaError>>>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let heard = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }
}

fn writing(patient: &Patient<'_>, there: &[&Survey]) -> Check {
    let mut config = patient.settings.common(patient.url);
    config.set("acks", "2").set("enable.idempotence", "false").set("retries", "0").set("message.timeout.ms", "5000");
    let deliveries = Deliveries::default();
    let producer: BaseProducer<Deliveries> = match config.create_with_context(deliveries.clone()) {
        Ok(producer) => producer,
        Err(error) => return Check::fail("writing", error.to_string(), "look at the options under [kafka.options]"),
    };
    let mut refused = Vec::new();
    // The queue of dead letters first: a record would do the least harm there.
    let order = |survey: &&&Survey| survey.topic != Topic::Dlq;
    let mut there: Vec<&&Survey> = there.iter().collect();
    there.sort_by_key(order);
    for survey in &there {
        match write(&producer, &deliveries, &survey.name) {
            Some(Err(error)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::InvalidRequiredAcks) => {}
            Some(Err(error)) => refused.push(format!("{}: {error}", survey.topic)),
            None => refused.push(format!("{}: no answer", survey.topic)),
            Some(Ok(())) => {
                let found = format!("{} took a record that Kafka must refuse; it is still there", survey.name);
                return Check::fail("writing", found, "this is no Apache Kafka; the log is not tested on it");
            }
        }
    }
    match refused.is_empty() {
        true => {
            Check::ok("writing", format!("{} of 6 topics, tried with records that are refused for another reason", there.len()))
        }
        false => Check::fail("writing", refused.join("; "), "grant Write and Describe on the topics of the namespace"),
    }
}

/// What becomes of a record with impossible wishes.
fn write(producer: &BaseProducer<Deliveries>, deliveries: &Deliveries, topic: &str) -> Option<Result<(), KafkaError>> {
    let record = BaseRecord::to(topic).partition(0).key("ergate-doctor").payload("never stored");
    if let Err((error, _)) = producer.send(record) {
        return Some(Err(error));
    }
    // An error here is one of the delivery, which is heard.
    let _ = producer.flush(PATIENCE);
    deliveries.heard.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// Asks for the group's positions. Joining it would take partitions away from engines at work, so that is not tried.
fn group(patient: &Patient<'_>) -> Check {
    let group = patient.url.namespace().group();
    let positions = || -> Result<usize, KafkaError> {
        let consumer: BaseConsumer<Listener> = patient.settings.consumer(patient.url).create_with_context(Listener::default())?;
        let mut requests = TopicPartitionList::new();
        requests.add_partition(&patient.url.namespace().topic(Topic::Requests), 0);
        let found = consumer.committed_offsets(requests, READ_PATIENCE)?;
        found.elements().iter().try_for_each(|element| element.error())?;
        Ok(found.count())
    };
    match positions() {
        Ok(_) => Check::ok("group", format!("{group} can be seen; joining it is not tried")),
        Err(error) => Check::fail("group", format!("{group}: {error}"), "grant Read and Describe on the group"),
    }
}
