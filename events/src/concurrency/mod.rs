//! How many attempts at a time a server does best with: found by measuring, one window after the other.
//!
//! A server has room for so many at a time. With fewer in flight it idles; with more they wait in its queue, which serves nobody sooner and costs
//! those that wait their time limits. So the best number is the smallest with which it does all that it can: L. Kleinrock's operating point ("Internet
//! congestion control using the power metric: keep the pipe just full, but no fuller", Ad Hoc Networks 80, 2018), which operational analysis has as
//! the saturation point N* = X₀ · R₀, the most that the server does in a second times what one request takes without a queue (Denning and Buzen, see
//! `fit.rs`). BBR finds the same point for a connection, from the two measured one after the other (N. Cardwell et al., "BBR: congestion-based
//! congestion control", ACM Queue 14(5), 2016); from there are the doubling at the start until it yields nothing, and then the probes: now and then one
//! window with more, which shows new room, and one with fewer, which shows the latency without a queue.
//!
//! What differs from BBR: means in place of its minimum and maximum. The latency of a packet varies because of queues; that of a request to a model varies
//! tenfold because of what is asked, so the shortest of many is not what one takes. And both asymptotes are fitted to all windows that are
//! remembered, for few requests have to suffice: chance in a mean of 32 is one sixth, and in that of 500 one in twenty.
//!
//! Overload that is said aloud (refused connections, 429, 503, timeouts) lowers the limit at once, by a factor: V. Jacobson, "Congestion avoidance and
//! control", SIGCOMM 1988, section 3.
//!
//! No clock and no chance: windows are measured elsewhere ([`Meter`] helps), and the same windows give the same limits.

mod fit;
mod meter;
mod reason;

use serde::{Deserialize, Serialize};

use self::fit::{Asymptotes, Sample};
pub use self::meter::{End, Meter, Wanted, Window};
pub use self::reason::Reason;
use crate::time::Micros;

/// The limit lies above the saturation point by this factor: places stay taken while the next request is on its way, and where the knee is round more is
/// gained by one more than lost.
const HEADROOM: f64 = 1.1;
/// Ends in a window, at least; and whole rounds of what is in flight, at least.
const ENDED: f64 = 32.0;
const ROUNDS: f64 = 2.0;
/// How much a window counts less with each that follows: those of the last 20 count for most.
const KEEP: f64 = 0.95;
/// Samples that count for less than so many ends are forgotten.
const WEIGHT_MIN: f64 = 2.0;
/// How much a probe differs from the limit, upwards and downwards.
const UP: f64 = 1.5;
const DOWN: f64 = 0.75;
/// Probes upwards for each downwards, which alone cost throughput.
const UPS: u32 = 3;
/// Windows between two probes: at first, and once nothing changes any more.
const INTERVAL_MIN: f64 = 2.0;
const INTERVAL_MAX: f64 = 12.0;
/// Deviations from what was expected that are looked at again, and that are a change at once.
const ODD: f64 = 3.0;
const CHANGED: f64 = 6.0;
/// Bounds of the variance of one latency, as a share of it; that of an exponential one is 1.
const VARIANCE: (f64, f64) = (0.25, 2.0);
/// What is left of the limit after overload, and of the level at which it was said as long as that is remembered.
const DECREASE: f64 = 0.7;
const CEILING: f64 = 0.9;
/// Windows for which it is remembered, at first and at most; twice as long each time that it is said there again.
const CEILING_WINDOWS: (u32, u32) = (8, 256);
/// Most of its time for which a window may have lacked work, and least of the limit that has to be in flight in it: the others are on their way.
const STARVED_MAX: f64 = 0.1;
const IN_FLIGHT_MIN: f64 = 0.3;
/// A window counts as overloaded with so many words of it, if they are this share of all ends.
const OVERLOADED_MIN: u32 = 3;
const OVERLOADED_SHARE: f64 = 0.05;

/// What may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Least attempts at a time, at least 1.
    pub min: u32,
    /// Most attempts at a time.
    pub max: u32,
    /// How many at first.
    pub initial: u32,
    /// Shortest time of a window.
    pub window: Micros,
}

impl Settings {
    /// Between these bounds, from the lower one on, with windows of at least 250 ms.
    pub const fn between(min: u32, max: u32) -> Settings {
        Settings { min, max, initial: min, window: Micros::from_millis(250) }
    }
}

/// What follows from a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// How many may be in flight from now on.
    pub limit: u32,
    /// Why.
    pub reason: Reason,
}

/// What the next window is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// The limit doubles until that yields nothing.
    Start,
    /// The limit is the best that is known.
    Steady,
    /// One window with more or with fewer.
    Probe,
}

/// Where overload was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ceiling {
    level: u32,
    /// For how many windows it holds, and for how many more.
    windows: u32,
    left: u32,
}

/// Finds the limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Controller {
    settings: Settings,
    phase: Phase,
    limit: u32,
    /// The limit between probes.
    level: u32,
    samples: Vec<Sample>,
    lines: Asymptotes,
    /// The variance of one latency around what was expected, as a share of it.
    variance: f64,
    /// How far the last window was from what was expected, in deviations, where that was odd.
    odd: f64,
    /// Whether the last change was for the worse.
    is_slower: bool,
    /// Windows until the next probe, between two, and how many probes went upwards since one went down.
    left: f64,
    interval: f64,
    ups: u32,
    ceiling: Option<Ceiling>,
    /// Whether anybody was served since the last overload.
    is_serving: bool,
}

impl Controller {
    /// One that knows nothing yet.
    pub fn new(settings: Settings) -> Controller {
        let min = settings.min.max(1);
        let settings = Settings { min, max: settings.max.max(min), ..settings };
        let limit = settings.initial.clamp(min, settings.max);
        Controller {
            settings,
            phase: Phase::Start,
            limit,
            level: limit,
            samples: Vec::new(),
            lines: Asymptotes::default(),
            variance: 1.0,
            odd: 0.0,
            is_slower: false,
            left: INTERVAL_MIN,
            interval: INTERVAL_MIN,
            // Two kinds of probes soon: one upwards, one downwards.
            ups: UPS - 1,
            ceiling: None,
            is_serving: false,
        }
    }

    /// How many may be in flight.
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// How many may be in flight between probes: what was found to be best.
    pub const fn level(&self) -> u32 {
        self.level
    }

    /// When the next window is over.
    pub fn wanted(&self) -> Wanted {
        let limit = f64::from(self.limit);
        let ended = rounded((ENDED / limit).ceil().max(ROUNDS) * limit);
        Wanted { ended, span: self.settings.window, overloaded: (ended / 10).max(OVERLOADED_MIN) }
    }

    /// Takes a window in that was measured under the limit, and says what the next one is to be measured under.
    pub fn step(&mut self, window: &Window) -> Step {
        if let Some(ceiling) = &mut self.ceiling {
            ceiling.left = ceiling.left.saturating_sub(1);
        }
        let is_overloaded = is_overloaded(window);
        self.is_serving |= window.completed > 0 && !is_overloaded;
        let reason = if is_overloaded {
            self.back_off(window)
        } else if window.completed == 0 || !self.is_reached(window) {
            self.wait(window)
        } else {
            self.learn(window)
        };
        Step { limit: self.limit, reason }
    }

    /// Whether the limit was what held attempts back.
    fn is_reached(&self, window: &Window) -> bool {
        let Window { in_flight_mean, starved, .. } = *window;
        starved <= STARVED_MAX && in_flight_mean.is_finite() && in_flight_mean >= IN_FLIGHT_MIN * f64::from(self.limit)
    }

    /// Lowers the limit at once.
    fn back_off(&mut self, window: &Window) -> Reason {
        let limit = f64::from(self.limit);
        // Of a server that serves nobody, time and again, nothing is known of how many it would serve.
        if window.completed > 0 || std::mem::take(&mut self.is_serving) {
            let windows = match self.ceiling {
                // It still holds, or held and was tried again.
                Some(ceiling) if ceiling.left > 0 => ceiling.windows,
                Some(ceiling) if ceiling.level < self.limit => (ceiling.windows * 2).min(CEILING_WINDOWS.1),
                Some(_) | None => CEILING_WINDOWS.0,
            };
            let level = self.bounded((limit * CEILING).min(limit - 1.0));
            self.ceiling = Some(Ceiling { level, windows, left: windows });
        }
        let level = (limit * DECREASE).floor();
        self.level = self.bounded(if self.phase == Phase::Probe { level.min(f64::from(self.level)) } else { level });
        self.left = self.interval;
        self.hold(Phase::Steady, self.level);
        Reason::Overloaded { overloaded: window.overloaded, ended: window.overloaded.saturating_add(window.completed) }
    }

    /// The load did not reach the limit: that says nothing about it.
    fn wait(&mut self, window: &Window) -> Reason {
        let was = self.limit;
        if self.phase == Phase::Probe {
            self.hold(Phase::Steady, self.level);
        }
        Reason::NotReached { in_flight: window.in_flight_mean, limit: was }
    }

    fn learn(&mut self, window: &Window) -> Reason {
        // A place is taken from one beginning to the next: while the next attempt is on its way it serves nobody. By Little's law that takes longer than the
        // latency by as much as there are places for each one in flight.
        let level = f64::from(self.limit);
        let latency = (window.latency_mean.0.max(1)) as f64 / 1e6 * (level / window.in_flight_mean).max(1.0);
        let sample = Sample { level, latency, weight: f64::from(window.completed) };
        let expected = self.lines.latency_at(sample.level);
        let is_odd = self.is_odd(&sample);
        let is_changed = is_odd && self.odd.abs() > ODD && self.samples.is_empty();
        self.remember(sample);
        let top = self.samples.iter().fold(f64::from(self.limit), |top, sample| top.max(sample.level));
        let is_one = self.samples.iter().all(|other| (other.level / sample.level).ln().abs() < 0.1);
        let can_shrink = self.limit > self.settings.min;
        self.is_slower &= can_shrink;
        let changed = |reason| if is_changed { Reason::Changed { latency, expected } } else { reason };
        match (self.lines.latency, self.lines.throughput) {
            (_, None) | (None, _) if is_one && !self.is_slower => changed(self.grow(top, latency)),
            (_, None) | (None, _) if is_one => changed(self.shrink(latency)),
            (None, Some(_)) if can_shrink => self.shrink(latency),
            (Some(_), None) => self.grow(top, latency),
            (Some(_) | None, Some(_)) | (None, None) if is_odd => Reason::Odd { latency, expected },
            (Some(latency), Some(throughput)) => self.aim(latency, throughput),
            (None, Some(_)) | (None, None) => self.probe_or(Reason::Shrinking { latency }),
        }
    }

    /// Whether a window is far from what was expected; forgets what was expected where that is certain.
    fn is_odd(&mut self, sample: &Sample) -> bool {
        let seen = self.samples.iter().fold(0.0, |top: f64, sample| top.max(sample.level));
        if self.lines.latency.is_none() || (self.lines.throughput.is_none() && sample.level > 1.1 * seen) {
            return false;
        }
        let error = (sample.latency / self.lines.latency_at(sample.level)).ln();
        let deviations = error * (sample.weight / self.variance.clamp(0.1, 4.0)).sqrt();
        self.variance = 0.9 * self.variance + 0.1 * (error * error * sample.weight).min(4.0);
        let is_odd = deviations.abs() > ODD;
        let is_again = is_odd && self.odd * deviations > 0.0;
        if is_again || deviations.abs() > CHANGED {
            self.samples.clear();
            self.is_slower = deviations > 0.0;
            self.interval = INTERVAL_MIN;
        }
        self.odd = if is_odd { deviations } else { 0.0 };
        is_odd
    }

    fn remember(&mut self, sample: Sample) {
        self.samples.iter_mut().for_each(|sample| sample.weight *= KEEP);
        self.samples.retain(|sample| sample.weight >= WEIGHT_MIN);
        self.samples.push(sample);
        self.lines = Asymptotes::of(&self.samples, self.variance.clamp(VARIANCE.0, VARIANCE.1));
    }

    /// More still did more.
    fn grow(&mut self, top: f64, latency: f64) -> Reason {
        let phase = self.phase;
        let next = self.bounded(if phase == Phase::Start { top * 2.0 } else { (top * UP).max(top + 1.0) });
        let is_possible = next > self.level;
        self.level = next;
        if !is_possible {
            return self.probe_or(Reason::Growing { latency });
        }
        self.left = INTERVAL_MIN;
        self.hold(if phase == Phase::Start { phase } else { Phase::Steady }, self.level);
        Reason::Growing { latency }
    }

    /// Fewer did as much.
    fn shrink(&mut self, latency: f64) -> Reason {
        self.level = self.bounded((f64::from(self.limit) / 2.0).ceil());
        self.left = INTERVAL_MIN;
        self.hold(Phase::Steady, self.level);
        Reason::Shrinking { latency }
    }

    /// The saturation point is known.
    fn aim(&mut self, latency: f64, throughput: f64) -> Reason {
        let best = self.bounded(HEADROOM * latency * throughput);
        let ratio = f64::from(best) / f64::from(self.level);
        if !(0.8..=1.25).contains(&ratio) {
            self.interval = INTERVAL_MIN;
        }
        // Chance alone moves it by less.
        if (ratio - 1.0).abs() > 0.05 {
            self.level = best;
        }
        self.probe_or(Reason::Found { latency, throughput })
    }

    /// Goes back to the level, or probes where it is time to.
    fn probe_or(&mut self, reason: Reason) -> Reason {
        if self.phase != Phase::Probe {
            self.left -= 1.0;
        }
        self.hold(Phase::Steady, self.level);
        if self.left > 0.0 {
            return reason;
        }
        self.left = self.interval;
        self.interval = (self.interval * 1.5).min(INTERVAL_MAX);
        let level = f64::from(self.level);
        let (up, down) = (self.bounded((level * UP).max(level + 1.0)), self.bounded((level * DOWN).floor().min(level - 1.0)));
        let is_up = up > self.level && (self.ups < UPS || down == self.level);
        self.ups = if is_up { self.ups + 1 } else { 0 };
        self.hold(Phase::Probe, if is_up { up } else { down });
        Reason::Probing { level: self.level }
    }

    fn hold(&mut self, phase: Phase, limit: u32) {
        (self.phase, self.limit) = (phase, limit);
    }

    fn bounded(&self, limit: f64) -> u32 {
        let ceiling = self.ceiling.filter(|ceiling| ceiling.left > 0).map_or(self.settings.max, |ceiling| ceiling.level);
        rounded(limit).min(ceiling).clamp(self.settings.min, self.settings.max)
    }
}

/// The nearest number of attempts.
fn rounded(limit: f64) -> u32 {
    // Ends at the bounds of the type.
    limit.round() as u32
}

fn is_overloaded(window: &Window) -> bool {
    let ended = f64::from(window.overloaded) + f64::from(window.completed);
    window.overloaded >= OVERLOADED_MIN && f64::from(window.overloaded) >= OVERLOADED_SHARE * ended
}
