//! Slots: the pieces of time of which each has one batch.

use ergate_events::time::{Micros, Timestamp};

/// A piece of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    start: Timestamp,
    every: Micros,
}

impl Slot {
    /// The slot of this length that a moment lies in.
    ///
    /// # Panics
    /// When the length is zero.
    pub const fn of(now: Timestamp, every: Micros) -> Slot {
        Slot { start: Timestamp(now.0 - now.0 % every.0), every }
    }

    /// Its first moment.
    pub const fn start(&self) -> Timestamp {
        self.start
    }

    /// The first moment after it.
    pub const fn end(&self) -> Timestamp {
        self.start.after(self.every)
    }

    /// Its length.
    pub const fn every(&self) -> Micros {
        self.every
    }
}

/// Prints its first moment, which names the batch: `2026-03-01T12:00:00.000000Z`.
impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.start.rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_moment_lies_in_one_slot_that_begins_at_a_multiple_of_its_length() {
        let hour = Micros::from_secs(3_600);
        let slot = Slot::of(Timestamp(1_772_369_999_999_999), hour);
        assert_eq!(slot.to_string(), "2026-03-01T12:00:00.000000Z");
        assert_eq!(Slot::of(slot.start(), hour), slot);
        assert_eq!(Slot::of(slot.end(), hour).to_string(), "2026-03-01T13:00:00.000000Z");
    }
}
