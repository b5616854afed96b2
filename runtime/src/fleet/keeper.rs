//! Whoever starts processes when the log asks for them, and records how they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use actix::Addr;
use ergate_actors::dispatcher::{ProcessOrder, Restarts};
use ergate_actors::log_writer::{DepartWorker, LogWriter, Propose};
use ergate_actors::proposal::{ProcessEnd, ProcessExit, Proposal};
use ergate_actors::workers::Hub;
use ergate_events::id::ReplicaId;
use ergate_events::restart;
use ergate_events::time::Micros;
use ergate_events::worker::WorkerId;
use tokio::sync::{mpsc, oneshot};

use super::child::{Phase, Process, Role};
use super::{End, KILL_AFTER, WorkerCommand};
use crate::Runtime;
use crate::child::Exit;

/// How often it is looked whether a process that starts is known, or another may start.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often it is looked where nothing starts.
const IDLE: Duration = Duration::from_secs(3_600);
/// How long a process has to work until those before it that failed are forgotten.
const STEADY: Duration = Duration::from_secs(10);

/// Keeps the processes of all pools.
pub(super) struct Keeper {
    engine: String,
    pools: BTreeMap<String, Pool>,
    hub: Arc<Hub>,
    restarts: Arc<Restarts>,
    writer: Option<Addr<LogWriter>>,
    processes: BTreeMap<ReplicaId, Process>,
    /// Replicas that wait to be started.
    pending: BTreeMap<ReplicaId, Wanted>,
}

/// A pool.
struct Pool {
    command: WorkerCommand,
    /// How many of its processes failed one after the other.
    failures: u32,
    not_before: Instant,
}

struct Wanted {
    pool: String,
    slots: u32,
}

/// An end of the process of a replica.
type Ended = (ReplicaId, Exit);

impl Keeper {
    pub(super) fn new(runtime: &Runtime, pools: BTreeMap<String, WorkerCommand>, engine: String) -> Keeper {
        let now = Instant::now();
        let pool = |command| Pool { command, failures: 0, not_before: now };
        Keeper {
            engine,
            pools: pools.into_iter().map(|(name, command)| (name, pool(command))).collect(),
            hub: Arc::clone(runtime.hub()),
            restarts: Arc::clone(runtime.restarts()),
            writer: runtime.writer().cloned(),
            processes: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Does what it is told until it is to end, or nobody is there any more to tell it.
    pub(super) fn run(mut self, mut orders: mpsc::UnboundedReceiver<ProcessOrder>, mut ends: mpsc::UnboundedReceiver<End>) {
        let (exited, mut exits) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let Ok(runtime) = runtime.inspect_err(|error| tracing::error!(%error, "no process can be started")) else { return };
        runtime.block_on(async {
            loop {
                tokio::select! {
                    Some(order) = orders.recv() => self.heed(order, &exited),
                    Some((replica, exit)) = exits.recv() => self.exited(replica, &exit),
                    end = ends.recv() => return self.end(end, &mut exits).await,
                    () = tokio::time::sleep(self.look_after()) => self.look(&exited),
                }
            }
        });
    }

    fn look_after(&self) -> Duration {
        let is_starting = self.processes.values().any(|process| process.phase == Phase::Starting);
        if is_starting || !self.pending.is_empty() { LOOK_EVERY } else { IDLE }
    }

    fn heed(&mut self, order: ProcessOrder, exited: &mpsc::UnboundedSender<Ended>) {
        match order {
            ProcessOrder::Start { replica, pool, slots } => {
                self.pending.insert(replica, Wanted { pool, slots });
                self.look(exited);
            }
            ProcessOrder::Drain(replica) => self.drain(replica),
            ProcessOrder::DrainAll => {
                self.pending.clear();
                let all: Vec<ReplicaId> = self.processes.keys().copied().collect();
                all.into_iter().for_each(|replica| self.drain(replica));
            }
        }
    }

    /// Starts what may start now, and looks who has become a worker.
    fn look(&mut self, exited: &mpsc::UnboundedSender<Ended>) {
        let now = Instant::now();
        let pools = &self.pools;
        let is_due = |wanted: &Wanted| pools.get(&wanted.pool).is_some_and(|pool| pool.not_before <= now);
        let due: Vec<ReplicaId> = self.pending.iter().filter(|(_, wanted)| is_due(wanted)).map(|(id, _)| *id).collect();
        for replica in due {
            if let Some(wanted) = self.pending.remove(&replica) {
                self.start(replica, wanted, exited);
            }
        }
        let mut up = Vec::new();
        for (replica, process) in self.processes.iter_mut().filter(|(_, process)| process.phase == Phase::Starting) {
            let limit = self.pools.get(&process.role.pool).map_or(Duration::MAX, |pool| pool.command.ready_within);
            if self.hub.session(process.role.worker).is_some_and(|session| session.is_attached()) {
                process.phase = Phase::Working(now);
                up.push(*replica);
            } else if process.begun.elapsed() > limit {
                tracing::error!(%replica, pool = process.role.pool, ?limit, "a process was not ready in time and is killed");
                process.child.kill();
                process.begun = now;
            }
        }
        up.into_iter().for_each(|replica| self.propose(Proposal::ProcessUp(replica)));
    }

    fn start(&mut self, replica: ReplicaId, wanted: Wanted, exited: &mpsc::UnboundedSender<Ended>) {
        let gpu = self.free_gpu(&wanted.pool);
        let Some(pool) = self.pools.get(&wanted.pool) else { return };
        let (worker, name) = (draw(), format!("{}-{replica}", wanted.pool));
        let Wanted { pool: of, slots } = wanted;
        let role = Role { engine: self.engine.clone(), pool: of.clone(), slots, name, worker, gpu };
        let exited = exited.clone();
        match Process::start(&pool.command, role, move |exit| drop(exited.send((replica, exit)))) {
            Ok(process) => {
                // What it uses it tells itself.
                self.hub.own().add_worker(process.child.id());
                self.processes.insert(replica, process);
            }
            Err(error) => {
                let note = format!("failed to start {}: {error}", pool.command.program.display());
                self.failed(replica, worker, &of, false, ((None, None), note));
            }
        }
    }

    /// The GPU of the pool that the fewest of its processes have.
    fn free_gpu(&self, pool: &str) -> Option<String> {
        let roles = || self.processes.values().map(|process| &process.role).filter(|role| role.pool == pool);
        let count = |gpu: &str| roles().filter(|role| role.gpu.as_deref() == Some(gpu)).count();
        self.pools.get(pool)?.command.gpus.iter().min_by_key(|gpu| count(gpu)).cloned()
    }

    fn drain(&mut self, replica: ReplicaId) {
        if self.pending.remove(&replica).is_some() {
            self.propose(Proposal::ProcessDown(Box::new(ProcessEnd { replica, worker: WorkerId::default(), exit: None })));
        }
        let Some(process) = self.processes.get_mut(&replica) else { return };
        let was = std::mem::replace(&mut process.phase, Phase::Draining);
        // One that has just become a worker may have been given something.
        let session = self.hub.session(process.role.worker).filter(|session| was != Phase::Starting || session.is_attached());
        match (was, session) {
            (Phase::Draining, _) => {}
            // It does nothing yet that it would have to end.
            (Phase::Starting | Phase::Working(_), None) => process.child.terminate(),
            (Phase::Starting | Phase::Working(_), Some(session)) => {
                session.drain();
                if let Some(writer) = &self.writer {
                    let (reply, _) = oneshot::channel();
                    writer.do_send(DepartWorker { worker: process.role.worker, is_gone: false, reply });
                }
            }
        }
    }

    /// A process has ended.
    fn exited(&mut self, replica: ReplicaId, exit: &Exit) {
        let Some(Process { role, phase, child, .. }) = self.processes.remove(&replica) else { return };
        self.hub.own().remove_worker(child.id());
        self.hub.forget(role.worker);
        let (code, signal) = exit.code_or_signal();
        // One that was asked to end before it could hear that was ended by the signal.
        let is_well = phase == Phase::Draining && (exit.status.success() || signal == Some(15));
        if is_well {
            let end = ProcessEnd { replica, worker: role.worker, exit: None };
            self.propose(Proposal::ProcessDown(Box::new(end)));
            return;
        }
        let said = words(&exit.last_line);
        let was_steady = matches!(phase, Phase::Working(since) if since.elapsed() >= STEADY);
        tracing::warn!(%replica, pool = role.pool, code, signal, said, "a process of a pool ended by itself");
        self.failed(replica, role.worker, &role.pool, was_steady, ((code, signal), said));
    }

    /// Records an end that nobody asked for; the log then asks for another replica, which waits.
    fn failed(
        &mut self,
        replica: ReplicaId,
        worker: WorkerId,
        pool: &str,
        was_steady: bool,
        ((code, signal), note): ((Option<u8>, Option<u8>), String),
    ) {
        self.restarts.processes.fetch_add(1, Relaxed);
        let Some(pool) = self.pools.get_mut(pool) else { return };
        pool.failures = if was_steady { 1 } else { pool.failures.saturating_add(1) };
        let wait: Micros = restart::wait(pool.failures);
        pool.not_before = Instant::now() + wait.to_std();
        let exit = Some(ProcessExit { code, signal, note, wait });
        self.propose(Proposal::ProcessDown(Box::new(ProcessEnd { replica, worker, exit })));
    }

    fn propose(&self, proposal: Proposal) {
        if let Some(writer) = &self.writer {
            let (reply, _) = oneshot::channel();
            // Past a full mailbox, for a lost proposal would leave a replica unknown for ever; there are a few for each process.
            writer.do_send(Propose { proposal, reply });
        }
    }

    /// Ends all processes, those that take too long by force. Without an order to, nobody is there any more whom they could work for.
    async fn end(&mut self, end: Option<End>, exits: &mut mpsc::UnboundedReceiver<Ended>) {
        let limit = end.as_ref().map_or(Duration::ZERO, |end| end.limit + KILL_AFTER);
        for process in self.processes.values_mut() {
            process.phase = Phase::Draining;
            process.child.terminate();
        }
        let until = tokio::time::Instant::now() + limit;
        let mut was_killed = false;
        while !self.processes.is_empty() {
            tokio::select! {
                Some((replica, exit)) = exits.recv() => self.exited(replica, &exit),
                () = tokio::time::sleep_until(until), if !was_killed => {
                    self.processes.values().for_each(|process| process.child.kill());
                    was_killed = true;
                }
            }
        }
        if let Some(End { done, .. }) = end {
            let _ = done.send(());
        }
    }
}

/// What a line of a process says: the message, where it writes its log as JSON.
fn words(line: &str) -> String {
    let read = serde_json::from_str::<serde_json::Value>(line).ok();
    let message = read.as_ref().and_then(|read| read.get("fields")?.get("message")?.as_str());
    message.unwrap_or(line).to_owned()
}

/// An id that no other worker has.
fn draw() -> WorkerId {
    let mut id = WorkerId::default();
    // The kernel gives 16 bytes at once or, before it has gathered any, not at all.
    let _ = rustix::rand::getrandom(&mut id.0, rustix::rand::GetRandomFlags::empty());
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_line_of_json_is_what_is_told() {
        let line = r#"{"fields":{"message":"no GPU: \"x\""},"level":"ERROR","target":"ergate"}"#;
        assert_eq!(words(line), r#"no GPU: "x""#);
        for plain in ["", "out of memory", "{\"fields\":3}", "{\"fields\":{\"message\":1}}"] {
            assert_eq!(words(plain), plain);
        }
    }
}
