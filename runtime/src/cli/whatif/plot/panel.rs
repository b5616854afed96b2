//! A pair of axes with curves.

use super::svg::{Anchor, Svg};

/// An axis from 0 on.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    most: f64,
    step: f64,
    title: &'static str,
}

/// How a curve is drawn.
pub(super) struct Curve<'a> {
    colour: &'a str,
    name: &'a str,
    is_filled: bool,
}

/// Where a pair of axes is.
pub(super) struct Panel {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
    x: Axis,
    y: Axis,
}

/// Room for the numbers and the title beside an axis.
const BESIDE: f64 = 58.0;
/// Room for the names of curves above.
const ABOVE: f64 = 14.0;
/// The same below one.
const BELOW: f64 = 34.0;

impl Axis {
    /// Up to `most` and a little more, with about five round numbers.
    pub(super) fn new(most: f64, title: &'static str) -> Axis {
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].iter().map(|part| part * power).find(|step| *step >= rough).unwrap_or(most);
        Axis { most: most * 1.04, step, title }
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        (0..).map(move |index| f64::from(index) * self.step).take_while(move |tick| *tick <= self.most)
    }

    fn label(self, tick: f64) -> String {
        let digits = if self.step >= 1.0 { 0 } else { (-self.step.log10().floor()).min(6.0) as usize };
        format!("{tick:.digits$}")
    }
}

impl<'a> Curve<'a> {
    pub(super) const fn area(colour: &'a str, name: &'a str) -> Curve<'a> {
        Curve { colour, name, is_filled: true }
    }

    pub(super) const fn line(colour: &'a str, name: &'a str) -> Curve<'a> {
        Curve { colour, name, is_filled: false }
    }
}

impl Panel {
    pub(super) const fn new(left: f64, top: f64, width: f64, height: f64, x: Axis, y: Axis) -> Panel {
        let (left, top) = (left + BESIDE, top + ABOVE);
        let (width, height) = (width - BESIDE - 12.0, height - ABOVE - BELOW - 6.0);
        Panel { left, top, width, height, x, y }
    }

    pub(super) fn x(&self, value: f64) -> f64 {
        self.left + value / self.x.most * self.width
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        self.top + self.height - value / self.y.most * self.height
    }

    /// Axes, numbers, titles, and lines to read them by.
    pub(super) fn frame(&self, svg: &mut Svg) {
        let (right, bottom) = (self.left + self.width, self.top + self.height);
        for tick in self.y.ticks() {
            svg.line([self.left, self.y(tick), right, self.y(tick)], "#e4e4e4", 1.0, false);
            svg.text(self.left - 6.0, self.y(tick) + 4.0, 11.0, Anchor::End, "#444", &self.y.label(tick));
        }
        for tick in self.x.ticks() {
            svg.line([self.x(tick), bottom, self.x(tick), bottom + 4.0], "#444", 1.0, false);
            svg.text(self.x(tick), bottom + 16.0, 11.0, Anchor::Middle, "#444", &self.x.label(tick));
        }
        svg.line([self.left, bottom, right, bottom], "#444", 1.0, false);
        svg.line([self.left, self.top, self.left, bottom], "#444", 1.0, false);
        svg.text(self.left + self.width / 2.0, bottom + 30.0, 11.0, Anchor::Middle, "#444", self.x.title);
        svg.text_up(self.left - 44.0, self.top + self.height / 2.0, 11.0, "#444", self.y.title);
    }

    /// A curve, and its name beside those of the others.
    pub(super) fn curve(&self, svg: &mut Svg, points: &[(f64, f64)], curve: &Curve<'_>) {
        let points: Vec<_> = points.iter().map(|(x, y)| (self.x(*x), self.y(*y))).collect();
        svg.path(&points, curve.colour, 1.2, curve.is_filled.then_some(self.top + self.height));
        // Above the frame, where no curve is.
        let place = if curve.is_filled { 0.0 } else { 110.0 };
        let (x, y) = (self.left + 4.0 + place, self.top - 7.0);
        svg.line([x, y - 3.5, x + 14.0, y - 3.5], curve.colour, 2.5, false);
        svg.text(x + 18.0, y, 10.5, Anchor::Start, "#333", curve.name);
    }

    /// A curve that is named elsewhere.
    pub(super) fn line(&self, svg: &mut Svg, points: &[(f64, f64)], colour: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| (self.x(*x), self.y(*y))).collect();
        svg.path(&points, colour, 1.4, None);
    }

    /// A height that means something.
    pub(super) fn level(&self, svg: &mut Svg, value: f64, colour: &str, name: &str) {
        let right = self.left + self.width;
        svg.line([self.left, self.y(value), right, self.y(value)], colour, 1.2, true);
        svg.text(right - 4.0, self.y(value) - 4.0, 10.5, Anchor::End, colour, name);
    }

    /// A place along the other axis that means something; names stand below each other, for such places may be near.
    pub(super) fn mark(&self, svg: &mut Svg, value: f64, colour: &str, name: &str, line: usize) {
        let (x, y) = (self.x(value), self.top + 12.0 + line as f64 * 16.0);
        svg.line([x, self.top, x, self.top + self.height], colour, 1.2, true);
        svg.rect(x + 3.0, y - 10.0, name.chars().count() as f64 * 6.1 + 6.0, 13.0, "#fff", 0.85);
        svg.text(x + 6.0, y, 10.5, Anchor::Start, "#444", name);
    }

    /// The beginning up to here, which does not count.
    pub(super) fn shade(&self, svg: &mut Svg, until: f64) {
        let width = self.x(until.min(self.x.most)) - self.left;
        if width > 0.0 {
            svg.rect(self.left, self.top, width, self.height, "#999", 0.18);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers_whatever_they_measure() {
        for (most, step, label) in [
            (0.0, 0.2, "0.2"),
            (1.0, 0.2, "0.2"),
            (37.6, 10.0, "10"),
            (99.0, 20.0, "20"),
            (0.03, 0.01, "0.01"),
            (1e6, 2e5, "200000"),
        ] {
            let axis = Axis::new(most, "");
            assert!((axis.step - step).abs() < step * 1e-9, "{most}: {}", axis.step);
            assert_eq!(axis.label(axis.step), label);
            assert!((3..=7).contains(&axis.ticks().count()), "{most}");
        }
    }
}
