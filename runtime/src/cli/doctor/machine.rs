//! The machine: cores, memory, clock, open files.

use std::time::{SystemTime, UNIX_EPOCH};

use ergate::events::time::Timestamp;

use super::{Check, bytes};
use crate::cli::moment::time;

/// A gigabyte holds some millions of live tasks with small payloads.
const MEMORY_BYTES_LOW: u64 = 1 << 30;
/// Segments, snapshots, sidecars and connections: a busy runtime has a few hundred files open.
const FILES_LOW: u64 = 1_024;
/// 2026-01-01T00:00:00Z in µs: no clock that is right is before it.
const BUILD_AT: u64 = 1_767_225_600_000_000;

/// Looks at the machine; `last_time` is the time of the last event of the log.
pub(super) fn checks(last_time: Option<Timestamp>) -> Vec<Check> {
    vec![cores(), memory(), clock(last_time), files()]
}

fn cores() -> Check {
    match std::thread::available_parallelism() {
        Ok(cores) if cores.get() > 1 => Check::ok("cores", cores.to_string()),
        Ok(cores) => Check::warn("cores", cores.to_string(), "with two or more the log is written while work goes on"),
        Err(error) => Check::warn("cores", error.to_string(), "the system does not tell how many there are"),
    }
}

/// What is available, or the limit of the control group where that is less.
fn memory() -> Check {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| {
        let kib: u64 = line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1_024)
    });
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    match available.map(|available| limit.map_or(available, |limit: u64| limit.min(available))) {
        Some(found) if found < MEMORY_BYTES_LOW => {
            Check::warn("memory", format!("{} available", bytes(found)), "set limits.tasks_live_max lower, or give it more")
        }
        Some(found) => Check::ok("memory", format!("{} available", bytes(found))),
        None => Check::warn("memory", "not known", "the system does not tell"),
    }
}

fn clock(last_time: Option<Timestamp>) -> Check {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_micros()).ok());
    let now = Timestamp(now.unwrap_or(0));
    match last_time {
        _ if now.0 < BUILD_AT => Check::fail("clock", time(now), "the clock is wrong; set it, for every event carries its time"),
        Some(last) if last > now => Check::warn(
            "clock",
            format!("{}, and the log's last event is of {}", time(now), time(last)),
            "the clock was set back; new events keep the log's time until it has caught up",
        ),
        Some(_) | None => Check::ok("clock", time(now)),
    }
}

fn files() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < FILES_LOW => {
            Check::warn("open files", format!("at most {limit}"), "raise it with `ulimit -n 65536`")
        }
        Some(limit) => Check::ok("open files", format!("at most {limit}")),
        None => Check::ok("open files", "no limit"),
    }
}
