//! Damages a data directory that a real run left and opens it through the public API: harmless, or refused with a reason. Never a panic, a
//! hang, or tasks that are gone without a word.
//!
//! Harmless means: every acknowledged task is in the log and all of it verifies. Refused means: `start` names what is wrong, or, for damage
//! in the middle of an old segment that a snapshot lets a start pass by, reading the log there does. `ERGATE_CORRUPTIONS` sets how many bits are
//! flipped and how many files are cut (200 each), `ERGATE_SEED` repeats a run.
#![allow(
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "tests say aloud how they went, and look for a few events among many"
)]

#[path = "support/process.rs"]
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ergate::events::log::LogError;
use ergate::events::log::directory::Options;
use ergate::store::RecoverError;
use ergate::{RequestBatch, Runtime, StartError, TaskError};
use process::{Chance, block_on, facts_of, role, run, small_files, tell};

const LIMIT: Duration = Duration::from_secs(280);
/// Longest time that opening may take, on a machine that does much else.
const OPEN_LIMIT: Duration = Duration::from_secs(20);

static PANICS: AtomicU64 = AtomicU64::new(0);

#[test]
fn child() {
    let Some((_, dir, _)) = role() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        match start(&dir, small_files()).await {
            Ok(ergate) => {
                tell("STARTED");
                tell(&format!("CLOSED {}", ergate.shutdown().await.is_ok()));
            }
            Err(error) => tell(&format!("REFUSED {}", chain(&error))),
        }
    });
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

async fn start(dir: &Path, options: Options) -> Result<Runtime, StartError> {
    let work = |value: u64| async move { if value % 50 == 7 { Err(TaskError::permanent("odd", "it is")) } else { Ok(value) } };
    // The name of the directory says what keeps the log there.
    let on_sled = dir.extension().is_some_and(|end| end == "sled");
    let builder = if on_sled { Runtime::builder().sled(dir) } else { Runtime::builder().file(dir) };
    builder.log_options(options).snapshot_every_events(2_500).pool("default", 2, 64).task("work", work).start().await
}

/// A directory that a real run left: several segments, snapshots, a clean close; and a copy of it from the middle of the run
/// ("yesterday"). Returns the number of its tasks.
async fn real_run(dir: &Path, yesterday: &Path) -> u64 {
    let mut tasks = 0;
    for part in 0..3 {
        let ergate = start(dir, small_files()).await.expect("it starts");
        let id = ergate.task_type("work").expect("registered");
        for _ in 0..20 {
            let mut requests = RequestBatch::new();
            for _ in 0..60 {
                // Payloads that do not compress, so that there are several segments.
                let filler: String = (0..6).map(|word| format!("{:016x}", Chance(tasks * 8 + word).next())).collect();
                requests.push(id, format!("{tasks} {:300}", "").as_bytes(), Some(Box::new(labelled(&filler))));
                tasks += 1;
            }
            ergate.submit_batch(requests).await.expect("accepted").wait().await.expect("they end");
        }
        // A snapshot may still be on its way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        ergate.shutdown().await.expect("it closes");
        if part == 1 {
            copy(dir, yesterday);
        }
    }
    tasks
}

fn labelled(filler: &str) -> ergate::Extras {
    ergate::Extras { labels: vec![("filler".to_owned(), filler.to_owned())], ..ergate::Extras::default() }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// What became of a damaged directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Harmless,
    Refused(&'static str),
    FoundWhenRead,
}

/// Opens a damaged directory and looks at what is there.
async fn verdict(dir: &Path, tasks: u64) -> Result<Verdict, String> {
    let panics = PANICS.load(Ordering::SeqCst);
    let started = tokio::time::timeout(OPEN_LIMIT, start(dir, small_files())).await.map_err(|_| "opening hangs".to_owned())?;
    let verdict = match started {
        Ok(ergate) => {
            let read = facts_of(ergate.reader().as_ref(), &BTreeSet::new());
            let accepted = ergate.submit("work", &1_u64).await;
            let closed = tokio::time::timeout(OPEN_LIMIT, ergate.shutdown()).await.map_err(|_| "closing hangs".to_owned())?;
            match read {
                Ok(facts) if facts.tasks.len() as u64 >= tasks && facts.live() == 0 => {
                    accepted.map_err(|error| format!("it is harmless and takes no work: {error}"))?;
                    closed.map_err(|error| format!("it is harmless and does not close: {error}"))?;
                    Verdict::Harmless
                }
                Ok(facts) => {
                    return Err(format!("silent loss: {} of {tasks} tasks, {} without an end", facts.tasks.len(), facts.live()));
                }
                Err(text) if ["damaged", "chain", "audit"].iter().any(|word| text.contains(word)) => Verdict::FoundWhenRead,
                Err(text) => return Err(format!("reading says: {text}")),
            }
        }
        Err(StartError::Recover(error)) => Verdict::Refused(named(&error)?),
        Err(error) => return Err(format!("starting says: {}", chain(&error))),
    };
    if PANICS.load(Ordering::SeqCst) > panics { Err(format!("something panicked; otherwise {verdict:?}")) } else { Ok(verdict) }
}

fn named(error: &RecoverError) -> Result<&'static str, String> {
    Ok(match error {
        RecoverError::Log(LogError::Damaged { .. } | LogError::Unusable { .. }) => "damaged",
        RecoverError::Log(LogError::Chain { .. }) => "chain",
        RecoverError::Log(LogError::Missing { .. }) => "missing",
        RecoverError::Log(LogError::Anchor { .. }) => "anchor",
        RecoverError::Log(LogError::Foreign { .. }) => "foreign",
        RecoverError::Log(LogError::FormatTooNew { .. }) => "too new",
        RecoverError::Log(LogError::NotFound { .. }) => "not found",
        RecoverError::Audit(_) => "audit",
        RecoverError::NoBase { .. } => "no base",
        RecoverError::Log(_) => return Err(format!("refused without the right name: {}", chain(error))),
    })
}

fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // What a test says itself when it fails is none, and sled's way of saying that a file is damaged is caught.
            let caught = ergate::events::log::sled::is_inside();
            if !caught && info.location().is_none_or(|location| !location.file().starts_with("tests/")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
            }
            before(info);
        }));
    });
}

/// Where to hurt: half of the time any byte of all, half of the time any file, so that small ones get their share.
fn place(chance: &mut Chance, found: &[(PathBuf, u64)]) -> (PathBuf, u64) {
    let filled: Vec<_> = found.iter().filter(|(_, len)| *len > 0).collect();
    if chance.below(2) == 0 {
        let (path, len) = filled[chance.below(filled.len() as u64) as usize];
        return (path.clone(), chance.below(*len));
    }
    let mut at = chance.below(filled.iter().map(|(_, len)| len).sum());
    for (path, len) in filled {
        if at < *len {
            return (path.clone(), at);
        }
        at -= len;
    }
    unreachable!("the place lies within the sum")
}

#[test]
fn flipped_bits_and_cut_files_are_harmless_or_refused_by_name() {
    hurt_at_random("file", 200);
}

#[test]
fn flipped_bits_and_cut_files_of_sled_are_harmless_or_refused_by_name() {
    hurt_at_random("sled", 40);
}

fn hurt_at_random(engine: &str, count: u64) {
    count_panics();
    block_on(LIMIT, async {
        let count = std::env::var("ERGATE_CORRUPTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(count);
        let folder = tempfile::tempdir().expect("a folder");
        let [whole, hurt, yesterday] = ["whole", "hurt", "yesterday"].map(|name| folder.path().join(format!("{name}.{engine}")));
        let tasks = real_run(&whole, &yesterday).await;
        let found: Vec<(PathBuf, u64)> = files(&whole)
            .into_iter()
            .map(|path| {
                (path.strip_prefix(&whole).expect("it is inside").to_owned(), path.metadata().expect("it is there").len())
            })
            .collect();
        let segments =
            found.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "seg") || path.ends_with("db")).count();
        let snapshots = found.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "snap")).count();
        assert!(segments >= 4 && snapshots >= 1, "{found:?}");
        let mut chance = Chance::seeded();
        eprintln!(
            "corrupt: {engine}, seed {}, {} files, {segments} segments, {snapshots} snapshots, {tasks} tasks",
            chance.0,
            found.len()
        );
        let mut verdicts: BTreeMap<(&str, Verdict), u64> = BTreeMap::new();
        let mut violations = Vec::new();
        for index in 0..count * 2 {
            copy(&whole, &hurt);
            let (path, at) = place(&mut chance, &found);
            let target = hurt.join(&path);
            let what = if index < count {
                let mut bytes = std::fs::read(&target).expect("it can be read");
                bytes[at as usize] ^= 1 << chance.below(8);
                std::fs::write(&target, bytes).expect("it can be written");
                "flipped"
            } else {
                std::fs::OpenOptions::new().write(true).open(&target).and_then(|file| file.set_len(at)).expect("it can be cut");
                "cut"
            };
            match verdict(&hurt, tasks).await {
                Ok(verdict) => *verdicts.entry((what, verdict)).or_default() += 1,
                Err(violation) => violations.push(format!("{} {what} at byte {at}: {violation}", path.display())),
            }
            remove(&hurt);
        }
        for ((what, verdict), count) in &verdicts {
            eprintln!("corrupt: {engine}, {what}: {verdict:?} {count}");
        }
        assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
    });
}

/// Removes a directory. A database that was closed, or refused, a moment ago may still be writing a last file into it.
fn remove(dir: &Path) {
    let started = std::time::Instant::now();
    while let Err(error) = std::fs::remove_dir_all(dir) {
        assert!(started.elapsed() < OPEN_LIMIT, "it does not go: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn segment(dir: &Path, index: usize) -> PathBuf {
    let mut segments: Vec<_> = files(&dir.join("log"));
    segments.retain(|path| path.extension().is_some_and(|end| end == "seg"));
    let index = if index == usize::MAX { segments.len() - 1 } else { index };
    segments.swap_remove(index)
}

/// CRC-32C, bit by bit (RFC 3720, B.4).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[test]
fn what_people_and_disks_do_to_a_directory_is_refused_by_name() {
    count_panics();
    block_on(LIMIT, async {
        let folder = tempfile::tempdir().expect("a folder");
        let (whole, hurt, yesterday) = (folder.path().join("whole"), folder.path().join("hurt"), folder.path().join("yesterday"));
        let tasks = real_run(&whole, &yesterday).await;
        let random: Vec<u8> = (0..70_000).map(|index| Chance(index).next() as u8).collect();
        let last = usize::MAX;
        type Deed<'a> = Box<dyn Fn(&Path) + 'a>;
        let deeds: Vec<(&str, Deed<'_>, &[&str])> = vec![
            ("nothing", Box::new(|_| {}), &["harmless"]),
            (
                "an empty last segment",
                Box::new(|dir| std::fs::write(segment(dir, last), b"").expect("it can be done")),
                &["missing"],
            ),
            (
                "an empty first segment",
                Box::new(|dir| std::fs::write(segment(dir, 0), b"").expect("it can be done")),
                &["missing", "damaged", "found when read"],
            ),
            (
                "a random last segment",
                Box::new(|dir| std::fs::write(segment(dir, last), &random).expect("it can be done")),
                &["damaged"],
            ),
            (
                "a random middle segment",
                Box::new(|dir| std::fs::write(segment(dir, 1), &random).expect("it can be done")),
                &["damaged"],
            ),
            (
                "a missing last segment",
                Box::new(|dir| std::fs::remove_file(segment(dir, last)).expect("it can be done")),
                &["missing"],
            ),
            (
                "a missing middle segment",
                Box::new(|dir| std::fs::remove_file(segment(dir, 1)).expect("it can be done")),
                &["missing", "chain", "damaged"],
            ),
            (
                "a missing first segment",
                Box::new(|dir| std::fs::remove_file(segment(dir, 0)).expect("it can be done")),
                &["missing", "chain", "damaged"],
            ),
            (
                "no segment at all",
                Box::new(|dir| {
                    files(&dir.join("log")).iter().for_each(|path| std::fs::remove_file(path).expect("it can be done"))
                }),
                &["missing"],
            ),
            (
                "a last segment cut by one byte",
                Box::new(|dir| {
                    let path = segment(dir, last);
                    let len = path.metadata().expect("it can be done").len();
                    std::fs::OpenOptions::new()
                        .write(true)
                        .open(path)
                        .expect("it can be done")
                        .set_len(len - 1)
                        .expect("it can be done");
                }),
                &["missing", "damaged"],
            ),
            (
                "yesterday's copy of log/",
                Box::new(|dir| {
                    std::fs::remove_dir_all(dir.join("log")).expect("it can be done");
                    copy(&yesterday.join("log"), &dir.join("log"));
                }),
                &["missing"],
            ),
            (
                "two segments swapped",
                Box::new(|dir| {
                    let (a, b, c) = (segment(dir, 1), segment(dir, 2), dir.join("log/swap"));
                    std::fs::rename(&a, &c).expect("it can be done");
                    std::fs::rename(&b, &a).expect("it can be done");
                    std::fs::rename(&c, &b).expect("it can be done");
                }),
                &["damaged", "chain", "foreign", "missing"],
            ),
            (
                "a newer format",
                Box::new(|dir| {
                    let store = std::fs::read_to_string(dir.join("store")).expect("it can be done");
                    let id = store.lines().nth(2).expect("it can be done");
                    let content = format!("ergate store\nformat 2\n{id}\n");
                    std::fs::write(dir.join("store"), format!("{content}crc {:08x}\n", crc32c(content.as_bytes())))
                        .expect("it can be done");
                }),
                &["too new"],
            ),
            (
                "another store's anchor",
                Box::new(|dir| std::fs::write(dir.join("anchor"), &random[..1024]).expect("it can be done")),
                &["anchor"],
            ),
            ("no anchor", Box::new(|dir| std::fs::remove_file(dir.join("anchor")).expect("it can be done")), &["anchor"]),
            (
                "no store",
                Box::new(|dir| std::fs::remove_file(dir.join("store")).expect("it can be done")),
                &["not found", "foreign", "anchor"],
            ),
            (
                "no snapshots",
                Box::new(|dir| std::fs::remove_dir_all(dir.join("snapshots")).expect("it can be done")),
                &["harmless"],
            ),
            ("no lock", Box::new(|dir| std::fs::remove_file(dir.join("lock")).expect("it can be done")), &["harmless"]),
            (
                "a link in place of a segment",
                Box::new(|dir| {
                    let (path, away) = (segment(dir, last), dir.join("away"));
                    std::fs::rename(&path, &away).expect("it can be done");
                    std::os::unix::fs::symlink(&away, &path).expect("it can be done");
                }),
                &["foreign"],
            ),
            (
                "snapshots of random bytes and names",
                Box::new(|dir| {
                    files(&dir.join("snapshots")).iter().for_each(|path| std::fs::write(path, &random).expect("it can be done"));
                    std::fs::write(dir.join("snapshots/99999999999999999999.snap"), &random).expect("it can be done");
                    std::fs::write(dir.join("snapshots/00000000000000000000.snap.tmp"), b"").expect("it can be done");
                }),
                &["harmless"],
            ),
        ];
        let mut violations = Vec::new();
        for (name, deed, expected) in deeds {
            copy(&whole, &hurt);
            deed(&hurt);
            let before: Vec<_> = files(&hurt).into_iter().map(|path| (std::fs::read(&path).unwrap_or_default(), path)).collect();
            let found = match verdict(&hurt, tasks).await {
                Ok(Verdict::Harmless) => "harmless".to_owned(),
                Ok(Verdict::FoundWhenRead) => "found when read".to_owned(),
                Ok(Verdict::Refused(name)) => {
                    // Whoever is refused finds everything as it was; only the lock names a process.
                    for (bytes, path) in before.iter().filter(|(_, path)| !path.ends_with("lock")) {
                        if std::fs::read(path).unwrap_or_default() != *bytes {
                            violations.push(format!("{name}: a refused opening changed {}", path.display()));
                        }
                    }
                    name.to_owned()
                }
                Err(violation) => violation,
            };
            eprintln!("corrupt: {name}: {found}");
            if !expected.contains(&found.as_str()) {
                violations.push(format!("{name}: {found} where {expected:?} was expected"));
            }
            remove(&hurt);
        }
        assert!(violations.is_empty(), "{}", violations.join("\n"));
        // How many events are missing is said exactly.
        let events = |dir: &Path| {
            let reader = ergate::events::log::file::FileReader::open(dir).expect("it is whole");
            ergate::events::log::LogReader::span(&reader).next.0
        };
        let expected = events(&whole) - events(&yesterday);
        std::fs::remove_dir_all(whole.join("log")).expect("it can be done");
        copy(&yesterday.join("log"), &whole.join("log"));
        let error = start(&whole, small_files()).await.err().expect("it is refused");
        let StartError::Recover(RecoverError::Log(LogError::Missing { missing, .. })) = &error else { panic!("{error}") };
        assert_eq!(*missing, expected);
    });
}

#[test]
fn a_place_that_cannot_be_written_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, b"text").expect("it can be written");
    for dir in [file.join("data"), file.clone(), PathBuf::from("/proc/ergate/data")] {
        let ran = run(process::child("open", &dir, ""), OPEN_LIMIT);
        assert!(!ran.timed_out && !ran.stderr.contains("panicked"), "{}: {}", dir.display(), ran.stderr);
        assert!(ran.told.first().is_some_and(|line| line.starts_with("REFUSED failed to")), "{}: {:?}", dir.display(), ran.told);
    }
    let dir = folder.path().join("empty");
    let ran =
        run(process::wrapped(&["bash", "-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""], "open", &dir, ""), OPEN_LIMIT);
    assert!(!ran.timed_out && !ran.stderr.contains("panicked"), "{}", ran.stderr);
    assert!(ran.told.first().is_some_and(|line| line.starts_with("REFUSED failed to write")), "{:?}", ran.told);
    // Once there is space the same directory opens.
    let ran = run(process::child("open", &dir, ""), OPEN_LIMIT);
    assert_eq!(ran.told, ["STARTED", "CLOSED true"]);
}

#[test]
fn a_read_only_directory_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("data");
    let ran = run(process::child("open", &dir, ""), OPEN_LIMIT);
    assert_eq!(ran.told, ["STARTED", "CLOSED true"]);
    for path in files(&dir) {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).expect("it can be set");
    }
    if std::fs::OpenOptions::new().write(true).open(dir.join("anchor")).is_ok() {
        eprintln!("SKIPPED: permissions do not bind this user, so a read-only directory cannot be shown");
        return;
    }
    let ran = run(process::child("open", &dir, ""), OPEN_LIMIT);
    assert!(ran.told.first().is_some_and(|line| line.starts_with("REFUSED failed to open")), "{:?}", ran.told);
}
