//! What the HPA remembers: recommendations for its windows, changes for its paces, and its conditions.

use std::collections::VecDeque;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::rulebook::Rulebook;
use super::settings::{Memories, PERIOD_MAX, WINDOW_MAX};
use super::words::{Condition, ConditionReason, Conditions};
use crate::time::{Micros, Timestamp};

/// What it remembers.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// What was proposed before windows and limits; in native mode one entry for equal ones in a row, oldest first.
    pub recommendations: VecDeque<Recommendation>,
    /// Changes that made the pool larger.
    pub up: Vec<Change>,
    /// Changes that made it smaller.
    pub down: Vec<Change>,
    /// Its conditions as they stand.
    pub conditions: Conditions,
    /// How the recommendations are kept.
    #[serde(default)]
    kept: Memories,
}

/// A proposal that a window may still need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recommendation {
    /// When it was made, the last time of equal ones in a row.
    pub at: Timestamp,
    /// How many replicas.
    pub replicas: u32,
}

/// A change that a pace may still need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When it was made.
    pub at: Timestamp,
    /// By how many replicas.
    pub by: u32,
    /// Whether its slot may be used again (compatible mode).
    #[serde(default)]
    pub is_outdated: bool,
}

impl Memory {
    /// The memory for a pool that begins with no replica and is to be woken by its policy. Without it a count of 0 is somebody's decision, which
    /// the HPA leaves alone.
    pub fn asleep() -> Memory {
        let conditions = Conditions { scaled_to_zero: Condition::yes(ConditionReason::ScaledToZero), ..Conditions::default() };
        Memory { conditions, ..Memory::default() }
    }

    /// Before the first look nothing is known but the count there is, which counts as a recommendation.
    pub(super) fn begin(&mut self, mode: Memories, at: Timestamp, current: u32) {
        if self.recommendations.is_empty() {
            self.recommendations.push_back(Recommendation { at, replicas: current });
        }
        if self.kept != mode {
            // Slots that were used again are in no order, and what is native is in that of time.
            self.recommendations.make_contiguous().sort_by_key(|known| known.at);
            self.kept = mode;
        }
    }

    /// The recommendations that are not older than a window; in compatible mode older ones may be among them.
    pub(super) fn recent(&self, at: Timestamp, window: Micros) -> impl Iterator<Item = &Recommendation> {
        let first = match self.kept {
            Memories::Compatible => 0,
            Memories::Native => self.recommendations.partition_point(|known| at.since(known.at) > window),
        };
        self.recommendations.range(first..)
    }

    /// Notes a proposal. In compatible mode it takes the place of the last one that is older than `window`.
    pub(super) fn recommended(&mut self, at: Timestamp, replicas: u32, window: Micros) {
        let new = Recommendation { at, replicas };
        match self.kept {
            Memories::Compatible => match self.recommendations.iter_mut().rev().find(|old| at.since(old.at) > window) {
                Some(old) => *old = new,
                None => self.recommendations.push_back(new),
            },
            Memories::Native => {
                while self.recommendations.front().is_some_and(|old| at.since(old.at) > WINDOW_MAX) {
                    self.recommendations.pop_front();
                }
                match self.recommendations.back_mut().filter(|last| last.replicas == replicas) {
                    Some(last) => last.at = at,
                    None => self.recommendations.push_back(new),
                }
            }
        }
    }

    /// Notes a change.
    pub(super) fn changed(&mut self, rules: &Rulebook<'_>, at: Timestamp, from: u32, to: u32) {
        let changes = if to > from { &mut self.up } else { &mut self.down };
        let new = Change { at, by: to.abs_diff(from), is_outdated: false };
        match rules.memory {
            Memories::Compatible => {
                let Some(behavior) = rules.behavior else { return };
                let longest = if to > from { behavior.longest_up() } else { behavior.longest_down() };
                changes.iter_mut().filter(|old| at.since(old.at) > longest).for_each(|old| old.is_outdated = true);
                match changes.iter_mut().rev().find(|old| old.is_outdated) {
                    Some(old) => *old = new,
                    None => changes.push(new),
                }
            }
            Memories::Native => {
                changes.retain(|old| at.since(old.at) <= PERIOD_MAX);
                changes.push(new);
            }
        }
    }
}
