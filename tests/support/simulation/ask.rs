//! Commands that own what they say, on their way to the engine.

use ergate_events::command::Command;
use ergate_events::event::{Departure, RuleVersions};
use ergate_events::id::{LimitId, Ordinal, ReplicaId, TypeId};
use ergate_events::limit::LimitSettings;
use ergate_events::task::{Ask as Setting, Failure, IdempotencyKey, Outcome, TypeSettings};
use ergate_events::time::Timestamp;
use ergate_events::worker::WorkerFacts;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Succeeded,
    Failed { retryable: bool },
    Stopped,
    Returned,
}

/// A request of somebody, who waits for the answer.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Open,
    DefineType,
    DefineLimit(LimitSettings),
    LimitType,
    Submit { client: u64, payload: [u8; 8], key: Option<String>, settings: Vec<Setting<'static>> },
    Report { task: Ordinal, attempt: u32, replica: ReplicaId, done: Done },
    Checkpoint { task: Ordinal, attempt: u32 },
    MissHeartbeat { task: Ordinal, attempt: u32 },
    Cancel(Ordinal),
    Kill(Ordinal),
    Redrive(Ordinal),
    Ready(ReplicaId),
    Join(ReplicaId, u32),
    Drain(ReplicaId),
    Leave(ReplicaId, Departure),
    Stop(ReplicaId, Departure),
    JoinWorker { guest: u64, replica: ReplicaId, slots: u32 },
    Work(ReplicaId, u32),
    Miss(ReplicaId, Timestamp),
    Resize { replicas: u32, slots: u32 },
    StepClock { from: Timestamp, to: Timestamp },
}

impl Ask {
    pub(crate) fn command<'a>(&'a self, types: &'a TypeSettings, guests: &'a [WorkerFacts]) -> Command<'a> {
        let (by, reason) = ("simulation", "");
        match self {
            Ask::Open => Command::Open { rules: RuleVersions::CURRENT, writer: "simulation" },
            Ask::DefineType => Command::DefineType { name: "job", settings: types, by },
            Ask::DefineLimit(allows) => Command::DefineLimit { name: "tenants", allows, by },
            Ask::LimitType => Command::LimitType { task_type: TypeId(0), limits: vec![LimitId(0)], by },
            Ask::Submit { payload, key, settings, .. } => Command::Request {
                task_type: TypeId(0),
                payload,
                key: key.as_ref().map(|key| IdempotencyKey { key, window: None }),
                asks: settings,
            },
            Ask::Report { task, attempt, replica, done } => report(*task, *attempt, *replica, *done),
            Ask::Checkpoint { task, attempt } => Command::Checkpoint { task: *task, attempt: *attempt, details: b"half" },
            Ask::MissHeartbeat { task, attempt } => {
                Command::MissHeartbeat { task: *task, attempt: *attempt, last_seen: Timestamp(0) }
            }
            Ask::Cancel(task) => Command::Cancel { task: *task, by, reason },
            Ask::Kill(task) => Command::Kill { task: *task, by, reason },
            Ask::Redrive(task) => Command::Redrive { task: *task, by, reason },
            Ask::Ready(replica) => Command::ReadyReplica { replica: *replica },
            Ask::Join(replica, slots) => Command::JoinReplica { replica: *replica, pool: "default", slots: *slots },
            Ask::Drain(replica) => Command::DrainReplica { replica: *replica },
            Ask::Leave(replica, departure) => Command::LeaveReplica { replica: *replica, departure: *departure },
            Ask::Stop(replica, departure) => Command::StopReplica { replica: *replica, departure: *departure },
            Ask::JoinWorker { guest, replica, slots } => {
                let worker = &guests[*guest as usize];
                Command::JoinWorker { replica: *replica, pool: "default", slots: *slots, worker }
            }
            Ask::Work(replica, slots) => Command::AskWork { replica: *replica, slots: *slots },
            Ask::Miss(replica, last_seen) => Command::MissWorker { replica: *replica, last_seen: *last_seen },
            Ask::Resize { replicas, slots } => {
                Command::DefinePool { pool: "default", replicas: *replicas, slots: *slots, by, reason }
            }
            Ask::StepClock { from, to } => Command::StepClock { from: *from, to: *to },
        }
    }
}

fn report(task: Ordinal, attempt: u32, replica: ReplicaId, done: Done) -> Command<'static> {
    match done {
        Done::Succeeded => Command::Succeed { task, attempt, outcome: Outcome::Succeeded, result: b"done" },
        Done::Failed { retryable } => {
            let failure = Failure { class: "boom", message: "it broke", retryable, delay: None };
            Command::Fail { task, attempt, failure }
        }
        Done::Stopped => Command::ReleaseSlot { task, attempt, replica },
        Done::Returned => Command::ReturnAttempt { task, attempt },
    }
}
