//! Limits on the flow of tasks: how many may be on their way at once, how often they may start, and how many of one key may stand in a queue.
//!
//! A limit is shared by all task types that name it. With a *key*, which is the name of a label, every value of that label has a *bucket* of its
//! own; tasks without the label share one.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::time::{Micros, Timestamp};

/// Most limits in the life of a log.
pub const LIMITS_MAX: usize = 1_024;
/// Most limits of one task type: each costs a lookup whenever one of its tasks moves.
pub const TYPE_LIMITS_MAX: usize = 4;
/// Longest time for which a rate may count, and most permits in it: below, tokens are counted in nanoseconds without an overflow.
pub const RATE_PER_MAX: Micros = Micros::from_secs(24 * 3_600);
/// Nanoseconds of a microsecond.
const NANOS: u64 = 1_000;

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// So many starts …
    pub permits: u32,
    /// … in this time, evenly spread.
    pub per: Micros,
    /// How many may follow each other at once after a quiet time; at least 1.
    pub burst: u32,
}

/// What a limit allows. At least one of the three is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// The label whose values have a bucket each; `None` has one bucket for all.
    pub key: Option<String>,
    /// Most tasks that are ready or running.
    pub concurrency: Option<u32>,
    /// How often tasks start.
    pub rate: Option<Rate>,
    /// Most tasks that are ready and not started: with 1, keys take turns, whatever one of them has waiting.
    pub ready: Option<u32>,
}

impl Rate {
    /// Whether the numbers make a rate.
    pub const fn is_possible(&self) -> bool {
        self.permits > 0 && self.burst > 0 && self.per.0 > 0 && self.per.0 <= RATE_PER_MAX.0 && self.interval() > 0
    }

    /// Nanoseconds between two starts.
    pub const fn interval(&self) -> u64 {
        self.per.0 * NANOS / self.permits as u64
    }

    /// The moment from which on `wanted` more tasks may start at once, where `paid` is the moment (ns) until which starts so far have used the
    /// rate up; `None` for more than the burst. Source: the generic cell rate algorithm, ITU-T I.371, as a virtual schedule.
    pub(crate) fn due(&self, paid: u64, wanted: u32) -> Option<Timestamp> {
        let spare = u64::from(self.burst.checked_sub(wanted)?);
        Some(Timestamp(paid.saturating_sub(spare.saturating_mul(self.interval())).div_ceil(NANOS)))
    }

    /// Until when the rate is used up after one more start at this moment. The log's time has no fractions of a microsecond: a start at the first
    /// moment that it can name is taken for one in time, or rates would be slower than they say.
    pub(crate) fn pay(&self, paid: u64, at: Timestamp) -> u64 {
        paid.max(at.0.saturating_mul(NANOS).saturating_sub(NANOS - 1)).saturating_add(self.interval())
    }
}

impl LimitSettings {
    /// Whether the numbers make a limit.
    pub fn is_possible(&self) -> bool {
        let is_some = self.concurrency.is_some() || self.rate.is_some() || self.ready.is_some();
        is_some && self.concurrency != Some(0) && self.ready != Some(0) && self.rate.is_none_or(|rate| rate.is_possible())
    }
}

/// The first moment that is no longer needed to remember what was paid.
pub(crate) const fn forgotten(paid: u64) -> Timestamp {
    Timestamp(paid.div_ceil(NANOS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_SECOND: Rate = Rate { permits: 10, per: Micros::from_secs(1), burst: 3 };

    #[test]
    fn a_burst_starts_at_once_and_what_follows_keeps_the_pace() {
        let (mut paid, now) = (0, Timestamp(5_000_000));
        assert_eq!(TEN_A_SECOND.due(paid, 3).map(|due| due <= now), Some(true));
        assert_eq!(TEN_A_SECOND.due(paid, 4), None);
        for _ in 0..3 {
            assert!(TEN_A_SECOND.due(paid, 1) <= Some(now));
            paid = TEN_A_SECOND.pay(paid, now);
        }
        assert_eq!(TEN_A_SECOND.due(paid, 1), Some(Timestamp(5_100_000)));
        assert_eq!(TEN_A_SECOND.due(paid, 2), Some(Timestamp(5_200_000)));
    }

    #[test]
    fn what_does_not_divide_without_a_rest_adds_up_to_no_delay() {
        for permits in [3, 7_000, 300_000] {
            let rate = Rate { permits, per: Micros::from_secs(1), burst: 1 };
            let (mut paid, mut now) = (0, Timestamp(1_000_000));
            for _ in 0..10 * permits {
                now = now.max(rate.due(paid, 1).unwrap());
                paid = rate.pay(paid, now);
            }
            let seconds = (now.0 - 1_000_000) as f64 / 1e6 + 1.0 / f64::from(permits);
            // An interval is a whole number of nanoseconds, the next lower one, and the last start may be taken for up to a microsecond earlier.
            let least = 10.0 - f64::from(permits) * 10.0 * 1e-9 - 1e-6;
            assert!((least..10.0001).contains(&seconds), "{permits} a second took {seconds} s for 10 seconds' worth");
        }
    }
}
