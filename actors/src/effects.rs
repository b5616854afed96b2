//! What is to be done once a block is durable: collected while events are decided, carried out only after.

use std::ops::Range;

use ergate_events::event::{Cause, Envelope, Event, Timeout};
use ergate_events::id::{Epoch, Ordinal, PoolId, ReplicaId, ShardId, TypeId};
use ergate_events::log::Outgoing;
use ergate_events::shard::Observer;
use ergate_events::slab::Phase;
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::{WORKER_FIRST, WorkerId};

use crate::results::{Ending, Results};
use crate::submission::{EndFailure, TaskEnd};
use crate::waiters::Waiters;

/// An attempt to run; its bytes lie in the buffer of the [`Attempts`] it came with.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The task.
    pub task: Ordinal,
    /// Which start of it this is.
    pub number: u32,
    /// The definition it was accepted under.
    pub task_type: TypeId,
    /// When it has to be over.
    pub deadline: Timestamp,
    /// Longest time between two heartbeats.
    pub heartbeat: Option<Micros>,
    /// Whose it is, where the executor is a worker's, whose own numbers `task` then has.
    pub origin: Option<Box<Origin>>,
    pub(crate) payload: Range<usize>,
    pub(crate) checkpoint: Option<Range<usize>>,
    pub(crate) trace_parent: Option<Range<usize>>,
}

/// An attempt as the engine knows it that gave it to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The shard of its task.
    pub shard: ShardId,
    /// The task.
    pub task: Ordinal,
    /// The opening of the log in which it was started.
    pub epoch: Epoch,
}

/// An attempt as a worker was given it.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The worker's own number of it, which no other has that runs at the same time.
    pub task: Ordinal,
    /// Which start of its task it is.
    pub number: u32,
    /// The index of what runs it.
    pub task_type: TypeId,
    /// When it has to be over, by the worker's clock.
    pub deadline: Timestamp,
    /// Longest time between two heartbeats.
    pub heartbeat: Option<Micros>,
    /// Whose it is.
    pub origin: Origin,
    /// What it works on.
    pub payload: &'a [u8],
    /// What the attempt before it left.
    pub checkpoint: Option<&'a [u8]>,
    /// The W3C trace context of the request.
    pub trace_parent: Option<&'a str>,
}

/// An attempt with the bytes that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// What it is.
    pub attempt: &'a Attempt,
    /// What it works on.
    pub payload: &'a [u8],
    /// What the attempt before it left.
    pub checkpoint: Option<&'a [u8]>,
    /// The W3C trace context of the request.
    pub trace_parent: Option<&'a str>,
}

/// Attempts for one replica with the bytes they need.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Attempt>,
}

impl Attempts {
    /// The attempts, each with its bytes.
    pub fn iter(&self) -> impl Iterator<Item = Whole<'_>> {
        let bytes = |range: &Range<usize>| &self.bytes[range.clone()];
        self.items.iter().map(move |attempt| Whole {
            attempt,
            payload: bytes(&attempt.payload),
            checkpoint: attempt.checkpoint.as_ref().map(bytes),
            trace_parent: attempt.trace_parent.as_ref().and_then(|range| std::str::from_utf8(bytes(range)).ok()),
        })
    }

    /// What they take.
    pub(crate) const fn len_in_bytes(&self) -> usize {
        self.bytes.len() + self.items.len() * size_of::<Attempt>()
    }

    /// Takes off what is beyond so many bytes; the first attempt stays.
    pub(crate) fn split_behind(&mut self, max: usize) -> Attempts {
        let mut rest = Attempts::default();
        if self.len_in_bytes() <= max {
            return rest;
        }
        let end = |(index, attempt): (usize, &Attempt)| attempt.payload.end + (index + 1) * size_of::<Attempt>();
        let fit = self.items.iter().enumerate().position(|item| end(item) > max).unwrap_or(self.items.len()).max(1);
        for attempt in self.items.drain(fit..) {
            let mut copy = |range: Range<usize>| append(&mut rest.bytes, &self.bytes[range]);
            let (payload, checkpoint) = (copy(attempt.payload.clone()), attempt.checkpoint.clone().map(&mut copy));
            let trace_parent = attempt.trace_parent.clone().map(&mut copy);
            rest.items.push(Attempt { payload, checkpoint, trace_parent, ..attempt });
        }
        if let Some(last) = self.items.last() {
            let parts = [Some(&last.payload), last.checkpoint.as_ref(), last.trace_parent.as_ref()];
            self.bytes.truncate(parts.into_iter().flatten().map(|range| range.end).max().unwrap_or(0));
        }
        rest
    }

    /// Adds an attempt that an engine gave to a worker.
    pub fn add(&mut self, given: Given<'_>) {
        let Given { task, number, task_type, deadline, heartbeat, origin, payload, checkpoint, trace_parent } = given;
        let payload = append(&mut self.bytes, payload);
        let checkpoint = checkpoint.map(|details| append(&mut self.bytes, details));
        let trace_parent = trace_parent.map(|trace| append(&mut self.bytes, trace.as_bytes()));
        let origin = Some(Box::new(origin));
        self.items.push(Attempt { task, number, task_type, deadline, heartbeat, origin, payload, checkpoint, trace_parent });
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn push(&mut self, state: &State, task: Ordinal, number: u32) {
        let Some(live) = state.work.tasks.get(task) else { return };
        let timeouts = state.work.timeouts(live);
        let payload = append(&mut self.bytes, state.work.tasks.payload(task).unwrap_or_default());
        let checkpoint = live.checkpoint().map(|details| append(&mut self.bytes, details));
        let trace_parent = live.trace_parent().map(|trace| append(&mut self.bytes, trace.as_bytes()));
        let deadline = state.last_at.after(timeouts.start_to_close);
        let (task_type, heartbeat) = (live.task_type, timeouts.heartbeat);
        self.items.push(Attempt {
            task,
            number,
            task_type,
            deadline,
            heartbeat,
            origin: None,
            payload,
            checkpoint,
            trace_parent,
        });
    }
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

/// Something to tell a replica or the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Ask an attempt to stop.
    Cancel {
        /// Who runs it.
        replica: ReplicaId,
        /// The task.
        task: Ordinal,
        /// Which start of it.
        attempt: u32,
    },
    /// End an attempt now and give its slot back.
    Abort {
        /// Who runs it.
        replica: ReplicaId,
        /// The task.
        task: Ordinal,
        /// Which start of it.
        attempt: u32,
    },
    /// Start a replica.
    StartReplica {
        /// Its id.
        replica: ReplicaId,
        /// Its pool.
        pool: PoolId,
        /// The pool's name.
        name: String,
        /// Its slots.
        slots: u32,
    },
    /// Give a replica no new work and end it when it is done.
    DrainReplica(ReplicaId),
    /// A worker has joined the shard as this replica.
    AddWorker {
        /// Its replica.
        replica: ReplicaId,
        /// Which worker.
        worker: WorkerId,
    },
    /// A worker has left the shard.
    RemoveWorker(ReplicaId),
    /// A task type has a new definition.
    DefineType {
        /// The id of the definition.
        id: TypeId,
        /// The name.
        name: String,
    },
}

/// Everything to be done when a block is durable.
#[derive(Default)]
pub(crate) struct Effects {
    /// By replica, in the order of their first start.
    pub(crate) starts: Vec<(ReplicaId, Attempts)>,
    pub(crate) instructions: Vec<Instruction>,
    pub(crate) ends: Vec<(Ordinal, TaskEnd)>,
    /// Offsets of records that were refused, with the reasons.
    pub(crate) refused: Vec<(u64, String)>,
    /// What goes out with the block.
    pub(crate) messages: Vec<Outgoing>,
}

/// Turns events into effects as they are decided.
pub(crate) struct Collector<'a> {
    pub(crate) effects: &'a mut Effects,
    pub(crate) waiters: &'a Waiters,
    /// Who is told of ends by a message, and the shard that they are told of.
    pub(crate) results: Option<(&'a mut Results, ShardId)>,
    /// Somebody may wait for every task from here on, see the log writer's field of this name.
    pub(crate) fresh: Ordinal,
    /// The last failure seen; the end that may follow it in the same batch tells it on.
    pub(crate) last_failure: Option<(Ordinal, String, String)>,
}

impl Observer for Collector<'_> {
    fn observe(&mut self, envelope: &Envelope<'_>, state: &State) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events change the state and nothing outside")]
        match envelope.event {
            Event::Started { task, attempt, replica } => self.start(state, task, attempt, replica),
            Event::Succeeded { task, outcome, result, .. } => self.succeed(task, outcome, result),
            Event::Failed { task, ref failure, .. } if self.wants(task) => {
                self.last_failure = Some((task, failure.class.to_owned(), failure.message.to_owned()));
            }
            Event::CancelRequested { task, .. } => self.cancel(state, task),
            Event::TimedOut { task, attempt, timeout } => self.time_out(state, task, attempt, timeout),
            Event::Ended { task, outcome, cause } => {
                self.abort_held(state, task, cause);
                self.end(task, outcome, cause);
            }
            Event::DeadLettered { task, cause } => {
                self.abort_held(state, task, cause);
                self.end(task, Outcome::Failed, cause);
            }
            Event::ReplicaRequested { replica, pool } => self.start_replica(state, replica, pool),
            Event::DrainRequested { replica } => self.effects.instructions.push(Instruction::DrainReplica(replica)),
            Event::RequestRefused { ref reason } => {
                self.effects.refused.push((state.work.source_next - 1, reason.clone().into_owned()));
            }
            Event::Requested { .. } | Event::Redriven { .. } => {
                if let Some((results, _)) = &mut self.results {
                    results.created(&envelope.event, state);
                }
            }
            Event::WorkerJoined { replica, ref worker, .. } => {
                self.effects.instructions.push(Instruction::AddWorker { replica, worker: worker.id });
            }
            Event::WorkerMissed { replica, .. } => self.effects.instructions.push(Instruction::RemoveWorker(replica)),
            Event::ReplicaLeft { replica, .. } if replica >= WORKER_FIRST => {
                self.effects.instructions.push(Instruction::RemoveWorker(replica));
            }
            Event::TypeDefined { task_type, name, .. } => {
                self.effects.instructions.push(Instruction::DefineType { id: task_type, name: name.to_owned() });
            }
            _ => {}
        }
    }
}

impl Collector<'_> {
    fn start(&mut self, state: &State, task: Ordinal, attempt: u32, replica: ReplicaId) {
        let starts = &mut self.effects.starts;
        let index = starts.iter().position(|(id, _)| *id == replica).unwrap_or_else(|| {
            starts.push((replica, Attempts::default()));
            starts.len() - 1
        });
        starts[index].1.push(state, task, attempt);
    }

    fn wants(&self, task: Ordinal) -> bool {
        task >= self.fresh || self.waiters.wants(task) || self.tells(task)
    }

    fn tells(&self, task: Ordinal) -> bool {
        self.results.as_ref().is_some_and(|(results, _)| results.wants(task))
    }

    /// Sends a message about an end to whoever wants one.
    fn tell(&mut self, task: Ordinal, end: &Ending<'_>) {
        if let Some((results, shard)) = self.results.as_mut().filter(|(results, _)| results.wants(task)) {
            self.effects.messages.append(&mut results.ended(*shard, task, end));
        }
    }

    fn succeed(&mut self, task: Ordinal, outcome: Outcome, result: &[u8]) {
        self.tell(task, &Ending { outcome, result, failure: None });
        if self.wants(task) {
            self.effects.ends.push((task, TaskEnd { outcome, result: result.into(), failure: None }));
        }
    }

    fn end(&mut self, task: Ordinal, outcome: Outcome, cause: Cause) {
        if !self.wants(task) {
            return;
        }
        let last = self.last_failure.take().filter(|(failed, _, _)| *failed == task);
        let (class, message) = last.map_or_else(Default::default, |(_, class, message)| (class, message));
        self.tell(task, &Ending { outcome, result: &[], failure: Some((cause, &class, &message)) });
        let failure = Some(Box::new(EndFailure { cause, class, message }));
        self.effects.ends.push((task, TaskEnd { outcome, result: Box::default(), failure }));
    }

    fn time_out(&mut self, state: &State, task: Ordinal, attempt: u32, timeout: Timeout) {
        if self.wants(task) {
            self.last_failure = Some((task, "timeout".to_owned(), timeout.explanation().to_owned()));
        }
        // The other limits end the task, and its end stops what runs.
        if matches!(timeout, Timeout::StartToClose | Timeout::Heartbeat)
            && let Some(replica) = state.work.holder(task, attempt)
        {
            self.effects.instructions.push(Instruction::Abort { replica, task, attempt });
        }
    }

    fn cancel(&mut self, state: &State, task: Ordinal) {
        if let Some(live) = state.work.tasks.get(task).filter(|live| live.phase == Phase::Cancelling) {
            self.effects.instructions.push(Instruction::Cancel { replica: live.replica, task, attempt: live.attempt });
        }
    }

    /// A task that ended while an attempt ran leaves a slot that is still held.
    fn abort_held(&mut self, state: &State, task: Ordinal, cause: Cause) {
        if matches!(cause, Cause::AttemptsExhausted | Cause::NotRetryable | Cause::LossesExhausted) {
            return;
        }
        if let Some((replica, attempt)) = state.work.holder_of(task) {
            self.effects.instructions.push(Instruction::Abort { replica, task, attempt });
        }
    }

    fn start_replica(&mut self, state: &State, replica: ReplicaId, pool: PoolId) {
        if let Some(size) = state.control.pools.get(usize::from(pool.0)) {
            let (name, slots) = (size.name.clone(), size.slots);
            self.effects.instructions.push(Instruction::StartReplica { replica, pool, name, slots });
        }
    }
}
