//! Blocks as JSON: nothing is lost on the way there and back, whatever the events say, and nothing else is taken for a block.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod any;
mod newer;
mod refused;
mod speed;

use std::collections::BTreeSet;

use ergate_events::block::{Block, Hash, OpenBlock};
use ergate_events::event::{Envelope, Event};
use ergate_events::id::{Epoch, Ordinal, Position, ShardId};
use ergate_events::json::{EventWriter, Full, Line, decode, encode};
use ergate_events::time::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A block of these events.
fn block(shard: u16, position: u64, ordinal: u64, previous: Hash, events: &[(Timestamp, Event<'_>)]) -> Block {
    let mut open = OpenBlock::new(ShardId(shard), Epoch(u32::from(shard)), Position(position), Ordinal(ordinal));
    events.iter().for_each(|(at, event)| open.push(*at, event));
    Block::parse(&open.seal(previous).bytes).unwrap()
}

fn encoded(block: &Block) -> Vec<u8> {
    let mut json = b"before".to_vec();
    encode(block, block.hash(), &mut json).unwrap();
    json.split_off(6)
}

/// Asserts that a block comes back as it was.
#[track_caller]
fn comes_back(block: &Block) {
    let json = encoded(block);
    assert!(!json.contains(&b'\n'), "one line");
    let (read, hash) = decode(&json).unwrap_or_else(|error| panic!("{error:?} in {}", String::from_utf8_lossy(&json)));
    assert_eq!((hash, hash), (read.hash(), block.hash()));
    let records = |block: &Block| -> String { block.records().map(|record| format!("{:?}\n", record.unwrap())).collect() };
    assert_eq!(records(&read), records(block));
    // It can be stored and read again.
    let (mut expected, found) = (block.header, read.header);
    (expected.codec, expected.stored_len, expected.crc) = (0, expected.body_len, found.crc);
    assert_eq!(found, expected);
}

fn frozen() -> Vec<Block> {
    let (mut bytes, mut blocks): (&[u8], _) = (include_bytes!("../../../tests/fixtures/v4/log.blocks"), Vec::new());
    while !bytes.is_empty() {
        let block = Block::parse(bytes).unwrap();
        bytes = &bytes[block.header.block_len()..];
        blocks.push(block);
    }
    blocks
}

#[test]
fn a_log_with_every_kind_of_event_comes_back_as_it_was() {
    frozen().iter().for_each(comes_back);
}

#[test]
fn the_events_that_are_made_up_here_are_of_every_kind() {
    let frozen = frozen();
    let events = frozen.iter().flat_map(|block| block.records().map(|record| record.unwrap().event.name()));
    let (expected, mut found) = (events.collect::<BTreeSet<_>>(), BTreeSet::new());
    let (strategy, mut runner) = (any::event(), TestRunner::deterministic());
    (0..6_000).for_each(|_| {
        found.insert(strategy.new_tree(&mut runner).unwrap().current().name());
    });
    assert_eq!(found, expected);
}

#[test]
fn the_block_of_a_header_alone_carries_its_checksum() {
    let block = &frozen()[0];
    let (read, hash) = decode(&encoded(block)).unwrap();
    let mut open = OpenBlock::new(ShardId(0), read.header.epoch, Position(0), Ordinal(0));
    // Too short to be compressed, so that it is stored as it was read.
    let first = read.records().next().unwrap().unwrap();
    open.push(first.recorded_at, &first.event);
    let sealed = open.seal(Hash::ZERO);
    assert_eq!(open.into_block(1, Hash::ZERO).header, sealed.header);
    assert_eq!(hash, block.hash());
}

#[test]
fn a_block_that_cannot_be_read_is_not_half_written() {
    let sealed = {
        let mut open = OpenBlock::new(ShardId(0), Epoch(1), Position(0), Ordinal(u64::MAX));
        let event = Event::Redriven { task: Ordinal(0), by: "", reason: "" };
        open.push(Timestamp(0), &event);
        open
    };
    let mut out = b"before".to_vec();
    let block = sealed.into_block(1, Hash::ZERO);
    assert!(encode(&block, block.hash(), &mut out).is_err(), "its ordinals overflow");
    assert_eq!(out, b"before");
}

/// What an event is exported as, by serde alone.
fn by_serde(block: &Block) -> Vec<Vec<u8>> {
    let (mut next, mut line) = (block.header.first_ordinal, Line::default());
    let mut write = |envelope: Envelope<'_>| {
        let creates = envelope.event.creates_task().then_some(next);
        next.0 += u64::from(creates.is_some());
        let time = envelope.recorded_at.rfc3339();
        line.write(&Full::new(&envelope, block.header.shard, creates, &time)).unwrap().trim_ascii_end().to_vec()
    };
    block.records().map(|record| write(record.unwrap())).collect()
}

/// As [`by_serde`], but by [`EventWriter`].
fn by_writer(block: &Block) -> Vec<Vec<u8>> {
    let (mut next, mut writer) = (block.header.first_ordinal, EventWriter::default());
    let mut write = |envelope: Envelope<'_>| {
        let creates = envelope.event.creates_task().then_some(next);
        next.0 += u64::from(creates.is_some());
        let mut out = Vec::new();
        writer.append(&envelope, block.header.shard, creates, &mut out);
        out
    };
    block.records().map(|record| write(record.unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_block_comes_back_as_it_was(
        (shard, position, ordinal) in (any::<u16>(), 0..=u64::MAX / 2, 0..=u64::MAX / 2),
        previous in any::<[u8; 32]>(),
        times in any::times(),
        events in proptest::collection::vec(any::event(), 1..12),
    ) {
        let events: Vec<_> = times.into_iter().zip(events).collect();
        let block = block(shard, position, ordinal, Hash(previous), &events);
        comes_back(&block);
        let events = by_serde(&block);
        prop_assert_eq!(&by_writer(&block), &events);
        let json = encoded(&block);
        let tail = [b"\"events\":[".to_vec(), events.join(&b','), b"]}".to_vec()].concat();
        prop_assert!(json.ends_with(&tail));
        // Whatever serde_json makes of an event has the same fields.
        let _: serde_json::Value = serde_json::from_slice(&json).unwrap();
    }

    #[test]
    fn no_bytes_are_taken_for_a_block_but_those_of_one(at in 0_usize..4_000, byte in any::<u8>(), cut in any::<bool>()) {
        let block = &frozen()[0];
        let json = encoded(block);
        let at = at % json.len();
        let mut altered = json.clone();
        if cut { altered.truncate(at) } else { altered[at] = byte }
        match decode(&altered) {
            // Only what means the same: a space for a space, another way to write a text.
            Ok((read, hash)) => prop_assert_eq!((read.hash(), hash), (block.hash(), block.hash())),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
