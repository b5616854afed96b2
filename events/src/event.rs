//! Facts: what happened, in the past tense, with every number that a later fold needs.
//!
//! Events are of two kinds. *Inputs* come from outside: requests, outcomes, operators, capacity. *Derived* events follow from
//! them by rule and could be computed again, which is what the audit does. Old variants are never edited: a new fact is a new
//! variant at the end, so a number once written keeps its meaning (`codec.rs`).

use std::borrow::Cow;

use bincode::{BorrowDecode, Decode, Encode};
use serde::{Deserialize, Serialize, Serializer};

use crate::id::{Epoch, LimitId, Ordinal, PoolId, Position, ReplicaId, ScheduleId, ShardId, TypeId};
use crate::limit::LimitSettings;
use crate::ran::Ran;
use crate::resources::PoolResources;
use crate::scaling::signal::Reading;
use crate::scaling::usage::ReplicaReading;
use crate::schedule::{PassedOver, ScheduleSettings};
use crate::task::{Ask, Failure, IdempotencyKey, Outcome, TypeSettings};
use crate::time::{Micros, Timestamp};
use crate::worker::WorkerFacts;

/// An event with its place and time in the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Envelope<'a> {
    /// Where the event stands in its shard's log.
    pub position: Position,
    /// When it was decided; all events of one batch have the same time, and every batch a later one.
    pub recorded_at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event<'a>,
}

/// Whether an event came from outside or follows by rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Came from outside; replay takes it as given.
    Input,
    /// Follows from the state, the inputs and the time; replay computes it again.
    Derived,
}

/// The half of the state that folds an event; on Kafka the two live in different partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Tasks of one shard.
    Work,
    /// Pools, their replicas, and schedules.
    Control,
    /// Both: the opening of the log.
    Both,
}

/// The versions of the rules under which derived events are decided, from one opening of the log to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleVersions {
    /// Task life: what follows a failure, a time-out, a cancellation (`decide.rs`, `due.rs`).
    pub task: u16,
    /// The delay before an attempt (`retry.rs`).
    pub retry: u16,
    /// Which ready task goes to which free slot (`dispatch.rs`).
    pub dispatch: u16,
}

impl RuleVersions {
    /// What this build decides new events with.
    pub const CURRENT: RuleVersions = RuleVersions { task: 1, retry: 1, dispatch: 2 };

    /// Whether this build has all of these rules. Versions count from 1, so 0 is nobody's rule.
    pub const fn are_known(self) -> bool {
        const fn known(version: u16, newest: u16) -> bool {
            1 <= version && version <= newest
        }
        let newest = RuleVersions::CURRENT;
        known(self.task, newest.task) && known(self.retry, newest.retry) && known(self.dispatch, newest.dispatch)
    }
}

/// Which limit a task ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timeout {
    /// It was ready for too long.
    ScheduleToStart,
    /// One attempt ran for too long.
    StartToClose,
    /// From request to end it took too long.
    ScheduleToClose,
    /// The attempt gave no sign of life for too long.
    Heartbeat,
    /// Its cancelled attempt took too long to clean up.
    CancelGrace,
}

impl Timeout {
    /// What happened, for a person.
    pub const fn explanation(self) -> &'static str {
        match self {
            Timeout::ScheduleToStart => "no slot was free within the schedule-to-start timeout",
            Timeout::StartToClose => "the attempt took longer than the start-to-close timeout",
            Timeout::ScheduleToClose => "the task took longer than the schedule-to-close timeout",
            Timeout::Heartbeat => "the attempt gave no sign of life within the heartbeat timeout",
            Timeout::CancelGrace => "the cancelled attempt did not stop within the cancel grace",
        }
    }
}

/// Why a task ended without having succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The last allowed attempt failed.
    AttemptsExhausted,
    /// The failure said that another attempt would end the same way.
    NotRetryable,
    /// A limit was reached.
    TimedOut(Timeout),
    /// It took its executor with it too often.
    LossesExhausted,
    /// Somebody cancelled it.
    Cancelled,
    /// Somebody killed it.
    Killed,
    /// This task, which it was to come after, ended without success.
    Dependency(Ordinal),
}

/// Why a replica left its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Departure {
    /// It had nothing left to do and was no longer wanted.
    Drained,
    /// It vanished with whatever it was doing.
    Lost,
}

/// Whether a pool starts tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolMode {
    /// It does.
    Running,
    /// It starts none; its replicas stay, and what they run goes on.
    Paused,
    /// It starts none, and its replicas go when what they run has ended. Its size is kept for when it runs again.
    Drained,
}

impl PoolMode {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            PoolMode::Running => "running",
            PoolMode::Paused => "paused",
            PoolMode::Drained => "drained",
        }
    }
}

/// One fact. `task` is the ordinal of a task on the log's shard, `attempt` counts its starts from 1.
#[derive(Clone, Debug, PartialEq, Encode, BorrowDecode, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
pub enum Event<'a> {
    /// Input: a process took over the log.
    Opened { epoch: Epoch, rules: RuleVersions, writer: &'a str },
    /// Input: a task type was defined, or redefined under a new id.
    TypeDefined { task_type: TypeId, name: &'a str, settings: Box<TypeSettings>, by: &'a str },
    /// Input: somebody wants work done. The task's ordinal is the count of requests before it.
    Requested {
        task_type: TypeId,
        #[serde(serialize_with = "text_or_hex")]
        payload: &'a [u8],
        key: Option<IdempotencyKey<'a>>,
        asks: Vec<Ask<'a>>,
    },
    /// Input: a request repeated the key of an earlier one.
    Deduplicated { task_type: TypeId, key: &'a str, digest: Digest, of: Ordinal },
    /// Input: an attempt ended with a result; its task ended with it.
    Succeeded {
        task: Ordinal,
        attempt: u32,
        outcome: Outcome,
        #[serde(serialize_with = "text_or_hex")]
        result: &'a [u8],
    },
    /// Input: an attempt ended without a result.
    Failed { task: Ordinal, attempt: u32, failure: Failure<'a> },
    /// Input: an attempt that no longer counted gave its slot back.
    SlotReleased { task: Ordinal, attempt: u32, replica: ReplicaId },
    /// Input: an attempt told how far it is; the next attempt receives the details.
    Checkpointed {
        task: Ordinal,
        attempt: u32,
        #[serde(serialize_with = "text_or_hex")]
        details: &'a [u8],
    },
    /// Input: an attempt gave no sign of life within its heartbeat timeout.
    HeartbeatMissed { task: Ordinal, attempt: u32, last_seen: Timestamp },
    /// Input: somebody asked for a task to stop.
    CancelRequested { task: Ordinal, by: &'a str, reason: &'a str },
    /// Input: somebody ended a task at once.
    KillRequested { task: Ordinal, by: &'a str, reason: &'a str },
    /// Input: somebody asked for a dead letter to be tried again; it becomes a new task with the next ordinal.
    Redriven { task: Ordinal, by: &'a str, reason: &'a str },
    /// Input: a replica brought slots to a pool.
    ReplicaJoined { replica: ReplicaId, pool: &'a str, slots: u32 },
    /// Input: a replica takes no new work.
    ReplicaDraining { replica: ReplicaId },
    /// Input: a replica is gone; its attempts return to the queue.
    ReplicaLeft { replica: ReplicaId, departure: Departure },
    /// Input: the size of a pool was set.
    PoolDefined { pool: PoolId, name: &'a str, replicas: u32, slots: u32, by: &'a str, reason: &'a str },
    /// Input: a requested replica is up.
    ReplicaReady { replica: ReplicaId },
    /// Input: a replica ended.
    ReplicaStopped { replica: ReplicaId, departure: Departure },
    /// Input: the wall clock was seen to jump; the log's time goes on from the later of the two.
    ClockStepped { from: Timestamp, to: Timestamp },
    /// Input: somebody accepted that acknowledged events are gone.
    LossAccepted { missing: u64, by: &'a str, reason: &'a str },

    /// Derived: an attempt was given a slot.
    Started { task: Ordinal, attempt: u32, replica: ReplicaId },
    /// Derived: a delay is over.
    Ready { task: Ordinal },
    /// Derived: a limit was reached.
    TimedOut { task: Ordinal, attempt: u32, timeout: Timeout },
    /// Derived: another attempt follows at `due`.
    RetryScheduled { task: Ordinal, due: Timestamp },
    /// Derived: an attempt's replica is gone and the task is ready again. The attempt does not count against the retry policy; one whose
    /// replica vanished counts against the losses, one whose replica was drained does not.
    Lost { task: Ordinal, attempt: u32, departure: Departure },
    /// Derived: the task is over without having succeeded.
    Ended { task: Ordinal, outcome: Outcome, cause: Cause },
    /// Derived: the task failed for good and is kept for redrive.
    DeadLettered { task: Ordinal, cause: Cause },
    /// Derived: the oldest dead letter made room for a newer one.
    DeadLetterDropped { task: Ordinal },
    /// Derived: a pool has fewer replicas than it should.
    ReplicaRequested { replica: ReplicaId, pool: PoolId },
    /// Derived: a pool has more replicas than it should.
    DrainRequested { replica: ReplicaId },

    /// Input: the next request comes from the record with this offset; those before it that were not read are no requests.
    SourceMoved { next: u64 },
    /// Input: the next record was no request that could be taken; it went to the dead-letter topic.
    RequestRefused { reason: Cow<'a, str> },
    /// Input: how far the shards were when the control half looked.
    ShardsObserved { shards: Vec<ShardReading> },

    /// Input: a limit on the flow of tasks was defined, or redefined under its old id.
    LimitDefined { limit: LimitId, name: &'a str, allows: Box<LimitSettings>, by: &'a str },
    /// Input: the limits of a task type were set.
    TypeLimited { task_type: TypeId, limits: Vec<LimitId>, by: &'a str },
    /// Input: an attempt told how far it is.
    Progressed { task: Ordinal, attempt: u32, percent: Option<u8>, stage: &'a str, message: &'a str },
    /// Derived: nothing but this limit keeps a task from being ready.
    Limited { task: Ordinal, limit: LimitId },
    /// Derived: every limit let a task through, and it is ready.
    Admitted { task: Ordinal },

    /// Input: a schedule was defined, or redefined under its old id.
    ScheduleDefined { schedule: ScheduleId, name: &'a str, plan: Box<ScheduleSettings>, by: &'a str },
    /// Input: a schedule is no longer wanted.
    ScheduleRemoved { schedule: ScheduleId, by: &'a str },
    /// Input: somebody paused a schedule.
    SchedulePaused { schedule: ScheduleId, by: &'a str, reason: &'a str },
    /// Input: somebody resumed a schedule.
    ScheduleResumed { schedule: ScheduleId, by: &'a str, reason: &'a str },
    /// Input: a slot of a schedule fired; its task was requested just before.
    Fired { schedule: ScheduleId, slot: Timestamp, task: Ordinal },
    /// Input: somebody fired a schedule beside its slots; its task was requested just before.
    Triggered { schedule: ScheduleId, slot: Timestamp, task: Ordinal, by: &'a str, reason: &'a str },
    /// Input: slots of a schedule, the first and the last of so many, did not fire.
    SlotsPassed { schedule: ScheduleId, from: Timestamp, to: Timestamp, count: u64, because: PassedOver },

    /// Input: somebody said whether a pool starts tasks.
    PoolModeSet { pool: PoolId, name: &'a str, mode: PoolMode, by: &'a str, reason: &'a str },

    /// Derived: a task has ended that this one comes after, and so many are left; with the last, nothing but time and limits keep it.
    DependencyMet { task: Ordinal, dependency: Ordinal, left: u32 },

    /// Input: the process that has the log can itself run tasks of these types, and none of others.
    TypesServed { types: Vec<String> },
    /// Input: a worker joined a pool. Its slots count when it asks.
    WorkerJoined { replica: ReplicaId, pool: &'a str, slots: u32, worker: Box<WorkerFacts> },
    /// Input: a worker asked for up to so many attempts; what this batch does not give it, it is not given.
    WorkAsked { replica: ReplicaId, slots: u32 },
    /// Input: a worker was silent for as long as its lease; its attempts return to the queue.
    WorkerMissed { replica: ReplicaId, last_seen: Timestamp },
    /// Input: a worker gave an attempt back without an outcome.
    AttemptReturned { task: Ordinal, attempt: u32 },
    /// Input: the process of a replica ended without being asked to, or could not be started. The next one of its pool starts after `wait`.
    ProcessExited { replica: ReplicaId, code: Option<u8>, signal: Option<u8>, note: &'a str, wait: Micros },
    /// Input: a worker found that it does best with another number of attempts at a time.
    ConcurrencyChanged { replica: ReplicaId, before: u32, concurrency: u32, reason: &'a str },

    /// Input: a pool got a policy that sizes it between two bounds, or lost it: then the text is empty. The text is JSON.
    PolicySet { pool: PoolId, policy: Cow<'a, str>, least: u32, most: u32, by: &'a str, reason: &'a str },
    /// Input: what was seen of a pool, one reading for each signal that its policy names, in that order; and where shards share the pool, how many of
    /// its tasks are ready or running in each of them, by number.
    /// `asked` says which policies were asked, a bit each: the lowest is the policy of the pool, then its shadows in the order of their names; the signals
    /// are those that one of these names. Where one of them looks at replicas one by one, `seen` is what was seen of each.
    PoolObserved { pool: PoolId, readings: Vec<Reading>, work: Vec<u64>, asked: u32, seen: Vec<ReplicaReading> },
    /// Derived: the policy of a pool decided something else than before, or for another reason. The decision is JSON, and has every number that led to it.
    /// With the name of a shadow it is what that one would have: nothing is scaled by it.
    PoolScaled { pool: PoolId, replicas: u32, decision: Cow<'a, str>, shadow: Option<Cow<'a, str>> },

    /// Input: a pool got a shadow, a policy beside its own that decides and changes nothing, or lost the one of this name: then the text is empty. The
    /// text is JSON.
    ShadowSet { pool: PoolId, shadow: &'a str, policy: Cow<'a, str>, by: &'a str, reason: &'a str },
    /// Input: somebody held a pool that a policy sizes at so many replicas, within its bounds, until a moment; or let it go, where there is no number.
    SizeHeld { pool: PoolId, replicas: Option<u32>, until: Timestamp, by: &'a str, reason: &'a str },
    /// Input: somebody said what one replica of a pool asks for, and how much all of them may ask for together.
    PoolResourcesSet { pool: PoolId, resources: Box<PoolResources>, by: &'a str, reason: &'a str },

    /// Input: an attempt that is about to end told on which device it ran, and what that took.
    AttemptRan { task: Ordinal, attempt: u32, ran: Box<Ran> },
}

/// How far a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardReading {
    /// Which shard.
    pub shard: ShardId,
    /// Everything before it was seen.
    pub position: Position,
    /// Live tasks without a slot.
    pub waiting: u64,
    /// Live tasks with a slot.
    pub running: u64,
    /// Request records that nobody has read yet.
    pub lag: u64,
}

/// The first 128 bits of the BLAKE3 hash of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Digests a payload.
    pub fn of(payload: &[u8]) -> Digest {
        let mut digest = [0; 16];
        digest.copy_from_slice(&blake3::hash(payload).as_bytes()[..16]);
        Digest(digest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex(&self.0))
    }
}

impl Event<'_> {
    /// The name of its kind, as in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Opened { .. } => "opened",
            Event::TypeDefined { .. } => "type_defined",
            Event::Requested { .. } => "requested",
            Event::Deduplicated { .. } => "deduplicated",
            Event::Succeeded { .. } => "succeeded",
            Event::Failed { .. } => "failed",
            Event::SlotReleased { .. } => "slot_released",
            Event::Checkpointed { .. } => "checkpointed",
            Event::HeartbeatMissed { .. } => "heartbeat_missed",
            Event::CancelRequested { .. } => "cancel_requested",
            Event::KillRequested { .. } => "kill_requested",
            Event::Redriven { .. } => "redriven",
            Event::ReplicaJoined { .. } => "replica_joined",
            Event::ReplicaDraining { .. } => "replica_draining",
            Event::ReplicaLeft { .. } => "replica_left",
            Event::PoolDefined { .. } => "pool_defined",
            Event::ReplicaReady { .. } => "replica_ready",
            Event::ReplicaStopped { .. } => "replica_stopped",
            Event::ClockStepped { .. } => "clock_stepped",
            Event::LossAccepted { .. } => "loss_accepted",
            Event::Started { .. } => "started",
            Event::Ready { .. } => "ready",
            Event::TimedOut { .. } => "timed_out",
            Event::RetryScheduled { .. } => "retry_scheduled",
            Event::Lost { .. } => "lost",
            Event::Ended { .. } => "ended",
            Event::DeadLettered { .. } => "dead_lettered",
            Event::DeadLetterDropped { .. } => "dead_letter_dropped",
            Event::ReplicaRequested { .. } => "replica_requested",
            Event::DrainRequested { .. } => "drain_requested",
            Event::SourceMoved { .. } => "source_moved",
            Event::RequestRefused { .. } => "request_refused",
            Event::ShardsObserved { .. } => "shards_observed",
            Event::LimitDefined { .. } => "limit_defined",
            Event::TypeLimited { .. } => "type_limited",
            Event::Progressed { .. } => "progressed",
            Event::Limited { .. } => "limited",
            Event::Admitted { .. } => "admitted",
            Event::ScheduleDefined { .. } => "schedule_defined",
            Event::ScheduleRemoved { .. } => "schedule_removed",
            Event::SchedulePaused { .. } => "schedule_paused",
            Event::ScheduleResumed { .. } => "schedule_resumed",
            Event::Fired { .. } => "fired",
            Event::Triggered { .. } => "triggered",
            Event::SlotsPassed { .. } => "slots_passed",
            Event::PoolModeSet { .. } => "pool_mode_set",
            Event::DependencyMet { .. } => "dependency_met",
            Event::TypesServed { .. } => "types_served",
            Event::WorkerJoined { .. } => "worker_joined",
            Event::WorkAsked { .. } => "work_asked",
            Event::WorkerMissed { .. } => "worker_missed",
            Event::AttemptReturned { .. } => "attempt_returned",
            Event::ProcessExited { .. } => "process_exited",
            Event::ConcurrencyChanged { .. } => "concurrency_changed",
            Event::PolicySet { .. } => "policy_set",
            Event::PoolObserved { .. } => "pool_observed",
            Event::PoolScaled { .. } => "pool_scaled",
            Event::ShadowSet { .. } => "shadow_set",
            Event::SizeHeld { .. } => "size_held",
            Event::PoolResourcesSet { .. } => "pool_resources_set",
            Event::AttemptRan { .. } => "attempt_ran",
        }
    }

    /// Whether the event is an input or derived.
    pub fn origin(&self) -> Origin {
        match self {
            Event::Opened { .. }
            | Event::TypeDefined { .. }
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
            | Event::PoolDefined { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ClockStepped { .. }
            | Event::LossAccepted { .. }
            | Event::SourceMoved { .. }
            | Event::RequestRefused { .. }
            | Event::ShardsObserved { .. }
            | Event::LimitDefined { .. }
            | Event::TypeLimited { .. }
            | Event::Progressed { .. }
            | Event::ScheduleDefined { .. }
            | Event::ScheduleRemoved { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::Fired { .. }
            | Event::Triggered { .. }
            | Event::SlotsPassed { .. }
            | Event::TypesServed { .. }
            | Event::WorkerJoined { .. }
            | Event::WorkAsked { .. }
            | Event::WorkerMissed { .. }
            | Event::AttemptReturned { .. }
            | Event::ProcessExited { .. }
            | Event::ConcurrencyChanged { .. }
            | Event::PolicySet { .. }
            | Event::PoolObserved { .. }
            | Event::ShadowSet { .. }
            | Event::SizeHeld { .. }
            | Event::PoolResourcesSet { .. }
            | Event::AttemptRan { .. }
            | Event::PoolModeSet { .. } => Origin::Input,
            Event::Started { .. }
            | Event::Ready { .. }
            | Event::TimedOut { .. }
            | Event::RetryScheduled { .. }
            | Event::Lost { .. }
            | Event::Ended { .. }
            | Event::DeadLettered { .. }
            | Event::DeadLetterDropped { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. }
            | Event::Limited { .. }
            | Event::Admitted { .. }
            | Event::PoolScaled { .. }
            | Event::DependencyMet { .. } => Origin::Derived,
        }
    }

    /// The half of the state that folds the event.
    pub fn half(&self) -> Half {
        match self {
            Event::Opened { .. } | Event::ClockStepped { .. } | Event::LossAccepted { .. } => Half::Both,
            Event::PoolDefined { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. }
            | Event::ShardsObserved { .. }
            | Event::ScheduleDefined { .. }
            | Event::ScheduleRemoved { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::Fired { .. }
            | Event::Triggered { .. }
            | Event::SlotsPassed { .. }
            | Event::ProcessExited { .. }
            | Event::PolicySet { .. }
            | Event::PoolObserved { .. }
            | Event::PoolScaled { .. }
            | Event::ShadowSet { .. }
            | Event::SizeHeld { .. }
            | Event::PoolResourcesSet { .. }
            | Event::PoolModeSet { .. } => Half::Control,
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
            | Event::DependencyMet { .. } => Half::Work,
        }
    }

    /// Whether the event gives a new task its ordinal.
    pub const fn creates_task(&self) -> bool {
        matches!(self, Event::Requested { .. } | Event::Redriven { .. })
    }

    /// The existing task that the event is about. A creating event names none: its task is the next ordinal.
    pub const fn task(&self) -> Option<Ordinal> {
        match self {
            Event::Succeeded { task, .. }
            | Event::Failed { task, .. }
            | Event::SlotReleased { task, .. }
            | Event::Checkpointed { task, .. }
            | Event::HeartbeatMissed { task, .. }
            | Event::CancelRequested { task, .. }
            | Event::KillRequested { task, .. }
            | Event::Redriven { task, .. }
            | Event::Started { task, .. }
            | Event::Ready { task }
            | Event::TimedOut { task, .. }
            | Event::RetryScheduled { task, .. }
            | Event::Lost { task, .. }
            | Event::Ended { task, .. }
            | Event::DeadLettered { task, .. }
            | Event::DeadLetterDropped { task }
            | Event::Progressed { task, .. }
            | Event::Limited { task, .. }
            | Event::Admitted { task }
            | Event::Fired { task, .. }
            | Event::Triggered { task, .. }
            | Event::DependencyMet { task, .. }
            | Event::AttemptReturned { task, .. }
            | Event::AttemptRan { task, .. } => Some(*task),
            Event::Deduplicated { of, .. } => Some(*of),
            Event::Opened { .. }
            | Event::TypeDefined { .. }
            | Event::Requested { .. }
            | Event::ReplicaJoined { .. }
            | Event::ReplicaDraining { .. }
            | Event::ReplicaLeft { .. }
            | Event::PoolDefined { .. }
            | Event::ReplicaReady { .. }
            | Event::ReplicaStopped { .. }
            | Event::ClockStepped { .. }
            | Event::LossAccepted { .. }
            | Event::ReplicaRequested { .. }
            | Event::DrainRequested { .. }
            | Event::SourceMoved { .. }
            | Event::RequestRefused { .. }
            | Event::ShardsObserved { .. }
            | Event::LimitDefined { .. }
            | Event::TypeLimited { .. }
            | Event::ScheduleDefined { .. }
            | Event::ScheduleRemoved { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::SlotsPassed { .. }
            | Event::TypesServed { .. }
            | Event::WorkerJoined { .. }
            | Event::WorkAsked { .. }
            | Event::WorkerMissed { .. }
            | Event::ProcessExited { .. }
            | Event::ConcurrencyChanged { .. }
            | Event::PolicySet { .. }
            | Event::PoolObserved { .. }
            | Event::PoolScaled { .. }
            | Event::ShadowSet { .. }
            | Event::SizeHeld { .. }
            | Event::PoolResourcesSet { .. }
            | Event::PoolModeSet { .. } => None,
        }
    }

    /// The format version that a block with this event must have, so that an older build says "newer format" and not "damaged".
    pub fn format(&self) -> u16 {
        #[expect(clippy::wildcard_enum_match_arm, reason = "whatever is not named here was there from the beginning")]
        match self {
            Event::ScheduleDefined { .. }
            | Event::ScheduleRemoved { .. }
            | Event::SchedulePaused { .. }
            | Event::ScheduleResumed { .. }
            | Event::Fired { .. }
            | Event::Triggered { .. }
            | Event::SlotsPassed { .. }
            | Event::PoolModeSet { .. }
            | Event::DependencyMet { .. }
            | Event::TypesServed { .. }
            | Event::WorkerJoined { .. }
            | Event::WorkAsked { .. }
            | Event::WorkerMissed { .. }
            | Event::AttemptReturned { .. }
            | Event::ProcessExited { .. }
            | Event::ConcurrencyChanged { .. }
            | Event::PolicySet { .. }
            | Event::PoolObserved { .. }
            | Event::PoolScaled { .. }
            | Event::ShadowSet { .. }
            | Event::SizeHeld { .. }
            | Event::PoolResourcesSet { .. }
            | Event::AttemptRan { .. }
            | Event::Ended { cause: Cause::Dependency(_), .. } => 4,
            Event::LimitDefined { .. }
            | Event::TypeLimited { .. }
            | Event::Progressed { .. }
            | Event::Limited { .. }
            | Event::Admitted { .. } => 3,
            Event::SourceMoved { .. } | Event::RequestRefused { .. } | Event::ShardsObserved { .. } => 2,
            Event::Requested { asks, .. } => asks.iter().map(Ask::format).max().unwrap_or(1),
            _ => 1,
        }
    }

    /// Whether the event answers one record of the requests topic; the shard's own count of them follows from it.
    pub fn answers_record(&self) -> bool {
        #[expect(clippy::wildcard_enum_match_arm, reason = "three events answer a record, and a new one would say so")]
        match self {
            Event::Requested { asks, .. } => !asks.iter().any(|ask| matches!(ask, Ask::FiredBy(_))),
            Event::Deduplicated { .. } | Event::RequestRefused { .. } => true,
            _ => false,
        }
    }

    /// The task that ends with this event, and how. A dead letter ends its task; a redrive of it is a new task.
    pub const fn ends(&self) -> Option<(Ordinal, Outcome)> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "three events end a task; a new one is found by the invariants")]
        match self {
            Event::Succeeded { task, outcome, .. } | Event::Ended { task, outcome, .. } => Some((*task, *outcome)),
            Event::DeadLettered { task, .. } => Some((*task, Outcome::Failed)),
            _ => None,
        }
    }
}

/// Bytes as text where they are UTF-8, as `{"hex": "…"}` where they are not.
fn text_or_hex<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    match std::str::from_utf8(bytes) {
        Ok(text) => out.serialize_str(text),
        Err(_) => {
            let mut map = out.serialize_map(Some(1))?;
            map.serialize_entry("hex", &hex(bytes))?;
            map.end()
        }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('?'))
        .collect()
}
