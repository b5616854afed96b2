//! `ergate workers`: who works for a service, and who is to end.

use serde_json::{Map, Value};

use ergate::look::record::plain;

use super::choice;
use super::exit::Trouble;
use super::remote::{Ask, Path};
use super::table::Table;
use super::{Exit, Format, Globals, output};

/// What to do with workers.
#[derive(clap::Subcommand)]
pub(crate) enum WorkersVerb {
    /// List the workers that a service knows
    List(ListArgs),
    /// Give workers of a service nothing more: they end what they have, and then themselves
    Drain(DrainArgs),
}

/// Which workers are listed.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// Only those of this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
}

/// Which workers are drained; all that is given has to be so.
#[derive(clap::Args)]
pub(crate) struct DrainArgs {
    /// Their ids, as `ergate workers list` shows them
    ids: Vec<String>,
    /// Those of this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Those with this label, such as version=1
    #[arg(long, value_name = "NAME=VALUE")]
    label: Option<String>,
}

pub(crate) fn run(verb: WorkersVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        WorkersVerb::List(args) => list(&args, globals),
        WorkersVerb::Drain(args) => drain(&args, globals),
    }
}

fn list(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let told: Value = choice::service(globals, "workers list")?.get(Path::new("/v1/workers"))?;
    let all = told["workers"].as_array().into_iter().flatten();
    let all = all.filter(|worker| args.pool.as_ref().is_none_or(|pool| worker["pool"] == pool.as_str()));
    if globals.output == Format::Json {
        all.into_iter().try_for_each(output::json)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["ID", "NAME", "POOL", "SLOTS", "LABELS", "STATE", "SILENT"]);
    for worker in all {
        let labels = worker["labels"].as_object().into_iter().flatten();
        let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={}", plain(value))).collect();
        let state = if worker["draining"] == true { "draining" } else { "working" };
        let [id, name, pool, slots] = ["id", "name", "pool", "slots"].map(|fact| plain(&worker[fact]));
        let silent = format!("{:.1}s", worker["silent_ms"].as_f64().unwrap_or_default() / 1_000.0);
        table.row([id, name, pool, slots, labels.join(" "), state.to_owned(), silent]);
    }
    table.print()?;
    Ok(Exit::Done)
}

fn drain(args: &DrainArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if args.ids.is_empty() && args.pool.is_none() && args.label.is_none() {
        return Err(Trouble::Usage("say which workers: by their ids, --pool or --label".to_owned()).into());
    }
    let remote = choice::service(globals, "workers drain")?;
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    put("ids", (!args.ids.is_empty()).then(|| args.ids.clone().into()));
    put("pool", args.pool.as_deref().map(Value::from));
    put("label", args.label.as_deref().map(Value::from));
    let told: Value = remote.parse(&remote.ask_with_patience(&Ask::post(Path::new("/v1/workers/drain"), &body.into()))?.body)?;
    if globals.output == Format::Json {
        output::json(&told)?;
        return Ok(Exit::Done);
    }
    let ids = told["draining"].as_array().into_iter().flatten();
    ids.clone().try_for_each(|id| output::line(&plain(id)))?;
    if !globals.quiet {
        output::note(&format!("{} of them end what they have, and then themselves", ids.count()));
    }
    Ok(Exit::Done)
}
