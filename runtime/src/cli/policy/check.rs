//! `ergate policy check`: whether another policy would keep to a budget.

use std::path::PathBuf;

use ergate::events::backtest;
use ergate::events::scaling::AnyPolicy;
use serde_json::json;

use super::super::exit::Trouble;
use super::super::whatif::day::{Day, DayArgs, checked};
use super::super::whatif::{fidelity, told};
use super::super::{Exit, Format, Globals, output};
use super::budget::{Budget, Verdict};

/// Printed below the help of the verb.
const HELP: &str = "A budget is terms with commas between them, each of which has to hold: NAME<BOUND. Names are mean, p50, p95, p99 and max (of \
waits, such as p99<60s), over (the share of tasks that waited for longer than --wait-target, such as over<0.1%), cost, hours, changes and flips. A bound \
with a sign is a difference from the other policy, such as cost<+5%.\n\n\
Exit codes: 0 within the budget · 1 outside · 2 something cannot be used.";

/// Which policy, on which day.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct CheckArgs {
    /// The new policy
    #[arg(value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    day: DayArgs,
    /// The policy that it is compared with; the one that runs, where the day is that of a log
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// What it may cost and how long tasks may wait, such as 'p99<60s,cost<+5%,over<0.1%'
    #[arg(long, value_name = "TERMS")]
    budget: Budget,
}

pub(crate) fn run(args: &CheckArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let read = |path: &PathBuf| ergate_config::read_policy(path).map_err(Trouble::Usage);
    let new = read(&args.policy)?;
    let against = args.against.as_ref().map(read).transpose()?;
    let day = args.day.read(globals)?;
    let running = || day.ran().and_then(|ran| ran.recorded.policy()).map(|(policy, _)| policy.clone());
    let other = against.or_else(running).ok_or_else(|| {
        Trouble::Usage("nobody knows which policy runs; name the one to compare with with --against".to_owned())
    })?;
    let run = |name: &str, policy: AnyPolicy| {
        let setup = day.under(policy);
        checked(name, &setup)?;
        backtest::run(&day.arrivals, &setup).map_err(|error| Trouble::Usage(format!("policy {name}: {error}")))
    };
    let (new, other) = (run(&args.policy.to_string_lossy(), new)?, run("to compare with", other)?);
    let verdicts = args.budget.judge(&new, &other);
    // Who leaves work alone keeps to any budget, and is no answer.
    let is_within = verdicts.iter().all(|verdict| verdict.holds) && new.unserved == 0;
    match globals.output {
        Format::Json => json(&day, &verdicts, new.unserved, is_within)?,
        Format::Table => {
            if let Some(ran) = day.ran() {
                told(ran)?;
            }
            verdicts.iter().try_for_each(|verdict| output::line(&output::escape(&verdict.to_string())))?;
            if new.unserved > 0 {
                output::line(&format!("OUTSIDE: the new policy leaves {} tasks alone for good", new.unserved))?;
            }
        }
    }
    Ok(if is_within { Exit::Done } else { Exit::Differs })
}

fn json(day: &Day, verdicts: &[Verdict], unserved: usize, is_within: bool) -> anyhow::Result<()> {
    let term = |verdict: &Verdict| json!({ "term": verdict.term, "new": verdict.new, "other": verdict.other, "below": verdict.below, "holds": verdict.holds });
    output::json(&json!({
        "within": is_within, "terms": verdicts.iter().map(term).collect::<Vec<_>>(), "unserved": unserved,
        "fidelity": day.ran().map(|ran| fidelity(&ran.fidelity)),
    }))
}
