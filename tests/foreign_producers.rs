//! Programs in other languages publish requests with their own clients and partitioners to a real broker; every record is read back.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/kafka/mod.rs"]
mod kafka;
#[path = "support/packages.rs"]
mod packages;
#[path = "support/producers.rs"]
mod producers;
#[path = "support/requests.rs"]
mod requests;

use std::time::{Duration, Instant};

use ergate::events::task::TypeSettings;
use ergate::events::time::Timestamp;
use ergate::request::{self, Record};
use producers::{Asked, Partitioner, Program, crc32, murmur2};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{Offset, TopicPartitionList};

/// As many as `ergate kafka init` makes unless told otherwise, so that two hashes seldom agree by chance.
const PARTITIONS: u32 = 16;
/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// 2026-01-01T00:00:00Z, which the fixtures are written for.
const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("allow.auto.create.topics", "false");
    config
}

fn create(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let topics =
        [NewTopic::new(topic, i32::try_from(PARTITIONS).unwrap(), TopicReplication::Fixed(1))
            .set("max.message.bytes", "4194304")];
    assert_eq!(runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap(), [Ok(topic.to_owned())]);
}

/// Shows every record of a topic to `look`, up to the ends of all partitions.
fn read(brokers: &str, topic: &str, mut look: impl FnMut(&BorrowedMessage<'_>)) {
    let mut config = client(brokers);
    config.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("fetch.message.max.bytes", "4194304").create().unwrap();
    let mut from = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        from.add_partition_offset(topic, i32::try_from(partition).unwrap(), Offset::Beginning).unwrap();
    }
    consumer.assign(&from).unwrap();
    let (mut ends, started) = (0, Instant::now());
    while ends < PARTITIONS {
        assert!(started.elapsed() < PATIENCE, "the end of {topic} is never reached");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => look(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

/// Lends a record of the topic to `look`.
fn record<T>(message: &BorrowedMessage<'_>, look: impl FnOnce(&Record<'_>) -> T) -> T {
    let headers: Vec<_> =
        message.headers().map_or_else(Vec::new, |headers| headers.iter().map(|Header { key, value }| (key, value)).collect());
    look(&Record { key: message.key(), value: message.payload(), headers: &headers })
}

fn found(message: &BorrowedMessage<'_>) -> Asked {
    record(message, |record| {
        let mut request = request::parse(record, NOW).unwrap();
        assert_eq!(request.task_type, "noop");
        let payload: serde_json::Value = serde_json::from_slice(&request.payload).unwrap();
        let extras = request.take_extras(&TypeSettings::default()).unwrap();
        Asked {
            record_key: String::from_utf8(record.key.unwrap().to_vec()).unwrap(),
            idempotency_key: extras.key.unwrap(),
            customer: payload["customer"].as_str().unwrap().to_owned(),
            priority: extras.priority,
            labels: extras.labels,
            trace: extras.trace_parent,
            correlation_id: extras.correlation_id,
        }
    })
}

/// Runs a program and reads what it published: the fields, and the partitions.
fn check(program: Program, partitioner: Partitioner) {
    let Some(kafka) = kafka::shared() else { return };
    let topic = kafka::namespace(&format!("{program:?}"));
    create(kafka.bootstrap(), &topic);
    if let Err(reason) = program.publish(kafka.bootstrap(), &topic, partitioner) {
        packages::say(&format!("SKIPPED: examples/producers/{} was not run: {reason}", program.file()));
        return;
    }
    let mut all = Vec::new();
    read(kafka.bootstrap(), &topic, |message| {
        let key = message.key().unwrap();
        let partition = u32::try_from(message.partition()).unwrap();
        assert_eq!(partition, partitioner.partition(key, PARTITIONS), "{program:?} {}", key.escape_ascii());
        all.push(found(message));
    });
    all.sort();
    assert_eq!(all, program.published());
}

#[test]
fn kcat_publishes_requests() {
    check(Program::Kcat, Partitioner::Murmur2);
    check(Program::Kcat, Partitioner::Crc32);
}

#[test]
fn confluent_kafka_for_python_publishes_requests() {
    check(Program::ConfluentPython, Partitioner::Murmur2);
    check(Program::ConfluentPython, Partitioner::Crc32);
}

#[test]
fn kafka_python_publishes_requests() {
    check(Program::KafkaPython, Partitioner::Murmur2);
}

#[test]
fn the_java_client_publishes_requests() {
    check(Program::Java, Partitioner::Murmur2);
}

#[test]
fn kafkajs_publishes_requests() {
    check(Program::KafkaJs, Partitioner::Murmur2);
}

#[test]
fn confluents_client_for_node_publishes_requests() {
    check(Program::ConfluentNode, Partitioner::Murmur2);
    check(Program::ConfluentNode, Partitioner::Crc32);
}

#[test]
fn rdkafka_publishes_requests() {
    check(Program::Rust, Partitioner::Murmur2);
    check(Program::Rust, Partitioner::Crc32);
}

/// A broker and a client change nothing about a record, and so nothing about what becomes of it.
#[test]
fn every_fixture_means_the_same_after_a_broker_had_it() {
    let Some(kafka) = kafka::shared() else { return };
    let topic = kafka::namespace("fixtures");
    create(kafka.bootstrap(), &topic);
    let mut config = client(kafka.bootstrap());
    let producer: BaseProducer = config.set("message.max.bytes", "4194304").set("compression.type", "zstd").create().unwrap();
    let fixtures: Vec<_> = requests::good().into_iter().chain(requests::bad()).collect();
    for (index, fixture) in fixtures.iter().enumerate() {
        let key = index.to_string();
        let mut record = fixture.to(&topic).key(key.as_bytes()).partition(0);
        while let Err((_, again)) = producer.send(record) {
            producer.poll(Duration::from_millis(10));
            record = again;
        }
    }
    producer.flush(PATIENCE).unwrap();
    let mut seen = 0;
    read(kafka.bootstrap(), &topic, |message| {
        let index: usize = std::str::from_utf8(message.key().unwrap()).unwrap().parse().unwrap();
        let fixture = &fixtures[index];
        let here = fixture.with(|record| request::parse(record, NOW).map(|request| format!("{request:?}")));
        let there = record(message, |record| request::parse(record, NOW).map(|request| format!("{request:?}")));
        assert_eq!(here, there, "{}", fixture.name);
        seen += 1;
    });
    assert_eq!(seen, fixtures.len());
}

#[test]
fn the_hashes_are_those_of_their_standards() {
    // Kafka's own UtilsTest.testMurmur2, and the check value of CRC-32/ISO-HDLC.
    for (text, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)] {
        assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash);
    }
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    let page = std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/producing.md")).unwrap();
    for key in ["customer-1", "customer-2", "customer-3"] {
        let [java, other] = [Partitioner::Murmur2, Partitioner::Crc32].map(|hash| hash.partition(key.as_bytes(), PARTITIONS));
        assert!(page.contains(&format!("| `{key}` | {java} | {other} |")), "{key} is in {java} or {other}");
    }
}
