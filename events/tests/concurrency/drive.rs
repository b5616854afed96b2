//! Feeds a server with as many requests as somebody allows, and notes what that did.

use std::collections::VecDeque;

use ergate_events::concurrency::{Controller, End, Meter, Settings};
use ergate_events::time::Micros;

use crate::server::{Dice, Server, Work};

/// Whoever says how many may be in flight.
pub(crate) trait Pilot {
    fn limit(&self) -> u32;
    fn level(&self) -> u32 {
        self.limit()
    }
    fn begun(&mut self, now: f64);
    /// Whether there is no work for a free place.
    fn starved(&mut self, _now: f64, _is_starved: bool) {}
    fn ended(&mut self, now: f64, latency: f64, is_refused: bool);
}

/// Always the same.
pub(crate) struct Fixed(pub u32);

impl Pilot for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }
    fn begun(&mut self, _: f64) {}
    fn ended(&mut self, _: f64, _: f64, _: bool) {}
}

/// The controller with its meter.
pub(crate) struct Adaptive {
    controller: Controller,
    meter: Meter,
}

pub(crate) fn micros(seconds: f64) -> Micros {
    Micros((seconds * 1e6).round() as u64)
}

pub(crate) const SETTINGS: Settings = Settings::between(1, 256);

impl Adaptive {
    pub(crate) fn new(settings: Settings) -> Adaptive {
        Adaptive { controller: Controller::new(settings), meter: Meter::new(Micros(0)) }
    }
}

impl Pilot for Adaptive {
    fn limit(&self) -> u32 {
        self.controller.limit()
    }
    fn level(&self) -> u32 {
        self.controller.level()
    }
    fn begun(&mut self, now: f64) {
        self.meter.begin(micros(now), 1);
    }
    fn starved(&mut self, now: f64, is_starved: bool) {
        self.meter.starve(micros(now), is_starved);
    }
    fn ended(&mut self, now: f64, latency: f64, is_refused: bool) {
        let end = if is_refused { End::Overloaded } else { End::Served };
        let Some(window) = self.meter.end(micros(now), micros(latency), end, self.controller.wanted()) else { return };
        let before = self.controller.limit();
        self.controller.step(&window);
        if self.controller.limit() != before {
            self.meter.skip();
        }
    }
}

/// What came of it: for every request that was served, in order.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) served_at: Vec<f64>,
    pub(crate) levels: Vec<u32>,
    pub(crate) refused: usize,
}

impl Story {
    /// Requests a second from the one with this index on.
    pub(crate) fn throughput(&self, from: usize, to: usize) -> f64 {
        (to - from) as f64 / (self.served_at[to - 1] - if from == 0 { 0.0 } else { self.served_at[from - 1] })
    }
}

/// More than anybody can serve.
pub(crate) fn full(_: usize) -> Option<f64> {
    None
}

/// The load, by how many requests were served: `None` is more than anybody can serve, otherwise requests a second.
pub(crate) type Load = fn(usize) -> Option<f64>;

pub(crate) fn drive(pilot: &mut impl Pilot, course: &dyn Fn(usize) -> Server, load: Load, requests: usize, seed: u64) -> Story {
    let mut dice = Dice(seed);
    let mut work = Work::new(course(0));
    let (mut in_flight, mut waiting, mut next) = (0_u32, 0_u32, 0.0_f64);
    // When places can be used again: the next request is on its way.
    let mut away: VecDeque<f64> = VecDeque::new();
    let mut story = Story::default();
    while story.levels.len() < requests {
        let served = story.levels.len();
        work.server = course(served);
        let rate = load(served);
        while away.front().is_some_and(|at| *at <= work.now) {
            away.pop_front();
        }
        while in_flight + (away.len() as u32) < pilot.limit() && (rate.is_none() || waiting > 0) {
            waiting = waiting.saturating_sub(1);
            in_flight += 1;
            pilot.begun(work.now);
            work.send(&mut dice);
        }
        pilot.starved(work.now, rate.is_some() && in_flight + (away.len() as u32) < pilot.limit());
        if let Some(rate) = rate
            && next <= work.now
        {
            next = work.now - dice.unit().ln() / rate;
        }
        let back = away.front().copied().unwrap_or(f64::INFINITY);
        let arrival = if rate.is_some() { next } else { f64::INFINITY };
        match work.next(arrival.min(back)) {
            Some(ended) => {
                in_flight -= 1;
                if work.server.away > 0.0 {
                    away.push_back(work.now + work.server.away);
                }
                pilot.ended(work.now, ended.latency, ended.is_refused);
                if ended.is_refused {
                    story.refused += 1;
                    if story.refused > 20 * requests {
                        story.levels.resize(requests, pilot.level());
                        story.served_at.resize(requests, f64::INFINITY);
                    }
                } else {
                    story.served_at.push(work.now);
                    story.levels.push(pilot.level());
                }
            }
            None => waiting += u32::from(arrival <= back),
        }
    }
    story
}
