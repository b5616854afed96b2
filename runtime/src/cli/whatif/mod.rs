//! `ergate whatif`: a recorded day under other policies.

mod answer;
pub(crate) mod day;
mod file;
mod plot;
mod shadows;
mod sweep;

use std::path::PathBuf;

use ergate::events::backtest::{self, Report, Score, Setup, bounds, front};
use ergate::events::time::Micros;

pub(in crate::cli) use self::answer::{fidelity, seconds, told};
use self::day::{Day, DayArgs, checked};
use self::sweep::Axis;
use super::exit::Trouble;
use super::{Exit, Format, Globals, output};

/// Printed below the help of the verb.
const HELP: &str = "docs/backtesting.md says what is assumed, what each number means and how to read the plots. Policies are TOML or JSON; those \
of config/examples/policies are compared when none is named.";

/// Reads a trace as a text.
pub(in crate::cli) fn read_trace(path: &std::path::Path) -> Result<String, String> {
    file::read(path, file::TRACE_BYTES_MAX)
}

/// Which day, under what.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct WhatifArgs {
    #[command(flatten)]
    day: DayArgs,
    /// A policy; may be given many times
    #[arg(long, value_name = "FILE", num_args = 1..)]
    policy: Vec<PathBuf>,
    /// Try every combination of these values of one policy (of the one that runs, where none is named), and show those that no other beats. Keys
    /// are those of the policy, and min, max and slots
    #[arg(long, value_name = "KEY=a,b,c", num_args = 1..)]
    sweep: Vec<Axis>,
    /// Hold what really ran against the shadows of the pool: what each wanted, and how its policy would have done by itself
    #[arg(long, requires = "pool", conflicts_with_all = ["trace", "policy", "sweep", "csv"])]
    shadows: bool,
    /// Write plots to this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print the table as CSV
    #[arg(long)]
    csv: bool,
}

/// A policy and what it came to.
struct Candidate {
    name: String,
    report: Report,
    /// Whether no other one is at least as good in cost, violations and events, and better in one.
    is_on_front: bool,
}

/// What all of them are held against.
struct Yardsticks {
    work_floor: Micros,
    zero_wait: bounds::ZeroWait,
    /// What somebody who knows the future could do within the wait target.
    clairvoyant: Micros,
}

/// Everything there is to show.
struct Comparison {
    day: Day,
    yardsticks: Yardsticks,
    candidates: Vec<Candidate>,
    /// How many combinations were tried, if any.
    swept: Option<usize>,
    /// What was really wanted over time, and what shadows wanted, where those are looked at.
    lines: Vec<shadows::Line>,
}

/// What really happened, as a row.
const RECORDED: &str = "recorded";
/// What really ran, run again, as a row.
const AGAIN: &str = "run again";

pub(crate) fn run(args: &WhatifArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let day = args.day.read(globals)?;
    let comparison = compare(args, day)?;
    if let Some(path) = &args.plot {
        let text = plot::draw(&comparison);
        std::fs::write(path, text).map_err(|source| Trouble::Unwritable { path: path.clone(), source })?;
    }
    if globals.output == Format::Json {
        answer::json(&comparison)?;
    } else if args.shadows {
        shadows::table(&comparison)?;
    } else if args.csv {
        answer::csv(&comparison)?;
    } else {
        answer::table(&comparison)?;
    }
    Ok(Exit::Done)
}

fn compare(args: &WhatifArgs, day: Day) -> anyhow::Result<Comparison> {
    let setups = setups(args, &day)?;
    let mut candidates = Vec::new();
    if let Some(ran) = day.ran() {
        candidates.push(Candidate { name: RECORDED.to_owned(), report: ran.report.clone(), is_on_front: false });
        let again = ran.recorded.again(&day.pool);
        let report = backtest::run(&day.arrivals, &again).map_err(|error| Trouble::Usage(error.to_string()))?;
        candidates.push(Candidate { name: AGAIN.to_owned(), report, is_on_front: false });
    }
    let real = candidates.len();
    for (name, setup) in setups {
        let report = backtest::run(&day.arrivals, &setup).map_err(|error| Trouble::Usage(format!("policy {name}: {error}")))?;
        candidates.push(Candidate { name, report, is_on_front: false });
    }
    let scores = scores(&candidates[real..]);
    // Who leaves work alone is cheap, and no answer.
    let is_answer = |candidate: &Candidate| candidate.report.unserved == 0;
    for (candidate, is_on_front) in candidates[real..].iter_mut().zip(front(&scores)) {
        candidate.is_on_front = is_on_front && is_answer(candidate);
    }
    let (counted, pool) = (day.counted(), &day.pool);
    let yardsticks = Yardsticks {
        work_floor: bounds::work_floor(&counted, pool.slots),
        zero_wait: bounds::zero_wait(&counted, pool.slots, pool.start),
        clairvoyant: bounds::clairvoyant(&counted, pool.slots, pool.start, pool.wait_target).billed,
    };
    let lines = if args.shadows { shadows::lines(&day) } else { Vec::new() };
    let swept = (!args.sweep.is_empty()).then_some(candidates.len() - real);
    Ok(Comparison { day, yardsticks, candidates, swept, lines })
}

/// What is compared: all combinations of a sweep, or the policies that are named, or the presets.
fn setups(args: &WhatifArgs, day: &Day) -> anyhow::Result<Vec<(String, Setup)>> {
    if args.shadows {
        let shadows = day.ran().map(|ran| ran.recorded.shadows.as_slice()).unwrap_or_default();
        if shadows.is_empty() {
            let text = "the log has no shadow of this pool in that time; `ergate pool shadow set` gives it one";
            return Err(Trouble::NotFound(text.to_owned()).into());
        }
        let setups = shadows.iter().map(|shadow| (shadow.name.clone(), day.under(shadow.policy.clone())));
        let setups: Vec<_> = setups.collect();
        setups.iter().try_for_each(|(name, setup)| checked(name, setup))?;
        return Ok(setups);
    }
    let named = file::policies(&args.policy)?;
    if !args.sweep.is_empty() {
        let base = match named.as_slice() {
            [] => day.pool.policy.clone(),
            [(_, policy)] => policy.clone(),
            [..] => return Err(Trouble::Usage("--sweep tries values of one policy; name one with --policy".to_owned()).into()),
        };
        let grid = sweep::grid(&args.sweep, &day.under(base))?;
        grid.iter().try_for_each(|(name, setup)| checked(name, setup))?;
        return Ok(grid);
    }
    if !named.is_empty() {
        let setups: Vec<_> = named.into_iter().map(|(name, policy)| (name, day.under(policy))).collect();
        setups.iter().try_for_each(|(name, setup)| checked(name, setup))?;
        return Ok(setups);
    }
    let mut setups = Vec::new();
    for (name, policy) in file::presets()? {
        let setup = day.under(policy);
        match setup.check() {
            // One that nobody named and that cannot run here is left out, aloud.
            Err(backtest::SetupError::Policy(error)) => output::note(&format!("{name} is left out: {error}")),
            Err(error @ backtest::SetupError::Pool { .. }) => return Err(Trouble::Usage(error.to_string()).into()),
            Ok(()) => setups.push((name, setup)),
        }
    }
    if setups.is_empty() {
        return Err(Trouble::Usage("no policy can run in this pool".to_owned()).into());
    }
    Ok(setups)
}

/// What candidates are compared by: cost, late tasks and changes; where nobody is late, the 99th percentile of the wait instead.
fn scores(candidates: &[Candidate]) -> Vec<Score> {
    let is_late = candidates.iter().any(|candidate| candidate.report.waits.over > 0);
    let score = |candidate: &Candidate| {
        let score = candidate.report.score();
        if is_late { score } else { Score { violations: answer::seconds(candidate.report.waits.p99), ..score } }
    };
    candidates.iter().map(score).collect()
}
