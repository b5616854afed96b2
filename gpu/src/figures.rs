//! What an owner of a device has done so far and has at hand now, to be read at any time.

use crate::resident::Counters;

/// Sums since the start, and how things stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Batches that have ended, whatever came of them.
    pub batches: u64,
    /// Attempts that have ended with a result.
    pub attempts: u64,
    /// Attempts that have ended without one: refused, failed, without memory, or by the death of the context; not what was cancelled.
    pub failed: u64,
    /// How long kernels have run, in µs of the device: by the rise of this the device is busy, as DCGM's `GPU_UTIL` counts it.
    pub busy_us: u64,
    /// How long copies of batches to and from the device have taken, in µs of the device; they may go on beside kernels.
    pub copy_us: u64,
    /// Device memory in use by batches and what is resident, in bytes.
    pub memory_bytes: u64,
    /// The most of it that was in use at once, in bytes.
    pub memory_high_bytes: u64,
    /// Device memory kept for the next batches, beside what is in use, in bytes.
    pub memory_kept_bytes: u64,
    /// What is resident: bytes, and how often it was found, missed and evicted.
    pub resident: Counters,
    /// Compiled modules on the device.
    pub modules: u64,
    /// Attempts that wait for their batch.
    pub waiting: u64,
    /// Attempts without an answer: those that wait and those on the device.
    pub open: u64,
}
