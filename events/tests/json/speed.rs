//! What a block costs as JSON. Run it in release, alone:
//! `cargo test --release -p ergate-events --features json --test json -- --ignored --nocapture`
#![expect(clippy::print_stderr, clippy::disallowed_methods, reason = "a measurement")]

use std::hint::black_box;
use std::time::Instant;

use ergate_events::block::{Block, Hash, OpenBlock};
use ergate_events::codec::FORMAT;
use ergate_events::event::Event;
use ergate_events::id::{Epoch, Ordinal, Position, ReplicaId, ShardId, TypeId};
use ergate_events::json::{decode, encode};
use ergate_events::task::Outcome;
use ergate_events::time::Timestamp;

/// Tasks that go well, in batches of sixteen, in one block of 128 KiB.
fn usual() -> Block {
    let mut open = OpenBlock::new(ShardId(7), Epoch(1), Position(1_000_000), Ordinal(300_000));
    for batch in 0_u64.. {
        let at = Timestamp(1_772_366_400_000_000 + batch * 250);
        for _ in 0..16 {
            let task = open.next_ordinal();
            open.push(at, &Event::Requested { task_type: TypeId(0), payload: br#"{"to":"ada"}"#, key: None, asks: vec![] });
            open.push(at, &Event::Started { task, attempt: 1, replica: ReplicaId(3) });
            open.push(at, &Event::Succeeded { task, attempt: 1, outcome: Outcome::Succeeded, result: b"\"ok\"" });
        }
        if open.body_len() > 128 << 10 {
            break;
        }
    }
    open.into_block(FORMAT, Hash::ZERO)
}

#[test]
#[ignore = "a measurement"]
fn a_block_as_json() {
    let all: Vec<Block> = super::frozen();
    for (name, blocks) in [("tasks that go well", vec![usual()]), ("every kind of event", all)] {
        let events: u64 = blocks.iter().map(|block| u64::from(block.header.count)).sum();
        let rounds = 2_000_000 / events;
        let hashes: Vec<Hash> = blocks.iter().map(Block::hash).collect();
        let mut json = Vec::new();
        let each = |began: Instant| began.elapsed().as_nanos() as u64 / (rounds * events);
        let began = Instant::now();
        for _ in 0..rounds {
            json.clear();
            blocks.iter().zip(&hashes).for_each(|(block, hash)| encode(black_box(block), *hash, &mut json).unwrap());
        }
        let encoding = each(began);
        let texts: Vec<Vec<u8>> = blocks.iter().map(super::encoded).collect();
        let began = Instant::now();
        for _ in 0..rounds {
            texts.iter().for_each(|text| drop(black_box(decode(black_box(text)).unwrap())));
        }
        let decoding = each(began);
        let bytes = json.len() as u64 / events;
        eprintln!("{name}: {encoding} ns to encode an event, {decoding} ns to decode it, {bytes} bytes of JSON");
    }
}
