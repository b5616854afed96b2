//! A namespace on a broker with engines that are child processes, and what a test does to its topics behind their backs.
//!
//! Needs `support/kafka/mod.rs` beside it, as `kafka`, and `support/command.rs`, as `command`.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ergate::events::block::{Hash, OpenBlock};
use ergate::events::event::Event;
use ergate::events::id::{Epoch, Ordinal, Position, ShardId};
use ergate::events::time::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::{command, kafka};

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The largest record that a test publishes, before it is compressed.
const BYTES_MAX: &str = "67108864";

/// The topics of one log.
pub(crate) struct Namespace {
    pub(crate) name: String,
    bootstrap: String,
    producer: BaseProducer,
    pub(crate) data: tempfile::TempDir,
}

/// An engine; it is killed when the test fails.
pub(crate) struct Engine {
    child: Child,
    said: PathBuf,
}

/// A message as it lies in a topic.
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) value: Vec<u8>,
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "200");
    config
}

impl Namespace {
    /// Makes the topics of so many shards.
    pub(crate) fn new(test: &str, bootstrap: &str, shards: i32) -> Namespace {
        let name = kafka::namespace(test);
        let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
        let each = |topic| (topic, shards);
        let one = |topic| (topic, 1);
        let topics = [each("requests"), each("events"), each("snapshots"), one("capacity"), one("dlq"), one("results")];
        let names = topics.map(|(topic, partitions)| (format!("{name}.{topic}"), partitions));
        let new = names.each_ref().map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(1)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let made = runtime.block_on(admin.create_topics(&new, &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        Namespace::of(name, bootstrap)
    }

    /// Makes the topics of so many shards with the settings that they should have, as operators do.
    pub(crate) fn init(test: &str, bootstrap: &str, shards: i32) -> Namespace {
        let namespace = Namespace::of(kafka::namespace(test), bootstrap);
        command::run(&["kafka", "init", "--log", &namespace.log(), "--partitions", &shards.to_string()]).expect(0);
        // A busy broker knows of them a moment later.
        command::until("there are the topics", || command::run(&["log", "verify", "--log", &namespace.log()]).code == Some(0));
        namespace
    }

    fn of(name: String, bootstrap: &str) -> Namespace {
        let mut config = client(bootstrap);
        config.set("linger.ms", "0").set("queue.buffering.max.messages", "1000000").set("message.max.bytes", BYTES_MAX);
        config.set("enable.idempotence", "true").set("compression.type", "zstd");
        let producer = config.create().unwrap();
        Namespace { name, bootstrap: bootstrap.to_owned(), producer, data: tempfile::tempdir().unwrap() }
    }

    /// As `--log` takes it.
    pub(crate) fn log(&self) -> String {
        format!("kafka://{}/{}", self.bootstrap, self.name)
    }

    /// Where the engine keeps the copy of a shard.
    pub(crate) fn copy(&self, shard: &str) -> String {
        self.data.path().join(&self.name).join(shard).display().to_string()
    }

    /// Starts an engine.
    pub(crate) fn engine(&self) -> Engine {
        self.start(&["--log", &self.log()], "", &[])
    }

    /// Starts an engine with these arguments and variables of its environment, whose copies are in a directory of its own.
    pub(crate) fn start(&self, args: &[&str], name: &str, variables: &[(&str, &str)]) -> Engine {
        let (data, said) = (self.data.path().join(name), self.data.path().join(format!("said{name}")));
        let mut command = command::ergate(&[&["up", "--data", data.to_str().unwrap()], args].concat());
        command.envs(variables.iter().copied());
        let open = std::fs::File::options().create(true).append(true).open(&said).unwrap();
        Engine { child: command.stdout(Stdio::null()).stderr(open).spawn().unwrap(), said }
    }

    /// Hands a record to the brokers, and does not wait for them.
    pub(crate) fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>) {
        while let Err((error, same)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            record = same;
            self.producer.poll(Duration::from_millis(10));
        }
    }

    /// Waits until the brokers have everything that was sent.
    pub(crate) fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Publishes a record to the requests.
    pub(crate) fn publish(&self, partition: i32, key: &str, value: &[u8]) {
        let topic = format!("{}.requests", self.name);
        self.send(BaseRecord::to(&topic).partition(partition).key(key.as_bytes()).payload(value));
        self.flush();
    }

    /// Publishes the same record many times, to the first two partitions in turn.
    pub(crate) fn publish_many(&self, count: usize, value: &[u8]) {
        let topic = format!("{}.requests", self.name);
        for index in 0..count {
            self.send(BaseRecord::to(&topic).partition(i32::from(index % 2 == 1)).payload(value));
        }
        self.flush();
    }

    /// Waits until every request is answered in the log and nothing runs any more.
    pub(crate) fn until_done(&self) {
        self.until_done_but(0);
    }

    /// The same where so many messages at the end of each partition may be markers of transactions, which are nobody's requests.
    pub(crate) fn until_done_but(&self, markers: i64) {
        let started = Instant::now();
        loop {
            let live = command::run(&["replay", "-o", "json", "--log", &self.log()]).expect(0).json_lines();
            let live: u64 = live.iter().map(|shard| shard["live"].as_u64().unwrap()).sum();
            let status = command::run(&["kafka", "status", "--every", "0s", "-o", "json", "--log", &self.log()]).expect(0).json();
            let answered = status["shards"].as_array().unwrap().iter().all(|shard| {
                let requests = &shard["requests"];
                requests.is_null() || requests["lag"].as_i64().unwrap() <= markers
            });
            if live == 0 && answered {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "the work is never done: {status} {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What all engines have said on standard error.
    pub(crate) fn said(&self) -> String {
        let files = std::fs::read_dir(self.data.path()).unwrap().map(|file| file.unwrap());
        let said = files.filter(|file| file.file_name().to_str().unwrap().starts_with("said"));
        said.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect()
    }

    /// Everything that is committed to a partition.
    pub(crate) fn records(&self, topic: &str, partition: i32) -> Vec<Record> {
        let mut config = client(&self.bootstrap);
        config.set("group.id", "test").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(&format!("{}.{topic}", self.name), partition, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let mut records = Vec::new();
        loop {
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => {
                    let header = |header: rdkafka::message::Header<'_, &[u8]>| {
                        (header.key.to_owned(), header.value.unwrap_or_default().to_vec())
                    };
                    records.push(Record {
                        offset: message.offset(),
                        key: message.key().map(<[u8]>::to_vec),
                        headers: message.headers().map_or_else(Vec::new, |headers| headers.iter().map(header).collect()),
                        value: message.payload().unwrap_or_default().to_vec(),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return records,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Writes a message to the record of a shard; answers with its offset.
    fn write(&self, shard: i32, value: &[u8]) -> i64 {
        let topic = format!("{}.events", self.name);
        let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(shard).payload(value);
        self.send(record);
        self.flush();
        self.records("events", shard).last().unwrap().offset
    }
}

/// Writes the block of a shard again that is there in this place.
pub(crate) fn copied(namespace: &Namespace, shard: i32, index: usize) -> i64 {
    let value = namespace.records("events", shard).swap_remove(index).value;
    namespace.write(shard, &value)
}

/// Writes another block that claims to be at this position of a shard.
pub(crate) fn forged(namespace: &Namespace, shard: i32, position: u64) -> i64 {
    let shard_id = ShardId(u16::try_from(shard).unwrap());
    let mut open = OpenBlock::new(shard_id, Epoch(1), Position(position), Ordinal(0));
    open.push(Timestamp(1), &Event::Ready { task: Ordinal(0) });
    namespace.write(shard, &open.seal(Hash::ZERO).bytes)
}

/// Writes the record of a shard to another namespace, each block as its bytes.
pub(crate) fn as_bytes(from: &Namespace, to: &Namespace, shard: i32) {
    let topic = format!("{}.events", to.name);
    for record in from.records("events", shard) {
        let (block, _) = ergate::events::json::decode(&record.value).unwrap();
        let sealed = block.seal_again().unwrap();
        to.send(BaseRecord::to(&topic).partition(shard).payload(&sealed.bytes));
    }
    to.flush();
}

impl Engine {
    /// What it has said on standard error.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// How many shards it leads by what it said last; the log of pools is none.
    pub(crate) fn leads(&self) -> usize {
        let said = self.said();
        let last = said.lines().rev().find_map(|line| line.strip_prefix("leads "));
        let led = last.map_or("", |line| line.split(';').next().unwrap());
        led.split(' ').filter(|shard| shard.parse::<u16>().is_ok()).count()
    }

    /// Waits until it leads as many shards as `enough` says.
    #[track_caller]
    pub(crate) fn until_leads(&mut self, enough: impl Fn(usize) -> bool) {
        let started = Instant::now();
        while !enough(self.leads()) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "it does not lead enough ({ended:?}): {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) {
        command::signal(&self.child, "TERM");
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the engine does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
