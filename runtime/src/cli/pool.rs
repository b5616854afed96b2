//! `ergate pool`: how large pools are, and how large they should be.

use ergate::events::resources::Resource;
use ergate::kafka::logs::shard_name;
use ergate::look::fold::Source;
use ergate::look::record::plain;
use ergate::look::summary::{pool_json, pool_with_members, pools};
use serde_json::{Map, Value};

use super::choice::{self, Side};
use super::exit::Trouble;
use super::logs::LogArgs;
use super::moment::Moment;
use super::remote::{Ask, Path};
use super::table::{self, Table};
use super::{Exit, Format, Globals, output};

/// What is told of a pool, in order.
const FACTS: [&str; 8] = ["name", "mode", "replicas", "slots", "replicas_up", "slots_up", "running", "ready"];

/// What to do with pools.
#[derive(clap::Subcommand)]
pub(crate) enum PoolVerb {
    /// List pools with their sizes and what is there of them
    List(ListArgs),
    /// Show a pool and its replicas
    Show(ShowArgs),
    /// Set how large a pool of a service should be; what is not given stays
    Scale(ScaleArgs),
    /// Let the policy of a pool of a service decide again whose size somebody holds with `pool scale --for`
    Release(ModeArgs),
    /// Say how long replicas were there, and what that has cost
    Cost(CostArgs),
    /// Let a policy size a pool of a service, or none
    Set(SetArgs),
    /// Let policies decide beside the one of a pool of a service, without any effect
    #[command(subcommand)]
    Shadow(ShadowVerb),
    /// Let a pool of a service start no tasks until it is resumed; its replicas stay, and what they run goes on
    Pause(ModeArgs),
    /// Let a pool of a service start no tasks until it is resumed; its replicas go when what they run has ended
    Drain(ModeArgs),
    /// Let a paused or drained pool of a service start tasks again
    Resume(ModeArgs),
}

/// Whose pools.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    log: LogArgs,
}

/// Which pool.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    log: LogArgs,
    /// With the CPU and memory that its replicas use now, which a service knows and no log
    #[arg(long)]
    usage: bool,
    /// Its name
    name: String,
}

/// Which pool, and how large.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("size").args(["count", "replicas", "slots"]).required(true).multiple(true)))]
pub(crate) struct ScaleArgs {
    /// Its name
    name: String,
    /// How many replicas, from 0 to 65536
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(0..=65_536))]
    count: Option<u32>,
    /// The same
    #[arg(long, value_name = "N", conflicts_with = "count", value_parser = clap::value_parser!(u32).range(0..=65_536))]
    replicas: Option<u32>,
    /// Hold that number for so long, such as 2h, from a second to 31 days, whatever the policy of the pool wants; then the policy decides again
    #[arg(long = "for", value_name = "SPAN", conflicts_with = "slots")]
    span: Option<String>,
    /// Slots of each, from 1 to 65536
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    slots: Option<u32>,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Since when, and at which price.
#[derive(clap::Args)]
pub(crate) struct CostArgs {
    #[command(flatten)]
    log: LogArgs,
    /// From a position or a time on, such as 1200 or 2030-01-31T12:00:00Z; from the first that the log can tell without this
    #[arg(long, value_name = "MOMENT")]
    since: Option<Moment>,
    /// What an hour of a replica costs; else what the configuration says of each pool
    #[arg(long, value_name = "NUMBER", value_parser = price)]
    price: Option<f64>,
}

fn price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| "write a number of at least 0, such as 2.5".to_owned())
}

/// Which policy sizes a pool, and why.
#[derive(clap::Args)]
pub(crate) struct SetArgs {
    /// The name of the pool
    name: String,
    /// The file of the policy (TOML or JSON), or the name of one that comes with Ergate (`balanced`)
    #[arg(value_name = "FILE", required_unless_present = "none", conflicts_with = "none")]
    file: Option<std::path::PathBuf>,
    /// Take the policy away that it has
    #[arg(long)]
    none: bool,
    /// The fewest replicas; those of before without this
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// The most replicas; as before without this
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What to do with the shadows of pools.
#[derive(clap::Subcommand)]
pub(crate) enum ShadowVerb {
    /// Let a policy decide beside the one of a pool: what it would have done is in the log, `ergate why` and `ergate whatif --shadows`
    Set(ShadowSetArgs),
    /// Take a shadow away
    Remove(ShadowRemoveArgs),
}

/// Which shadow, and why.
#[derive(clap::Args)]
pub(crate) struct ShadowSetArgs {
    /// The name of the pool
    pool: String,
    /// The name of the shadow: letters, digits, - and _
    name: String,
    /// The file of the policy (TOML or JSON), or the name of one that comes with Ergate (`balanced`)
    #[arg(value_name = "FILE")]
    file: std::path::PathBuf,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Which shadow, and why not.
#[derive(clap::Args)]
pub(crate) struct ShadowRemoveArgs {
    /// The name of the pool
    pool: String,
    /// The name of the shadow
    name: String,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Which pool, and why.
#[derive(clap::Args)]
pub(crate) struct ModeArgs {
    /// Its name
    name: String,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) fn run(verb: PoolVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        PoolVerb::List(args) => list(&args, globals),
        PoolVerb::Show(args) => show(&args, globals),
        PoolVerb::Scale(args) => scale(&args, globals),
        PoolVerb::Cost(args) => cost(&args, globals),
        PoolVerb::Set(args) => set(&args, globals),
        PoolVerb::Release(args) => set_mode("release", &args, globals),
        PoolVerb::Shadow(ShadowVerb::Set(args)) => {
            let policy = ergate_config::read_policy(&args.file).map_err(Trouble::Input)?;
            set_shadow((&args.pool, &args.name), serde_json::to_value(&policy)?, args.reason.as_deref(), globals)
        }
        PoolVerb::Shadow(ShadowVerb::Remove(args)) => {
            set_shadow((&args.pool, &args.name), Value::Null, args.reason.as_deref(), globals)
        }
        PoolVerb::Pause(args) => set_mode("pause", &args, globals),
        PoolVerb::Drain(args) => set_mode("drain", &args, globals),
        PoolVerb::Resume(args) => set_mode("resume", &args, globals),
    }
}

fn list(args: &ListArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let all = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => {
            let told: Value = remote.get(Path::new("/v1/pools").with("shard", args.log.shard.map(shard_name)))?;
            choice::say_missing(&told);
            told["pools"].as_array().cloned().unwrap_or_default()
        }
        Side::Directory => {
            let state = args.log.open_one(globals)?.fold_all(globals)?;
            pools(&state).iter().map(|pool| pool_json(&state, pool)).collect()
        }
    };
    match globals.output {
        Format::Json => all.iter().try_for_each(output::json)?,
        Format::Table => {
            let mut table =
                Table::new(&["POOL", "MODE", "REPLICAS", "SLOTS EACH", "REPLICAS UP", "SLOTS UP", "RUNNING", "READY"]);
            all.iter().for_each(|pool| table.row(FACTS.map(|name| plain(&pool[name]))));
            table.print()?;
        }
    }
    Ok(Exit::Done)
}

fn show(args: &ShowArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let pool = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => {
            let told = remote.get(Path::new("/v1/pools").below(&args.name).with("shard", args.log.shard.map(shard_name)))?;
            choice::say_missing(&told);
            let mut told: Value = told;
            if let Some(pool) = told.as_object_mut().filter(|_| !args.usage) {
                pool.remove("usage");
            }
            told
        }
        Side::Directory if args.usage => {
            let text = "what replicas use is in no log; name a running service with --url, or leave --usage away";
            return Err(Trouble::Usage(text.to_owned()).into());
        }
        Side::Directory => {
            let state = args.log.open_one(globals)?.fold_all(globals)?;
            let found = pools(&state).into_iter().find(|pool| pool.name == args.name);
            let missing =
                || Trouble::NotFound(format!("there is no pool {:?}; `ergate pool list` shows those that are there", args.name));
            pool_with_members(&state, &found.ok_or_else(missing)?)
        }
    };
    print(&pool, globals.output)?;
    Ok(Exit::Done)
}

fn scale(args: &ScaleArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, "pool scale")?;
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    put("replicas", args.count.or(args.replicas).map(Value::from));
    put("slots", args.slots.map(Value::from));
    put("for", args.span.as_deref().map(Value::from));
    put("reason", args.reason.as_deref().map(Value::from));
    let ask = Ask::patch(Path::new("/v1/pools").below(&args.name), &body.into());
    let pool: Value = remote.parse(&remote.ask_with_patience(&ask)?.body)?;
    print(&pool, globals.output)?;
    Ok(Exit::Done)
}

fn cost(args: &CostArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut told: Value = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => remote.get(Path::new("/v1/cost").with("since", args.since.map(|since| since.text())))?,
        Side::Directory => {
            let place = args.log.open_one(globals)?;
            let config = super::config::settings(globals)?;
            let prices = config.pools.iter().filter_map(|(name, pool)| Some((name.clone(), pool.price()?))).collect();
            let source = Source { reader: place.reader.as_ref(), snapshots: Some(&place.snapshots()) };
            ergate::look::cost::cost(&source, args.since, None, &prices)?
        }
    };
    if let (Some(price), Some(pools)) = (args.price, told["pools"].as_array_mut()) {
        for pool in pools {
            let hours = pool["replica_hours"].as_f64().unwrap_or_default();
            (pool["price"], pool["cost"]) = (price.into(), (hours * price).into());
        }
    }
    if globals.output == Format::Json {
        output::json(&told)?;
        return Ok(Exit::Done);
    }
    output::line(&format!("from {} to {}", plain(&told["since"]), plain(&told["until"])))?;
    output::line("")?;
    let mut table = Table::new(&["POOL", "REPLICA HOURS", "PRICE", "COST"]);
    let number = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.4}"));
    for pool in told["pools"].as_array().into_iter().flatten() {
        table.row([plain(&pool["pool"]), number(&pool["replica_hours"]), number(&pool["price"]), number(&pool["cost"])]);
    }
    table.print()?;
    Ok(Exit::Done)
}

fn set(args: &SetArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, "pool set")?;
    let policy = args.file.as_deref().map(ergate_config::read_policy).transpose().map_err(Trouble::Input)?;
    let mut body = Map::new();
    body.insert("policy".to_owned(), policy.map(|policy| serde_json::to_value(&policy)).transpose()?.unwrap_or_default());
    let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    put("min", args.min.map(Value::from));
    put("max", args.max.map(Value::from));
    put("reason", args.reason.as_deref().map(Value::from));
    let ask = Ask::put(Path::new("/v1/pools").below(&args.name).below("policy"), &body.into());
    let told: Value = remote.parse(&remote.ask_with_patience(&ask)?.body)?;
    match globals.output {
        Format::Json => output::json(&told)?,
        Format::Table => table::facts(&["pool", "min", "max", "set_at"].map(|name| (name, told.get(name).map(plain))))?,
    }
    Ok(Exit::Done)
}

fn set_shadow((pool, name): (&str, &str), policy: Value, reason: Option<&str>, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, "pool shadow")?;
    let mut body = Map::new();
    body.insert("policy".to_owned(), policy);
    body.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
    let ask = Ask::put(Path::new("/v1/pools").below(pool).below("shadows").below(name), &body.into());
    let told: Value = remote.parse(&remote.ask_with_patience(&ask)?.body)?;
    match globals.output {
        Format::Json => output::json(&told)?,
        Format::Table => table::facts(&["pool", "shadow", "set_at"].map(|name| (name, told.get(name).map(plain))))?,
    }
    Ok(Exit::Done)
}

fn set_mode(verb: &str, args: &ModeArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, &format!("pool {verb}"))?;
    let reason = args.reason.iter().map(|reason| ("reason".to_owned(), reason.as_str().into()));
    let ask = Ask::post(Path::new("/v1/pools").below(&args.name).below(verb), &reason.collect::<Map<_, _>>().into());
    let pool: Value = remote.parse(&remote.ask_with_patience(&ask)?.body)?;
    print(&pool, globals.output)?;
    Ok(Exit::Done)
}

/// What a replica asks for, how many fit under the ceiling, and what those that told lately use.
fn resources(pool: &Value) -> Vec<(&'static str, Option<String>)> {
    let (asked, usage) = (&pool["resources"]["asked"], &pool["usage"]);
    let cpu = asked["cpu_milli"].as_u64().map(|milli| Resource::Cpu.amount(milli));
    let memory = asked["memory_bytes"].as_u64().map(|bytes| Resource::Memory.amount(bytes));
    let each = [cpu, memory].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let fit = &pool["resources"]["fit"];
    let fits = fit["because"].as_str().map(|because| format!("{} replicas: {because}", plain(&fit["replicas"])));
    let used = usage["told"].as_u64().map(|told| {
        let (cores, bytes) =
            (usage["cpu_cores"].as_f64().unwrap_or_default(), usage["memory_bytes"].as_f64().unwrap_or_default());
        format!("{cores:.2} cores, {:.0} MiB ({told} told lately)", bytes / f64::from(1 << 20))
    });
    let all = [("each asks for", (!each.is_empty()).then_some(each)), ("ceiling", fits), ("they use", used)];
    all.into_iter().filter(|(_, value)| value.is_some()).collect()
}

fn print(pool: &Value, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::json(pool);
    }
    let mut facts = FACTS.map(|name| (name, pool.get(name).map(plain))).to_vec();
    facts.extend(resources(pool));
    table::facts(&facts)?;
    if let Some(hold) = pool.get("hold") {
        let cut = match hold["cut_by"].as_str() {
            Some(bound) => format!(" and not {}, for the pool's `{bound}` is in the way", hold["replicas"]),
            None => String::new(),
        };
        output::line(&format!("held at {}{cut}, until {}", hold["size"], plain(&hold["until"])))?;
    }
    let Some(members) = pool["members"].as_array().filter(|members| !members.is_empty()) else { return Ok(()) };
    output::line("")?;
    let mut table = Table::new(&["REPLICA", "PHASE", "SLOTS", "USED", "WORKER"]);
    for member in members {
        let worker = member["worker"].as_str().unwrap_or("-").to_owned();
        table.row(["id", "phase", "slots", "used"].map(|name| plain(&member[name])).into_iter().chain([worker]));
    }
    table.print()
}
