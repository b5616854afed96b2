//! Which reports no other one beats.

/// What policies are compared by; less is better in each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// What it costs.
    pub cost: f64,
    /// Which share of the tasks waited for longer than they should.
    pub violations: f64,
    /// How often the size changed.
    pub events: u64,
}

impl Score {
    /// At least as good in everything, and better in something.
    fn beats(&self, other: &Score) -> bool {
        let is_no_worse = self.cost <= other.cost && self.violations <= other.violations && self.events <= other.events;
        is_no_worse && self != other
    }
}

/// For each score whether none of the others beats it. There is no single number that says which of those is best.
pub fn front(scores: &[Score]) -> Vec<bool> {
    scores.iter().map(|score| !scores.iter().any(|other| other.beats(score))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_beaten_in_everything_is_off_the_front() {
        let score = |cost, violations, events| Score { cost, violations, events };
        let scores = [score(10.0, 0.1, 5), score(12.0, 0.0, 9), score(12.0, 0.1, 5), score(9.0, 0.5, 50), score(10.0, 0.1, 5)];
        // The third costs more than the first and gives nothing for it; of two equals both stay.
        assert_eq!(front(&scores), [true, true, false, true, true]);
        assert_eq!(front(&[]), [false; 0]);
    }
}
