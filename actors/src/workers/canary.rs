//! A new version of the workers of a pool, which gets a share of the work before it gets all of it.

use super::Session;

/// Most attempts that the new version is behind its share, or ahead of it, in what is remembered: where only one version was there for long, the other
/// does not get everything for as long afterwards.
const DEBT_MAX: i64 = 100;

/// Which workers of a pool are the new version, and how much they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The name of the label that they have.
    pub label: String,
    /// And its value.
    pub value: String,
    /// Of a thousand attempts of the pool, how many go to them.
    pub share_milli: u32,
}

/// A canary with what was given.
#[derive(Debug)]
pub(super) struct Share {
    canary: Canary,
    /// By how many thousandths of an attempt the new version is ahead of its share.
    ahead: i64,
}

impl Share {
    pub(super) const fn new(canary: Canary) -> Share {
        Share { canary, ahead: 0 }
    }

    /// Whether a worker is of the new version.
    pub(super) fn is_new(&self, session: &Session) -> bool {
        let Canary { label, value, .. } = &self.canary;
        session.spec().facts.labels.iter().any(|known| known.name == *label && known.value == *value)
    }

    /// How many of the next `ready` attempts the new version may be given, so that it has its share of all.
    pub(super) fn room(&self, ready: u64) -> u64 {
        let due = i64::try_from(ready).unwrap_or(i64::MAX).saturating_mul(i64::from(self.canary.share_milli));
        u64::try_from(due.saturating_sub(self.ahead) / 1_000).unwrap_or(0)
    }

    /// How many of the next `ready` attempts are left to the others.
    pub(super) fn others(&self, ready: u64) -> u64 {
        if self.canary.share_milli >= 1_000 { 0 } else { ready }
    }

    /// Notes what was given.
    pub(super) fn note(&mut self, is_new: bool, count: u64) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let share = i64::from(self.canary.share_milli);
        let ahead = if is_new { 1_000 - share } else { -share };
        // A burst may be larger than what is remembered, and its parts are noted one after the other.
        let most = DEBT_MAX.max(count).saturating_mul(1_000);
        self.ahead = self.ahead.saturating_add(count.saturating_mul(ahead)).clamp(-most, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_new_version_gets_its_share_however_much_is_ready_at_a_time() {
        for (share_milli, ready) in [(100, 1), (100, 7), (250, 1_000), (1_000, 3), (0, 5)] {
            let mut share = Share::new(Canary { label: "version".to_owned(), value: "2".to_owned(), share_milli });
            let mut given = 0;
            for _ in 0..10_000 / ready {
                let new = share.room(ready).min(ready);
                share.note(true, new);
                share.note(false, ready - new);
                given += new;
            }
            let expected = 10_000 / ready * ready * u64::from(share_milli) / 1_000;
            assert!(given.abs_diff(expected) <= 2, "{share_milli} of a thousand, {ready} at a time: {given}");
        }
    }
}
