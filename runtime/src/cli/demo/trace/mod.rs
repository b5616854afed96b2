//! `ergate demo --trace`: recorded arrivals drive a live pool, and a back-test of the same arrivals is held against it.

mod feed;
mod screen;
mod watch;
mod word;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ergate::events::backtest::trace::{self, ServiceModel};
use ergate::events::backtest::{self, Arrivals, Setup};
use ergate::events::scaling::AnyPolicy;
use ergate::events::scaling::signal::Bounds;
use ergate::{IntoTask, Runtime, Store, TaskError, TypeSettings};
use serde::{Deserialize, Serialize};

use self::feed::Feed;
use self::watch::Watch;
use self::word::Word;
use super::{DemoArgs, replay};
use crate::cli::embedded;
use crate::cli::exit::Trouble;
use crate::cli::moment::Moment;
use crate::cli::offline::Place;
use crate::cli::signals::{Signals, close};
use crate::cli::whatif::{day, read_trace};
use crate::cli::{Exit, Format, Globals, output};

/// The pool that does the work.
const POOL: &str = "trace";
/// What requests call the work.
const TASK: &str = "trace.task";
/// How often the screen is drawn, and looked whether all is done.
const TICK: Duration = Duration::from_millis(100);
/// The fastest: a day in less than ten seconds.
const SPEED_MAX: f64 = 10_000.0;
/// Slots of a replica where nobody says otherwise.
const SLOTS: u32 = 1;

/// How recorded arrivals are run live.
#[derive(clap::Args)]
pub(crate) struct TraceArgs {
    /// Instead of files: recorded arrivals (as for `ergate whatif`) drive a live pool whose tasks sleep for as long as the recorded ones took
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "replicas", "digests"])]
    trace: Option<PathBuf>,
    /// How many times faster than recorded: both the time between arrivals and the time that tasks take
    #[arg(long, value_name = "TIMES", default_value = "60", requires = "trace", value_parser = parse_speed)]
    speed: f64,
    /// The policy that sizes the pool: a file, or the name of one that comes with Ergate. Its spans are those of the clock, however fast the trace is
    #[arg(long, value_name = "FILE", default_value = "balanced", requires = "trace")]
    policy: PathBuf,
    /// Fewest replicas
    #[arg(long, value_name = "N", default_value_t = 0, requires = "trace")]
    min: u32,
    /// Most replicas; each is a thread with slots of its own
    #[arg(long, value_name = "N", default_value_t = 20, requires = "trace", value_parser = clap::value_parser!(u32).range(1..=64))]
    max: u32,
    /// Stop after so many seconds of arrivals, and end what has arrived
    #[arg(long, value_name = "N", requires = "trace")]
    seconds: Option<u64>,
}

impl TraceArgs {
    /// Whether this is what is asked for.
    pub(super) const fn is_given(&self) -> bool {
        self.trace.is_some()
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    let speed = text.trim_end_matches('x').parse::<f64>().ok().filter(|speed| (0.01..=SPEED_MAX).contains(speed));
    speed.ok_or_else(|| format!("use a number from 0.01 to {SPEED_MAX}, such as 60"))
}

/// What a request says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// Microseconds.
    us: u64,
}

async fn nap(Payload { us }: Payload) -> Result<(), TaskError> {
    tokio::time::sleep(Duration::from_micros(us)).await;
    Ok(())
}

/// What the run is of.
struct Plan {
    name: String,
    /// What the policy is called.
    policy: String,
    speed: f64,
    /// Sped up, and up to where it is stopped.
    arrivals: Arrivals,
    /// The pool; the time of a start is not known yet.
    setup: Setup,
}

pub(super) async fn run(args: DemoArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut signals = Signals::listen()?;
    let plan = plan(&args)?;
    let store = args.log.clone().unwrap_or_else(|| Store::Directory(globals.data.clone().unwrap_or_else(super::fresh_dir)));
    let data = store
        .dir()
        .map(Path::to_owned)
        .ok_or_else(|| Trouble::Usage("a log in memory cannot be verified when all is done; name a directory".to_owned()))?;
    if data.join("store").exists() {
        let text = format!(
            "{} holds a log already; a trace needs a new one, so leave --data out or name another directory",
            data.display()
        );
        return Err(Trouble::Usage(text).into());
    }
    let runtime = start(&args, store, &data, &plan).await?;
    if !globals.quiet {
        output::note(&output::escape(&format!("a new log in {}", data.display())));
    }
    let outcome = drive(&plan, &runtime, &mut signals, globals).await;
    let closed = close(&runtime, &mut signals, args.drain).await;
    let Some((live, elapsed)) = embedded::settle(&runtime, outcome, closed)? else {
        embedded::say_kept(&runtime, &data);
        return Ok(Exit::Interrupted);
    };
    let Some(replayed) = replay::replay(&data, live, globals, &mut signals).await? else { return Ok(Exit::Interrupted) };
    let equal = replayed.equal;
    let word = word(&plan, &data, replayed, elapsed, globals)?;
    match globals.output {
        Format::Json => output::json(&word.json())?,
        Format::Table => word.print()?,
    }
    Ok(if equal { Exit::Done } else { Exit::Damaged })
}

fn plan(args: &DemoArgs) -> anyhow::Result<Plan> {
    let TraceArgs { trace: Some(path), speed, policy, min, max, seconds } = &args.traced else {
        return Err(Trouble::Usage("name a trace with --trace".to_owned()).into());
    };
    let refused = |reason: String| Trouble::Usage(format!("cannot use {} as a trace: {reason}", path.display()));
    let text = read_trace(path).map_err(refused)?;
    let read = trace::read(&text, ServiceModel::AZURE).map_err(|error| refused(error.to_string()))?;
    let arrivals =
        feed::sped_up(&read.arrivals, *speed, seconds.map(Duration::from_secs)).map_err(|error| refused(error.to_string()))?;
    if arrivals.is_empty() {
        return Err(refused("no task arrives in that time".to_owned()).into());
    }
    let called = policy.file_stem().unwrap_or(policy.as_os_str()).to_string_lossy().into_owned();
    let policy: AnyPolicy = ergate_config::read_policy(policy).map_err(Trouble::Usage)?;
    let bounds = Bounds { min: *min, max: *max };
    let setup = Setup { slots: args.slots.unwrap_or(SLOTS), ..Setup::new(policy, bounds) };
    day::checked(&called, &setup)?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Plan { name, policy: called, speed: *speed, arrivals, setup })
}

async fn start(args: &DemoArgs, store: Store, data: &Path, plan: &Plan) -> anyhow::Result<Runtime> {
    embedded::require_dir(data)?;
    let Setup { bounds, slots, policy, .. } = &plan.setup;
    let settings = TypeSettings { pool: POOL.to_owned(), ..TypeSettings::default() };
    let builder = Runtime::builder()
        .store(store)
        .by("ergate demo")
        .own_tasks_only()
        .task_with(TASK, settings, nap.into_task())
        .pool_between(POOL, bounds.min, bounds.max, *slots)
        .policy(POOL, policy.clone());
    Ok(args.durability.into_iter().fold(builder, ergate::Builder::durability).start().await?)
}

/// Submits what arrives until all of it is done; `None` when a signal came first.
async fn drive(
    plan: &Plan,
    runtime: &Runtime,
    signals: &mut Signals,
    globals: &Globals,
) -> anyhow::Result<Option<(replay::Live, Duration)>> {
    let mut feed = Feed::new(plan.arrivals.tasks(), runtime.task_type(TASK)?);
    let mut watch = Watch::new(plan, runtime, globals)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = signals.next() => return Ok(None),
            Some(reason) = runtime.failed() => return Err(crate::cli::pump::failure(reason)),
            _ = tick.tick() => {
                feed.check()?;
                watch.look(runtime, feed.fed(), feed.elapsed()).await?;
                if feed.is_over() && runtime.with_progress(|progress| progress.done()) >= feed.fed() as u64 {
                    break;
                }
            }
            fed = feed.next(runtime), if !feed.is_over() => fed?,
        }
    }
    let elapsed = feed.elapsed();
    watch.finish();
    Ok(Some((replay::live(runtime).await?, elapsed)))
}

/// What happened against what the back-test says.
fn word(plan: &Plan, data: &Path, replayed: replay::Replayed, elapsed: Duration, globals: &Globals) -> anyhow::Result<Word> {
    let began = Instant::now();
    let place = Place::directory(data)?;
    let recorded = day::follow(&place, POOL, ergate::events::state::State::default(), None::<Moment>, globals)?;
    let start = recorded.start_mean().unwrap_or_default();
    let pool = Setup { start, until: recorded.length, initial: Some(plan.setup.bounds.min), ..plan.setup.clone() };
    let trouble = |error: backtest::BacktestError| Trouble::Usage(error.to_string());
    let simulated = backtest::run(&plan.arrivals, &pool).map_err(trouble)?;
    let fidelity = recorded.fidelity(&pool).map_err(trouble)?;
    let happened = recorded.report(&pool);
    tracing::debug!(took = ?began.elapsed(), "the back-test is done");
    let data = data.display().to_string();
    Ok(Word { name: plan.name.clone(), speed: plan.speed, data, elapsed, happened, simulated, fidelity, start, replayed })
}
