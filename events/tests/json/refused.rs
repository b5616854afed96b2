//! What is not taken for a block, and what is said about it.

use ergate_events::block::{BODY_BYTES_MAX, Hash};
use ergate_events::event::Event;
use ergate_events::id::{Ordinal, ReplicaId, TypeId};
use ergate_events::json::{JsonError, decode};
use ergate_events::ran::{CudaVersion, KernelDigest, Ran};
use ergate_events::task::{Ask, IdempotencyKey};
use ergate_events::time::{Micros, Timestamp};

use super::{block, encoded};

/// A block of shard 3 at position 40, which creates the tasks 3-7 and 3-8.
fn sample() -> String {
    let key = Some(IdempotencyKey { key: "k", window: None });
    let events = [
        Event::Requested { task_type: TypeId(1), payload: b"\"Ada\"", key, asks: vec![Ask::Priority(7)] },
        Event::Started { task: Ordinal(7), attempt: 1, replica: ReplicaId(0) },
        Event::Redriven { task: Ordinal(2), by: "me", reason: "" },
        Event::Checkpointed { task: Ordinal(7), attempt: 1, details: &[0xff] },
    ];
    let events: Vec<_> = events.into_iter().enumerate().map(|(at, event)| (Timestamp(5 + at as u64 / 2), event)).collect();
    String::from_utf8(encoded(&block(3, 40, 7, Hash([9; 32]), &events))).unwrap()
}

/// The error with its causes, as a person reads it.
fn told(error: &JsonError) -> String {
    let mut told = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        told = format!("{told}: {error}");
        next = error.source();
    }
    told
}

#[track_caller]
fn refuses(json: &str, words: &[&str]) -> JsonError {
    let error = decode(json.as_bytes()).expect_err(json);
    let told = told(&error);
    assert!(words.iter().all(|word| told.contains(word)), "{words:?} should be in: {told}\nof {json}");
    error
}

/// Replaces what must be there.
#[track_caller]
fn with(json: &str, old: &str, new: &str) -> String {
    assert!(json.contains(old), "{old} in {json}");
    json.replacen(old, new, 1)
}

#[test]
fn a_wrong_field_is_named_with_its_position() {
    let json = sample();
    decode(json.as_bytes()).unwrap();
    let cases: &[(&str, &str, &[&str])] = &[
        ("\"format\":1", "\"format\":5", &["format 5", "newer build"]),
        ("\"format\":1", "\"format\":2", &["position 40", "another format"]),
        ("\"format\":1", "\"format\":0", &["`format`"]),
        ("\"format\":1,", "", &["`format`", "missing"]),
        ("\"shard\":\"3\"", "\"shard\":3", &["id as a text"]),
        ("\"shard\":\"3\"", "\"shard\":\"3\",\"shard\":\"3\"", &["duplicate field `shard`"]),
        ("\"shard\":\"3\"", "\"shard\":\"3\",\"colour\":1", &["unknown field `colour`"]),
        ("\"position\":\"40\"", "\"position\":\"+40\"", &["is not an id"]),
        ("\"position\":\"40\"", "\"position\":\"41\"", &["position 41", "`position` is 40"]),
        ("\"position\":\"40\"", "\"position\":\"18446744073709551615\"", &["`count`"]),
        ("\"count\":4", "\"count\":3", &["position 40", "more events"]),
        ("\"count\":4", "\"count\":5", &["position 40", "fewer events"]),
        ("\"count\":4", "\"count\":0", &["position 40", "`count`"]),
        ("\"ordinal\":\"7\"", "\"ordinal\":\"6\"", &["position 40", "`task` is 3-7 where 3-6"]),
        ("\"recorded_at\":5", "\"recorded_at\":4", &["position 40", "`recorded_at` is 5"]),
        ("\"previous\":\"09", "\"previous\":\"08", &["position 40", "altered"]),
        ("\"previous\":\"09", "\"previous\":\"9", &["64 of the digits"]),
        ("\"epoch\":\"e3\"", "\"epoch\":\"e4\"", &["position 40", "altered"]),
        ("\"attempt\":1,\"event\":\"started\"", "\"attempt\":2,\"event\":\"started\"", &["position 40", "altered"]),
        ("\"position\":\"41\"", "\"position\":\"42\"", &["position 41", "`position` is 42"]),
        ("\"event\":\"started\"", "\"event\":\"sang\"", &["position 41", "newer build", "\"sang\""]),
        ("\"event\":\"started\"", "\"event\":\"ready\"", &["position 41", "`attempt`", "unknown"]),
        ("\"event\":\"started\",", "", &["position 41", "`event`"]),
        ("\"replica\":\"r0\",", "", &["position 41", "`replica` is missing"]),
        ("\"replica\":\"r0\"", "\"replica\":\"0\"", &["position 41", "`rNUMBER`"]),
        ("\"replica\":\"r0\"", "\"replica\":\"r0\",\"replica\":\"r0\"", &["position 41", "duplicate field `replica`"]),
        ("\"replica\":\"r0\"", "\"replica\":\"r0\",\"colour\":{}", &["position 41", "unknown field `colour`"]),
        ("\"replica\":\"r0\"", "\"replica\":\"r0\",\"by\":\"me\"", &["position 41", "`by` is unknown to this kind"]),
        ("\"task\":\"3-7\",\"time\"", "\"task\":\"4-7\",\"time\"", &["position 41", "`task` is 4-7", "another shard"]),
        ("\"task\":\"3-8\"", "\"task\":\"3-9\"", &["position 42", "`task` is 3-9 where 3-8"]),
        ("\"of\":\"3-2\"", "\"of\":\"0-2\"", &["position 42", "`of` is 0-2"]),
        ("00.000006Z", "00.000007Z", &["position 42", "`time` is not 1970"]),
        ("\"hex\":\"ff\"", "\"hex\":\"FF\"", &["position 43", "digits"]),
        ("\"hex\":\"ff\"", "\"hex\":\"f\"", &["position 43", "digits"]),
        ("\"hex\":\"ff\"", "\"hex\":\"ff\",\"hex\":\"ff\"", &["position 43", "duplicate field `hex`"]),
        ("{\"priority\":7}", "{\"priority\":7,\"not_before\":1}", &["position 40"]),
        ("{\"priority\":7}", "{\"colour\":7}", &["position 40", "`colour`"]),
        ("{\"priority\":7}", "{\"priority\":256}", &["position 40"]),
        ("{\"key\":\"k\",\"window\":null}", "\"k\"", &["position 40", "`key` is of another kind"]),
        ("{\"key\":\"k\",\"window\":null}", "{\"key\":\"k\",\"window\":1e3}", &["position 40"]),
        ("\"events\":[", "\"events\":[1,", &["position 40"]),
        ("]}", "],\"shard\":\"3\"}", &["`events`", "last"]),
        ("]}", "]} x", &["trailing"]),
        ("]}", "]", &["EOF"]),
        ("{\"format\"", "[{\"format\"", &["a block"]),
    ];
    for (old, new, words) in cases {
        // The last brackets are meant where brackets are.
        let altered = if *old == "]}" { format!("{}{new}", json.strip_suffix("]}").unwrap()) } else { with(&json, old, new) };
        refuses(&altered, words);
    }
}

#[test]
fn a_version_and_a_digest_have_one_form() {
    let ran = Ran {
        device: "GPU-0".to_owned(),
        driver: Some(CudaVersion { major: 13, minor: 0 }),
        kernel: KernelDigest([0xab; 32]),
        batch_size: 1,
        queue: Micros(1),
        copy: Micros(2),
        compute: Micros(3),
        memory_bytes: u64::MAX,
    };
    let event = Event::AttemptRan { task: Ordinal(7), attempt: 1, ran: Box::new(ran) };
    let json = String::from_utf8(encoded(&block(3, 40, 9, Hash::ZERO, &[(Timestamp(5), event)]))).unwrap();
    decode(json.as_bytes()).unwrap();
    let digest = "ab".repeat(32);
    let cases: &[(&str, &str, &[&str])] = &[
        ("\"13.0\"", "\"013.0\"", &["position 40", "a version of CUDA, like 13.0"]),
        ("\"13.0\"", "13.0", &["position 40"]),
        ("\"13.0\"", "\"13.1\"", &["position 40", "altered"]),
        ("\"13.0\"", "null", &["position 40", "altered"]),
        (&digest, &digest.to_uppercase(), &["position 40", "64 hexadecimal digits, lower case"]),
        (&digest, &digest[1..], &["position 40", "64 hexadecimal digits"]),
        ("\"device\":\"GPU-0\",", "", &["position 40", "`device`"]),
        ("\"batch_size\":1", "\"batch_size\":1,\"colour\":1", &["position 40", "`colour`"]),
        ("\"batch_size\":1", "\"batch_size\":4294967296", &["position 40"]),
        ("\"queue\":1", "\"queue\":\"1\"", &["position 40"]),
    ];
    for (old, new, words) in cases {
        refuses(&with(&json, old, new), words);
    }
}

#[test]
fn what_means_the_same_is_taken() {
    let json = sample();
    let same = [
        with(&json, ",", " ,\n\t"),
        with(&json, "\"task\":\"3-8\",", ""),
        with(&json, ",\"window\":null", ""),
        with(&json, "\"by\":\"me\"", "\"by\":\"\\u006de\",\"pool\":null"),
        with(&json, "{\"hex\":\"ff\"}", "{ \"hex\" : \"ff\" }"),
        with(&with(&json, "\"format\":1,", ""), "\"hash\"", "\"format\":1,\"hash\""),
        json.replace(",\"time\":\"1970-01-01T00:00:00.000005Z\"", ""),
    ];
    for json in same {
        decode(json.as_bytes()).unwrap_or_else(|error| panic!("{}\nof {json}", told(&error)));
    }
}

#[test]
fn a_text_that_is_not_utf_8_is_refused() {
    let json = sample().into_bytes();
    let at = json.windows(4).position(|four| four == b"\"me\"").unwrap();
    let mut altered = json;
    altered[at + 1] = 0xff;
    let error = decode(&altered).unwrap_err();
    assert!(matches!(&error, JsonError::Event { position, .. } if position.0 == 42), "{error}");
}

#[test]
fn deep_nesting_and_large_bodies_are_refused() {
    let json = sample();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refuses(&with(&json, "\"Ada", &format!("\"Ada\",\"colour\":{deep},\"x\":\"")), &["position 40"]);
    refuses(&deep, &["a block"]);
    // A record over the limit of one, then records over the limit of a block.
    let payload = "x".repeat(9 << 20);
    let large = with(&json, "\\\"Ada\\\"", &payload);
    refuses(&large, &["altered"]);
    let one = "{\"event\":\"requested\",\"task_type\":\"type-0\",\"recorded_at\":5,\"position\":";
    let many: Vec<_> = (40..43).map(|position| format!("{one}\"{position}\",\"payload\":\"{payload}\",\"asks\":[]}}")).collect();
    let (head, _) = json.split_once("\"events\":[").unwrap();
    let error = refuses(&format!("{head}\"events\":[{}]}}", many.join(",")), &["position 40", "longer than a block may be"]);
    assert!(matches!(error, JsonError::Block { .. }) && payload.len() * 2 > BODY_BYTES_MAX, "{error}");
}

#[test]
fn a_block_that_could_not_be_read_again_is_refused_even_with_its_hash() {
    let payload = vec![b'x'; 9 << 20];
    let event = Event::Requested { task_type: TypeId(0), payload: &payload, key: None, asks: vec![] };
    let mut open = ergate_events::block::OpenBlock::new(
        ergate_events::id::ShardId(3),
        ergate_events::id::Epoch(3),
        ergate_events::id::Position(40),
        Ordinal(7),
    );
    open.push(Timestamp(5), &event);
    let hash = open.into_block(1, Hash([9; 32])).hash();
    let json = sample();
    let (head, _) = json.split_once(",\"hash\":").unwrap();
    let event = format!(
        "{{\"event\":\"requested\",\"task_type\":\"type-0\",\"recorded_at\":5,\"position\":\"40\",\"payload\":\"{}\",\"asks\":[]}}",
        "x".repeat(payload.len())
    );
    let json = format!("{},\"hash\":\"{hash}\",\"events\":[{event}]}}", with(head, "\"count\":4", "\"count\":1"));
    refuses(&json, &["position 40", "not be readable"]);
}
