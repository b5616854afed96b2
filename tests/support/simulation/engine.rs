//! The engine as the log writer runs it: decide, seal, write, sync, and only then tell anybody.

use ergate_events::block::{Hash, SealedBlock};
use ergate_events::event::{Envelope, Event, Timeout};
use ergate_events::id::{Ordinal, ReplicaId, ShardId};
use ergate_events::planted::{Bug, is};
use ergate_events::shard::{Answer, BLOCK_BYTES_TARGET, Shard};
use ergate_events::state::State;
use ergate_events::task::TypeSettings;
use ergate_events::time::Timestamp;
use ergate_events::worker::{WORKER_FIRST, WorkerFacts};

use super::ask::Ask;

/// What the engine tells a worker once the event behind it is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Effect {
    Start { task: Ordinal, attempt: u32, replica: ReplicaId, again: bool },
    Stop { task: Ordinal, attempt: u32, replica: ReplicaId },
    Cancel { task: Ordinal, attempt: u32, replica: ReplicaId },
}

/// Replies and effects that wait for their block.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) replies: Vec<(Ask, Answer)>,
    pub(crate) effects: Vec<Effect>,
}

impl Waiting {
    fn append(&mut self, mut other: Waiting) {
        self.replies.append(&mut other.replies);
        self.effects.append(&mut other.effects);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.effects.is_empty()
    }
}

/// A block on its way to the disk.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) sealed: SealedBlock,
    waiting: Waiting,
}

#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shard: Shard,
    head: Hash,
    pub(crate) inbox: Vec<Ask>,
    filling: Waiting,
    pub(crate) flight: Option<Flight>,
    /// The moment of the world and the moment of the log at which this process began.
    began: (u64, Timestamp),
}

impl Engine {
    pub(crate) fn new(state: State, head: Hash, now: u64, log_now: Timestamp) -> Engine {
        let shard = Shard::new(ShardId(0), state);
        Engine { shard, head, inbox: Vec::new(), filling: Waiting::default(), flight: None, began: (now, log_now) }
    }

    pub(crate) const fn log_time(&self, now: u64) -> Timestamp {
        Timestamp(self.began.1.0 + (now - self.began.0))
    }

    /// The moment of the world at which the shard wants another batch.
    pub(crate) fn due(&self) -> Option<u64> {
        let due = self.shard.next_due();
        (due < Timestamp::NEVER).then(|| self.began.0 + due.since(self.began.1).0)
    }

    /// Decides one batch. What need not wait for a block is returned.
    pub(crate) fn step(
        &mut self,
        now: u64,
        types: &TypeSettings,
        guests: &[WorkerFacts],
        seen: &mut dyn FnMut(&Envelope<'_>),
    ) -> Waiting {
        if self.shard.open_block().body_len() >= BLOCK_BYTES_TARGET {
            return Waiting::default();
        }
        let asks = std::mem::take(&mut self.inbox);
        let commands: Vec<_> = asks.iter().map(|ask| ask.command(types, guests)).collect();
        let (mut answers, mut batch) = (Vec::new(), Waiting::default());
        let at = self.log_time(now);
        let mut observer = |envelope: &Envelope<'_>, state: &State| {
            seen(envelope);
            batch.effects.extend(effect(&envelope.event, state));
        };
        let taken = self.shard.batch(at, &commands, &mut answers, &mut observer);
        drop(commands);
        let mut asks = asks.into_iter();
        batch.replies.extend(asks.by_ref().take(taken).zip(answers));
        self.inbox.extend(asks);
        self.hold_back(batch)
    }

    /// Everything waits until the position at which it was decided is durable, refusals included.
    fn hold_back(&mut self, batch: Waiting) -> Waiting {
        if is(Bug::AckBeforeSync) {
            return batch;
        }
        if self.shard.open_block().count() > 0 {
            self.filling.append(batch);
        } else if let Some(flight) = &mut self.flight {
            flight.waiting.append(batch);
        } else {
            return batch;
        }
        Waiting::default()
    }

    /// Seals the open block if there is one and the log thread is free.
    pub(crate) fn launch(&mut self) -> bool {
        if self.flight.is_some() {
            return false;
        }
        let Some(sealed) = self.shard.seal(self.head) else { return false };
        self.head = sealed.hash;
        self.flight = Some(Flight { sealed, waiting: std::mem::take(&mut self.filling) });
        true
    }

    /// The block is durable: now everybody may know.
    pub(crate) fn land(&mut self) -> Waiting {
        self.flight.take().map(|flight| flight.waiting).unwrap_or_default()
    }

    /// Whether nothing is on its way anywhere.
    pub(crate) fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.flight.is_none() && self.filling.is_empty() && self.shard.open_block().count() == 0
    }

    /// What a new engine tells workers that outlived the old one.
    pub(crate) fn remind(&self) -> Vec<Effect> {
        use ergate_events::slab::Phase;
        use ergate_events::state::replicas::Slot;
        let work = &self.shard.state().work;
        let mut effects = Vec::new();
        for (replica, slot) in work.slots() {
            match *slot {
                // What guests do not know of they do not begin: they say so, and it goes back.
                Slot::Busy { .. } if replica >= WORKER_FIRST => {}
                Slot::Busy { task, attempt, .. } => {
                    effects.push(Effect::Start { task, attempt, replica, again: true });
                    if work.tasks.get(task).is_some_and(|task| task.phase == Phase::Cancelling) {
                        effects.push(Effect::Cancel { task, attempt, replica });
                    }
                }
                Slot::Held { task, attempt } => effects.push(Effect::Stop { task, attempt, replica }),
                Slot::Free => {}
            }
        }
        effects
    }
}

/// What a worker must be told because of an event.
fn effect(event: &Event<'_>, state: &State) -> Option<Effect> {
    let slot = |task: Ordinal| state.work.tasks.get(task).filter(|task| task.has_slot()).map(|task| (task.attempt, task.replica));
    #[expect(clippy::wildcard_enum_match_arm, reason = "the run itself shows when a worker should have been told more")]
    match *event {
        Event::Started { task, attempt, replica } => Some(Effect::Start { task, attempt, replica, again: false }),
        Event::TimedOut { task, attempt, timeout: Timeout::StartToClose | Timeout::Heartbeat } => {
            let replica = state.work.tasks.get(task)?.replica;
            Some(Effect::Stop { task, attempt, replica })
        }
        Event::TimedOut { task, .. } | Event::KillRequested { task, .. } => {
            let (attempt, replica) = slot(task)?;
            Some(Effect::Stop { task, attempt, replica })
        }
        Event::CancelRequested { task, .. } => {
            let (attempt, replica) = slot(task)?;
            Some(Effect::Cancel { task, attempt, replica })
        }
        _ => None,
    }
}
