//! `ergate demo`: digests every file under a directory as tasks, or lets a recorded trace drive a live pool; then replays and verifies the log.

mod replay;
mod summary;
mod tally;
mod trace;
mod walk;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ergate::tasks::{self, file_digest};
use ergate::{Durability, Runtime, Store};

use self::summary::{Mark, Summary};
use self::tally::Tally;
use self::walk::Walk;
use super::config::{Children, configure, settings};
use super::embedded::{self, parse_durability, parse_span};
use super::progress::{Display, count};
use super::pump::{self, Stopped};
use super::signals::{Signals, block_on, close};
use super::{Exit, Format, Globals, output};

/// Where runs of the demo are kept when nobody says otherwise, a folder a run.
const HOME: &str = "ergate-demo";

/// Printed below the help of the verb.
const HELP: &str = "Digests every regular file under a directory: one task a file, each durable before it starts. Then the log is read back \
from disk, every decision in it is computed again, and the state is compared with the one that was live.\n\n\
Every run has a data directory of its own (./ergate-demo/TIME) unless --data names one; where that holds a log, the run \
goes on with it. Links are not followed; directories named .git and target and those with an Ergate log are passed over.\n\n\
Exit codes: 0 every file was digested; 3 some were not, because they vanished or cannot be read (the log is verified all \
the same); 5 the log did not verify; 130 interrupted.";

/// What the verb takes.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct DemoArgs {
    /// Directory whose files are digested
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Replicas of the pool `files`; each is a thread with workers of its own
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    replicas: u32,
    /// Slots of a replica: files that it reads at once, 4 of them; with --trace tasks that it does at once, 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    slots: Option<u32>,
    /// Where the log is kept: `sled:DIR`, `file:DIR`, or DIR, where the log that is there says what keeps it; sled keeps a new one
    #[arg(long, value_name = "LOG", conflicts_with = "data", value_parser = embedded::parse_log)]
    log: Option<Store>,
    /// When a task counts as accepted: `fsync`, `interval:MS` (a power cut loses at most so much) or `memory`
    #[arg(long, value_name = "MODE", value_parser = parse_durability)]
    durability: Option<Durability>,
    /// Write a line for each file, as `b3sum` does, in the order in which they were done
    #[arg(long, value_name = "FILE")]
    digests: Option<PathBuf>,
    /// How long running tasks may go on after the first signal
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = parse_span)]
    drain: Duration,
    #[command(flatten)]
    traced: trace::TraceArgs,
}

/// Files that a replica reads at once.
const SLOTS: u32 = 4;

pub(crate) fn run(args: DemoArgs, globals: &Globals) -> anyhow::Result<Exit> {
    if args.traced.is_given() {
        return block_on(trace::run(args, globals));
    }
    block_on(demo(args, globals))
}

async fn demo(args: DemoArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let root = args.dir.canonicalize().with_context(|| format!("failed to find the directory {}", args.dir.display()))?;
    anyhow::ensure!(root.is_dir(), "{} is not a directory; name one with --dir", args.dir.display());
    let digests = args.digests.as_deref().map(create).transpose()?;
    let store = args.log.clone().unwrap_or_else(|| Store::Directory(globals.data.clone().unwrap_or_else(fresh_dir)));
    let data = store.dir().map(Path::to_owned).unwrap_or_default();
    let runtime = start(&args, store, &data, globals).await?;
    let outcome = work(&args, &data, &runtime, &mut signals, globals, digests).await;
    let closed = close(&runtime, &mut signals, args.drain).await;
    let worked = embedded::settle(&runtime, outcome, closed)?;
    let Some((mut summary, live, clean)) = worked else {
        embedded::say_kept(&runtime, &data);
        return Ok(Exit::Interrupted);
    };
    summary.replay = replay::replay(&data, live, globals, &mut signals).await?;
    match globals.output {
        Format::Json => output::json(&summary)?,
        Format::Table => {
            summary.print()?;
            summary.print_next()?;
        }
    }
    Ok(match &summary.replay {
        None => Exit::Interrupted,
        Some(replay) if !replay.equal => Exit::Damaged,
        Some(_) if clean => Exit::Done,
        Some(_) => Exit::Unsuccessful,
    })
}

async fn start(args: &DemoArgs, store: Store, data: &Path, globals: &Globals) -> anyhow::Result<Runtime> {
    embedded::require_dir(data)?;
    let goes_on = data.join("store").exists();
    let builder = tasks::register(Runtime::builder()).store(store).by("ergate demo").own_tasks_only();
    // Flags speak last.
    let config = settings(globals)?;
    let builder = configure(builder, &config, &Children::of(globals, &config))?.pool(
        file_digest::POOL,
        args.replicas,
        args.slots.unwrap_or(SLOTS),
    );
    let builder = args.durability.into_iter().fold(builder, ergate::Builder::durability);
    let runtime = builder.start().await?;
    if !globals.quiet {
        let how = if goes_on { "going on with the log in" } else { "a new log in" };
        output::note(&output::escape(&format!("{how} {}", data.display())));
        embedded::say_left_over(&runtime);
    }
    Ok(runtime)
}

/// Digests all files; `None` when a signal came first.
async fn work(
    args: &DemoArgs,
    data: &Path,
    runtime: &Runtime,
    signals: &mut Signals,
    globals: &Globals,
    digests: Option<File>,
) -> anyhow::Result<Option<(Summary, replay::Live, bool)>> {
    let since = Mark::now(runtime);
    let own = args.digests.as_deref().and_then(|path| path.canonicalize().ok());
    let walk = Walk { dir: args.dir.clone(), own, task_type: runtime.task_type(file_digest::NAME)? };
    let (source, seen) = walk.start()?;
    let mut tally = Tally::new(seen, digests);
    let mut display = Display::new(globals, "digesting", "tasks");
    let stopped = pump::run(runtime, signals, &mut display, source, &mut tally).await;
    display.finish();
    tally.flush()?;
    if stopped? == Stopped::Interrupted {
        output::note(&format!("stopped after {}", count(tally.answered_count(), "file", "files")));
        return Ok(None);
    }
    let elapsed = tally.started.elapsed();
    let live = replay::live(runtime).await?;
    let clean = tally.is_clean();
    Ok(Some((Summary::new(&args.dir, data, runtime, since, tally, elapsed), live, clean)))
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("failed to create {}", path.display()))
}

/// A data directory that nobody uses yet.
fn fresh_dir() -> PathBuf {
    let name = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let names = std::iter::once(name.clone()).chain(numbered);
    // Made at once, so that two runs of one second have two. What cannot be made is named when it is opened.
    let _ = std::fs::create_dir_all(HOME);
    let fresh = names.take(1_000).map(|name| Path::new(HOME).join(name)).find(|path| std::fs::create_dir(path).is_ok());
    fresh.unwrap_or_else(|| Path::new(HOME).join(&name))
}
