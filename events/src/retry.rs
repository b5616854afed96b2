//! The delay before the next attempt, or the end of the road.

use crate::id::Ordinal;
use crate::task::RetryPolicy;
use crate::time::Micros;

/// The delay before the attempt that follows `failures` failed ones (at least 1), or `None` when the policy allows no more.
///
/// Version 1: `initial × (coefficient / 1000)^(failures − 1)`, at most `max`, in integer steps rounded down; then up to
/// `jitter / 1000` of it is taken off by a hash of task and failures, so that a replay computes the same delay.
pub fn delay_v1(policy: &RetryPolicy, task: Ordinal, failures: u32) -> Option<Micros> {
    if failures >= policy.attempts {
        return None;
    }
    let mut delay = u128::from(policy.initial.0);
    let max = u128::from(policy.max.0);
    for _ in 1..failures {
        let next = delay * u128::from(policy.coefficient_milli) / 1_000;
        // A delay that has stopped growing, by rounding down for example, grows no more: nobody counts to a billion for it.
        if delay >= max || next == delay {
            break;
        }
        delay = next;
    }
    let delay = delay.min(max);
    let jitter = delay * u128::from(policy.jitter_milli.min(1_000)) / 1_000;
    let share = u128::from(mix(task.0 ^ (u64::from(failures) << 48)));
    let taken = (jitter * share) >> 64;
    Some(Micros(u64::try_from(delay - taken).unwrap_or(u64::MAX)))
}

/// SplitMix64's finalizer (Steele, Lea and Flood, OOPSLA 2014): every input bit changes half of the output bits.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 6,
        initial: Micros::from_millis(100),
        coefficient_milli: 2_000,
        max: Micros::from_millis(500),
        jitter_milli: 0,
    };

    #[test]
    fn delays_grow_by_the_coefficient_up_to_the_maximum_and_then_end() {
        let delays: Vec<_> =
            (1..=7).map(|failures| delay_v1(&POLICY, Ordinal(7), failures).map(|delay| delay.0 / 1_000)).collect();
        assert_eq!(delays, [Some(100), Some(200), Some(400), Some(500), Some(500), None, None]);
    }

    #[test]
    fn jitter_takes_off_at_most_its_share_and_is_the_same_every_time() {
        let policy = RetryPolicy { jitter_milli: 200, ..POLICY };
        let delays: Vec<u64> = (0..1_000).filter_map(|task| delay_v1(&policy, Ordinal(task), 1)).map(|delay| delay.0).collect();
        assert!(delays.iter().all(|delay| (80_000..=100_000).contains(delay)));
        assert!(delays.iter().any(|delay| *delay < 84_000) && delays.iter().any(|delay| *delay > 96_000));
        assert_eq!(delay_v1(&policy, Ordinal(3), 2), delay_v1(&policy, Ordinal(3), 2));
    }

    #[test]
    fn absurd_policies_give_a_delay_and_no_overflow() {
        let policy = RetryPolicy {
            attempts: u32::MAX,
            initial: Micros(u64::MAX),
            coefficient_milli: u32::MAX,
            max: Micros(u64::MAX),
            jitter_milli: u32::MAX,
        };
        assert!(delay_v1(&policy, Ordinal(u64::MAX), u32::MAX - 1).is_some());
        assert!(delay_v1(&RetryPolicy { coefficient_milli: 0, ..policy }, Ordinal(1), 3).is_some());
        assert_eq!(delay_v1(&RetryPolicy::NEVER, Ordinal(1), 1), None);
    }
}
