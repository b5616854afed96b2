//! The running engine from outside: `ergate up` on a real Apache Kafka, started as users start it, with other people's producers before it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
#[path = "support/frozen.rs"]
mod frozen;
#[path = "support/hung.rs"]
mod hung;
#[path = "support/kafka/mod.rs"]
mod kafka;
#[path = "support/kafka_log.rs"]
mod kafka_log;
#[path = "kafka_engine/lost.rs"]
mod lost;
#[path = "support/packages.rs"]
mod packages;
#[path = "support/producers.rs"]
mod producers;
#[path = "support/requests.rs"]
mod requests;
#[allow(dead_code, reason = "the tests of faults need all of it")]
#[path = "kafka/topic.rs"]
mod topic;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use command::run;
use ergate::events::block::{Block, OpenBlock, SealedBlock};
use ergate::events::codec::FORMAT;
use ergate::events::event::Event;
use ergate::events::id::{Epoch, Ordinal, ShardId};
use ergate::events::json as blocks;
use ergate::events::state::State;
use ergate::events::time::Timestamp;
use kafka::shared;
use kafka_log::Namespace;
use producers::{Asked, Partitioner, Program};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use serde_json::Value;

/// A task as the log tells of it.
#[derive(Debug)]
struct Task {
    shard: i32,
    payload: String,
    key: Option<String>,
    asks: Vec<Value>,
    ends: Vec<String>,
}

/// What the logs of all shards say.
#[derive(Debug, Default)]
struct Told {
    tasks: Vec<Task>,
    /// Idempotency keys of requests that were for a task already there.
    duplicates: Vec<String>,
    refused: usize,
}

/// Reads the whole record, as anybody can.
fn told(namespace: &Namespace) -> Told {
    let (mut told, mut numbers) = (Told::default(), BTreeMap::new());
    for event in run(&["log", "export", "-o", "json", "--log", &namespace.log()]).expect(0).json_lines() {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let Ok(shard) = event["shard"].as_str().unwrap().parse::<i32>() else { continue };
        let tasks: &mut Vec<usize> = numbers.entry(shard).or_default();
        match event["event"].as_str().unwrap() {
            // The frozen logs have some of the latter.
            "requested" | "redriven" => {
                tasks.push(told.tasks.len());
                let (key, asks) = (event["key"]["key"].as_str().map(str::to_owned), event["asks"].as_array().cloned());
                let asks = asks.unwrap_or_default();
                told.tasks.push(Task { shard, payload: text("payload").unwrap_or_default(), key, asks, ends: Vec::new() });
            }
            "deduplicated" => told.duplicates.push(text("key").unwrap()),
            "request_refused" => told.refused += 1,
            "succeeded" | "ended" | "dead_lettered" => {
                let task = text("task").unwrap();
                let task: usize = task.rsplit('-').next().unwrap().parse().unwrap();
                told.tasks[tasks[task]].ends.push(text("outcome").unwrap_or_else(|| "FAILED".to_owned()));
            }
            _ => {}
        }
    }
    told
}

impl Told {
    /// Every task has ended once, and well.
    #[track_caller]
    fn all_succeeded(&self) {
        let others: Vec<_> = self.tasks.iter().filter(|task| task.ends != ["SUCCEEDED"]).collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}

impl Task {
    /// What was asked for beside the payload, by name.
    fn ask(&self, name: &str) -> Option<&Value> {
        self.asks.iter().find_map(|ask| ask.get(name))
    }
}

/// The record is in order, to every hash and decision.
#[track_caller]
fn verify(namespace: &Namespace) -> Value {
    let verified = run(&["log", "verify", "--decisions", "-o", "json", "--log", &namespace.log()]).expect(0).json();
    assert_eq!(verified["ok"], true, "{verified}");
    verified
}

/// What a task asks for, as [`Program::published`] says it; the key of its record is known by the shard that it chose.
fn asked(task: &Task) -> (i32, Asked) {
    let text = |name: &str| task.ask(name).map(|text| text.as_str().unwrap().to_owned());
    let pair = |label: &Value| (label[0].as_str().unwrap().to_owned(), label[1].as_str().unwrap().to_owned());
    let payload: Value = serde_json::from_str(&task.payload).unwrap();
    let asked = Asked {
        record_key: String::new(),
        idempotency_key: task.key.clone().unwrap(),
        customer: payload["customer"].as_str().unwrap().to_owned(),
        priority: task.ask("priority").map(|priority| u8::try_from(priority.as_u64().unwrap()).unwrap()),
        labels: task.asks.iter().filter_map(|ask| ask.get("label")).map(pair).collect(),
        trace: text("trace_parent"),
        correlation_id: text("correlation_id"),
    };
    (task.shard, asked)
}

#[test]
fn what_programs_of_every_language_publish_is_done_once() {
    const SHARDS: u32 = 4;
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("languages", kafka.bootstrap(), SHARDS.try_into().unwrap());
    let engine = namespace.engine();
    let topic = format!("{}.requests", namespace.name);
    let mut expected = Vec::new();
    for program in Program::ALL {
        // The second time every key is known.
        let published = (0..2).try_for_each(|_| program.publish(kafka.bootstrap(), &topic, Partitioner::Murmur2));
        match published {
            Ok(()) => expected.extend(program.published()),
            Err(reason) => packages::say(&format!("SKIPPED: the engine was not asked by {}: {reason}", program.file())),
        }
    }
    namespace.until_done();
    engine.stop();
    let told = told(&namespace);
    told.all_succeeded();
    let mut keys: Vec<_> = expected.iter().map(|asked| asked.idempotency_key.clone()).collect();
    let by_shard = |asked: Asked| {
        let shard = Partitioner::Murmur2.partition(asked.record_key.as_bytes(), SHARDS);
        (i32::try_from(shard).unwrap(), Asked { record_key: String::new(), ..asked })
    };
    let mut expected: Vec<_> = expected.into_iter().map(by_shard).collect();
    let (mut found, mut duplicates) = (told.tasks.iter().map(asked).collect::<Vec<_>>(), told.duplicates);
    expected.sort();
    found.sort();
    keys.sort();
    duplicates.sort();
    assert_eq!(found, expected);
    assert_eq!((duplicates, told.refused), (keys, 0));
    verify(&namespace);
}

/// Runs kcat with one record of plain form; headers may be any bytes.
fn kcat(bootstrap: &str, topic: &str, headers: &[&[u8]]) {
    let value = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(value.path(), br#"{"type":"noop"}"#).unwrap();
    let mut command = Command::new("kcat");
    command.args(["-P", "-b", bootstrap, "-t", topic, "-p", "1"]);
    command.args(headers.iter().flat_map(|header| [OsStr::new("-H"), OsStr::from_bytes(header)]));
    let ran = command.arg(value.path()).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
}

#[test]
fn an_answer_is_sent_to_the_topic_of_results_and_nowhere_else() {
    let Some(kafka) = shared() else { return };
    if let Err(reason) = packages::has("kcat", "-V") {
        return packages::say(&format!("SKIPPED: nobody asks for an answer: {reason}"));
    }
    let namespace = Namespace::init("answers", kafka.bootstrap(), 2);
    let _engine = namespace.engine();
    let [requests, results, dead_letters] = ["requests", "results", "dlq"].map(|topic| format!("{}.{topic}", namespace.name));
    let reply_to = |topic: &str| format!("reply-to={topic}").into_bytes();
    kcat(kafka.bootstrap(), &requests, &[b"correlation-id=not asked for"]);
    kcat(kafka.bootstrap(), &requests, &[&reply_to(&results), b"correlation-id=order-17"]);
    kcat(kafka.bootstrap(), &requests, &[&reply_to(&namespace.name)]);
    namespace.until_done();
    let answers = topic::read(kafka.bootstrap(), &results);
    assert_eq!(answers.len(), 1, "{answers:?}");
    let answer: Value = serde_json::from_slice(answers[0].value.as_deref().unwrap()).unwrap();
    let expected = serde_json::json!({"task": "1-1", "outcome": "SUCCEEDED", "result": null, "correlation_id": "order-17"});
    assert_eq!(answer, expected);
    assert_eq!((answers[0].header("ergate-task"), answers[0].header("correlation-id")), (Some("1-1"), Some("order-17")));
    let letters = topic::read(kafka.bootstrap(), &dead_letters);
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert!(letter.header("ergate-reason").unwrap().contains("reply_to"), "{letter:?}");
}

#[test]
fn every_bad_record_is_a_dead_letter_once_and_every_good_one_is_done() {
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("bad", kafka.bootstrap(), 2);
    let mut engine = namespace.engine();
    engine.until_leads(|shards| shards == 2);
    let topic = format!("{}.requests", namespace.name);
    // Those that are no work for a built-in type at this moment are meant for other tests.
    let is_work = |good: &requests::Fixture| {
        let waits = good.value.as_ref().unwrap().windows(7).any(|text| text == b"\"delay\"");
        let is_json = good.expect["content_type"].as_str().is_none_or(|kind| kind.contains("json"));
        // Nor are those after tasks that are not there: this shard refuses them.
        let is_free = good.expect["after"].is_null();
        good.expect["type"] == "noop" && good.expect["reply_to"].is_null() && is_json && is_free && !waits
    };
    let good: Vec<_> = requests::good().into_iter().filter(is_work).collect();
    let bad = requests::bad();
    assert!(bad.len() >= 150 && good.len() >= 30, "{} {}", bad.len(), good.len());
    // In one partition, where any of them would hold up what is behind it.
    let mut offsets = BTreeMap::new();
    for (index, fixture) in bad.iter().enumerate() {
        for fixture in [Some(fixture), good.get(index)].into_iter().flatten() {
            offsets.insert(offsets.len() as i64, fixture);
            namespace.send(fixture.to(&topic).partition(0));
        }
    }
    namespace.flush();
    namespace.publish(0, "behind", br#"{"type":"noop","payload":"behind"}"#);
    namespace.until_done();
    let told = told(&namespace);
    told.all_succeeded();
    assert_eq!((told.tasks.len() + told.duplicates.len(), told.refused), (good.len() + 1, bad.len()));
    assert_eq!(told.tasks.last().unwrap().payload, "\"behind\"");
    let mut letters = BTreeMap::new();
    for letter in topic::read(kafka.bootstrap(), &format!("{}.dlq", namespace.name)) {
        let number = |name: &str| letter.header(name).unwrap().parse::<i64>().unwrap();
        assert_eq!((letter.header("ergate-topic"), number("ergate-partition")), (Some(topic.as_str()), 0));
        assert!(letters.insert(number("ergate-offset"), letter).is_none(), "a record is there twice");
    }
    for (offset, fixture) in offsets.into_iter().filter(|(_, fixture)| !fixture.field.is_empty()) {
        let letter = letters.remove(&offset).unwrap_or_else(|| panic!("{} is not there", fixture.name));
        assert!(letter.key == fixture.key && letter.value == fixture.value, "{} is changed", fixture.name);
        assert_eq!(letter.headers[..letter.headers.len() - 4], fixture.headers, "{}", fixture.name);
        let reason = letter.header("ergate-reason").unwrap();
        assert!(reason.contains(&fixture.field), "{}: {reason}", fixture.name);
    }
    assert!(letters.is_empty(), "{letters:?}");
    engine.stop();
    verify(&namespace);
}

/// Records of requests that are small only while they are compressed, names of headers that are no text, and the longest events.
///
/// A dead letter was to be written as long as its record; where no message may be that long, its shard stood still for ever.
#[test]
fn what_cannot_be_kept_as_it_came_holds_nobody_up() {
    const LONG: usize = 20_000_000;
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("poison", kafka.bootstrap(), 2);
    let engine = namespace.engine();
    let [requests, dead_letters] = ["requests", "dlq"].map(|topic| format!("{}.{topic}", namespace.name));
    let long = vec![b'x'; LONG];
    namespace.send(BaseRecord::to(&requests).partition(0).key(&long[..3]).payload(&long[..]));
    namespace.send(BaseRecord::to(&requests).partition(0).key(&long[..]).payload(&b"{}"[..]));
    namespace.flush();
    let has_kcat = packages::has("kcat", "-V").is_ok();
    if has_kcat {
        kcat(kafka.bootstrap(), &requests, &[b"na\xff\xfeme=value", b"text=value"]);
    }
    // Each byte is six of them in JSON, and what does not fit one message is not put into one.
    let longest = format!(r#"{{"type":"noop","payload_base64":"{}","content_type":"text/plain"}}"#, "AQEB".repeat(349_525));
    (0..3).for_each(|_| namespace.send(BaseRecord::to(&requests).partition(0).payload(longest.as_bytes())));
    namespace.flush();
    (0..2).for_each(|shard| namespace.publish(shard, "behind", br#"{"type":"noop","payload":"behind"}"#));
    namespace.until_done();
    engine.stop();
    let tasks = told(&namespace).tasks;
    // `noop` wants JSON.
    assert_eq!(tasks.iter().filter(|task| task.payload.len() == 1_048_575 && task.ends == ["FAILED"]).count(), 3);
    assert_eq!(tasks.iter().filter(|task| task.payload == "\"behind\"" && task.ends == ["SUCCEEDED"]).count(), 2);
    let mut letters = topic::read(kafka.bootstrap(), &dead_letters);
    letters.sort_by_key(|letter| letter.header("ergate-offset").unwrap().to_owned());
    let of = |shard: &str| letters.iter().filter(|letter| letter.header("ergate-partition") == Some(shard)).collect::<Vec<_>>();
    let [value, key] = of("0").try_into().unwrap();
    let kept = value.value.as_ref().unwrap();
    assert!(long.starts_with(kept) && kept.len() >= 1_000, "{}", kept.len());
    assert_eq!((value.header("ergate-offset"), value.header("ergate-cut")), (Some("0"), Some("20000000")));
    assert!(value.header("ergate-reason").unwrap().contains("value"), "{:?}", value.headers);
    assert_eq!((&key.key, key.value.as_deref(), key.header("ergate-cut")), (&None, Some(&b"{}"[..]), Some("2")));
    for letter in of("1") {
        assert_eq!((letter.value.as_deref(), letter.headers.len()), (Some(&br#"{"type":"noop"}"#[..]), 4));
        assert!(letter.header("ergate-reason").unwrap().contains("headers"), "{letter:?}");
    }
    assert_eq!(letters.len(), 2 + usize::from(has_kcat));
    let listed = run(&["dlq", "list", "-o", "json", "--log", &namespace.log()]).expect(0).json_lines();
    let id = listed.iter().find(|letter| letter["cut_from"] == LONG).unwrap()["id"].as_str().unwrap().to_owned();
    let refused = run(&["dlq", "redrive", &id, "--yes", "--log", &namespace.log()]).expect(2);
    assert!(refused.err.contains("only the beginning of its 20000000 bytes was kept"), "{}", refused.err);
    verify(&namespace);
}

#[cfg(feature = "kafka-ssl")]
#[test]
fn an_engine_works_behind_tls_and_a_password_that_nobody_gets_to_see() {
    use command::{Ended, ergate};
    use kafka::{Cluster, Options, PASSWORD, USER};
    let Some(kafka) = Cluster::start(Options { secure: true, ..Options::default() }) else { return };
    let namespace = Namespace::init("secure", kafka.bootstrap(), 2);
    let log = format!("kafka://{}/{}", kafka.secure_bootstrap(), namespace.name);
    let dir = tempfile::tempdir().unwrap();
    let (secret, file) = (dir.path().join("password"), dir.path().join("ergate.toml"));
    let settings = format!(
        "[kafka.options]\nsecurity.protocol = \"SASL_SSL\"\nsasl.mechanism = \"SCRAM-SHA-256\"\nssl.ca.location = {:?}\n\
         sasl.username = {USER:?}\nsasl.password = {{ file = {secret:?} }}\n",
        kafka.certificate()
    );
    std::fs::write(&file, settings).unwrap();
    let with = ["--config", file.to_str().unwrap(), "--log", &log];
    // Everything that can be said is.
    let loud = [("ERGATE_LOG", "debug"), ("ERGATE_KAFKA__OPTIONS__DEBUG", "security,broker,conf")];
    let ask = |verb: &[&str]| {
        let ended = Ended::of(&ergate(&[verb, &with].concat()).envs(loud).output().unwrap());
        assert!(!format!("{ended:?}").contains(PASSWORD) && !format!("{ended:?}").contains("hunter2"), "{verb:?}");
        ended
    };
    std::fs::write(&secret, PASSWORD).unwrap();
    let engine = namespace.start(&with, "", &loud);
    (0..20).for_each(|task| namespace.publish(task % 2, "k", br#"{"type":"noop"}"#));
    namespace.until_done();
    engine.stop();
    told(&namespace).all_succeeded();
    for verb in [&["kafka", "doctor"][..], &["kafka", "status"], &["log", "verify"], &["log", "tail"], &["task", "list"]] {
        let ended = if verb[0] == "task" { ask(&[verb, &["--shard", "1"]].concat()) } else { ask(verb) };
        assert!(ended.code == Some(0) && !ended.out.is_empty(), "{verb:?}: {ended:#?}");
    }
    std::fs::write(&secret, "hunter2").unwrap();
    let said = namespace.said().len();
    let status = namespace.start(&with, "", &loud).wait();
    let said = namespace.said().split_off(said);
    assert_eq!(status.code(), Some(10), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.contains("uthentication failed") && last.contains("password"), "{last}");
    for verb in [&["log", "verify"][..], &["log", "tail"], &["kafka", "init"], &["kafka", "doctor"]] {
        let ended = ask(verb);
        let text = ended.out.clone() + &ended.err;
        assert!(ended.code.is_some_and(|code| code != 0) && text.contains("uthentication failed"), "{verb:?}: {ended:#?}");
        assert!(["password", "ergate kafka doctor"].iter().any(|word| text.contains(word)), "{verb:?}: {ended:#?}");
    }
    assert!(!namespace.said().contains(PASSWORD) && !namespace.said().contains("hunter2"));
}

/// Writes a block to the record of a shard as an engine does, in either form.
fn write(namespace: &Namespace, sealed: &SealedBlock, source_next: u64, form: &str, value: &[u8]) {
    let header = &sealed.header;
    let said = [
        ("ergate-format", form.to_owned()),
        ("ergate-position", header.first_position.to_string()),
        ("ergate-next", header.next_position().to_string()),
        ("ergate-hash", sealed.hash.to_string()),
        ("ergate-source", source_next.to_string()),
    ];
    let headers = said.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    let (topic, key) = (format!("{}.events", namespace.name), header.shard.to_string());
    let record = BaseRecord::to(&topic).partition(i32::from(header.shard.0)).key(key.as_bytes()).payload(value);
    namespace.send(record.headers(headers));
}

fn as_json(sealed: &SealedBlock) -> Vec<u8> {
    let mut value = Vec::new();
    blocks::encode(&Block::parse(&sealed.bytes).unwrap(), sealed.hash, &mut value).unwrap();
    value
}

/// The records of these blocks as the log of another shard.
fn of_shard(shard: ShardId, from: &[SealedBlock]) -> Vec<SealedBlock> {
    let mut sealed: Vec<SealedBlock> = Vec::new();
    for block in from {
        let mut open = OpenBlock::new(shard, block.header.epoch, block.header.first_position, block.header.first_ordinal);
        let block = Block::parse(&block.bytes).unwrap();
        block.records().map(Result::unwrap).for_each(|record| open.push(record.recorded_at, &record.event));
        sealed.push(open.seal(sealed.last().map_or(ergate::events::block::Hash::ZERO, |last| last.hash)));
    }
    sealed
}

#[test]
fn an_engine_goes_on_with_logs_of_every_format_that_ever_was() {
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("frozen", kafka.bootstrap(), i32::from(FORMAT) * 2);
    let mut heads = Vec::new();
    for format in 1..=FORMAT {
        for (form, shard) in [("block", 2 * format - 2), ("json", 2 * format - 1)] {
            let frozen = of_shard(ShardId(shard), &frozen::blocks_of(format));
            let mut state = State::default();
            for sealed in &frozen {
                let block = Block::parse(&sealed.bytes).unwrap();
                assert!(block.header.format <= format);
                block.records().for_each(|record| state.apply(&record.unwrap()));
                let value = if form == "json" { as_json(sealed) } else { sealed.bytes.clone() };
                write(&namespace, sealed, state.work.source_next, form, &value);
            }
            // What was asked for then, and is not asked for again.
            (0..state.work.source_next).for_each(|_| namespace.publish(i32::from(shard), "old", br#"{"type":"old"}"#));
            heads.push(frozen.last().unwrap().clone());
        }
    }
    namespace.flush();
    assert_eq!(heads[0].bytes, frozen::blocks_of(1).last().unwrap().bytes, "shard 0 has them to the byte");
    let verify = || run(&["log", "verify", "-o", "json", "--log", &namespace.log()]).expect(0).json();
    verify();
    let refused = told(&namespace).refused;
    // The second engine has no copy and finds only the topics.
    for (round, engine) in [(1, "first"), (2, "second")] {
        let engine = namespace.start(&["--log", &namespace.log()], engine, &[]);
        (0..i32::from(FORMAT) * 2).for_each(|shard| namespace.publish(shard, "k", br#"{"type":"noop","payload":"new"}"#));
        // The old tasks have types that nobody runs any more; they wait.
        command::until("the new tasks have ended", || {
            let tasks = told(&namespace).tasks;
            tasks.iter().filter(|task| task.payload == "\"new\"" && !task.ends.is_empty()).count() == round * heads.len()
        });
        engine.stop();
    }
    let told = told(&namespace);
    let new: Vec<_> = told.tasks.iter().filter(|task| task.payload == "\"new\"").collect();
    assert_eq!(told.refused, refused, "what was answered is not answered again");
    assert!(new.len() == heads.len() * 2 && new.iter().all(|task| task.ends == ["SUCCEEDED"]), "{new:#?}");
    let verified = verify();
    for (shard, head) in heads.iter().enumerate() {
        assert!(verified["shards"][shard]["head"].as_u64().unwrap() > head.header.next_position().0);
        let follows = namespace.records("events", shard.try_into().unwrap()).into_iter().find(|record| {
            let position = record.headers.iter().find(|(name, _)| name == "ergate-position").unwrap();
            position.1 == head.header.next_position().to_string().as_bytes()
        });
        let follows: Value = serde_json::from_slice(&follows.unwrap().value).unwrap();
        assert_eq!(follows["previous"], head.hash.to_string());
    }
}

/// What a newer build may write: a block as it should be, but for the number of its format, with the checksum that goes with it.
fn newer(sealed: &SealedBlock) -> Vec<u8> {
    let mut bytes = sealed.bytes.clone();
    bytes[4..6].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..52]), &bytes[56..]);
    bytes[52..56].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_shard_that_a_newer_build_went_on_with_is_left_to_newer_builds() {
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("newer", kafka.bootstrap(), 3);
    let engine = namespace.engine();
    (0..3).for_each(|shard| namespace.publish(shard, "k", br#"{"type":"noop"}"#));
    namespace.until_done();
    engine.stop();
    for (shard, form) in [(1, "block"), (2, "json")] {
        let last = namespace.records("events", shard).pop().unwrap();
        let (block, hash) = blocks::decode(&last.value).unwrap();
        let at = block.header.next_position();
        let mut open = OpenBlock::new(ShardId(shard as u16), Epoch(block.header.epoch.0), at, Ordinal(1));
        let records: Vec<_> = block.records().map(Result::unwrap).collect();
        open.push(Timestamp(records.last().unwrap().recorded_at.0 + 1), &Event::SourceMoved { next: 1 });
        let sealed = open.seal(hash);
        let json = String::from_utf8(as_json(&sealed)).unwrap();
        let json = json.replacen(&format!("\"format\":{}", sealed.header.format), &format!("\"format\":{}", FORMAT + 1), 1);
        let value = if form == "json" { json.into_bytes() } else { newer(&sealed) };
        write(&namespace, &sealed, 1, form, &value);
    }
    namespace.flush();
    let mut engine = namespace.engine();
    engine.until_leads(|shards| shards == 1);
    (0..3).for_each(|shard| namespace.publish(shard, "k", br#"{"type":"noop","payload":"later"}"#));
    let later = || {
        let events = run(&["log", "export", "--shard", "0", "--log", &namespace.log()]).expect(0).out;
        events.matches("\"event\":\"succeeded\"").count()
    };
    command::until("the shard that is as it should be goes on", || later() == 2);
    let said = engine.said();
    for shard in [1, 2] {
        let words = format!("holds a block of format {} and this build reads up to {FORMAT}; use a newer build", FORMAT + 1);
        let place = format!("{}.events-{shard}", namespace.name);
        let line = said.lines().find(|line| line.contains("could not be taken over") && line.contains(&place));
        assert!(line.is_some_and(|line| line.contains(&words)), "{said}");
        let refused = run(&["log", "verify", "--shard", &shard.to_string(), "--log", &namespace.log()]).expect(9);
        assert!(refused.err.contains(&words), "{}", refused.err);
    }
    assert_eq!(engine.leads(), 1);
    engine.stop();
}

#[test]
fn engines_that_write_differently_are_rolled_forth_and_back_under_load() {
    const SHARDS: i32 = 6;
    let Some(kafka) = shared() else { return };
    let namespace = Namespace::init("rolled", kafka.bootstrap(), SHARDS);
    let log = namespace.log();
    let start = |name: &str, form: &str| {
        let mut engine = namespace.start(&["--log", &log], name, &[("ERGATE_KAFKA__FORMAT", form)]);
        engine.until_leads(|shards| shards > 0);
        engine
    };
    let over = AtomicBool::new(false);
    let published = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                let value = format!(r#"{{"type":"sleep","payload":{{"ms":20}},"labels":{{"n":"{count}"}},"key":"k{count}"}}"#);
                // Every one a second time, as a producer does that has no answer.
                (0..2).for_each(|_| namespace.publish(count % SHARDS, "k", value.as_bytes()));
                count += 1;
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            count
        });
        let (mut left, mut right) = (start("left", "json"), start("right", "json"));
        for form in ["block", "json"] {
            for (engine, name) in [(&mut left, "left"), (&mut right, "right")] {
                let next = start(&format!("{name}-{form}"), form);
                std::mem::replace(engine, next).stop();
            }
        }
        over.store(true, Ordering::Relaxed);
        let published = load.join().unwrap();
        namespace.until_done();
        left.stop();
        right.stop();
        published
    });
    let told = told(&namespace);
    told.all_succeeded();
    let mut keys: Vec<_> = told.tasks.iter().map(|task| task.key.clone().unwrap()).collect();
    let (mut duplicates, mut expected) = (told.duplicates, (0..published).map(|n| format!("k{n}")).collect::<Vec<_>>());
    keys.sort();
    duplicates.sort();
    expected.sort();
    assert!(published > 40 && keys == expected && duplicates == expected, "{published} {} {}", keys.len(), duplicates.len());
    let mut forms = std::collections::BTreeSet::new();
    for shard in 0..SHARDS {
        forms.extend(namespace.records("events", shard).into_iter().map(|record| record.headers[0].1.clone()));
    }
    assert_eq!(forms, [b"block".to_vec(), b"json".to_vec()].into());
    verify(&namespace);
}
