//! A set of small numbers whose smallest member is found at once.

/// Numbers, with a summary of which words hold any: 64 × 64 are looked through in two steps.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    summary: Vec<u64>,
}

impl Bits {
    pub(super) fn insert(&mut self, number: usize) {
        let word = number / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
            self.summary.resize(word / 64 + 1, 0);
        }
        self.words[word] |= 1 << (number % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    pub(super) fn remove(&mut self, number: usize) {
        let word = number / 64;
        let Some(bits) = self.words.get_mut(word) else { return };
        *bits &= !(1 << (number % 64));
        if *bits == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    pub(super) fn first(&self) -> Option<usize> {
        let (index, summary) = self.summary.iter().enumerate().find(|(_, summary)| **summary != 0)?;
        let word = index * 64 + summary.trailing_zeros() as usize;
        Some(word * 64 + self.words[word].trailing_zeros() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_member_is_found_wherever_it_is() {
        let mut bits = Bits::default();
        assert_eq!(bits.first(), None);
        bits.remove(9_999);
        for number in [70_000, 4_096, 4_095, 64, 63, 0] {
            bits.insert(number);
            assert_eq!(bits.first(), Some(number));
        }
        for (gone, next) in
            [(0, Some(63)), (63, Some(64)), (64, Some(4_095)), (4_095, Some(4_096)), (4_096, Some(70_000)), (70_000, None)]
        {
            bits.remove(gone);
            assert_eq!(bits.first(), next);
        }
    }
}
