//! A policy at work: what was set, what it remembers, and what it decided last.

use std::borrow::Cow;

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode, impl_borrow_decode};

use crate::id::Position;
use crate::scaling::decision::Decision;
use crate::scaling::signal::{Observation, Signal};
use crate::scaling::{AnyPolicy, Memory, Policy, needs};

/// A policy with everything that its next decision depends on, but for the pool.
#[derive(Clone, Debug, PartialEq)]
pub struct Decider {
    /// The policy as it was set.
    pub text: String,
    /// The event that set it.
    pub set_at: Position,
    /// What was seen and decided last.
    pub last: Option<Look>,
    memory: Memory,
    /// What the text says. It follows from the text and is not written.
    policy: AnyPolicy,
    /// The signals that it reads, in the order of readings. They follow from the policy and are not written.
    signals: Vec<String>,
    /// Whether it looks at replicas one by one. That follows from the policy as well.
    reads_replicas: bool,
}

impl Eq for Decider {}

/// One look at a pool.
#[derive(Clone, Debug, PartialEq, Encode, Decode, serde::Serialize)]
pub struct Look {
    /// What there was.
    pub seen: Observation,
    /// What followed.
    pub decision: Decision,
}

impl Decider {
    /// A policy that has seen nothing yet, for a pool of this size; `None` for a text that is none, which only a newer build can have written.
    pub(crate) fn new(text: &str, size: u32, set_at: Position) -> Option<Decider> {
        let policy: AnyPolicy = serde_json::from_str(text).ok()?;
        let (signals, reads_replicas) = (needs::signals(&policy), needs::replicas(&policy));
        let memory = policy.begin(size);
        Some(Decider { text: text.to_owned(), set_at, last: None, memory, policy, signals, reads_replicas })
    }

    /// The policy.
    pub const fn policy(&self) -> &AnyPolicy {
        &self.policy
    }

    /// The signals that it reads, in the order of readings.
    pub fn signals(&self) -> &[String] {
        &self.signals
    }

    /// Whether it is shown replicas one by one.
    pub const fn reads_replicas(&self) -> bool {
        self.reads_replicas
    }

    /// What it sees of what was seen for all that were asked: what only others read is not there for it, so they cannot change what it decides.
    fn own<'a>(&self, seen: &'a Observation) -> Cow<'a, Observation> {
        let is_own = |signal: &&Signal| self.signals.contains(&signal.name);
        if (self.reads_replicas || seen.pods.is_none()) && seen.signals.iter().all(|signal| is_own(&signal)) {
            return Cow::Borrowed(seen);
        }
        let Observation { at, bounds, ceiling, replicas, .. } = *seen;
        let signals = seen.signals.iter().filter(is_own).cloned().collect();
        let pods = seen.pods.as_ref().filter(|_| self.reads_replicas).cloned();
        Cow::Owned(Observation { at, bounds, ceiling, replicas, signals, pods })
    }

    /// What it decides, and what it remembers of that; `got` is what the pool gets of what it wants. Where that is something else, it hears so.
    pub(super) fn decide(&self, seen: &Observation, got: impl FnOnce(&mut Decision) -> u32) -> (Decision, Memory) {
        let (mut memory, seen) = (self.memory.clone(), self.own(seen));
        let mut decision = self.policy.evaluate(&mut memory, &seen);
        let wanted = decision.wanted;
        let got = got(&mut decision);
        if got != wanted {
            self.policy.overruled(&mut memory, &seen, got);
        }
        (decision, memory)
    }

    /// Keeps what it decided and remembers.
    pub(super) fn keep(&mut self, seen: &Observation, (decision, memory): (Decision, Memory)) {
        self.memory = memory;
        self.last = Some(Look { seen: seen.clone(), decision });
    }
}

impl Encode for Decider {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (&self.text, self.set_at, &self.last, &self.memory).encode(encoder)
    }
}

impl<Context> Decode<Context> for Decider {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (text, set_at, last, memory) = <(String, Position, Option<Look>, Memory)>::decode(decoder)?;
        let decider = Decider::new(&text, 0, set_at).ok_or(DecodeError::Other("a policy cannot be read"))?;
        Ok(Decider { last, memory, ..decider })
    }
}

impl_borrow_decode!(Decider);
