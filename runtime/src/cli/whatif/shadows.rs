//! What really ran beside its shadows: what each wanted, as recorded, and how its policy would have done by itself, simulated.

use ergate::events::backtest::Report;
use ergate::events::backtest::history::{Beside, Shadow, Wanted};
use ergate::events::time::Micros;
use serde_json::{Value, json};

use super::super::output;
use super::super::table::Table;
use super::answer::{hours, seconds, told};
use super::day::{Day, Ran};
use super::{Comparison, RECORDED};

/// Stands before the numbers that nobody has seen happen.
const SIMULATED: &str = "simulated: ";

/// How many replicas were wanted over time: hours from the beginning, and the number.
pub(super) type Line = (String, Vec<(f64, f64)>);

/// What ran and what each shadow wanted, as lines of a plot.
pub(super) fn lines(day: &Day) -> Vec<Line> {
    let Some(ran) = day.ran() else { return Vec::new() };
    let (from, end) = (day.pool.count_from, ran.recorded.length);
    let live: Vec<_> = ran.recorded.sizes.iter().map(|(at, size)| (*at, Some(*size))).collect();
    let shadows = ran.recorded.shadows.iter().map(|shadow| (shadow.name.clone(), steps(&shadow.wanted, from, end)));
    std::iter::once(("what ran".to_owned(), steps(&live, from, end))).chain(shadows).collect()
}

/// A stair from the beginning of what counts to the end; what is not known is left out.
fn steps(all: &[(Micros, Option<u32>)], from: Micros, end: Micros) -> Vec<(f64, f64)> {
    let place = |at: Micros| hours(Micros(at.0.clamp(from.0, end.0) - from.0));
    let ends = all.iter().skip(1).map(|(at, _)| *at).chain([end]);
    let known = all.iter().zip(ends).filter(|(_, until)| *until >= from);
    let step = |((at, size), until): (&(Micros, Option<u32>), Micros)| Some((place(*at), place(until), f64::from((*size)?)));
    known.filter_map(step).flat_map(|(begin, until, size)| [(begin, size), (until, size)]).collect()
}

/// A row: what was wanted, how that differs, and what it came to or would have.
struct Row<'a> {
    name: &'a str,
    wanted: Wanted,
    beside: Option<Beside>,
    report: Option<&'a Report>,
}

fn rows<'a>(comparison: &'a Comparison, ran: &'a Ran) -> Vec<Row<'a>> {
    let from = comparison.day.pool.count_from;
    let report = |name: &str| comparison.candidates.iter().skip(1).find(|one| one.name == name).map(|one| &one.report);
    let live = Row { name: RECORDED, wanted: ran.recorded.live(from), beside: None, report: Some(&ran.report) };
    let shadow = |shadow: &'a Shadow| {
        let beside = ran.recorded.beside(shadow, from);
        Row { name: &shadow.name, wanted: beside.wanted, beside: Some(beside), report: report(&shadow.name) }
    };
    std::iter::once(live).chain(ran.recorded.shadows.iter().map(shadow)).collect()
}

pub(super) fn table(comparison: &Comparison) -> anyhow::Result<()> {
    let Some(ran) = comparison.day.ran() else { return Ok(()) };
    let began = comparison.day.arrivals.began();
    output::line(&output::escape(&format!("pool {}: what it should have had, and what each shadow wanted meanwhile", ran.pool)))?;
    output::line("")?;
    let heads = ["POLICY", "WATCHED", "HOURS WANTED", "CHANGES", "FLIPS", "MEAN", "BELOW", "LARGEST", "AT"];
    let mut table = Table::new(&heads);
    let rows = rows(comparison, ran);
    for Row { name, wanted, beside, .. } in &rows {
        let of = |tell: fn(&Beside) -> String| beside.as_ref().map_or_else(|| "-".to_owned(), tell);
        let largest = beside.as_ref().and_then(|beside| beside.largest);
        table.row([
            (*name).to_owned(),
            format!("{:.0}s", seconds(wanted.watched)),
            format!("{:.4}", hours(wanted.replica_time)),
            wanted.changes.to_string(),
            wanted.flips.to_string(),
            of(|beside| format!("{:+.2}", beside.mean)),
            of(|beside| format!("{:.1}%", beside.below * 100.0)),
            largest.map_or_else(|| "-".to_owned(), |(_, apart)| format!("{apart:+}")),
            largest.map_or_else(|| "-".to_owned(), |(at, _)| began.after(at).rfc3339()),
        ]);
    }
    table.print()?;
    output::line("")?;
    let mut table = Table::new(&["POLICY", "COST", "WAIT P50", "P95", "P99", "MAX"]);
    for Row { name, beside, report, .. } in &rows {
        let Some(report) = report else { continue };
        let name = format!("{}{name}", if beside.is_some() { SIMULATED } else { "" });
        let waits = report.waits;
        let spans = [waits.p50, waits.p95, waits.p99, waits.max].map(|span| format!("{:.3}s", seconds(span)));
        table.row([name, format!("{:.4}", report.cost)].into_iter().chain(spans));
    }
    table.print()?;
    output::line("")?;
    told(ran)?;
    output::line(
        "a shadow's wish is its next step from what the pool really had; what is simulated goes its own way from the beginning",
    )
}

/// The rows as programs see them.
pub(super) fn json(comparison: &Comparison) -> Vec<Value> {
    let Some(ran) = comparison.day.ran() else { return Vec::new() };
    let began = comparison.day.arrivals.began();
    let one = |Row { name, wanted, beside, report }: Row<'_>| {
        let outcome = report.map(|report| {
            let waits = &report.waits;
            json!({
                "cost": report.cost, "replica_hours": report.hours(), "wait_s_mean": seconds(waits.mean), "wait_s_p50": seconds(waits.p50),
                "wait_s_p95": seconds(waits.p95), "wait_s_p99": seconds(waits.p99), "wait_s_max": seconds(waits.max),
            })
        });
        let mut told = json!({
            "policy": name, "watched_s": seconds(wanted.watched), "replica_hours_wanted": hours(wanted.replica_time),
            "changes": wanted.changes, "flips": wanted.flips,
        });
        match beside {
            None => told["recorded"] = outcome.unwrap_or_default(),
            Some(beside) => {
                told["simulated"] = outcome.unwrap_or_default();
                told["difference_mean"] = json!(beside.mean);
                told["below_share"] = json!(beside.below);
                told["difference_largest"] = json!(beside.largest.map(|(_, apart)| apart));
                told["difference_largest_at"] = json!(beside.largest.map(|(at, _)| began.after(at).rfc3339()));
            }
        }
        told
    };
    rows(comparison, ran).into_iter().map(one).collect()
}
