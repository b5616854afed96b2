//! `ergate log repair`: says what is lost, and goes on without it once exactly that is accepted.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use ergate::clock::{Clock, SystemClock};
use ergate::events::command::Command;
use ergate::events::event::{Departure, Envelope, RuleVersions};
use ergate::events::id::{Position, ShardId};
use ergate::events::log::LogError;
use ergate::events::log::directory::{self, Options, Repair, inspect, repair};
use ergate::events::log::snapshot::SnapshotStore;
use ergate::events::shard::Shard;
use ergate::events::state::State;
use ergate::events::task::TEXT_BYTES_MAX;
use serde_json::json;

use crate::cli::exit::Trouble;
use crate::cli::{Exit, Format, Globals, config, offline, output};

/// What to accept, and why.
#[derive(clap::Args)]
pub(crate) struct RepairArgs {
    /// Act, if exactly so many acknowledged events are lost by that; without this only say what would be done
    #[arg(long, value_name = "N")]
    accept_loss: Option<u64>,
    /// Act without asking
    #[arg(short, long)]
    yes: bool,
    /// Why the loss is accepted, for the log
    #[arg(long, value_name = "TEXT", default_value = "accepted on the command line")]
    reason: String,
}

/// What a repair would have to accept.
struct Diagnosis {
    /// What a start says today; `None` when it would succeed.
    trouble: Option<LogError>,
    missing: u64,
    /// Where the log would end.
    found: Position,
    /// How far it once reached.
    reached: Position,
}

impl Diagnosis {
    const fn is_whole(&self) -> bool {
        self.trouble.is_none() && self.missing == 0
    }
}

pub(crate) fn run(args: &RepairArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let (config, dir) = (config::settings(globals)?, &offline::data_dir(globals)?);
    if args.reason.len() > TEXT_BYTES_MAX {
        return Err(Trouble::Usage(format!("the reason is longer than {TEXT_BYTES_MAX} bytes; write a shorter one")).into());
    }
    let diagnosis = diagnose(dir)?;
    let Some(accepted) = args.accept_loss else { return explain(&diagnosis, globals.output) };
    if diagnosis.is_whole() {
        if accepted > 0 {
            return Err(Trouble::Usage("the log is whole, so there is no loss to accept".to_owned()).into());
        }
        return explain(&diagnosis, globals.output);
    }
    if accepted != diagnosis.missing {
        let Diagnosis { missing, found, reached, .. } = diagnosis;
        return Err(LogError::Missing { anchored: reached, found, missing }.into());
    }
    if !args.yes && !confirm(&diagnosis)? {
        return Ok(Exit::Interrupted);
    }
    let done = repair(dir, accepted)?;
    let recorded = record(dir, accepted, &args.reason, config.log.options());
    report(&done, &recorded, globals.output)?;
    recorded.map(|_| Exit::Done)
}

/// Asks the repair for what it would need: no loss is as large as the one that is offered here, so it changes nothing.
fn diagnose(dir: &Path) -> anyhow::Result<Diagnosis> {
    let trouble = match inspect(dir) {
        // Only the ends were looked at; the middles are read here.
        Ok(found) => read_all(dir, found.base.next).err(),
        Err(error @ (LogError::NotFound { .. } | LogError::FormatTooNew { .. } | LogError::Io { .. })) => {
            return Err(error.into());
        }
        Err(error) => Some(error),
    };
    match repair(dir, u64::MAX) {
        Err(LogError::Missing { anchored, found, missing }) => Ok(Diagnosis { trouble, missing, found, reached: anchored }),
        Err(error) => Err(error.into()),
        Ok(_) => anyhow::bail!("the log claims to have lost more events than there are numbers; restore it from a copy"),
    }
}

/// Reads the log from its first position to its end.
fn read_all(dir: &Path, first: Position) -> Result<(), LogError> {
    let reader = directory::read(dir)?;
    let mut cursor = reader.cursor(first)?;
    while cursor.next_block()?.is_some() {}
    Ok(())
}

fn explain(diagnosis: &Diagnosis, format: Format) -> anyhow::Result<Exit> {
    let Diagnosis { trouble, missing, found, reached } = diagnosis;
    if format == Format::Json {
        let trouble = trouble.as_ref().map(|error| format!("{error:#}"));
        output::json(
            &json!({ "whole": diagnosis.is_whole(), "trouble": trouble, "missing": missing, "ends_at": found.0, "reached": reached.0 }),
        )?;
    } else if let Some(error) = trouble {
        output::line(&format!("found: {}", output::escape(&chain(error))))?;
        output::line(&sentence(diagnosis))?;
        output::line(&format!(
            "a copy of the files is better than this; else `ergate log repair --accept-loss {missing}` does it"
        ))?;
    } else {
        output::line(&format!("nothing to repair: the log is usable up to position {found}"))?;
    }
    Ok(if diagnosis.is_whole() { Exit::Done } else { Exit::Damaged })
}

fn chain(error: &LogError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
    let text = error.to_string();
    match cause {
        Some(cause) if !text.contains(&cause) => text + &cause,
        Some(_) | None => text,
    }
}

fn sentence(diagnosis: &Diagnosis) -> String {
    let Diagnosis { missing, found, reached, .. } = diagnosis;
    if *missing == 0 {
        return format!("a repair would lose no event: the log is whole up to position {found} and gets a new anchor");
    }
    format!(
        "a repair would give up {missing} acknowledged events: the log would end at position {found} of {reached}, and what lies behind is set aside in files named *.damaged"
    )
}

/// Asks on a terminal; elsewhere nobody could answer.
fn confirm(diagnosis: &Diagnosis) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Trouble::Usage("nobody is there to confirm it; add `--yes` to repair without asking".to_owned()).into());
    }
    write!(io::stderr(), "{}\ngo on? [y/N] ", sentence(diagnosis))?;
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Writes into the log that the loss was accepted: takes the log over, gives up the replicas of the process before, and says so.
fn record(dir: &Path, missing: u64, reason: &str, options: Options) -> anyhow::Result<Position> {
    let (mut log, recovery) = directory::open(dir, &options)?;
    let snapshots = SnapshotStore::open(dir, recovery.store.0);
    let (state, _) = ergate::store::recover(log.reader().as_ref(), log.head(), Some(&snapshots))?;
    let clock = SystemClock::starting(state.last_at);
    let by = std::env::var("USER").ok().filter(|name| name.len() <= TEXT_BYTES_MAX).unwrap_or_else(|| "operator".to_owned());
    let commands = commands(&state, missing, &by, reason);
    let mut shard = Shard::new(ShardId(0), state);
    let mut rest = commands.as_slice();
    while !rest.is_empty() {
        let mut answers = Vec::new();
        let taken = shard.batch(clock.now(), rest, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        rest = &rest[taken..];
        if let Some(block) = shard.seal(log.head().hash) {
            log.append(&block)?;
        }
    }
    let end = log.head().next;
    log.close()?;
    Ok(end)
}

/// Replicas go first, so that nothing is started on one whose process is gone.
fn commands<'a>(state: &State, missing: u64, by: &'a str, reason: &'a str) -> Vec<Command<'a>> {
    let departure = Departure::Lost;
    let work = state.work.replicas.iter().map(|(replica, _)| Command::LeaveReplica { replica, departure });
    let control = state.control.replicas.keys().map(|replica| Command::StopReplica { replica: *replica, departure });
    let open = Command::Open { rules: RuleVersions::CURRENT, writer: concat!("ergate ", env!("CARGO_PKG_VERSION"), " repair") };
    work.chain(control).chain([open, Command::AcceptLoss { missing, by, reason }]).collect()
}

fn report(done: &Repair, recorded: &anyhow::Result<Position>, format: Format) -> anyhow::Result<()> {
    let aside: Vec<_> = done.set_aside.iter().map(|path| path.display().to_string()).collect();
    if format == Format::Json {
        let recorded = recorded.as_ref().ok().map(|at| at.0);
        return output::json(
            &json!({ "repaired": true, "lost": done.lost, "ended_at": done.head.next.0, "set_aside": aside, "anchor_rewritten": done.anchor_rewritten, "head": recorded }),
        );
    }
    output::line(&format!(
        "repaired: the log was cut at position {}, {} acknowledged events were given up",
        done.head.next, done.lost
    ))?;
    aside.iter().try_for_each(|path| output::line(&output::escape(&format!("set aside: {path}"))))?;
    if let Ok(head) = recorded {
        output::line(&format!("recorded in the log, which ends at position {head} now"))?;
    }
    Ok(())
}
