//! What may be asked of the core, and why the answer may be no.

use crate::event::{Departure, Event, PoolMode, RuleVersions, ShardReading};
use crate::firing::Firing;
use crate::id::{LimitId, Ordinal, PoolId, Position, ReplicaId, ScheduleId, TypeId};
use crate::limit::LimitSettings;
use crate::ran::Ran;
use crate::resources::{Fit, PoolResources};
use crate::scaling::signal::Reading;
use crate::scaling::usage::ReplicaReading;
use crate::schedule::{Passed, ScheduleSettings};
use crate::task::{Ask, Failure, IdempotencyKey, Outcome, TypeSettings};
use crate::time::{Micros, Timestamp};
use crate::worker::WorkerFacts;

/// Something somebody wants, in the imperative; [`crate::decide::decide`] answers with events or a [`Rejection`].
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each variant's sentence names its fields")]
pub enum Command<'a> {
    /// Take over the log under these rules.
    Open { rules: RuleVersions, writer: &'a str },
    /// Make sure that a task type has these settings.
    DefineType { name: &'a str, settings: &'a TypeSettings, by: &'a str },
    /// Do this work.
    Request { task_type: TypeId, payload: &'a [u8], key: Option<IdempotencyKey<'a>>, asks: &'a [Ask<'a>] },
    /// An attempt ended with a result.
    Succeed { task: Ordinal, attempt: u32, outcome: Outcome, result: &'a [u8] },
    /// An attempt ended without a result.
    Fail { task: Ordinal, attempt: u32, failure: Failure<'a> },
    /// An attempt that was told to stop did, and its slot on the replica is free.
    ReleaseSlot { task: Ordinal, attempt: u32, replica: ReplicaId },
    /// Keep these details for the next attempt.
    Checkpoint { task: Ordinal, attempt: u32, details: &'a [u8] },
    /// No heartbeat came in time.
    MissHeartbeat { task: Ordinal, attempt: u32, last_seen: Timestamp },
    /// Stop a task, giving its attempt time to clean up.
    Cancel { task: Ordinal, by: &'a str, reason: &'a str },
    /// End a task now.
    Kill { task: Ordinal, by: &'a str, reason: &'a str },
    /// Try a dead letter again as a new task.
    Redrive { task: Ordinal, by: &'a str, reason: &'a str },
    /// Offer a replica's slots to a pool.
    JoinReplica { replica: ReplicaId, pool: &'a str, slots: u32 },
    /// Give a replica no new work.
    DrainReplica { replica: ReplicaId },
    /// A replica is gone.
    LeaveReplica { replica: ReplicaId, departure: Departure },
    /// Make sure that a pool has this size.
    DefinePool { pool: &'a str, replicas: u32, slots: u32, by: &'a str, reason: &'a str },
    /// A requested replica is up.
    ReadyReplica { replica: ReplicaId },
    /// A replica ended.
    StopReplica { replica: ReplicaId, departure: Departure },
    /// The wall clock jumped.
    StepClock { from: Timestamp, to: Timestamp },
    /// Go on without acknowledged events that are gone.
    AcceptLoss { missing: u64, by: &'a str, reason: &'a str },
    /// The next request comes from the record with the offset `next`; `from` was the next one so far, `None` in an audit.
    MoveSource { from: Option<u64>, next: u64 },
    /// Do the work that this record asks for, or refuse the record if the rules do. It must be the next one.
    TakeRecord { offset: u64, task_type: TypeId, payload: &'a [u8], key: Option<IdempotencyKey<'a>>, asks: &'a [Ask<'a>] },
    /// This record is no request that can be taken. It must be the next one; `None` in an audit.
    RefuseRecord { offset: Option<u64>, reason: &'a str },
    /// This is how far the shards are.
    ObserveShards { shards: &'a [ShardReading] },
    /// Make sure that a limit allows this.
    DefineLimit { name: &'a str, allows: &'a LimitSettings, by: &'a str },
    /// Make sure that a task type has these limits.
    LimitType { task_type: TypeId, limits: Vec<LimitId>, by: &'a str },
    /// An attempt tells how far it is.
    Progress { task: Ordinal, attempt: u32, percent: Option<u8>, stage: &'a str, message: &'a str },
    /// Make sure that a schedule is this.
    DefineSchedule { name: &'a str, plan: &'a ScheduleSettings, by: &'a str },
    /// A schedule is no longer wanted.
    RemoveSchedule { schedule: ScheduleId, by: &'a str },
    /// Fire nothing until the schedule is resumed.
    PauseSchedule { schedule: ScheduleId, by: &'a str, reason: &'a str },
    /// Fire again.
    ResumeSchedule { schedule: ScheduleId, by: &'a str, reason: &'a str },
    /// Fire this slot, the next one behind `after`; `None` in an audit.
    Fire { schedule: ScheduleId, after: Option<Timestamp>, slot: Timestamp, firing: Firing<'a> },
    /// Fire now, whatever the slots are; `slot` tells this firing from others.
    Trigger { schedule: ScheduleId, slot: Timestamp, firing: Firing<'a>, by: &'a str, reason: &'a str },
    /// Do not fire these slots, the next ones behind `after`; `None` in an audit.
    PassOver { schedule: ScheduleId, after: Option<Timestamp>, passed: Passed },
    /// Make sure that a pool starts tasks, or does not.
    SetPoolMode { pool: &'a str, mode: PoolMode, by: &'a str, reason: &'a str },
    /// Make sure that it is known which types this process can run itself.
    ServeTypes { types: &'a [String] },
    /// Take a worker into a pool, under the id that the next worker gets.
    JoinWorker { replica: ReplicaId, pool: &'a str, slots: u32, worker: &'a WorkerFacts },
    /// Give a worker up to so many attempts now.
    AskWork { replica: ReplicaId, slots: u32 },
    /// A worker was last seen then, longer ago than its lease.
    MissWorker { replica: ReplicaId, last_seen: Timestamp },
    /// A worker will not end this attempt.
    ReturnAttempt { task: Ordinal, attempt: u32 },
    /// The process of a replica ended by itself, or could not be started; the next one starts after `wait`.
    ExitProcess { replica: ReplicaId, code: Option<u8>, signal: Option<u8>, note: &'a str, wait: Micros },
    /// A worker does best with another number of attempts at a time.
    ChangeConcurrency { replica: ReplicaId, before: u32, concurrency: u32, reason: &'a str },
    /// Let a policy, as JSON, size a pool between two bounds; none where the text is empty.
    SetPolicy { pool: PoolRef<'a>, policy: &'a str, least: u32, most: u32, by: &'a str, reason: &'a str },
    /// Decide about the size of a pool; one reading for each signal that one of the asked policies names ([`Scaling::signals`]). Where shards share it,
    /// `work` has its tasks that are ready or running in each of them; where one of the policies looks at replicas one by one, `seen` has each.
    ///
    /// [`Scaling::signals`]: crate::state::scaling::Scaling::signals
    ObservePool { pool: PoolId, readings: &'a [Reading], work: &'a [u64], asked: u32, seen: &'a [ReplicaReading] },
    /// Let a policy, as JSON, decide beside the one of the pool, without any effect; not any more where the text is empty.
    SetShadow { pool: PoolRef<'a>, shadow: &'a str, policy: &'a str, by: &'a str, reason: &'a str },
    /// Hold a pool that a policy sizes at so many replicas until a moment; let it go where there is no number.
    HoldSize { pool: PoolRef<'a>, replicas: Option<u32>, until: Timestamp, by: &'a str, reason: &'a str },
    /// Make sure that a pool's replicas ask for this, and that all of them together have no more than that.
    SetResources { pool: PoolRef<'a>, resources: &'a PoolResources, by: &'a str, reason: &'a str },
    /// An attempt that is about to end says on which device it ran, and what that took.
    Ran { task: Ordinal, attempt: u32, ran: &'a Ran },
}

/// A pool by its name; by its id in an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolRef<'a> {
    /// By its name.
    Name(&'a str),
    /// By its id.
    Id(PoolId),
}

impl Rejection {
    /// Whether the same request may be taken once somebody has looked in the log how a task ended.
    pub const fn wants_an_end(&self) -> bool {
        matches!(self, Rejection::DependencyEnded { .. })
    }

    /// Whether the same request may be taken later, for what is full now will have room again.
    pub const fn is_busy(&self) -> bool {
        matches!(self, Rejection::KeysFull { .. } | Rejection::TasksFull { .. } | Rejection::PayloadsFull { .. })
    }
}

impl<'a> Command<'a> {
    /// The command that a recorded input answers, for deciding it again; `None` for derived events, and for a
    /// deduplicated request, whose payload is not in the log ([`crate::audit`] checks it by its digest).
    pub fn of_input(event: &'a Event<'a>) -> Option<Command<'a>> {
        Some(match *event {
            Event::Opened { rules, writer, .. } => Command::Open { rules, writer },
            Event::TypeDefined { name, ref settings, by, .. } => Command::DefineType { name, settings, by },
            Event::Requested { task_type, payload, key, ref asks } => Command::Request { task_type, payload, key, asks },
            Event::Succeeded { task, attempt, outcome, result } => Command::Succeed { task, attempt, outcome, result },
            Event::Failed { task, attempt, failure } => Command::Fail { task, attempt, failure },
            Event::SlotReleased { task, attempt, replica } => Command::ReleaseSlot { task, attempt, replica },
            Event::Checkpointed { task, attempt, details } => Command::Checkpoint { task, attempt, details },
            Event::HeartbeatMissed { task, attempt, last_seen } => Command::MissHeartbeat { task, attempt, last_seen },
            Event::CancelRequested { task, by, reason } => Command::Cancel { task, by, reason },
            Event::KillRequested { task, by, reason } => Command::Kill { task, by, reason },
            Event::Redriven { task, by, reason } => Command::Redrive { task, by, reason },
            Event::ReplicaJoined { replica, pool, slots } => Command::JoinReplica { replica, pool, slots },
            Event::ReplicaDraining { replica } => Command::DrainReplica { replica },
            Event::ReplicaLeft { replica, departure } => Command::LeaveReplica { replica, departure },
            Event::PoolDefined { name, replicas, slots, by, reason, .. } => {
                Command::DefinePool { pool: name, replicas, slots, by, reason }
            }
            Event::ReplicaReady { replica } => Command::ReadyReplica { replica },
            Event::ReplicaStopped { replica, departure } => Command::StopReplica { replica, departure },
            Event::ClockStepped { from, to } => Command::StepClock { from, to },
            Event::LossAccepted { missing, by, reason } => Command::AcceptLoss { missing, by, reason },
            Event::SourceMoved { next } => Command::MoveSource { from: None, next },
            Event::RequestRefused { ref reason } => Command::RefuseRecord { offset: None, reason },
            Event::ShardsObserved { ref shards } => Command::ObserveShards { shards },
            Event::LimitDefined { name, ref allows, by, .. } => Command::DefineLimit { name, allows, by },
            Event::TypeLimited { task_type, ref limits, by } => Command::LimitType { task_type, limits: limits.clone(), by },
            Event::Progressed { task, attempt, percent, stage, message } => {
                Command::Progress { task, attempt, percent, stage, message }
            }
            Event::ScheduleDefined { name, ref plan, by, .. } => Command::DefineSchedule { name, plan, by },
            Event::ScheduleRemoved { schedule, by } => Command::RemoveSchedule { schedule, by },
            Event::SchedulePaused { schedule, by, reason } => Command::PauseSchedule { schedule, by, reason },
            Event::ScheduleResumed { schedule, by, reason } => Command::ResumeSchedule { schedule, by, reason },
            Event::Fired { schedule, slot, task } => Command::Fire { schedule, after: None, slot, firing: Firing::Done(task) },
            Event::Triggered { schedule, slot, task, by, reason } => {
                Command::Trigger { schedule, slot, firing: Firing::Done(task), by, reason }
            }
            Event::SlotsPassed { schedule, from, to, count, because } => {
                Command::PassOver { schedule, after: None, passed: Passed { from, to, count, because } }
            }
            Event::PoolModeSet { name, mode, by, reason, .. } => Command::SetPoolMode { pool: name, mode, by, reason },
            Event::TypesServed { ref types } => Command::ServeTypes { types },
            Event::WorkerJoined { replica, pool, slots, ref worker } => Command::JoinWorker { replica, pool, slots, worker },
            Event::WorkAsked { replica, slots } => Command::AskWork { replica, slots },
            Event::WorkerMissed { replica, last_seen } => Command::MissWorker { replica, last_seen },
            Event::AttemptReturned { task, attempt } => Command::ReturnAttempt { task, attempt },
            Event::ProcessExited { replica, code, signal, note, wait } => {
                Command::ExitProcess { replica, code, signal, note, wait }
            }
            Event::PolicySet { pool, ref policy, least, most, by, reason } => {
                Command::SetPolicy { pool: PoolRef::Id(pool), policy, least, most, by, reason }
            }
            Event::PoolObserved { pool, ref readings, ref work, asked, ref seen } => {
                Command::ObservePool { pool, readings, work, asked, seen }
            }
            Event::ShadowSet { pool, shadow, ref policy, by, reason } => {
                Command::SetShadow { pool: PoolRef::Id(pool), shadow, policy, by, reason }
            }
            Event::SizeHeld { pool, replicas, until, by, reason } => {
                Command::HoldSize { pool: PoolRef::Id(pool), replicas, until, by, reason }
            }
            Event::PoolResourcesSet { pool, ref resources, by, reason } => {
                Command::SetResources { pool: PoolRef::Id(pool), resources, by, reason }
            }
            Event::ConcurrencyChanged { replica, before, concurrency, reason } => {
                Command::ChangeConcurrency { replica, before, concurrency, reason }
            }
            Event::AttemptRan { task, attempt, ref ran } => Command::Ran { task, attempt, ran },
            Event::Deduplicated { .. }
            | Event::Started { .. }
            | Event::Ready { .. }
            | Event::TimedOut { .. }
            | Event::RetryScheduled { .. }
            | Event::Lost { .. }
            | Event::Ended { .. }
            | Event::DeadLettered { .. }
            | Event::DeadLetterDropped { .. }
            | Event::ReplicaRequested { .. }
            | Event::PoolScaled { .. }
            | Event::DrainRequested { .. }
            | Event::Limited { .. }
            | Event::Admitted { .. }
            | Event::DependencyMet { .. } => return None,
        })
    }
}

/// Why the answer is no. A rejection is an answer like any other: it is given once the position it was decided at is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum Rejection {
    /// No such task type is defined here.
    #[error("{0} is not a defined task type; register it before submitting")]
    UnknownType(TypeId),
    /// No limit has this id.
    #[error("{0} is not a defined limit; define it before naming it")]
    UnknownLimit(LimitId),
    /// No schedule has this id, or it was removed.
    #[error("{0} is not a defined schedule; define it before naming it")]
    UnknownSchedule(ScheduleId),
    /// The type of a schedule's tasks is not defined here.
    #[error("{0} asks for a task type that is not defined here; register it, or change the schedule")]
    NoScheduledType(ScheduleId),
    /// Slots are dealt with once and in order, and this is not the next one, or the schedule is paused or has changed.
    #[error("the slot {} of {schedule} is not the next one; look at the schedule again", slot.rfc3339())]
    NotNextSlot { schedule: ScheduleId, slot: Timestamp },
    /// The task of the last firing is live.
    #[error(
        "the last firing of {schedule} is still going on as task number {of}, and its firings must not overlap; wait, or cancel that task"
    )]
    Overlaps { schedule: ScheduleId, of: Ordinal },
    /// A request names a task that is not known here.
    #[error("after[{index}] names no task that is known here: it was never requested, or its key or its end was forgotten")]
    UnknownDependency { index: usize },
    /// A request names a task of another shard.
    #[error("after[{index}] names a task of another shard; requests that name each other need one record key")]
    DependencyElsewhere { index: usize },
    /// A request names a task that has ended, and the state does not know how; whoever asks looks it up in the log and says so.
    #[error("after[{index}] names task number {task}, which has ended; say how it ended")]
    DependencyEnded { index: usize, task: Ordinal },
    /// No request has this ordinal.
    #[error("this shard has no task number {0}")]
    UnknownTask(Ordinal),
    /// The task is over.
    #[error("task number {0} has already ended")]
    TaskEnded(Ordinal),
    /// The attempt is not the task's current one; what it reports is not taken.
    #[error("attempt {attempt} of task number {task} is not the current one; its report was refused")]
    StaleAttempt { task: Ordinal, attempt: u32 },
    /// The task is not a dead letter.
    #[error("task number {0} is not a dead letter")]
    NotDead(Ordinal),
    /// The same key was used for other work.
    #[error("the idempotency key was used for task number {of} with another payload; use a new key for new work")]
    KeyConflict { of: Ordinal },
    /// The table of idempotency keys is full.
    #[error("all {max} idempotency keys are in use; retry in {retry_after}, or submit without a key")]
    KeysFull { max: usize, retry_after: Micros },
    /// Too many tasks are waiting or running.
    #[error("{max} tasks are waiting or running, the most this shard holds; retry in {retry_after}")]
    TasksFull { max: usize, retry_after: Micros },
    /// The payloads of waiting and running tasks fill their share of memory.
    #[error(
        "waiting and running tasks have {max} bytes of payloads, the most this shard holds; retry in {retry_after}, or submit references"
    )]
    PayloadsFull { max: u64, retry_after: Micros },
    /// A payload, result or text is longer than its limit.
    #[error("{what} has {bytes} bytes, over the limit of {max}")]
    TooLarge { what: &'static str, bytes: usize, max: usize },
    /// A setting is outside its range.
    #[error("{what} is out of range: {rule}")]
    OutOfRange { what: &'static str, rule: &'static str },
    /// The replica is not known, or not in the state that the command needs.
    #[error("replica {0} is unknown or cannot do that now")]
    WrongReplica(ReplicaId),
    /// No pool of this name has a size.
    #[error("no pool of this name has a size; `ergate pool list` shows those that are there")]
    UnknownPool,
    /// The policy is none, or cannot size this pool.
    #[error("the policy cannot be read, or a setting of it is out of range")]
    Policy,
    /// A pool would have to have more replicas than fit under its ceiling.
    #[error(
        "{wanted} replicas do not fit under the pool's ceiling: {fit} are {}; lower the count, or raise `ceiling.{}` to {}",
        fit.replicas(), fit.of.name(), fit.needed(*wanted)
    )]
    Ceiling { wanted: u32, fit: Fit },
    /// Records are answered once and in order, and this is not the next one.
    #[error("record {offset} of the requests is not the next one, which is {next}")]
    NotNext { offset: u64, next: u64 },
    /// The log holds events decided by a newer rule than this build knows.
    #[error("the log asks for rule versions that this build does not know; use a newer build")]
    UnknownRules,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The position up to which the log must be durable before anybody is told.
    pub position: Position,
    /// The task it created, or the one it duplicates.
    pub task: Option<Ordinal>,
    /// Whether the request repeated an earlier one.
    pub duplicate: bool,
    /// Whether it came to no more than that the slot of an attempt is free that no longer counts.
    pub released: bool,
}
