//! How a pool is sized: its policy, what that remembers, and what it decided last.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};

use crate::id::Position;
use crate::resources::{Asked, Fit};
use crate::scaling::decision::Decision;
use crate::scaling::signal::{Bounds, Observation, Reading, Replicas, Signal};
use crate::scaling::usage::{self, ReplicaReading};
use crate::scaling::{AnyPolicy, Memory, Policy, needs};
use crate::sharing;
use crate::time::Timestamp;

/// The policy of a pool with everything that its next decision depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// The policy as it was set.
    pub text: String,
    /// How small and how large it may make the pool.
    pub bounds: Bounds,
    /// The event that set it.
    pub set_at: Position,
    /// What was seen and decided last.
    pub last: Option<Look>,
    /// Where shards share the pool: how many of its replicas each has, by number.
    pub parts: Vec<u32>,
    memory: Memory,
    /// What the text says. It follows from the text and is not written.
    policy: AnyPolicy,
    /// The signals that it reads, in the order of readings. They follow from the policy and are not written.
    signals: Vec<String>,
    /// Whether it looks at replicas one by one. That follows from the policy as well.
    reads_replicas: bool,
}

impl Eq for Scaling {}

/// One look at a pool.
#[derive(Clone, Debug, PartialEq, Encode, Decode, serde::Serialize)]
pub struct Look {
    /// What there was.
    pub seen: Observation,
    /// What followed.
    pub decision: Decision,
}

impl Scaling {
    /// A policy that has seen nothing yet; `None` for a text that is none, which only a newer build can have written.
    pub(crate) fn new(text: &str, least: u32, most: u32, set_at: Position) -> Option<Scaling> {
        let policy: AnyPolicy = serde_json::from_str(text).ok()?;
        let (signals, reads_replicas) = (needs::signals(&policy), needs::replicas(&policy));
        let bounds = Bounds { min: least, max: most };
        Some(Scaling {
            text: text.to_owned(),
            bounds,
            set_at,
            last: None,
            parts: Vec::new(),
            memory: Memory::default(),
            policy,
            signals,
            reads_replicas,
        })
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

    pub(crate) fn observation(
        &self,
        readings: &[Reading],
        (seen, asked): (&[ReplicaReading], &Asked),
        replicas: Replicas,
        ceiling: Option<Fit>,
        at: Timestamp,
    ) -> Option<Observation> {
        if readings.len() != self.signals.len() {
            return None;
        }
        let signals = self.signals.iter().zip(readings);
        let signals = signals.map(|(name, reading)| Signal { name: name.clone(), reading: reading.clone() }).collect();
        // Where nobody looked at replicas that is something else than none.
        let pods = self.reads_replicas.then(|| usage::pods(seen, asked));
        let max = ceiling.map_or(self.bounds.max, |fit| fit.replicas());
        Some(Observation { at, bounds: Bounds { max, ..self.bounds }, ceiling, replicas, signals, pods })
    }

    /// What the policy would decide; nothing is remembered of it.
    pub(crate) fn decide(&self, observation: &Observation) -> Decision {
        self.policy.evaluate(&mut self.memory.clone(), observation)
    }

    /// Decides, and remembers it.
    pub(crate) fn look(&mut self, observation: &Observation) {
        let decision = self.policy.evaluate(&mut self.memory, observation);
        self.last = Some(Look { seen: observation.clone(), decision });
    }

    /// Shares what was decided out over shards that have this work, see [`sharing`].
    pub(crate) fn share_out(&mut self, pool: &str, slots: u32, work: &[u64]) {
        let size = self.last.as_ref().map_or(0, |last| last.decision.wanted);
        self.parts = sharing::deal(pool, size, slots, work, &self.parts);
    }
}

impl Encode for Scaling {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Bounds { min, max } = self.bounds;
        (&self.text, min, max, self.set_at).encode(encoder)?;
        (&self.last, &self.parts, &self.memory).encode(encoder)
    }
}

impl<Context> Decode<Context> for Scaling {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (text, least, most, set_at) = <(String, u32, u32, Position)>::decode(decoder)?;
        let (last, parts, memory) = Decode::decode(decoder)?;
        let scaling = Scaling::new(&text, least, most, set_at).ok_or(DecodeError::Other("a policy cannot be read"))?;
        Ok(Scaling { last, parts, memory, ..scaling })
    }
}
