//! A comparison as a table for people, as CSV and as JSON.

use ergate::events::backtest::history::Fidelity;
use ergate::events::backtest::{Report, trace};
use ergate::events::time::Micros;
use serde_json::{Value, json};

use super::super::output;
use super::super::table::Table;
use super::day::{Day, Origin, Ran};
use super::{Candidate, Comparison};

pub(super) fn table(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { day, yardsticks, candidates, swept, lines: _ } = comparison;
    let pool = &day.pool;
    output::line(&output::escape(&about(day)))?;
    if let Some(swept) = swept {
        output::line(&format!("{swept} combinations; shown are those that no other one beats"))?;
    }
    output::line("")?;
    let mut heads =
        vec!["POLICY", "HOURS", "COST", "x WORK", "WAIT P50", "P95", "P99", "MAX", "LATE", "CHANGES", "FLIPS", "STARTS"];
    heads.extend(["BACKLOG", "AT MAX", "BUSY", "IDLE", "STARTING", "DRAINING", "BEST"]);
    let mut table = Table::new(&heads);
    for Candidate { name, report, is_on_front } in shown(comparison) {
        let percent = |share: f64| format!("{:.0}%", share * 100.0);
        let waits = &report.waits;
        table.row([
            name.clone(),
            format!("{:.2}", report.hours()),
            format!("{:.2}", report.cost),
            format!("{:.2}", times(report, yardsticks.work_floor)),
            span(waits.p50),
            span(waits.p95),
            span(waits.p99),
            span(waits.max),
            late(report),
            report.events.to_string(),
            report.flips.to_string(),
            report.replicas_started.to_string(),
            report.backlog_max.to_string(),
            clock(report.time_at_max),
            percent(report.shares.busy),
            percent(report.shares.idle),
            percent(report.shares.starting),
            percent(report.shares.draining),
            if *is_on_front { "*".to_owned() } else { String::new() },
        ]);
    }
    table.print()?;
    output::line("")?;
    if let Some(ran) = day.ran() {
        told(ran)?;
    }
    let bound = |name: &str, value: Micros, about: &str| {
        let line = format!("{name:<34} {:>8.2} h  {about}", hours(value));
        output::line(&line)
    };
    bound("work alone", yardsticks.work_floor, "nobody can pay less")?;
    let within = format!("clairvoyant, waits within {}", pool.wait_target);
    bound(&within, yardsticks.clairvoyant, "what somebody who knows the future could do; the optimum is no more")?;
    bound("clairvoyant, no waits", yardsticks.zero_wait.optimum, "the least without any wait")?;
    bound(
        "break-even, no waits",
        yardsticks.zero_wait.break_even,
        "without knowledge of the future: idle ones kept as long as a start takes",
    )?;
    for Candidate { name, report, .. } in candidates.iter().filter(|candidate| candidate.report.unserved > 0) {
        output::line(&format!("{name} left {} tasks alone for good", report.unserved))?;
    }
    let is_late = candidates.iter().any(|candidate| candidate.report.waits.over > 0);
    let by = if is_late { "late tasks" } else { "wait p99" };
    output::line(&format!("\n* no other one is at least as good in cost, {by} and changes, and better in one"))
}

/// One line about the day.
fn about(day: &Day) -> String {
    let Day { arrivals, pool, origin } = day;
    let counted = |count: usize, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
    let (of, span, more) = match origin {
        Origin::Trace { skipped, .. } => (String::new(), arrivals.span(), counted(*skipped, "without a service time left out")),
        Origin::Log(ran) => {
            let left = &ran.recorded.left;
            let more = [
                counted(arrivals.retry_count(), "further attempts"),
                counted(left.unstarted, "that never started left out"),
                counted(left.unended, "that still ran"),
                counted(left.lost, "attempts that were lost left out"),
            ];
            (format!(" of pool {}", ran.pool), Micros(ran.recorded.length.0 - pool.count_from.0), more.concat())
        }
    };
    let tasks = match origin {
        Origin::Trace { .. } => arrivals.len(),
        Origin::Log(ran) => ran.report.waits.count,
    };
    let what = if matches!(origin, Origin::Log(_)) { "attempts" } else { "tasks" };
    format!(
        "{tasks} {what}{of} in {}{more}; {} to {} replicas with {} slot{}, {} to start one, waits should be within {}",
        clock(span),
        pool.bounds.min,
        pool.bounds.max,
        pool.slots,
        if pool.slots == 1 { "" } else { "s" },
        pool.start,
        pool.wait_target
    )
}

/// Those that people are shown: of many combinations only the best, and what really ran.
pub(super) fn shown(comparison: &Comparison) -> impl Iterator<Item = &Candidate> {
    let is_real = |candidate: &Candidate| {
        comparison.day.ran().is_some() && [super::RECORDED, super::AGAIN].contains(&candidate.name.as_str())
    };
    comparison.candidates.iter().filter(move |one| comparison.swept.is_none() || one.is_on_front || is_real(one))
}

/// Whether what is said of other policies can be relied on, with both numbers of everything.
pub(in crate::cli) fn told(ran: &Ran) -> anyhow::Result<()> {
    let Fidelity { decisions, sizes, .. } = &ran.fidelity;
    output::line(&format!(
        "what really ran, run again: {} looks and {} decisions, sizes changed {} times and {} simulated",
        decisions.looks, decisions.recorded, sizes.recorded, sizes.simulated
    ))?;
    let waits = ran
        .fidelity
        .waits()
        .map(|(name, recorded, simulated)| format!("{name} {:.3} s and {:.3} s", seconds(recorded), seconds(simulated)));
    output::line(&format!("waits recorded and simulated: {}", waits.join(", ")))?;
    let doubts = ran.fidelity.doubts();
    for doubt in &doubts {
        output::line(&format!("UNRELIABLE: {doubt}"))?;
    }
    if doubts.is_empty() {
        output::line("reliable: the same sizes, and waits within a tenth")?;
    }
    output::line("")
}

/// The share of tasks that waited for too long. Never rounded to nothing.
fn late(report: &Report) -> String {
    match report.waits.over {
        0 => "0".to_owned(),
        over => format!("{}%", significant(over as f64 / report.waits.count.max(1) as f64 * 100.0)),
    }
}

/// Two digits that say something.
fn significant(number: f64) -> String {
    if number >= 1.0 {
        format!("{number:.1}")
    } else if number >= 0.01 {
        format!("{number:.2}")
    } else {
        format!("{number:.1e}")
    }
}

/// The columns of the CSV, in the order in which people look for them.
const COLUMNS: [&str; 27] = [
    "policy",
    "replica_hours",
    "cost",
    "times_work",
    "wait_s_mean",
    "wait_s_p50",
    "wait_s_p95",
    "wait_s_p99",
    "wait_s_max",
    "late",
    "late_share",
    "waits_counted",
    "changes",
    "flips",
    "replicas_started",
    "replicas_max",
    "backlog_max",
    "time_at_max_s",
    "busy_share",
    "idle_share",
    "starting_share",
    "draining_share",
    "interrupted",
    "unserved",
    "looks",
    "pareto",
    "digest",
];

pub(super) fn csv(comparison: &Comparison) -> anyhow::Result<()> {
    output::line(&COLUMNS.join(","))?;
    for candidate in &comparison.candidates {
        let row = row(comparison, candidate);
        let cell = |column: &&str| match row[*column].as_str() {
            Some(text) if text.contains([',', '"', '\n']) => format!("\"{}\"", text.replace('"', "\"\"")),
            Some(text) => text.to_owned(),
            None => row[*column].to_string(),
        };
        output::line(&COLUMNS.iter().map(cell).collect::<Vec<_>>().join(","))?;
    }
    Ok(())
}

pub(super) fn json(comparison: &Comparison) -> anyhow::Result<()> {
    let Comparison { day, yardsticks, candidates, swept, lines } = comparison;
    let pool = &day.pool;
    let policies: Vec<_> = candidates
        .iter()
        .map(|candidate| {
            let mut row = row(comparison, candidate);
            let point = |point: &ergate::events::backtest::Point| {
                json!([point.at_s, point.backlog, point.replicas, point.running, point.wait_s])
            };
            row["series"] = candidate.report.series.iter().map(point).collect();
            row
        })
        .collect();
    let mut told = json!({
        "pool": {
            "min": pool.bounds.min, "max": pool.bounds.max, "slots": pool.slots, "start_cost_s": seconds(pool.start),
            "wait_target_s": seconds(pool.wait_target), "warm_up_s": seconds(pool.warm_up), "window_s": seconds(pool.window),
            "price_per_hour": pool.price_per_hour,
        },
        "bounds_hours": {
            "work_floor": hours(yardsticks.work_floor), "zero_wait": hours(yardsticks.zero_wait.optimum),
            "break_even": hours(yardsticks.zero_wait.break_even), "clairvoyant": hours(yardsticks.clairvoyant),
        },
        "series_columns": ["at_s", "backlog", "replicas", "running", "wait_s_max"],
        "policies": policies,
    });
    let arrivals = &day.arrivals;
    let began = arrivals.began().rfc3339();
    match &day.origin {
        Origin::Trace { format, skipped } => {
            told["trace"] = json!({
                "format": self::format(*format), "tasks": arrivals.len(), "skipped": skipped,
                "began": began, "span_s": seconds(arrivals.span()),
            });
        }
        Origin::Log(ran) => {
            let left = &ran.recorded.left;
            told["log"] = json!({
                "pool": ran.pool, "tasks": arrivals.len(), "further_attempts": arrivals.retry_count(), "began": began,
                "counted_from": arrivals.began().after(pool.count_from).rfc3339(), "span_s": seconds(ran.recorded.length),
                "unstarted": left.unstarted, "unended": left.unended, "lost_attempts": left.lost, "restarts": left.restarts,
                "slot_changes": left.slot_changes, "starts": ran.recorded.starts.len(),
            });
            told["fidelity"] = fidelity(&ran.fidelity);
        }
    }
    if let Some(swept) = swept {
        told["combinations"] = json!(swept);
    }
    if !lines.is_empty() {
        told["shadows"] = super::shadows::json(comparison).into();
    }
    output::json(&told)
}

/// How a back-test of what really ran compares with what really happened.
pub(in crate::cli) fn fidelity(fidelity: &Fidelity) -> Value {
    let Fidelity { decisions, sizes, .. } = fidelity;
    let waits: serde_json::Map<_, _> = fidelity
        .waits()
        .map(|(name, recorded, simulated)| {
            let name = format!("wait_s_{name}");
            (name, json!({ "recorded": seconds(recorded), "simulated": seconds(simulated) }))
        })
        .into_iter()
        .collect();
    json!({
        "reliable": fidelity.is_reliable(), "doubts": fidelity.doubts(), "looks": decisions.looks, "decisions": decisions.recorded,
        "decision_that_differs": decisions.difference.map(|at| at.0), "size_changes": { "recorded": sizes.recorded, "simulated": sizes.simulated },
        "sizes_apart": sizes.off, "waits": waits,
    })
}

/// One policy with all of its numbers.
fn row(comparison: &Comparison, candidate: &Candidate) -> Value {
    let Candidate { name, report, is_on_front } = candidate;
    let waits = &report.waits;
    json!({
        "policy": name, "replica_hours": report.hours(), "cost": report.cost,
        "times_work": times(report, comparison.yardsticks.work_floor),
        "wait_s_mean": seconds(waits.mean), "wait_s_p50": seconds(waits.p50), "wait_s_p95": seconds(waits.p95),
        "wait_s_p99": seconds(waits.p99), "wait_s_max": seconds(waits.max),
        "late": waits.over, "late_share": waits.share_over(), "waits_counted": waits.count,
        "changes": report.events, "flips": report.flips, "replicas_started": report.replicas_started,
        "replicas_max": report.replicas_max, "backlog_max": report.backlog_max, "time_at_max_s": seconds(report.time_at_max),
        "busy_share": report.shares.busy, "idle_share": report.shares.idle, "starting_share": report.shares.starting,
        "draining_share": report.shares.draining, "interrupted": report.interrupted, "unserved": report.unserved,
        "looks": report.looks, "pareto": is_on_front, "digest": blake3::Hash::from_bytes(report.digest).to_hex().as_str(),
    })
}

const fn format(format: trace::Format) -> &'static str {
    match format {
        trace::Format::Csv => "csv",
        trace::Format::Ndjson => "ndjson",
        trace::Format::Azure => "azure",
        trace::Format::Mooncake => "mooncake",
        trace::Format::Alibaba => "alibaba",
    }
}

/// How often the bound fits into the bill.
fn times(report: &Report, bound: Micros) -> f64 {
    report.billed.0 as f64 / bound.0.max(1) as f64
}

pub(in crate::cli) fn hours(span: Micros) -> f64 {
    span.0 as f64 / 3.6e9
}

pub(in crate::cli) fn seconds(span: Micros) -> f64 {
    span.0 as f64 / 1e6
}

/// A wait, to a tenth of a second.
fn span(span: Micros) -> String {
    format!("{:.1}s", seconds(span))
}

/// A long span, to the second.
fn clock(span: Micros) -> String {
    let seconds = span.0 / 1_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m {seconds:02}s"),
        _ => format!("{hours}h {minutes:02}m"),
    }
}
