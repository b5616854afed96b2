//! Processor time and memory of this process.

use std::time::{Duration, Instant};

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
        Usage { at: Instant::now(), cpu: cpu() }
    }

    pub(super) fn since(&self, earlier: &Usage) -> Used {
        Used { wall: self.at - earlier.at, cpu: self.cpu.saturating_sub(earlier.cpu) }
    }
}

/// User and system time of all threads, to the nanosecond.
fn cpu() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default())
}

/// Lets the largest resident memory be what it is now, so that a run does not answer for the one before. Linux only; elsewhere it
/// stays the largest of the process.
pub(super) fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Largest resident memory since [`forget_peak`] in MB (10^6 bytes); 0 where the system does not say.
pub(super) fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0.0);
    kib * 1_024.0 / 1e6
}
