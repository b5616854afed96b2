//! Names that may be labels: few enough that no one who names task types can make Prometheus run out of memory.

use std::collections::BTreeSet;

/// Task types that have a label of their own; those that come later are [`OTHER`] together. At thirty-odd series and two histograms each that
/// is some seventy thousand samples a scrape, which is what one process should give.
pub const TYPES_MAX: usize = 1_000;
/// Pools that have a label of their own.
pub const POOLS_MAX: usize = 100;
/// Shards that have a label of their own: engines lead tens.
pub const SHARDS_MAX: usize = 256;
/// The label of all that came too late.
pub const OTHER: &str = "other";

/// Names that have a label of their own. One that has it keeps it, or counters would fall.
#[derive(Debug)]
pub(super) struct Names {
    known: BTreeSet<String>,
    max: usize,
}

impl Names {
    pub(super) fn at_most(max: usize) -> Names {
        Names { known: BTreeSet::new(), max }
    }

    /// The label of this name.
    pub(super) fn label<'a>(&mut self, name: &'a str) -> &'a str {
        if self.known.contains(name) {
            return name;
        }
        if self.known.len() == self.max {
            return OTHER;
        }
        self.known.insert(name.to_owned());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_late_is_among_the_others_for_good() {
        let mut names = Names::at_most(2);
        let labels = ["b", "a", "c", "a", "d", "b"].map(|name| names.label(name));
        assert_eq!(labels, ["b", "a", OTHER, "a", OTHER, "b"]);
    }
}
