//! Moments and spans in microseconds: arithmetic only. Reading the clock is a shell's business.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A moment: microseconds since the Unix epoch, UTC. Never decreases within a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Timestamp(pub u64);

/// A span of microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Micros(pub u64);

impl Timestamp {
    /// The moment no timer reaches.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// This moment and a span; ends at [`Timestamp::NEVER`] instead of overflowing.
    pub const fn after(self, span: Micros) -> Timestamp {
        Timestamp(self.0.saturating_add(span.0))
    }

    /// The span from `earlier` to this moment, zero when `earlier` is later.
    pub const fn since(self, earlier: Timestamp) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }
}

impl Micros {
    /// A span of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Micros {
        Micros(millis.saturating_mul(1_000))
    }

    /// A span of whole seconds.
    pub const fn from_secs(secs: u64) -> Micros {
        Micros(secs.saturating_mul(1_000_000))
    }

    /// The same span for the standard library.
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }
}

impl From<std::time::Duration> for Micros {
    fn from(span: std::time::Duration) -> Micros {
        Micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_std())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_ends_at_never_and_at_zero_instead_of_overflowing() {
        assert_eq!(Timestamp(5).after(Micros(u64::MAX)), Timestamp::NEVER);
        assert_eq!(Timestamp(5).since(Timestamp(9)), Micros(0));
        assert_eq!(Micros::from_secs(u64::MAX), Micros(u64::MAX));
        assert_eq!(Micros::from_millis(1_500).to_string(), "1.5s");
    }
}
