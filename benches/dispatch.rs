//! Deciding: requests, starts and outcomes through a shard, and assignments alone over a long queue.
#![allow(dead_code, reason = "each bench uses its share of the support")]

mod support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ergate::events::command::Command;
use ergate::events::dispatch::assignments;
use ergate::events::id::{ReplicaId, TypeId};
use ergate::events::task::Ask;
use ergate::events::time::Timestamp;

fn dispatch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("whole life of a task", |bencher| bencher.iter(|| support::blocks(10_000, 1_000).len()));
    let payload = support::payload(7);
    group.bench_function("1,000 assignments of 100,000 ready tasks in ten priorities", |bencher| {
        let mut shard = support::shard(1);
        let mut answers = Vec::new();
        for first in 0..100_000_u64 {
            let asks = [Ask::Priority((first % 10) as u8)];
            let request = Command::Request { task_type: TypeId(0), payload: &payload, key: None, asks: &asks };
            shard.batch(Timestamp(2 + first), &[request], &mut answers, &mut support::nothing);
        }
        let mut state = shard.state().clone();
        let join = Command::JoinReplica { replica: ReplicaId(1), pool: "default", slots: 1_000 };
        let mut events = Vec::new();
        ergate::events::decide::decide(&state, &join, Timestamp(200_000), &mut events).expect("a new replica is taken");
        for event in events {
            let position = state.position;
            state.apply(&ergate::events::event::Envelope { position, recorded_at: Timestamp(200_000), event });
        }
        bencher.iter_batched(
            Vec::new,
            |mut out| {
                assignments(&state, state.last_at, &mut out);
                out.len()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
