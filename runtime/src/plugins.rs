//! Plug-ins: generators, executors and observers of task types, registered by the program or by the crates that it is linked with.
//!
//! `docs/plugins.md` begins at the beginning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ergate_actors::executor::factory::{ExecutorFactory, FactoryError};
use ergate_actors::generate::{
    CLEAN_UP_WITHIN, EVERY_MAX, EVERY_MIN, GENERATOR_NAME_BYTES_MAX, GENERATORS_MAX, GeneratorHost, MakeGenerator, TaskGenerator,
};
use ergate_actors::observe::{EventObserverFactory, FINISH_WITHIN, OBSERVERS_MAX, Observer};
use ergate_events::limit::LimitSettings;
use ergate_events::task::{RetryPolicy, TypeSettings};
use serde_json::Value;

use crate::builder::Builder;
use crate::wiring::Parts;

#[doc(hidden)]
pub use inventory;

/// Why a plug-in cannot be used. `kind` is `generator` or `observer`.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// One task type has two.
    #[error("the task type {name:?} has two {kind}s; register one, or give one of them a task type of its own")]
    Twice {
        /// What there are two of.
        kind: &'static str,
        /// The task type.
        name: String,
    },
    /// There are too many.
    #[error(
        "{count} {kind}s are registered, and a runtime has at most {max}: each has a thread; let one of them do the work of several"
    )]
    TooMany {
        /// Of what.
        kind: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// Nothing runs the task type.
    #[error(
        "there is {} of the task type {name:?}, and nothing runs that; register it as well, or correct the name: there are {known}",
        article(kind)
    )]
    NoSuchType {
        /// Of what.
        kind: &'static str,
        /// The task type.
        name: String,
        /// The registered task types.
        known: String,
    },
    /// Nothing takes a configuration.
    #[error(
        "there is a configuration for a generator of the task type {name:?}, and no such generator; register it, or correct the name"
    )]
    NoSuchGenerator {
        /// The task type.
        name: String,
    },
    /// It does not begin.
    #[error("the {kind} of the task type {name:?} cannot be used")]
    Start {
        /// Of what.
        kind: &'static str,
        /// The task type.
        name: String,
        /// Why not.
        #[source]
        source: FactoryError,
    },
}

fn article(kind: &str) -> String {
    format!("{} {kind}", if kind == OBSERVER { "an" } else { "a" })
}

const GENERATOR: &str = "generator";
const OBSERVER: &str = "observer";

/// What a crate has registered; made by [`register!`](crate::register).
#[derive(Clone, Copy)]
pub struct Plugin(Kind);

#[derive(Clone, Copy)]
enum Kind {
    Generator(fn() -> Box<dyn TaskGenerator>),
    Executor(fn() -> Arc<dyn ExecutorFactory>),
    Observer(fn() -> Arc<dyn EventObserverFactory>),
}

inventory::collect!(Plugin);

#[doc(hidden)]
impl Plugin {
    pub const fn generator(make: fn() -> Box<dyn TaskGenerator>) -> Plugin {
        Plugin(Kind::Generator(make))
    }

    pub const fn executor(make: fn() -> Arc<dyn ExecutorFactory>) -> Plugin {
        Plugin(Kind::Executor(make))
    }

    pub const fn observer(make: fn() -> Arc<dyn EventObserverFactory>) -> Plugin {
        Plugin(Kind::Observer(make))
    }
}

/// Registers a plug-in of a crate for [`Builder::plugins`]: `generator`, `executor` or `observer`, and a function without arguments that makes it.
///
/// ```
/// use ergate::{EventObserver, EventObserverFactory, FactoryError};
///
/// struct Audit;
///
/// impl EventObserver for Audit {}
///
/// impl EventObserverFactory for Audit {
///     fn task_type(&self) -> &str {
///         "thumbnail"
///     }
///
///     fn create(&self) -> Result<Box<dyn EventObserver>, FactoryError> {
///         Ok(Box::new(Audit))
///     }
/// }
///
/// ergate::register!(observer = || Audit);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! register {
    (generator = $make:expr) => {
        $crate::plugins::inventory::submit! { $crate::plugins::Plugin::generator(|| ::std::boxed::Box::new(($make)())) }
    };
    (executor = $make:expr) => {
        $crate::plugins::inventory::submit! { $crate::plugins::Plugin::executor(|| ::std::sync::Arc::new(($make)())) }
    };
    (observer = $make:expr) => {
        $crate::plugins::inventory::submit! { $crate::plugins::Plugin::observer(|| ::std::sync::Arc::new(($make)())) }
    };
}

/// The generators and observers of a runtime.
#[derive(Clone, Default)]
pub(crate) struct Plugins {
    makers: Vec<Arc<MakeGenerator>>,
    factories: Vec<Arc<dyn EventObserverFactory>>,
    configurations: BTreeMap<String, Value>,
    /// Those that run, from the start on.
    running: Running,
}

/// Generators and observers that run.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) generators: Vec<GeneratorHost>,
    pub(crate) observers: Arc<[Observer]>,
}

impl Default for Running {
    fn default() -> Self {
        Running { generators: Vec::new(), observers: Arc::new([]) }
    }
}

/// Plug-ins.
impl Builder {
    /// Registers what makes the generator of a task type: when the runtime starts, and anew after a panic. The task type itself is registered as
    /// any other. Of one task type there is one generator: a second one is [`PluginError::Twice`].
    #[must_use]
    pub fn generator<G: TaskGenerator + 'static>(self, make: impl Fn() -> G + Send + Sync + 'static) -> Builder {
        self.generator_of(Arc::new(move || Box::new(make())))
    }

    /// Registers what makes the observer of a task type. Of one task type there is one: a second one is [`PluginError::Twice`].
    #[must_use]
    pub fn observer(self, factory: impl EventObserverFactory + 'static) -> Builder {
        self.observer_of(Arc::new(factory))
    }

    /// Hands a configuration to the generator of a task type, whether that comes from the program or from a crate. Any value that serde can write
    /// becomes one by `serde_json::to_value`, a TOML table too.
    #[must_use]
    pub fn configuration(mut self, task_type: &str, configuration: Value) -> Builder {
        self.plugins.configurations.insert(task_type.to_owned(), configuration);
        self
    }

    /// Takes everything that the linked crates have registered by [`register!`](crate::register). A crate is linked when something names it:
    /// `use my_plugins as _;` is enough.
    #[must_use]
    pub fn plugins(self) -> Builder {
        inventory::iter::<Plugin>.into_iter().fold(self, |builder, plugin| match plugin.0 {
            Kind::Generator(make) => builder.generator_of(Arc::new(make)),
            Kind::Executor(make) => builder.executor_of(make()),
            Kind::Observer(make) => builder.observer_of(make()),
        })
    }

    fn generator_of(mut self, make: Arc<MakeGenerator>) -> Builder {
        self.plugins.makers.push(make);
        self
    }

    fn observer_of(mut self, factory: Arc<dyn EventObserverFactory>) -> Builder {
        self.plugins.factories.push(factory);
        self
    }

    /// Starts the threads of generators and observers; the task types are known by now.
    pub(crate) async fn start_plugins(mut self) -> Result<Builder, PluginError> {
        let makers = std::mem::take(&mut self.plugins.makers);
        let made: Vec<_> = makers.into_iter().map(|make| (make(), make)).collect();
        let factories = std::mem::take(&mut self.plugins.factories);
        self.check(GENERATOR, GENERATORS_MAX, made.iter().map(|(generator, _)| generator.task_type()))?;
        self.check(OBSERVER, OBSERVERS_MAX, factories.iter().map(|factory| factory.task_type()))?;
        self.check_configurations(made.iter().map(|(generator, _)| generator.task_type()))?;
        let mut observers = Vec::with_capacity(factories.len());
        for factory in factories {
            let name = factory.task_type().to_owned();
            observers.push(Observer::start(factory).map_err(|source| PluginError::Start { kind: OBSERVER, name, source })?);
        }
        let mut generators = Vec::with_capacity(made.len());
        for (generator, make) in made {
            let name = generator.task_type().to_owned();
            self.promise(&name, generator.as_ref());
            let configuration = self.plugins.configurations.remove(&name).unwrap_or_default();
            let host = async { GeneratorHost::start(make, in_range(generator)?, configuration).await };
            generators.push(host.await.map_err(|source| PluginError::Start { kind: GENERATOR, name, source })?);
        }
        self.plugins.running = Running { generators, observers: observers.into() };
        Ok(self)
    }

    /// Looks whether each of these task types is registered and there once.
    fn check<'a>(&self, kind: &'static str, max: usize, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), PluginError> {
        let count = names.clone().count();
        if count > max {
            return Err(PluginError::TooMany { kind, count, max });
        }
        let mut seen = BTreeSet::new();
        for name in names {
            if !self.types.contains_key(name) {
                let known = self.types.keys().take(8).cloned().collect::<Vec<_>>().join(", ");
                return Err(PluginError::NoSuchType { kind, name: name.to_owned(), known });
            }
            if !seen.insert(name) {
                return Err(PluginError::Twice { kind, name: name.to_owned() });
            }
        }
        Ok(())
    }

    fn check_configurations<'a>(&self, generators: impl Iterator<Item = &'a str>) -> Result<(), PluginError> {
        let generators: BTreeSet<_> = generators.collect();
        let unused = self.plugins.configurations.keys().find(|name| !generators.contains(name.as_str()));
        unused.map_or(Ok(()), |name| Err(PluginError::NoSuchGenerator { name: name.clone() }))
    }

    /// Lets a task type promise what its generator says, where nobody has said anything else.
    fn promise(&mut self, name: &str, generator: &dyn TaskGenerator) {
        let Some((settings, _)) = self.types.get_mut(name) else { return };
        if *settings == TypeSettings::default() {
            let attempts = generator.attempts().max(1);
            settings.timeouts.start_to_close = generator.timeout().into();
            settings.retry = RetryPolicy { attempts, ..RetryPolicy::default() };
        }
        let replicas = self.pools.get(&settings.pool).map_or(1, |(replicas, _)| *replicas).max(1);
        if !self.limited.contains_key(name) {
            let limit = format!("generator-{name}");
            let concurrency = Some(generator.concurrency_per_replica().max(1).saturating_mul(replicas));
            self.limits.entry(limit.clone()).or_insert(LimitSettings { concurrency, ..LimitSettings::default() });
            self.limited.insert(name.to_owned(), vec![limit]);
        }
    }
}

/// Refuses a generator whose numbers are out of range.
fn in_range(generator: Box<dyn TaskGenerator>) -> Result<Box<dyn TaskGenerator>, FactoryError> {
    let (every, name) = (generator.every(), generator.task_type().len());
    if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
        return Err(format!("`every` is {every:?}; it may be from {EVERY_MIN:?} to {EVERY_MAX:?}").into());
    }
    if name > GENERATOR_NAME_BYTES_MAX {
        return Err(
            format!("its name has {name} bytes; of a task type with a generator it may have {GENERATOR_NAME_BYTES_MAX}").into()
        );
    }
    Ok(generator)
}

impl Plugins {
    pub(crate) fn generators(&self) -> &[GeneratorHost] {
        &self.running.generators
    }

    pub(crate) fn observers(&self) -> &Arc<[Observer]> {
        &self.running.observers
    }

    pub(crate) fn running(&self) -> Running {
        self.running.clone()
    }
}

impl Running {
    /// Lets generators clean up, and generates nothing more.
    pub(crate) async fn stop_generators(&self) {
        self.generators.iter().for_each(GeneratorHost::stop);
        let until = tokio::time::Instant::now() + CLEAN_UP_WITHIN;
        for generator in &self.generators {
            generator.ended(until).await;
        }
    }

    /// Waits until observers have heard everything that is durable on a shard, for at most [`FINISH_WITHIN`].
    pub(crate) async fn finish(&self, parts: &Parts) {
        if self.observers.is_empty() {
            return;
        }
        let (head, until) = (parts.tail.borrow().head.next, Instant::now() + FINISH_WITHIN);
        while parts.with_progress(|progress| progress.position) < head && Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        self.finish_observers().await;
    }

    /// Waits until observers have heard everything that was handed to them, for at most [`FINISH_WITHIN`].
    pub(crate) async fn finish_observers(&self) {
        let observers = Arc::clone(&self.observers);
        let until = Instant::now() + FINISH_WITHIN;
        let finish = move || observers.iter().for_each(|observer| observer.finish(until));
        if tokio::task::spawn_blocking(finish).await.is_err() {
            tracing::error!("waiting for the observers panicked");
        }
    }
}
