//! `ergate kafka init` and `ergate kafka doctor` against real brokers: what they create, what they find, and that they break nothing.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
#[path = "support/kafka/mod.rs"]
mod kafka;

use std::collections::BTreeMap;
use std::time::Duration;

use command::{Ended, ergate, run, until};
use ergate::kafka::{Namespace, Topic};
use kafka::{Cluster, Options, namespace, shared};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn create(bootstrap: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let topic =
        settings.iter().fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |topic, (k, v)| topic.set(k, v));
    let made = block_on(admin(bootstrap).create_topics(&[topic], &AdminOptions::new().operation_timeout(Some(PATIENCE))));
    assert!(made.unwrap()[0].is_ok());
}

fn settings(bootstrap: &str, topic: &str) -> BTreeMap<String, String> {
    let asked = block_on(admin(bootstrap).describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()));
    let found = asked.unwrap().pop().unwrap().unwrap();
    found.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

fn consumer(bootstrap: &str) -> BaseConsumer {
    ClientConfig::new().set("bootstrap.servers", bootstrap).set("group.id", "test").create().unwrap()
}

/// The partitions of every topic of a namespace, by the topic's name.
fn partitions(bootstrap: &str, namespace: &str) -> BTreeMap<String, usize> {
    let metadata = consumer(bootstrap).client().fetch_metadata(None, PATIENCE).unwrap();
    let ours = metadata.topics().iter().filter_map(|topic| {
        let name = topic.name().strip_prefix(namespace)?.strip_prefix('.')?;
        Some((name.to_owned(), topic.partitions().len()))
    });
    ours.collect()
}

/// A log's address in a namespace of its own.
fn log(bootstrap: &str, test: &str) -> (String, String) {
    let namespace = namespace(test);
    (format!("kafka://{bootstrap}/{namespace}"), namespace)
}

fn init(log: &str, more: &[&str]) -> Ended {
    run(&[&["kafka", "init", "--log", log, "-o", "json"], more].concat())
}

fn doctor(log: &str) -> Ended {
    run(&["kafka", "doctor", "--log", log, "-o", "json"])
}

/// The row of one topic.
fn topic(ended: &Ended, name: &str) -> Value {
    let end = format!(".{name}");
    ended.json_lines().into_iter().find(|row| row["topic"].as_str().unwrap().ends_with(&end)).unwrap()
}

/// The verdict of one check and what it found, with the advice.
#[track_caller]
fn check(ended: &Ended, name: &str) -> (String, String) {
    let row = ended.json_lines().into_iter().find(|row| row["check"] == name);
    let row = row.unwrap_or_else(|| panic!("no check {name}: {ended:#?}"));
    (row["verdict"].as_str().unwrap().to_owned(), format!("{} {}", row["found"], row["advice"]))
}

#[track_caller]
fn expect_check(ended: &Ended, name: &str, verdict: &str, words: &[&str]) {
    let (found, text) = check(ended, name);
    assert_eq!(found, verdict, "{name}: {text}");
    words.iter().for_each(|word| assert!(text.contains(word), "{word:?} is not in {name}: {text}"));
}

#[test]
fn a_namespace_is_created_once_with_everything_that_it_needs() {
    let Some(kafka) = shared() else { return };
    let (log, ns) = log(kafka.bootstrap(), "fresh");
    let dry = init(&log, &["--partitions", "4", "--dry-run"]).expect(0);
    assert_eq!(topic(&dry, "events")["action"], "would_create");
    assert!(partitions(kafka.bootstrap(), &ns).is_empty());
    let made = init(&log, &["--partitions", "4"]).expect(0);
    assert_eq!(made.json_lines().len(), 6);
    assert_eq!(topic(&made, "events")["settings"]["max.message.bytes"], "8388608");
    let expected = [("capacity", 1), ("dlq", 4), ("events", 4), ("requests", 4), ("results", 4), ("snapshots", 4)];
    assert_eq!(partitions(kafka.bootstrap(), &ns), expected.map(|(name, count)| (name.to_owned(), count)).into());
    let namespace: Namespace = ns.parse().unwrap();
    for topic in Topic::ALL {
        let found = settings(kafka.bootstrap(), &namespace.topic(topic));
        for wanted in topic.wanted(1) {
            assert_eq!(found[wanted.name], wanted.value, "{topic}: {}", wanted.name);
        }
    }
    let again = init(&log, &["--partitions", "4"]).expect(0);
    assert!(
        again.json_lines().iter().all(|row| row["action"] == "kept" && row["differences"] == serde_json::json!([])),
        "{again:?}"
    );
    let table = run(&["kafka", "init", "--log", &log, "--partitions", "4"]).expect(0);
    assert!(table.out.contains(&format!("{ns}.events")) && table.out.contains("is there"), "{}", table.out);
}

#[test]
fn every_difference_is_named_and_only_settings_are_changed_and_only_on_request() {
    let Some(kafka) = shared() else { return };
    let (log, ns) = log(kafka.bootstrap(), "other");
    let (events, snapshots) = (format!("{ns}.events"), format!("{ns}.snapshots"));
    let odd = [("retention.ms", "3600000"), ("max.message.bytes", "1000000"), ("flush.messages", "7"), ("segment.ms", "60000")];
    create(kafka.bootstrap(), &events, 2, &odd);
    create(kafka.bootstrap(), &snapshots, 4, &[("retention.ms", "3600000")]);
    let before = (settings(kafka.bootstrap(), &events), settings(kafka.bootstrap(), &snapshots));
    let now = || (settings(kafka.bootstrap(), &events), settings(kafka.bootstrap(), &snapshots));

    let found = init(&log, &["--partitions", "4"]).expect(1);
    assert!(found.err.contains("nothing was changed") && found.err.contains("--fix changes"), "{}", found.err);
    let differences = topic(&found, "events")["differences"].as_array().unwrap().clone();
    let difference = |what: &str| differences.iter().find(|difference| difference["what"] == what).unwrap().clone();
    assert_eq!((&difference("partitions")["found"], &difference("partitions")["expected"]), (&"2".into(), &"4".into()));
    assert!(difference("partitions")["fix"].is_null() && difference("partitions")["why"].as_str().unwrap().contains("chains"));
    assert_eq!((&difference("retention.ms")["found"], &difference("retention.ms")["fix"]), (&"3600000".into(), &"-1".into()));
    assert_eq!(difference("max.message.bytes")["expected"], "at least 8388608");
    assert_eq!(topic(&found, "snapshots")["differences"][0]["what"], "cleanup.policy");
    assert_eq!(topic(&found, "requests")["action"], "created");
    assert_eq!(now(), before);

    let dry = init(&log, &["--partitions", "4", "--fix", "--dry-run"]).expect(1);
    assert_eq!(topic(&dry, "events")["action"], "would_fix");
    assert_eq!(now(), before);

    let fixed = init(&log, &["--partitions", "4", "--fix"]).expect(1);
    assert_eq!(topic(&fixed, "events")["action"], "fixed");
    assert_eq!(topic(&fixed, "events")["differences"].as_array().unwrap().len(), 1);
    assert!(fixed.err.contains("1 difference, which --fix does not change"), "{}", fixed.err);
    let (events, snapshots) = now();
    assert_eq!((events["retention.ms"].as_str(), events["max.message.bytes"].as_str()), ("-1", "8388608"));
    // What was set besides is still set.
    assert_eq!((events["flush.messages"].as_str(), events["segment.ms"].as_str()), ("7", "60000"));
    assert_eq!((snapshots["cleanup.policy"].as_str(), snapshots["retention.ms"].as_str()), ("compact", "3600000"));
    init(&log, &["--partitions", "2"]).expect(1);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    let Some(kafka) = shared() else { return };
    let (log, ns) = log(kafka.bootstrap(), "wrong");
    let refused = |ended: Ended, code: i32, words: &[&str]| {
        let ended = ended.expect(code);
        words.iter().for_each(|word| assert!(ended.err.contains(word), "{word:?} is not in {}", ended.err));
        assert!(!ended.err.contains("hunter2"), "{}", ended.err);
    };
    refused(init(&log, &["--replication", "2"]), 2, &["--replication 2 needs as many brokers, and there are 1"]);
    refused(init(&log, &["--partitions", "0"]), 2, &["--partitions"]);
    refused(init("kafka://h:9092", &[]), 2, &["kafka://h:9092/ergate"]);
    refused(init("kafka://me:hunter2@h/ns", &[]), 2, &["sasl.password"]);
    refused(init("kafka://127.0.0.1:1/ns", &[]), 1, &["no broker of 127.0.0.1:1 answers"]);
    let with = |name: &str, value: &str| {
        Ended::of(
            &ergate(&["kafka", "init", "--log", &log]).env(format!("ERGATE_KAFKA__OPTIONS__{name}"), value).output().unwrap(),
        )
    };
    refused(with("ISOLATION__LEVEL", "read_uncommitted"), 2, &["`kafka.options.isolation.level` is refused", "took back"]);
    refused(with("GROUP__ID", "mine"), 2, &["ERGATE_KAFKA__OPTIONS__GROUP__ID", "owning the shard"]);
    refused(with("NO__SUCH", "hunter2"), 1, &["No such configuration property", "no.such"]);
    assert!(partitions(kafka.bootstrap(), &ns).is_empty());
}

#[test]
fn a_healthy_log_is_found_healthy_and_nothing_is_written_to_it() {
    let Some(kafka) = shared() else { return };
    let (log, ns) = log(kafka.bootstrap(), "healthy");
    let missing = doctor(&log).expect(1);
    expect_check(&missing, "requests", "fail", &["is not there", "ergate kafka init"]);
    expect_check(&missing, "writing", "warn", &["not tried"]);
    expect_check(&missing, "connection", "ok", &["1 broker"]);
    init(&log, &["--partitions", "2"]).expect(0);
    let looked = doctor(&log).expect(0);
    for name in ["requests", "events", "snapshots", "capacity", "dlq", "results"] {
        expect_check(&looked, name, "ok", &["1 replica"]);
    }
    for name in ["connection", "brokers", "broker settings", "transactions", "reading", "writing", "group", "clock"] {
        expect_check(&looked, name, "ok", &[]);
    }
    expect_check(&looked, "clock", "ok", &["within"]);
    expect_check(&looked, "replicas", "warn", &["1 of each", "use 3"]);
    expect_check(&looked, "session timeout", "ok", &["6000 ms", "allow 6000 to"]);
    expect_check(&looked, "transaction timeout", "ok", &["10000 ms", "900000"]);
    let namespace: Namespace = ns.parse().unwrap();
    for topic in Topic::ALL {
        for partition in 0..if topic == Topic::Capacity { 1 } else { 2 } {
            let ends = consumer(kafka.bootstrap()).fetch_watermarks(&namespace.topic(topic), partition, PATIENCE);
            assert_eq!(ends.unwrap(), (0, 0), "{topic}");
        }
    }
    let table = run(&["kafka", "doctor", "--log", &log]).expect(0);
    assert!(table.out.contains("CHECK") && table.out.contains("WARN"), "{}", table.out);
    let low = ergate(&["kafka", "doctor", "--log", &log, "-o", "json"])
        .env("ERGATE_KAFKA__SESSION_TIMEOUT", "3s")
        .env("ERGATE_KAFKA__OPTIONS__TRANSACTION__TIMEOUT__MS", "1000000")
        .output();
    let low = Ended::of(&low.unwrap()).expect(1);
    expect_check(&low, "session timeout", "fail", &["3000 ms", "kafka.session_timeout"]);
    expect_check(&low, "transaction timeout", "fail", &["1000000 ms"]);
    expect_check(&low, "transactions", "fail", &["kafka.transaction_timeout"]);
}

#[test]
fn a_broker_that_is_away_is_seen_in_the_replicas() {
    let Some(kafka) = Cluster::start(Options { brokers: 3, ..Options::default() }) else { return };
    let (log, ns) = log(kafka.bootstrap(), "three");
    let made = init(&log, &["--partitions", "3"]).expect(0);
    assert_eq!(topic(&made, "events")["replication"], 3);
    assert_eq!(settings(kafka.bootstrap(), &format!("{ns}.events"))["min.insync.replicas"], "2");
    // Two copies are not demanded where there is only one: nobody could write there any more.
    let (lean, lean_ns) = self::log(kafka.bootstrap(), "lean");
    create(kafka.bootstrap(), &format!("{lean_ns}.dlq"), 3, &[]);
    let fixed = init(&lean, &["--partitions", "3", "--replication", "3", "--fix"]).expect(1);
    assert!(fixed.err.contains("1 difference"), "{fixed:#?}");
    assert_eq!(topic(&fixed, "dlq")["differences"][0]["what"], "replication");
    assert_eq!(settings(kafka.bootstrap(), &format!("{lean_ns}.dlq"))["min.insync.replicas"], "1");
    until("every broker knows every topic", || doctor(&log).code == Some(0));
    let whole = doctor(&log).expect(0);
    expect_check(&whole, "replicas", "ok", &["at least 3 of each"]);
    expect_check(&whole, "Kafka's own", "ok", &["__transaction_state has 3 replicas"]);
    kafka.kill(2);
    // Until its session is over, brokers still send clients to it.
    let incomplete = |row: &Value| row["check"] == "replicas" && row["verdict"] == "warn";
    let mut seen = None;
    until("the killed broker is seen to be away", || {
        seen = Some(doctor(&log)).filter(|ended| ended.json_lines().iter().any(incomplete));
        seen.is_some()
    });
    expect_check(&seen.unwrap(), "replicas", "warn", &["incomplete", ".events 0,1,2"]);
}

#[cfg(feature = "kafka-ssl")]
#[test]
fn who_may_do_what_is_told_and_no_secret_is() {
    let properties = vec![
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        ("super.users", format!("User:ANONYMOUS;User:{}", kafka::USER)),
    ];
    let Some(kafka) = Cluster::start(Options { secure: true, properties, ..Options::default() }) else { return };
    let (log, ns) = log(kafka.secure_bootstrap(), "guarded");
    let dir = tempfile::tempdir().unwrap();
    let (secret, file) = (dir.path().join("password"), dir.path().join("ergate.toml"));
    std::fs::write(&secret, format!("{}\n", kafka::PASSWORD)).unwrap();
    let write = |user: &str, reference: &str| {
        let text = format!(
            "[kafka.options]\nsecurity.protocol = \"SASL_SSL\"\nsasl.mechanism = \"SCRAM-SHA-256\"\nssl.ca.location = {:?}\n\
             sasl.username = {user:?}\nsasl.password = {reference}\n",
            kafka.certificate()
        );
        std::fs::write(&file, text).unwrap();
    };
    let ask = |verb: &[&str], password: &str| {
        let args = [verb, &["--config", file.to_str().unwrap(), "-o", "json"]].concat();
        let ended = Ended::of(&ergate(&args).env("MY_PASSWORD", password).output().unwrap());
        assert!(!format!("{ended:?}").contains(kafka::PASSWORD) && !format!("{ended:?}").contains("hunter2"), "{ended:#?}");
        ended
    };
    let (init, doctor) = (["kafka", "init", "--log", &log, "--partitions", "2"], ["kafka", "doctor", "--log", &log]);

    write(kafka::USER, &format!("{{ file = {secret:?} }}"));
    ask(&init, "").expect(0);
    let healthy = ask(&doctor, "").expect(0);
    ["transactions", "reading", "writing", "group", "clock"].iter().for_each(|name| expect_check(&healthy, name, "ok", &[]));
    let shown = ask(&["config", "show"], "").expect(0);
    assert!(shown.out.contains("kafka.options.sasl.password") && shown.out.contains("file ="), "{}", shown.out);

    write(kafka::USER, "{ env = \"MY_PASSWORD\" }");
    let wrong = ask(&doctor, "hunter2").expect(1);
    expect_check(&wrong, "connection", "fail", &["Authentication failed", "user and password"]);
    let refused = ask(&init, "hunter2").expect(1);
    assert!(refused.err.contains("Authentication failed"), "{}", refused.err);

    write(kafka::STRANGER, "{ env = \"MY_PASSWORD\" }");
    let blind = ask(&doctor, kafka::PASSWORD).expect(1);
    expect_check(&blind, "requests", "fail", &["may not see it", "grant Describe"]);
    expect_check(&blind, "transactions", "fail", &["Transactional Id authorization failed", "grant Write"]);
    expect_check(&blind, "group", "fail", &["grant Read and Describe on the group"]);
    let denied = ask(&init, kafka::PASSWORD).expect(1);
    assert!(denied.err.contains("were not created") && denied.err.contains("authorization failed"), "{}", denied.err);

    let topics = ["--topic", &format!("{ns}."), "--resource-pattern-type", "prefixed"];
    kafka.allow(kafka::STRANGER, &[&["--operation", "Describe"], &topics[..]].concat());
    let seeing = ask(&doctor, kafka::PASSWORD).expect(1);
    expect_check(&seeing, "requests", "warn", &["its settings cannot be read", "grant DescribeConfigs"]);
    expect_check(&seeing, "broker settings", "warn", &["0 of 1 brokers"]);
    expect_check(&seeing, "reading", "fail", &["events", "opic authorization failed", "grant Read"]);
    expect_check(&seeing, "writing", "fail", &["dlq", "opic authorization failed", "grant Write"]);
    expect_check(&seeing, "clock", "warn", &["not known"]);
    let every = [["--operation", "Read"], ["--operation", "Write"]].concat();
    kafka.allow(kafka::STRANGER, &[&every, &topics[..]].concat());
    kafka.allow(kafka::STRANGER, &["--operation", "Read", "--group", &ns, "--resource-pattern-type", "prefixed"]);
    let ids = ["--transactional-id", &ns, "--resource-pattern-type", "prefixed"];
    kafka.allow(kafka::STRANGER, &[&["--operation", "Write", "--operation", "Describe"], &ids[..]].concat());
    // All that engines need, and no more; the clock and the settings stay unknown.
    let engine = ask(&doctor, kafka::PASSWORD).expect(0);
    ["transactions", "reading", "writing", "group"].iter().for_each(|name| expect_check(&engine, name, "ok", &[]));
    expect_check(&engine, "clock", "warn", &["grant Read and Describe on it"]);

    write(kafka::USER, &format!("{{ file = {:?} }}", dir.path().join("none")));
    let unread = ask(&doctor, "").expect(1);
    assert!(unread.err.contains("failed to read") && unread.err.contains("sasl.password"), "{}", unread.err);
}
