//! Plots of a comparison, as one SVG: cost against waits, then replicas, backlog and waits over time, a row for each policy.

mod panel;
mod scatter;
mod svg;

use svg::{Anchor, Svg};

use super::answer::{hours, seconds};
use super::shadows::Line;
use super::{Candidate, Comparison};
use panel::{Axis, Curve, Panel};

/// Width of the picture.
const WIDTH: f64 = 1_200.0;
/// What is left free at its sides.
const MARGIN: f64 = 24.0;
const SCATTER_HEIGHT: f64 = 380.0;
const ROW_HEIGHT: f64 = 184.0;
const BESIDE_HEIGHT: f64 = 300.0;
/// Room for the names of shadows.
const NAMES: f64 = 200.0;
const HEAD: f64 = 78.0;

/// Colours that people with any kind of colour vision tell apart: Okabe and Ito, "Color universal design", 2008.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#5b4ea1", "#666666"];

/// Draws everything.
pub(super) fn draw(comparison: &Comparison) -> String {
    let (day, pool) = (&comparison.day, &comparison.day.pool);
    let candidates: Vec<&Candidate> = super::answer::shown(comparison).collect();
    let beside = if comparison.lines.is_empty() { 0.0 } else { BESIDE_HEIGHT };
    let height = HEAD + SCATTER_HEIGHT + beside + candidates.len() as f64 * ROW_HEIGHT + 30.0;
    let mut svg = Svg::new(WIDTH, height);
    svg.text(MARGIN, 30.0, 20.0, Anchor::Start, "#111", "What each policy would have cost, and how long tasks would have waited");
    let about = format!(
        "{} tasks in {:.1} h · {} to {} replicas · {} slot{} each · {} to start one (billed) · waits should be within {}",
        day.arrivals.len(),
        hours(day.arrivals.span()),
        pool.bounds.min,
        pool.bounds.max,
        pool.slots,
        if pool.slots == 1 { "" } else { "s" },
        pool.start,
        pool.wait_target
    );
    let about = if pool.warm_up.0 > 0 { format!("{about} · grey: warm-up, {}, does not count", pool.warm_up) } else { about };
    svg.text(MARGIN, 52.0, 13.0, Anchor::Start, "#555", &about);
    scatter::draw(&mut svg, comparison, HEAD, SCATTER_HEIGHT);
    let scale = Scale::of(comparison);
    if !comparison.lines.is_empty() {
        shadows(&mut svg, &comparison.lines, HEAD + SCATTER_HEIGHT);
    }
    for (index, candidate) in candidates.iter().enumerate() {
        let top = HEAD + SCATTER_HEIGHT + beside + index as f64 * ROW_HEIGHT;
        row(&mut svg, candidate, colour(index), &scale, top);
    }
    svg.finish()
}

/// The colour of a policy.
fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// What really was wanted, and what shadows wanted meanwhile, as lines over each other.
fn shadows(svg: &mut Svg, lines: &[Line], top: f64) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let hours = most(&mut points().map(|(at, _)| *at));
    let replicas = most(&mut points().map(|(_, replicas)| *replicas));
    svg.text(MARGIN, top + 18.0, 14.0, Anchor::Start, "#111", "Replicas wanted, as recorded: what ran, and each shadow");
    let (x, y) = (Axis::new(hours, "time, hours"), Axis::new(replicas, "replicas wanted"));
    let panel = Panel::new(MARGIN, top + 26.0, WIDTH - 2.0 * MARGIN - NAMES, BESIDE_HEIGHT - 34.0, x, y);
    panel.frame(svg);
    for (index, (name, points)) in lines.iter().enumerate() {
        // What ran is black and the first, below all others.
        let colour = if index == 0 { "#111" } else { colour(index - 1) };
        panel.line(svg, points, colour);
        let (left, y) = (WIDTH - MARGIN - NAMES + 12.0, top + 46.0 + index as f64 * 14.0);
        svg.rect(left, y - 9.0, 12.0, 9.0, colour, 1.0);
        svg.text(left + 18.0, y, 11.0, Anchor::Start, "#111", name);
    }
}

/// The same axes in every row, so that rows can be compared.
struct Scale {
    hours: f64,
    replicas: f64,
    backlog: f64,
    wait: f64,
    /// How long a task should wait at most, in seconds.
    target: f64,
    /// Hours at the beginning that do not count.
    warm_up: f64,
}

impl Scale {
    fn of(comparison: &Comparison) -> Scale {
        let reports = || comparison.candidates.iter().map(|candidate| &candidate.report);
        let points = || reports().flat_map(|report| &report.series);
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        Scale {
            hours: most(&mut reports().map(|report| hours(report.length))),
            replicas: most(&mut points().map(|point| point.replicas)),
            backlog: most(&mut points().map(|point| point.backlog)),
            wait: most(&mut points().filter_map(|point| point.wait_s)).max(seconds(comparison.day.pool.wait_target)),
            target: seconds(comparison.day.pool.wait_target),
            warm_up: hours(comparison.day.pool.warm_up),
        }
    }
}

fn row(svg: &mut Svg, candidate: &Candidate, colour: &str, scale: &Scale, top: f64) {
    let Candidate { name, report, .. } = candidate;
    let title = format!(
        "{name}: {:.1} replica-hours, wait p99 {:.1} s, {:.2} % of tasks late, {} changes of size",
        report.hours(),
        seconds(report.waits.p99),
        report.waits.share_over() * 100.0,
        report.events
    );
    svg.rect(MARGIN, top + 8.0, 12.0, 12.0, colour, 1.0);
    svg.text(MARGIN + 18.0, top + 19.0, 14.0, Anchor::Start, "#111", &title);
    let width = (WIDTH - 2.0 * MARGIN) / 3.0;
    let time = || Axis::new(scale.hours, "time, hours");
    let at = |value: fn(&ergate::events::backtest::Point) -> Option<f64>| -> Vec<(f64, f64)> {
        report.series.iter().filter_map(|point| Some((point.at_s / 3_600.0, value(point)?))).collect()
    };
    let panel =
        |index: usize, y: Axis| Panel::new(MARGIN + width * index as f64, top + 26.0, width, ROW_HEIGHT - 30.0, time(), y);
    let replicas = panel(0, Axis::new(scale.replicas, "replicas"));
    replicas.shade(svg, scale.warm_up);
    replicas.frame(svg);
    replicas.curve(svg, &at(|point| Some(point.replicas)), &Curve::area(colour, "billed"));
    replicas.curve(svg, &at(|point| Some(point.running)), &Curve::line("#111", "slots at work"));
    let backlog = panel(1, Axis::new(scale.backlog, "tasks waiting"));
    backlog.shade(svg, scale.warm_up);
    backlog.frame(svg);
    backlog.curve(svg, &at(|point| Some(point.backlog)), &Curve::area(colour, "backlog"));
    let wait = panel(2, Axis::new(scale.wait, "wait, seconds"));
    wait.shade(svg, scale.warm_up);
    wait.frame(svg);
    wait.level(svg, scale.target, "#b00020", "target");
    wait.curve(svg, &at(|point| point.wait_s), &Curve::area(colour, "longest wait"));
}
