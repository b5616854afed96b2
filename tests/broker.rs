//! The brokers of the tests themselves: they are real ones, they survive what is done to them, and they leave nothing behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/kafka/mod.rs"]
mod kafka;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kafka::{Cluster, Options, namespace, shared};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};

/// How long anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("allow.auto.create.topics", "false");
    // By default a client waits up to 10 s before it tries a broker again that was away.
    config.set("reconnect.backoff.max.ms", "200");
    config
}

fn create(bootstrap: &str, topic: &str, replicas: i32) {
    let admin: AdminClient<DefaultClientContext> = client(bootstrap).create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let topics = [NewTopic::new(topic, 1, TopicReplication::Fixed(replicas))];
    let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
    assert_eq!(made, [Ok(topic.to_owned())]);
}

fn producer(bootstrap: &str, id: &str) -> BaseProducer {
    let producer: BaseProducer = client(bootstrap).set("transactional.id", id).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, value: &str) {
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::<(), str>::to(topic).payload(value)).map_err(|(error, _)| error).unwrap();
}

/// All that readers see from outside a transaction.
fn committed(bootstrap: &str, topic: &str) -> Vec<String> {
    let mut config = client(bootstrap);
    config.set("group.id", "reader").set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let (mut values, started) = (Vec::new(), Instant::now());
    loop {
        assert!(started.elapsed() < PATIENCE, "the end of {topic} is never reached: {values:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
            Some(Err(KafkaError::PartitionEOF(_))) => return values,
            // A broker that is away for a moment.
            Some(Err(_)) | None => {}
        }
    }
}

#[test]
fn what_is_committed_can_be_read_and_what_is_aborted_cannot() {
    let Some(kafka) = shared() else { return };
    let topic = namespace("transactions");
    create(kafka.bootstrap(), &topic, 1);
    let producer = producer(kafka.bootstrap(), &topic);
    send(&producer, &topic, "first");
    producer.commit_transaction(Timeout::Never).unwrap();
    send(&producer, &topic, "regretted");
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
    send(&producer, &topic, "second");
    producer.commit_transaction(Timeout::Never).unwrap();
    assert_eq!(committed(kafka.bootstrap(), &topic), ["first", "second"]);
}

#[test]
fn a_killed_broker_comes_back_with_what_it_had() {
    let Some(kafka) = Cluster::start(Options::default()) else { return };
    create(kafka.bootstrap(), "kept", 1);
    let producer = producer(kafka.bootstrap(), "kept");
    send(&producer, "kept", "before");
    producer.commit_transaction(Timeout::Never).unwrap();
    kafka.kill(0);
    assert!(kafka.pids().is_empty());
    kafka.start_again(0);
    send(&producer, "kept", "after");
    producer.commit_transaction(Timeout::Never).unwrap();
    kafka.stop(0);
    kafka.start_again(0);
    assert_eq!(committed(kafka.bootstrap(), "kept"), ["before", "after"]);
    assert!(kafka.data_dir(0).join("kept-0").is_dir());
}

#[test]
fn time_stops_for_a_paused_broker_and_a_network_can_be_cut() {
    let Some(kafka) = Cluster::start(Options { routes: 1, ..Options::default() }) else { return };
    let (near, route) = (kafka.bootstrap(), kafka.route(0));
    create(near, "way", 1);
    let reaches = |bootstrap: &str| {
        let consumer: BaseConsumer = client(bootstrap).set("group.id", "any").create().unwrap();
        consumer.client().fetch_metadata(Some("way"), Duration::from_secs(1)).is_ok()
    };
    // Whoever comes through the proxy is sent to the proxy.
    let producer = producer(route.bootstrap(), "way");
    let metadata = producer.client().fetch_metadata(Some("way"), PATIENCE).unwrap();
    assert_eq!(metadata.brokers()[0].port(), i32::from(route.proxy(0).address().port()));
    for disturb in [kafka::proxy::Proxy::cut, kafka::proxy::Proxy::black_hole, kafka::proxy::Proxy::hold_answers] {
        route.each(disturb);
        assert!(!reaches(route.bootstrap()));
        assert!(reaches(near));
        route.each(kafka::proxy::Proxy::restore);
        assert!(reaches(route.bootstrap()));
    }
    route.each(|proxy| proxy.delay(Duration::from_millis(100)));
    let started = Instant::now();
    send(&producer, "way", "slow");
    producer.commit_transaction(Timeout::Never).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    kafka.pause(0);
    assert!(!reaches(near));
    kafka.resume(0);
    assert!(reaches(near));
    assert_eq!(committed(near, "way"), ["slow"]);
}

#[test]
fn three_brokers_go_on_as_two() {
    let Some(kafka) = Cluster::start(Options { brokers: 3, ..Options::default() }) else { return };
    create(kafka.bootstrap(), "three", 3);
    let producer = producer(kafka.bootstrap(), "three");
    send(&producer, "three", "all");
    producer.commit_transaction(Timeout::Never).unwrap();
    let metadata = producer.client().fetch_metadata(Some("three"), PATIENCE).unwrap();
    let leader = metadata.topics()[0].partitions()[0].leader();
    kafka.kill(u32::try_from(leader).unwrap());
    send(&producer, "three", "two");
    producer.commit_transaction(Timeout::Never).unwrap();
    assert_eq!(committed(kafka.bootstrap(), "three"), ["all", "two"]);
}

#[cfg(feature = "kafka-ssl")]
#[test]
fn a_password_is_asked_for_behind_tls() {
    let Some(kafka) = Cluster::start(Options { secure: true, ..Options::default() }) else { return };
    let ask = |mechanism: &str, password: &str| {
        let mut config = client(kafka.secure_bootstrap());
        config.set("security.protocol", "SASL_SSL").set("ssl.ca.location", kafka.certificate().to_str().unwrap());
        config.set("sasl.mechanism", mechanism).set("sasl.username", kafka::USER).set("sasl.password", password);
        let consumer: BaseConsumer = config.set("group.id", "any").create().unwrap();
        let answer = consumer.client().fetch_metadata(None, Duration::from_secs(3)).map(|metadata| metadata.brokers().len());
        let said = || consumer.poll(Duration::from_secs(1)).and_then(Result::err);
        let refused = std::iter::repeat_with(said).take(5).flatten().find_map(|error| error.rdkafka_error_code());
        (answer, refused)
    };
    for mechanism in ["SCRAM-SHA-256", "PLAIN"] {
        assert_eq!(ask(mechanism, kafka::PASSWORD).0, Ok(1), "{mechanism}");
        let (answer, refused) = ask(mechanism, "guessed");
        assert!(answer.is_err(), "{mechanism}");
        assert_eq!(refused, Some(RDKafkaErrorCode::Authentication), "{mechanism}");
    }
}

/// Not a test: a process that starts a broker, says so, and waits for its end.
#[test]
fn child() {
    if std::env::var_os("ERGATE_TEST_ROLE").is_none() {
        return;
    }
    let kafka = shared().expect("the parent has one");
    let line = format!("@{} {}\n", kafka.pids()[0], kafka.data_dir(0).display());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    std::thread::sleep(PATIENCE);
}

#[test]
fn nothing_is_left_of_a_test_that_was_killed() {
    if kafka::required().is_none() {
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["child", "--exact", "--nocapture"]).env("ERGATE_TEST_ROLE", "child");
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.starts_with('@')).unwrap();
    let (pid, dir) = line[1..].split_once(' ').unwrap();
    let (process, dir) = (Path::new("/proc").join(pid), Path::new(dir));
    assert!(process.exists() && dir.exists());
    // All of its process group at once, as a terminal or a supervisor does.
    let group = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    child.wait().unwrap();
    let started = Instant::now();
    while process.exists() || dir.exists() {
        assert!(started.elapsed() < PATIENCE, "{line} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}
