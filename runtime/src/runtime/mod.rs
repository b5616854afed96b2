//! A running runtime: submit, wait, look, stop.
//!
//! It stands in front of the one shard of a log that only this process has, or of an engine on Kafka that leads some of many shards. What is said
//! here holds for both; a method says where they differ.

mod command;
#[cfg(feature = "metrics")]
mod figures;
mod look;
mod schedules;
mod start_error;
mod stop;
mod submit;

use std::collections::BTreeMap;
use std::sync::Arc;
#[cfg(all(feature = "http", feature = "process"))]
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use ergate_actors::executor::function::TaskFunction;
use ergate_actors::log_thread::Durability;
use ergate_actors::submission::SubmitError;
#[cfg(any(feature = "http", feature = "metrics"))]
use ergate_actors::workers::Hub;
use ergate_events::id::{ShardId, TypeId};
use ergate_events::task::TypeSettings;
use ergate_events::time::Micros;
use tokio::sync::Semaphore;

pub use self::start_error::StartError;
use crate::builder::Builder;
use crate::plugins::Running;
pub use crate::task::{Batch, Task, WaitError};
use crate::wiring::Parts;

/// Most requests in one batch.
pub const BATCH_REQUESTS_MAX: usize = 65_536;
/// Most payload bytes in one batch, and in all batches together that wait to be decided; on Kafka, to be answered.
pub const UNDECIDED_BYTES_MAX: usize = 64 << 20;
/// How long a caller that finds the runtime full is asked to wait.
pub(crate) const RETRY_AFTER: Micros = Micros::from_millis(100);
/// What such a caller is told.
pub(crate) const UNDECIDED: &str = "too much waits to be recorded";

/// A running runtime. Clones share it; [`Runtime::shutdown`] ends it for all.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// A runtime that may be gone.
#[cfg(any(feature = "kafka", feature = "metrics"))]
#[derive(Clone)]
pub(crate) struct WeakRuntime(std::sync::Weak<Inner>);

#[cfg(any(feature = "kafka", feature = "metrics"))]
impl WeakRuntime {
    /// The runtime, if it is there.
    pub(crate) fn upgrade(&self) -> Option<Runtime> {
        self.0.upgrade().map(|inner| Runtime { inner })
    }
}

struct Inner {
    front: Front,
    /// What may have work outside this process.
    functions: Arc<[Arc<dyn TaskFunction>]>,
    plugins: Running,
    #[cfg(any(feature = "http", feature = "metrics"))]
    workers: Arc<Hub>,
    /// The processes of pools that have some, until they are ended.
    #[cfg(all(feature = "http", feature = "process"))]
    fleet: std::sync::Mutex<Option<crate::fleet::Fleet>>,
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
            #[cfg(any(feature = "http", feature = "metrics"))]
            workers: Arc::clone(&builder.workers),
            #[cfg(all(feature = "http", feature = "process"))]
            fleet: std::sync::Mutex::default(),
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

    /// The id of a registered task type, for filling a [`RequestBatch`](ergate_actors::submission::RequestBatch) of this runtime.
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

    /// What every registered task type promises, by name.
    #[cfg(feature = "http")]
    pub(crate) fn all_type_settings(&self) -> impl Iterator<Item = (&str, &TypeSettings)> {
        self.inner.settings.iter().map(|(name, settings)| (name.as_str(), settings))
    }

    /// The workers of this runtime.
    #[cfg(any(feature = "http", feature = "metrics"))]
    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.inner.workers
    }

    /// Keeps the processes of pools until the runtime is shut down.
    #[cfg(all(feature = "http", feature = "process"))]
    pub(crate) fn keep(&self, fleet: crate::fleet::Fleet) {
        *self.inner.fleet.lock().unwrap_or_else(PoisonError::into_inner) = Some(fleet);
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

    /// A handle that keeps the runtime from nothing.
    #[cfg(any(feature = "kafka", feature = "metrics"))]
    pub(crate) fn downgrade(&self) -> WeakRuntime {
        WeakRuntime(Arc::downgrade(&self.inner))
    }

    /// The engine, where the log is on Kafka.
    #[cfg(feature = "kafka")]
    pub(crate) fn on_kafka(&self) -> Option<&crate::kafka::Engine> {
        if let Front::Kafka(engine) = &self.inner.front { Some(engine) } else { None }
    }
}

/// The id of a task type among those that are registered.
pub(crate) fn known_type(types: &BTreeMap<String, TypeId>, name: &str) -> Result<TypeId, SubmitError> {
    types.get(name).copied().ok_or_else(|| SubmitError::UnknownType {
        name: name.chars().take(64).collect(),
        known: types.keys().take(8).cloned().collect::<Vec<_>>().join(", "),
    })
}
