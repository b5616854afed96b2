//! The day that is run again: a trace, or what the log says of a pool.

use std::path::PathBuf;
use std::time::Duration;

use ergate::events::backtest::history::{Fidelity, History, Recorded};
use ergate::events::backtest::trace::{self, Format, ServiceModel};
use ergate::events::backtest::{Arrivals, Change, Report, Setup, SetupError};
use ergate::events::scaling::AnyPolicy;
use ergate::events::scaling::rate::Rate;
use ergate::events::scaling::signal::Bounds;
use ergate::events::state::State;
use ergate::events::time::{Micros, Timestamp};

use super::super::Globals;
use super::super::bar::Bar;
use super::super::embedded::parse_span;
use super::super::exit::Trouble;
use super::super::logs::LogArgs;
use super::super::moment::Moment;
use super::super::offline::{Next, Place};
use super::super::output;
use super::file;

/// How much of the log before `--since` is run as well, and not counted: every window of a signal is full by then.
const LEAD_IN: Micros = Micros::from_secs(15 * 60);
/// How long a start takes where nobody has measured or named it.
const START_COST: Micros = Micros::from_secs(60);
/// The bounds of a trace where nobody names any.
const BOUNDS: Bounds = Bounds { min: 1, max: 20 };

/// Which day.
#[derive(clap::Args)]
pub(crate) struct DayArgs {
    /// The tasks: CSV or NDJSON with arrival_s, service_s and perhaps priority, or a trace of Azure, Mooncake or Alibaba
    #[arg(long, value_name = "FILE", conflicts_with_all = ["pool", "log", "shard", "since", "until"])]
    trace: Option<PathBuf>,
    /// Instead of a trace: what the log says of this pool. The log is that of --data, or of --log
    #[arg(long, value_name = "POOL", required_unless_present = "trace")]
    pool: Option<String>,
    #[command(flatten)]
    log: LogArgs,
    /// Count only what happened from here on: a position or a time, such as 2030-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT")]
    since: Option<Moment>,
    /// Read the log only up to here
    #[arg(long, value_name = "MOMENT")]
    until: Option<Moment>,
    /// How long a request takes, for traces that have only its tokens: `azure`, or three spans, for a token that is read, one that is written, and
    /// the least, such as 200us,20ms,1s
    #[arg(long, value_name = "MODEL", default_value = "azure", value_parser = model)]
    service_model: ServiceModel,
    /// Fewest replicas; 1, or as the log has it
    #[arg(long, value_name = "N")]
    min: Option<u32>,
    /// Most replicas; 20, or as the log has it
    #[arg(long, value_name = "N")]
    max: Option<u32>,
    /// How many tasks a replica does at once; 1, or as the log has it
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// How long a replica takes to start; it is billed. 60s, or as the log has it on average
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    start_cost: Option<Duration>,
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
}

/// What is run again.
pub(crate) struct Day {
    /// The work.
    pub(crate) arrivals: Arrivals,
    /// The pool; its policy is the one that runs, where one is known.
    pub(crate) pool: Setup,
    /// Where it comes from.
    pub(crate) origin: Origin,
}

/// Where a day comes from.
pub(crate) enum Origin {
    /// A file.
    Trace {
        /// What it is.
        format: Format,
        /// Lines without a service time.
        skipped: usize,
    },
    /// The log.
    Log(Box<Ran>),
}

/// What really ran.
pub(crate) struct Ran {
    /// The name of the pool.
    pub(crate) pool: String,
    /// What the log says.
    pub(crate) recorded: Recorded,
    /// What really happened.
    pub(crate) report: Report,
    /// How a back-test of it compares.
    pub(crate) fidelity: Fidelity,
}

impl DayArgs {
    /// Reads the day.
    pub(crate) fn read(&self, globals: &Globals) -> anyhow::Result<Day> {
        let day = match (&self.trace, &self.pool) {
            (Some(path), _) => self.read_trace(path)?,
            (None, Some(pool)) => self.read_log(pool, globals)?,
            (None, None) => {
                return Err(Trouble::Usage("name a trace with --trace, or a pool of the log with --pool".to_owned()).into());
            }
        };
        if day.arrivals.len() <= day.arrivals.carried() {
            return Err(Trouble::Usage(self.refused("it holds no task")).into());
        }
        Ok(day)
    }

    fn refused(&self, reason: &str) -> String {
        match (&self.trace, &self.pool) {
            (Some(path), _) => format!("cannot use {} as a trace: {reason}", path.display()),
            (None, pool) => format!("cannot use the log of pool {:?}: {reason}", pool.as_deref().unwrap_or_default()),
        }
    }

    fn read_trace(&self, path: &std::path::Path) -> anyhow::Result<Day> {
        let refused = |reason: String| Trouble::Usage(self.refused(&reason));
        let text = file::read(path, file::TRACE_BYTES_MAX).map_err(refused)?;
        let trace = trace::read(&text, self.service_model).map_err(|error| refused(error.to_string()))?;
        let bounds = Bounds { min: self.min.unwrap_or(BOUNDS.min), max: self.max.unwrap_or(BOUNDS.max) };
        let pool = self.setup(AnyPolicy::Rate(Rate::default()), bounds, 1, START_COST);
        Ok(Day { arrivals: trace.arrivals, pool, origin: Origin::Trace { format: trace.format, skipped: trace.skipped } })
    }

    fn read_log(&self, pool: &str, globals: &Globals) -> anyhow::Result<Day> {
        let place = self.log.open_one(globals)?;
        let (state, since) = self.base(&place, globals)?;
        let recorded = follow(&place, pool, state, self.until, globals)?;
        let known = recorded.policy().map(|(policy, bounds)| (policy.clone(), bounds));
        let (policy, bounds) = known.unwrap_or_else(|| (AnyPolicy::Rate(Rate::default()), BOUNDS));
        let bounds = Bounds { min: self.min.unwrap_or(bounds.min), max: self.max.unwrap_or(bounds.max) };
        let start = recorded.start_mean();
        if start.is_none() && self.start_cost.is_none() {
            output::note(&format!(
                "the log has no start of a replica from its beginning to its end; {START_COST} is assumed, --start-cost says it"
            ));
        }
        let runs = recorded.changes.iter().filter(|(_, change)| matches!(change, Change::Runs(_)));
        let setup = Setup {
            initial: recorded.sizes.first().map(|(_, size)| *size),
            changes: runs.cloned().collect(),
            count_from: since.map_or(Micros(0), |since| since.since(recorded.arrivals.began())).min(recorded.length),
            until: recorded.length,
            ..self.setup(policy, bounds, recorded.slots, start.unwrap_or(START_COST))
        };
        checked("the policy that runs", &setup)?;
        let report = recorded.report(&setup);
        let fidelity = recorded.fidelity(&setup).map_err(|error| Trouble::Usage(self.refused(&error.to_string())))?;
        let arrivals = recorded.arrivals.clone();
        let ran = Ran { pool: pool.to_owned(), recorded, report, fidelity };
        Ok(Day { arrivals, pool: setup, origin: Origin::Log(Box::new(ran)) })
    }

    /// The state from which on the log is followed: some time before what counts, or where the log begins.
    fn base(&self, place: &Place, globals: &Globals) -> anyhow::Result<(State, Option<Timestamp>)> {
        let since = match self.since {
            Some(Moment::Time(since)) => Some(since),
            Some(since @ Moment::Position(_)) => Some(place.fold(globals, since)?.last_at),
            None => None,
        };
        let first = place.span().first;
        if let Some(since) = since {
            let lead = Timestamp(since.0.saturating_sub(LEAD_IN.0));
            return Ok((place.fold(globals, Moment::Time(lead))?, Some(since)));
        }
        if first.0 == 0 {
            return Ok((State::default(), None));
        }
        // What retention has dropped stands in a snapshot: the oldest one that leads on.
        let snapshots = place.snapshots();
        let oldest = snapshots.list()?.into_iter().rev().filter(|info| info.position >= first);
        let state = oldest.filter_map(|info| place.load(&snapshots, &info)).map(|(state, _)| state).next();
        Ok((state.map_or_else(|| place.fold(globals, Moment::Position(first)), Ok)?, None))
    }

    fn setup(&self, policy: AnyPolicy, bounds: Bounds, slots: u32, start: Micros) -> Setup {
        Setup {
            slots: self.slots.unwrap_or(slots),
            start: self.start_cost.map_or(start, Micros::from),
            wait_target: self.wait_target.into(),
            warm_up: self.warm_up.into(),
            window: self.window.into(),
            price_per_hour: self.price,
            ..Setup::new(policy, bounds)
        }
    }
}

impl Day {
    /// The same pool under another policy.
    pub(crate) fn under(&self, policy: AnyPolicy) -> Setup {
        Setup { policy, ..self.pool.clone() }
    }

    /// The work that counts, each attempt by itself: what bounds are computed of.
    pub(crate) fn counted(&self) -> Arrivals {
        let from = self.pool.count_from;
        let flat = self.arrivals.flat();
        let tasks = flat.tasks().iter().copied().filter(|task| task.at >= from).collect();
        // What was within the limits still is.
        Arrivals::new(flat.began(), tasks).unwrap_or(flat)
    }

    /// What really ran, where that is known.
    pub(crate) const fn ran(&self) -> Option<&Ran> {
        match &self.origin {
            Origin::Log(ran) => Some(ran),
            Origin::Trace { .. } => None,
        }
    }
}

/// Reads what the log says of a pool from a state on.
pub(crate) fn follow(
    place: &Place,
    pool: &str,
    mut state: State,
    until: Option<Moment>,
    globals: &Globals,
) -> anyhow::Result<Recorded> {
    let (from, end) = (state.position, place.span().next);
    let bar = Bar::new(globals, "reading", from.0, end.0);
    let mut history = History::new(pool, &state);
    place.each_record(from, &mut |record| {
        let is_beyond = match until {
            Some(Moment::Position(until)) => record.envelope.position >= until,
            Some(Moment::Time(until)) => record.envelope.recorded_at > until,
            None => false,
        };
        if is_beyond || record.envelope.position >= end {
            return Ok(Next::Enough);
        }
        history.follow(&mut state, &record.envelope);
        bar.at(record.envelope.position.0);
        Ok(Next::More)
    })?;
    if !history.is_known() {
        let text = format!("the log says nothing of a pool {pool:?}; `ergate pool list` names those that there are");
        return Err(Trouble::NotFound(text).into());
    }
    let until = if let Some(Moment::Time(until)) = until { Some(until) } else { None };
    history.finish(until).map_err(|error| Trouble::Usage(format!("cannot use the log of pool {pool:?}: {error}")).into())
}

/// Refuses what makes no sense, by the name of its policy.
pub(crate) fn checked(name: &str, setup: &Setup) -> Result<(), Trouble> {
    match setup.check() {
        Err(SetupError::Policy(error)) => Err(Trouble::Usage(format!("policy {name}: {error}"))),
        Err(error @ SetupError::Pool { .. }) => Err(Trouble::Usage(error.to_string())),
        Ok(()) => Ok(()),
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
