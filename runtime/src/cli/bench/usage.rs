//! Processor time and memory of this process, from /proc.

use std::time::{Duration, Instant};

/// Ticks of /proc/self/stat a second: 100 on every Linux that Rust supports.
const TICKS_A_SECOND: u64 = 100;

/// Time used so far.
pub(super) struct Usage {
    at: Instant,
    cpu: Duration,
}

/// Time used between two moments.
pub(super) struct Used {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Usage {
    pub(super) fn now() -> Usage {
        Usage { at: Instant::now(), cpu: cpu().unwrap_or_default() }
    }

    pub(super) fn since(&self, earlier: &Usage) -> Used {
        Used { wall: self.at - earlier.at, cpu: self.cpu.saturating_sub(earlier.cpu) }
    }
}

/// User and system time; fields 14 and 15 of proc_pid_stat(5), counted behind the name, which may hold anything.
fn cpu() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND))
}

/// Largest resident memory so far in MB (10^6 bytes); 0 where the system does not say.
pub(super) fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0);
    kib * 1_024.0 / 1e6
}
