//! `ergate replay`: the state at any moment, and what changed between two.

mod diff;
mod summary;

use std::time::Duration;

use ergate::events::id::{ShardId, TaskId};
use ergate::events::state::State;
use serde_json::json;

use self::summary::Summary;
use super::choice::{self, Side};
use super::exit::Trouble;
use super::logs::LogArgs;
use super::moment::{Moment, due, time};
use super::offline::Place;
use super::remote::{Ask, Path, Remote};
use super::table::Table;
use super::{Exit, Format, Globals, output};

/// How much longer than usual a service may take to fold a state: a billion events at ten million a second, and as much again for reading them.
const FOLD_MAX: Duration = Duration::from_secs(200);

/// Which moment, or which two.
#[derive(clap::Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    log: LogArgs,
    /// Fold the events before this position, or up to this time: RFC 3339, or µs since 1970 (any number above 10^12). The default is the end
    #[arg(long, value_name = "MOMENT", conflicts_with = "diff")]
    until: Option<Moment>,
    /// Show what changed between two moments
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    diff: Option<Vec<Moment>>,
    /// List the live tasks too, or with --diff the tasks that changed
    #[arg(long)]
    tasks: bool,
}

pub(crate) fn run(args: &ReplayArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if let Side::Service(remote) = choice::side(globals, args.log.flag())? {
        return online(&remote, args, globals);
    }
    let places = args.log.open(globals)?;
    require_times(args, &places)?;
    for (index, place) in places.iter().enumerate() {
        if places.len() > 1 && globals.output == Format::Table {
            output::line(if index > 0 { "" } else { "every shard by itself" })?;
        }
        replay(args, place, globals)?;
    }
    Ok(Exit::Done)
}

/// The state of a service, now or at a past moment.
fn online(remote: &Remote, args: &ReplayArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if args.diff.is_some() || args.tasks {
        let text = "--diff and --tasks need the log itself; name its directory with --data";
        return Err(Trouble::Usage(text.to_owned()).into());
    }
    let at = args.until.map(|until| match until {
        Moment::Position(at) => at.to_string(),
        Moment::Time(at) => time(at),
    });
    // Folding a long log takes a while, and nothing comes until it is done.
    let ask = Ask::get(Path::new("/v1/state").with("at", at)).waiting(FOLD_MAX);
    let body = remote.ask_with_patience(&ask)?.body;
    match globals.output {
        Format::Json => output::line(&String::from_utf8_lossy(&body))?,
        Format::Table => summary::print(&remote.parse(&body)?)?,
    }
    Ok(Exit::Done)
}

/// A position is a place in one log, and a time is one in all.
fn require_times(args: &ReplayArgs, places: &[Place]) -> Result<(), Trouble> {
    let mut moments = args.until.iter().chain(args.diff.iter().flatten());
    match moments.find(|moment| matches!(moment, Moment::Position(_))).filter(|_| places.len() > 1) {
        Some(moment) => Err(Trouble::Usage(format!(
            "every shard has its own positions; give a time instead of {moment}, or choose a shard with --shard"
        ))),
        None => Ok(()),
    }
}

fn replay(args: &ReplayArgs, place: &Place, globals: &Globals) -> anyhow::Result<()> {
    if let Some([from, to]) = args.diff.as_deref() {
        let before = place.fold(globals, *from)?;
        // Both ends are checked alike before the one is folded on from the other.
        let after = match to {
            Moment::Position(at) if *at >= before.position && *at <= place.span().next => {
                place.fold_on(globals, before.clone(), *to)?
            }
            Moment::Time(at) if *at >= before.last_at => place.fold_on(globals, before.clone(), *to)?,
            Moment::Position(at) if *at > before.position => place.fold(globals, *to)?,
            Moment::Position(_) | Moment::Time(_) => {
                return Err(Trouble::Usage(format!("{to} comes before {from}; write the earlier moment first")).into());
            }
        };
        return diff::print(place.shard, &before, &after, args.tasks, globals.output);
    }
    let until = args.until.unwrap_or(Moment::Position(place.span().next));
    let state = place.fold(globals, until)?;
    print(place.shard, &state, args.tasks, globals.output)
}

fn print(shard: ShardId, state: &State, tasks: bool, format: Format) -> anyhow::Result<()> {
    let summary = Summary::of(shard, state);
    match format {
        Format::Json => output::json(&summary)?,
        Format::Table => summary::print(&serde_json::to_value(&summary)?)?,
    }
    match (tasks, format) {
        (false, _) => Ok(()),
        (true, Format::Json) => print_tasks_json(shard, state),
        (true, Format::Table) => print_tasks(shard, state),
    }
}

fn print_tasks_json(shard: ShardId, state: &State) -> anyhow::Result<()> {
    state.work.tasks.iter().try_for_each(|(ordinal, task, payload)| {
        output::json(&json!({
            "task": TaskId { shard, ordinal },
            "type": summary::type_name(state, task),
            "phase": task.phase,
            "priority": task.priority,
            "starts": task.attempt,
            "failures": task.failures,
            "losses": task.losses,
            "replica": task.has_slot().then(|| task.replica.to_string()),
            "requested": time(task.requested_at),
            "due": (task.due != ergate::events::time::Timestamp::NEVER).then(|| time(task.due)),
            "payload_bytes": payload.len(),
        }))
    })
}

fn print_tasks(shard: ShardId, state: &State) -> anyhow::Result<()> {
    output::line("")?;
    let mut table = Table::new(&["TASK", "TYPE", "PHASE", "STARTS", "REQUESTED", "DUE"]);
    for (ordinal, task, _) in state.work.tasks.iter() {
        let name = summary::type_name(state, task).to_owned();
        let (id, phase) = (TaskId { shard, ordinal }.to_string(), summary::phase_name(task.phase).to_owned());
        table.row([id, name, phase, task.attempt.to_string(), time(task.requested_at), due(task.due)]);
    }
    table.print()
}
