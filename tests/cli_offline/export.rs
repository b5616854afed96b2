//! What `log export` writes: events byte for byte (`tests/fixtures/export/` was written when each line was still made from a JSON tree),
//! blocks as they are read again.

use std::path::Path;

use ergate::events::block::{Hash, OpenBlock, SealedBlock};
use ergate::events::event::{Cause, Departure, Event, Timeout};
use ergate::events::id::{Ordinal, ReplicaId, TypeId};
use ergate::events::json::decode;
use ergate::events::task::{Ask, Failure, IdempotencyKey, Outcome, RetryPolicy, Timeouts};
use ergate::events::time::{Micros, Timestamp};

use crate::frozen;
use crate::support::{json, run};

/// Values that JSON or a calendar could stumble over.
fn awkward() -> Vec<(Timestamp, Event<'static>)> {
    let asks = vec![
        Ask::Priority(9),
        Ask::NotBefore(Timestamp(1_772_366_400_000_001)),
        Ask::Retry(RetryPolicy::default()),
        Ask::Timeouts(Timeouts { heartbeat: Some(Micros(1)), ..Timeouts::default() }),
        Ask::ContentType("text/plain; charset=\"utf-8\""),
        Ask::TraceParent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        Ask::Label("naïve \u{1f41c}", "line\nbreak\ttab\u{0}\u{1b}[31m\u{7f}\u{2028}\\\"/"),
    ];
    let key = Some(IdempotencyKey { key: "a \"key\"", window: Some(Micros(u64::MAX)) });
    let failure = Failure { class: "", message: "\u{8}\u{c}\r", retryable: true, delay: Some(Micros(5)) };
    let task = Ordinal(u64::MAX);
    let late = Timestamp(1_772_366_400_999_999);
    vec![
        (
            Timestamp(1_772_366_400_000_000),
            Event::Requested { task_type: TypeId(u16::MAX), payload: "\"\u{0}é\"".as_bytes(), key, asks },
        ),
        (
            Timestamp(1_772_366_400_000_000),
            Event::Requested { task_type: TypeId(0), payload: &[0xff, 0, 0x80], key: None, asks: vec![] },
        ),
        (late, Event::Redriven { task: Ordinal(3), by: "\u{202e}", reason: "" }),
        (late, Event::Failed { task, attempt: u32::MAX, failure }),
        (late, Event::Ended { task, outcome: Outcome::Cancelled, cause: Cause::TimedOut(Timeout::Heartbeat) }),
        (late, Event::Succeeded { task, attempt: 0, outcome: Outcome::Partial, result: b"" }),
        (late, Event::ReplicaLeft { replica: ReplicaId(u32::MAX), departure: Departure::Lost }),
        // No calendar reaches as far.
        (Timestamp(u64::MAX), Event::Ready { task }),
    ]
}

/// Seals these records behind a block.
fn seal(after: &SealedBlock, records: &[(Timestamp, Event<'_>)]) -> SealedBlock {
    let header = after.header;
    let mut open = OpenBlock::new(header.shard, header.epoch, header.next_position(), after.next_ordinal);
    records.iter().for_each(|(at, event)| open.push(*at, event));
    open.seal(after.hash)
}

/// A log with every kind of event, and then with awkward ones.
fn log_of_all_events(dir: &Path) {
    let mut blocks = frozen::blocks();
    blocks.push(seal(blocks.last().unwrap(), &awkward()));
    frozen::write(dir, &blocks);
}

#[test]
fn every_kind_of_event_is_exported_as_it_always_was() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    log_of_all_events(&dir);
    for format in ["ndjson", "cloudevents"] {
        let ran = run(&dir, &["log", "export", "--format", format]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let path = frozen::path(&format!("export/{format}.jsonl"));
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        for (index, (found, expected)) in ran.out.lines().zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{format}, line {index}");
        }
        assert!(ran.out == expected, "{format}: {} lines, and {} expected", ran.out.lines().count(), expected.lines().count());
    }
}

#[test]
fn blocks_carry_the_chain_and_the_events_that_are_exported_alone() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    log_of_all_events(&dir);
    let export = |format: &str, more: &[&str]| {
        let ran = run(&dir, &[&["log", "export", "--format", format], more].concat());
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let (all, mut events, mut previous) = (export("blocks", &[]), String::new(), Hash::ZERO);
    for line in all.lines() {
        let (block, hash) = decode(line.as_bytes()).unwrap();
        assert_eq!(block.header.previous, std::mem::replace(&mut previous, hash));
        let (_, list) = line.split_once("\"events\":[").unwrap();
        events += list.strip_suffix("]}").unwrap();
        events += ",";
    }
    let expected: String = export("ndjson", &[]).lines().map(|line| format!("{line},")).collect();
    assert_eq!(events, expected);
    assert_eq!(json(&dir, &["log", "verify"])[0]["head_hash"], previous.to_string());
    // Blocks are whole: that with the first position asked for to that with the last.
    let lines: Vec<&str> = all.lines().collect();
    let first = |line: &str| decode(line.as_bytes()).unwrap().0.header.first_position.0;
    let (from, until) = ((first(lines[1]) + 1).to_string(), (first(lines[2]) + 1).to_string());
    assert_eq!(export("blocks", &["--from", &from, "--until", &until]), format!("{}\n{}\n", lines[1], lines[2]));
    let until = first(lines[2]).to_string();
    assert_eq!(export("blocks", &["--until", &until]), format!("{}\n{}\n", lines[0], lines[1]));
    assert_eq!(export("blocks", &["--from", "2", "--until", "2"]), "");
}
