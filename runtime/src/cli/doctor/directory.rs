//! The data directory and the disk below it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ergate::events::log::LogError;
use ergate::events::log::directory::{self, Inspection, holder, inspect};
use ergate::events::log::index::TaskIndex;
use ergate::events::log::snapshot::SnapshotStore;
use ergate::events::state::State;
use ergate::events::time::Timestamp;

use super::{Check, bytes};
use crate::cli::moment::time;

/// Syncs that are measured; the median of so many does not care about a few slow ones.
const SYNCS: usize = 50;
/// What a small block comes to on disk.
const WRITE_BYTES: usize = 4 << 10;
/// Above this a durable reply alone takes longer than most work does.
const SYNC_SLOW: Duration = Duration::from_millis(20);

/// Looks at everything in and below the data directory; also says when the log's last event was.
pub(super) fn checks(log: &ergate_config::Log) -> (Vec<Check>, Option<Timestamp>) {
    let dir = log.data.as_path();
    if !dir.is_dir() {
        let advice = "create it with `ergate demo --data DIR`, or name another with --data";
        let found = if dir.exists() { "is not a directory" } else { "does not exist" };
        return (vec![Check::fail("directory", format!("{} {found}", dir.display()), advice)], None);
    }
    let mut checks = vec![Check::ok("directory", dir.display().to_string())];
    let writable = probe(dir);
    checks.push(writing(&writable));
    checks.push(lock(dir));
    checks.push(space(dir, log.low_water));
    let inspected = inspect(dir);
    let last_time = inspected.as_ref().ok().map(|found| found.head.last_time);
    match &inspected {
        Ok(found) => checks.extend(contents(dir, found)),
        Err(error) => checks.push(unusable(error)),
    }
    if let Ok(sync) = writable {
        checks.push(syncing(sync));
    }
    (checks, last_time)
}

/// Writes and syncs a small file some times; the median of how long a sync takes.
fn probe(dir: &Path) -> io::Result<Duration> {
    let path = dir.join(format!(".ergate-doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    let measured = measure(&file);
    std::fs::remove_file(&path)?;
    measured
}

fn measure(file: &File) -> io::Result<Duration> {
    let mut spans = Vec::with_capacity(SYNCS);
    // As the log does it: zeros first, so that a sync has no metadata to write.
    file.write_all_at(&vec![0; SYNCS * WRITE_BYTES], 0)?;
    file.sync_all()?;
    for index in 0..SYNCS {
        file.write_all_at(&[1; WRITE_BYTES], (index * WRITE_BYTES) as u64)?;
        let started = Instant::now();
        file.sync_data()?;
        spans.push(started.elapsed());
    }
    spans.sort_unstable();
    Ok(spans[SYNCS / 2])
}

fn writing(probe: &io::Result<Duration>) -> Check {
    match probe {
        Ok(_) => Check::ok("writable", "yes"),
        Err(error) => {
            Check::fail("writable", error.to_string(), "give this user the right to write there, and the disk some room")
        }
    }
}

fn syncing(sync: Duration) -> Check {
    let found = format!("fdatasync of 4 KiB takes {sync:.1?} (median of {SYNCS})");
    match sync > SYNC_SLOW {
        true => {
            Check::warn("disk", found, "use a faster disk, or durability \"interval:50ms\" if so much may be lost in a power cut")
        }
        false => Check::ok("disk", found),
    }
}

fn lock(dir: &Path) -> Check {
    match holder(dir) {
        Ok(None) => Check::ok("lock", "free"),
        Ok(Some(pid)) => Check::ok("lock", format!("held by process {pid}, which writes the log")),
        Err(error) => Check::fail("lock", error.to_string(), "move what lies there out of the way"),
    }
}

fn space(dir: &Path, low_water: u64) -> Check {
    match rustix::fs::statvfs(dir) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            let text = format!("{} free, new work is refused below {}", bytes(free), bytes(low_water));
            match free {
                _ if free < low_water => Check::fail("space", text, "free some space"),
                _ if free < low_water.saturating_mul(4) => Check::warn("space", text, "free some space soon, or set a retention"),
                _ => Check::ok("space", text),
            }
        }
        Err(error) => Check::warn("space", error.to_string(), "the system does not tell how much is free"),
    }
}

fn unusable(error: &LogError) -> Check {
    match error {
        LogError::NotFound { .. } => Check::warn("log", "none yet", "`ergate demo --data DIR` creates one"),
        LogError::Locked { .. } => {
            Check::warn("log", error.to_string(), "sled lets one process in; look again when that one has ended")
        }
        LogError::Kafka { .. } | LogError::NoTopic { .. } | LogError::NewerBlock { .. } | LogError::Fenced { .. } => {
            Check::fail("log", error.to_string(), "see `ergate kafka doctor`")
        }
        LogError::Gap { .. }
        | LogError::Io { .. }
        | LogError::Full { .. }
        | LogError::Poisoned { .. }
        | LogError::Damaged { .. }
        | LogError::Unusable { .. }
        | LogError::OtherEngine { .. }
        | LogError::Chain { .. }
        | LogError::Contradiction { .. }
        | LogError::NoBlock { .. }
        | LogError::Missing { .. }
        | LogError::Anchor { .. }
        | LogError::FormatTooNew { .. }
        | LogError::Foreign { .. }
        | LogError::Gone { .. }
        | LogError::Beyond { .. } => Check::fail("log", error.to_string(), "`ergate log repair` explains what can be done"),
    }
}

fn contents(dir: &Path, found: &Inspection) -> Vec<Check> {
    let Inspection { store, format, base, head, anchored, torn, segments, engine } = found;
    let mut checks = vec![Check::ok("store", format!("{store}, format {format}, kept by {engine}"))];
    let events = head.next.0 - base.next.0;
    let last = if events == 0 { "no event yet".to_owned() } else { format!("the last of {}", time(head.last_time)) };
    let text = format!("{events} events in {} segments, positions {} to {}, {last}", segments.len(), base.next, head.next);
    checks.push(Check::ok("log", text));
    checks.push(match torn {
        Some(cut) => Check::warn(
            "tail",
            format!("{} bytes at position {} are no block", cut.bytes, cut.at),
            "the next start cuts them, unless a process is just writing them; nobody was told of them",
        ),
        None => Check::ok("tail", "ends with a whole block"),
    });
    let behind = head.next.0.saturating_sub(anchored.next.0);
    checks.push(match behind {
        0 => Check::ok("anchor", "at the head"),
        _ => Check::ok("anchor", format!("{behind} events behind the head: a process writes, or was killed")),
    });
    checks.push(snapshots(dir, found));
    checks.push(indexes(dir, found));
    checks
}

fn snapshots(dir: &Path, found: &Inspection) -> Check {
    let store = SnapshotStore::open(dir, found.store.0);
    let infos = match store.list() {
        Ok(infos) => infos,
        Err(error) => return Check::fail("snapshots", error.to_string(), "move what lies there out of the way"),
    };
    let usable = infos.iter().filter(|info| info.position >= found.base.next && info.position <= found.head.next);
    let newest = usable.clone().find(|info| store.load(info).is_ok_and(|snapshot| State::decode(&snapshot.body).is_ok()));
    match newest {
        Some(info) => Check::ok("snapshots", format!("{}, the newest usable one at position {}", infos.len(), info.position)),
        None if found.base.next.0 > 0 => Check::fail(
            "snapshots",
            format!("{}, none usable, and the log begins at position {}", infos.len(), found.base.next),
            "restore the snapshots folder from a copy",
        ),
        None if infos.is_empty() => Check::ok("snapshots", "none; a start folds the whole log"),
        None => Check::warn("snapshots", format!("{}, none usable", infos.len()), "a start folds the whole log; remove them"),
    }
}

fn indexes(dir: &Path, found: &Inspection) -> Check {
    let checked = directory::read(dir).and_then(|reader| {
        let index = TaskIndex::open(dir, found.store.0, reader)?;
        index.check()?;
        Ok(index.unusable())
    });
    match checked {
        Ok(unusable) if unusable.is_empty() => Check::ok("indexes", "all that are there can be used"),
        Ok(unusable) => Check::warn(
            "indexes",
            format!("{} cannot be used, for example {}: {}", unusable.len(), unusable[0].path.display(), unusable[0].reason),
            "remove them; `ergate task list` builds them again",
        ),
        Err(error) => Check::warn("indexes", error.to_string(), "the log is read instead"),
    }
}
