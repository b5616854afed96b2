//! Records to bytes and back: ns a record, one thread, events of no-op tasks with 100-byte payloads.
#![allow(dead_code, reason = "each bench uses its share of the support")]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ergate::events::block::Block;
use ergate::events::codec::v1;

fn codec(criterion: &mut Criterion) {
    let blocks = support::blocks(10_000, 1_000);
    let parsed: Vec<Block> = blocks.iter().map(|block| Block::parse(&block.bytes).expect("it was just sealed")).collect();
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(support::records(&blocks)));
    group.bench_function("decode", |bencher| {
        bencher.iter(|| parsed.iter().flat_map(Block::records).filter(Result::is_ok).count())
    });
    let events: Vec<_> = parsed.iter().flat_map(Block::records).filter_map(Result::ok).collect();
    let mut body = Vec::new();
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            body.clear();
            events.iter().for_each(|envelope| v1::encode(0, &envelope.event, &mut body));
            body.len()
        });
    });
    group.bench_function("parse block (CRC-32C, lz4)", |bencher| {
        bencher.iter(|| {
            blocks.iter().map(|block| Block::parse(&block.bytes).expect("it was just sealed").header.count).sum::<u32>()
        });
    });
    group.bench_function("hash block (BLAKE3)", |bencher| bencher.iter(|| parsed.iter().map(|block| block.hash().0[0]).max()));
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
