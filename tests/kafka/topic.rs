//! The topics of a namespace as any client sees them: made by `ergate kafka init`, read to their ends by plain consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message as _};
use rdkafka::{Offset, TopicPartitionList};

/// How long brokers may take that were just started again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The largest block, and what librdkafka adds to it.
const MESSAGE_BYTES_MAX: &str = "8388608";

/// A message with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) value: Option<Vec<u8>>,
}

impl Message {
    /// The text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// Whether an owner has only ended with it what brokers had left undecided.
    pub(crate) fn says_nothing(&self) -> bool {
        self.value.is_none() && self.key.is_none() && self.headers.is_empty()
    }
}

/// A client without any of the engine's settings.
pub(crate) fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "200").set("allow.auto.create.topics", "false");
    config
}

/// The names of the topics of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) requests: String,
    pub(crate) events: String,
    pub(crate) capacity: String,
    pub(crate) dead_letters: String,
    pub(crate) results: String,
}

impl Topics {
    pub(crate) fn of(namespace: &str) -> Topics {
        let [requests, events, capacity, dead_letters, results] =
            ["requests", "events", "capacity", "dlq", "results"].map(|name| format!("{namespace}.{name}"));
        Topics { requests, events, capacity, dead_letters, results }
    }
}

/// Makes the topics of a namespace with so many shards, as operators do.
pub(crate) fn create(bootstrap: &str, namespace: &str, shards: i32, replicas: i32) {
    let log = format!("kafka://{bootstrap}/{namespace}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ergate"));
    command.args(["kafka", "init", "--log", &log, "--partitions", &shards.to_string(), "--replication", &replicas.to_string()]);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Follows all partitions of a topic, with what is committed alone.
pub(crate) struct Reader {
    consumer: BaseConsumer,
    topic: String,
    unended: BTreeSet<i32>,
}

impl Reader {
    pub(crate) fn new(bootstrap: &str, topic: &str) -> Reader {
        let mut config = client(bootstrap);
        config.set("group.id", "checker").set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.message.max.bytes", MESSAGE_BYTES_MAX);
        let consumer: BaseConsumer = config.create().unwrap();
        let started = Instant::now();
        let metadata = loop {
            match consumer.fetch_metadata(Some(topic), PATIENCE) {
                Ok(metadata) if !metadata.topics()[0].partitions().is_empty() => break metadata,
                other => assert!(started.elapsed() < PATIENCE, "{topic} is nowhere: {:?}", other.err()),
            }
        };
        let mut from = TopicPartitionList::new();
        let unended: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
        for partition in &unended {
            from.add_partition_offset(topic, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from).unwrap();
        Reader { consumer, topic: topic.to_owned(), unended }
    }

    /// What has come within `wait`, perhaps nothing.
    pub(crate) fn poll(&mut self, wait: Duration) -> Option<Message> {
        match self.consumer.poll(wait) {
            Some(Ok(message)) => {
                self.unended.insert(message.partition());
                let headers = message.headers().map_or_else(Vec::new, |headers| {
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                });
                Some(Message {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    headers,
                    value: message.payload().map(<[u8]>::to_vec),
                })
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.unended.remove(&partition);
                None
            }
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset))) => {
                panic!("{}: what was there once is gone", self.topic)
            }
            // Brokers that are away for a moment.
            Some(Err(_)) | None => None,
        }
    }

    fn all(mut self) -> Vec<Message> {
        let (mut found, mut heard) = (Vec::new(), Instant::now());
        while !self.unended.is_empty() {
            let open = self.unended.len();
            found.extend(self.poll(Duration::from_millis(100)).inspect(|_| heard = Instant::now()));
            if self.unended.len() < open {
                heard = Instant::now();
            }
            assert!(heard.elapsed() < PATIENCE, "{}: nothing is heard of partitions {:?}", self.topic, self.unended);
        }
        found.sort_by_key(|message| (message.partition, message.offset));
        found
    }
}

/// Everything that is committed in a topic, by partition and offset.
pub(crate) fn read(bootstrap: &str, topic: &str) -> Vec<Message> {
    Reader::new(bootstrap, topic).all()
}

/// What a group has committed for so many partitions of a topic; 0 where it has committed nothing.
pub(crate) fn committed(bootstrap: &str, group: &str, topic: &str, shards: i32) -> BTreeMap<i32, u64> {
    let consumer: BaseConsumer = client(bootstrap).set("group.id", group).create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_range(topic, 0, shards - 1);
    let started = Instant::now();
    let found = loop {
        // The coordinator of a group may just be somebody else.
        match consumer.committed_offsets(wanted.clone(), PATIENCE) {
            Ok(found) => break found,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
    };
    let offset = |offset: Offset| if let Offset::Offset(next) = offset { u64::try_from(next).unwrap() } else { 0 };
    found.elements().iter().map(|element| (element.partition(), offset(element.offset()))).collect()
}
