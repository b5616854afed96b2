use std::path::Path;

use ergate::events::block::OpenBlock;
use ergate::events::event::{Event, RuleVersions};
use ergate::events::id::{Epoch, Ordinal, Position, ReplicaId, ShardId};
use ergate::events::log::EventLog;
use ergate::events::log::directory::Options;
use ergate::events::log::file::FileLog;
use ergate::events::time::Timestamp;

use crate::support::{flip, json, log, long_log, run, segments};

/// Every verb that only reads.
const READERS: [&[&str]; 8] = [
    &["task", "list"],
    &["task", "show", "0-0"],
    &["task", "history", "0-0"],
    &["log", "tail"],
    &["log", "show", "0"],
    &["log", "verify"],
    &["log", "export"],
    &["replay"],
];

#[test]
fn a_missing_or_foreign_directory_is_named() {
    let holder = tempfile::tempdir().unwrap();
    for args in READERS {
        run(&holder.path().join("nothing"), args).refuses(6, &["no log found in", "check --data"]);
        run(holder.path(), args).refuses(6, &["no log found in"]);
    }
    let file = holder.path().join("store");
    std::fs::write(&file, "shopping list").unwrap();
    run(&file, &["log", "verify"]).refuses(6, &["store is not a directory; check --data"]);
    run(holder.path(), &["log", "tail"]).refuses(5, &["store", "not usable as part of a log"]);
}

#[test]
fn a_newer_format_asks_for_a_newer_build() {
    let (_holder, dir) = log();
    let text = std::fs::read_to_string(dir.join("store")).unwrap();
    let content = text.split_once("crc ").unwrap().0.replace("format 1", "format 9");
    std::fs::write(dir.join("store"), format!("{content}crc {:08x}\n", crc32c(content.as_bytes()))).unwrap();
    for args in READERS {
        run(&dir, args).refuses(9, &["format 9", "use a newer build"]);
    }
}

/// CRC-32C bit by bit, for the one checksum that a test needs.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[test]
fn a_flipped_byte_is_found_with_its_file_and_position() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    long_log(&dir, 100);
    let segment = &segments(&dir)[1];
    let middle = std::fs::metadata(segment).unwrap().len() as usize / 2;
    flip(segment, middle);
    run(&dir, &["log", "verify"]).refuses(5, &["damaged at position", segment.to_str().unwrap()]);
    let [found] = &json(&dir, &["log", "verify"])[..] else { panic!("one object") };
    assert_eq!((&found["ok"], &found["finding"]["kind"]), (&false.into(), &"damaged".into()));
    assert_eq!(found["finding"]["file"], segment.to_str().unwrap());
    assert!(found["finding"]["position"].as_u64().unwrap() > 0);
    run(&dir, &["log", "export"]).refuses(5, &["damaged at position"]);
}

#[test]
fn a_torn_tail_is_told_and_is_no_damage() {
    let (_holder, dir) = log();
    let segment = segments(&dir).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes.extend_from_slice(b"ERGB half a block");
    std::fs::write(&segment, bytes).unwrap();
    let [verified] = &json(&dir, &["log", "verify"])[..] else { panic!("one object") };
    assert_eq!((&verified["ok"], &verified["torn"]["bytes"]), (&true.into(), &17.into()));
    let ran = run(&dir, &["log", "verify"]);
    assert!(ran.out.contains("17 bytes") && ran.out.contains("the next start cuts them"), "{}", ran.out);
}

#[test]
fn a_missing_end_and_a_missing_anchor_are_told_apart() {
    let (_holder, dir) = log();
    let segment = segments(&dir).pop().unwrap();
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() / 2]).unwrap();
    run(&dir, &["log", "verify"]).refuses(5, &["acknowledged events are missing", "--accept-loss"]);
    assert_eq!(json(&dir, &["log", "verify"])[0]["finding"]["kind"], "missing");
    std::fs::write(&segment, &bytes).unwrap();
    std::fs::remove_file(dir.join("anchor")).unwrap();
    run(&dir, &["log", "verify"]).refuses(5, &["anchor", "unusable"]);
}

/// A log whose chain is whole and that records a start which no rule gives.
fn log_of_a_liar(dir: &Path) {
    let (mut log, _) = FileLog::open(dir, Options { create: true, ..Options::default() }).unwrap();
    let mut block = OpenBlock::new(ShardId(0), Epoch(1), Position(0), Ordinal(0));
    block.push(Timestamp(10), &Event::Opened { epoch: Epoch(1), rules: RuleVersions::CURRENT, writer: "liar" });
    block.push(Timestamp(10), &Event::Started { task: Ordinal(7), attempt: 1, replica: ReplicaId(0) });
    log.append(&block.seal(log.head().hash)).unwrap();
    Box::new(log).close().unwrap();
}

#[test]
fn a_decision_that_no_rule_gives_is_shown_with_both_sides() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    log_of_a_liar(&dir);
    assert_eq!(run(&dir, &["log", "verify"]).code, 0);
    let [found] = &json(&dir, &["log", "verify", "--decisions"])[..] else { panic!("one object") };
    let finding = &found["finding"];
    assert_eq!(
        (&finding["kind"], &finding["position"], &finding["expected"]),
        (&"decision".into(), &1.into(), &"nothing".into())
    );
    assert!(finding["recorded"].as_str().unwrap().contains("Started"), "{finding}");
    assert!(finding["file"].as_str().unwrap().ends_with(".seg"), "{finding}");
    let ran = run(&dir, &["log", "verify", "--decisions"]);
    ran.refuses(5, &["position 1 is not what the rules give", "recorded: Started", "expected: nothing"]);
}
