//! What workers are given: whoever waits is asked for as long as tasks are ready for it, and whoever is silent for its lease loses what it has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler, Message};
use ergate_events::command::Command;
use ergate_events::event::Departure;
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::slab::Phase;
use ergate_events::state::State;
use ergate_events::state::replicas::Slot;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::worker::WorkerId;
use tokio::sync::oneshot;

use super::{LogWriter, Reply};
use crate::submission::SubmitError;
use crate::workers::{Claim, Hub, Order, Session, WorkerSpec};

/// How long a worker may be silent that has nothing to lose, before the shard forgets it: twice the longest wait for attempts.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// How long a worker that nobody knows any more counts as having been silent.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

impl LogWriter {
    /// Gives ready tasks to workers that wait, as far as there is room for more blocks.
    pub(super) fn give_work(&mut self) {
        let hub = Arc::clone(&self.fleet.workers);
        while self.opened && hub.is_anybody_waiting() && self.in_flight.len() < self.in_flight_max && self.refusal().is_none() {
            let state = self.shard.state();
            let claims: Vec<Claim> = claimable(state)
                .find_map(|(name, ready, types)| {
                    let serves = |session: &Session| types.iter().any(|known| session.spec().facts.serves(known));
                    let claims = hub.claim(self.id(), name, ready, |session| serves(session) && self.has_room(session));
                    Some(claims).filter(|claims| !claims.is_empty())
                })
                .unwrap_or_default();
            if claims.is_empty() {
                return;
            }
            let given = self.ask_for(&claims);
            let is_none_given = given.iter().all(|given| *given == 0);
            claims.into_iter().zip(given).for_each(|(claim, given)| hub.settle(claim, given));
            if is_none_given {
                // A limit of the batch, or of the worker itself; what moves next asks again.
                return;
            }
        }
    }

    /// Whether a worker can be given anything here. One that asks although its slots are taken, or that has no place, waits like the others: asked for,
    /// it would be given nothing, again and again.
    fn has_room(&self, session: &Session) -> bool {
        let work = &self.shard.state().work;
        match self.replica_of(session.id()).and_then(|replica| work.replicas.get(replica)) {
            Some(known) => known.free() > 0 && !known.draining,
            None => work.has_room_for_worker(session.spec().slots),
        }
    }

    /// Asks for these workers and says how many attempts each was given.
    fn ask_for(&mut self, claims: &[Claim]) -> Vec<u32> {
        let state = self.shard.state();
        let (mut commands, mut replicas, mut joined) = (Vec::new(), Vec::new(), 0);
        for Claim { session, slots, .. } in claims {
            let spec = session.spec();
            let replica = self.replica_of(spec.facts.id).unwrap_or_else(|| {
                let replica = ReplicaId(state.work.next_worker().map_or(u32::MAX, |next| next.0.saturating_add(joined)));
                joined += 1;
                commands.push(Command::JoinWorker { replica, pool: &spec.pool, slots: spec.slots, worker: &spec.facts });
                replica
            });
            commands.push(Command::AskWork { replica, slots: *slots });
            replicas.push((spec.facts.id, replica, *slots));
        }
        for (id, replica, _) in &replicas {
            self.worker_replicas.insert(*id, *replica);
        }
        let (mut rest, mut answers) = (&commands[..], Vec::new());
        let mut left: Vec<(ReplicaId, u32)> = Vec::new();
        while !rest.is_empty() {
            let taken = self.decide(rest, &mut answers);
            let state = self.shard.state();
            left.extend(state.work.asked.at(state.last_at));
            rest = &rest[taken..];
            if !rest.is_empty() {
                self.hand_over();
            }
        }
        for (command, answer) in commands.iter().zip(&answers) {
            if let Err(rejection) = answer {
                tracing::warn!(?command, %rejection, "a worker was refused");
            }
        }
        let left_of = |replica| left.iter().find(|(id, _)| *id == replica).map(|(_, left)| *left);
        replicas.iter().map(|(_, replica, slots)| left_of(*replica).map_or(0, |left| slots.saturating_sub(left))).collect()
    }

    /// Takes from workers that have been silent for too long what they have.
    pub(super) fn miss_workers(&mut self) {
        if !self.opened || self.refusal().is_some() || self.shard.state().work.workers.is_empty() {
            return;
        }
        let (state, now) = (self.shard.state(), self.clock.now());
        let missed = state.work.workers.iter().filter_map(|(replica, facts)| {
            let has_work = state.work.replicas.get(*replica).is_some_and(|known| known.used() > 0);
            let limit = if has_work { facts.lease.to_std() } else { IDLE_MAX.max(facts.lease.to_std()) };
            let silence = self.fleet.workers.session(facts.id).map_or(Duration::MAX, |session| session.silence());
            let last_seen = Timestamp(now.0.saturating_sub(Micros::from(silence.min(FORGOTTEN)).0));
            (silence >= limit).then_some((*replica, facts.id, last_seen))
        });
        let missed: Vec<_> = missed.collect();
        let commands: Vec<_> = missed
            .iter()
            .map(|(replica, _, last_seen)| Command::MissWorker { replica: *replica, last_seen: *last_seen })
            .collect();
        self.decide_all(&commands, &mut Vec::new());
        self.miss_heartbeats(now);
        for (replica, id, _) in missed {
            if let Some(session) = self.fleet.workers.session(id) {
                session.detach();
            }
            tracing::warn!(worker = %id, %replica, "a worker was silent for as long as its lease; its attempts go to others");
            self.worker_replicas.remove(&id);
        }
    }

    /// Ends attempts of workers that gave no sign of life in time.
    fn miss_heartbeats(&mut self, now: Timestamp) {
        let (shard, workers) = (self.id(), &self.shard.state().work.workers);
        let sessions = workers.iter().filter_map(|(_, facts)| self.fleet.workers.session(facts.id));
        let silent: Vec<_> = sessions.flat_map(|session| session.take_silent(shard)).collect();
        let commands = silent.iter().map(|(task, attempt, silence)| {
            let last_seen = Timestamp(now.0.saturating_sub(Micros::from(*silence).0));
            Command::MissHeartbeat { task: *task, attempt: *attempt, last_seen }
        });
        self.decide_all(&commands.collect::<Vec<_>>(), &mut Vec::new());
    }

    /// The replica that a worker is on this shard.
    pub(super) fn replica_of(&self, id: WorkerId) -> Option<ReplicaId> {
        let known = self.worker_replicas.get(&id).copied();
        // A worker that was not taken in does not have the id that was meant for it; another one may.
        known.filter(|replica| self.shard.state().work.workers.get(replica).is_some_and(|facts| facts.id == id))
    }

    /// Lets the hub know the workers that the log knows: each has its lease to come back.
    pub(super) fn adopt_workers(state: &State, hub: &Hub) {
        for (replica, facts) in &state.work.workers {
            let known = state.work.replicas.get(*replica);
            let pool = known.and_then(|known| state.work.pools.get(known.pool as usize));
            let (Some(known), Some(pool)) = (known, pool) else { continue };
            let slots = u32::try_from(known.size()).unwrap_or(u32::MAX);
            let spec = WorkerSpec { facts: Arc::clone(facts), pool: Arc::from(pool.name.as_str()), slots };
            match hub.join(spec) {
                // One that is known of other shards may have been silent for long: it had nothing to lose so far.
                Ok(session) => session.touch(),
                Err(error) => {
                    tracing::warn!(worker = %facts.id, %error, "a worker of the log is not known any more; what it has goes to others");
                }
            }
        }
    }

    /// The replicas that workers are on a shard.
    pub(super) fn workers_of(state: &State) -> impl Iterator<Item = (WorkerId, ReplicaId)> {
        state.work.workers.iter().map(|(replica, facts)| (facts.id, *replica))
    }
}

/// The pools with ready tasks that start any, how many are ready, and of which types.
fn claimable(state: &State) -> impl Iterator<Item = (&str, usize, Vec<&str>)> {
    let pools = state.work.pools.iter().map(|pool| (pool, state.work.ready_count(pool)));
    let pools = pools.filter(|(pool, ready)| *ready > 0 && !state.control.holds(&pool.name));
    pools.map(|(pool, ready)| {
        let types = state.work.ready_types(pool).map(|id| state.work.types[usize::from(id.0)].name.as_str());
        (pool.name.as_str(), ready, types.collect())
    })
}

/// From the hub: somebody waits for attempts.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Poked;

impl Handler<Poked> for LogWriter {
    type Result = ();

    fn handle(&mut self, Poked: Poked, context: &mut Context<Self>) {
        self.poked.store(false, std::sync::atomic::Ordering::Release);
        self.commit(context);
    }
}

/// From a worker: this is all that it runs of this shard. What the log gives it beside that goes back to the queue, unburned.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach {
    /// Which worker.
    pub worker: WorkerId,
    /// Tasks and attempts.
    pub running: Vec<(Ordinal, u32)>,
    /// Gets, once it is durable, which of those do not count any more.
    pub reply: oneshot::Sender<Result<Vec<(Ordinal, u32)>, SubmitError>>,
}

impl Handler<Attach> for LogWriter {
    type Result = ();

    fn handle(&mut self, Attach { worker, running, reply }: Attach, context: &mut Context<Self>) {
        if let Some(refusal) = self.refusal() {
            let _ = reply.send(Err(refusal));
            return;
        }
        let state = self.shard.state();
        let replica = self.replica_of(worker);
        let slots = replica.and_then(|id| state.work.replicas.get(id)).into_iter().flat_map(|replica| replica.slots());
        let busy =
            slots.filter_map(|slot| if let Slot::Busy { task, attempt, .. } = *slot { Some((task, attempt)) } else { None });
        let busy: BTreeSet<(Ordinal, u32)> = busy.collect();
        let running: BTreeSet<(Ordinal, u32)> = running.into_iter().collect();
        let stale: Vec<_> = running.difference(&busy).copied().collect();
        let lost = busy.difference(&running).map(|(task, attempt)| Command::ReturnAttempt { task: *task, attempt: *attempt });
        let lost: Vec<_> = lost.collect();
        // What it was to stop was forgotten with everything else that was on its way to it.
        let tasks = &state.work.tasks;
        let is_cancelling = |task: Ordinal| tasks.get(task).is_some_and(|live| live.phase == Phase::Cancelling);
        let cancelled = busy.intersection(&running).filter(|(task, _)| is_cancelling(*task));
        if let Some(session) = self.fleet.workers.session(worker) {
            let shard = self.id();
            cancelled.for_each(|(task, attempt)| session.order(Order { shard, task: *task, attempt: *attempt, is_hard: false }));
        }
        self.decide_all(&lost, &mut Vec::new());
        self.open.replies.push(Reply::Attached(reply, stale));
        self.commit(context);
    }
}

/// From the engine: workers are heard about this shard from here on. Those that have something of it say again what they run, as one may have said so
/// just before; each has its lease for that.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Recall;

impl Handler<Recall> for LogWriter {
    type Result = ();

    fn handle(&mut self, Recall: Recall, _: &mut Context<Self>) {
        let work = &self.shard.state().work;
        let has_work = |replica: &ReplicaId| work.replicas.get(*replica).is_some_and(|known| known.used() > 0);
        let busy = work.workers.iter().filter(|(replica, _)| has_work(replica));
        for session in busy.filter_map(|(_, facts)| self.fleet.workers.session(facts.id)) {
            session.touch();
            session.detach();
        }
    }
}

/// From a worker: it is to be given nothing more, or is gone.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Depart {
    /// Which worker.
    pub worker: WorkerId,
    /// Whether it is gone; what it had goes back to the queue, unburned.
    pub is_gone: bool,
    /// Told once that is durable.
    pub reply: oneshot::Sender<Result<Vec<(Ordinal, u32)>, SubmitError>>,
}

impl Handler<Depart> for LogWriter {
    type Result = ();

    fn handle(&mut self, Depart { worker, is_gone, reply }: Depart, context: &mut Context<Self>) {
        if let Some(refusal) = self.refusal() {
            let _ = reply.send(Err(refusal));
            return;
        }
        if let Some(replica) = self.replica_of(worker) {
            let command = if is_gone {
                self.worker_replicas.remove(&worker);
                Command::LeaveReplica { replica, departure: Departure::Drained }
            } else {
                Command::DrainReplica { replica }
            };
            self.decide_all(&[command], &mut Vec::new());
        }
        self.open.replies.push(Reply::Attached(reply, Vec::new()));
        self.commit(context);
    }
}

/// From a worker: it does best with another number of attempts at a time. Nothing is recorded where the shard does not know it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Pace {
    /// Which worker.
    pub worker: WorkerId,
    /// How many it had at most so far, and how many from now on.
    pub limits: (u32, u32),
    /// Why.
    pub reason: String,
    /// Told once that is durable.
    pub reply: oneshot::Sender<Result<Vec<(Ordinal, u32)>, SubmitError>>,
}

impl Handler<Pace> for LogWriter {
    type Result = ();

    fn handle(&mut self, Pace { worker, limits: (before, concurrency), reason, reply }: Pace, context: &mut Context<Self>) {
        if let Some(refusal) = self.refusal() {
            let _ = reply.send(Err(refusal));
            return;
        }
        if let Some(replica) = self.replica_of(worker) {
            let command = Command::ChangeConcurrency { replica, before, concurrency, reason: &reason };
            self.decide_all(&[command], &mut Vec::new());
        }
        self.open.replies.push(Reply::Attached(reply, Vec::new()));
        self.commit(context);
    }
}
