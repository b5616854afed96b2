//! Progress on standard error: a bar on a terminal, a plain line about every second elsewhere, nothing when asked to be quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{Globals, output};

/// How often a bar is drawn.
pub(crate) const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Shows how far something is.
pub(crate) struct Display {
    title: &'static str,
    unit: &'static str,
    kind: Kind,
    pace: Pace,
}

enum Kind {
    Quiet,
    Bar(ProgressBar),
    Lines(Instant),
}

impl Display {
    /// A display with this title, counting this.
    pub(crate) fn new(globals: &Globals, title: &'static str, unit: &'static str) -> Display {
        let kind = match (globals.quiet, std::io::stderr().is_terminal()) {
            (true, _) => Kind::Quiet,
            (false, true) => Kind::Bar(ProgressBar::no_length().with_style(style()).with_prefix(title)),
            (false, false) => Kind::Lines(Instant::now()),
        };
        Display { title, unit, kind, pace: Pace::new() }
    }

    /// Shows how many are done, of how many where that is known, and a word on the rest.
    pub(crate) fn update(&mut self, done: u64, total: Option<u64>, detail: &str) {
        let Display { title, unit, kind, pace } = self;
        let rate = pace.at(done);
        match kind {
            Kind::Quiet => {}
            Kind::Bar(bar) => {
                total.map_or_else(|| bar.unset_length(), |total| bar.set_length(total.max(done)));
                bar.set_position(done);
                bar.set_message(format!("{} {unit}/s{detail}", number(rate)));
            }
            Kind::Lines(last) if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let of = total.map(|total| format!(" of {}", number(total))).unwrap_or_default();
                output::note(&format!("{title}: {}{of} {unit}, {}/s{detail}", number(done), number(rate)));
            }
            Kind::Lines(_) => {}
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {bar:24} {human_pos}/{human_len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The rate over the last second or so.
struct Pace {
    since: Instant,
    done: u64,
    rate: u64,
}

impl Pace {
    fn new() -> Pace {
        Pace { since: Instant::now(), done: 0, rate: 0 }
    }

    fn at(&mut self, done: u64) -> u64 {
        let elapsed = self.since.elapsed();
        if elapsed >= LINE_EVERY || self.rate == 0 {
            self.rate = rate(done.saturating_sub(self.done), elapsed);
        }
        if elapsed >= LINE_EVERY {
            (self.since, self.done) = (Instant::now(), done);
        }
        self.rate
    }
}

/// So many a second.
pub(crate) fn rate(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64().max(1e-6)) as u64
}

/// A number with its thousands set apart.
pub(crate) fn number(value: u64) -> String {
    indicatif::HumanCount(value).to_string()
}

/// A number of bytes with its unit.
pub(crate) fn bytes(value: u64) -> String {
    indicatif::BinaryBytes(value).to_string()
}

/// A number with the word for one or for many.
pub(crate) fn count(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}
