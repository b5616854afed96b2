//! Data points of a metric as CloudWatch makes them: one for each period, and alarms over several in a row.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::real::Real;
use crate::time::{Micros, Timestamp};

/// The points of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Points {
    /// The period that is not over yet, counted from 1970.
    period: Option<u64>,
    /// What was seen in it.
    open: Option<Seen>,
    /// Periods that are over, the newest last; `None` for those in which nothing was seen.
    closed: VecDeque<Option<Real>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    count: u32,
    average: Real,
    least: Real,
    most: Real,
}

/// What a period is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// The average of what was seen.
    #[default]
    Average,
    /// The least.
    Minimum,
    /// The most.
    Maximum,
}

impl Points {
    /// Takes a sample, or that there is none, and keeps `kept` points. Says whether a period ended.
    pub(crate) fn see(&mut self, at: Timestamp, sample: Option<f64>, period: Micros, statistic: Statistic, kept: usize) -> bool {
        let index = at.0 / period.0.max(1);
        let last = *self.period.get_or_insert(index);
        let has_ended = index > last;
        if has_ended {
            self.closed.push_back(self.open.take().map(|seen| seen.point(statistic)));
            // Periods without a look are points without data; more than are kept say nothing more.
            let unseen = usize::try_from(index - last - 1).unwrap_or(usize::MAX).min(kept);
            self.closed.extend(std::iter::repeat_n(None, unseen));
            while self.closed.len() > kept {
                self.closed.pop_front();
            }
            self.period = Some(index);
        }
        if let Some(sample) = sample.and_then(Real::new) {
            self.open = Some(self.open.map_or(Seen::first(sample), |seen| seen.and(sample)));
        }
        has_ended
    }

    /// Whether each of the last `count` periods has a point and it is as it should be.
    pub(crate) fn all(&self, count: usize, is_so: impl Fn(Real) -> bool) -> bool {
        self.closed.len() >= count && self.closed.iter().rev().take(count).all(|point| point.is_some_and(&is_so))
    }

    /// The newest point.
    pub(crate) fn newest(&self) -> Option<Real> {
        self.closed.back().copied().flatten()
    }
}

impl Seen {
    const fn first(sample: Real) -> Seen {
        Seen { count: 1, average: sample, least: sample, most: sample }
    }

    fn and(self, sample: Real) -> Seen {
        let count = self.count.saturating_add(1);
        // In this order, for a sum of large numbers has no end; halves, because the difference of two large ones has none either.
        let step = (sample.get() / 2.0 - self.average.get() / 2.0) / f64::from(count) * 2.0;
        let average = Real::new(self.average.get() + step).unwrap_or(sample);
        Seen { count, average, least: self.least.min(sample), most: self.most.max(sample) }
    }

    const fn point(&self, statistic: Statistic) -> Real {
        match statistic {
            Statistic::Average => self.average,
            Statistic::Minimum => self.least,
            Statistic::Maximum => self.most,
        }
    }
}
