//! What shadows wanted, held against what the pool really should have had.

use super::Recorded;
use crate::backtest::report::FLIP;
use crate::scaling::AnyPolicy;
use crate::time::{Micros, Timestamp};

/// A shadow as the log goes on.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// What was set last.
    pub(super) policy: Option<AnyPolicy>,
    wanted: Vec<(Timestamp, Option<u32>)>,
}

impl Track {
    /// It wants so many from now on; nothing while nobody asks it.
    pub(super) fn wants(&mut self, at: Timestamp, replicas: Option<u32>) {
        self.wanted.push((at, replicas));
    }

    pub(super) fn finish(&self, name: &str, offset: impl Fn(Timestamp) -> Micros) -> Option<Shadow> {
        let wanted = self.wanted.iter().map(|(at, replicas)| (offset(*at), *replicas)).collect();
        Some(Shadow { name: name.to_owned(), policy: self.policy.clone()?, wanted })
    }
}

/// A policy that decided beside the one of the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Shadow {
    /// Its name.
    pub name: String,
    /// The policy, as set last.
    pub policy: AnyPolicy,
    /// How many replicas it wanted from when on; `None` while there was none, or it had decided nothing yet.
    pub wanted: Vec<(Micros, Option<u32>)>,
}

/// What was wanted over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wanted {
    /// How long somebody wanted something.
    pub watched: Micros,
    /// Replicas that were wanted, times how long.
    pub replica_time: Micros,
    /// How often it was another number.
    pub changes: u64,
    /// How often it turned round within 300 s.
    pub flips: u64,
}

/// What a shadow wanted, and how that compares with what the pool should really have had at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beside {
    /// What it wanted.
    pub wanted: Wanted,
    /// How many replicas more it wanted than the pool should have had where they were furthest apart, and when that was first so.
    pub largest: Option<(Micros, i64)>,
    /// The same on average over the time.
    pub mean: f64,
    /// In which share of the time it wanted fewer.
    pub below: f64,
}

impl Recorded {
    /// What the pool should really have had from a moment on.
    pub fn live(&self, from: Micros) -> Wanted {
        let sizes: Vec<_> = self.sizes.iter().map(|(at, size)| (*at, Some(*size))).collect();
        count(&pieces(&sizes, from, self.length))
    }

    /// What a shadow wanted from a moment on, beside what the pool should really have had.
    pub fn beside(&self, shadow: &Shadow, from: Micros) -> Beside {
        let sizes: Vec<_> = self.sizes.iter().map(|(at, size)| (*at, Some(*size))).collect();
        let live = pieces(&sizes, from, self.length);
        let own = pieces(&shadow.wanted, from, self.length);
        let wanted = count(&own);
        let (mut largest, mut sum, mut below): (Option<(Micros, i64)>, i128, u64) = (None, 0, 0);
        for (begin, end, apart) in overlaps(&own, &live) {
            let length = end.0 - begin.0;
            sum += i128::from(apart) * i128::from(length);
            below += if apart < 0 { length } else { 0 };
            if apart != 0 && largest.is_none_or(|(_, most)| apart.abs() > most.abs()) {
                largest = Some((begin, apart));
            }
        }
        let time = wanted.watched.0.max(1) as f64;
        Beside { wanted, largest, mean: sum as f64 / time, below: below as f64 / time }
    }
}

/// From when until when so many were wanted.
type Piece = (Micros, Micros, u32);

/// The pieces of time in which a number was wanted, within a span.
fn pieces(all: &[(Micros, Option<u32>)], from: Micros, end: Micros) -> Vec<Piece> {
    let ends = all.iter().skip(1).map(|(at, _)| *at).chain([end]);
    let pieces = all.iter().zip(ends).filter_map(|((at, size), until)| Some((*at.max(&from), until.min(end), (*size)?)));
    pieces.filter(|(begin, until, _)| begin < until).collect()
}

fn count(pieces: &[Piece]) -> Wanted {
    let mut wanted = Wanted::default();
    let mut turned: Option<(Micros, bool)> = None;
    let mut before: Option<u32> = None;
    for (begin, end, size) in pieces {
        let length = end.0 - begin.0;
        wanted.watched.0 += length;
        wanted.replica_time.0 = wanted.replica_time.0.saturating_add(length.saturating_mul(u64::from(*size)));
        if let Some(last) = before.filter(|last| last != size) {
            let grew = *size > last;
            wanted.changes += 1;
            wanted.flips += u64::from(turned.is_some_and(|(at, before)| before != grew && begin.0 - at.0 <= FLIP));
            turned = Some((*begin, grew));
        }
        before = Some(*size);
    }
    wanted
}

/// The pieces of time that both have, and how many more the first one wanted in each.
fn overlaps(one: &[Piece], other: &[Piece]) -> Vec<(Micros, Micros, i64)> {
    let (mut all, mut left, mut right) = (Vec::new(), one.iter().peekable(), other.iter().peekable());
    while let (Some((begin, end, wanted)), Some((since, until, size))) = (left.peek(), right.peek()) {
        let (from, to) = (*begin.max(since), *end.min(until));
        if from < to {
            all.push((from, to, i64::from(*wanted) - i64::from(*size)));
        }
        if end <= until {
            left.next();
        } else {
            right.next();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Micros {
        Micros::from_secs(seconds)
    }

    #[test]
    fn time_is_counted_where_something_was_wanted_and_within_the_span() {
        let all = [(s(0), Some(1)), (s(10), Some(3)), (s(20), None), (s(30), Some(2)), (s(40), Some(5)), (s(400), Some(4))];
        let wanted = count(&pieces(&all, s(5), s(500)));
        assert_eq!(wanted.watched, s(5 + 10 + 10 + 360 + 100));
        assert_eq!(wanted.replica_time, s(5 + 30 + 20 + 1_800 + 400));
        // Up, down, up, and down again after six minutes, which is no flip.
        assert_eq!((wanted.changes, wanted.flips), (4, 2));
        assert_eq!(count(&pieces(&all, s(500), s(500))), Wanted::default());
        assert_eq!(pieces(&all, s(0), s(10)), [(s(0), s(10), 1)]);
    }

    #[test]
    fn two_are_compared_where_both_are() {
        let one = pieces(&[(s(0), None), (s(10), Some(4)), (s(20), Some(1))], s(0), s(40));
        let other = pieces(&[(s(0), Some(2)), (s(15), Some(6)), (s(30), Some(1))], s(0), s(40));
        let apart = [(s(10), s(15), 2), (s(15), s(20), -2), (s(20), s(30), -5), (s(30), s(40), 0)];
        assert_eq!(overlaps(&one, &other), apart);
        assert_eq!(overlaps(&one, &[]), []);
    }
}
