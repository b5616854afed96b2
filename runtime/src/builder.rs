//! How a runtime is put together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ergate_actors::clock::Clock;
use ergate_actors::dispatcher::Processes;
use ergate_actors::executor::factory::ExecutorFactory;
use ergate_actors::executor::function::{IntoTask, TaskFunction};
use ergate_actors::log_thread::Durability;
use ergate_actors::workers::{Abroad, Canary, Hub};
use ergate_events::limit::LimitSettings;
use ergate_events::log::directory::Options;
use ergate_events::resources::PoolResources;
use ergate_events::scaling::AnyPolicy;
use ergate_events::schedule::ScheduleSettings;
use ergate_events::task::TypeSettings;
use ergate_events::time::Timestamp;

use crate::plugins::Plugins;
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
    pub(crate) factories: Vec<Arc<dyn ExecutorFactory>>,
    /// The first task type that was registered twice.
    pub(crate) doubled: Option<String>,
    pub(crate) pools: BTreeMap<String, (u32, u32)>,
    /// The fewest replicas of pools that keep the size which somebody gave them.
    pub(crate) pools_least: BTreeMap<String, u32>,
    /// Task types that only workers run.
    pub(crate) abroad: BTreeSet<String>,
    /// Pools whose replicas are started by others.
    pub(crate) external: BTreeSet<String>,
    /// What is said of the resources of pools.
    pub(crate) resources: BTreeMap<String, PoolResources>,
    /// Policies that size pools, by pool.
    pub(crate) policies: BTreeMap<String, AnyPolicy>,
    /// By pool and name.
    pub(crate) shadows: BTreeMap<(String, String), AnyPolicy>,
    /// When the engine began of which this is; `None` where there is only one.
    pub(crate) begun: Option<Timestamp>,
    /// New versions of workers that get a share, by pool.
    pub(crate) canaries: BTreeMap<String, Canary>,
    /// How the processes of pools are started that have some.
    #[cfg(all(feature = "http", feature = "process"))]
    pub(crate) commands: BTreeMap<String, crate::fleet::WorkerCommand>,
    /// Who starts them.
    pub(crate) processes: Option<Processes>,
    /// The workers of the runtime that is being started.
    pub(crate) workers: Arc<Hub>,
    pub(crate) limits: BTreeMap<String, LimitSettings>,
    pub(crate) limited: BTreeMap<String, Vec<String>>,
    /// `None` leaves the schedules of the log alone, and fires none.
    pub(crate) schedules: Option<BTreeMap<String, ScheduleSettings>>,
    #[cfg(feature = "requests")]
    pub(crate) sources: BTreeMap<String, crate::sources::SourceSettings>,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) tasks_live_max: usize,
    pub(crate) snapshot_every_events: u64,
    pub(crate) retention: Retention,
    pub(crate) by: String,
    pub(crate) own_tasks_only: bool,
    pub(crate) plugins: Plugins,
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
            factories: Vec::new(),
            doubled: None,
            pools: BTreeMap::new(),
            pools_least: BTreeMap::new(),
            abroad: BTreeSet::new(),
            external: BTreeSet::new(),
            canaries: BTreeMap::new(),
            resources: BTreeMap::new(),
            policies: BTreeMap::new(),
            shadows: BTreeMap::new(),
            begun: None,
            #[cfg(all(feature = "http", feature = "process"))]
            commands: BTreeMap::new(),
            processes: None,
            workers: Arc::default(),
            limits: BTreeMap::new(),
            limited: BTreeMap::new(),
            schedules: None,
            #[cfg(feature = "requests")]
            sources: BTreeMap::new(),
            clock: None,
            tasks_live_max: TASKS_LIVE_MAX,
            snapshot_every_events: SNAPSHOT_EVERY_EVENTS,
            retention: Retention::default(),
            by: "program".to_owned(),
            own_tasks_only: false,
            plugins: Plugins::default(),
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

    /// Registers a task type with settings of its own; see [`crate::function`] and [`crate::blocking`]. The same name twice is an error of
    /// [`Builder::start`].
    #[must_use]
    pub fn task_with(mut self, name: &str, settings: TypeSettings, function: Arc<dyn TaskFunction>) -> Builder {
        self.define(name, settings, function);
        self
    }

    /// Registers a task type that only workers run (`docs/workers.md`); here its tasks wait for one.
    #[must_use]
    pub fn worker_task(mut self, name: &str, settings: TypeSettings) -> Builder {
        self.abroad.insert(name.to_owned());
        self.task_with(name, settings, Arc::new(Abroad))
    }

    /// Starts no replicas of this pool here: workers come and go by themselves, and its size says how many are wanted.
    #[must_use]
    pub fn external_pool(mut self, name: &str) -> Builder {
        self.external.insert(name.to_owned());
        self
    }

    /// Starts a process for every replica of this pool, which does its work as a worker; `docs/workers.md` says how such a program is written. Not on
    /// Kafka. A runtime with processes goes on until it is [shut down](Runtime::shutdown), also where nobody has it in hand any more.
    #[must_use]
    #[cfg(all(feature = "http", feature = "process"))]
    pub fn process_pool(mut self, name: &str, command: crate::fleet::WorkerCommand) -> Builder {
        self.commands.insert(name.to_owned(), command);
        self.external_pool(name)
    }

    /// Lets a policy size this pool between the bounds that [`Builder::pool_between`] gives it. `docs/autoscaling.md` has them all.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// use ergate::Runtime;
    /// use ergate::scaling::AnyPolicy;
    /// use ergate::scaling::rate::Rate;
    ///
    /// let policy = AnyPolicy::Rate(Rate::default());
    /// let runtime = Runtime::builder().pool_between("models", 0, 8, 4).policy("models", policy).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn policy(mut self, pool: &str, policy: AnyPolicy) -> Builder {
        self.policies.insert(pool.to_owned(), policy);
        self
    }

    /// Lets a policy decide beside the one of this pool, without any effect: what it would have done is in the log, and in `ergate why`. The pool needs
    /// a [policy](Builder::policy), and has at most [`SHADOWS_MAX`](ergate_events::sizing::SHADOWS_MAX) of them.
    #[must_use]
    pub fn shadow(mut self, pool: &str, name: &str, policy: AnyPolicy) -> Builder {
        self.shadows.insert((pool.to_owned(), name.to_owned()), policy);
        self
    }

    /// Gives workers with a label a share of the work of this pool, as long as there are others: a new version that is tried.
    #[must_use]
    pub fn canary(mut self, pool: &str, canary: Canary) -> Builder {
        self.canaries.insert(pool.to_owned(), canary);
        self
    }

    /// Registers what makes the executor of a task type when the runtime starts.
    ///
    /// Of one task type there is one definition, by this or by [`Builder::task_with`]: a second one is [`StartError::TypeTwice`].
    #[must_use]
    pub fn executor(self, factory: impl ExecutorFactory + 'static) -> Builder {
        self.executor_of(Arc::new(factory))
    }

    pub(crate) fn executor_of(mut self, factory: Arc<dyn ExecutorFactory>) -> Builder {
        self.factories.push(factory);
        self
    }

    fn define(&mut self, name: &str, settings: TypeSettings, function: Arc<dyn TaskFunction>) {
        if self.types.insert(name.to_owned(), (settings, function)).is_some() {
            self.doubled.get_or_insert_with(|| name.to_owned());
        }
    }

    /// Makes the executors of all factories.
    fn create_executors(mut self) -> Result<Builder, StartError> {
        for factory in std::mem::take(&mut self.factories) {
            let name = factory.task_type().to_owned();
            let made = factory.init().and_then(|()| factory.create());
            let function = made.map_err(|source| StartError::Executor { task_type: name.clone(), source })?;
            self.define(&name, factory.settings(), function);
        }
        match self.doubled.take() {
            Some(name) => Err(StartError::TypeTwice { name }),
            None => Ok(self),
        }
    }

    /// Sizes a pool; without this a pool has one replica of [`SLOTS_DEFAULT`] slots. Every replica is a thread.
    #[must_use]
    pub fn pool(mut self, name: &str, replicas: u32, slots: u32) -> Builder {
        self.pools.insert(name.to_owned(), (replicas, slots));
        self.pools_least.remove(name);
        self
    }

    /// Sizes a pool that has between `least` and `most` replicas: it begins with the most, and keeps the number that somebody gave it since, as
    /// far as that lies between the two.
    #[must_use]
    pub fn pool_between(mut self, name: &str, least: u32, most: u32, slots: u32) -> Builder {
        self = self.pool(name, most, slots);
        self.pools_least.insert(name.to_owned(), least.min(most));
        self
    }

    /// Says what one replica of a pool asks for, and how much all of them may ask for together; the pool has no more replicas than that.
    ///
    /// ```
    /// use ergate::events::resources::{Asked, Ceiling, PoolResources};
    ///
    /// let asked = Asked { cpu_milli: Some(2_000), memory_bytes: None };
    /// let ceiling = Ceiling { cpu_milli: Some(32_000), ..Ceiling::default() };
    /// let builder = ergate::Runtime::builder().pool_between("models", 0, 40, 1).resources("models", PoolResources { asked, ceiling });
    /// # drop(builder);
    /// ```
    #[must_use]
    pub fn resources(mut self, pool: &str, said: PoolResources) -> Builder {
        self.resources.insert(pool.to_owned(), said);
        self
    }

    /// Defines a limit on how many tasks are on their way at once and how often they start; [`Builder::limited`] says which tasks.
    #[must_use]
    pub fn limit(mut self, name: &str, allows: LimitSettings) -> Builder {
        self.limits.insert(name.to_owned(), allows);
        self
    }

    /// Lets tasks of this type wait until each of these limits has room.
    #[must_use]
    pub fn limited(mut self, task_type: &str, limits: &[&str]) -> Builder {
        self.limited.insert(task_type.to_owned(), limits.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Fires tasks at certain times, for as long as the runtime runs; `docs/schedules.md` says when exactly.
    ///
    /// The schedules of a builder are all that the log has from its start on: others are removed from it.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// use ergate::schedule::{CatchUp, ScheduleSettings, When};
    /// use ergate::{Runtime, TaskError};
    ///
    /// async fn clean(_: ()) -> Result<(), TaskError> {
    ///     Ok(())
    /// }
    ///
    /// let nightly = ScheduleSettings {
    ///     timezone: "Europe/Berlin".to_owned(),
    ///     catch_up: CatchUp::RunOnce,
    ///     ..ScheduleSettings::new(When::Cron("0 3 * * *".to_owned()), "clean")
    /// };
    /// let runtime = Runtime::builder().task("clean", clean).schedule("nightly", nightly).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn schedule(mut self, name: &str, settings: ScheduleSettings) -> Builder {
        self.schedules.get_or_insert_default().insert(name.to_owned(), settings);
        self
    }

    /// Has these schedules and no others, also where there are none: then those of the log are removed.
    #[must_use]
    pub fn schedules(mut self, schedules: BTreeMap<String, ScheduleSettings>) -> Builder {
        self.schedules = Some(schedules);
        self
    }

    /// Takes the requests of a file, one a line, or of the `*.ndjson` of a directory, as they are appended; `docs/sources.md` says what is promised.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// use ergate::{Runtime, SourceSettings, TaskError};
    ///
    /// async fn bill(_: u64) -> Result<(), TaskError> {
    ///     Ok(())
    /// }
    ///
    /// let runtime = Runtime::builder().task("bill", bill).source("orders", SourceSettings::new("inbox")).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    #[cfg(feature = "requests")]
    pub fn source(mut self, name: &str, settings: crate::sources::SourceSettings) -> Builder {
        self.sources.insert(name.to_owned(), settings);
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
        // Of its own, though the builder may be a clone.
        let builder = Builder { workers: Arc::default(), ..self };
        builder.canaries.iter().for_each(|(pool, canary)| builder.workers.set_canary(pool, canary.clone()));
        builder.create_executors()?.start_plugins().await?.start_all().await
    }

    #[cfg(not(all(feature = "http", feature = "process")))]
    async fn start_all(self) -> Result<Runtime, StartError> {
        wiring::start(self).await
    }

    /// Starts the runtime, and what keeps the processes of its pools.
    #[cfg(all(feature = "http", feature = "process"))]
    async fn start_all(mut self) -> Result<Runtime, StartError> {
        if self.commands.is_empty() {
            return wiring::start(self).await;
        }
        #[cfg(feature = "kafka")]
        if self.kafka.is_some() {
            return Err(StartError::ProcessesOnKafka);
        }
        let (orders, ordered) = tokio::sync::mpsc::unbounded_channel();
        let pools: BTreeSet<String> = self.commands.keys().cloned().collect();
        self.processes = Some(Processes { pools: Arc::new(pools), orders });
        let (commands, directory) = (std::mem::take(&mut self.commands), self.store.dir().map(PathBuf::from));
        let runtime = wiring::start(self).await?;
        match crate::fleet::Fleet::start(&runtime, commands, ordered, directory) {
            Ok(fleet) => {
                runtime.keep(fleet);
                Ok(runtime)
            }
            Err(error) => {
                // Nobody was told of it.
                let _ = runtime.shutdown().await;
                Err(error)
            }
        }
    }
}
