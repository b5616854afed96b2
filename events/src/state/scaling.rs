//! How a pool is sized: its policy, the shadows beside it, and the size at which somebody holds it.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

pub use super::decider::{Decider, Look};
use crate::id::Position;
use crate::scaling::decision::{By, Decision, LimitKind};
use crate::scaling::signal::{Bounds, Observation, Reading, Signal};
use crate::scaling::{Memory, needs};
use crate::sharing;
use crate::time::Timestamp;

/// The policy of a pool with everything that its size depends on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Scaling {
    /// The policy that sizes it.
    pub live: Decider,
    /// How small and how large that may make the pool.
    pub bounds: Bounds,
    /// Policies that decide beside it, by name; nothing is done about what they want.
    pub shadows: BTreeMap<String, Decider>,
    /// At how many replicas somebody holds the pool, or held it.
    pub hold: Option<SizeHold>,
    /// Where shards share the pool: how many of its replicas each has, by number.
    pub parts: Vec<u32>,
}

/// A size that somebody holds, whatever the policy wants.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SizeHold {
    /// How many replicas; the bounds of the pool may make it another number.
    pub replicas: u32,
    /// Until when.
    pub until: Timestamp,
    /// Who holds it.
    pub by: String,
    /// And why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// The event that says so.
    pub set_at: Position,
}

/// What one of the asked policies decides: the name of a shadow, none for the policy of the pool; and what it remembers then.
pub(crate) struct Decided<'a> {
    pub(crate) shadow: Option<&'a str>,
    pub(crate) decision: Decision,
    /// What it decided before.
    pub(crate) last: Option<&'a Decision>,
    memory: Memory,
}

impl Scaling {
    /// The bit of the pool's own policy among those that are asked; the shadows have the next ones, in the order of their names.
    pub const LIVE: u32 = 1;

    /// A policy that has seen nothing yet, for a pool of this size; `None` for a text that is none, which only a newer build can have written.
    pub(crate) fn new(text: &str, bounds: Bounds, size: u32, set_at: Position) -> Option<Scaling> {
        let live = Decider::new(text, size, set_at)?;
        Some(Scaling { live, bounds, shadows: BTreeMap::new(), hold: None, parts: Vec::new() })
    }

    /// All policies with the bits by which they are asked: that of the pool, and each shadow with its name.
    pub fn deciders(&self) -> impl Iterator<Item = (u32, Option<&str>, &Decider)> {
        let shadows = self.shadows.iter().map(|(name, decider)| (Some(name.as_str()), decider));
        let all = std::iter::once((None, &self.live)).chain(shadows);
        (0..u32::BITS).zip(all).map(|(index, (name, decider))| (1 << index, name, decider))
    }

    /// The signals that these policies read, each once: the order of readings.
    pub fn signals(&self, asked: u32) -> Vec<&str> {
        let asked = self.deciders().filter(|(bit, ..)| asked & bit != 0);
        needs::each_once(asked.map(|(_, _, decider)| decider.signals()))
    }

    /// The hold that counts at a moment.
    pub fn hold_at(&self, at: Timestamp) -> Option<&SizeHold> {
        self.hold.as_ref().filter(|hold| at < hold.until)
    }

    /// Whether one of these policies is shown replicas one by one.
    pub fn reads_replicas(&self, asked: u32) -> bool {
        self.deciders().any(|(bit, _, decider)| asked & bit != 0 && decider.reads_replicas())
    }

    /// What was read of the signals of these policies; `None` where there are not as many readings.
    pub(crate) fn observed(&self, asked: u32, readings: &[Reading]) -> Option<Vec<Signal>> {
        let names = self.signals(asked);
        if readings.len() != names.len() {
            return None;
        }
        let signals = names.into_iter().zip(readings);
        Some(signals.map(|(name, reading)| Signal { name: name.to_owned(), reading: reading.clone() }).collect())
    }

    /// What these policies decide; nothing is remembered of it. A shadow hears what the pool has, whatever it wants.
    pub(crate) fn decide(&self, asked: u32, seen: &Observation) -> Vec<Decided<'_>> {
        let mut size = seen.replicas.wanted;
        let asked = self.deciders().filter(|(bit, ..)| asked & bit != 0);
        let decided = asked.map(|(_, shadow, decider)| {
            let (decision, memory) = match shadow {
                None => decider.decide(seen, |decision| self.hold_back(decision, seen)),
                Some(_) => decider.decide(seen, |_| size),
            };
            if shadow.is_none() {
                size = decision.wanted;
            }
            Decided { shadow, decision, last: decider.last.as_ref().map(|last| &last.decision), memory }
        });
        decided.collect()
    }

    /// Makes a decision of the pool's policy that of who holds the pool, if anybody does.
    fn hold_back(&self, decision: &mut Decision, seen: &Observation) -> u32 {
        if let Some(hold) = self.hold_at(seen.at) {
            decision.cut(LimitKind::Hold, seen.bounds.nearest(hold.replicas), By::Hold(hold.since));
        }
        decision.wanted
    }

    /// Decides, and remembers it. A hold that is over is forgotten with the first decision of the pool's policy after it.
    pub(crate) fn look(&mut self, asked: u32, seen: &Observation) {
        let decided = self.decide(asked, seen);
        let kept: Vec<_> = decided.into_iter().map(|one| (one.shadow.map(str::to_owned), (one.decision, one.memory))).collect();
        for (shadow, outcome) in kept {
            let decider = match &shadow {
                None => Some(&mut self.live),
                Some(name) => self.shadows.get_mut(name),
            };
            if let Some(decider) = decider {
                decider.keep(seen, outcome);
            }
        }
        if asked & Scaling::LIVE != 0 && self.hold_at(seen.at).is_none() {
            self.hold = None;
        }
    }

    /// Shares what was decided out over shards that have this work, see [`sharing`].
    pub(crate) fn share_out(&mut self, pool: &str, slots: u32, work: &[u64]) {
        let size = self.live.last.as_ref().map_or(0, |last| last.decision.wanted);
        self.parts = sharing::deal(pool, size, slots, work, &self.parts);
    }
}
