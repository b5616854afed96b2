//! Somebody else's verifier, written from docs/log-format.md alone, reads what the real binary wrote.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
#[path = "support/frozen.rs"]
mod frozen;
#[path = "support/stranger.rs"]
mod stranger;

use std::path::{Path, PathBuf};
use std::process::Command;

use command::run;
use ergate::events::codec::FORMAT;
use serde_json::{Value, json};

/// A log of a demo over so many files, in segments of 64 KiB.
fn demo_log(dir: &Path, engine: &str, files: u32) -> PathBuf {
    let (tree, data) = (dir.join("tree"), dir.join("data"));
    std::fs::create_dir(&tree).unwrap();
    (0..files).for_each(|file| std::fs::write(tree.join(format!("some-file-{file}")), format!("{file}")).unwrap());
    let config = dir.join("ergate.toml");
    std::fs::write(&config, "[log]\nsegment_size = \"64KiB\"\n").unwrap();
    let log = format!("{engine}:{}", data.display());
    run(&["--quiet", "--config", config.to_str().unwrap(), "demo", "--dir", tree.to_str().unwrap(), "--log", &log]).expect(0);
    data
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// What the verifier should report of a whole log, as our own does.
fn ours(data: &Path, tasks: u32) -> Value {
    let ours = run(&["-o", "json", "log", "verify", "--data", data.to_str().unwrap()]).expect(0).json();
    let [blocks, events, head, head_hash] = ["blocks", "events", "head", "head_hash"].map(|name| &ours[name]);
    let shard = json!({
        "shard": 0, "blocks": blocks, "events": events, "tasks": tasks, "first": 0, "head": head, "head_hash": head_hash,
    });
    json!({ "shards": [shard], "torn_bytes": 0 })
}

/// The log as blocks of JSON, through a pipe as a user would send it.
fn exported(data: &Path) -> String {
    run(&["--quiet", "log", "export", "--format", "blocks", "--data", data.to_str().unwrap()]).expect(0).out
}

fn lines(blocks: &str) -> stranger::Verdict {
    stranger::verify("-".as_ref(), blocks.as_bytes())
}

#[test]
fn the_verifier_keeps_to_the_page() {
    let mut tests = Command::new(stranger::python());
    let ran = tests.args(["-B", "-m", "unittest", "test_verify"]).current_dir(stranger::folder()).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_verifier_written_from_the_page_alone_reads_every_kind_of_event() {
    for format in 1..=FORMAT {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let blocks = frozen::blocks_of(format);
        frozen::write(&data, &blocks);
        let report = stranger::verify(data.as_os_str(), b"").report();
        assert_eq!(report["shards"][0]["head_hash"], blocks.last().unwrap().hash.to_string());
        assert_eq!(lines(&exported(&data)).report(), report);
    }
}

#[test]
fn a_verifier_written_from_the_page_alone_agrees_and_refuses_a_flipped_byte() {
    let dir = tempfile::tempdir().unwrap();
    let data = demo_log(dir.path(), "file", 1_500);
    let verify = || stranger::verify(data.as_os_str(), b"");
    assert_eq!(verify().report(), ours(&data, 1_500));
    assert_eq!(lines(&exported(&data)).report(), ours(&data, 1_500));
    let segments = segments(&data);
    assert!(segments.len() > 1, "one segment joins nothing");
    let bytes = std::fs::read(&segments[0]).unwrap();
    assert!(bytes.windows(4).enumerate().any(|(at, magic)| magic == b"ERGB" && bytes[at + 40] == 1), "no block has lz4");
    // In the first header, in the middle, and in the very last byte of the log.
    for (segment, at) in [(0, 20), (0, bytes.len() / 2), (segments.len() - 1, usize::MAX)] {
        let whole = std::fs::read(&segments[segment]).unwrap();
        let mut flipped = whole.clone();
        let at = at.min(whole.len() - 1);
        flipped[at] ^= 1;
        std::fs::write(&segments[segment], flipped).unwrap();
        verify().refuses("position ");
        std::fs::write(&segments[segment], whole).unwrap();
    }
    // A log that ends earlier, between two blocks, is a valid log; only the anchor tells.
    std::fs::remove_file(segments.last().unwrap()).unwrap();
    verify().refuses("acknowledged");
}

#[test]
fn a_log_of_sled_is_verified_from_its_export_and_refused_once_altered_or_cut() {
    let dir = tempfile::tempdir().unwrap();
    let data = demo_log(dir.path(), "sled", 600);
    stranger::verify(data.as_os_str(), b"").refuses("ergate log export --format blocks");
    let (whole, expected) = (exported(&data), ours(&data, 600));
    assert_eq!(lines(&whole).report(), expected);
    let blocks: Vec<&str> = whole.lines().collect();
    let block = blocks.iter().position(|block| block.contains("\"event\":\"succeeded\"")).unwrap();
    let at = |name: &str, index: usize| -> String {
        let block: Value = serde_json::from_str(blocks[index]).unwrap();
        block[name].as_str().unwrap().to_owned()
    };
    // One thing altered in a block; it, or the block after it, is refused by name.
    let (here, next) = (format!("position {}", at("position", block)), format!("position {}", at("position", block + 1)));
    for (old, new, words) in [
        ("\"outcome\":\"SUCCEEDED\"", "\"outcome\":\"SKIPPED\"", &here),
        ("\"attempt\":1", "\"attempt\":2", &here),
        ("\"epoch\":\"e1\"", "\"epoch\":\"e2\"", &here),
        ("\"shard\":\"0\"", "\"shard\":\"1\"", &here),
    ] {
        assert!(blocks[block].contains(old), "{old}");
        let altered = [&blocks[..block], &[&blocks[block].replacen(old, new, 1)], &blocks[block + 1..]].concat().join("\n");
        let verdict = lines(&(altered + "\n"));
        if old.contains("shard") { verdict.refuses("another shard") } else { verdict.refuses(words) }
    }
    // A block is missing, two have changed places, the last line is cut off.
    lines(&[&blocks[..block], &blocks[block + 1..]].concat().join("\n")).refuses(&next);
    let swapped = [&blocks[..block], &[blocks[block + 1], blocks[block]], &blocks[block + 2..]].concat();
    lines(&swapped.join("\n")).refuses(&next);
    let last = format!("after position {}", at("position", blocks.len() - 1).parse::<u64>().unwrap() - 1);
    lines(&whole[..whole.len() - 9]).refuses(&last);
    // A log that begins later is one that retention has shortened.
    let rest = lines(&(blocks[block..].join("\n") + "\n")).report();
    assert_eq!(rest["shards"][0]["head_hash"], expected["shards"][0]["head_hash"]);
    assert_eq!(rest["shards"][0]["first"].to_string(), at("position", block));
}
