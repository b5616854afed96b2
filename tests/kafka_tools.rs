//! The verbs that look at a log on Kafka, against a real broker with real engines: they say what they say of the same log in a directory,
//! and they find what is wrong with one.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and a measurement says what it found")]

#[path = "support/command.rs"]
mod command;
#[path = "support/kafka/mod.rs"]
mod kafka;
#[path = "support/kafka_log.rs"]
mod kafka_log;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use command::{run, signal, until};
use ergate::events::id::{Position, ShardId};
use ergate::events::log::Span;
use ergate::events::log::kafka::{KafkaReader, Watermarks};
use kafka::{Cluster, Options, shared};
use kafka_log::{Namespace, as_bytes, copied, forged};
use rdkafka::config::ClientConfig;
use serde_json::Value;

/// A namespace of two shards in which so many tasks of `noop` were done and one record was refused, its engine gone.
fn worked(name: &str, bootstrap: &str, tasks: usize) -> Namespace {
    let namespace = Namespace::new(name, bootstrap, 2);
    let engine = namespace.engine();
    (0..tasks).for_each(|task| namespace.publish(i32::try_from(task % 2).unwrap(), &format!("k{task}"), br#"{"type":"noop"}"#));
    namespace.publish(1, "bad", b"{\"type\":\"noop\",\"colour\":\"r\xc3\xa9d\"}");
    namespace.until_done();
    engine.stop();
    namespace
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_log_on_kafka_is_audited_like_the_copy_of_it_in_a_directory() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("audit", kafka.bootstrap(), 20);
    let log = namespace.log();
    let ask = |args: &[&str]| run(&[args, &["--log", &log, "-o", "json"]].concat()).expect(0);
    for decisions in [&["log", "verify"][..], &["log", "verify", "--decisions"]] {
        let verified = ask(decisions).json();
        assert_eq!((&verified["ok"], &verified["repeated"]), (&true.into(), &0.into()));
        let shards = verified["shards"].as_array().unwrap();
        let names: Vec<_> = shards.iter().map(|shard| shard["shard"].as_str().unwrap()).collect();
        assert_eq!(names, ["0", "1", "capacity"]);
        let events: u64 = shards.iter().map(|shard| shard["events"].as_u64().unwrap()).sum();
        assert_eq!(verified["events"], events);
        assert!(events > 60, "20 tasks were requested, started and done");
    }
    let verified = ask(&["log", "verify"]).json();
    for (index, shard) in ["0", "1", "capacity"].into_iter().enumerate() {
        let copy = namespace.copy(shard);
        let local = run(&["log", "verify", "-o", "json", "--data", &copy]).expect(0).json();
        let there = &verified["shards"][index];
        for field in ["head", "head_hash", "state_digest", "events", "blocks"] {
            assert_eq!(there[field], local[field], "{field} of shard {shard}");
        }
        for args in [&["log", "export", "--format", "blocks"][..], &["log", "export", "--format", "cloudevents"]] {
            let from_topic = run(&[args, &["--log", &log, "--shard", shard]].concat()).expect(0).out;
            assert_eq!(from_topic, run(&[args, &["--data", &copy]].concat()).expect(0).out, "shard {shard}");
        }
        let replayed = run(&["replay", "-o", "json", "--log", &log, "--shard", shard]).expect(0).json();
        assert_eq!(replayed["digest"], there["state_digest"]);
        assert_eq!(replayed, run(&["replay", "-o", "json", "--data", &copy]).expect(0).json());
    }
    // All shards one after the other, each event with its shard.
    let exported = lines(&ask(&["log", "export"]).out);
    assert_eq!(exported.len() as u64, verified["events"].as_u64().unwrap());
    let mut shards: Vec<_> = exported.iter().map(|event| event["shard"].as_str().unwrap()).collect();
    shards.dedup();
    assert_eq!(shards, ["0", "1", "capacity"]);
    assert_eq!(ask(&["replay"]).json_lines().len(), 3);
    run(&["replay", "--until", "4", "--log", &log]).expect(2);
    run(&["log", "export", "--from", "4", "--log", &log]).expect(2);
    run(&["log", "show", "4", "--shard", "2", "--log", &log]).expect(6);
}

#[test]
fn the_newest_events_of_all_shards_and_single_ones_are_shown_with_their_shard() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("looks", kafka.bootstrap(), 6);
    let log = namespace.log();
    let newest = run(&["log", "tail", "-n", "8", "-o", "json", "--log", &log]).expect(0).json_lines();
    assert_eq!(newest.len(), 8);
    let times: Vec<_> = newest.iter().map(|event| event["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let from =
        run(&["log", "tail", "--from", "2", "-n", "3", "--shard", "1", "-o", "json", "--log", &log]).expect(0).json_lines();
    assert_eq!(from.iter().map(|event| event["position"].as_str().unwrap()).collect::<Vec<_>>(), ["2", "3", "4"]);
    run(&["log", "tail", "--from", "2", "--log", &log]).expect(2);
    let shown = run(&["log", "show", "0", "-o", "json", "--log", &log]).expect(0).json_lines();
    let shards: Vec<_> = shown.iter().map(|event| event["block"]["shard"].as_str().unwrap()).collect();
    assert_eq!(shards, ["0", "1", "capacity"], "each has an event at position 0");
    run(&["log", "show", "99999", "--log", &log]).expect(6);
    // The id of a task names its shard.
    let task = run(&["task", "show", "1-0", "-o", "json", "--log", &log]).expect(0).json();
    assert_eq!((&task["task"], &task["outcome"]), (&"1-0".into(), &"SUCCEEDED".into()));
    assert!(run(&["task", "history", "1-0", "-o", "json", "--log", &log]).expect(0).json_lines().len() >= 3);
    let list = run(&["task", "list", "--shard", "1", "-o", "json", "--log", &log]).expect(0).json_lines();
    assert!(list.len() == 3 && list.iter().all(|task| task["task"].as_str().unwrap().starts_with("1-")));
    run(&["task", "show", "1-77", "--log", &log]).expect(6);
    run(&["task", "list", "--log", &log]).expect(2);
}

#[test]
fn work_and_capacity_are_shown_in_one_order() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("causal", kafka.bootstrap(), 6);
    let shown = run(&["log", "show", "--causal", "-o", "json", "--log", &namespace.log()]).expect(0).json_lines();
    let verified = run(&["log", "verify", "-o", "json", "--log", &namespace.log()]).expect(0).json();
    assert_eq!(verified["events"], shown.len());
    let mut next: BTreeMap<&str, u64> = BTreeMap::new();
    for event in &shown {
        let position: u64 = event["position"].as_str().unwrap().parse().unwrap();
        let next = next.entry(event["shard"].as_str().unwrap()).or_default();
        assert_eq!(position, *next, "the order of a log is kept");
        *next += 1;
    }
    assert_eq!(run(&["log", "show", "--causal", "--count", "5", "--log", &namespace.log()]).expect(0).out.lines().count(), 5);
    let from = shown[10]["time"].as_str().unwrap();
    let rest = run(&["log", "show", "--causal", "--from", from, "-o", "json", "--log", &namespace.log()]).expect(0).json_lines();
    assert!(rest.len() < shown.len() && rest.iter().all(|event| event["time"].as_str().unwrap() >= from));
}

/// Offset of the first block: before it lie what its owner gave up at first, and the marker of that.
const FIRST: i64 = 2;

#[test]
fn verify_skips_what_is_there_twice_and_names_what_contradicts() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("contradiction", kafka.bootstrap(), 6);
    let log = namespace.log();
    let before = run(&["log", "verify", "-o", "json", "--log", &log]).expect(0).json();
    copied(&namespace, 1, 0);
    let after = run(&["log", "verify", "-o", "json", "--log", &log]).expect(0).json();
    assert_eq!((&after["repeated"], &after["shards"][1]["repeated"]), (&1.into(), &1.into()));
    assert_eq!(after["shards"][1]["head_hash"], before["shards"][1]["head_hash"]);
    assert_eq!(after["shards"][1]["state_digest"], before["shards"][1]["state_digest"]);
    run(&["log", "show", "0", "--shard", "1", "--log", &log]).expect(0);
    let offset = forged(&namespace, 1, 0);
    let found = run(&["log", "verify", "-o", "json", "--log", &log]).expect(5).json();
    let finding = &found["finding"];
    assert_eq!((&found["ok"], &finding["kind"], &finding["shard"]), (&false.into(), &"contradiction".into(), &"1".into()));
    assert_eq!(finding["position"], 0);
    let text = run(&["log", "verify", "--log", &log]).expect(5).err;
    assert!(text.contains("shard 1: ") && text.contains(&format!("offsets {FIRST} and {offset}")), "{text}");
    // The others are as they were.
    run(&["log", "verify", "--shard", "0", "--log", &log]).expect(0);
}

#[test]
fn what_is_not_there_is_said_with_what_to_do() {
    let Some(kafka) = shared() else { return };
    let log = format!("kafka://{}/nobody-made-this", kafka.bootstrap());
    for verb in [
        &["log", "verify"][..],
        &["log", "tail"],
        &["log", "export"],
        &["replay"],
        &["task", "show", "0-0"],
        &["dlq", "list"],
        &["kafka", "status"],
    ] {
        let said = run(&[verb, &["--log", &log]].concat()).expect(6);
        assert!(said.err.contains("nobody-made-this") && said.err.contains("ergate kafka init"), "{verb:?}: {}", said.err);
    }
    run(&["log", "verify", "--log", "kafka://127.0.0.1:1"]).expect(2);
    run(&["dlq", "list", "--log", "file:somewhere"]).expect(2);
}

#[test]
fn refused_records_are_listed_mended_and_sent_again_once() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("dlq", kafka.bootstrap(), 2);
    let log = namespace.log();
    let list = || run(&["dlq", "list", "-o", "json", "--log", &log]).expect(0).json_lines();
    let before = list();
    let [letter] = before.as_slice() else { panic!("{before:?}") };
    let id = letter["id"].as_str().unwrap();
    assert_eq!(
        (&letter["source"]["partition"], &letter["source"]["topic"]),
        (&1.into(), &format!("{}.requests", namespace.name).into())
    );
    assert_eq!((&letter["value"], &letter["key"]), (&"{\"type\":\"noop\",\"colour\":\"réd\"}".into(), &"bad".into()));
    assert!(letter["reason"].as_str().unwrap().contains("colour") && letter["redriven"] == false);
    assert!(run(&["dlq", "list", "--reason", "nothing like it", "-o", "json", "--log", &log]).expect(0).out.is_empty());
    assert!(run(&["dlq", "list", "--log", &log]).expect(0).out.contains(id));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("letter").display().to_string();
    run(&["dlq", "redrive", "--all", "--log", &log]).expect(2);
    run(&["dlq", "redrive", "7-7", "--yes", "--log", &log]).expect(6);
    assert_eq!(run(&["dlq", "redrive", "--all", "--dry-run", "-o", "json", "--log", &log]).expect(0).json_lines().len(), 2);
    run(&["dlq", "redrive", id, "--to-file", &file, "--log", &log]).expect(0);
    assert_eq!(std::fs::read(&file).unwrap(), "{\"type\":\"noop\",\"colour\":\"réd\"}".as_bytes());
    std::fs::write(&file, br#"{"type":"noop","payload":"mended"}"#).unwrap();
    let sent = run(&["dlq", "redrive", id, "--edit", &file, "--yes", "-o", "json", "--log", &log]).expect(0).json();
    assert_eq!(sent["redriven"], 1);
    assert_eq!(list()[0]["redriven"], true);
    assert!(run(&["dlq", "list", "--open", "-o", "json", "--log", &log]).expect(0).out.is_empty());
    // It is not sent a second time.
    assert_eq!(run(&["dlq", "redrive", "--all", "--yes", "-o", "json", "--log", &log]).expect(0).json()["redriven"], 0);

    let engine = namespace.engine();
    namespace.until_done_but(1);
    engine.stop();
    let task = run(&["task", "show", "1-1", "-o", "json", "--log", &log]).expect(0).json();
    assert_eq!((&task["payload"], &task["outcome"]), (&"\"mended\"".into(), &"SUCCEEDED".into()));
    let record = namespace.records("requests", 1).pop().unwrap();
    let names: Vec<_> = record.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["ergate-redriven"], "what the engine had added is gone");
    assert_eq!((record.headers[0].1.as_slice(), record.key.as_deref()), (id.as_bytes(), Some(&b"bad"[..])));
}

#[test]
fn what_is_sent_again_as_it_was_is_refused_again() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("again", kafka.bootstrap(), 1);
    let log = namespace.log();
    let sent = run(&["dlq", "redrive", "--reason", "colour", "--yes", "-o", "json", "--log", &log]).expect(0).json();
    assert_eq!(sent["redriven"], 1);
    let engine = namespace.engine();
    let list = || run(&["dlq", "list", "-o", "json", "--log", &log]).expect(0).json_lines();
    until("it is refused again", || list().len() == 2);
    engine.stop();
    let letters = list();
    assert_eq!((&letters[0]["redriven"], &letters[1]["redriven"]), (&true.into(), &false.into()));
    assert_eq!(letters[1]["headers"][0]["value"], letters[0]["id"]);
}

#[test]
fn status_says_who_leads_and_what_waits() {
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::new("status", kafka.bootstrap(), 3);
    let log = namespace.log();
    let status = |every: &str| run(&["kafka", "status", "--every", every, "-o", "json", "--log", &log]).expect(0).json();
    for task in 0..5 {
        namespace.publish(2, &format!("k{task}"), br#"{"type":"noop"}"#);
    }
    let idle = status("0s");
    assert_eq!((&idle["lag"], idle["group"]["members"].as_array().map(Vec::len)), (&5.into(), Some(0)));
    assert_eq!((&idle["shards"][2]["requests"]["lag"], &idle["shards"][2]["owner"]), (&5.into(), &Value::Null));
    let engine = namespace.engine();
    namespace.until_done();
    let busy = status("200ms");
    assert_eq!((&busy["lag"], &busy["group"]["state"]), (&0.into(), &"Stable".into()));
    let owner = &busy["group"]["members"][0];
    assert_eq!(owner["host"], "/127.0.0.1");
    assert_eq!(owner["shards"], serde_json::json!(["0", "1", "2", "capacity"]));
    for shard in busy["shards"].as_array().unwrap() {
        assert_eq!(shard["owner"], owner["id"], "{shard}");
    }
    let last = &busy["shards"][2];
    assert_eq!((&last["requests"]["end"], &last["requests"]["committed"]), (&5.into(), &5.into()));
    assert!(last["requests"]["lag_growth"].is_number() && last["events"]["last_at"].is_number());
    assert_eq!(last["events"]["stable_lag"], 0);
    let table = run(&["kafka", "status", "--every", "0s", "--log", &log]).expect(0).out;
    assert!(table.contains("Stable, 1 engine, lag 0") && table.contains("0 1 2 capacity"), "{table}");
    engine.stop();
}

#[test]
fn verify_ends_although_an_engine_goes_on_writing() {
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::new("running", kafka.bootstrap(), 2);
    let engine = namespace.engine();
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let publish = &namespace;
        scope.spawn(move || {
            for task in 0.. {
                publish.publish(task % 2, "k", br#"{"type":"noop"}"#);
                if stopped.recv_timeout(Duration::from_millis(1)) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        let (mut before, mut rounds) = (0, 0);
        until("the log has grown between one look and the next, four times", || {
            let verified = run(&["log", "verify", "--decisions", "-o", "json", "--log", &namespace.log()]).expect(0).json();
            let events = verified["events"].as_u64().unwrap();
            assert!(events >= before);
            rounds += u32::from(events > before);
            before = events;
            rounds >= 4
        });
        drop(stop);
    });
    engine.stop();
}

/// An owner begins with a transaction that it gives up; a look that sees only that must not count what comes after it meanwhile.
#[test]
fn what_comes_after_the_ends_were_asked_for_is_not_there_yet() {
    let Some(kafka) = shared() else { return };
    let namespace = worked("young", kafka.bootstrap(), 6);
    let topic = format!("{}.events", namespace.name);
    let reader = KafkaReader::new(ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()), &topic, 1, ShardId(1));
    let all = reader.extent().unwrap();
    let within = |stable| reader.extent_within(Watermarks { low: 0, stable }).unwrap();
    assert!(all.span.next.0 > 6 && all.offsets.low == 0, "{all:?}");
    assert_eq!(within(all.offsets.stable), all);
    let before = within(FIRST);
    assert_eq!((before.span, before.last_time), (Span::default(), None));
    let one = within(FIRST + 1).span;
    assert!(one.first == Position(0) && one.next > Position(0) && one.next < all.span.next, "{one:?} of {all:?}");
}

#[test]
fn a_follower_outlives_the_broker_and_says_that_it_waits() {
    let Some(kafka) = Cluster::start(Options::default()) else { return };
    let namespace = Namespace::new("follow", kafka.bootstrap(), 2);
    let engine = namespace.engine();
    let mut follower = command::ergate(&["log", "tail", "-f", "-o", "json", "--log", &namespace.log()]).spawn().unwrap();
    let (seen, events) = mpsc::channel();
    let out = BufReader::new(follower.stdout.take().unwrap());
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| seen.send(line)));
    let err = BufReader::new(follower.stderr.take().unwrap());
    let (told, notes) = mpsc::channel();
    std::thread::spawn(move || err.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
    let next_done = || {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let line = events.recv_timeout(until - Instant::now()).unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == "succeeded" {
                return event["shard"].as_str().unwrap().to_owned();
            }
        }
    };
    for shard in [0, 1] {
        namespace.publish(shard, "k", br#"{"type":"noop"}"#);
        assert_eq!(next_done(), shard.to_string());
    }
    kafka.kill(0);
    let note = notes.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(note.contains("waiting for the brokers"), "{note}");
    kafka.start_again(0);
    namespace.publish(1, "k", br#"{"type":"noop"}"#);
    assert_eq!(next_done(), "1");
    assert!(follower.try_wait().unwrap().is_none());
    signal(&follower, "TERM");
    follower.wait().unwrap();
    engine.stop();
    run(&["log", "verify", "--decisions", "--log", &namespace.log()]).expect(0);
}

/// Not a test but a measurement; `-- --ignored --nocapture` prints it. `ERGATE_TEST_TASKS` says how many tasks, of about five events each.
#[test]
#[ignore = "it measures"]
fn how_fast_a_log_on_kafka_is_verified() {
    let Some(kafka) = shared() else { return };
    let tasks: usize = std::env::var("ERGATE_TEST_TASKS").map_or(200_000, |text| text.parse().unwrap());
    let json = Namespace::new("json", kafka.bootstrap(), 2);
    let engine = json.engine();
    json.publish_many(tasks, br#"{"type":"noop","payload":{"n":12345,"name":"measure"}}"#);
    json.until_done();
    engine.stop();
    let bytes = Namespace::new("bytes", kafka.bootstrap(), 2);
    (0..2).for_each(|shard| as_bytes(&json, &bytes, shard));
    for (name, namespace) in [("json", &json), ("bytes", &bytes)] {
        for args in [&["log", "verify"][..], &["log", "verify", "--decisions"], &["log", "export", "--to", "/dev/null"]] {
            let started = Instant::now();
            let said = run(&[args, &["-o", "json", "--log", &namespace.log()]].concat()).expect(0).out;
            let verified: Value = serde_json::from_str(&said).unwrap_or_default();
            let (events, bytes) = (verified["events"].as_u64(), verified["bytes"].as_u64());
            let took = started.elapsed();
            writeln!(std::io::stderr(), "{name} {args:?}: {events:?} events, {bytes:?} bytes in {took:.2?}").unwrap();
        }
    }
}
