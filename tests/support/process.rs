//! What the black-box proofs share: children of this test binary, what they print, and one independent checker of the log they leave.
//!
//! The expectation is kept outside the system under test: a child prints what it sends and what was acknowledged, the parent keeps it.

#![allow(dead_code, reason = "each proof uses its own part of this module")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ergate::events::audit::{Audit, Depth};
use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::events::log::directory::{self, Options};
use ergate::events::log::snapshot::SnapshotStore;
use ergate::events::log::{Head, LogReader};
use ergate::events::state::State;

/// Names the role of a child; the tests of a child's name return at once without it.
pub(crate) const ROLE: &str = "ERGATE_TEST_ROLE";
/// Where a child finds its directory.
pub(crate) const DIR: &str = "ERGATE_TEST_DIR";
/// What else a child is told.
pub(crate) const ARGUMENT: &str = "ERGATE_TEST_ARGUMENT";

/// What this process was started to do, if it is a child.
pub(crate) fn role() -> Option<(String, PathBuf, String)> {
    let role = std::env::var(ROLE).ok()?;
    let dir = std::env::var(DIR).unwrap_or_default();
    Some((role, dir.into(), std::env::var(ARGUMENT).unwrap_or_default()))
}

/// This test binary again, running only its test `child` in this role.
pub(crate) fn child(role: &str, dir: &Path, argument: &str) -> Command {
    wrapped(&[], role, dir, argument)
}

/// As [`child`], run by another program such as strace.
pub(crate) fn wrapped(by: &[&str], role: &str, dir: &Path, argument: &str) -> Command {
    let this = std::env::current_exe().expect("a test binary knows its path");
    let mut command = match by.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
        None => Command::new(this),
    };
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(DIR, dir).env(ARGUMENT, argument);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Says one thing to the parent, as one write.
pub(crate) fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    let text = format!("@{line}\n");
    // A parent that is gone wants nothing more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What children have told, from their raw output; a line that the kill cut off is not one.
pub(crate) fn told(output: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(output);
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().filter_map(|line| Some(line[line.find('@')? + 1..].to_owned())).collect()
}

/// Runs a child to its end, and fails the test if it does not end in time.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) told: Vec<String>,
    pub(crate) stderr: String,
    pub(crate) timed_out: bool,
}

pub(crate) fn run(mut command: Command, limit: Duration) -> Ran {
    let mut child = command.spawn().expect("the child starts");
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            bytes
        })
    };
    let out = read(Box::new(child.stdout.take().expect("stdout is piped")));
    let err = read(Box::new(child.stderr.take().expect("stderr is piped")));
    let started = Instant::now();
    let mut timed_out = false;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if started.elapsed() > limit => {
                timed_out = true;
                child.kill().expect("a child can be killed");
                break child.wait().expect("a child can be waited for");
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let told = told(&out.join().expect("the reader ends"));
    let stderr = String::from_utf8_lossy(&err.join().expect("the reader ends")).into_owned();
    Ran { code: status.code(), told, stderr, timed_out }
}

/// Small segments, so that a short run has several.
pub(crate) fn small_files() -> Options {
    Options { create: true, segment_bytes: 96 << 10, prealloc_bytes: 32 << 10, low_water_bytes: 0, ..Options::default() }
}

/// A runtime for an async test that must not hang.
pub(crate) fn block_on<T>(limit: Duration, future: impl std::future::Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, future).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.unwrap_or_else(|_| panic!("the test hangs: it did not end within {limit:?}"))
}

/// A small generator of chance, so that a seed tells the whole run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn seeded() -> Chance {
        let seed = std::env::var("ERGATE_SEED").ok().and_then(|text| text.parse().ok());
        Chance(seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// What a whole log says, folded from its beginning by rules that do not use the runtime.
#[derive(Default)]
pub(crate) struct Facts {
    /// The payload and key of every task, by ordinal; a redriven task has none.
    pub(crate) tasks: Vec<(Vec<u8>, Option<String>)>,
    /// How often each task ended.
    pub(crate) ends: BTreeMap<u64, u32>,
    /// Ends by outcome.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    /// How often each attempt was started.
    pub(crate) starts: BTreeMap<(u64, u32), u32>,
    /// Attempts that ended with whoever had them, those that were given back among them.
    pub(crate) lost: u64,
    /// Attempts that a worker gave back, which counts for nothing.
    pub(crate) returned: u64,
    pub(crate) events: u64,
    pub(crate) state: State,
    /// Digests of the folded state at the positions that were asked for.
    pub(crate) digests: BTreeMap<u64, String>,
}

/// Verifies the log in `dir` from its beginning, decisions included, and says what it holds.
pub(crate) fn facts(dir: &Path, wanted: &BTreeSet<u64>) -> Result<Facts, String> {
    let reader = directory::read(dir).map_err(|error| format!("the log cannot be read: {error}"))?;
    facts_of(reader.as_ref(), wanted)
}

pub(crate) fn facts_of(reader: &dyn LogReader, wanted: &BTreeSet<u64>) -> Result<Facts, String> {
    let mut audit = Audit::new(Depth::Decisions, State::default(), None);
    let mut facts = Facts::default();
    let mut cursor = reader.cursor(Position(0)).map_err(|error| error.to_string())?;
    while let Some(block) = cursor.next_block().map_err(|error| error.to_string())? {
        audit.follow(&block).map_err(|finding| format!("the audit found: {finding}"))?;
        for envelope in block.records() {
            let envelope = envelope.map_err(|error| error.to_string())?;
            facts.note(&envelope.event)?;
            facts.state.apply(&envelope);
            if wanted.contains(&facts.state.position.0) {
                facts.digests.insert(facts.state.position.0, facts.state.digest().to_string());
            }
        }
    }
    facts.events = audit.events();
    let head = reader.span().next;
    if facts.state.position != head {
        return Err(format!("the fold ends at {} and the log at {head}", facts.state.position));
    }
    Ok(facts)
}

impl Facts {
    fn note(&mut self, event: &Event<'_>) -> Result<(), String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the proofs ask about these events")]
        match *event {
            Event::Requested { payload, key, .. } => self.tasks.push((payload.to_vec(), key.map(|key| key.key.to_owned()))),
            Event::Redriven { .. } => self.tasks.push((Vec::new(), None)),
            Event::Started { task, attempt, .. } => {
                let count = self.starts.entry((task.0, attempt)).or_default();
                *count += 1;
                if *count > 1 {
                    return Err(format!("attempt {attempt} of task {task} was started twice"));
                }
                if self.ends.contains_key(&task.0) {
                    return Err(format!("attempt {attempt} of task {task} was started after its end"));
                }
            }
            Event::Lost { .. } => self.lost += 1,
            Event::AttemptReturned { .. } => self.returned += 1,
            _ => {}
        }
        if let Some((task, outcome)) = event.ends() {
            *self.outcomes.entry(outcome.name()).or_default() += 1;
            let count = self.ends.entry(task.0).or_default();
            *count += 1;
            if *count > 1 {
                return Err(format!("task {task} ended twice"));
            }
        }
        Ok(())
    }

    /// Which tasks have not ended.
    pub(crate) fn live(&self) -> usize {
        self.tasks.len() - self.ends.len()
    }
}

/// The state that the runtime's own recovery finds, by snapshot and tail; also how many snapshots there are.
pub(crate) fn recovered(dir: &Path, facts: &Facts) -> Result<(State, Position, usize), String> {
    let reader = directory::read(dir).map_err(|error| error.to_string())?;
    let store = std::fs::read_to_string(dir.join("store")).map_err(|error| error.to_string())?;
    let id = store.lines().find_map(|line| line.strip_prefix("id ")).ok_or("the store file names no store")?;
    let id = u128::from_str_radix(id, 16).map_err(|error| error.to_string())?.to_be_bytes();
    let snapshots = SnapshotStore::open(dir, id);
    let mut hash = ergate::events::block::Hash::ZERO;
    let mut cursor = reader.cursor(facts.state.position).map_err(|error| error.to_string())?;
    if cursor.next_block().map_err(|error| error.to_string())?.is_some() {
        return Err("the log grew while nobody wrote".to_owned());
    }
    if facts.state.position > Position(0) {
        let mut last = reader.cursor(Position(facts.state.position.0 - 1)).map_err(|error| error.to_string())?;
        hash = last.next_block().map_err(|error| error.to_string())?.ok_or("the last block is not there")?.hash();
    }
    let head =
        Head { next: facts.state.position, next_ordinal: facts.state.next_ordinal(), hash, last_time: facts.state.last_at };
    let (state, from) = ergate::store::recover(reader.as_ref(), head, Some(&snapshots)).map_err(|error| error.to_string())?;
    let count = snapshots.list().map_err(|error| error.to_string())?.len();
    Ok((state, from, count))
}
