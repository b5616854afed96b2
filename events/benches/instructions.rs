//! One path of the core on one thread, without disk, clock or chance, for `benches/instructions.sh` to count its instructions under
//! callgrind: `instructions write|fold|audit`.
#![allow(dead_code, reason = "each bench uses its share of the support")]

#[path = "../../benches/support/mod.rs"]
mod support;

use std::hint::black_box;

use ergate_events::audit::{Audit, Depth};
use ergate_events::block::{Block, Hash, SealedBlock};
use ergate_events::log::EventLog;
use ergate_events::log::memory::MemoryLog;
use ergate_events::state::State;

/// Enough tasks that setting up and growing tables weigh under one per cent, few enough for seconds under callgrind. The script
/// divides by it.
const TASKS: u64 = 20_000;
const BATCH: u64 = 1_000;

/// Runs a path; callgrind collects in here only, by this function's name.
#[inline(never)]
fn measured<T>(path: impl FnOnce() -> T) -> T {
    black_box(path())
}

/// Decides, folds, encodes, seals and appends.
fn write(payloads: &[Vec<u8>]) -> MemoryLog {
    let mut log = MemoryLog::new();
    support::work(TASKS, BATCH, payloads, &mut |block| {
        log.append(&block).expect("it follows the head");
        log.sync().expect("memory takes it");
    });
    log
}

/// Reads blocks and decides everything in them again.
fn audit(blocks: &[SealedBlock]) -> Audit {
    let mut audit = Audit::new(Depth::Decisions, State::default(), Some(Hash::ZERO));
    for sealed in blocks {
        let block = Block::parse(&sealed.bytes).expect("it was just sealed");
        audit.follow(&block).expect("the rules agree");
    }
    audit
}

fn main() {
    let blocks = || support::blocks(TASKS, BATCH);
    let path = std::env::args().nth(1).unwrap_or_default();
    let records = match path.as_str() {
        "write" => {
            let payloads = support::payloads();
            measured(|| write(&payloads)).head().next.0
        }
        "fold" => {
            let blocks = blocks();
            measured(|| support::fold(&blocks)).position.0
        }
        "audit" => {
            let blocks = blocks();
            measured(|| audit(&blocks)).events()
        }
        // `cargo bench` comes without a path.
        _ => return,
    };
    // Opening, a task type and a replica; then three events a task.
    assert_eq!(records, 3 + 3 * TASKS, "the path did not run as a whole");
}
