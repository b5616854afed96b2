//! A shard at work: commands and the time in, events and answers out. Nothing here reads a clock or touches a disk.
//!
//! A **batch** is everything that is decided at one moment: first what falls due, then the commands in order, then what limits let through and
//! the starts. All its
//! records have the same time, a later one than the batch before, and lie in one block: so a reader sees from the times alone
//! where a batch ends, and can decide it again.

use crate::block::{Hash, OpenBlock, SealedBlock};
use crate::command::{Accepted, Command, Rejection};
use crate::decide::decide;
use crate::due::{DUE_MAX, next_due};
use crate::event::{Envelope, Event};
use crate::id::{Ordinal, ShardId};
use crate::settle::Settling;
use crate::state::State;
use crate::time::Timestamp;

/// A batch takes no further command once the open block has this many bytes. Blocks of this size compress and hash at full speed
/// and are still read in a fraction of a millisecond.
pub const BLOCK_BYTES_TARGET: usize = 128 << 10;

/// Sees every event of a shard as it is decided, with the state after it; this is how a shell learns what to do once it is durable.
pub trait Observer {
    /// An event was recorded.
    fn observe(&mut self, envelope: &Envelope<'_>, state: &State);
}

impl<F: FnMut(&Envelope<'_>, &State)> Observer for F {
    fn observe(&mut self, envelope: &Envelope<'_>, state: &State) {
        self(envelope, state);
    }
}

/// The answer to a command.
pub type Answer = Result<Accepted, Rejection>;

/// One shard: its accepted state and the block that is being filled.
#[derive(Debug)]
pub struct Shard {
    state: State,
    open: OpenBlock,
    settling: Settling,
    /// Whether there may be more to start than the last batch had room for; true at first, since nobody knows how the log before ended.
    more_to_start: bool,
}

impl Shard {
    /// A shard that continues from this state.
    pub fn new(id: ShardId, state: State) -> Shard {
        let open = OpenBlock::new(id, state.epoch, state.position, state.next_ordinal());
        Shard { state, open, settling: Settling::default(), more_to_start: true }
    }

    /// The accepted state: it includes events that are not durable yet.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The block that is being filled.
    pub const fn open_block(&self) -> &OpenBlock {
        &self.open
    }

    /// Decides one batch at `now`, or just after the last batch where the clock stands still. Returns how many commands it took: it stops
    /// when the open block has reached its size, and the caller seals and goes on with the rest.
    pub fn batch<'a>(
        &mut self,
        now: Timestamp,
        commands: &[Command<'a>],
        answers: &mut Vec<Answer>,
        observer: &mut dyn Observer,
    ) -> usize {
        let at = now.max(Timestamp(self.state.last_at.0.saturating_add(1)));
        self.state.refresh(at);
        self.fall_due(at, observer);
        let mut events: Vec<Event<'a>> = Vec::new();
        let mut taken = 0;
        for command in commands {
            // Where an attempt ran and how it ended are never in two batches.
            let is_pair = taken > 0 && matches!(commands[taken - 1], Command::Ran { .. });
            if taken > 0 && !is_pair && self.open.body_len() >= BLOCK_BYTES_TARGET {
                break;
            }
            taken += 1;
            answers.push(self.decide(at, command, &mut events, observer));
        }
        self.start(at, observer);
        taken
    }

    fn fall_due(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        let mut events = Vec::new();
        for _ in 0..DUE_MAX {
            next_due(&self.state, at, &mut events);
            if events.is_empty() {
                return;
            }
            events.drain(..).for_each(|event| self.record(at, event, observer));
        }
    }

    fn decide<'a>(
        &mut self,
        at: Timestamp,
        command: &Command<'a>,
        events: &mut Vec<Event<'a>>,
        observer: &mut dyn Observer,
    ) -> Answer {
        decide(&self.state, command, at, events)?;
        let next = self.state.next_ordinal();
        let (mut task, mut duplicate, mut released) = (None, false, false);
        for event in events.drain(..) {
            duplicate |= matches!(event, Event::Deduplicated { .. });
            released |= matches!(event, Event::SlotReleased { .. });
            task = task.or(if event.creates_task() { Some(next) } else { event.task() });
            self.record(at, event, observer);
        }
        Ok(Accepted { position: self.state.position, task, duplicate, released })
    }

    fn start(&mut self, at: Timestamp, observer: &mut dyn Observer) {
        self.settling.begin();
        while let Some(event) = self.settling.next(&self.state, at) {
            self.record(at, event, observer);
        }
        self.more_to_start = self.settling.is_full();
    }

    fn record(&mut self, at: Timestamp, event: Event<'_>, observer: &mut dyn Observer) {
        if let Event::Opened { epoch, .. } = event {
            self.open.epoch = epoch;
        }
        self.open.push(at, &event);
        let envelope = Envelope { position: self.state.position, recorded_at: at, event };
        self.state.apply(&envelope);
        self.open.source_next = self.state.work.source_next;
        observer.observe(&envelope, &self.state);
    }

    /// Seals the open block behind `previous` and begins the next one; `None` when nothing was recorded.
    pub fn seal(&mut self, previous: Hash) -> Option<SealedBlock> {
        if self.open.count() == 0 {
            return None;
        }
        let sealed = self.open.seal(previous);
        self.open.restart();
        Some(sealed)
    }

    /// Hands out the open block for sealing elsewhere and begins the next one; `None` when nothing was recorded.
    pub fn take_open(&mut self) -> Option<OpenBlock> {
        if self.open.count() == 0 {
            return None;
        }
        let next = OpenBlock::new(self.open.shard(), self.open.epoch, self.open.next_position(), self.open.next_ordinal());
        Some(std::mem::replace(&mut self.open, next))
    }

    /// The earliest moment at which a batch without commands may decide something.
    pub fn next_due(&self) -> Timestamp {
        if self.more_to_start { Timestamp(0) } else { self.state.next_due() }
    }

    /// The ordinal that the next created task gets.
    pub const fn next_ordinal(&self) -> Ordinal {
        self.state.next_ordinal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, Depth};
    use crate::block::Block;
    use crate::event::RuleVersions;
    use crate::id::TypeId;
    use crate::invariant;
    use crate::task::{Outcome, TypeSettings};

    #[test]
    fn a_task_lives_from_request_to_success_in_three_events_and_the_audit_agrees() {
        let mut shard = Shard::new(ShardId(0), State::default());
        let settings = TypeSettings::default();
        let mut events = Vec::new();
        let mut observer = |envelope: &Envelope<'_>, _: &State| events.push(format!("{:?}", envelope.event));
        let mut answers = Vec::new();
        let setup = [
            Command::Open { rules: RuleVersions::CURRENT, writer: "test" },
            Command::DefineType { name: "noop", settings: &settings, by: "test" },
            Command::DefinePool { pool: "default", replicas: 1, slots: 2, by: "test", reason: "" },
        ];
        shard.batch(Timestamp(10), &setup, &mut answers, &mut observer);
        shard.batch(Timestamp(11), &[], &mut answers, &mut observer);
        let replica = crate::id::ReplicaId(0);
        let ready = [Command::ReadyReplica { replica }, Command::JoinReplica { replica, pool: "default", slots: 2 }];
        shard.batch(Timestamp(12), &ready, &mut answers, &mut observer);
        let request = Command::Request { task_type: TypeId(0), payload: b"{}", key: None, asks: &[] };
        shard.batch(Timestamp(20), &[request], &mut answers, &mut observer);
        let success = Command::Succeed { task: Ordinal(0), attempt: 1, outcome: Outcome::Succeeded, result: b"1" };
        shard.batch(Timestamp(20), &[success], &mut answers, &mut observer);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        assert_eq!(events.len(), 3 + 1 + 2 + 3, "{events:#?}");
        invariant::check(shard.state()).expect("every invariant holds");
        let sealed = shard.seal(Hash::ZERO).expect("events were recorded");
        let mut audit = Audit::new(Depth::Decisions, State::default(), Some(Hash::ZERO));
        audit.follow(&Block::parse(&sealed.bytes).expect("it was just sealed")).expect("the rules give the same");
        assert_eq!(audit.state().digest(), shard.state().digest());
        assert_eq!(audit.head(), sealed.hash);
    }
}
