//! `ergate config`: the configuration in force, and where each value comes from.

use ergate_config::{Config, DEFAULT_TOML, Durability, Origin, Setting};

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
    Ok(config)
}

/// The durability of the configuration as the runtime has it.
#[expect(dead_code, reason = "for the verbs that start a runtime")]
pub(crate) const fn durability(config: &Config) -> ergate::Durability {
    match config.log.durability {
        Durability::Fsync => ergate::Durability::Fsync,
        Durability::Interval(span) => ergate::Durability::Interval(span),
        Durability::Memory => ergate::Durability::Memory,
    }
}
