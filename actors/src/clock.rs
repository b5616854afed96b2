//! The only reader of wall time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ergate_events::time::{Micros, Timestamp};

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now; never earlier than an answer before.
    fn now(&self) -> Timestamp;

    /// What the wall shows: it may be set, forward and back. For what people expect at a time of their day.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// The jump of the wall clock since the last call, where it is larger than [`STEP_MIN`]: (what this clock says, what the wall says).
    fn step(&self) -> Option<(Timestamp, Timestamp)> {
        None
    }
}

/// Smaller differences between the wall clock and ours are drift, not a jump.
pub const STEP_MIN: Micros = Micros::from_secs(1);

/// Wall time at the start, monotonic from there on: setting the wall clock moves no lease, timer or retry of a running process.
#[derive(Debug)]
pub struct SystemClock {
    base: Timestamp,
    started: Instant,
    /// The last difference to the wall clock that was reported, in µs.
    reported: Mutex<i128>,
}

impl SystemClock {
    /// A clock that starts now, but not before `not_before`, the last time in the log.
    pub fn starting(not_before: Timestamp) -> SystemClock {
        SystemClock { base: wall().max(not_before), started: Instant::now(), reported: Mutex::new(0) }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.base.after(self.started.elapsed().into())
    }

    fn wall(&self) -> Timestamp {
        wall()
    }

    fn step(&self) -> Option<(Timestamp, Timestamp)> {
        let (ours, wall) = (self.now(), wall());
        let difference = i128::from(wall.0) - i128::from(ours.0);
        let mut reported = self.reported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if (difference - *reported).unsigned_abs() < u128::from(STEP_MIN.0) {
            return None;
        }
        *reported = difference;
        Some((ours, wall))
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(Micros::from(since).0)
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows this time.
    pub fn at(now: Timestamp) -> ManualClock {
        ManualClock(AtomicU64::new(now.0))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Micros) {
        self.0.fetch_add(span.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}
