//! Blocks into State: events a second, one thread, lz4 and CRC-32C included; beside it the audits that a verification runs.
#![allow(dead_code, reason = "each bench uses its share of the support")]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ergate::events::audit::{Audit, Depth};
use ergate::events::block::Block;
use ergate::events::state::State;

fn fold(criterion: &mut Criterion) {
    let blocks = support::blocks(100_000, 1_000);
    let mut group = criterion.benchmark_group("fold");
    group.sample_size(20).throughput(Throughput::Elements(support::records(&blocks)));
    group.bench_function("state", |bencher| bencher.iter(|| support::fold(&blocks).position));
    for (name, depth) in [("audit of the chain", Depth::Chain), ("audit of decisions", Depth::Decisions)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut audit = Audit::new(depth, State::default(), None);
                blocks.iter().for_each(|block| {
                    audit.follow(&Block::parse(&block.bytes).expect("it was just sealed")).expect("the rules agree")
                });
                audit.events()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fold);
criterion_main!(benches);
