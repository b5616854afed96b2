//! What a policy answers: every number that led to it, and the sentence that says it.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::real::Real;
use super::signal::{Observation, Value};
use crate::resources::Fit;
use crate::time::Timestamp;

/// A decision about the size of a pool. It refers to the observation that it used and repeats nothing of it but what it compared.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// How many replicas were wanted before.
    pub from: u32,
    /// How many are wanted now.
    pub wanted: u32,
    /// Why, in one word.
    pub reason: Reason,
    /// What each input of the policy proposed, in the policy's order; empty where none was looked at.
    pub verdicts: Vec<Verdict>,
    /// Which of them won.
    pub winner: Option<u16>,
    /// What cut the proposal, in the order in which it did.
    pub limits: Vec<Limit>,
    /// The moment from which on the policy may decide otherwise although nothing happened.
    pub look_again: Option<Timestamp>,
}

/// Why a decision is what it is; the numbers are in its other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The winner's proposal, cut by the limits.
    Proposed,
    /// Nobody asked for another count.
    Content,
    /// There were more or fewer replicas than the pool may have; nothing else was looked at.
    OutOfBounds,
    /// There is no replica, and this policy may not start the first one.
    Asleep,
    /// Too little is known to change anything.
    Unknown,
    /// There was nothing, and there is work: the first replicas.
    Woken,
    /// There was no work for long enough.
    Idle,
    /// There is no work, but not for long enough.
    CoolingDown,
    /// Nothing could be read for too long, and this count was prepared for that.
    Fallback,
    /// Somebody paused the policy.
    Paused,
    /// Load rose so suddenly that nothing may shrink.
    Panic,
}

/// What one input of a policy (a metric, a trigger, a rule) says.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// The number that was compared.
    pub raw: Option<Value>,
    /// How often the target fits into it; `None` where that is no number.
    pub ratio: Option<Real>,
    /// The pods that counted, where pods were looked at.
    pub pods: Option<PodCounts>,
    /// What follows.
    pub answer: Answer,
}

/// What an input asks for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// So many replicas.
    Replicas(u32),
    /// Nothing.
    Nothing,
    /// It cannot say.
    Failed(Failure),
}

/// Pods by what they are good for in a calculation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodCounts {
    /// Their samples count.
    pub counted: u64,
    /// Not ready yet: what they use says nothing.
    pub unready: u64,
    /// Without a sample.
    pub missing: u64,
    /// On their way out.
    pub ignored: u64,
}

/// Why an input cannot say anything.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Nobody read the signal.
    Missing,
    /// Reading it failed.
    Source(String),
    /// It counts something and is below zero.
    Negative,
    /// There are no pods.
    NoPods,
    /// No pod that counts has a sample.
    NoSamples,
    /// A pod does not say how much of the resource it asks for.
    NoRequest,
    /// All pods together ask for nothing.
    ZeroRequest,
    /// The calculation has no result.
    NoNumber,
}

/// A bound that cut a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Which one.
    pub kind: LimitKind,
    /// What was wanted before it.
    pub from: u32,
    /// What it left.
    pub to: u32,
    /// What set it: the event to show to whoever asks why.
    pub by: By,
}

/// The bounds that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// The pool's fewest.
    Min,
    /// The pool's most.
    Max,
    /// Growing waits until every recommendation of a window agrees.
    UpWindow,
    /// Shrinking waits until every recommendation of a window agrees.
    DownWindow,
    /// How fast a pool may grow.
    UpRate,
    /// How fast a pool may shrink.
    DownRate,
    /// The last growing is too recent.
    UpCooldown,
    /// The last shrinking, or growing, is too recent.
    DownCooldown,
    /// The policy never grows.
    UpDisabled,
    /// The policy never shrinks.
    DownDisabled,
    /// A replica that is idle is kept for as long as a new one would take to start.
    KeepAlive,
    /// Nothing shrinks in panic.
    Panic,
    /// Somebody paused it.
    Pause,
    /// Somebody holds the pool at a size.
    Hold,
    /// What all replicas of the pool may have together.
    Ceiling,
}

/// What set a bound. Whoever holds the log finds the event: moments name decisions, for no two batches have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The definition of the pool.
    Pool,
    /// The definition of the policy.
    Policy,
    /// A rule of the policy, with the count at the start of its period and the first change inside it.
    Rule {
        /// Which one, in the policy's order.
        rule: u16,
        /// The count at the start of its period: 64 bits, for changes may add up to less than nothing.
        start: i64,
        /// The decision that made the first change that still counts.
        since: Option<Timestamp>,
    },
    /// The decision of this moment.
    Decision(Timestamp),
    /// Who holds the pool since this moment.
    Hold(Timestamp),
    /// The ceiling of the pool, with the part of it that leaves room for the fewest.
    Ceiling(Fit),
}

impl Decision {
    /// A decision that leaves everything as it is, to be filled in.
    pub(crate) fn draft(observation: &Observation) -> Decision {
        let wanted = observation.replicas.wanted;
        let (verdicts, limits) = (Vec::new(), Vec::new());
        Decision { from: wanted, wanted, reason: Reason::Content, verdicts, winner: None, limits, look_again: None }
    }

    /// Takes another count for a bound's sake and notes the bound, if it is another count.
    pub(crate) fn cut(&mut self, kind: LimitKind, to: u32, by: By) {
        if to != self.wanted {
            self.limits.push(Limit { kind, from: self.wanted, to, by });
            self.wanted = to;
        }
    }

    /// Keeps to the pool's bounds.
    pub(crate) fn bound(&mut self, observation: &Observation) {
        let nearest = observation.bounds.nearest(self.wanted);
        let kind = if nearest > self.wanted { LimitKind::Min } else { LimitKind::Max };
        self.cut(kind, nearest, By::Pool);
    }

    /// Names the ceiling where it, and not the pool's maximum, is the most that the pool may have.
    pub(crate) fn name_ceiling(&mut self, observation: &Observation) {
        let Some(fit) = observation.ceiling else { return };
        let by_max = self.limits.iter_mut().filter(|limit| limit.kind == LimitKind::Max && limit.by == By::Pool);
        by_max.for_each(|limit| (limit.kind, limit.by) = (LimitKind::Ceiling, By::Ceiling(fit)));
    }

    /// The moment from which on it is worth looking again, if it is sooner than the one known.
    pub(crate) fn look_again_at(&mut self, at: Timestamp) {
        self.look_again = Some(self.look_again.map_or(at, |known| known.min(at)));
    }

    /// The largest proposal; of equals the first, and the first of all where the largest is none.
    pub(crate) fn largest(&self) -> Option<(u16, u32)> {
        let mut best: Option<(u16, u32)> = None;
        for (index, verdict) in self.verdicts.iter().enumerate() {
            let Answer::Replicas(count) = verdict.answer else { continue };
            if best.is_none_or(|(_, most)| count > most) {
                best = Some((u16::try_from(index).unwrap_or(u16::MAX), count));
            }
        }
        best
    }

    /// Whether it changes the size of the pool.
    pub const fn is_change(&self) -> bool {
        self.from != self.wanted
    }

    /// Whether it tells nobody anything that the one before did not: the same count for the same reason, winner, bounds and failures. Only the
    /// numbers are newer, and they are in its observation; the log needs no second copy of the rest.
    pub fn says_the_same(&self, before: &Decision) -> bool {
        !self.is_change() && self.reason == before.reason && self.is_for_the_same(before)
    }

    /// The same of a policy that changes nothing: whether it would change the size is a matter of the size that another one gave the pool.
    pub fn wants_the_same(&self, before: &Decision) -> bool {
        let reason = |decision: &Decision| if decision.reason == Reason::Content { Reason::Proposed } else { decision.reason };
        reason(self) == reason(before) && self.is_for_the_same(before)
    }

    /// Whether it is the same count for the same winner, bounds and failures. What somebody holds back is news whenever it is another count.
    fn is_for_the_same(&self, before: &Decision) -> bool {
        let bound = |limit: &Limit| (limit.kind, if limit.kind == LimitKind::Hold { limit.from } else { 0 });
        let bounds = |decision: &Decision| decision.limits.iter().map(bound).collect::<Vec<_>>();
        (self.wanted, self.winner) == (before.wanted, before.winner)
            && self.failures().eq(before.failures())
            && bounds(self) == bounds(before)
    }

    /// The inputs that could not say anything, and why.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> {
        self.verdicts.iter().enumerate().filter_map(|(index, verdict)| match &verdict.answer {
            Answer::Failed(failure) => Some((index, failure)),
            Answer::Replicas(_) | Answer::Nothing => None,
        })
    }
}

impl Verdict {
    /// An input that cannot say anything.
    pub(crate) const fn failed(failure: Failure) -> Verdict {
        Verdict { raw: None, ratio: None, pods: None, answer: Answer::Failed(failure) }
    }

    /// An input with its number, how it compares, and what follows.
    pub(crate) fn of(raw: Value, ratio: f64, answer: Answer) -> Verdict {
        Verdict { raw: Some(raw), ratio: Real::new(ratio), pods: None, answer }
    }
}
