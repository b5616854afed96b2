//! The state of a shard: a fold of its log. [`State::apply`] is the only code that changes it.

use crate::event::{Envelope, Event, RuleVersions};
use crate::id::{Epoch, Ordinal, Position};
use crate::time::Timestamp;

pub mod control;
mod decider;
pub mod flow;
pub mod holds;
pub mod image;
pub mod keys;
pub mod queue;
pub mod replicas;
pub mod scaling;
pub mod schedules;
pub mod work;

pub use control::Control;
pub use work::Work;

/// Everything that follows from a log up to a position.
#[derive(Clone, Debug)]
pub struct State {
    /// Tasks, queues and slots.
    pub work: Work,
    /// Pools, their replicas, and schedules.
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
            | Event::PoolModeSet { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. }
            | Event::SizeHeld { .. }
            | Event::PoolResourcesSet { .. }
            | Event::PoolScaled { .. } => {
                self.control.apply(envelope);
                self.unsettled = true;
            }
            Event::ScheduleDefined { .. }
            | Event::ScheduleRemoved { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::Fired { .. }
            | Event::Triggered { .. }
            | Event::SlotsPassed { .. }
            | Event::PolicySet { .. }
            | Event::ShadowSet { .. }
            | Event::PoolObserved { .. } => self.control.apply(envelope),
            Event::ProcessExited { .. }
            | Event::ClockStepped { .. }
            | Event::LossAccepted { .. }
            | Event::ShardsObserved { .. } => {}
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
            | Event::DeadLetterDropped { .. }
            | Event::SourceMoved { .. }
            | Event::RequestRefused { .. }
            | Event::LimitDefined { .. }
            | Event::TypeLimited { .. }
            | Event::Progressed { .. }
            | Event::Limited { .. }
            | Event::Admitted { .. }
            | Event::TypesServed { .. }
            | Event::WorkerJoined { .. }
            | Event::WorkAsked { .. }
            | Event::WorkerMissed { .. }
            | Event::AttemptReturned { .. }
            | Event::ConcurrencyChanged { .. }
            | Event::AttemptRan { .. }
            | Event::DependencyMet { .. } => self.work.apply(envelope),
        }
        self.position = envelope.position.next();
        self.last_at = self.last_at.max(envelope.recorded_at);
    }

    /// Tightens caches at the beginning of a batch; changes no decision and no byte of [`State::encode`].
    pub fn refresh(&mut self, at: Timestamp) {
        if self.work.replicas.next_deadline() <= at {
            self.work.replicas.refresh(at);
        }
        self.work.flow.refresh(at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::id::{ReplicaId, ShardId, TypeId};
    use crate::shard::Shard;
    use crate::task::{Ask, IdempotencyKey, Outcome, TypeSettings};

    const HOUR: u64 = 3_600_000_000;

    fn decide(shard: &mut Shard, at: u64, commands: &[Command<'_>]) {
        let (mut rest, mut answers) = (commands, Vec::new());
        while !rest.is_empty() {
            let taken = shard.batch(Timestamp(at), rest, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
            drop(shard.take_open());
            rest = &rest[taken..];
        }
        assert!(answers.iter().all(Result::is_ok), "every command is taken");
    }

    /// Requests tasks with keys that wait for moments in no order, or for a slot.
    fn request(shard: &mut Shard, numbers: std::ops::Range<u64>, waits: bool) {
        let names: Vec<String> = numbers.clone().map(|number| number.to_string()).collect();
        let due = |number: u64| Ask::NotBefore(Timestamp(HOUR + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % HOUR));
        let asks: Vec<_> = numbers.map(|number| waits.then(|| due(number))).collect();
        let key = |name| Some(IdempotencyKey { key: name, window: None });
        let commands: Vec<_> = names
            .iter()
            .zip(&asks)
            .map(|(name, asks)| Command::Request {
                task_type: TypeId(0),
                payload: b"payload",
                key: key(name),
                asks: asks.as_slice(),
            })
            .collect();
        decide(shard, 1, &commands);
    }

    fn shard_with(waiting: u64, ready: u64) -> Shard {
        let mut shard = Shard::new(ShardId(0), State::default());
        decide(&mut shard, 1, &[Command::DefineType { name: "job", settings: &TypeSettings::default(), by: "test" }]);
        request(&mut shard, 0..waiting, true);
        request(&mut shard, waiting..waiting + ready, false);
        shard
    }

    /// Pointers and values that a clone of the state copies one by one.
    fn clone_work(state: &State) -> usize {
        let queues: usize = state.work.queues.iter().map(crate::state::queue::ReadyQueue::clone_work).sum();
        state.work.tasks.clone_work() + queues + state.work.replicas.clone_work()
    }

    /// Timers, keys and queues were copied entry by entry, so that a snapshot of a million tasks stopped the shard for a fifth of a second.
    #[test]
    fn a_copy_costs_little_whatever_the_state_holds() {
        let (small, large) = (shard_with(5_000, 5_000), shard_with(20_000, 20_000));
        let more = clone_work(large.state()) - clone_work(small.state());
        assert!(
            more < 30_000 / 50 + 1_024,
            "{more} more for 30,000 more tasks, each with a key and a timer or a place in a queue"
        );
    }

    #[test]
    fn what_a_shard_does_beside_a_copy_copies_what_it_touches_and_changes_nothing_that_the_copy_saw() {
        let mut shard = shard_with(20_000, 0);
        let copy = shard.state().clone();
        let digest = copy.digest();
        decide(&mut shard, 1, &[Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots: 1_000 }]);
        request(&mut shard, 20_000..21_000, false);
        let end = |task| Command::Succeed { task: Ordinal(task), attempt: 1, outcome: Outcome::Succeeded, result: b"" };
        decide(&mut shard, 2, &(20_000..21_000).map(end).collect::<Vec<_>>());
        let (now, then) = (&shard.state().work, &copy.work);
        assert_eq!((now.tasks.pages_apart(&then.tasks), now.timers.nodes_apart(&then.timers)), (1, 0));
        // Each key has a place of its own: a leaf each at most, and the few nodes above.
        let nodes = now.keys.nodes_apart(&then.keys);
        assert!((1..2_000).contains(&nodes), "{nodes} nodes");
        assert_eq!(copy.digest(), digest);
    }
}
