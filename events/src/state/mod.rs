//! The state of a shard: a fold of its log. [`State::apply`] is the only code that changes it.

use crate::event::{Envelope, Event, RuleVersions};
use crate::id::{Epoch, Ordinal, Position};
use crate::time::Timestamp;

pub mod control;
pub mod image;
pub mod keys;
pub mod queue;
pub mod replicas;
pub mod work;

pub use control::Control;
pub use work::Work;

/// Everything that follows from a log up to a position.
#[derive(Clone, Debug)]
pub struct State {
    /// Tasks, queues and slots.
    pub work: Work,
    /// Pools and their replicas.
    pub control: Control,
    /// The opening of the log that the last event belongs to.
    pub epoch: Epoch,
    /// The rules that decide from here on.
    pub rules: RuleVersions,
    /// Position that the next event gets.
    pub position: Position,
    /// Time of the last event.
    pub last_at: Timestamp,
    /// Whether the control half may want a replica more or less. A cache: it may be true in vain, never false in error.
    unsettled: bool,
}

impl Default for State {
    fn default() -> Self {
        State {
            work: Work::default(),
            control: Control::default(),
            epoch: Epoch(0),
            rules: RuleVersions::CURRENT,
            position: Position(0),
            last_at: Timestamp(0),
            unsettled: false,
        }
    }
}

impl State {
    /// Folds one event. Total: an event that makes no sense here changes nothing, because replay must not fail where the run did not.
    pub fn apply(&mut self, envelope: &Envelope<'_>) {
        match envelope.event {
            Event::Opened { epoch, rules, .. } => {
                self.epoch = epoch;
                self.rules = rules;
            }
            Event::PoolDefined { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. } => {
                self.control.apply(&envelope.event);
                self.unsettled = true;
            }
            Event::ClockStepped { .. } | Event::LossAccepted { .. } => {}
            Event::TypeDefined { .. }
            | Event::Requested { .. }
            | Event::Deduplicated { .. }
            | Event::Succeeded { .. }
            | Event::Failed { .. }
            | Event::SlotReleased { .. }
            | Event::Checkpointed { .. }
            | Event::HeartbeatMissed { .. }
            | Event::CancelRequested { .. }
            | Event::KillRequested { .. }
            | Event::Redriven { .. }
            | Event::ReplicaJoined { .. }
            | Event::ReplicaDraining { .. }
            | Event::ReplicaLeft { .. }
            | Event::Started { .. }
            | Event::Ready { .. }
            | Event::TimedOut { .. }
            | Event::RetryScheduled { .. }
            | Event::Lost { .. }
            | Event::Ended { .. }
            | Event::DeadLettered { .. }
            | Event::DeadLetterDropped { .. } => self.work.apply(envelope),
        }
        self.position = envelope.position.next();
        self.last_at = self.last_at.max(envelope.recorded_at);
    }

    /// Tightens caches at the beginning of a batch; changes no decision and no byte of [`State::encode`].
    pub fn refresh(&mut self, at: Timestamp) {
        if self.work.replicas.next_deadline() <= at {
            self.work.replicas.refresh(at);
        }
        self.unsettled = self.unsettled && self.control.adjustment().is_some();
    }

    /// Whether the control half may want a replica more or less.
    pub(crate) const fn is_unsettled(&self) -> bool {
        self.unsettled
    }

    /// The earliest moment at which a batch without commands may decide something; [`Timestamp::NEVER`] when only a command can.
    pub fn next_due(&self) -> Timestamp {
        if self.unsettled || self.work.replicas.gone().next().is_some() {
            return Timestamp(0);
        }
        self.work.next_due()
    }

    /// The ordinal that the next created task gets.
    pub const fn next_ordinal(&self) -> Ordinal {
        self.work.tasks.next()
    }
}
