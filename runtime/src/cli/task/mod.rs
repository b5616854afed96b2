//! Looking at tasks, and what operators do with them.

mod act;
mod history;
mod list;
pub(crate) mod result;
mod show;
mod watch;

use ergate::events::id::TaskId;
use ergate::events::log::index::TaskIndex;

use super::exit::Trouble;
use super::offline::{Next, Place};
use super::record::{self, Record};
use super::{Exit, Globals};

/// What to look at.
#[derive(clap::Subcommand)]
pub(crate) enum TaskVerb {
    /// List tasks, the newest first
    List(list::ListArgs),
    /// Show everything that is known about a task
    Show(show::ShowArgs),
    /// Show the events of a task in order
    History(history::HistoryArgs),
    /// Print the result of a task of a service, once it has ended
    Result(result::ResultArgs),
    /// Ask tasks of a service to stop; their attempts may clean up first
    Cancel(act::ActArgs),
    /// End tasks of a service now
    Kill(act::ActArgs),
    /// Try dead letters of a service again, each as a new task
    Retry(act::ActArgs),
}

pub(crate) fn run(verb: TaskVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        TaskVerb::List(args) => list::run(&args, globals),
        TaskVerb::Show(args) => show::run(&args, globals),
        TaskVerb::History(args) => history::run(&args, globals),
        TaskVerb::Result(args) => result::run(&args, globals),
        TaskVerb::Cancel(args) => act::run("cancel", &args, globals),
        TaskVerb::Kill(args) => act::run("kill", &args, globals),
        TaskVerb::Retry(args) => act::run("retry", &args, globals),
    }
}

/// Shows every event of a task that the log still holds to `each`, in order; says how many there were.
fn each_event(
    place: &Place,
    index: &TaskIndex,
    task: TaskId,
    each: &mut dyn FnMut(&Record<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut found = 0;
    if task.shard != place.shard {
        return Ok(found);
    }
    for at in index.history(task.ordinal, None)? {
        let Some(block) = place.reader.cursor(at)?.next_block()? else { continue };
        for record in record::of(&block) {
            let record = record?;
            if record.concerns(task.ordinal) {
                each(&record)?;
                found += 1;
            }
        }
    }
    Ok(found)
}

/// Why nothing is known of a task: it never was, or it is no longer kept.
fn unknown(place: &Place, task: TaskId) -> anyhow::Result<Trouble> {
    let span = place.span();
    let mut first_kept = None;
    if task.shard == place.shard && span.first.0 > 0 {
        place.each_record(span.first, &mut |record| {
            first_kept = record.creates;
            Ok(if first_kept.is_some() { Next::Enough } else { Next::More })
        })?;
    }
    Ok(Trouble::NotFound(match first_kept {
        Some(first) if task.ordinal < first => {
            format!("task {task} is no longer kept: the log begins at position {} with task {}-{first}", span.first, place.shard)
        }
        Some(_) | None => format!("no task {task} is in the log; `ergate task list` shows those that are"),
    }))
}
