//! How a runtime is put together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ergate_actors::clock::Clock;
use ergate_actors::executor::function::{IntoTask, TaskFunction};
use ergate_actors::log_thread::Durability;
use ergate_events::log::directory::Options;
use ergate_events::task::TypeSettings;

use crate::runtime::{Runtime, StartError};
use crate::store::Store;
use crate::wiring;

/// Live tasks beyond which new work is refused; at 150 bytes and a small payload each this stays within a few gigabytes.
pub const TASKS_LIVE_MAX: usize = 10_000_000;
/// Slots of a replica of a pool that nobody sized: enough for async functions that wait.
pub const SLOTS_DEFAULT: u32 = 1_024;
/// Events between two snapshots: a restart folds at most so many, in well under a second.
pub const SNAPSHOT_EVERY_EVENTS: u64 = 2_000_000;

/// Directory of the log of a runtime that names none, relative to where it runs.
pub const DATA_DEFAULT: &str = "ergate-data";

/// Collects what a [`Runtime`] is made of.
#[derive(Clone)]
pub struct Builder {
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) durability: Durability,
    pub(crate) types: BTreeMap<String, (TypeSettings, Arc<dyn TaskFunction>)>,
    pub(crate) pools: BTreeMap<String, (u32, u32)>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) tasks_live_max: usize,
    pub(crate) snapshot_every_events: u64,
    pub(crate) retention: Retention,
    pub(crate) by: String,
    pub(crate) own_tasks_only: bool,
    #[cfg(feature = "kafka")]
    pub(crate) kafka: Option<crate::kafka::KafkaSettings>,
}

/// What is given up once a newer snapshot makes it unnecessary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Events older than this go; `None` keeps them for ever.
    pub keep_for: Option<Duration>,
    /// The newest so many events stay whatever their age; `None` sets no bound by number.
    pub keep_events: Option<u64>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            store: Store::Directory(DATA_DEFAULT.into()),
            options: Options { create: true, ..Options::default() },
            durability: Durability::Fsync,
            types: BTreeMap::new(),
            pools: BTreeMap::new(),
            clock: None,
            tasks_live_max: TASKS_LIVE_MAX,
            snapshot_every_events: SNAPSHOT_EVERY_EVENTS,
            retention: Retention::default(),
            by: "program".to_owned(),
            own_tasks_only: false,
            #[cfg(feature = "kafka")]
            kafka: None,
        }
    }
}

impl Builder {
    /// Keeps the log under this directory, which is created if it is missing; [`DATA_DEFAULT`] without this. A log that is there is
    /// kept by its engine, a new one by [`Engine::DEFAULT`](ergate_events::log::directory::Engine::DEFAULT).
    #[must_use]
    pub fn data(self, dir: impl Into<PathBuf>) -> Builder {
        self.store(Store::Directory(dir.into()))
    }

    /// Keeps the log in plain segment files under this directory.
    #[must_use]
    pub fn file(self, dir: impl Into<PathBuf>) -> Builder {
        self.store(Store::File(dir.into()))
    }

    /// Keeps the log in sled databases under this directory.
    #[must_use]
    #[cfg(feature = "sled")]
    pub fn sled(self, dir: impl Into<PathBuf>) -> Builder {
        self.store(Store::Sled(dir.into()))
    }

    /// Keeps the log in memory: it ends with the runtime.
    #[must_use]
    pub fn memory(self) -> Builder {
        self.store(Store::Memory)
    }

    /// Takes requests from Kafka and keeps the log there, as one engine of perhaps many. [`Builder::data`] names where copies are kept of what it
    /// leads, which no other engine may have.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// use ergate::Runtime;
    /// use ergate::kafka::KafkaSettings;
    ///
    /// let settings: KafkaSettings = "kafka://localhost:9092/orders".parse()?;
    /// let runtime = Runtime::builder().kafka(settings).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[cfg(feature = "kafka")]
    pub fn kafka(mut self, settings: impl Into<crate::kafka::KafkaSettings>) -> Builder {
        self.kafka = Some(settings.into());
        self
    }

    /// Keeps the log there.
    #[must_use]
    pub fn store(mut self, store: Store) -> Builder {
        self.store = store;
        self
    }

    /// How the log is kept in its directory.
    #[must_use]
    pub fn log_options(mut self, options: Options) -> Builder {
        self.options = Options { create: true, ..options };
        self
    }

    /// When replies are given; [`Durability::Fsync`] without this.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Builder {
        self.durability = durability;
        self
    }

    /// Registers an async function as a task type with default settings. It takes the payload, or a
    /// [`Context`](crate::Context) and the payload.
    #[must_use]
    pub fn task<Args>(self, name: &str, function: impl IntoTask<Args>) -> Builder {
        self.task_with(name, TypeSettings::default(), function.into_task())
    }

    /// Registers a task type with settings of its own; see [`crate::function`] and [`crate::blocking`].
    #[must_use]
    pub fn task_with(mut self, name: &str, settings: TypeSettings, function: Arc<dyn TaskFunction>) -> Builder {
        self.types.insert(name.to_owned(), (settings, function));
        self
    }

    /// Sizes a pool; without this a pool has one replica of [`SLOTS_DEFAULT`] slots. Every replica is a thread.
    #[must_use]
    pub fn pool(mut self, name: &str, replicas: u32, slots: u32) -> Builder {
        self.pools.insert(name.to_owned(), (replicas, slots));
        self
    }

    /// Tells the time by this clock; for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Builder {
        self.clock = Some(clock);
        self
    }

    /// Refuses new work while so many tasks are live; [`TASKS_LIVE_MAX`] without this.
    #[must_use]
    pub fn tasks_live_max(mut self, max: usize) -> Builder {
        self.tasks_live_max = max;
        self
    }

    /// Takes a snapshot after so many events; [`SNAPSHOT_EVERY_EVENTS`] without this.
    #[must_use]
    pub fn snapshot_every_events(mut self, events: u64) -> Builder {
        self.snapshot_every_events = events.max(1);
        self
    }

    /// Gives up old events once a newer snapshot makes them unnecessary; without this they stay for ever.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Builder {
        self.retention = retention;
        self
    }

    /// Refuses to start on a log with unfinished tasks of types that are not registered here: their attempts could only fail.
    #[must_use]
    pub fn own_tasks_only(mut self) -> Builder {
        self.own_tasks_only = true;
        self
    }

    /// Who is named in the log as having defined types and pools.
    #[must_use]
    pub fn by(mut self, name: &str) -> Builder {
        name.clone_into(&mut self.by);
        self
    }

    /// Opens the log, folds its state and starts the actors. On Kafka it waits until the brokers have answered and the engine has asked for
    /// shards, not until it leads any: that is the group's to say.
    ///
    /// # Errors
    /// [`StartError`] when the log cannot be used, or a setting is refused; on Kafka when the brokers do not answer or topics are missing.
    pub async fn start(self) -> Result<Runtime, StartError> {
        wiring::start(self).await
    }
}
