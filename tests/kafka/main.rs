//! Disturbs engines and brokers under load, in every way that is known to hurt, and checks all that they leave behind.
//!
//! Engines are processes of their own with the public API (`engine.rs`); each reaches the brokers, real ones, by a way of its own on which
//! the network can be cut. A foreign producer publishes some hundred requests a second, keyed and unkeyed, good, repeated and malformed, and
//! remembers which ones the brokers acknowledged (`load.rs`). Something goes wrong (`faults.rs`); then everything accepted must come to
//! its end, the engines end, and the checker (`checker.rs`) holds the topics, the engines' copies and the traces of what ran against each
//! other. `doctored.rs` shows what the checker finds.
//!
//! Twenty rounds without further word; `ERGATE_KAFKA_FAULTS="kill=50,stop=50"` runs so many of each, `ERGATE_SEED` repeats a run's choices.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "tests may panic, say aloud how they went, and look for a few events among many"
)]

mod checker;
mod doctored;
mod engine;
mod faults;
mod fleet;
mod ground;
#[path = "../support/kafka/mod.rs"]
mod kafka;
mod load;
mod others;
#[path = "../support/packages.rs"]
mod packages;
#[path = "../support/process.rs"]
mod process;
mod shard;
mod takeover;
mod topic;
mod watch;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use faults::Fault;
use ground::{Ground, Kind};
use process::Chance;

/// Shards of every namespace.
const SHARDS: i32 = 8;
/// Rounds on one namespace; then the next one begins, since every check folds all of it.
const ROUNDS_A_NAMESPACE: usize = 4;
/// The rounds without further word.
const ROUNDS: &str = "kill=4,stop=2,broker=2,leader=2,cut=3,storm=2,transaction=1,producer=1,disk=1,clock=2";

#[test]
fn child() {
    if let Some((_, dir, argument)) = process::role() {
        engine::run(&dir, &argument);
    }
}

#[test]
fn every_record_is_answered_once_and_no_history_splits_whatever_goes_wrong() {
    if kafka::required().is_none() {
        return;
    }
    let wanted = std::env::var("ERGATE_KAFKA_FAULTS").unwrap_or_else(|_| ROUNDS.to_owned());
    let mut chance = Chance::seeded();
    let seed = chance.0;
    eprintln!("kafka: seed {seed}, {wanted}");
    let started = Instant::now();
    let mut done: BTreeMap<&'static str, u32> = BTreeMap::new();
    for (kind, mut faults) in by_kind(&plan(&wanted)) {
        shuffle(&mut faults, &mut chance);
        let Some(cluster) = ground::cluster(kind) else { continue };
        for rounds in faults.chunks(ROUNDS_A_NAMESPACE) {
            let mut ground = Ground::new(&cluster, kind);
            for fault in rounds {
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| ground.round(*fault, &mut chance)));
                if let Err(panic) = outcome {
                    eprintln!(
                        "kafka: {} failed with seed {seed}; kept: {}\n{}",
                        fault.name(),
                        ground.keep().display(),
                        ground.dump()
                    );
                    std::panic::resume_unwind(panic);
                }
                *done.entry(fault.name()).or_default() += 1;
            }
            ground.compare_with_others();
        }
    }
    eprintln!("kafka: {done:?}, 0 violations, {:?}, seed {seed}", started.elapsed());
}

/// The rounds that a text names, such as `kill=2,stop=1`.
fn plan(text: &str) -> Vec<Fault> {
    let round = |item: &str| {
        let (name, count) = item.split_once('=').unwrap_or((item, "1"));
        let fault = Fault::named(name.trim()).unwrap_or_else(|| panic!("there is no fault {name:?}"));
        vec![fault; count.trim().parse().unwrap_or_else(|_| panic!("{count:?} is no number of rounds"))]
    };
    text.split(',').filter(|item| !item.is_empty()).flat_map(round).collect()
}

/// The rounds by the brokers that they need, which are started once for all of them.
fn by_kind(faults: &[Fault]) -> BTreeMap<Kind, Vec<Fault>> {
    let mut kinds: BTreeMap<Kind, Vec<Fault>> = BTreeMap::new();
    faults.iter().for_each(|fault| kinds.entry(fault.needs()).or_default().push(*fault));
    kinds
}

fn shuffle(faults: &mut [Fault], chance: &mut Chance) {
    for index in (1..faults.len()).rev() {
        faults.swap(index, chance.below(index as u64 + 1) as usize);
    }
}
