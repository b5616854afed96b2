//! What a writer on Kafka does when the brokers or the client answer with errors that real brokers seldom give on demand: a mock cluster
//! gives them.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may panic and takes the time")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ergate_events::block::{Hash, SealedBlock};
use ergate_events::command::Command;
use ergate_events::event::{Envelope, RuleVersions};
use ergate_events::id::ShardId;
use ergate_events::log::kafka::{Delivers, Form, KafkaLog, KafkaLogParts};
use ergate_events::log::memory::MemoryLog;
use ergate_events::log::{EventLog, LogError, Outgoing};
use ergate_events::shard::Shard;
use ergate_events::state::State;
use ergate_events::time::Timestamp;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer, ProducerContext};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

/// How long a transaction is tried.
const RETRY_FOR: Duration = Duration::from_secs(4);
const EVENTS: &str = "ns.events";
const REQUESTS: &str = "ns.requests";
const LETTERS: &str = "ns.dlq";

#[derive(Default)]
struct Context(Mutex<Option<String>>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().replace(error.to_string());
        }
    }
}

impl Delivers for Context {
    fn take_failure(&self) -> Option<String> {
        self.0.lock().unwrap().take()
    }

    fn last_event(&self) -> Option<i64> {
        None
    }
}

/// Brokers, a writer and two blocks for it.
struct Ground {
    mock: MockCluster<'static, DefaultProducerContext>,
    log: Box<dyn EventLog>,
    unwanted: Arc<AtomicBool>,
    blocks: [SealedBlock; 2],
    _member: Arc<BaseConsumer>,
}

impl Ground {
    fn new() -> Ground {
        let mock = MockCluster::new(2).unwrap();
        mock.create_topic(EVENTS, 1, 1).unwrap();
        mock.create_topic(REQUESTS, 1, 1).unwrap();
        mock.create_topic(LETTERS, 1, 1).unwrap();
        mock.partition_leader(EVENTS, 0, Some(1)).unwrap();
        mock.coordinator(MockCoordinator::Transaction("ns-0".to_owned()), 1).unwrap();
        mock.coordinator(MockCoordinator::Group("ns-engines".to_owned()), 2).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", mock.bootstrap_servers()).set("retry.backoff.ms", "5").set("linger.ms", "0");
        let member: BaseConsumer = config.clone().set("group.id", "ns-engines").create().unwrap();
        let member = Arc::new(member);
        let producer: BaseProducer<Context> = config
            .set("transactional.id", "ns-0")
            .set("delivery.report.only.error", "false")
            .create_with_context(Context::default())
            .unwrap();
        producer.init_transactions(Duration::from_secs(20)).unwrap();
        let (asked, unwanted) = (Arc::clone(&member), Arc::new(AtomicBool::new(false)));
        let parts = KafkaLogParts {
            shard: ShardId(0),
            events: (EVENTS.to_owned(), 0),
            requests: Some(REQUESTS.to_owned()),
            group: Arc::new(move || asked.group_metadata()),
            form: Form::Json,
            retry_for: RETRY_FOR,
            unwanted: Arc::clone(&unwanted),
            copy: Box::new(MemoryLog::new()),
        };
        let log = Box::new(KafkaLog::new(parts, producer, 0));
        Ground { mock, log, unwanted, blocks: blocks(), _member: member }
    }

    /// Writes and commits one of the blocks.
    fn write(&mut self, index: usize) -> Result<(), LogError> {
        self.log.append(&self.blocks[index]).and_then(|()| self.log.sync())
    }

    /// The values of all messages of a topic.
    fn all(&self, topic: &str) -> Vec<Option<Vec<u8>>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.mock.bootstrap_servers()).set("group.id", "test");
        config.set("isolation.level", "read_uncommitted").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let next = || consumer.poll(Duration::from_secs(20)).expect("the mock answers").ok();
        std::iter::from_fn(next).map(|message| message.payload().map(<[u8]>::to_vec)).collect()
    }

    fn errors(&self, api: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.mock.request_errors(api, errors);
    }
}

/// Two blocks, the second one with a new place in the requests.
fn blocks() -> [SealedBlock; 2] {
    let mut shard = Shard::new(ShardId(0), State::default());
    let mut tell = |command: Command<'_>, previous: Hash| {
        let (mut answers, mut sink) = (Vec::new(), |_: &Envelope<'_>, _: &State| {});
        shard.batch(Timestamp(1_000_000), &[command], &mut answers, &mut sink);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        shard.take_open().unwrap().seal(previous)
    };
    let first = tell(Command::Open { rules: RuleVersions::CURRENT, writer: "test" }, Hash::ZERO);
    let second = tell(Command::MoveSource { from: Some(0), next: 7 }, first.hash);
    [first, second]
}

#[test]
fn a_commit_reaches_the_copy() {
    let mut ground = Ground::new();
    ground.write(0).unwrap();
    ground.write(1).unwrap();
    assert_eq!(ground.log.head().next, ground.blocks[1].header.next_position());
}

#[test]
fn what_may_be_tried_again_is_tried_again() {
    use RDKafkaRespErr as Error;
    for (api, errors) in [
        (
            RDKafkaApiKey::EndTxn,
            [Error::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, Error::RD_KAFKA_RESP_ERR_NOT_COORDINATOR],
        ),
        (
            RDKafkaApiKey::TxnOffsetCommit,
            [Error::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, Error::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID],
        ),
        (
            RDKafkaApiKey::Produce,
            [Error::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Error::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS],
        ),
    ] {
        let mut ground = Ground::new();
        ground.write(0).unwrap();
        ground.errors(api, &errors);
        ground.write(1).unwrap_or_else(|error| panic!("{api:?}: {error}"));
    }
}

#[test]
fn a_message_that_fails_is_not_waited_for_and_sent_again_with_all_others() {
    let mut ground = Ground::new();
    ground.write(0).unwrap();
    ground.errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let began = Instant::now();
    ground.write(1).unwrap();
    assert!(began.elapsed() < RETRY_FOR / 2, "{:?}", began.elapsed());
}

/// Brokers that forgot to end the first transaction among the letters would commit its letter with the second one's.
#[test]
fn messages_that_were_given_up_are_ended_once_more_before_they_are_sent_again() {
    let mut ground = Ground::new();
    ground.write(0).unwrap();
    let letter = Outgoing {
        topic: LETTERS.to_owned(),
        partition: Some(0),
        key: None,
        headers: Vec::new(),
        value: Some(b"a letter".to_vec()),
    };
    ground.log.send(letter);
    ground.errors(RDKafkaApiKey::TxnOffsetCommit, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION]);
    ground.write(1).unwrap();
    // The mock shows what was given up, too. The first letter may not have left before the offsets were refused.
    let there: Vec<_> = ground.all(LETTERS).into_iter().map(|value| value.is_some()).collect();
    assert!(
        there.ends_with(&[false, true]) && there.len() <= 3,
        "an empty message is given up before the second letter: {there:?}"
    );
}

#[test]
fn a_fenced_writer_steps_down_for_good() {
    for api in [RDKafkaApiKey::AddPartitionsToTxn, RDKafkaApiKey::EndTxn] {
        let mut ground = Ground::new();
        ground.write(0).unwrap();
        ground.errors(api, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
        let error = ground.write(1).unwrap_err();
        assert!(matches!(error, LogError::Fenced { shard: ShardId(0), .. }), "{api:?}: {error}");
        assert!(matches!(ground.log.sync(), Err(LogError::Poisoned { .. })));
    }
}

#[test]
fn a_client_that_is_stuck_is_left_behind() {
    let mut ground = Ground::new();
    ground.write(0).unwrap();
    // The client knows its group's coordinator from now on, and then waits for it whatever it was told.
    ground.errors(RDKafkaApiKey::TxnOffsetCommit, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS]);
    ground.mock.broker_down(2).unwrap();
    let began = Instant::now();
    let error = ground.write(1).unwrap_err();
    assert!(matches!(error, LogError::Kafka { .. }), "{error}");
    assert!(error.to_string().contains("did not answer"), "{error}");
    assert!(began.elapsed() < RETRY_FOR, "{:?}", began.elapsed());
    let began = Instant::now();
    let _ = ground.log.close();
    assert!(began.elapsed() < Duration::from_secs(1), "closing took {:?}", began.elapsed());
}

#[test]
fn a_writer_that_is_no_longer_wanted_stops_trying() {
    let mut ground = Ground::new();
    ground.write(0).unwrap();
    ground.unwanted.store(true, Ordering::Relaxed);
    ground.errors(RDKafkaApiKey::TxnOffsetCommit, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID]);
    let began = Instant::now();
    ground.write(1).unwrap_err();
    assert!(began.elapsed() < RETRY_FOR / 2, "{:?}", began.elapsed());
}
