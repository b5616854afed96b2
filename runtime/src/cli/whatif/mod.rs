//! `ergate whatif`: a recorded day under other policies.

mod answer;
mod file;
mod plot;

use std::path::PathBuf;
use std::time::Duration;

use ergate::events::backtest::trace::{self, ServiceModel, Trace};
use ergate::events::backtest::{self, Report, Setup, SetupError, bounds, front};
use ergate::events::scaling::AnyPolicy;
use ergate::events::scaling::signal::Bounds;
use ergate::events::time::Micros;

use super::embedded::parse_span;
use super::exit::Trouble;
use super::{Exit, Format, Globals, output};

/// Printed below the help of the verb.
const HELP: &str = "docs/backtesting.md says what is assumed, what each number means and how to read the plots. Policies are TOML or JSON; those \
of config/examples/policies are compared when none is named.";

/// Which day, under what.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct WhatifArgs {
    /// The tasks: CSV or NDJSON with arrival_s, service_s and perhaps priority, or a trace of Azure, Mooncake or Alibaba
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// How long a request takes, for traces that have only its tokens: `azure`, or three spans, for a token that is read, one that is written, and
    /// the least, such as 200us,20ms,1s
    #[arg(long, value_name = "MODEL", default_value = "azure", value_parser = model)]
    service_model: ServiceModel,
    /// A policy; may be given many times
    #[arg(long, value_name = "FILE", num_args = 1..)]
    policy: Vec<PathBuf>,
    /// Fewest replicas
    #[arg(long, value_name = "N", default_value_t = 1)]
    min: u32,
    /// Most replicas
    #[arg(long, value_name = "N", default_value_t = 20)]
    max: u32,
    /// How many tasks a replica does at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    slots: u32,
    /// How long a replica takes to start; it is billed
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_span)]
    start_cost: Duration,
    /// How long a task should wait at most
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_span)]
    wait_target: Duration,
    /// Tasks that arrive before this do not count in waits
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = parse_span)]
    warm_up: Duration,
    /// Over which time the arrival rate is measured
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = parse_span)]
    window: Duration,
    /// What a replica costs an hour
    #[arg(long, value_name = "PRICE", default_value_t = 1.0)]
    price: f64,
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
    trace: Trace,
    /// The pool; its policy is any of those that are compared.
    pool: Setup,
    yardsticks: Yardsticks,
    candidates: Vec<Candidate>,
}

pub(crate) fn run(args: &WhatifArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let refused = |reason: String| Trouble::Usage(format!("cannot use {} as a trace: {reason}", args.trace.display()));
    let text = file::read(&args.trace, file::TRACE_BYTES_MAX).map_err(refused)?;
    let trace = trace::read(&text, args.service_model).map_err(|error| refused(error.to_string()))?;
    drop(text);
    if trace.arrivals.is_empty() {
        return Err(refused("it holds no task".to_owned()).into());
    }
    let comparison = compare(args, trace)?;
    if let Some(path) = &args.plot {
        let text = plot::draw(&comparison);
        std::fs::write(path, text).map_err(|source| Trouble::Unwritable { path: path.clone(), source })?;
    }
    if globals.output == Format::Json {
        answer::json(&comparison)?;
    } else if args.csv {
        answer::csv(&comparison)?;
    } else {
        answer::table(&comparison)?;
    }
    Ok(Exit::Done)
}

fn compare(args: &WhatifArgs, trace: Trace) -> anyhow::Result<Comparison> {
    let named = !args.policy.is_empty();
    let policies = if named { file::policies(&args.policy)? } else { file::presets()? };
    let mut candidates = Vec::new();
    let mut pool = None;
    for (name, policy) in policies {
        let setup = args.setup(policy);
        match setup.check() {
            // One that nobody named and that cannot run here is left out, aloud.
            Err(SetupError::Policy(error)) if !named => {
                output::note(&format!("{name} is left out: {error}"));
                continue;
            }
            Err(SetupError::Policy(error)) => return Err(Trouble::Usage(format!("policy {name}: {error}")).into()),
            Err(error @ SetupError::Pool { .. }) => return Err(Trouble::Usage(error.to_string()).into()),
            Ok(()) => {}
        }
        let report = backtest::run(&trace.arrivals, &setup).map_err(|error| Trouble::Usage(format!("policy {name}: {error}")))?;
        candidates.push(Candidate { name, report, is_on_front: false });
        pool.get_or_insert(setup);
    }
    let Some(pool) = pool else { return Err(Trouble::Usage("no policy can run in this pool".to_owned()).into()) };
    let scores: Vec<_> = candidates.iter().map(|candidate| candidate.report.score()).collect();
    // Who leaves work alone is cheap, and no answer.
    let is_answer = |candidate: &Candidate| candidate.report.unserved == 0;
    for (candidate, is_on_front) in candidates.iter_mut().zip(front(&scores)) {
        candidate.is_on_front = is_on_front && is_answer(candidate);
    }
    let yardsticks = Yardsticks {
        work_floor: bounds::work_floor(&trace.arrivals, pool.slots),
        zero_wait: bounds::zero_wait(&trace.arrivals, pool.slots, pool.start),
        clairvoyant: bounds::clairvoyant(&trace.arrivals, pool.slots, pool.start, pool.wait_target).billed,
    };
    Ok(Comparison { trace, pool, yardsticks, candidates })
}

impl WhatifArgs {
    fn setup(&self, policy: AnyPolicy) -> Setup {
        Setup {
            slots: self.slots,
            start: self.start_cost.into(),
            wait_target: self.wait_target.into(),
            warm_up: self.warm_up.into(),
            window: self.window.into(),
            price_per_hour: self.price,
            ..Setup::new(policy, Bounds { min: self.min, max: self.max })
        }
    }
}

/// Reads a model of service times.
fn model(text: &str) -> Result<ServiceModel, String> {
    if text == "azure" {
        return Ok(ServiceModel::AZURE);
    }
    let wrong = || "use `azure` or three spans such as `200us,20ms,1s`".to_owned();
    let spans: Result<Vec<Micros>, _> = text.split(',').map(|span| parse_span(span).map(Micros::from)).collect();
    match spans.map_err(|_| wrong())?.as_slice() {
        [context, generated, least] => Ok(ServiceModel { context: *context, generated: *generated, least: *least }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_a_name_or_three_spans() {
        assert_eq!(model("azure"), Ok(ServiceModel::AZURE));
        assert_eq!(model("200us,20ms,1s"), Ok(ServiceModel::AZURE));
        for text in ["", "gpt", "1s", "1s,2s,3s,4s", "1s,2s,x"] {
            assert!(model(text).is_err(), "{text}");
        }
    }
}
