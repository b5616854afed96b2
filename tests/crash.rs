//! Kills a process under load again and again, and holds what it acknowledged against what it left.
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
//! kills, `ERGATE_SEED` repeats a run's choices.
#![allow(
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "tests say aloud how they went, and look for a few events among many"
)]

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ergate::events::id::TaskId;
use ergate::events::time::Micros;
use ergate::{Context, Extras, IntoTask, RequestBatch, RetryPolicy, Runtime, SubmitError, TaskError, TypeSettings, blocking};
use process::{Chance, Facts, facts, recovered, tell};

/// Kills on one directory; then the next one begins, since every check folds the whole log.
const CYCLES_A_DIRECTORY: u32 = 25;
const SUBMITTERS: u64 = 4;
/// Names of the directories, which tell a child what keeps its log.
const SLED: &str = "sled";
const FILE: &str = "file";

#[test]
fn child() {
    let Some((role, dir, argument)) = process::role() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let ergate = start(&dir).await;
        show_state(&ergate).await;
        match role.as_str() {
            "load" => load(ergate, argument.parse().expect("a seed")).await,
            _ => finish(ergate).await,
        }
    });
}

async fn start(dir: &Path) -> Runtime {
    let retry =
        RetryPolicy { attempts: 4, initial: Micros::from_millis(2), max: Micros::from_millis(20), ..RetryPolicy::default() };
    // Every kill loses what ran; here that says nothing about the task.
    let settings = |pool: &str| TypeSettings { retry, losses_max: u32::MAX, pool: pool.to_owned(), ..TypeSettings::default() };
    let builder = if dir.ends_with(SLED) { Runtime::builder().sled(dir) } else { Runtime::builder().file(dir) };
    let started = builder
        .log_options(process::small_files())
        .snapshot_every_events(3_000)
        .pool("default", 2, 32)
        .pool("threads", 1, 4)
        .task_with("quick", settings("default"), IntoTask::into_task(quick))
        .task_with("slow", settings("default"), IntoTask::into_task(slow))
        .task_with("flaky", settings("default"), IntoTask::into_task(flaky))
        .task_with("thread", settings("threads"), blocking(thread))
        .start()
        .await;
    match started {
        Ok(ergate) => ergate,
        Err(error) => {
            tell(&format!("REFUSED {error} {error:?}"));
            std::process::exit(3);
        }
    }
}

async fn quick(payload: String) -> Result<usize, TaskError> {
    Ok(payload.len())
}

async fn slow(context: Context, payload: String) -> Result<usize, TaskError> {
    context.keep(payload.as_bytes());
    tokio::time::sleep(Duration::from_micros(payload.len() as u64 * 97 % 6_000)).await;
    Ok(payload.len())
}

async fn flaky(context: Context, payload: String) -> Result<usize, TaskError> {
    match (context.attempt().number as usize + payload.len()) % 4 {
        0 => Ok(payload.len()),
        1 => Err(TaskError::permanent("broken", "no attempt can do this")),
        _ => Err(TaskError::new("flaky", "the next attempt may do this")),
    }
}

fn thread(context: Context, payload: String) -> Result<usize, TaskError> {
    std::thread::sleep(Duration::from_micros(payload.len() as u64 * 31 % 2_000));
    if context.is_cancelled() { Err(TaskError::new("cancelled", "it was asked to stop")) } else { Ok(payload.len()) }
}

/// Tells the parent the state that this process works with, at a position, once that is durable: what is not may be decided
/// differently after a kill.
async fn show_state(ergate: &Runtime) {
    if let Ok(state) = ergate.state().await {
        while ergate.durable() < state.position && ergate.failure().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tell(&format!("D {} {}", state.position.0, state.digest()));
    }
}

const TYPES: [&str; 4] = ["quick", "slow", "flaky", "thread"];

async fn load(ergate: Runtime, seed: u64) {
    let sent = std::sync::Arc::new(AtomicU64::new(0));
    for submitter in 0..SUBMITTERS {
        let (ergate, sent) = (ergate.clone(), std::sync::Arc::clone(&sent));
        tokio::spawn(async move {
            let mut chance = Chance(seed ^ (submitter << 56));
            let mut accepted = Vec::new();
            loop {
                // The runtime keeps up; a log that only grows would make the checks slow, not the proof better.
                while sent.load(Ordering::Relaxed).saturating_sub(ergate.with_progress(|progress| progress.done())) > 3_000 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let turn = sent.fetch_add(1, Ordering::Relaxed);
                let name = format!("{seed:x}.{submitter}.{turn}");
                match chance.below(8) {
                    0 => batch(&ergate, &mut chance, &name).await,
                    1 => cancel(&ergate, &mut chance, &accepted).await,
                    _ => accepted.extend(single(&ergate, &mut chance, &name).await),
                }
                if chance.below(3) == 0 {
                    tokio::time::sleep(Duration::from_micros(chance.below(900))).await;
                }
            }
        });
    }
    loop {
        tokio::time::sleep(Duration::from_millis(40)).await;
        show_state(&ergate).await;
    }
}

fn extras(chance: &mut Chance, ergate: &Runtime, key: Option<String>) -> Extras {
    let not_before = (chance.below(5) == 0).then(|| ergate.now().after(Micros::from_millis(chance.below(30))));
    let priority = (chance.below(3) == 0).then(|| chance.below(10) as u8);
    Extras { key, not_before, priority, ..Extras::default() }
}

async fn single(ergate: &Runtime, chance: &mut Chance, name: &str) -> Option<TaskId> {
    let task_type = TYPES[chance.below(4) as usize];
    let key = (chance.below(2) == 0).then(|| name.to_owned());
    let payload = format!("{name}.{}", "x".repeat(chance.below(200) as usize));
    let times = if key.is_some() { 1 + chance.below(2) } else { 1 };
    let mut id = None;
    for _ in 0..times {
        tell(&format!("S {} {payload}", key.as_deref().unwrap_or("-")));
        match ergate.submit_with(task_type, &payload, extras(chance, ergate, key.clone())).await {
            Ok(task) => {
                tell(&format!("A {} {} {payload}", task.id.ordinal.0, key.as_deref().unwrap_or("-")));
                id = Some(task.id);
            }
            Err(SubmitError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => tell(&format!("E {error}")),
        }
    }
    id
}

async fn batch(ergate: &Runtime, chance: &mut Chance, name: &str) {
    let mut requests = RequestBatch::new();
    let mut items = Vec::new();
    for index in 0..1 + chance.below(24) {
        let id = ergate.task_type(TYPES[chance.below(4) as usize]).expect("it is registered");
        let key = (chance.below(4) == 0).then(|| format!("{name}.{index}"));
        let payload = format!("{name}.{index}.{}", "y".repeat(chance.below(120) as usize));
        tell(&format!("S {} {payload}", key.as_deref().unwrap_or("-")));
        let extras = extras(chance, ergate, key.clone());
        requests.push(id, format!("{payload:?}").as_bytes(), Some(Box::new(extras)));
        items.push((key, payload));
    }
    match ergate.submit_batch(requests).await {
        Ok(batch) => {
            let mut lines = Vec::new();
            for ((key, payload), answer) in items.iter().zip(batch.answer.iter()) {
                let (ordinal, _) = answer.expect("nothing in this batch is refused");
                lines.push(format!("A {} {} {payload}", ordinal.0, key.as_deref().unwrap_or("-")));
            }
            lines.iter().for_each(|line| tell(line));
        }
        Err(error) => tell(&format!("E {error}")),
    }
}

async fn cancel(ergate: &Runtime, chance: &mut Chance, accepted: &[TaskId]) {
    let Some(task) = accepted.len().checked_sub(1).map(|last| accepted[last - chance.below(last as u64 / 4 + 1) as usize]) else {
        return;
    };
    // Most have ended, which is an answer too.
    let _ = match chance.below(2) {
        0 => ergate.cancel(task, "test", "by chance").await,
        _ => ergate.kill(task, "test", "by chance").await,
    };
}

async fn finish(ergate: Runtime) {
    let started = Instant::now();
    loop {
        let state = ergate.state().await.expect("the runtime runs");
        if state.work.tasks.is_empty() {
            break;
        }
        if started.elapsed() > Duration::from_secs(60) {
            tell(&format!("STUCK {} tasks", state.work.tasks.len()));
            std::process::exit(4);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    show_state(&ergate).await;
    ergate.shutdown().await.expect("it closes");
    tell("FINISHED");
}

/// What this process knows from what the children told, and nothing else.
#[derive(Default)]
struct Ledger {
    /// Acknowledged: ordinal to key and payload.
    acknowledged: BTreeMap<u64, (String, String)>,
    sent: BTreeSet<String>,
    /// Digests of states that children worked with, by position.
    digests: BTreeMap<u64, String>,
    acknowledgements: u64,
}

impl Ledger {
    fn note(&mut self, line: &str) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("S"), Some(_), Some(payload), None) => {
                self.sent.insert(payload.to_owned());
            }
            (Some("A"), Some(ordinal), Some(key), Some(payload)) => {
                self.acknowledgements += 1;
                let entry = (key.to_owned(), payload.to_owned());
                let known = self.acknowledged.entry(ordinal.parse().expect("an ordinal")).or_insert_with(|| entry.clone());
                assert_eq!(*known, entry, "task {ordinal} was acknowledged for two requests");
            }
            (Some("D"), Some(position), Some(digest), None) => {
                self.digests.insert(position.parse().expect("a position"), digest.to_owned());
            }
            (Some("FINISHED"), ..) => {}
            _ => panic!("a child says: {line}"),
        }
    }

    fn check(&mut self, facts: &Facts) {
        for (ordinal, (key, payload)) in &self.acknowledged {
            let Some((found, found_key)) = facts.tasks.get(*ordinal as usize) else {
                panic!("task {ordinal} was acknowledged and is lost; the log has {} tasks", facts.tasks.len());
            };
            assert_eq!(String::from_utf8_lossy(found), format!("{payload:?}"), "task {ordinal} has another payload");
            assert_eq!(found_key.as_deref().unwrap_or("-"), key, "task {ordinal} has another key");
        }
        let mut seen = BTreeSet::new();
        for (payload, _) in &facts.tasks {
            let payload = String::from_utf8_lossy(payload).trim_matches('"').to_owned();
            assert!(self.sent.contains(&payload), "a task that nobody sent is in the log: {payload}");
            assert!(seen.insert(payload.clone()), "a request is in the log twice: {payload}");
        }
        for (position, digest) in &facts.digests {
            assert_eq!(Some(digest), self.digests.get(position), "the live state at position {position} is not the fold");
        }
    }
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

fn kills(engine: &str) {
    let cycles: u32 = std::env::var("ERGATE_CRASH_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
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
