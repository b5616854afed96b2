//! Cost against waits: the policies, and the costs that mean something.

use super::super::answer::{hours, seconds};
use super::super::{Candidate, Comparison};
use super::panel::{Axis, Panel};
use super::svg::{Anchor, Svg};
use super::{MARGIN, WIDTH, colour};

/// Room for the names.
const LEGEND: f64 = 330.0;

pub(super) fn draw(svg: &mut Svg, comparison: &Comparison, top: f64, height: f64) {
    let Comparison { day, yardsticks, .. } = comparison;
    let (pool, candidates) = (&day.pool, super::super::answer::shown(comparison).collect::<Vec<_>>());
    let known = [
        (yardsticks.work_floor, "work alone"),
        (yardsticks.clairvoyant, "clairvoyant, within the target"),
        (yardsticks.zero_wait.optimum, "clairvoyant, no waits"),
    ];
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let cost = most(&mut candidates.iter().map(|one| one.report.hours()).chain(known.iter().map(|(value, _)| hours(*value))));
    let target = seconds(pool.wait_target);
    let wait = most(&mut candidates.iter().map(|one| seconds(one.report.waits.p99))).max(target);
    let (x, y) = (Axis::new(cost, "cost, replica-hours"), Axis::new(wait, "wait p99, seconds"));
    let panel = Panel::new(MARGIN, top, WIDTH - 2.0 * MARGIN - LEGEND, height - 16.0, x, y);
    panel.frame(svg);
    panel.level(svg, target, "#b00020", "wait target");
    for (line, (value, name)) in known.into_iter().enumerate().rev() {
        panel.mark(svg, hours(value), "#777", &format!("{name}: {:.1} h", hours(value)), line);
    }
    let left = WIDTH - MARGIN - LEGEND + 20.0;
    svg.text(left, top + 10.0, 12.0, Anchor::Start, "#444", "policies (a ring: no other one is better in all)");
    for (index, Candidate { name, report, is_on_front }) in candidates.iter().enumerate() {
        let (x, y) = (panel.x(report.hours()), panel.y(seconds(report.waits.p99)));
        let colour = colour(index);
        if *is_on_front {
            svg.circle(x, y, 9.0, "none", colour);
        }
        svg.circle(x, y, 5.5, colour, "#fff");
        let line = top + 32.0 + index as f64 * 20.0;
        svg.rect(left, line - 10.0, 12.0, 12.0, colour, 1.0);
        let text = format!("{} {name}: {:.1} h, p99 {:.1} s", index + 1, report.hours(), seconds(report.waits.p99));
        svg.text(left + 18.0, line, 12.0, Anchor::Start, "#111", &text);
    }
    // Above all dots, and neighbours on different sides.
    for (index, Candidate { report, .. }) in candidates.iter().enumerate() {
        let (aside, above) = [(10.0, -7.0), (-17.0, -7.0), (-3.5, -13.0)][index % 3];
        let (x, y) = (panel.x(report.hours()), panel.y(seconds(report.waits.p99)));
        svg.text(x + aside, y + above, 11.0, Anchor::Start, "#111", &(index + 1).to_string());
    }
}
