//! What others do, for the table in `docs/decisions/0011-concurrency.md`.

use crate::drive::Pilot;

/// TCP Vegas on requests, as Netflix's `VegasLimit`: the shortest latency stands for that without a queue.
pub(crate) struct Vegas {
    limit: f64,
    min: f64,
    in_flight: f64,
}
/// Netflix's `Gradient2Limit`: the mean of the last requests against a mean over many.
pub(crate) struct Gradient2 {
    limit: f64,
    long: f64,
    seen: f64,
    in_flight: f64,
}
/// Additive increase, multiplicative decrease where a request takes longer than twice the mean of the first 20 (or is turned away).
pub(crate) struct Aimd {
    limit: f64,
    first: Vec<f64>,
    in_flight: f64,
}
/// Hill climbing on throughput as the thread pool of .NET before its waves: windows of requests, steps of a tenth, back where it got worse.
pub(crate) struct Climb {
    limit: f64,
    step: f64,
    before: f64,
    since: f64,
    count: f64,
    power: f64,
}

pub(crate) fn vegas() -> Vegas {
    Vegas { limit: 4.0, min: f64::INFINITY, in_flight: 0.0 }
}
pub(crate) fn gradient2() -> Gradient2 {
    Gradient2 { limit: 4.0, long: 0.0, seen: 0.0, in_flight: 0.0 }
}
pub(crate) fn aimd() -> Aimd {
    Aimd { limit: 4.0, first: Vec::new(), in_flight: 0.0 }
}
pub(crate) fn climb(power: f64) -> Climb {
    Climb { limit: 4.0, step: 1.0, before: 0.0, since: 0.0, count: 0.0, power }
}

impl Pilot for Vegas {
    fn limit(&self) -> u32 {
        self.limit as u32
    }
    fn begun(&mut self, _: f64) {
        self.in_flight += 1.0;
    }
    fn ended(&mut self, _: f64, latency: f64, is_refused: bool) {
        let in_flight = self.in_flight;
        self.in_flight -= 1.0;
        let log = self.limit.log10().max(1.0);
        if is_refused {
            self.limit = (self.limit - log).max(1.0);
            return;
        }
        self.min = self.min.min(latency);
        if in_flight * 2.0 < self.limit {
            return;
        }
        let queue = (self.limit * (1.0 - self.min / latency)).ceil();
        if queue <= log {
            self.limit += 6.0 * log;
        } else if queue < 3.0 * log {
            self.limit += log;
        } else if queue > 6.0 * log {
            self.limit -= log;
        }
        self.limit = self.limit.clamp(1.0, 256.0);
    }
}

impl Pilot for Gradient2 {
    fn limit(&self) -> u32 {
        self.limit as u32
    }
    fn begun(&mut self, _: f64) {
        self.in_flight += 1.0;
    }
    fn ended(&mut self, _: f64, latency: f64, is_refused: bool) {
        let in_flight = self.in_flight;
        self.in_flight -= 1.0;
        if is_refused {
            return;
        }
        self.seen += 1.0;
        let weight = if self.seen < 10.0 { 1.0 / self.seen } else { 2.0 / 601.0 };
        self.long += (latency - self.long) * weight;
        if self.long / latency > 2.0 {
            self.long *= 0.95;
        }
        if in_flight < self.limit / 2.0 {
            return;
        }
        let gradient = (1.5 * self.long / latency).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + 4.0;
        self.limit = (self.limit * 0.8 + wanted * 0.2).clamp(1.0, 256.0);
    }
}

impl Pilot for Aimd {
    fn limit(&self) -> u32 {
        self.limit as u32
    }
    fn begun(&mut self, _: f64) {
        self.in_flight += 1.0;
    }
    fn ended(&mut self, _: f64, latency: f64, is_refused: bool) {
        let in_flight = self.in_flight;
        self.in_flight -= 1.0;
        if self.first.len() < 20 {
            self.first.push(latency);
            return;
        }
        let bound = 2.0 * self.first.iter().sum::<f64>() / 20.0;
        if is_refused || latency > bound {
            self.limit *= 0.9;
        } else if in_flight * 2.0 >= self.limit {
            self.limit += 1.0;
        }
        self.limit = self.limit.clamp(1.0, 256.0);
    }
}

impl Pilot for Climb {
    fn limit(&self) -> u32 {
        self.limit as u32
    }
    fn begun(&mut self, _: f64) {}
    fn ended(&mut self, now: f64, _: f64, is_refused: bool) {
        if !is_refused {
            self.count += 1.0;
        }
        if self.count < (self.limit.floor() * 2.0).max(48.0) {
            return;
        }
        // X^r / R, with R = L / X.
        let throughput = self.count / (now - self.since);
        let worth = throughput.powf(self.power + 1.0) / self.limit.floor();
        if worth < self.before {
            self.step = -self.step;
        }
        let by = (self.limit * 0.2).max(1.0);
        self.limit = (self.limit + self.step.signum() * by).clamp(1.0, 256.0);
        (self.before, self.since, self.count) = (worth, now, 0.0);
    }
}
