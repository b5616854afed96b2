//! What a reply promises, seen from outside: in the system calls of a process, and in what is left when the disk says no.
//!
//! The child acknowledges on file descriptor 1 with a plain write. strace shows whether the block it speaks of was written and synced before.
//!
//! Bugs found here, each with its test below:
//!
//! - After a failed write every submission that came later waited for ever, as did those in the lane, and a wait said "no such task".
//! - A wait still said that where the log failed while it rested: everything was durable then, and a live task has no end.
#![allow(
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "tests say aloud how they went, and look for a few events among many"
)]

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ergate::{Durability, Runtime, SubmitError, TaskError, WaitError};
use process::{facts, role, run, small_files, tell, wrapped};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn child() {
    let Some((role, dir, argument)) = role() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        match role.as_str() {
            "acknowledge" => acknowledge(&dir, &argument).await,
            "until failure" => until_failure(&dir).await,
            "anchor" => anchor(&dir).await,
            "failure at rest" => failure_at_rest(&dir).await,
            _ => panic!("no such role"),
        }
    });
}

async fn start(dir: &Path, durability: Durability) -> Runtime {
    let work = |value: u64| async move { Ok::<_, TaskError>(value) };
    let started = Runtime::builder().file(dir).log_options(small_files()).durability(durability).task("work", work).start().await;
    match started {
        Ok(ergate) => ergate,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            tell(&format!("REFUSED {text}"));
            std::process::exit(3);
        }
    }
}

/// Submits by four tasks and acknowledges each by its position.
async fn acknowledge(dir: &Path, durability: &str) {
    let durability = match durability {
        "interval" => Durability::Interval(Duration::from_millis(50)),
        "memory" => Durability::Memory,
        _ => Durability::Fsync,
    };
    let ergate = start(dir, durability).await;
    let submitters: Vec<_> = (0..4_u64)
        .map(|submitter| {
            let ergate = ergate.clone();
            tokio::spawn(async move {
                for index in 0..60 {
                    let task = ergate.submit("work", &(submitter * 1_000 + index)).await.expect("accepted");
                    tell(&format!("ack {} {}", task.position.0, task.id.ordinal.0));
                }
            })
        })
        .collect();
    for submitter in submitters {
        submitter.await.expect("no panic");
    }
    ergate.shutdown().await.expect("it closes");
    tell("closed");
}

/// Goes on until the log fails, and then shows that nobody is left waiting.
async fn until_failure(dir: &Path) {
    let ergate = start(dir, Durability::Fsync).await;
    let submitters: Vec<_> = (0..8_u64)
        .map(|submitter| {
            let ergate = ergate.clone();
            tokio::spawn(async move {
                for index in 0..100_000 {
                    match ergate.submit("work", &(submitter * 1_000_000 + index)).await {
                        Ok(task) => {
                            // The file descriptor takes lines in their order: none is told after the failure that was decided before.
                            tell(&format!("ack {} {}", task.position.0, task.id.ordinal.0));
                            if index % 4 == 0 {
                                match task.end().await {
                                    Ok(_) | Err(WaitError::Stopped) => {}
                                    Err(error) => tell(&format!("BAD wait: {error}")),
                                }
                            }
                        }
                        Err(SubmitError::Unknown { .. }) => tell("unknown"),
                        Err(SubmitError::Closed { .. }) => return,
                        Err(error) => {
                            tell(&format!("BAD submit: {error}"));
                            return;
                        }
                    }
                }
                tell("BAD no failure came");
            })
        })
        .collect();
    for submitter in submitters {
        if tokio::time::timeout(Duration::from_secs(15), submitter).await.is_err() {
            tell("BAD a submitter hangs");
        }
    }
    let reason = tokio::time::timeout(Duration::from_secs(5), ergate.failed()).await;
    tell(&format!("failed {reason:?}"));
    match tokio::time::timeout(Duration::from_secs(5), ergate.submit("work", &1_u64)).await {
        Ok(Err(SubmitError::Closed { .. })) => {}
        other => tell(&format!("BAD submit after the failure: {:?}", other.map(|answer| answer.map(|task| task.id)))),
    }
    match tokio::time::timeout(Duration::from_secs(20), ergate.shutdown_within(Duration::from_millis(100))).await {
        Ok(Err(_)) => {}
        other => tell(&format!("BAD shutdown: {other:?}")),
    }
    tell("over");
}

async fn anchor(dir: &Path) {
    let ergate = start(dir, Durability::Fsync).await;
    let task = ergate.submit("work", &1_u64).await.expect("accepted");
    tell(&format!("ack {} 0", task.position.0));
    task.end().await.expect("it ends");
    // The writer is idle after milliseconds; a busy disk under a tracer takes its time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    tell("idle");
    ergate.shutdown().await.expect("it closes");
    tell("closed");
}

/// The file of the anchor, and its name while its syncs fail.
const ANCHOR: &str = "anchor";
const FAILING: &str = "failing-anchor";

/// Waits for a task that outlives the log, which fails while there is nothing to write.
async fn failure_at_rest(dir: &Path) {
    let long = |(): ()| async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok::<_, TaskError>(())
    };
    let ergate = Runtime::builder().file(dir).task("work", long).start().await.expect("it starts");
    let task = ergate.submit("work", &()).await.expect("accepted");
    let again = task.id;
    tell(&format!("ack {} {}", task.position.0, task.id.ordinal.0));
    // From here on the syncs of the anchor fail: whoever watches for its new name lets them.
    std::fs::rename(dir.join(ANCHOR), dir.join(FAILING)).expect("the anchor is renamed");
    // Whether it is taken depends on how soon the writer has nothing to do; that it then fails does not.
    let _ = ergate.submit("work", &()).await;
    let reason = tokio::time::timeout(Duration::from_secs(20), ergate.failed()).await;
    tell(&format!("failed {reason:?}"));
    for waited in [task.end().await, ergate.wait(again).await] {
        tell(&format!("wait {waited:?}"));
    }
    let closed = ergate.shutdown_within(Duration::from_millis(100)).await;
    tell(&format!("over {}", closed.is_err()));
}

/// Whether strace is there and may look; says aloud when not.
fn strace() -> bool {
    let works =
        Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let works = works.is_ok_and(|status| status.success());
    if !works {
        eprintln!("SKIPPED: strace is missing or may not trace here; install it to prove the order of system calls");
    }
    works
}

/// One finished system call.
struct Call {
    name: String,
    arguments: String,
    result: String,
}

/// The calls of a trace in the order in which they *returned* for syncs and writes of data, and *began* for acknowledgements: the strictest reading.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun: BTreeMap<&str, String> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let text = if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(pid, begin.trim_end().to_owned());
            // An acknowledgement counts from where it begins.
            if !begin.starts_with("write(1") {
                continue;
            }
            format!("{begin}) = 0")
        } else if let Some((_, end)) = rest.split_once(" resumed>") {
            let begin = begun.remove(pid).unwrap_or_default();
            if begin.starts_with("write(1") {
                continue;
            }
            format!("{begin}{end}")
        } else {
            rest.to_owned()
        };
        let Some((name, tail)) = text.split_once('(') else { continue };
        let Some((arguments, result)) = tail.rsplit_once(") = ").or_else(|| tail.rsplit_once(" = ")) else { continue };
        calls.push(Call { name: name.to_owned(), arguments: arguments.to_owned(), result: result.to_owned() });
    }
    calls
}

const TRACED: &str = "trace=fdatasync,fsync,pwrite64,write,openat,ftruncate";

fn traced(dir: &Path, role: &str, argument: &str) -> (process::Ran, Vec<Call>) {
    let trace = dir.join("trace");
    let text = trace.display().to_string();
    // `-y` names the file behind each descriptor, `-s` shows the first bytes of a block, which hold its positions.
    let by = ["strace", "-f", "-y", "-x", "-s", "96", "-e", TRACED, "-e", "signal=none", "-o", &text];
    let ran = run(wrapped(&by, role, &dir.join("data"), argument), LIMIT);
    assert!(!ran.timed_out && ran.code == Some(0), "{:?}\n{}", ran.code, ran.stderr);
    let trace = std::fs::read_to_string(trace).expect("strace wrote its file");
    (ran, calls(&trace))
}

/// Bytes as strace shows them with `-x`: in hexadecimal digits unless all of them are text.
fn bytes(quoted: &str) -> Vec<u8> {
    let text = quoted.split('"').nth(1).unwrap_or_default();
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    text.split("\\x").skip(1).filter_map(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok()).collect()
}

/// The position after each block that a write of data carries; only its first block shows, which is enough: blocks are written one by one.
fn block_end(call: &Call) -> Option<u64> {
    let bytes = bytes(&call.arguments);
    let header = ergate::events::block::Header::parse(&bytes).ok()?;
    Some(header.next_position().0)
}

struct Order {
    acknowledged: u64,
    early: Vec<String>,
    syncs: u64,
}

/// Follows the calls: what is written, what is synced, and what is acknowledged before it is.
fn order(calls: &[Call]) -> Order {
    let mut written: BTreeMap<String, u64> = BTreeMap::new();
    let (mut durable, mut order) = (0, Order { acknowledged: 0, early: Vec::new(), syncs: 0 });
    for call in calls {
        let segment = call.arguments.split(['<', '>']).nth(1).filter(|path| path.ends_with(".seg"));
        match (call.name.as_str(), segment) {
            ("pwrite64", Some(path)) => {
                if let Some(end) = block_end(call) {
                    let known = written.entry(path.to_owned()).or_default();
                    *known = end.max(*known);
                }
            }
            ("fdatasync" | "fsync", Some(path)) if call.result.starts_with('0') => {
                order.syncs += 1;
                durable = durable.max(written.get(path).copied().unwrap_or(0));
            }
            ("write", _) if call.arguments.starts_with('1') => {
                let text = String::from_utf8_lossy(&bytes(&call.arguments)).into_owned();
                let Some(position) = text.strip_prefix("@ack ").and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                else {
                    continue;
                };
                order.acknowledged += 1;
                if position > durable {
                    order.early.push(format!("position {position} was acknowledged when {durable} was durable"));
                }
            }
            _ => {}
        }
    }
    order
}

/// Found by `ack-before-sync`.
#[test]
fn no_acknowledgement_comes_before_its_sync() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (_, calls) = traced(dir.path(), "acknowledge", "fsync");
    let order = order(&calls);
    eprintln!("durability: {} acknowledgements, {} syncs, {} early", order.acknowledged, order.syncs, order.early.len());
    assert_eq!(order.acknowledged, 240, "the trace shows every acknowledgement");
    assert!(order.early.is_empty(), "{} of {} came early; the first: {}", order.early.len(), order.acknowledged, order.early[0]);
    let facts = facts(&dir.path().join("data"), &BTreeSet::new()).expect("it verifies");
    assert_eq!(facts.tasks.len(), 240);
}

#[test]
fn the_other_modes_reply_before_the_sync_and_still_sync_at_the_close() {
    if !strace() {
        return;
    }
    for mode in ["interval", "memory"] {
        let dir = tempfile::tempdir().expect("a folder");
        let (ran, calls) = traced(dir.path(), "acknowledge", mode);
        let order = order(&calls);
        eprintln!(
            "durability: {mode}: {} acknowledgements, {} syncs, {} early",
            order.acknowledged,
            order.syncs,
            order.early.len()
        );
        // The proof can fail: here it does, as it should.
        assert!(!order.early.is_empty(), "{mode} is as slow as fsync");
        assert_eq!(ran.told.last().map(String::as_str), Some("closed"));
        let of_segment = |call: &Call| call.arguments.contains(".seg>");
        let last_write = calls.iter().rposition(|call| call.name == "pwrite64" && of_segment(call));
        let last_sync = calls.iter().rposition(|call| call.name.contains("sync") && of_segment(call));
        assert!(last_sync > last_write, "{mode}: the close did not sync the last block");
    }
}

#[test]
fn the_anchor_is_synced_when_the_writer_is_idle_and_when_it_closes() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (_, calls) = traced(dir.path(), "anchor", "");
    let at = |what: &str| {
        calls
            .iter()
            .position(|call| call.name == "write" && String::from_utf8_lossy(&bytes(&call.arguments)).starts_with(what))
            .expect(what)
    };
    let (acknowledged, idle, closed) = (at("@ack"), at("@idle"), at("@closed"));
    let anchor = |call: &Call| call.arguments.split(['<', '>']).nth(1).is_some_and(|path| path.ends_with("/anchor"));
    let synced = |calls: &[Call]| {
        let written = calls.iter().rposition(|call| call.name == "pwrite64" && anchor(call)).expect("the anchor is written");
        calls[written..].iter().any(|call| call.name.contains("sync") && anchor(call) && call.result.starts_with('0'))
    };
    assert!(synced(&calls[acknowledged..idle]), "an idle writer left its anchor unsynced");
    assert!(synced(&calls[idle..closed]), "a close left its anchor unsynced");
}

#[test]
fn a_log_that_fails_at_rest_leaves_nobody_waiting_and_denies_no_task() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    // Only what concerns the anchor fails, and only once the child has renamed it: that is the sync of an idle writer.
    let failing = data.join(FAILING).display().to_string();
    let by = ["strace", "-f", "-o", "/dev/null", "-P", &failing, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let ran = run(wrapped(&by, "failure at rest", &data, ""), LIMIT);
    let told: Vec<_> = ran.told.iter().map(String::as_str).collect();
    assert_eq!(told.len(), 5, "{told:?} {}", ran.stderr);
    assert!(told[1].starts_with("failed Ok(Some(") && told[1].contains("anchor"), "{told:?} {}", ran.stderr);
    assert_eq!(told[2..], ["wait Err(Stopped)", "wait Err(Stopped)", "over true"], "{}", ran.stderr);
}

/// Lets a system call fail and looks at what is left.
fn fails(name: &str, by: &[&str]) -> usize {
    let dir = tempfile::tempdir().expect("a folder");
    let data = dir.path().join("data");
    let ran = run(wrapped(by, "until failure", &data, ""), LIMIT);
    assert!(!ran.timed_out, "{name}: the child hangs: {:?}", ran.told.iter().rev().take(5).collect::<Vec<_>>());
    if ran.told.iter().any(|line| line.starts_with("REFUSED")) {
        eprintln!("durability: {name}: {:?}", ran.told);
        return 0;
    }
    let bad: Vec<_> = ran.told.iter().filter(|line| line.starts_with("BAD")).collect();
    assert!(bad.is_empty(), "{name}: {bad:?}");
    assert_eq!(ran.told.last().map(String::as_str), Some("over"), "{name}: {:?} {}", ran.code, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
    let acknowledged: Vec<u64> =
        ran.told.iter().filter_map(|line| line.strip_prefix("ack ")?.split(' ').nth(1)?.parse().ok()).collect();
    // The next process finds everything that was acknowledged, and goes on.
    let again = run(process::child("acknowledge", &data, ""), LIMIT);
    assert_eq!(again.code, Some(0), "{name}: {:?} {}", again.told, again.stderr);
    let facts = facts(&data, &BTreeSet::new()).expect("it verifies");
    assert!(acknowledged.iter().all(|ordinal| (*ordinal as usize) < facts.tasks.len()), "{name}: an acknowledged task is lost");
    let reason = ran.told.iter().find(|line| line.starts_with("failed")).cloned().unwrap_or_default();
    eprintln!("durability: {name}: {} acknowledged before, all there after; {reason}", acknowledged.len());
    acknowledged.len()
}

#[test]
fn a_failed_sync_or_write_is_the_last_and_nothing_acknowledged_is_lost() {
    if !strace() {
        return;
    }
    let mut proved = 0;
    for (call, error, nth) in [
        ("fdatasync", "EIO", 12),
        ("fdatasync", "EIO", 90),
        ("pwrite64", "EIO", 60),
        ("pwrite64", "ENOSPC", 100),
        ("fdatasync", "ENOSPC", 40),
    ] {
        let inject = format!("inject={call}:error={error}:when={nth}");
        let (name, trace) = (format!("{call} {nth} fails with {error}"), format!("trace={call}"));
        proved += fails(&name, &["strace", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject]);
    }
    assert!(proved > 0, "every failure came before the first acknowledgement");
}

#[test]
fn a_file_size_limit_poisons_the_writer_like_any_failed_write() {
    // 64 blocks of 1,024 bytes: less than one segment. The signal that comes with it is ignored, as a server would.
    let acknowledged = fails("ulimit -f", &["bash", "-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
    eprintln!("durability: {acknowledged} acknowledged under a file size limit");
}

#[test]
fn new_work_is_refused_while_space_is_low_and_everything_else_goes_on() {
    process::block_on(LIMIT, async {
        let dir = tempfile::tempdir().expect("a folder");
        let work = |value: u64| async move {
            tokio::time::sleep(Duration::from_millis(900)).await;
            Ok::<_, TaskError>(value)
        };
        let builder = |low_water_bytes| {
            let options = ergate::events::log::directory::Options { low_water_bytes, ..small_files() };
            Runtime::builder().file(dir.path()).log_options(options).task("work", work)
        };
        let ergate = builder(u64::MAX).start().await.expect("it starts");
        let first = ergate.submit("work", &1_u64).await.ok();
        let started = Instant::now();
        let refusal = loop {
            match ergate.submit("work", &2_u64).await {
                Err(error) => break error,
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            assert!(started.elapsed() < Duration::from_secs(10), "the low-water mark is not seen");
        };
        assert!(matches!(refusal, SubmitError::Busy { .. }), "{refusal}");
        assert!(refusal.to_string().contains("disk is nearly full"), "{refusal}");
        // Reading, control and the ends of what was accepted go on.
        ergate.resize_pool("default", 1, 8, "test", "low space").await.expect("control goes on");
        assert!(ergate.reader().span().next.0 > 0);
        if let Some(first) = first {
            first.end().await.expect("what was accepted ends");
        }
        ergate.shutdown().await.expect("it closes");
        let ergate = builder(0).start().await.expect("it starts");
        ergate.submit("work", &3_u64).await.expect("there is space again").end().await.expect("it ends");
        ergate.shutdown().await.expect("it closes");
    });
}
