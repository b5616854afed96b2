//! How long a process that ended waits to be started again.

use crate::time::Micros;

/// Wait after the first failure in a row.
const FIRST: Micros = Micros::from_millis(100);
/// Longest wait: what has failed ten times is looked at by a person, who should not have to wait long for the eleventh.
const LONGEST: Micros = Micros::from_secs(30);

/// The wait before the next process of a pool starts, after so many that failed one after the other: 100 ms, twice as long each time, at most 30 s.
/// Whoever counts begins again with a process that has stood for a while.
pub fn wait(failures: u32) -> Micros {
    if failures == 0 {
        return Micros(0);
    }
    let doubled = FIRST.0.checked_shl((failures - 1).min(32)).unwrap_or(u64::MAX);
    Micros(doubled.min(LONGEST.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u64> = [0, 1, 2, 3, 9, 10, u32::MAX].into_iter().map(|failures| wait(failures).0 / 1_000).collect();
        assert_eq!(waits, [0, 100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
