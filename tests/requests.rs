//! Records as clients publish them: those of `tests/fixtures/requests/`, and any bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/requests.rs"]
mod fixtures;
#[path = "support/packages.rs"]
mod packages;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate::events::id::{Ordinal, ShardId, TaskId};
use ergate::events::task::{TEXT_BYTES_MAX, TypeSettings};
use ergate::events::time::{Micros, Timestamp};
use ergate::request::{self, Record, Refusal, Request, RetryWish, TaskRequested, TimeoutsWish};
use ergate::{After, OnFailure};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// 2026-01-01T00:00:00Z, which the fixtures are written for.
const NOW: Timestamp = Timestamp(1_767_225_600_000_000);
/// What a dead letter may carry as its reason.
const REASON_BYTES_MAX: usize = 1_024;

/// What a request asks for, with nothing in it that it does not ask for.
fn shown(request: &Request<'_>) -> Value {
    let Request { task_type, payload, extras, retry, timeouts, reply_to, correlation_id } = request;
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            shown.insert(name.to_owned(), value);
        }
    };
    put("type", json!(task_type));
    match std::str::from_utf8(payload) {
        Ok(_) if payload.len() == 1 << 20 => put("payload_bytes", json!(payload.len())),
        Ok(text) => put("payload", json!(text)),
        Err(_) => put("payload_base64", json!(STANDARD.encode(payload))),
    }
    if let Some(extras) = extras {
        assert_eq!((extras.retry, extras.timeouts), (None, None), "they are kept in parts");
        put("key", json!(extras.key));
        put("key_window_us", json!(extras.key_window));
        put("priority", json!(extras.priority));
        put("not_before_us", json!(extras.not_before));
        put("content_type", json!(extras.content_type));
        put("traceparent", json!(extras.trace_parent));
        put("labels", if extras.labels.is_empty() { Value::Null } else { json!(extras.labels) });
        put("after", if extras.after.is_empty() { Value::Null } else { json!(extras.after) });
        put("on_failure", json!(extras.on_failure));
    }
    put("retry", retry.map_or(Value::Null, shown_retry));
    put("timeouts", timeouts.map_or(Value::Null, shown_timeouts));
    put("reply_to", json!(reply_to));
    put("correlation_id", json!(correlation_id));
    Value::Object(shown)
}

fn shown_retry(retry: RetryWish) -> Value {
    let RetryWish { attempts, initial, coefficient_milli, max } = retry;
    without_null(json!({"attempts": attempts, "initial_us": initial, "coefficient_milli": coefficient_milli, "max_us": max}))
}

fn shown_timeouts(timeouts: TimeoutsWish) -> Value {
    let TimeoutsWish { schedule_to_start, start_to_close, schedule_to_close, heartbeat } = timeouts;
    without_null(json!({
        "schedule_to_start_us": schedule_to_start, "start_to_close_us": start_to_close,
        "schedule_to_close_us": schedule_to_close, "heartbeat_us": heartbeat,
    }))
}

fn without_null(mut value: Value) -> Value {
    value.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    value
}

#[test]
fn good_records_are_read_as_they_are_meant() {
    let fixtures = fixtures::good();
    assert!(fixtures.len() >= 40);
    for fixture in &fixtures {
        let found = fixture.with(|record| request::parse(record, NOW).map(|request| shown(&request)));
        assert_eq!(found.as_ref(), Ok(&fixture.expect), "{}", fixture.name);
    }
}

#[test]
fn bad_records_are_refused_with_the_field_that_is_wrong() {
    let fixtures = fixtures::bad();
    assert!(fixtures.len() >= 40);
    for fixture in &fixtures {
        let refusal = fixture.with(|record| request::parse(record, NOW).map(|request| shown(&request))).unwrap_err();
        assert_eq!(refusal.field, fixture.field, "{}: {refusal}", fixture.name);
        check(&refusal);
    }
}

/// A refusal is one short sentence, whatever was found.
fn check(refusal: &Refusal) {
    let text = refusal.to_string();
    assert!(text.contains(&refusal.field) && !refusal.reason.is_empty());
    assert!(text.len() <= REASON_BYTES_MAX && !text.chars().any(char::is_control), "{text:?}");
}

#[test]
fn what_a_policy_leaves_open_is_as_the_type_has_it() {
    let settings = TypeSettings::default();
    let value = br#"{"type":"noop","retry":{"attempts":2,"coefficient":1.5},"timeouts":{"heartbeat":"5s"}}"#;
    let mut request = request::parse(&Record { value: Some(value), ..Record::default() }, NOW).unwrap();
    let extras = request.take_extras(&settings).unwrap();
    let (retry, timeouts) = (extras.retry.unwrap(), extras.timeouts.unwrap());
    assert_eq!((retry.attempts, retry.coefficient_milli, retry.initial), (2, 1_500, settings.retry.initial));
    assert_eq!((timeouts.heartbeat, timeouts.start_to_close), (Some(Micros::from_secs(5)), settings.timeouts.start_to_close));
    assert!(request.take_extras(&settings).is_none(), "they are taken once");
}

/// Any header: those that mean something, with values that may mean something.
fn header() -> impl Strategy<Value = (String, Option<Vec<u8>>)> {
    let known = prop::sample::select(vec![
        "content-type",
        "Content-Type",
        "traceparent",
        "reply-to",
        "correlation-id",
        "ce_specversion",
        "ce_type",
        "ce_id",
        "ce_source",
        "ce_subject",
        "ce_priority",
        "ce_notbefore",
        "ce_delay",
        "ce_expirytime",
        "CE_x",
        "ce_",
        "c\u{e9}_",
    ]);
    let value = prop::sample::select(vec![
        "application/cloudevents+json",
        "application/json",
        "1.0",
        "noop",
        "7",
        "2026-06-01T12:00:00Z",
        "1s",
        "",
    ]);
    let name = prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".{0,8}"];
    let value = prop_oneof![4 => value.prop_map(|text| text.as_bytes().to_vec()), 1 => vec(any::<u8>(), 0..16)];
    (name, proptest::option::weighted(0.9, value))
}

/// Any value: bytes, pieces of JSON in any order, and good values with a few bytes changed.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\ud800",
        "\"type\":",
        "\"noop\"",
        "\"payload\":",
        "\"priority\":",
        "\"delay\":",
        "\"retry\":{",
        "\"labels\":{",
        "\"data\":",
        "\"specversion\":\"1.0\"",
        "\"id\":\"1\"",
        "\"source\":\"/\"",
        "null",
        "true",
        "1e9",
        "-0",
        "\"1s\"",
        " ",
        "\u{feff}",
        "ä",
        "\0",
    ]);
    let text = vec(pieces, 0..24).prop_map(|pieces| pieces.concat().into_bytes());
    let values: Vec<_> =
        fixtures::good().into_iter().filter_map(|fixture| fixture.value).filter(|value| value.len() < 4_096).collect();
    let changed =
        (prop::sample::select(values), vec((any::<prop::sample::Index>(), any::<u8>()), 0..3), any::<prop::sample::Index>());
    let changed = changed.prop_map(|(mut value, changes, end)| {
        if !value.is_empty() {
            changes.into_iter().for_each(|(index, byte)| *index.get_mut(&mut value) = byte);
            let length = value.len();
            value.truncate(length - end.index(length) / 4);
        }
        value
    });
    prop_oneof![1 => vec(any::<u8>(), 0..64), 2 => text, 3 => changed]
}

/// A text as it may stand in a field.
fn text() -> impl Strategy<Value = String> {
    "\\PC{1,40}|[\"\\\\\n\t\u{0}-\u{1f}a]{1,20}".prop_filter("short", |text| text.len() <= TEXT_BYTES_MAX)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_record_makes_it_panic(
        value in proptest::option::weighted(0.95, value()),
        key in proptest::option::of(vec(any::<u8>(), 0..8)),
        headers in vec(header(), 0..8),
        now in any::<u64>(),
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let record = Record { key: key.as_deref(), value: value.as_deref(), headers: &headers };
        match request::parse(&record, Timestamp(now)) {
            Ok(mut request) => {
                request.take_extras(&TypeSettings::default());
            }
            Err(refusal) => check(&refusal),
        }
    }

    #[test]
    fn what_our_own_producer_writes_is_read_back(
        (task_type, payload) in ("[a-z.]{1,20}", vec(text(), 0..4)),
        (key, content) in (proptest::option::of(text()), proptest::option::of(Just("application/x+json"))),
        (window, not_before) in (proptest::option::of(1..1u64 << 50), proptest::option::of(0..1u64 << 51)),
        priority in proptest::option::of(0..=9u8),
        retry in proptest::option::of((proptest::option::of(1..u32::MAX), 0..1u64 << 50, 1_000..=1_000_000u32)),
        heartbeat in proptest::option::of(1..1u64 << 50),
        labels in proptest::collection::btree_map(text(), text(), 0..8),
        (reply_to, correlation_id) in (proptest::option::of(text()), proptest::option::of(text())),
        after in vec((any::<u16>(), any::<u64>(), proptest::option::of(text()), proptest::option::of(text())), 0..4),
        runs in any::<bool>(),
    ) {
        let after: Vec<After> = after.into_iter().map(|(shard, ordinal, task_type, key)| match key {
            Some(key) => After::Key { task_type, key },
            None => After::Task(TaskId { shard: ShardId(shard), ordinal: Ordinal(ordinal) }),
        }).collect();
        let on_failure = (runs && !after.is_empty()).then_some(OnFailure::Run);
        let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let retry = retry.map(|(attempts, initial, factor)| RetryWish {
            attempts, initial: Some(Micros(initial)), coefficient_milli: Some(factor), max: None,
        });
        let timeouts = heartbeat.map(|span| TimeoutsWish { heartbeat: Some(Micros(span)), ..TimeoutsWish::default() });
        let written = TaskRequested {
            key: key.as_deref(), content_type: content, key_window: window.map(Micros), priority,
            not_before: not_before.map(Timestamp), retry, timeouts, labels: &labels,
            reply_to: reply_to.as_deref(), correlation_id: correlation_id.as_deref(), after: &after, on_failure,
            ..TaskRequested::new(&task_type, &payload)
        };
        let value = serde_json::to_vec(&written).unwrap();
        let request = request::parse(&Record { value: Some(&value), ..Record::default() }, NOW).unwrap();
        let extras = request.extras.as_deref().cloned().unwrap_or_default();
        prop_assert_eq!(&*request.task_type, &task_type);
        prop_assert_eq!(serde_json::from_slice::<Vec<String>>(&request.payload).unwrap(), payload);
        prop_assert_eq!((extras.key, extras.content_type.as_deref(), extras.priority), (key, content, priority));
        prop_assert_eq!((extras.key_window, extras.not_before), (window.map(Micros), not_before.map(Timestamp)));
        prop_assert_eq!((request.retry, request.timeouts), (retry, timeouts));
        prop_assert_eq!((&extras.after, extras.on_failure), (&after, on_failure));
        prop_assert_eq!((request.reply_to, request.correlation_id), (reply_to, correlation_id));
        let found: Vec<_> = extras.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        prop_assert_eq!(found, labels);
    }
}

/// The schema is for producers and their editors: what it takes is what the parser takes, but for what no schema can say.
#[test]
fn the_schema_agrees_with_the_parser() {
    let values = |fixtures: Vec<fixtures::Fixture>| fixtures.into_iter().filter(fixtures::Fixture::is_plain);
    // A byte order mark is no part of the JSON that the schema is about.
    let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap()).unwrap().trim_start_matches('\u{feff}').to_owned();
    let good: Vec<_> = values(fixtures::good()).map(|fixture| (fixture.name, true, text(fixture.value))).collect();
    let bad = values(fixtures::bad()).filter(|fixture| fixture.schema);
    let bad: Vec<_> = bad.map(|fixture| (fixture.name, false, text(fixture.value))).collect();
    assert!(good.len() >= 40 && bad.len() >= 40);
    let all: Vec<_> = good.into_iter().chain(bad).collect();
    // The payload's own line ends mean nothing to a schema, and a line ends the value here.
    let lines: String = all.iter().map(|(_, _, value)| value.replace(['\r', '\n'], " ") + "\n").collect();
    let python = match packages::python(&["jsonschema"]) {
        Ok(python) => python,
        Err(reason) => return packages::say(&format!("SKIPPED: the schema was not held against the parser: {reason}")),
    };
    let answers = packages::run(&python, &["tests/format/schema.py", "docs/schema/task-requested.schema.json"], lines.as_bytes());
    let answers: Vec<_> = answers.lines().collect();
    assert_eq!(answers.len(), all.len());
    for ((name, valid, _), answer) in all.iter().zip(answers) {
        assert_eq!(answer, valid.to_string(), "{name}");
    }
}

/// Programs that are copied from the documentation are the files that the tests run.
#[test]
fn the_documentation_has_every_producer_as_it_is() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let page = read(&root.join("docs/producing.md"));
    let mut programs = 0;
    for file in std::fs::read_dir(root.join("examples/producers")).unwrap().map(|file| file.unwrap().path()) {
        let link = format!("(../examples/producers/{})\n\n```", file.file_name().unwrap().to_str().unwrap());
        let (_, rest) = page.split_once(&link).unwrap_or_else(|| panic!("the page does not have {link}"));
        let (_, shown) = rest.split_once('\n').unwrap();
        assert!(shown.starts_with(&format!("{}```\n", read(&file))), "{} differs from docs/producing.md", file.display());
        programs += 1;
    }
    assert_eq!(programs, page.matches("(../examples/producers/").count());
    let schema: Value = serde_json::from_str(&read(&root.join("docs/schema/task-requested.schema.json"))).unwrap();
    for name in schema["properties"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("| `{name}` |")), "{name} is not in docs/producing.md");
    }
}
