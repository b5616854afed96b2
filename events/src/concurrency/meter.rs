//! Measures windows: what went on between two moments, told by whoever has the clock.

use serde::{Deserialize, Serialize};

use crate::time::Micros;

/// What a window shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// How long it was.
    pub span: Micros,
    /// How many attempts ended in it, well or not, without a word of overload.
    pub completed: u32,
    /// How many ended because what they asked had too much to do: refused, turned away, not answered in time.
    pub overloaded: u32,
    /// How long those that completed took, on average.
    pub latency_mean: Micros,
    /// How many were in flight, on average over its time.
    pub in_flight_mean: f64,
    /// How many were in flight at most.
    pub in_flight_max: u32,
    /// For which share of its time there was no work for a free place.
    pub starved: f64,
}

/// How an attempt ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was served.
    Served,
    /// What it asked has too much to do.
    Overloaded,
    /// It says nothing: somebody ended it.
    Taken,
}

/// When a window is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Once so many attempts have ended …
    pub ended: u32,
    /// … and this much time has gone by; or before, once so many were overloaded.
    pub span: Micros,
    /// See above.
    pub overloaded: u32,
}

/// Measures windows, one after the other.
///
/// A window begins and ends with the end of an attempt, so that a server that answers its requests together is measured over whole rounds of them.
/// After the limit has changed, what was in flight ends first: it says more about the limit before.
#[derive(Clone, Debug)]
pub struct Meter {
    /// The last moment that it heard of.
    at: Micros,
    begun: Micros,
    /// When the limit changed.
    changed: Micros,
    in_flight: u32,
    is_starved: bool,
    /// Ends that belong to no window.
    skipped: u32,
    /// Attempts in flight, summed over microseconds.
    area: u128,
    latency: u128,
    starved: u64,
    window: Window,
}

impl Meter {
    /// One that begins now, with nothing in flight.
    pub fn new(at: Micros) -> Meter {
        Meter {
            at,
            begun: at,
            changed: at,
            in_flight: 0,
            is_starved: false,
            skipped: 1,
            area: 0,
            latency: 0,
            starved: 0,
            window: Window::default(),
        }
    }

    /// How many attempts are in flight.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Attempts begin.
    pub fn begin(&mut self, at: Micros, attempts: u32) {
        self.pass(at);
        self.in_flight += attempts;
        self.window.in_flight_max = self.window.in_flight_max.max(self.in_flight);
    }

    /// From now on there is work for every place that gets free, or there is not.
    pub fn starve(&mut self, at: Micros, is_starved: bool) {
        self.pass(at);
        self.is_starved = is_starved;
    }

    /// An attempt ends that took so long. Gives the window that is over with it.
    pub fn end(&mut self, at: Micros, latency: Micros, end: End, wanted: Wanted) -> Option<Window> {
        self.pass(at);
        self.in_flight = self.in_flight.saturating_sub(1);
        match end {
            End::Taken => return None,
            // What began under the limit before says nothing of this one.
            End::Overloaded if self.at.0 - self.changed.0 < latency.0 => self.pass_over(),
            End::Overloaded => self.window.overloaded += 1,
            End::Served if self.skipped > 0 => self.pass_over(),
            End::Served => {
                self.window.completed += 1;
                self.latency += u128::from(latency.0);
            }
        }
        let Window { completed, overloaded, .. } = self.window;
        let span = Micros(self.at.0 - self.begun.0);
        let is_over =
            (completed.saturating_add(overloaded) >= wanted.ended && span >= wanted.span) || overloaded >= wanted.overloaded;
        is_over.then(|| self.end_window(span))
    }

    /// What is in flight now says nothing about what comes: another limit holds.
    pub fn skip(&mut self) {
        (self.skipped, self.changed) = (self.in_flight.max(1), self.at);
    }

    fn pass_over(&mut self) {
        self.skipped = self.skipped.saturating_sub(1);
        if self.skipped == 0 {
            let overloaded = self.window.overloaded;
            self.begin_window();
            self.window.overloaded = overloaded;
        }
    }

    fn pass(&mut self, at: Micros) {
        let at = at.max(self.at);
        if self.is_starved {
            self.starved += at.0 - self.at.0;
        }
        self.area += u128::from(self.in_flight) * u128::from(at.0 - self.at.0);
        self.at = at;
    }

    fn begin_window(&mut self) {
        (self.begun, self.area, self.latency, self.starved) = (self.at, 0, 0, 0);
        self.window = Window { in_flight_max: self.in_flight, ..Window::default() };
    }

    fn end_window(&mut self, span: Micros) -> Window {
        let latency = self.latency / u128::from(self.window.completed.max(1));
        let window = Window {
            span,
            latency_mean: Micros(u64::try_from(latency).unwrap_or(u64::MAX)),
            in_flight_mean: self.area as f64 / span.0.max(1) as f64,
            starved: self.starved as f64 / span.0.max(1) as f64,
            ..self.window
        };
        self.begin_window();
        window
    }
}
