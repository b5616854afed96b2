//! Hands committed attempts to executors and instructions to the fleet; on the shard's arbiter. It decides nothing: which attempt goes
//! where was decided and recorded before.
//!
//! It is the parent of the executors: one whose mailbox has closed is reported as lost, its attempts return to the queue by rule, and the
//! control half asks for another replica, which comes here as an instruction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, ActorContext, Addr, Arbiter, AsyncContext, Context, Handler, Message};
use ergate_events::event::Departure;
use ergate_events::id::{Epoch, Position, ReplicaId, ShardId, TypeId};
use ergate_events::worker::WorkerId;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::effects::{Attempts, Instruction};
use crate::executor::function::TaskFunction;
use crate::executor::{Drain, Executor, ExecutorParts, Functions, Hello, Panic, Run, Stop, Types};
use crate::log_writer::{LogWriter, Propose};
use crate::proposal::Proposal;
use crate::report::Report;
use crate::submission::SubmitError;
use crate::workers::{Delivery, Hub, Order, Session};

/// How often the parent looks after its children.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Messages that may wait: one for each block in flight, and control messages.
const MAILBOX_MAX: usize = 4_096;

/// What starts executors, and what a new dispatcher needs when the old one failed.
#[derive(Clone)]
pub struct Fleet {
    /// Task functions by name.
    pub functions: Arc<BTreeMap<String, Arc<dyn TaskFunction>>>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The shard.
    pub shard: ShardId,
    /// The opening of the log.
    pub epoch: Epoch,
    /// Whether replicas run here; where they do not, asking for one is a record and no more.
    pub executes: bool,
    /// Pools whose replicas are started by others.
    pub external: Arc<BTreeSet<String>>,
    /// Pools whose replicas are processes, and who starts them.
    pub processes: Option<Processes>,
    /// The workers of this engine.
    pub workers: Arc<Hub>,
    /// Where reports go.
    pub reports: mpsc::Sender<Report>,
    /// Visible counts of what had to be started again.
    pub restarts: Arc<Restarts>,
}

/// Pools whose replicas are processes of their own.
#[derive(Clone)]
pub struct Processes {
    /// Their names.
    pub pools: Arc<BTreeSet<String>>,
    /// Where it is told what is to be done.
    pub orders: mpsc::UnboundedSender<ProcessOrder>,
}

/// What is to be done about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessOrder {
    /// Start one as this replica of the pool, with so many slots.
    Start {
        /// The replica.
        replica: ReplicaId,
        /// The pool.
        pool: String,
        /// Its slots.
        slots: u32,
    },
    /// Let the one of this replica end what it does, and then itself.
    Drain(ReplicaId),
    /// Drain all: the log knows none of them any more.
    DrainAll,
}

/// How often actors were started again.
#[derive(Debug, Default)]
pub struct Restarts {
    /// Executors.
    pub executors: AtomicU64,
    /// Dispatchers.
    pub dispatchers: AtomicU64,
    /// Projectors.
    pub projectors: AtomicU64,
    /// Schedulers.
    pub schedulers: AtomicU64,
    /// Processes of pools.
    pub processes: AtomicU64,
    /// Autoscalers.
    pub autoscalers: AtomicU64,
}

/// Owns the executors of this process.
pub struct Dispatcher {
    fleet: Fleet,
    functions: Functions,
    names: Vec<String>,
    /// Which function serves a definition.
    types: Vec<Option<usize>>,
    /// The names of definitions.
    type_names: Arc<[Arc<str>]>,
    workers: BTreeMap<ReplicaId, Arc<Session>>,
    writer: Option<Addr<LogWriter>>,
    replicas: BTreeMap<ReplicaId, Replica>,
    draining: BTreeSet<ReplicaId>,
    /// Replicas that are processes.
    processes: BTreeSet<ReplicaId>,
}

struct Replica {
    address: Addr<Executor>,
    arbiter: Arbiter,
}

impl Replica {
    fn stop(&self) {
        // An arbiter that takes no message has stopped already.
        let _ = self.arbiter.stop();
    }
}

impl Dispatcher {
    /// A dispatcher without replicas of its own; `types` are the names of the definitions that the log has so far, by [`TypeId`], and `workers` those
    /// that it knows. Something on its way to them may be lost, so they have to say what they run.
    pub fn new(fleet: Fleet, types: &[String], workers: impl Iterator<Item = (WorkerId, ReplicaId)>) -> Dispatcher {
        let workers = workers.filter_map(|(id, replica)| Some((replica, fleet.workers.session(id)?)));
        let workers: BTreeMap<_, _> = workers.inspect(|(_, session)| session.detach()).collect();
        let type_names = types.iter().map(|name| Arc::from(name.as_str())).collect();
        let names: Vec<String> = fleet.functions.keys().cloned().collect();
        let functions: Functions = fleet.functions.values().map(Arc::clone).collect();
        let types = types.iter().map(|name| names.binary_search(name).ok()).collect();
        let (replicas, draining, processes) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut dispatcher =
            Dispatcher { fleet, functions, names, types, type_names, workers, writer: None, replicas, draining, processes };
        dispatcher.order(ProcessOrder::DrainAll);
        dispatcher
    }

    fn instruct(&mut self, instruction: Instruction, context: &mut Context<Self>) {
        match instruction {
            Instruction::Cancel { replica, task, attempt } => self.stop(replica, Stop { task, attempt, hard: false }),
            Instruction::Abort { replica, task, attempt } => self.stop(replica, Stop { task, attempt, hard: true }),
            Instruction::AddWorker { replica, worker } => {
                if let Some(session) = self.fleet.workers.session(worker) {
                    self.workers.insert(replica, session);
                }
            }
            Instruction::RemoveWorker(replica) => drop(self.workers.remove(&replica)),
            Instruction::StartReplica { replica, name, slots, .. } if self.is_process(&name) => {
                self.processes.insert(replica);
                self.order(ProcessOrder::Start { replica, pool: name, slots });
            }
            Instruction::StartReplica { replica, name, slots, .. }
                if self.fleet.executes && !self.fleet.external.contains(&name) =>
            {
                self.start_replica(replica, name, slots, context);
            }
            Instruction::StartReplica { .. } => {}
            Instruction::DrainReplica(replica) if self.processes.remove(&replica) => self.order(ProcessOrder::Drain(replica)),
            Instruction::DrainReplica(replica) => {
                let (recorded, own) = (self.propose(Proposal::DrainReplica(replica)), context.address());
                actix::spawn(async move {
                    // Until that is durable the replica is still given attempts, which an executor that says it is idle would lose.
                    match recorded.await {
                        Ok(Ok(_)) => own.do_send(NoMoreWork(replica)),
                        // It has not joined yet and must not any more.
                        Ok(Err(SubmitError::Rejected(_))) => own.do_send(ReplicaIdle(replica)),
                        Ok(Err(_)) | Err(_) => {}
                    }
                });
            }
            Instruction::DefineType { id, name } => self.define_type(id, &name),
        }
    }

    fn is_process(&self, pool: &str) -> bool {
        self.fleet.processes.as_ref().is_some_and(|processes| self.fleet.executes && processes.pools.contains(pool))
    }

    fn order(&mut self, order: ProcessOrder) {
        if let Some(processes) = &self.fleet.processes {
            // Whoever starts them is gone only when the runtime is.
            let _ = processes.orders.send(order);
        }
    }

    /// Starts an executor on a thread of its own and offers its slots.
    fn start_replica(&mut self, replica: ReplicaId, pool: String, slots: u32, context: &mut Context<Self>) {
        let parts = ExecutorParts {
            shard: self.fleet.shard,
            replica,
            slots,
            epoch: self.fleet.epoch,
            clock: Arc::clone(&self.fleet.clock),
            functions: Arc::clone(&self.functions),
            types: self.types.clone(),
            reports: self.fleet.reports.clone(),
            tells_signs: false,
        };
        let arbiter = Arbiter::new();
        let address = Executor::start_in_arbiter(&arbiter.handle(), move |_| Executor::new(parts));
        // Its mailbox is small until it runs, and its thread may be slow to come up: it offers its slots when it answers.
        let (hello, own) = (address.send(Hello), context.address());
        actix::spawn(async move {
            if hello.await.is_ok() {
                own.do_send(Up { replica, pool, slots });
            }
        });
        self.replicas.insert(replica, Replica { address, arbiter });
    }

    fn define_type(&mut self, id: TypeId, name: &str) {
        let function = self.names.binary_search_by(|known| known.as_str().cmp(name)).ok();
        if usize::from(id.0) == self.types.len() {
            self.types.push(function);
            self.type_names = self.type_names.iter().cloned().chain([Arc::from(name)]).collect();
        }
        for replica in self.replicas.values() {
            if let Err(error) = replica.address.try_send(Types(self.types.clone())) {
                tracing::warn!(%error, "an executor did not hear of a new task type");
            }
        }
    }

    fn tell<M>(&mut self, replica: ReplicaId, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        Executor: Handler<M>,
    {
        let Some(known) = self.replicas.get(&replica) else { return };
        if let Err(error) = known.address.try_send(message) {
            tracing::error!(%replica, %error, "an executor takes no message and is replaced");
            self.lose(replica);
        }
    }

    fn stop(&mut self, replica: ReplicaId, stop: Stop) {
        match self.workers.get(&replica) {
            Some(session) => {
                let Stop { task, attempt, hard } = stop;
                session.order(Order { shard: self.fleet.shard, task, attempt, is_hard: hard });
            }
            None => self.tell(replica, stop),
        }
    }

    fn run(&mut self, replica: ReplicaId, attempts: Attempts) {
        if let Some(session) = self.workers.get(&replica) {
            let (shard, epoch, types) = (self.fleet.shard, self.fleet.epoch, Arc::clone(&self.type_names));
            session.deliver(Delivery { shard, epoch, types, attempts });
        } else if self.replicas.contains_key(&replica) {
            self.tell(replica, Run(attempts));
        } else {
            // Its loss is already proposed, and returns these attempts with the others.
            tracing::debug!(%replica, "attempts for a replica that is gone");
        }
    }

    /// Reports a replica as lost; rule and control half do the rest.
    fn lose(&mut self, replica: ReplicaId) {
        if let Some(gone) = self.replicas.remove(&replica) {
            gone.stop();
            self.draining.remove(&replica);
            self.fleet.restarts.executors.fetch_add(1, Ordering::Relaxed);
            drop(self.propose(Proposal::ReplicaDown { replica, departure: Departure::Lost }));
        }
    }

    /// Proposes something; hardly anybody waits for the answer, for what follows from it comes back as an instruction.
    fn propose(&self, proposal: Proposal) -> oneshot::Receiver<Result<Position, SubmitError>> {
        let (reply, answer) = oneshot::channel();
        if let Some(writer) = &self.writer {
            // Past a full mailbox, for a lost proposal would leave a replica unknown for ever; there are at most a few for each replica.
            writer.do_send(Propose { proposal, reply });
        }
        answer
    }

    fn look_after(&mut self) {
        let gone: Vec<ReplicaId> =
            self.replicas.iter().filter(|(_, replica)| !replica.address.connected()).map(|(id, _)| *id).collect();
        gone.into_iter().for_each(|replica| self.lose(replica));
        for replica in self.draining.clone() {
            self.tell(replica, Drain);
        }
    }
}

impl Actor for Dispatcher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        context.set_mailbox_capacity(MAILBOX_MAX);
        let address = context.address().downgrade();
        actix::spawn(async move {
            while let Some(address) = address.upgrade() {
                // A full mailbox is looked after at the next turn.
                let _ = address.try_send(LookAfter);
                drop(address);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.replicas.values().for_each(Replica::stop);
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // After a panic `stopped` is not called, and the threads of the executors would stay.
        self.replicas.values().for_each(Replica::stop);
    }
}

/// From the runtime, first of all: where proposals go.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Attach(pub Addr<LogWriter>);

impl Handler<Attach> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Attach(writer): Attach, _: &mut Context<Self>) {
        self.writer = Some(writer);
    }
}

/// From the log writer: this is durable, do it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Carry {
    pub(crate) starts: Vec<(ReplicaId, Attempts)>,
    pub(crate) instructions: Vec<Instruction>,
}

impl Carry {
    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty() && self.instructions.is_empty()
    }
}

impl Handler<Carry> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Carry { starts, instructions }: Carry, context: &mut Context<Self>) {
        // Starts first: an instruction of the same block may cancel one of them.
        // What is started may need what was defined or joined in the same block.
        let is_needed = |item: &Instruction| matches!(item, Instruction::DefineType { .. } | Instruction::AddWorker { .. });
        let (needed, later): (Vec<_>, Vec<_>) = instructions.into_iter().partition(is_needed);
        needed.into_iter().for_each(|instruction| self.instruct(instruction, context));
        starts.into_iter().for_each(|(replica, attempts)| self.run(replica, attempts));
        later.into_iter().for_each(|instruction| self.instruct(instruction, context));
    }
}

/// From its own timer: look after the executors.
#[derive(Message)]
#[rtype(result = "()")]
struct LookAfter;

impl Handler<LookAfter> for Dispatcher {
    type Result = ();

    fn handle(&mut self, LookAfter: LookAfter, context: &mut Context<Self>) {
        if self.writer.as_ref().is_some_and(|writer| !writer.connected()) {
            // Nothing that is done from here on could be recorded.
            context.stop();
            return;
        }
        self.look_after();
    }
}

/// From itself: an executor runs.
#[derive(Message)]
#[rtype(result = "()")]
struct Up {
    replica: ReplicaId,
    pool: String,
    slots: u32,
}

impl Handler<Up> for Dispatcher {
    type Result = ();

    fn handle(&mut self, Up { replica, pool, slots }: Up, context: &mut Context<Self>) {
        if self.replicas.contains_key(&replica) {
            let (recorded, own) = (self.propose(Proposal::ReplicaUp { replica, pool, slots }), context.address());
            actix::spawn(async move {
                // Given up before it came up.
                if let Ok(Err(SubmitError::Rejected(_))) = recorded.await {
                    own.do_send(ReplicaIdle(replica));
                }
            });
        }
    }
}

/// From itself: nothing more will be given to this replica.
#[derive(Message)]
#[rtype(result = "()")]
struct NoMoreWork(ReplicaId);

impl Handler<NoMoreWork> for Dispatcher {
    type Result = ();

    fn handle(&mut self, NoMoreWork(replica): NoMoreWork, _: &mut Context<Self>) {
        if self.replicas.contains_key(&replica) {
            self.draining.insert(replica);
            self.tell(replica, Drain);
        }
    }
}

/// From the log writer, which has it from an executor that drains, or from itself for one that was given up: everything that it did is decided and it has nothing left to do.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReplicaIdle(pub(crate) ReplicaId);

impl Handler<ReplicaIdle> for Dispatcher {
    type Result = ();

    fn handle(&mut self, ReplicaIdle(replica): ReplicaIdle, _: &mut Context<Self>) {
        self.draining.remove(&replica);
        if let Some(idle) = self.replicas.remove(&replica) {
            idle.stop();
            drop(self.propose(Proposal::ReplicaDown { replica, departure: Departure::Drained }));
        }
    }
}

/// For tests: panics here, or in every executor, which ends the actors for good.
#[derive(Message)]
#[rtype(result = "()")]
pub enum PanicNow {
    /// In the dispatcher.
    Dispatcher,
    /// In all executors.
    Executors,
}

impl Handler<PanicNow> for Dispatcher {
    type Result = ();

    #[expect(clippy::panic, reason = "that is its purpose")]
    fn handle(&mut self, message: PanicNow, _: &mut Context<Self>) {
        match message {
            PanicNow::Dispatcher => panic!("the dispatcher was told to panic"),
            PanicNow::Executors => self.replicas.values().for_each(|replica| drop(replica.address.try_send(Panic))),
        }
    }
}
