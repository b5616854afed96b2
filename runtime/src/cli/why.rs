//! `ergate why`: why a pool has the size that it has, and why a task waited.

use ergate::events::id::TaskId;
use ergate::events::time::Micros;
use ergate::look::fold::Source;
use ergate::look::record::plain;
use ergate::look::waits::waits;
use ergate::look::why::{why, why_not, why_shadow};
use serde_json::{Value, json};

use super::choice::{self, Side};
use super::exit::Trouble;
use super::logs::LogArgs;
use super::moment::Moment;
use super::remote::Path;
use super::table::{self, Table};
use super::{Exit, Format, Globals, output};

/// What is asked.
#[derive(clap::Args)]
pub(crate) struct WhyArgs {
    #[command(flatten)]
    log: LogArgs,
    /// The pool; or the id of a task, such as 0-42
    #[arg(value_name = "POOL|TASK")]
    what: String,
    /// As it was at a position or a time, such as 1200 or 2030-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", help_heading = "Of a pool")]
    at: Option<Moment>,
    /// Why it does not have so many replicas
    #[arg(long, value_name = "N", help_heading = "Of a pool")]
    not: Option<u32>,
    /// What this shadow would have, and why: a policy that decides beside the one of the pool
    #[arg(long, value_name = "NAME", help_heading = "Of a pool", conflicts_with = "not")]
    shadow: Option<String>,
}

impl WhyArgs {
    /// The task that is asked about; pools have other names.
    fn task(&self) -> Option<TaskId> {
        self.what.parse().ok()
    }
}

pub(crate) fn run(args: &WhyArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if let Some(task) = args.task() {
        if args.at.is_some() || args.not.is_some() || args.shadow.is_some() {
            return Err(Trouble::Usage(
                "--at, --not and --shadow are about pools; a task has waited for what it has waited".to_owned(),
            )
            .into());
        }
        return run_task(args, task, globals);
    }
    let told: Value = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => {
            let path = Path::new("/v1/pools").below(&args.what).below("why");
            let path = path.with("at", args.at.map(|at| at.text())).with("not", args.not);
            remote.get(path.with("shadow", args.shadow.as_deref()))?
        }
        Side::Directory => {
            let place = args.log.open_sizes(globals)?;
            let state = match args.at {
                Some(at) => place.fold(globals, at)?,
                None => place.fold_all(globals)?,
            };
            let missing = || {
                let text = format!("no policy sizes a pool {:?}; `ergate pool set` gives a pool one", args.what);
                Trouble::NotFound(text)
            };
            let mut told = match &args.shadow {
                Some(shadow) => why_shadow(&state, &args.what, shadow).ok_or_else(|| {
                    Trouble::NotFound(format!(
                        "the pool {:?} has no shadow {shadow:?}; `ergate why {}` names those it has",
                        args.what, args.what
                    ))
                })?,
                None => why(&state, &args.what).ok_or_else(missing)?,
            };
            if let Some(not) = args.not {
                told["not"] = json!({ "replicas": not, "because": why_not(&state, &args.what, not) });
            }
            told
        }
    };
    match globals.output {
        Format::Json => output::json(&told)?,
        Format::Table => print(&told)?,
    }
    Ok(Exit::Done)
}

fn run_task(args: &WhyArgs, task: TaskId, globals: &Globals) -> anyhow::Result<Exit> {
    let told = match choice::side(globals, args.log.flag())? {
        Side::Service(remote) => remote.get(Path::new("/v1/tasks").below(&args.what).below("why"))?,
        Side::Directory => {
            let place = args.log.of_task(task).open_one(globals)?;
            let blocks = if task.shard == place.shard { place.index(globals)?.history(task.ordinal, None)? } else { Vec::new() };
            let missing = || Trouble::NotFound(format!("the log has no event of the task {task}"));
            let mut told =
                waits(&Source { reader: place.reader.as_ref(), snapshots: Some(&place.snapshots()) }, &blocks, task.ordinal)?
                    .ok_or_else(missing)?;
            told["task"] = json!(task);
            told
        }
    };
    match globals.output {
        Format::Json => output::json(&told)?,
        Format::Table => print_task(&told)?,
    }
    Ok(Exit::Done)
}

/// The sum first, then each part.
fn print_task(told: &Value) -> anyhow::Result<()> {
    let span = |value: &Value| Micros(value.as_u64().unwrap_or_default()).to_string();
    let state = if told["waiting"] == true { "waits, for" } else { "waited" };
    let sums = told["by_cause_us"].as_object().into_iter().flatten();
    let sums: Vec<String> = sums.map(|(cause, sum)| format!("{} {}", span(sum), cause.replace('_', " "))).collect();
    let split = if sums.is_empty() { String::new() } else { format!(": {}", sums.join(", ")) };
    output::line(&format!("{} {state} {}{split}", plain(&told["task"]), span(&told["waited_us"])))?;
    if let Some(setting) = told["remedy"]["setting"].as_str() {
        output::line(&output::escape(&format!("avoided by: {setting} ({})", plain(&told["remedy"]["cost"]))))?;
    }
    output::line("")?;
    let mut table = Table::new(&["ATTEMPT", "WAITED", "CAUSE", "BECAUSE", "SINCE THE EVENT"]);
    for part in told["parts"].as_array().into_iter().flatten() {
        let event = format!("{} at position {}", plain(&part["event"]), plain(&part["position"]));
        let cause = plain(&part["cause"]).replace('_', " ");
        table.row([plain(&part["attempt"]), span(&part["waited_us"]), cause, plain(&part["because"]), event]);
    }
    table.print()
}

/// Who holds the size, and what each shadow would have: a line each.
fn print_beside(told: &Value) -> anyhow::Result<()> {
    let hold = &told["hold"];
    if hold.is_object() {
        let cut = match hold["cut_by"].as_str() {
            Some(bound) => format!(" ({} were asked for, and the pool's `{bound}` is in the way)", hold["replicas"]),
            None => String::new(),
        };
        let because = hold["reason"].as_str().filter(|reason| !reason.is_empty());
        let because = because.map(|reason| format!(": {reason}")).unwrap_or_default();
        let line = format!("held at {}{cut} by {} until {}{because}", hold["size"], plain(&hold["by"]), plain(&hold["until"]));
        output::line(&output::escape(&line))?;
    }
    for shadow in told["shadows"].as_array().into_iter().flatten() {
        let line = match (shadow["wanted"].as_u64(), shadow["sentence"].as_str()) {
            (Some(wanted), Some(sentence)) => format!("shadow {} would have {wanted}: {sentence}", plain(&shadow["name"])),
            _ => format!("shadow {} has decided nothing yet", plain(&shadow["name"])),
        };
        output::line(&output::escape(&line))?;
    }
    Ok(())
}

/// One screen: the sentence first, then every number.
fn print(told: &Value) -> anyhow::Result<()> {
    let decision = &told["decision"];
    let name = match told["shadow"].as_str() {
        Some(shadow) => format!("shadow {shadow} of {}", plain(&told["pool"])),
        None => plain(&told["pool"]),
    };
    let Some(sentence) = decision["sentence"].as_str() else {
        output::line(&output::escape(&format!("{name} has a policy, and nothing was decided yet")))?;
        return print_beside(told);
    };
    output::line(&output::escape(&format!("{name} {sentence}")))?;
    if let Some(because) = told["not"]["because"].as_str() {
        output::line(&output::escape(&format!("not {}: {because}", told["not"]["replicas"])))?;
    }
    print_beside(told)?;
    output::line("")?;
    let replicas = &decision["replicas"];
    let there = ["live", "starting", "ready", "draining"].map(|name| format!("{} {name}", plain(&replicas[name])));
    // A shadow has the bounds of its pool, which another event has set.
    let whose = if told["shadow"].is_string() { "; the shadow was set" } else { ", set" };
    let set = format!("{whose} at position {}", plain(&told["set_at"]));
    table::facts(&[
        ("decided", Some(plain(&decision["at"]))),
        ("policy", Some(plain(&told["policy"]["policy"]))),
        ("bounds", Some(format!("{} to {}{set}", told["min"], told["max"]))),
        ("there were", Some(format!("{}, {} slots each", there.join(", "), plain(&replicas["slots"])))),
        ("looks again", decision["look_again"].as_str().map(str::to_owned)),
    ])?;
    output::line("")?;
    let mut signals = Table::new(&["SIGNAL", "VALUE"]);
    for signal in decision["signals"].as_array().into_iter().flatten() {
        let failed = signal["failed"].as_str().map(|reason| format!("cannot be read: {reason}"));
        signals.row([plain(&signal["name"]), failed.unwrap_or_else(|| plain(&signal["text"]))]);
    }
    signals.print()?;
    output::line("")?;
    let mut inputs = Table::new(&["INPUT", "VALUE", "ASKS FOR", ""]);
    for input in decision["inputs"].as_array().into_iter().flatten() {
        let asks = match &input["asks"] {
            Value::Null => "-".to_owned(),
            Value::Object(failed) => failed.get("failed").map(plain).unwrap_or_default(),
            count @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => plain(count),
        };
        let value = input["value"].as_str().unwrap_or("-").to_owned();
        inputs.row([plain(&input["name"]), value, asks, if input["won"] == true { "won" } else { "" }.to_owned()]);
    }
    inputs.print()?;
    let limits = decision["limits"].as_array().filter(|limits| !limits.is_empty());
    let Some(limits) = limits else { return Ok(()) };
    output::line("")?;
    let mut table = Table::new(&["BOUND", "MADE", "OF", "SET BY"]);
    for limit in limits {
        table.row(["kind", "to", "from", "by"].map(|name| plain(&limit[name])));
    }
    table.print()
}
