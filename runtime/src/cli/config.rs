//! `ergate config`: the configuration in force, and where each value comes from.

use std::ffi::OsString;
use std::time::Duration;

use ergate::events::time::Micros;
use ergate::{Builder, Canary, Retention, WorkerCommand};
use ergate_config::{Config, DEFAULT_TOML, Durability, Fleet, Log, Origin, Pool, Setting};

use super::table::Table;
use super::{Exit, Format, Globals, output};

/// What to do with the configuration.
#[derive(clap::Subcommand)]
pub(crate) enum ConfigVerb {
    /// Show every setting with its value and where that comes from
    Show {
        /// Print the built-in defaults with the unit and the reason of every key, as a file to begin with
        #[arg(long)]
        docs: bool,
    },
}

pub(crate) fn run(verb: ConfigVerb, globals: &Globals) -> anyhow::Result<Exit> {
    let ConfigVerb::Show { docs } = verb;
    match (docs, globals.output) {
        (true, _) => output::line(DEFAULT_TOML.trim_end())?,
        (false, Format::Table) => show_table(&settings(globals)?.settings())?,
        (false, Format::Json) => settings(globals)?.settings().iter().try_for_each(show_json)?,
    }
    Ok(Exit::Done)
}

fn show_table(settings: &[Setting]) -> anyhow::Result<()> {
    let mut table = Table::new(&["KEY", "VALUE", "FROM"]);
    for Setting { key, value, origin } in settings {
        table.row([key.clone(), value.clone(), origin.to_string()]);
    }
    table.print()
}

fn show_json(setting: &Setting) -> anyhow::Result<()> {
    let Setting { key, value, origin } = setting;
    output::json(&serde_json::json!({ "key": key, "value": value, "from": origin.to_string() }))
}

/// The configuration in force: defaults, file, environment, flags.
pub(crate) fn settings(globals: &Globals) -> anyhow::Result<Config> {
    // Names and values that are not UTF-8 cannot be ours.
    let env = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut config = ergate_config::load(globals.config.as_deref(), env)?;
    if let Some(data) = &globals.data {
        config.log.data.clone_from(data);
        config.note("log.data", Origin::Flag { name: "--data" });
    }
    super::kafka::check_options(&config)?;
    Ok(config)
}

/// How processes of pools are started: as workers of this very program.
pub(crate) struct Children<'a> {
    /// What this process was told.
    pub(crate) globals: &'a Globals,
    /// How long they may take to end what they do, once they have to.
    pub(crate) drain: Duration,
}

/// How long a process may take beyond its server until the engine knows it.
const START_MAX: Duration = Duration::from_secs(60);

impl Children<'_> {
    /// As the configuration has it.
    pub(crate) const fn of<'a>(globals: &'a Globals, config: &Config) -> Children<'a> {
        Children { globals, drain: config.shutdown.drain }
    }

    fn command(&self, name: &str, pool: &Pool) -> anyhow::Result<WorkerCommand> {
        let gpus = super::gpu::devices(name, pool)?;
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(config) = &self.globals.config {
            arguments.extend(["--config".into(), config.into()]);
        }
        let drain = Micros::from(self.drain).to_string();
        if self.globals.quiet {
            arguments.push("--quiet".into());
        }
        let own = ["worker", "--child", "--engine={engine}", "--pool={pool}", "--slots={slots}", "--id={id}"];
        arguments.extend(own.into_iter().chain(["--name={name}", "--drain", &drain]).map(OsString::from));
        if !gpus.is_empty() {
            arguments.push("--gpu={gpu}".into());
        }
        if let Some(bytes) = pool.memory_max {
            arguments.push(format!("--memory-max={bytes}").into());
        }
        let ready_within = pool.server.as_ref().map_or(Duration::ZERO, |server| server.ready_within) + START_MAX;
        Ok(WorkerCommand { program: std::env::current_exe()?, arguments, gpus, ready_within })
    }
}

/// A runtime that is kept, limited and sized as the configuration says, with the task types that it defines. Where its log is and which other
/// task types it has is for the verb.
pub(crate) fn configure(builder: Builder, config: &Config, children: &Children<'_>) -> anyhow::Result<Builder> {
    let Log { keep_for, keep_events, snapshot_every_events, .. } = config.log;
    let pools = config.all_pools();
    let builder = pools.iter().fold(builder, |builder, (name, pool)| match pool.least() {
        least if least < pool.replicas => builder.pool_between(name, least, pool.replicas, pool.slots),
        _ => builder.pool(name, pool.replicas, pool.slots),
    });
    let builder = pools.iter().try_fold(builder, |builder, (name, pool)| {
        Ok::<_, anyhow::Error>(match pool.fleet() {
            Fleet::Local => builder,
            Fleet::Process => builder.process_pool(name, children.command(name, pool)?),
            Fleet::External => builder.external_pool(name),
        })
    })?;
    let builder = config.policies()?.into_iter().fold(builder, |builder, (pool, policy)| builder.policy(pool, policy));
    let builder = config.resources()?.into_iter().fold(builder, |builder, (pool, said)| builder.resources(pool, said));
    let shadows = config.shadows()?.into_iter();
    let builder = shadows.fold(builder, |builder, (pool, name, policy)| builder.shadow(pool, name, policy));
    let canaries = config.pools.iter().filter_map(|(name, pool)| Some((name, pool.canary()?)));
    let builder = canaries.fold(builder, |builder, (name, (label, value, share_milli))| {
        builder.canary(name, Canary { label: label.to_owned(), value: value.to_owned(), share_milli })
    });
    let builder = super::executors::register(builder, config)?;
    Ok(builder
        .log_options(config.log.options())
        .durability(durability(config))
        .retention(Retention { keep_for, keep_events })
        .snapshot_every_events(snapshot_every_events)
        .tasks_live_max(config.limits.tasks_live_max))
}

/// The durability of the configuration as the runtime has it.
const fn durability(config: &Config) -> ergate::Durability {
    match config.log.durability {
        Durability::Fsync => ergate::Durability::Fsync,
        Durability::Interval(span) => ergate::Durability::Interval(span),
        Durability::Memory => ergate::Durability::Memory,
    }
}

#[cfg(test)]
mod tests {
    use ergate::builder::{SLOTS_DEFAULT, SNAPSHOT_EVERY_EVENTS, TASKS_LIVE_MAX};
    use ergate::events::log::directory::Options;

    use super::*;

    #[test]
    fn the_defaults_of_the_file_are_those_of_the_library() {
        let config = Config::default();
        assert_eq!(config.limits.tasks_live_max, TASKS_LIVE_MAX);
        assert_eq!(config.log.snapshot_every_events, SNAPSHOT_EVERY_EVENTS);
        assert_eq!((config.pool("any").replicas, config.pool("any").slots), (1, SLOTS_DEFAULT));
        assert_eq!(format!("{:?}", config.log.options()), format!("{:?}", Options::default()));
        assert_eq!(config.log.data.to_str(), Some("ergate-data"));
        assert_eq!(durability(&config), ergate::Durability::Fsync);
        let retention = Retention { keep_for: config.log.keep_for, keep_events: config.log.keep_events };
        assert_eq!(retention, Retention::default());
    }
}
