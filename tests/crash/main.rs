//! Kills a process under load again and again, cuts the power under it, and holds what it acknowledged against what it left.
//!
//! A child runs the public API on a data directory: singles and batches, with and without idempotency keys, delays, priorities, retries,
//! cancellations, async and blocking functions, snapshots every few thousand events, small segments. It tells this process through a pipe
//! what it is about to send and what was acknowledged. After 4 to 400 ms it gets SIGKILL. What it left is folded here, from the beginning and
//! with every decision checked:
//!
//! - every acknowledged request is in the log once, at its ordinal, with its payload and key; one that was repeated with its key got the
//!   same task; one that was sent and never answered is there once or not at all,
//! - no task ends twice, no attempt starts twice or after the end of its task,
//! - the state that the child recovered and showed equals the fold up to there; snapshot and tail give the same as all of the log.
//!
//! Every 25 kills, and at the end, a child lets everything finish: each task must reach its end. `ERGATE_CRASH_CYCLES` sets the number of
//! kills, `ERGATE_SEED` repeats a run's choices. The power is cut in `power.rs`.
#![allow(
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "tests say aloud how they went, and look for a few events among many"
)]

mod disk;
mod full;
mod ledger;
mod load;
mod power;
#[path = "../support/process.rs"]
mod process;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use ledger::Ledger;
use load::{finish, load, show_state, start};
use process::{Chance, Facts, facts, recovered};

/// Kills on one directory; then the next one begins, since every check folds the whole log.
const CYCLES_A_DIRECTORY: u32 = 25;
/// Names of the directories, which tell a child what keeps its log.
const SLED: &str = "sled";
const FILE: &str = "file";

#[test]
fn child() {
    let Some((role, dir, argument)) = process::role() else { return };
    if role == "plain" {
        power::plain(&dir);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        if role == "fill" {
            return full::fill(&dir).await;
        }
        let ergate = start(&dir).await;
        show_state(&ergate).await;
        match role.as_str() {
            "load" => load(ergate, argument.parse().expect("a seed")).await,
            _ => finish(ergate).await,
        }
    });
}

#[derive(Default)]
struct Totals {
    kills: u32,
    acknowledged: u64,
    tasks: u64,
    ends: BTreeMap<&'static str, u64>,
    lost: u64,
    events: u64,
    from_snapshot: u32,
    digests: u64,
}

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_by_kills_on_files() {
    kills(FILE);
}

#[test]
fn nothing_acknowledged_is_lost_or_done_twice_by_kills_on_sled() {
    kills(SLED);
}

/// A reply that waits for no sync still waits for the system to have the bytes.
#[test]
fn without_syncs_a_kill_takes_nothing_either() {
    for name in ["file-memory", "sled-memory"] {
        kill_again_and_again(name, 6);
    }
}

fn kills(engine: &str) {
    let cycles = std::env::var("ERGATE_CRASH_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    kill_again_and_again(engine, cycles);
}

fn kill_again_and_again(engine: &str, cycles: u32) {
    let mut chance = Chance::seeded();
    let seed = chance.0;
    eprintln!("crash: {engine}, seed {seed}, {cycles} kills");
    let started = Instant::now();
    let mut totals = Totals::default();
    while totals.kills < cycles {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join(engine);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            one_directory(&data, (cycles - totals.kills).min(CYCLES_A_DIRECTORY), &mut chance, &mut totals);
        }));
        if let Err(panic) = outcome {
            eprintln!(
                "crash: failed with seed {seed} after {} kills; the directory is kept: {}",
                totals.kills,
                dir.keep().display()
            );
            std::panic::resume_unwind(panic);
        }
    }
    let Totals { kills, acknowledged, tasks, ends, lost, events, from_snapshot, digests } = totals;
    eprintln!(
        "crash: {engine}, {kills} kills, {acknowledged} acknowledgements, {tasks} tasks, ends {ends:?}, {lost} attempts lost and repeated, {events} events, \
         {from_snapshot} recoveries from a snapshot, {digests} live states compared, 0 violations, {:?}, seed {seed}",
        started.elapsed()
    );
    assert!(acknowledged > 0, "no child acknowledged anything, so nothing was proved");
}

fn one_directory(data: &Path, cycles: u32, chance: &mut Chance, totals: &mut Totals) {
    let mut ledger = Ledger::default();
    for _ in 0..cycles {
        let life = Duration::from_millis(4 + chance.below(397));
        kill_after(process::child("load", data, &chance.next().to_string()), life, &mut ledger);
        totals.kills += 1;
        if data.join("store").exists() {
            check(data, &mut ledger, totals);
        } else {
            assert!(ledger.acknowledged.is_empty(), "the directory is not there and something was acknowledged");
        }
    }
    let ran = process::run(process::child("finish", data, ""), Duration::from_secs(90));
    ran.told.iter().for_each(|line| ledger.note(line));
    assert_eq!(ran.code, Some(0), "the last run did not finish: {:?}\n{}", ran.told, ran.stderr);
    let facts = check(data, &mut ledger, totals);
    assert_eq!(facts.live(), 0, "some tasks have no end");
    totals.acknowledged += ledger.acknowledgements;
    totals.tasks += facts.tasks.len() as u64;
    totals.lost += facts.lost;
    totals.events += facts.events;
    totals.digests += facts.digests.len() as u64;
    for (outcome, count) in facts.outcomes {
        *totals.ends.entry(outcome).or_default() += count;
    }
}

/// Lets a child live so long from its first words on, then kills it, and takes down all that it told.
fn kill_after(mut command: std::process::Command, life: Duration, ledger: &mut Ledger) {
    command.stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("the child starts");
    let mut out = child.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = out.read_to_end(&mut bytes);
        bytes
    });
    std::thread::sleep(life);
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    process::told(&reader.join().expect("the reader ends")).iter().for_each(|line| ledger.note(line));
}

fn check(data: &Path, ledger: &mut Ledger, totals: &mut Totals) -> Facts {
    let wanted = ledger.digests.keys().copied().collect();
    let facts = match facts(data, &wanted) {
        Ok(facts) => facts,
        // A kill during the very first opening leaves a directory in which nothing was ever acknowledged.
        Err(error) if ledger.acknowledged.is_empty() && ledger.digests.is_empty() => {
            eprintln!("crash: an opening was cut off: {error}");
            return Facts::default();
        }
        Err(error) => panic!("{error}"),
    };
    ledger.check(&facts);
    let (state, from, _) = recovered(data, &facts).expect("the log recovers");
    assert_eq!(state.digest(), facts.state.digest(), "snapshot (position {from}) and tail are not the fold from the beginning");
    totals.from_snapshot += u32::from(from.0 > 0);
    facts
}
