//! Commands that are not requests, as they travel: they own their texts, and some stand for what the state makes of them.

use ergate_events::command::Command;
use ergate_events::event::{Departure, ShardReading};
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::state::State;
use ergate_events::state::control::ReplicaPhase;

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
    /// Every replica that the log knows belongs to a process that is gone.
    LoseAllReplicas,
    /// This process gives the shard to another one: what runs goes back to the queue and is not counted as lost.
    GiveBack,
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
            Proposal::DefinePool { ref pool, replicas, slots, ref by, ref reason } => {
                vec![Command::DefinePool { pool, replicas, slots, by, reason }]
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
            Proposal::LoseAllReplicas => {
                // A process that drained before it stopped gave its attempts back; the others vanished with theirs.
                let work = state.work.replicas.iter().map(|(replica, known)| {
                    let departure = if known.draining { Departure::Drained } else { Departure::Lost };
                    Command::LeaveReplica { replica, departure }
                });
                let departure = Departure::Lost;
                let control = state.control.replicas.keys().map(|replica| Command::StopReplica { replica: *replica, departure });
                work.chain(control).collect()
            }
            Proposal::GiveBack => {
                let departure = Departure::Drained;
                let work = state.work.replicas.iter().map(|(replica, _)| Command::LeaveReplica { replica, departure });
                let control = state.control.replicas.keys().map(|replica| Command::StopReplica { replica: *replica, departure });
                work.chain(control).collect()
            }
            Proposal::AcceptLoss { missing, ref by, ref reason } => vec![Command::AcceptLoss { missing, by, reason }],
        }
    }
}
