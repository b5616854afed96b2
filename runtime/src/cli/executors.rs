//! Task types of the configuration as executors of the runtime.

use std::collections::BTreeMap;

use ergate::calendar::{self, Calendar};
use ergate::executor::factory::ExecutorFactory;
use ergate::executor::http::{HttpFactory, HttpSettings};
use ergate::executor::process::{PayloadBy, ProcessFactory, ProcessSettings};
use ergate::gpu::{Gpu, OnDeath};
use ergate::schedule::{ScheduleSettings, When};
use ergate::{Builder, SourceSettings, TypeSettings};
use ergate_config::{Config, Executor, Fleet, HttpExecutor, OptionValue, ProcessExecutor};

use super::gpu::{self, KernelFactory};

/// Registers the task types of the configuration.
///
/// # Errors
/// When a secret cannot be had.
pub(crate) fn register(builder: Builder, config: &Config) -> anyhow::Result<Builder> {
    let builder = config.limits()?.into_iter().fold(builder, |builder, (name, allows)| builder.limit(&name, allows));
    let builder = config.limits_of_tasks()?.into_iter().fold(builder, |builder, (name, limits)| {
        let limits: Vec<&str> = limits.iter().map(String::as_str).collect();
        builder.limited(name, &limits)
    });
    let mut gpus = Gpus::default();
    config.task_executors()?.into_iter().try_fold(builder, |builder, (name, task, executor)| {
        let settings = task.settings.clone();
        if let Executor::Gpu(kernel) = &executor {
            gpu::check(config, name, kernel)?;
        }
        if config.pool(&settings.pool).fleet() != Fleet::Local {
            return Ok(builder.worker_task(name, settings));
        }
        Ok(match executor {
            Executor::Process(executor) => builder.executor(process(name, settings, executor)?),
            Executor::Http(executor) => builder.executor(http(name, settings, executor)?),
            Executor::Gpu(kernel) => {
                let device = gpus.of(config, &settings.pool);
                match KernelFactory::new(config, name, settings.clone(), &kernel, device.as_ref())? {
                    Some(made) => builder.executor(made),
                    None => builder.worker_task(name, settings),
                }
            }
            Executor::Worker => builder.worker_task(name, settings),
        })
    })
}

/// The devices of this process: one for all pools, opened when the first kernel needs it.
#[derive(Default)]
struct Gpus(Option<Option<Gpu>>);

impl Gpus {
    /// The device, or none; that is told for the pool that asks first.
    fn of(&mut self, config: &Config, pool: &str) -> Option<Gpu> {
        let opened = || match gpu::open(config, None, OnDeath::Fail) {
            Ok(device) => Some(device),
            Err(error) => {
                gpu::tell_missing(pool, &error);
                None
            }
        };
        self.0.get_or_insert_with(opened).clone()
    }
}

/// What makes the executors of the configuration, but for those that only workers elsewhere have; `port` is that of the worker's server, and `device`
/// what kernels run on, of which there are none without it.
///
/// # Errors
/// When a secret cannot be had.
pub(crate) fn factories(
    config: &Config,
    port: Option<u16>,
    device: Option<&Gpu>,
) -> anyhow::Result<Vec<Box<dyn ExecutorFactory>>> {
    let made = config.task_executors()?.into_iter().filter_map(|(name, task, executor)| {
        let settings = task.settings.clone();
        match executor {
            Executor::Process(executor) => Some(process(name, settings, executor).map(|made| Box::new(made) as _)),
            Executor::Http(executor) => {
                let executor = HttpExecutor { url: at_port(&executor.url, port), ..executor };
                Some(http(name, settings, executor).map(|made| Box::new(made) as _))
            }
            Executor::Gpu(kernel) => {
                let made = KernelFactory::new(config, name, settings, &kernel, device);
                made.map(|made| made.map(|made| Box::new(made) as _)).transpose()
            }
            Executor::Worker => None,
        }
    });
    made.collect()
}

/// The schedules of the configuration.
///
/// # Errors
/// When one cannot be: with the place of the key, and of the mistake in a cron text or a time zone.
pub(crate) fn schedules(config: &Config) -> anyhow::Result<BTreeMap<String, ScheduleSettings>> {
    let all = config.schedules_with(|at, timezone| calendar::moment(at, timezone).map(When::At))?;
    for (name, settings) in &all {
        Calendar::of(settings).map_err(|error| config.refuse_schedule(name, error.key(), error.to_string()))?;
        serde_json::from_str::<&serde_json::value::RawValue>(&settings.payload)
            .map_err(|error| config.refuse_schedule(name, "payload", format!("it is not JSON: {error}")))?;
    }
    Ok(all)
}

/// Follows the sources of the configuration.
///
/// # Errors
/// When one follows nothing.
pub(crate) fn follow(builder: Builder, config: &Config) -> anyhow::Result<Builder> {
    Ok(config.sources_with_paths()?.into_iter().fold(builder, |builder, (name, path, source)| {
        let (poll, files_max, refused_max) = (source.poll, source.files_max, source.refused_max);
        builder.source(name, SourceSettings { path: path.to_owned(), poll, files_max, refused_max })
    }))
}

fn process(name: &str, settings: TypeSettings, executor: ProcessExecutor) -> anyhow::Result<ProcessFactory> {
    let process = ProcessSettings {
        arguments: executor.arguments.into_iter().map(Into::into).collect(),
        directory: executor.directory,
        payload: match executor.stdin {
            ergate_config::PayloadBy::Payload => PayloadBy::Stdin,
            ergate_config::PayloadBy::File => PayloadBy::File,
        },
        env_allow: executor.env,
        env_set: resolve(&executor.set)?,
        non_retryable: executor.non_retryable_exits,
        kill_after: executor.kill_after,
        concurrency: executor.concurrency,
        ..ProcessSettings::new(name, executor.program)
    };
    Ok(ProcessFactory { settings, process })
}

fn http(name: &str, settings: TypeSettings, executor: HttpExecutor) -> anyhow::Result<HttpFactory> {
    let http = HttpSettings {
        concurrency: executor.concurrency,
        content_type: executor.content_type,
        headers: resolve(&executor.headers)?,
        connect_timeout: executor.connect_timeout,
        response_max: usize::try_from(executor.response_max).unwrap_or(usize::MAX),
        retry_after_max: executor.retry_after_max,
        allow_networks: executor.allow_networks,
        ..HttpSettings::new(name, executor.url)
    };
    Ok(HttpFactory { settings, http })
}

/// A URL of the worker's server, for whose port `{port}` stands.
fn at_port(url: &str, port: Option<u16>) -> String {
    port.map_or_else(|| url.to_owned(), |port| url.replace(ergate::worker::server::PORT, &port.to_string()))
}

/// Names with what stands for them, secrets included.
pub(crate) fn resolve(values: &BTreeMap<String, OptionValue>) -> anyhow::Result<Vec<(String, String)>> {
    values.iter().map(|(name, value)| Ok((name.clone(), value.resolve(name)?))).collect()
}
