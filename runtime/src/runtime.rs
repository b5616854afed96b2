//! A running runtime: submit, wait, look, stop.
//!
//! It stands in front of the one shard of a log that only this process has, or of an engine on Kafka that leads some of many shards. What is said
//! here holds for both; a method says where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use ergate_actors::dispatcher::Restarts;
use ergate_actors::executor::function::TaskFunction;
use ergate_actors::log_thread::{Durability, LogCounters};
use ergate_actors::log_writer::LogWriter;
use ergate_actors::projector::Projector;
use ergate_actors::proposal::{Proposal, ScheduleDemand};
use ergate_actors::submission::{Extras, RequestBatch, SubmitError, TaskEnd};
use ergate_events::event::PoolMode;
use ergate_events::id::{Position, ShardId, TaskId, TypeId};
use ergate_events::log::index::TaskIndex;
use ergate_events::log::{LogError, LogReader, Space};
use ergate_events::schedule::{ScheduleSettings, firing_key};
use ergate_events::state::State;
use ergate_events::state::keys::KeyTable;
use ergate_events::task::TypeSettings;
use ergate_events::time::{Micros, Timestamp};
use ergate_events::view::Progress;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::builder::Builder;
use crate::plugins::Running;
use crate::store::RecoverError;
pub use crate::task::{Batch, Task, WaitError};
use crate::wiring::{self, Parts};

/// Most requests in one batch.
pub const BATCH_REQUESTS_MAX: usize = 65_536;
/// Most payload bytes in one batch, and in all batches together that wait to be decided; on Kafka, to be answered.
pub const UNDECIDED_BYTES_MAX: usize = 64 << 20;
/// How long a caller that finds the runtime full is asked to wait.
pub(crate) const RETRY_AFTER: Micros = Micros::from_millis(100);
/// What such a caller is told.
pub(crate) const UNDECIDED: &str = "too much waits to be recorded";

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A task type, pool or schedule was refused.
    #[error("a task type, pool or schedule was refused")]
    Refused(#[from] SubmitError),
    /// The log has work that this process cannot do; see [`Builder::own_tasks_only`].
    #[error(
        "the log has {tasks} unfinished tasks of types that are not known here ({types}); run them with the program that submitted them, or use another data directory"
    )]
    NotOwn {
        /// How many.
        tasks: usize,
        /// Of which types.
        types: String,
    },
    /// One name has two definitions.
    #[error("the task type {name:?} is registered twice; give one of the two another name")]
    TypeTwice {
        /// The name.
        name: String,
    },
    /// A schedule cannot be.
    #[error("the schedule {name:?} cannot be: {reason}")]
    Schedule {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A source cannot be.
    #[error("the source {name:?} cannot be: {reason}")]
    Source {
        /// Its name.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// There are sources, and the log is on Kafka.
    #[error(
        "sources are not followed where the log is on Kafka, and this engine has {count}; publish their lines to the topic of requests instead"
    )]
    SourcesOnKafka {
        /// How many.
        count: usize,
    },
    /// The executor of a task type cannot be made.
    #[error("the executor of the task type {task_type:?} cannot be made")]
    Executor {
        /// The task type.
        task_type: String,
        /// Why not.
        #[source]
        source: ergate_actors::executor::factory::FactoryError,
    },
    /// A plug-in cannot be used.
    #[error(transparent)]
    Plugin(#[from] crate::plugins::PluginError),
    /// The brokers do not answer.
    #[error("the brokers at {brokers} do not answer ({reason}); check the address, and that they run")]
    Brokers {
        /// Where they should be.
        brokers: String,
        /// What the client says.
        reason: String,
    },
    /// The brokers answer, and do not let this client in.
    #[error(
        "the brokers at {brokers} do not let this client in ({reason}); check user, password and certificate under `[kafka.options]`"
    )]
    Denied {
        /// Where they are.
        brokers: String,
        /// What the client says.
        reason: String,
    },
    /// A topic of the namespace cannot be used.
    #[error("the topic {topic} {reason}; make the topics of the namespace with `{command}`")]
    Topic {
        /// Its name.
        topic: String,
        /// What is wrong with it.
        reason: String,
        /// What makes it.
        command: String,
    },
    /// The log failed while the runtime took it over.
    #[error("the log failed at the start: {reason}")]
    LogFailed {
        /// Why, with everything that caused it.
        reason: String,
    },
    /// There is no thread to run on.
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),
    /// It panicked; the log says where.
    #[error("the runtime panicked while it started; its messages say where")]
    Panicked,
}

/// A running runtime. Clones share it; [`Runtime::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// A runtime, if it is still there.
#[cfg(feature = "kafka")]
#[derive(Clone)]
pub(crate) struct WeakRuntime(std::sync::Weak<Inner>);

#[cfg(feature = "kafka")]
impl WeakRuntime {
    pub(crate) fn upgrade(&self) -> Option<Runtime> {
        self.0.upgrade().map(|inner| Runtime { inner })
    }
}

struct Inner {
    front: Front,
    /// What may have work outside this process.
    functions: Arc<[Arc<dyn TaskFunction>]>,
    plugins: Running,
    durability: Durability,
    tasks_live_max: usize,
    settings: BTreeMap<String, TypeSettings>,
    room: Arc<Semaphore>,
    /// How often a caller was asked to come again.
    busy: AtomicU64,
    #[cfg(feature = "metrics")]
    metrics: crate::metrics::Told,
    /// Taken by whoever has shut it down; locked by whoever does.
    thread: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What a runtime stands in front of.
pub(crate) enum Front {
    /// The one shard of a log that only this process has.
    Local(Box<Parts>),
    /// An engine among others.
    #[cfg(feature = "kafka")]
    Kafka(Box<crate::kafka::Engine>),
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without a handle nobody can stop it any more, and its log would stay locked. What was acknowledged is durable.
        match &self.front {
            Front::Local(parts) => {
                #[cfg(feature = "requests")]
                parts.sources.stop();
                parts.system.stop();
            }
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.abandon(),
        }
        self.functions.iter().for_each(|function| function.close());
    }
}

/// A runtime that may be gone.
#[cfg(feature = "metrics")]
#[derive(Clone)]
pub(crate) struct Handle(std::sync::Weak<Inner>);

#[cfg(feature = "metrics")]
impl Handle {
    /// The runtime, if it is there.
    pub(crate) fn upgrade(&self) -> Option<Runtime> {
        self.0.upgrade().map(|inner| Runtime { inner })
    }
}

/// What figures are made of.
#[cfg(feature = "metrics")]
impl Runtime {
    pub(crate) fn handle(&self) -> Handle {
        Handle(Arc::downgrade(&self.inner))
    }

    pub(crate) fn told(&self) -> &crate::metrics::Told {
        &self.inner.metrics
    }

    /// Pools and names of the registered task types.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&str, &str)> {
        self.inner.settings.iter().map(|(name, settings)| (settings.pool.as_str(), name.as_str()))
    }

    pub(crate) fn figures(&self) -> &wiring::Figures {
        match &self.inner.front {
            Front::Local(parts) => &parts.figures,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.figures,
        }
    }

    /// Reads each shard with tasks that is led here now.
    pub(crate) fn each_led(&self, mut read: impl FnMut(&Parts)) {
        match &self.inner.front {
            Front::Local(parts) => read(parts),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.leading.each(read),
        }
    }

    /// Where the partitions of a shard end, on Kafka.
    #[cfg(feature = "kafka")]
    pub(crate) fn ends(&self, shard: ShardId) -> Option<crate::kafka::End> {
        match &self.inner.front {
            Front::Local(_) => None,
            Front::Kafka(engine) => engine.ends.get(shard),
        }
    }

    /// The generators and observers that run.
    pub(crate) fn plugins(&self) -> &Running {
        &self.inner.plugins
    }

    /// What this runtime stands in front of.
    #[cfg(feature = "http")]
    pub(crate) fn front(&self) -> &Front {
        &self.inner.front
    }

    pub(crate) fn is_on_kafka(&self) -> bool {
        !matches!(self.inner.front, Front::Local(_))
    }

    /// How often a caller was asked to come again.
    pub(crate) fn busy(&self) -> u64 {
        self.inner.busy.load(Relaxed)
    }

    /// Room for requests that wait to be decided.
    pub(crate) fn room_bytes(&self) -> u64 {
        (self.inner.room.available_permits() as u64) << 10
    }
}

/// Submitting.
///
/// A request is *accepted* when the event that says so is durable: synced on this machine, or committed on Kafka, where any engine of the namespace
/// may be the one that accepts and executes it. From then on its task ends, whatever happens to this process.
impl Runtime {
    /// Begins to put a runtime together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(builder: &Builder, front: Front, thread: Option<JoinHandle<()>>) -> Runtime {
        let room = Arc::new(Semaphore::new(UNDECIDED_BYTES_MAX >> 10));
        let (durability, tasks_live_max) = (builder.durability, builder.tasks_live_max);
        let functions = builder.types.values().map(|(_, function)| Arc::clone(function)).collect();
        let settings = builder.types.iter().map(|(name, (settings, _))| (name.clone(), settings.clone())).collect();
        let inner = Inner {
            front,
            functions,
            plugins: builder.plugins.running(),
            durability,
            tasks_live_max,
            settings,
            room,
            busy: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            metrics: crate::metrics::Told::default(),
            thread: tokio::sync::Mutex::new(thread),
        };
        Runtime { inner: Arc::new(inner) }
    }

    /// Submits a task and waits until it is accepted. On Kafka that takes as long as some engine needs to read the request and commit; while no
    /// engine leads its shard, it waits.
    ///
    /// # Errors
    /// [`SubmitError`], see [`Runtime::submit_batch`]; [`SubmitError::Payload`] when the payload cannot be written as JSON,
    /// [`SubmitError::Rejected`] or, on Kafka, [`SubmitError::Refused`] when the answer is no.
    pub async fn submit(&self, task_type: &str, payload: &(impl Serialize + ?Sized)) -> Result<Task, SubmitError> {
        self.submit_with(task_type, payload, Extras::default()).await
    }

    /// Submits a task with what few tasks have. On Kafka a retry policy of its own has the jitter of its type, for a request cannot name one.
    ///
    /// # Errors
    /// As [`Runtime::submit`].
    pub async fn submit_with(
        &self,
        task_type: &str,
        payload: &(impl Serialize + ?Sized),
        extras: Extras,
    ) -> Result<Task, SubmitError> {
        let mut batch = RequestBatch::with_capacity(1, 128);
        let id = self.task_type(task_type)?;
        batch
            .push_with(id, Some(Box::new(extras)), |bytes| serde_json::to_writer(bytes, payload))
            .map_err(|error| SubmitError::Payload { reason: error.to_string() })?;
        Task::of(self.submit_batch(batch).await?, self.clone())
    }

    /// The id of a registered task type, for filling a [`RequestBatch`] of this runtime.
    ///
    /// # Errors
    /// [`SubmitError::UnknownType`] with the registered names.
    pub fn task_type(&self, name: &str) -> Result<TypeId, SubmitError> {
        known_type(self.task_types(), name)
    }

    /// Registered task types by name.
    pub fn task_types(&self) -> &BTreeMap<String, TypeId> {
        match &self.inner.front {
            Front::Local(parts) => &parts.types,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.types,
        }
    }

    /// What a registered task type promises; `None` for a name that is not registered.
    pub fn type_settings(&self, name: &str) -> Option<&TypeSettings> {
        self.inner.settings.get(name)
    }

    /// Submits many tasks at once and waits until the answers are durable. Waits while the runtime has no room to decide them.
    ///
    /// On Kafka a request with an idempotency key goes to the shard that Kafka's clients choose for a record with that key, so that the same
    /// key meets the same shard whoever publishes it; the others of a batch go to one shard, which is another one for each batch.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when too much is live, space runs out or brokers do not answer; [`SubmitError::Unknown`] when the log failed, or the
    /// brokers or this engine did, before the answer was durable; [`SubmitError::Closed`] when the runtime has stopped.
    pub async fn submit_batch(&self, requests: RequestBatch) -> Result<Batch, SubmitError> {
        self.admit(&requests)?;
        let room = Arc::clone(&self.inner.room).acquire_many_owned(permits(&requests)).await.map_err(|_| self.closed())?;
        match &self.inner.front {
            Front::Local(parts) if requests.names_tasks() => self.submit_dependents(parts, &requests, room).await,
            Front::Local(parts) => parts.submit(requests, Some(room)).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => Ok(engine.submit(requests, None, room).await?.or_ask(self.clone())),
        }
    }

    /// As [`Runtime::submit_batch`], all of it to one shard whatever the keys are.
    #[cfg(feature = "kafka")]
    pub(crate) async fn submit_to(&self, shard: ShardId, requests: RequestBatch) -> Result<Batch, SubmitError> {
        let Front::Kafka(engine) = &self.inner.front else { return self.submit_batch(requests).await };
        self.admit(&requests)?;
        let room = Arc::clone(&self.inner.room).acquire_many_owned(permits(&requests)).await.map_err(|_| self.closed())?;
        engine.submit(requests, Some(shard), room).await
    }

    /// A handle that keeps the runtime from nothing.
    #[cfg(feature = "kafka")]
    pub(crate) fn downgrade(&self) -> WeakRuntime {
        WeakRuntime(Arc::downgrade(&self.inner))
    }

    /// The engine, where the log is on Kafka.
    #[cfg(feature = "kafka")]
    pub(crate) fn on_kafka(&self) -> Option<&crate::kafka::Engine> {
        if let Front::Kafka(engine) = &self.inner.front { Some(engine) } else { None }
    }

    /// As [`Runtime::submit_batch`], but answers [`SubmitError::Busy`] where that would wait for room.
    ///
    /// # Errors
    /// As [`Runtime::submit_batch`].
    pub async fn try_submit_batch(&self, requests: RequestBatch) -> Result<Batch, SubmitError> {
        self.admit(&requests)?;
        let room = self.room_now(&requests)?;
        match &self.inner.front {
            Front::Local(parts) if requests.names_tasks() => self.submit_dependents(parts, &requests, room).await,
            Front::Local(parts) => self.noted(parts.try_submit(requests, room).await),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => Ok(engine.submit(requests, None, room).await?.or_ask(self.clone())),
        }
    }

    /// Submits requests that name tasks; `_room` is theirs until they are answered.
    async fn submit_dependents(
        &self,
        parts: &Parts,
        requests: &RequestBatch,
        _room: OwnedSemaphorePermit,
    ) -> Result<Batch, SubmitError> {
        Ok(Batch::untold(parts.submit_dependents(requests).await?, self.clone()))
    }

    fn room_now(&self, requests: &RequestBatch) -> Result<OwnedSemaphorePermit, SubmitError> {
        let room = Arc::clone(&self.inner.room).try_acquire_many_owned(permits(requests));
        self.noted(room.map_err(|error| match error {
            TryAcquireError::NoPermits => SubmitError::Busy { reason: UNDECIDED, retry_after: RETRY_AFTER },
            TryAcquireError::Closed => self.closed(),
        }))
    }

    /// Whether new work may come in. On Kafka it always may: where too much is live already, requests wait in their topic.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] and [`SubmitError::BatchTooLarge`], as [`Runtime::submit_batch`] would answer, which takes the batch with it.
    pub fn admit(&self, requests: &RequestBatch) -> Result<(), SubmitError> {
        if requests.len() > BATCH_REQUESTS_MAX || requests.bytes() > UNDECIDED_BYTES_MAX {
            return Err(SubmitError::BatchTooLarge { requests: requests.len(), bytes: requests.bytes() });
        }
        match &self.inner.front {
            Front::Local(parts) => self.noted(parts.admit(requests.len(), self.inner.tasks_live_max)),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => Ok(()),
        }
    }

    /// Counts an answer that asks the caller to come again.
    fn noted<T>(&self, answer: Result<T, SubmitError>) -> Result<T, SubmitError> {
        if let Err(SubmitError::Busy { .. }) = answer {
            self.inner.busy.fetch_add(1, Relaxed);
        }
        answer
    }

    fn closed(&self) -> SubmitError {
        SubmitError::Closed { reason: self.failure().unwrap_or_else(|| "it was shut down".to_owned()) }
    }
}

/// Waiting, and what operators ask for.
impl Runtime {
    /// Waits for the end of a task, which may have ended long ago, and on Kafka may be led and executed by another engine.
    ///
    /// # Errors
    /// [`WaitError`] when there is no such task, or its end is no longer in the log.
    pub async fn wait(&self, task: TaskId) -> Result<TaskEnd, WaitError> {
        self.wait_all([task].into()).await?.remove(&task).ok_or(WaitError::NoSuchTask(task))
    }

    /// Waits for the ends of many tasks, which may have ended long ago; one pass over the log finds those. Tasks of which the log has no
    /// end are left out.
    ///
    /// # Errors
    /// [`WaitError::Stopped`], [`WaitError::Log`].
    pub async fn wait_all(&self, tasks: BTreeSet<TaskId>) -> Result<BTreeMap<TaskId, TaskEnd>, WaitError> {
        match &self.inner.front {
            Front::Local(parts) => parts.wait_all(tasks).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.wait_all(tasks).await,
        }
    }

    /// Asks a task to stop; its attempt may clean up first.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when there is no such task or it has ended; on Kafka [`SubmitError::LedElsewhere`] when another engine leads its
    /// shard, which has to be asked there.
    pub async fn cancel(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let proposal = Proposal::Cancel { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() };
        self.propose(task.shard, proposal).await
    }

    /// Ends a task now.
    ///
    /// # Errors
    /// As [`Runtime::cancel`].
    pub async fn kill(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let proposal = Proposal::Kill { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() };
        self.propose(task.shard, proposal).await
    }

    /// Tries a dead letter again, as a new task of the same shard.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when it is not a dead letter; otherwise as [`Runtime::cancel`].
    pub async fn redrive(&self, task: TaskId, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let proposal = Proposal::Redrive { task: task.ordinal, by: by.to_owned(), reason: reason.to_owned() };
        self.propose(task.shard, proposal).await
    }

    /// Sets the size of a pool. On Kafka that is decided in one place for all engines, the capacity log, and every shard follows; the position is
    /// the decision's there.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when the size is out of range; [`SubmitError::LedElsewhere`] when another engine leads the capacity log.
    pub async fn resize_pool(
        &self,
        pool: &str,
        replicas: u32,
        slots: u32,
        by: &str,
        reason: &str,
    ) -> Result<Position, SubmitError> {
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        self.propose_for_all(Proposal::DefinePool { pool, replicas, slots, by, reason }).await
    }

    /// Lets a pool start tasks, or none: see [`PoolMode`]. On Kafka that is decided where sizes are.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] when no pool of this name has a size; otherwise as [`Runtime::resize_pool`].
    pub async fn set_pool_mode(&self, pool: &str, mode: PoolMode, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (pool, by, reason) = (pool.to_owned(), by.to_owned(), reason.to_owned());
        self.propose_for_all(Proposal::SetPoolMode { pool, mode, by, reason }).await
    }

    /// Records what holds for all shards where that is decided.
    async fn propose_for_all(&self, proposal: Proposal) -> Result<Position, SubmitError> {
        match &self.inner.front {
            Front::Local(parts) => parts.propose(proposal).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.decide_for_all(proposal).await,
        }
    }

    /// Lets a schedule fire nothing until it is resumed; what falls due meanwhile is passed over.
    ///
    /// # Errors
    /// [`SubmitError::UnknownSchedule`]; otherwise as [`Runtime::cancel`].
    pub async fn pause_schedule(&self, name: &str, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (demand, _) = self.schedule_demand(name, by, reason).await?;
        self.propose(self.home(name), Proposal::PauseSchedule(demand)).await
    }

    /// Lets a paused schedule fire again.
    ///
    /// # Errors
    /// As [`Runtime::pause_schedule`].
    pub async fn resume_schedule(&self, name: &str, by: &str, reason: &str) -> Result<Position, SubmitError> {
        let (demand, _) = self.schedule_demand(name, by, reason).await?;
        self.propose(self.home(name), Proposal::ResumeSchedule(demand)).await
    }

    /// Fires a schedule now, beside its slots and even while it is paused; tells its task.
    ///
    /// # Errors
    /// [`SubmitError::Rejected`] while the task of its last firing is live and its firings must not overlap; otherwise as
    /// [`Runtime::pause_schedule`] and [`Runtime::submit`].
    pub async fn trigger_schedule(&self, name: &str, by: &str, reason: &str) -> Result<(TaskId, Position), SubmitError> {
        self.admit(&RequestBatch::new())?;
        let (demand, plan) = self.schedule_demand(name, by, reason).await?;
        let slot = self.now();
        let key = firing_key(name, slot);
        let hash = KeyTable::hash(&plan.task, &key);
        let shard = self.home(name);
        let position = self.propose(shard, Proposal::Trigger { demand, plan, slot, key }).await?;
        let state = self.state_at(shard).await?;
        let entry = state.work.keys.get(hash, slot).ok_or_else(|| self.closed())?;
        Ok((TaskId { shard, ordinal: entry.task }, position))
    }

    /// The shard that a schedule or a generator belongs to: without Kafka the only one, and there the one that a record with its name as the key
    /// goes to.
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables, reason = "there is one shard"))]
    pub fn home(&self, name: &str) -> ShardId {
        match &self.inner.front {
            Front::Local(parts) => parts.shard,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => crate::kafka::home(name, engine.shards),
        }
    }

    async fn state_at(&self, shard: ShardId) -> Result<Box<State>, SubmitError> {
        self.state_of(shard).await.map_err(|error| match error {
            WaitError::LedElsewhere(shard) => SubmitError::LedElsewhere { shard },
            WaitError::Stopped
            | WaitError::NoSuchTask(_)
            | WaitError::Unsuccessful { .. }
            | WaitError::Result { .. }
            | WaitError::Log(_) => self.closed(),
        })
    }

    async fn schedule_demand(
        &self,
        name: &str,
        by: &str,
        reason: &str,
    ) -> Result<(ScheduleDemand, Arc<ScheduleSettings>), SubmitError> {
        let state = self.state_at(self.home(name)).await?;
        let active = state.control.schedules.active();
        let found = active.iter().find(|(_, known)| known.name == name);
        let (schedule, known) = found.ok_or_else(|| SubmitError::UnknownSchedule {
            name: name.chars().take(64).collect(),
            known: active.iter().take(8).map(|(_, known)| known.name.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let demand = ScheduleDemand { schedule: *schedule, by: by.to_owned(), reason: reason.to_owned() };
        Ok((demand, Arc::clone(&known.settings)))
    }

    /// Records a proposal on a shard that is led here, and waits until the answer is durable. Without Kafka there is only shard 0.
    ///
    /// # Errors
    /// [`SubmitError::LedElsewhere`]; otherwise as [`Runtime::submit_batch`].
    pub async fn propose(&self, shard: ShardId, proposal: Proposal) -> Result<Position, SubmitError> {
        match &self.inner.front {
            Front::Local(parts) if parts.shard == shard => parts.propose(proposal).await,
            Front::Local(_) => Err(SubmitError::LedElsewhere { shard }),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.propose(shard, proposal).await,
        }
    }
}

/// Looking.
impl Runtime {
    /// A copy of the accepted state of shard 0, which without Kafka is the only one; see [`Runtime::state_of`].
    ///
    /// # Errors
    /// As [`Runtime::state_of`].
    pub async fn state(&self) -> Result<Box<State>, WaitError> {
        self.state_of(ShardId(0)).await
    }

    /// A copy of the accepted state of a shard, which may be ahead of what is durable.
    ///
    /// # Errors
    /// [`WaitError::Stopped`], [`WaitError::LedElsewhere`].
    pub async fn state_of(&self, shard: ShardId) -> Result<Box<State>, WaitError> {
        match &self.inner.front {
            Front::Local(parts) if parts.shard == shard => parts.state().await,
            Front::Local(_) => Err(WaitError::LedElsewhere(shard)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.state_of(shard).await,
        }
    }

    /// Counts and waits of everything durable, as far as the projector is; on Kafka, the sum of the shards that are led here now.
    pub fn progress(&self) -> Progress {
        match &self.inner.front {
            Front::Local(parts) => parts.with_progress(Progress::clone),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.progress(),
        }
    }

    /// Reads the view of [`Runtime::progress`], without copying it where there is one shard.
    pub fn with_progress<T>(&self, read: impl FnOnce(&Progress) -> T) -> T {
        match &self.inner.front {
            Front::Local(parts) => parts.with_progress(read),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => read(&engine.progress()),
        }
    }

    /// Everything before this position is durable. On Kafka it is the sum of the positions of the shards that are led here now, which is a number
    /// of events and no position; it falls when a shard goes to another engine.
    pub fn durable(&self) -> Position {
        match &self.inner.front {
            Front::Local(parts) => parts.tail.borrow().head.next,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.durable(),
        }
    }

    /// Tasks that had not ended when the newest durable block was decided; on Kafka, of the shards that are led here now.
    pub fn live(&self) -> usize {
        match &self.inner.front {
            Front::Local(parts) => parts.tail.borrow().live,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.live(),
        }
    }

    /// Why the log refuses to go on, if it does. A shard on Kafka that fails is dropped and led again, here or elsewhere; only an engine that cannot
    /// be a member of its group any more has failed.
    pub fn failure(&self) -> Option<String> {
        match &self.inner.front {
            Front::Local(parts) => parts.failure(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.standing.borrow().failed.clone(),
        }
    }

    /// Waits until the log fails, see [`Runtime::failure`], or the runtime stops.
    pub async fn failed(&self) -> Option<String> {
        match &self.inner.front {
            Front::Local(parts) => parts.failed().await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.failed().await,
        }
    }

    /// Reads the durable log of shard 0, which without Kafka is the only one; see [`Runtime::reader_of`].
    pub fn reader(&self) -> Arc<dyn LogReader> {
        match &self.inner.front {
            Front::Local(parts) => Arc::clone(&parts.reader),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.reader_of(ShardId(0)),
        }
    }

    /// Reads the durable log of a shard; on Kafka from its topic, whoever leads it. `None` for a shard that does not exist.
    pub fn reader_of(&self, shard: ShardId) -> Option<Arc<dyn LogReader>> {
        match &self.inner.front {
            Front::Local(parts) => (parts.shard == shard).then(|| Arc::clone(&parts.reader)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => (shard.0 < engine.shards).then(|| engine.reader_of(shard)),
        }
    }

    /// The indexes of the log of a shard that is led here; `None` for another.
    pub fn index_of(&self, shard: ShardId) -> Option<Arc<TaskIndex>> {
        match &self.inner.front {
            Front::Local(parts) => (parts.shard == shard).then(|| Arc::clone(&parts.index)),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.leading.with(shard, |parts| Arc::clone(&parts.index)),
        }
    }

    /// A copy of the state of shard 0 of which everything is durable, so that it may be told.
    ///
    /// # Errors
    /// As [`Runtime::state_of`]; [`WaitError::Stopped`] also when the log failed before.
    pub async fn durable_state(&self) -> Result<Box<State>, WaitError> {
        let state = self.state().await?;
        match &self.inner.front {
            Front::Local(parts) if !parts.durable_at(state.position).await? => Err(WaitError::Stopped),
            Front::Local(_) => Ok(state),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => Ok(state),
        }
    }

    /// What the engine leads, where there is one.
    #[cfg(feature = "kafka")]
    pub fn engine(&self) -> Option<crate::kafka::Standing> {
        match &self.inner.front {
            Front::Local(_) => None,
            Front::Kafka(engine) => Some(engine.standing.borrow().clone()),
        }
    }

    /// What the log threads of all shards here have done.
    pub fn log_counters(&self) -> &LogCounters {
        match &self.inner.front {
            Front::Local(parts) => &parts.counters,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.figures.counters,
        }
    }

    /// How much space is left for the log, as its thread last saw it; nothing is free and nothing wanted before it looked. On Kafka that is the
    /// space for the copies on this machine.
    pub fn space(&self) -> Space {
        let LogCounters { free_bytes, low_water_bytes, .. } = self.log_counters();
        Space { free_bytes: free_bytes.load(Relaxed), low_water_bytes: low_water_bytes.load(Relaxed) }
    }

    /// How often actors were started again, in all shards here.
    pub fn restarts(&self) -> &Restarts {
        match &self.inner.front {
            Front::Local(parts) => &parts.restarts,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => &engine.figures.restarts,
        }
    }

    /// When replies are given; on Kafka always after the commit.
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// The time by the runtime's clock.
    pub fn now(&self) -> Timestamp {
        match &self.inner.front {
            Front::Local(parts) => parts.clock.now(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.clock.now(),
        }
    }

    /// The time on the wall by the runtime's clock, by which schedules are due: it may be set, forward and back.
    pub fn wall(&self) -> Timestamp {
        match &self.inner.front {
            Front::Local(parts) => parts.clock.wall(),
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => engine.clock.wall(),
        }
    }

    /// The actor of the only shard, for tests; there is none on Kafka.
    #[doc(hidden)]
    pub fn writer(&self) -> Option<&actix::Addr<LogWriter>> {
        match &self.inner.front {
            Front::Local(parts) => Some(&parts.writer),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => None,
        }
    }

    /// The projector of the only shard, for tests; there is none on Kafka.
    #[doc(hidden)]
    pub fn projector(&self) -> Option<actix::Addr<Projector>> {
        match &self.inner.front {
            Front::Local(parts) => Some(parts.projector.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()),
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => None,
        }
    }
}

/// Stopping.
impl Runtime {
    /// Lets running attempts finish for at most `drain`, makes everything durable and stops. Tasks that are not done go on at the next start; on
    /// Kafka other engines take the shards over and go on with them at once.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be closed; what was acknowledged is durable all the same.
    pub async fn shutdown_within(&self, drain: Duration) -> Result<(), LogError> {
        #[cfg(feature = "requests")]
        match &self.inner.front {
            // First, for what is on its way wants its answer yet.
            Front::Local(parts) => parts.sources.end().await,
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => {}
        }
        self.inner.room.close();
        self.inner.plugins.stop_generators().await;
        match &self.inner.front {
            Front::Local(parts) => self.shut_down(parts, drain).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => {
                engine.stop(drain).await;
                self.inner.plugins.finish_observers().await;
                self.end_functions().await;
                Ok(())
            }
        }
    }

    /// Ends what attempts that are cut off have going outside this process. After the log was closed, for that is no failure of theirs.
    async fn end_functions(&self) {
        let functions = Arc::clone(&self.inner.functions);
        let ended = tokio::task::spawn_blocking(move || functions.iter().for_each(|function| function.close()));
        if ended.await.is_err() {
            tracing::error!("a task function panicked while it was closed");
        }
    }

    /// Ends the one shard of a log that only this process has.
    async fn shut_down(&self, parts: &Parts, drain: Duration) -> Result<(), LogError> {
        let mut thread = self.inner.thread.lock().await;
        if thread.is_none() {
            return Ok(());
        }
        wiring::drain(parts, drain).await;
        let outcome = parts.close().await;
        self.inner.plugins.finish(parts).await;
        self.end_functions().await;
        parts.system.stop();
        if let Some(thread) = thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the shard's thread panicked");
            }
        }
        outcome
    }

    /// As [`Runtime::shutdown_within`] ten seconds.
    ///
    /// # Errors
    /// As [`Runtime::shutdown_within`].
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.shutdown_within(Duration::from_secs(10)).await
    }
}

/// The id of a task type among those that are registered.
pub(crate) fn known_type(types: &BTreeMap<String, TypeId>, name: &str) -> Result<TypeId, SubmitError> {
    types.get(name).copied().ok_or_else(|| SubmitError::UnknownType {
        name: name.chars().take(64).collect(),
        known: types.keys().take(8).cloned().collect::<Vec<_>>().join(", "),
    })
}

/// Kilobytes of room that a batch needs.
fn permits(requests: &RequestBatch) -> u32 {
    u32::try_from((requests.bytes() >> 10) + 1).unwrap_or(u32::MAX).min((UNDECIDED_BYTES_MAX >> 10) as u32)
}
