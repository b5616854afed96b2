//! How an aggregation is run: which table, and whether shared memory adds up first. Pure; the numbers come from a sample of the keys.

use super::{AggregateSpec, source};

/// What is known of the keys before they are read; none of it need be right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// How many groups there are.
    pub groups: Option<u64>,
    /// The smallest and the largest key.
    pub keys: Option<(i64, i64)>,
}

/// What the kernel `aggregate_sample` tells of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The smallest key seen.
    pub smallest: i64,
    /// The largest key seen.
    pub largest: i64,
    /// Cells of a hash of keys that were hit: at most the number of different keys seen, and near it.
    pub cells_hit: u64,
    /// Keys in the fullest cell: at least the number of times that the most frequent key was seen.
    pub fullest: u64,
}

/// Keys that a sample looks at, as in the kernel.
pub(super) const SAMPLES: u64 = 4096;
/// The most memory for dense slots: they stay in the L2 cache of the devices that this is made for (an H100 has 50 MB).
const DENSE_BYTES_MAX: u64 = 32 << 20;
/// Groups that are reckoned with when the sample had none twice: a table of a million groups stays in that cache too.
const GROUPS_GUESS: u64 = 1 << 20;
/// Hashed slots, at least.
const CAPACITY_MIN: u64 = 1 << 10;
/// Hashed slots beside dense ones, for keys that the sample missed.
const CAPACITY_BESIDE: u64 = 1 << 14;
/// Hashed slots, at most: slots are counted in 32 bits.
const CAPACITY_MAX: u64 = 1 << 31;
/// How much larger the table is when it was too small.
const GROWTH: u64 = 8;
/// Shared memory of a block that adds up before: six blocks fit on an H100, two on devices of compute capability 7.5.
const PRIVATE_BYTES: u64 = 32 << 10;
/// A key of more than one row in this many queues up at its address unless shared memory adds up first.
const HOT_KEY: u64 = 64;

/// Entries that a sort takes, at least.
const SORTED_MIN: u64 = 2048;

/// The table of one run and how rows get into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The key of the first dense slot.
    pub lo: i64,
    /// Dense slots: one for each key from `lo` on.
    pub span: u64,
    /// Hashed slots, a power of two.
    pub capacity: u64,
    /// Slots of the table in shared memory, a power of two; none when rows go straight to memory.
    pub private_capacity: Option<u32>,
}

impl Choice {
    /// Chooses for `rows` rows, of which there is at least one.
    pub fn of(spec: &AggregateSpec, rows: u64, sample: &Sample, hints: &Hints) -> Self {
        let words = source::words(spec);
        let (lo, span) = dense(words, rows, sample, hints);
        let expected = match hints.groups {
            Some(groups) => groups,
            // Half of what was looked at was seen before: the sample has met most groups.
            None if sample.cells_hit * 2 < SAMPLES.min(rows) => sample.cells_hit * 4,
            None => GROUPS_GUESS,
        };
        let wanted = if span > 0 { CAPACITY_BESIDE } else { expected.saturating_mul(2) };
        let private = (PRIVATE_BYTES / (8 * (1 + words)) / 2 + 1).next_power_of_two();
        let few = hints.groups.unwrap_or(sample.cells_hit) <= private / 4;
        let hot = sample.fullest > SAMPLES / HOT_KEY;
        Self {
            lo,
            span,
            capacity: capacity(wanted, rows),
            private_capacity: (few || hot).then(|| u32::try_from(private).expect("a table of 32 KiB has few slots")),
        }
    }

    /// With no more hashed slots than twice the groups there may be.
    pub(super) fn at_most(&self, groups_max: u64) -> Self {
        Self { capacity: self.capacity.min(capacity(u64::MAX, groups_max)), ..*self }
    }

    /// The next table when this one was too small; none when it has two slots for each of so many rows, or groups.
    pub fn grown(&self, rows: u64) -> Option<Self> {
        let capacity = capacity(self.capacity.saturating_mul(GROWTH), rows);
        (capacity > self.capacity).then_some(Self { capacity, ..*self })
    }

    /// Slots of the table: dense, hashed, and that of the key that marks empty ones.
    pub fn slots(&self) -> u64 {
        self.span + self.capacity + 1
    }

    /// Bytes of accumulators and of the keys of hashed slots.
    pub fn table_bytes(&self, spec: &AggregateSpec) -> (u64, u64) {
        (self.slots() * source::words(spec) * 8, self.capacity * 8)
    }
}

/// The most memory on the device, in bytes, that an aggregation of so many rows takes beside its input, whatever its keys: what is to be
/// reserved before it is run.
pub fn scratch_bytes_max(spec: &AggregateSpec, rows: u64) -> u64 {
    scratch_bytes(spec, rows, rows)
}

/// The same where there are no more groups than so many.
pub(super) fn scratch_bytes(spec: &AggregateSpec, rows: u64, groups_max: u64) -> u64 {
    let (words, groups) = (source::words(spec), groups_max.min(rows));
    let dense = (DENSE_BYTES_MAX / (8 * words)).min(rows.saturating_mul(4).max(4096));
    let most = Choice { lo: 0, span: dense, capacity: capacity(u64::MAX, groups), private_capacity: None };
    let (accumulators, table) = most.table_bytes(spec);
    let listed = groups.next_power_of_two().max(SORTED_MIN) + groups;
    let result = groups * 8 * (1 + spec.aggregates().len() as u64);
    let small = 4096 + most.slots() / 64;
    accumulators + table + listed * 12 + result + small
}

fn capacity(wanted: u64, rows: u64) -> u64 {
    let most = rows.saturating_mul(2).clamp(CAPACITY_MIN, CAPACITY_MAX).next_power_of_two();
    wanted.clamp(CAPACITY_MIN, CAPACITY_MAX).next_power_of_two().min(most)
}

/// The first key and the number of dense slots; none when the keys lie too far apart.
fn dense(words: u64, rows: u64, sample: &Sample, hints: &Hints) -> (i64, u64) {
    let (lo, hi) = hints.keys.unwrap_or_else(|| {
        // Keys beyond those seen: a 64th of their range to each side. Few rows have all been seen.
        let margin = if rows <= SAMPLES { 0 } else { sample.smallest.abs_diff(sample.largest) / 64 + 64 };
        (sample.smallest.saturating_sub_unsigned(margin), sample.largest.saturating_add_unsigned(margin))
    });
    if lo > hi {
        return (0, 0);
    }
    let span = lo.abs_diff(hi).saturating_add(1);
    // A table much larger than the rows would cost more to reset than it saves.
    let worth = span <= rows.saturating_mul(4).max(4096);
    if worth && span <= DENSE_BYTES_MAX / (8 * words) { (lo, span) } else { (0, 0) }
}

#[cfg(test)]
mod tests {
    use super::super::Aggregate;
    use super::*;
    use crate::Dtype;

    fn spec() -> AggregateSpec {
        AggregateSpec::new([Dtype::F64], [Aggregate::Sum(0)]).unwrap()
    }

    fn sample(smallest: i64, largest: i64, cells_hit: u64, fullest: u64) -> Sample {
        Sample { smallest, largest, cells_hit, fullest }
    }

    #[test]
    fn keys_that_lie_close_get_dense_slots_with_a_margin() {
        let choice = Choice::of(&spec(), 100_000_000, &sample(250, 999_750, 4000, 3), &Hints::default());
        assert!(choice.lo <= 0 && choice.lo + choice.span as i64 >= 1_000_000, "{choice:?}");
        assert_eq!((choice.capacity, choice.private_capacity), (CAPACITY_BESIDE, None));
    }

    #[test]
    fn keys_at_both_ends_of_their_range_are_hashed() {
        let choice = Choice::of(&spec(), 100_000_000, &sample(i64::MIN, i64::MAX, 4000, 3), &Hints::default());
        assert_eq!((choice.span, choice.capacity, choice.private_capacity), (0, 2 * GROUPS_GUESS, None));
    }

    #[test]
    fn few_groups_and_hot_keys_are_added_up_in_shared_memory() {
        let few = Choice::of(&spec(), 100_000_000, &sample(i64::MIN, 7, 300, 20), &Hints::default());
        assert_eq!((few.private_capacity, few.capacity), (Some(2048), 4096));
        let hot = Choice::of(&spec(), 100_000_000, &sample(i64::MIN, 7, 2100, 65), &Hints::default());
        assert!(hot.private_capacity.is_some());
    }

    #[test]
    fn a_table_grows_until_every_row_has_two_slots() {
        let mut choice = Choice::of(&spec(), 5000, &sample(i64::MIN, 7, 4000, 3), &Hints { groups: Some(1), ..Hints::default() });
        let mut capacities = vec![choice.capacity];
        while let Some(grown) = choice.grown(5000) {
            choice = grown;
            capacities.push(choice.capacity);
        }
        assert_eq!(capacities, [1024, 8192, 16384]);
    }

    #[test]
    fn hints_that_make_no_sense_do_no_harm() {
        let hints = Hints { groups: Some(u64::MAX), keys: Some((5, -5)) };
        let choice = Choice::of(&spec(), 1000, &sample(0, 10, 11, 100), &hints);
        assert_eq!((choice.span, choice.capacity), (0, 2048));
        let whole = Hints { keys: Some((i64::MIN, i64::MAX)), ..Hints::default() };
        assert_eq!(Choice::of(&spec(), 1000, &sample(0, 10, 11, 100), &whole).span, 0);
    }

    #[test]
    fn the_shared_table_keeps_within_its_memory() {
        for columns in 0..=8usize {
            let aggregates: Vec<_> = (0..columns).map(Aggregate::Sum).chain([Aggregate::Count]).collect();
            let spec = AggregateSpec::new(vec![Dtype::I64; columns], aggregates).unwrap();
            let choice = Choice::of(&spec, 1000, &sample(0, 0, 1, 4096), &Hints::default());
            let bytes = u64::from(choice.private_capacity.unwrap()) * 8 * (1 + source::words(&spec));
            assert!(bytes <= PRIVATE_BYTES, "{columns} columns take {bytes} bytes");
        }
    }

    #[test]
    fn what_is_reserved_for_a_hundred_million_rows_follows_from_their_groups() {
        assert_eq!(scratch_bytes_max(&spec(), 100_000_000) / 1_000_000, 8_743);
        assert_eq!(scratch_bytes(&spec(), 100_000_000, 1_000_000) / 1_000_000, 107);
        assert_eq!(scratch_bytes(&spec(), 1000, u64::MAX), scratch_bytes_max(&spec(), 1000));
    }
}
