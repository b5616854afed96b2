//! Commands that are not requests, as they travel: they own their texts, and some stand for what the state makes of them.

use ergate_events::command::{Command, PoolRef};
use std::sync::Arc;

use ergate_events::event::{Departure, PoolMode, ShardReading};
use ergate_events::firing::Firing;
use ergate_events::id::{LimitId, Ordinal, PoolId, Position, ReplicaId, ScheduleId, TypeId};
use ergate_events::limit::LimitSettings;
use ergate_events::resources::PoolResources;
use ergate_events::scaling::signal::Reading;
use ergate_events::scaling::usage::ReplicaReading;
use ergate_events::schedule::{Duty, Passed, ScheduleSettings, firing_key};
use ergate_events::state::State;
use ergate_events::state::control::{Control, ReplicaPhase};
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::{WORKER_FIRST, WorkerId};

/// A command that owns its texts.
#[derive(Clone, Debug)]
pub enum Proposal {
    /// Take over the log; every replica that it knows belongs to a process that is gone.
    Open {
        /// The software that does.
        writer: String,
    },
    /// Take over a log of pools and their sizes, which has no replicas of its own.
    OpenControl {
        /// The software that does.
        writer: String,
    },
    /// How far the shards are, see [`Command::ObserveShards`].
    ObserveShards(Vec<ShardReading>),
    /// See [`Command::DefineType`].
    DefineType {
        /// Its name.
        name: String,
        /// Its settings.
        settings: Box<ergate_events::task::TypeSettings>,
        /// Who wants it.
        by: String,
    },
    /// See [`Command::DefineLimit`].
    DefineLimit {
        /// Its name.
        name: String,
        /// What it allows.
        allows: Box<LimitSettings>,
        /// Who wants it.
        by: String,
    },
    /// See [`Command::LimitType`]; the newest definition of the type is meant.
    LimitType {
        /// The name of the task type.
        name: String,
        /// The names of its limits.
        limits: Vec<String>,
        /// Who wants it.
        by: String,
    },
    /// See [`Command::DefinePool`].
    DefinePool {
        /// Its name.
        pool: String,
        /// How many.
        replicas: u32,
        /// Slots of each.
        slots: u32,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::SetPoolMode`].
    SetPoolMode {
        /// Its name.
        pool: String,
        /// What it should do.
        mode: PoolMode,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::Cancel`].
    Cancel {
        /// The task.
        task: Ordinal,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::Kill`].
    Kill {
        /// The task.
        task: Ordinal,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::Redrive`].
    Redrive {
        /// The dead letter.
        task: Ordinal,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// A requested replica is up and offers its slots.
    ReplicaUp {
        /// Which.
        replica: ReplicaId,
        /// Its pool.
        pool: String,
        /// Its slots.
        slots: u32,
    },
    /// A replica is to take no new work.
    DrainReplica(ReplicaId),
    /// A replica ended.
    ReplicaDown {
        /// Which.
        replica: ReplicaId,
        /// How.
        departure: Departure,
    },
    /// See [`Command::SetPolicy`].
    SetPolicy {
        /// The pool.
        pool: String,
        /// The policy as JSON; none where it is empty.
        policy: String,
        /// The fewest replicas.
        least: u32,
        /// The most.
        most: u32,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::SetShadow`].
    SetShadow {
        /// The pool.
        pool: String,
        /// The name of the shadow.
        shadow: String,
        /// Its policy as JSON; none where it is empty.
        policy: String,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::HoldSize`].
    HoldSize {
        /// The pool.
        pool: String,
        /// How many replicas; none lets it go.
        replicas: Option<u32>,
        /// Until when.
        until: Timestamp,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// See [`Command::ObservePool`].
    ObservePool {
        /// The pool.
        pool: PoolId,
        /// The policies that are asked: each by its bit, and the event that set it. Where one was set anew meanwhile, nothing is observed.
        asked: Vec<(u32, Position)>,
        /// What was read, in the order of their signals.
        readings: Vec<Reading>,
        /// Tasks that are ready or running, by shard, where shards share the pool.
        work: Vec<u64>,
        /// Each replica, where the policy looks at them one by one.
        seen: Vec<ReplicaReading>,
    },
    /// See [`Command::SetResources`].
    SetResources {
        /// The pool.
        pool: String,
        /// What is said of its resources.
        resources: PoolResources,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// So many replicas of a pool have come up in all shards and not ended. A log of pools has none of its own: those that it has asked for become
    /// ready, and end, as the number rises and falls.
    CountReplicas {
        /// The pool.
        pool: PoolId,
        /// How many.
        up: u32,
    },
    /// Take the policy away from a pool that all shards share, and let each have its part of the size that the pool has then.
    EndPolicy {
        /// The pool.
        pool: String,
        /// How many shards share it.
        shards: u32,
        /// Who wants it.
        by: String,
        /// And why.
        reason: String,
    },
    /// The process of a replica works.
    ProcessUp(ReplicaId),
    /// The process of a replica is gone.
    ProcessDown(Box<ProcessEnd>),
    /// See [`Command::ServeTypes`].
    ServeTypes(Vec<String>),
    /// Every replica that the log knows belongs to a process that is gone, but for workers.
    LoseAllReplicas,
    /// This process gives the shard to another one: what runs goes back to the queue and is not counted as lost.
    GiveBack,
    /// The schedules of this process, by name; others are removed where these are all.
    DefineSchedules {
        /// Those of this process.
        schedules: Vec<(String, ScheduleSettings)>,
        /// Who wants them.
        by: String,
    },
    /// See [`Command::PauseSchedule`].
    PauseSchedule(ScheduleDemand),
    /// See [`Command::ResumeSchedule`].
    ResumeSchedule(ScheduleDemand),
    /// See [`Command::Trigger`].
    Trigger {
        /// What is wanted.
        demand: ScheduleDemand,
        /// What the schedule is.
        plan: Arc<ScheduleSettings>,
        /// The moment that tells this firing from others.
        slot: Timestamp,
        /// Its idempotency key, see [`firing_key`].
        key: String,
    },
    /// Slots of a schedule are due.
    Due(DueSlots),
    /// See [`Command::AcceptLoss`].
    AcceptLoss {
        /// How many events.
        missing: u64,
        /// Who accepts it.
        by: String,
        /// And why.
        reason: String,
    },
}

/// What somebody wants of a schedule.
#[derive(Clone, Debug)]
pub struct ScheduleDemand {
    /// Which.
    pub schedule: ScheduleId,
    /// Who wants it.
    pub by: String,
    /// And why.
    pub reason: String,
}

/// What is to be done about slots of one schedule, all that follow one of them.
#[derive(Clone, Debug)]
pub struct DueSlots {
    schedule: ScheduleId,
    plan: Arc<ScheduleSettings>,
    after: Timestamp,
    passed: Vec<Passed>,
    /// Slots that fire, with their keys.
    fire: Vec<(Timestamp, String)>,
}

impl DueSlots {
    /// What is to be done about slots of the schedule with this name, all that follow `after`.
    pub fn new(schedule: ScheduleId, name: &str, plan: Arc<ScheduleSettings>, after: Timestamp, duty: Duty) -> DueSlots {
        let fire = duty.fire.into_iter().map(|slot| (slot, firing_key(name, slot))).collect();
        DueSlots { schedule, plan, after, passed: duty.passed, fire }
    }

    /// Each names the slot before it, so that after one that is refused no other is taken.
    fn commands(&self) -> Vec<Command<'_>> {
        let DueSlots { schedule, after, ref plan, .. } = *self;
        let mut before = after;
        let mut next = |slot| Some(std::mem::replace(&mut before, slot));
        let mut commands: Vec<Command<'_>> =
            self.passed.iter().map(|passed| Command::PassOver { schedule, after: next(passed.to), passed: *passed }).collect();
        commands.extend(self.fire.iter().map(|(slot, key)| {
            let firing = Firing::Request { key, plan };
            Command::Fire { schedule, after: next(*slot), slot: *slot, firing }
        }));
        commands
    }
}

/// A process of a replica that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// The replica.
    pub replica: ReplicaId,
    /// The worker that it was.
    pub worker: WorkerId,
    /// How it ended, where nobody had asked it to; what it had is then lost.
    pub exit: Option<ProcessExit>,
}

/// How a process ended that nobody had asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessExit {
    /// Its exit code.
    pub code: Option<u8>,
    /// The signal that ended it; where there is no code either, it could not be started.
    pub signal: Option<u8>,
    /// What it said last.
    pub note: String,
    /// How long the next one of its pool waits.
    pub wait: Micros,
}

impl ProcessEnd {
    fn commands<'a>(&'a self, state: &State) -> Vec<Command<'a>> {
        let ProcessEnd { replica, worker, ref exit } = *self;
        let departure = if exit.is_some() { Departure::Lost } else { Departure::Drained };
        let joined = state.work.workers.iter().find(|(_, facts)| facts.id == worker).map(|(replica, _)| *replica);
        let leave = joined.map(|replica| Command::LeaveReplica { replica, departure });
        // An opening of the log has given up all that were asked for before.
        let is_known = state.control.replicas.contains_key(&replica);
        let exit = exit.as_ref().filter(|_| is_known).map(|exit| {
            let ProcessExit { code, signal, ref note, wait } = *exit;
            Command::ExitProcess { replica, code, signal, note, wait }
        });
        let stop = is_known.then_some(Command::StopReplica { replica, departure });
        leave.into_iter().chain(exit).chain(stop).collect()
    }
}

/// What makes the replicas of a log of pools as many as have come up: more of those that were asked for are ready, the oldest first; or some have
/// ended, first those that are to, then the newest.
fn count_replicas<'a>(control: &Control, pool: PoolId, up: u32) -> Vec<Command<'a>> {
    let of = |phase| {
        let own = control.replicas.iter().filter(move |(_, life)| life.pool == pool && life.phase == phase);
        own.map(|(id, _)| *id)
    };
    let (ready, draining) = (of(ReplicaPhase::Ready).count(), of(ReplicaPhase::Draining).count());
    let (known, up) = (ready + draining, up as usize);
    let come = of(ReplicaPhase::Requested).take(up.saturating_sub(known)).map(|replica| Command::ReadyReplica { replica });
    let gone = known.saturating_sub(up);
    let stop = |departure| move |replica| Command::StopReplica { replica, departure };
    let drained = of(ReplicaPhase::Draining).take(gone).map(stop(Departure::Drained));
    let mut newest: Vec<ReplicaId> = of(ReplicaPhase::Ready).collect();
    newest.reverse();
    let lost = newest.into_iter().take(gone.saturating_sub(draining)).map(stop(Departure::Lost));
    come.chain(drained).chain(lost).collect()
}

/// What was read for some policies of a pool, unless another one has taken the place of one of them since.
fn observe<'a>(
    control: &Control,
    (pool, asked): (PoolId, &[(u32, Position)]),
    (readings, work, seen): (&'a [Reading], &'a [u64], &'a [ReplicaReading]),
) -> Option<Command<'a>> {
    let scaling = control.scaling.get(&pool)?;
    let is_there = |(bit, set_at): &(u32, Position)| {
        scaling.deciders().any(|(known, _, decider)| known == *bit && decider.set_at == *set_at)
    };
    let all = asked.iter().fold(0, |all, (bit, _)| all | bit);
    asked.iter().all(is_there).then_some(Command::ObservePool { pool, readings, work, asked: all, seen })
}

impl Proposal {
    pub(crate) fn commands<'a>(&'a self, state: &State) -> Vec<Command<'a>> {
        match *self {
            Proposal::Open { ref writer } => {
                let open = Command::Open { rules: ergate_events::event::RuleVersions::CURRENT, writer };
                // In one batch, or the batch of the opening would start what is ready on replicas that are gone.
                std::iter::once(open).chain(Proposal::LoseAllReplicas.commands(state)).collect()
            }
            Proposal::OpenControl { ref writer } => {
                vec![Command::Open { rules: ergate_events::event::RuleVersions::CURRENT, writer }]
            }
            Proposal::ObserveShards(ref shards) => vec![Command::ObserveShards { shards }],
            Proposal::DefineType { ref name, ref settings, ref by } => vec![Command::DefineType { name, settings, by }],
            Proposal::DefineLimit { ref name, ref allows, ref by } => vec![Command::DefineLimit { name, allows, by }],
            Proposal::LimitType { ref name, ref limits, ref by } => {
                // What nobody has defined is refused under a number that no limit has.
                let id = |limit: &String| state.work.flow.named(limit).map_or(LimitId(u16::MAX), |(id, _)| id);
                let task_type = state.work.type_names.get(name).copied().unwrap_or(TypeId(u16::MAX));
                vec![Command::LimitType { task_type, limits: limits.iter().map(id).collect(), by }]
            }
            Proposal::DefinePool { ref pool, replicas, slots, ref by, ref reason } => {
                vec![Command::DefinePool { pool, replicas, slots, by, reason }]
            }
            Proposal::SetPoolMode { ref pool, mode, ref by, ref reason } => {
                vec![Command::SetPoolMode { pool, mode, by, reason }]
            }
            Proposal::Cancel { task, ref by, ref reason } => vec![Command::Cancel { task, by, reason }],
            Proposal::Kill { task, ref by, ref reason } => vec![Command::Kill { task, by, reason }],
            Proposal::Redrive { task, ref by, ref reason } => vec![Command::Redrive { task, by, reason }],
            Proposal::ReplicaUp { replica, ref pool, slots } => {
                // One that was given up before it came up must not bring slots that the control half does not count.
                let life = state.control.replicas.get(&replica);
                let wanted = life.is_some_and(|life| life.phase != ReplicaPhase::Draining);
                let join = wanted.then_some(Command::JoinReplica { replica, pool, slots });
                std::iter::once(Command::ReadyReplica { replica }).chain(join).collect()
            }
            Proposal::DrainReplica(replica) => vec![Command::DrainReplica { replica }],
            Proposal::ReplicaDown { replica, departure } => {
                let joined = state.work.replicas.get(replica).is_some();
                let leave = joined.then_some(Command::LeaveReplica { replica, departure });
                leave.into_iter().chain([Command::StopReplica { replica, departure }]).collect()
            }
            Proposal::SetPolicy { ref pool, ref policy, least, most, ref by, ref reason } => {
                vec![Command::SetPolicy { pool: PoolRef::Name(pool), policy, least, most, by, reason }]
            }
            Proposal::ObservePool { pool, ref asked, ref readings, ref work, ref seen } => {
                observe(&state.control, (pool, asked), (readings, work, seen)).into_iter().collect()
            }
            Proposal::SetResources { ref pool, ref resources, ref by, ref reason } => {
                vec![Command::SetResources { pool: PoolRef::Name(pool), resources, by, reason }]
            }
            Proposal::SetShadow { ref pool, ref shadow, ref policy, ref by, ref reason } => {
                vec![Command::SetShadow { pool: PoolRef::Name(pool), shadow, policy, by, reason }]
            }
            Proposal::HoldSize { ref pool, replicas, until, ref by, ref reason } => {
                vec![Command::HoldSize { pool: PoolRef::Name(pool), replicas, until, by, reason }]
            }
            Proposal::CountReplicas { pool, up } => count_replicas(&state.control, pool, up),
            Proposal::EndPolicy { ref pool, shards, ref by, ref reason } => {
                let end = Command::SetPolicy { pool: PoolRef::Name(pool), policy: "", least: 0, most: 0, by, reason };
                let sized = state.control.pool(pool).filter(|(id, _)| state.control.scaling.contains_key(id));
                let size = sized.map(|(_, size)| {
                    let replicas = size.replicas.div_ceil(shards.max(1));
                    Command::DefinePool { pool, replicas, slots: size.slots, by, reason }
                });
                std::iter::once(end).chain(size).collect()
            }
            Proposal::ProcessUp(replica) => vec![Command::ReadyReplica { replica }],
            Proposal::ProcessDown(ref end) => end.commands(state),
            Proposal::LoseAllReplicas => {
                // A process that drained before it stopped gave its attempts back; the others vanished with theirs. Workers live on.
                let own = state.work.replicas.iter().filter(|(replica, _)| *replica < WORKER_FIRST);
                let work = own.map(|(replica, known)| {
                    let departure = if known.draining { Departure::Drained } else { Departure::Lost };
                    Command::LeaveReplica { replica, departure }
                });
                let departure = Departure::Lost;
                let control = state.control.replicas.keys().map(|replica| Command::StopReplica { replica: *replica, departure });
                work.chain(control).collect()
            }
            Proposal::GiveBack => {
                let departure = Departure::Drained;
                let own = state.work.replicas.iter().map(|(replica, _)| replica).filter(|replica| *replica < WORKER_FIRST);
                let work = own.map(|replica| Command::LeaveReplica { replica, departure });
                let control = state.control.replicas.keys().map(|replica| Command::StopReplica { replica: *replica, departure });
                work.chain(control).collect()
            }
            Proposal::DefineSchedules { ref schedules, ref by } => {
                let removed = (0..).map(ScheduleId).zip(&state.control.schedules.list);
                let removed = removed.filter(|(_, known)| schedules.iter().all(|(name, _)| *name != known.name));
                let define = schedules.iter().map(|(name, plan)| Command::DefineSchedule { name, plan, by });
                removed.map(|(schedule, _)| Command::RemoveSchedule { schedule, by }).chain(define).collect()
            }
            Proposal::PauseSchedule(ScheduleDemand { schedule, ref by, ref reason }) => {
                vec![Command::PauseSchedule { schedule, by, reason }]
            }
            Proposal::ResumeSchedule(ScheduleDemand { schedule, ref by, ref reason }) => {
                vec![Command::ResumeSchedule { schedule, by, reason }]
            }
            Proposal::Trigger { demand: ScheduleDemand { schedule, ref by, ref reason }, ref plan, slot, ref key } => {
                vec![Command::Trigger { schedule, slot, firing: Firing::Request { key, plan }, by, reason }]
            }
            Proposal::Due(ref due) => due.commands(),
            Proposal::ServeTypes(ref types) => vec![Command::ServeTypes { types }],
            Proposal::AcceptLoss { missing, ref by, ref reason } => vec![Command::AcceptLoss { missing, by, reason }],
        }
    }
}

#[cfg(test)]
mod tests {
    use ergate_events::state::control::ReplicaLife;

    use super::*;

    #[test]
    fn a_log_of_pools_has_as_many_replicas_up_as_there_are() {
        use ReplicaPhase::{Draining, Ready, Requested};
        let told = |phases: &[ReplicaPhase], up| {
            let life = |phase: &ReplicaPhase| ReplicaLife { pool: PoolId(0), phase: *phase };
            let mut control = Control::default();
            control.replicas = (0..).map(ReplicaId).zip(phases.iter().map(life)).collect();
            let each = count_replicas(&control, PoolId(0), up).into_iter().map(|command| {
                if let Command::StopReplica { replica, departure } = command {
                    return format!("{departure:?} {}", replica.0);
                }
                let Command::ReadyReplica { replica } = command else { return format!("{command:?}") };
                format!("up {}", replica.0)
            });
            each.collect::<Vec<_>>()
        };
        assert_eq!(told(&[Requested; 3], 2), ["up 0", "up 1"]);
        assert!(told(&[Ready, Requested, Draining], 2).is_empty(), "those that are to go are still there");
        assert_eq!(told(&[Ready, Ready, Draining], 2), ["Drained 2"]);
        assert_eq!(told(&[Ready, Ready, Ready, Draining], 1), ["Drained 3", "Lost 2", "Lost 1"]);
        assert_eq!(told(&[Ready, Requested], 9), ["up 1"], "more than were asked for are no more");
    }
}
