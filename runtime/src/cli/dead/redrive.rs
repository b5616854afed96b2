//! `ergate dead-letters redrive`: tries dead letters of a service again, one by one or many.

use ergate::events::id::TaskId;
use ergate::events::time::Timestamp;
use serde_json::{Map, Value, json};

use super::Which;
use crate::cli::remote::{Ask, Path, Remote};
use crate::cli::{Exit, Format, Globals, choice, confirm, output, progress};

/// Which dead letters, and how.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").args(["ids", "all", "type_name", "cause", "since", "until"]).required(true).multiple(true)))]
pub(crate) struct RedriveArgs {
    /// Their ids, such as `0-42`
    #[arg(value_name = "ID", conflicts_with_all = ["all", "type_name", "cause", "since", "until"])]
    ids: Vec<TaskId>,
    /// All of them
    #[arg(long, conflicts_with_all = ["type_name", "cause", "since", "until"])]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// At most so many, the oldest first; 10000 at most
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only say which
    #[arg(long)]
    dry_run: bool,
    /// Try them again without asking
    #[arg(short, long)]
    yes: bool,
}

pub(crate) fn run(args: &RedriveArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if !args.dry_run && !args.yes {
        confirm::require_terminal()?;
    }
    let remote = choice::service(globals, "dead-letters redrive")?;
    if !args.dry_run && !args.yes {
        let count = redriven(&ask(&remote, args, true)?).len() as u64;
        let question = format!("try {} again?", progress::count(count, "dead letter", "dead letters"));
        if count > 0 && !confirm::confirm(&question)? {
            return Ok(Exit::Interrupted);
        }
    }
    let told = ask(&remote, args, args.dry_run)?;
    choice::say_missing(&told);
    match globals.output {
        Format::Json => output::json(&told)?,
        Format::Table => print(&told, args.dry_run)?,
    }
    Ok(Exit::Done)
}

fn ask(remote: &Remote, args: &RedriveArgs, dry_run: bool) -> anyhow::Result<Value> {
    let Which { type_name, cause, since, until } = &args.which;
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| body.extend(value.map(|value| (name.to_owned(), value)));
    put("ids", (!args.ids.is_empty()).then(|| json!(args.ids)));
    put("all", args.all.then_some(true.into()));
    put("type", type_name.as_deref().map(Value::from));
    put("cause", cause.as_deref().map(Value::from));
    put("since", since.map(|at| Timestamp::rfc3339(at).into()));
    put("until", until.map(|at| Timestamp::rfc3339(at).into()));
    put("limit", Some(args.limit.into()));
    put("dry_run", Some(dry_run.into()));
    put("reason", args.reason.as_deref().map(Value::from));
    Ok(remote.parse(&remote.ask_with_patience(&Ask::post(Path::new("/v1/dead-letters/redrive"), &body.into()))?.body)?)
}

fn redriven(told: &Value) -> &[Value] {
    told["redriven"].as_array().map_or(&[], Vec::as_slice)
}

fn print(told: &Value, dry_run: bool) -> anyhow::Result<()> {
    for one in redriven(told) {
        let of = one["of"].as_str().unwrap_or("-");
        let text = match one["task"].as_str() {
            Some(task) => format!("{of} is tried again as {task}"),
            None => format!("{of} would be tried again"),
        };
        output::line(&output::escape(&text))?;
    }
    let (count, matching) = (redriven(told).len() as u64, told["matching"].as_u64().unwrap_or(0));
    let done = if dry_run { "would be tried again" } else { "tried again" };
    output::line(&format!("{} of {} {done}", progress::number(count), progress::number(matching)))
}
