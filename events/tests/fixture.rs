//! Frozen logs, one for each released format version: they must fold for ever, to the same events and the same state.
//!
//! `tests/fixtures/vN/` holds `log.blocks` (raw blocks, one after another), `events.jsonl` (an envelope a line) and `state.txt`
//! (the hash of the last block and the digest of the state). A change that makes this test fail needs a new format version
//! beside the old one; a new layout of state images alone changes only the digest in `state.txt`.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{audit, everything};
use ergate_events::block::{Block, Hash, OpenBlock};
use ergate_events::codec::FORMAT;
use ergate_events::event::Event;
use ergate_events::id::{Ordinal, ShardId};
use ergate_events::state::State;
use ergate_events::time::Micros;

fn folder(format: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../tests/fixtures/v{format}"))
}

fn parse_all(mut bytes: &[u8]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let block = Block::parse(bytes).expect("a frozen block can be read");
        bytes = &bytes[block.header.block_len()..];
        blocks.push(block);
    }
    blocks
}

fn fold(blocks: &[Block]) -> (State, Vec<String>) {
    let (mut state, mut lines, mut head) = (State::default(), Vec::new(), Hash::ZERO);
    for block in blocks {
        assert_eq!(block.header.previous, head, "the chain holds");
        for envelope in block.records() {
            let envelope = envelope.expect("a frozen record can be read");
            let line = serde_json::to_value(&envelope).expect("every envelope has a JSON form");
            assert_eq!(line["event"], envelope.event.name());
            lines.push(serde_json::to_string(&envelope).expect("every envelope has a JSON form"));
            state.apply(&envelope);
        }
        head = block.hash();
    }
    (state, lines)
}

fn summary(blocks: &[Block], state: &State) -> String {
    let head = blocks.last().map_or(Hash::ZERO, Block::hash);
    format!("head {head}\nstate {}\n", state.digest())
}

#[test]
fn the_frozen_logs_fold_to_what_they_always_did() {
    (1..=FORMAT).for_each(folds_as_ever);
}

fn folds_as_ever(format: u16) {
    let read = |name: &str| fs::read(folder(format).join(name)).expect("the fixture is part of the repository");
    let blocks = parse_all(&read("log.blocks"));
    let codecs: Vec<u8> = blocks.iter().map(|block| block.header.codec).collect();
    assert!(codecs.len() >= 3 && codecs.contains(&0) && codecs.contains(&1), "{codecs:?}");
    let (state, lines) = fold(&blocks);
    let expected = String::from_utf8(read("events.jsonl")).expect("JSON is UTF-8");
    for (index, (found, expected)) in lines.iter().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "event {index}");
    }
    assert_eq!(lines.len(), expected.lines().count());
    assert_eq!(summary(&blocks, &state), String::from_utf8(read("state.txt")).expect("it is text"));
    // The last block was made by hand to have every kind of event; the others were decided.
    audit(&blocks[..blocks.len() - 1]).expect("the rules of then give what was recorded");
}

/// Makes the fixture of a new format version. It never overwrites one: a frozen log that changes proves nothing.
#[test]
#[ignore = "writes a new fixture; only for a new format version, whose folder does not exist yet"]
fn write_the_fixture() {
    let mut blocks = everything();
    let last = blocks.last().expect("there are blocks");
    let (state, _) = fold(&blocks);
    let mut open = OpenBlock::new(ShardId(0), state.epoch, state.position, state.next_ordinal());
    let dead = state.work.dead.keys().next().copied().unwrap_or(Ordinal(0));
    open.push(state.last_at.after(Micros(1)), &Event::DeadLetterDropped { task: dead });
    blocks.push(Block::parse(&open.seal(last.hash()).bytes).expect("it was just sealed"));
    let mut head = Hash::ZERO;
    let mut raw = Vec::new();
    for block in &blocks {
        let sealed = seal_again(block, head);
        head = sealed.0;
        raw.extend(sealed.1);
    }
    let (state, lines) = fold(&blocks);
    fs::create_dir_all(folder(FORMAT)).expect("the folder can be made");
    for (name, bytes) in [
        ("log.blocks", raw),
        ("events.jsonl", (lines.join("\n") + "\n").into_bytes()),
        ("state.txt", summary(&blocks, &state).into_bytes()),
    ] {
        let mut file = fs::File::create_new(folder(FORMAT).join(name)).expect("a frozen fixture is never overwritten");
        file.write_all(&bytes).expect("it fits");
    }
}

/// A block that was read does not keep its bytes, so they are made again; they are the same.
fn seal_again(block: &Block, previous: Hash) -> (Hash, Vec<u8>) {
    let header = block.header;
    let mut open = OpenBlock::new(header.shard, header.epoch, header.first_position, header.first_ordinal);
    for envelope in block.records() {
        let envelope = envelope.expect("it was just sealed");
        open.push(envelope.recorded_at, &envelope.event);
    }
    let sealed = open.seal(previous);
    assert_eq!(sealed.header, header);
    (sealed.hash, sealed.bytes)
}
