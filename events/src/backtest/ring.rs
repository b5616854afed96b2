//! The last numbers of a row, with their mean and, where somebody asks for them, their percentiles.

use std::collections::VecDeque;

/// How many are kept: the mean of so many service times is within 3 % where they spread as much as they last on average.
const KEPT: usize = 1_000;

/// The last numbers.
#[derive(Debug)]
pub(super) struct Ring {
    last: VecDeque<u64>,
    sum: u128,
    /// The same numbers, smallest first, if percentiles are asked for.
    sorted: Option<Vec<u64>>,
}

impl Ring {
    pub(super) fn new(has_percentiles: bool) -> Ring {
        Ring { last: VecDeque::with_capacity(KEPT), sum: 0, sorted: has_percentiles.then(|| Vec::with_capacity(KEPT)) }
    }

    pub(super) fn push(&mut self, number: u64) {
        if self.last.len() == KEPT
            && let Some(old) = self.last.pop_front()
        {
            self.sum -= u128::from(old);
            if let Some(sorted) = &mut self.sorted
                && let Ok(place) = sorted.binary_search(&old)
            {
                sorted.remove(place);
            }
        }
        self.last.push_back(number);
        self.sum += u128::from(number);
        if let Some(sorted) = &mut self.sorted {
            let place = sorted.partition_point(|other| *other < number);
            sorted.insert(place, number);
        }
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (!self.last.is_empty()).then(|| self.sum as f64 / self.last.len() as f64)
    }

    /// The smallest number that at least `percent` of a hundred do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> Option<f64> {
        let sorted = self.sorted.as_deref()?;
        Some(*sorted.get(rank(sorted.len(), percent)?)? as f64)
    }
}

/// Where the percentile of so many sorted numbers is (nearest rank); `None` of none.
pub(super) fn rank(count: usize, percent: usize) -> Option<usize> {
    (count * percent).div_ceil(100).max(1).checked_sub(1).filter(|_| count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_numbers_leave_mean_and_percentiles() {
        let mut ring = Ring::new(true);
        assert_eq!((ring.mean(), ring.percentile(99)), (None, None));
        (0..5_000).for_each(|number| ring.push(number % 3_000));
        // The last thousand are 1,000 to 1,999.
        assert_eq!(ring.mean(), Some(1_499.5));
        assert_eq!(ring.percentile(50), Some(1_499.0));
        assert_eq!(ring.percentile(99), Some(1_989.0));
        assert_eq!(Ring::new(false).percentile(50), None);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        for (count, percent, expected) in
            [(0, 50, None), (1, 1, Some(0)), (1, 99, Some(0)), (100, 99, Some(98)), (101, 99, Some(99)), (2, 50, Some(0))]
        {
            assert_eq!(rank(count, percent), expected, "{percent} % of {count}");
        }
    }
}
