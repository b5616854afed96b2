//! How fast the file log is, beside a plain file that takes the same writes. Run it in release, alone:
//! `cargo test --release -p ergate-events --test file_log_throughput -- --ignored --nocapture`
#![expect(clippy::unwrap_used, clippy::print_stderr, clippy::disallowed_methods, reason = "a measurement")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use ergate_events::block::{Hash, OpenBlock, SealedBlock};
use ergate_events::event::Event;
use ergate_events::id::{Epoch, Ordinal, Position, ShardId};
use ergate_events::log::directory::Options;
use ergate_events::log::file::{FileLog, FileReader};
use ergate_events::log::{EventLog, LogReader};
use ergate_events::time::Timestamp;

/// Blocks of about this many bytes that do not compress.
fn blocks(count: usize, bytes: usize) -> Vec<SealedBlock> {
    let mut open = OpenBlock::new(ShardId(0), Epoch(1), Position(0), Ordinal(0));
    let (mut hash, mut random) = (Hash::ZERO, 1_u64);
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 32) as u8
    };
    (0..count)
        .map(|_| {
            for _ in 0..bytes / 1024 {
                let details: Vec<u8> = (0..1024).map(|_| next()).collect();
                open.push(Timestamp(1), &Event::Checkpointed { task: Ordinal(0), attempt: 1, details: &details });
            }
            let sealed = open.seal(hash);
            hash = sealed.hash;
            open.restart();
            sealed
        })
        .collect()
}

fn write_log(dir: &Path, blocks: &[SealedBlock], each: usize) -> Duration {
    let (mut log, _) = FileLog::open(dir, Options { create: true, ..Options::default() }).unwrap();
    let begin = Instant::now();
    for part in blocks.chunks(each) {
        part.iter().for_each(|block| log.append(block).unwrap());
        log.sync().unwrap();
    }
    let elapsed = begin.elapsed();
    Box::new(log).close().unwrap();
    elapsed
}

fn write_plain(path: &Path, blocks: &[SealedBlock], each: usize) -> Duration {
    let mut file = File::create(path).unwrap();
    let begin = Instant::now();
    for part in blocks.chunks(each) {
        part.iter().for_each(|block| file.write_all(&block.bytes).unwrap());
        file.sync_data().unwrap();
    }
    begin.elapsed()
}

fn report(what: &str, bytes: usize, syncs: usize, elapsed: Duration) {
    let rate = bytes as f64 / elapsed.as_secs_f64() / 1e6;
    eprintln!("{what}: {rate:.0} MB/s, {:.0} µs a step", elapsed.as_secs_f64() * 1e6 / syncs as f64);
}

fn compare(size: usize, count: usize, each: usize) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let blocks = blocks(count, size);
    let (bytes, syncs) = (blocks.iter().map(|block| block.bytes.len()).sum(), count.div_ceil(each));
    eprintln!("{count} blocks of {} KiB, a sync each {each}", size / 1024);
    for round in 0..3 {
        report("  log  ", bytes, syncs, write_log(&dir.path().join(format!("log{round}")), &blocks, each));
        report("  plain", bytes, syncs, write_plain(&dir.path().join(format!("plain{round}")), &blocks, each));
    }
    let begin = Instant::now();
    let reader = FileReader::open(&dir.path().join("log0")).unwrap();
    eprintln!("  opened in {:?}", begin.elapsed());
    let begin = Instant::now();
    let mut cursor = reader.cursor(Position(0)).unwrap();
    let mut read = 0;
    while let Some(block) = cursor.next_block().unwrap() {
        read += block.header.block_len();
    }
    report("  read ", read, count, begin.elapsed());
}

#[test]
#[ignore = "a measurement, and it writes gigabytes"]
fn append_and_read_throughput() {
    compare(64 << 10, 8_192, 16);
    compare(64 << 10, 1_024, 1);
    compare(1 << 10, 1_024, 1);
}
