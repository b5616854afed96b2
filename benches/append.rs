//! Appending sealed blocks of about 128 KiB to each log with one sync each, beside a plain file that gets the same bytes.
#![allow(dead_code, reason = "each bench uses its share of the support")]

mod support;

use std::io::Write;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ergate::events::log::EventLog;
use ergate::events::log::directory::{self, Engine, Options};
use ergate::events::log::memory::MemoryLog;

fn append(criterion: &mut Criterion) {
    let blocks = support::blocks(20_000, 1_000);
    // Not the system's temporary folder, which may be memory.
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target folder is writable");
    let mut group = criterion.benchmark_group("append, durability fsync");
    group.sample_size(20).throughput(Throughput::Elements(support::records(&blocks)));
    let mut runs = 0;
    for engine in [None, Some(Engine::File), Some(Engine::Sled)] {
        let name = engine.map_or("memory", Engine::name);
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    runs += 1;
                    open(engine, &scratch.path().join(runs.to_string()))
                },
                |mut log| {
                    for block in &blocks {
                        log.append(block).expect("there is space");
                        log.sync().expect("the disk answers");
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("plain file", |bencher| {
        bencher.iter_batched(
            || tempfile::tempfile_in(scratch.path()).expect("the target folder is writable"),
            |mut file| {
                for block in &blocks {
                    file.write_all(&block.bytes).expect("there is space");
                    file.sync_data().expect("the disk answers");
                }
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// A new log.
fn open(engine: Option<Engine>, dir: &Path) -> Box<dyn EventLog> {
    let Some(engine) = engine else { return Box::new(MemoryLog::new()) };
    let options = Options { create: true, engine: Some(engine), ..Options::default() };
    directory::open(dir, &options).expect("a new directory").0
}

criterion_group!(benches, append);
criterion_main!(benches);
