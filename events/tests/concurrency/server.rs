//! Servers to find the best concurrency of, simulated event by event: time is a number, chance a small generator with a seed.

use std::collections::VecDeque;

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(crate) struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

/// How service times vary around their mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spread {
    Constant,
    /// Evenly, from half of the mean to one and a half.
    Even,
    Exponential,
    /// With this sigma of the logarithm: with 1, one in twenty takes five times as long as the median, and the deviation is 1.3 times the mean.
    Lognormal(f64),
}

impl Spread {
    /// A service time with the mean 1.
    fn draw(self, dice: &mut Dice) -> f64 {
        match self {
            Spread::Constant => 1.0,
            Spread::Even => 0.5 + dice.unit(),
            Spread::Exponential => -dice.unit().ln(),
            Spread::Lognormal(sigma) => {
                // Box and Muller, 1958.
                let normal = (-2.0 * dice.unit().ln()).sqrt() * (std::f64::consts::TAU * dice.unit()).cos();
                (sigma * normal - sigma * sigma / 2.0).exp()
            }
        }
    }
}

/// A server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Server {
    /// How many requests it works on at a time; the others wait in order.
    pub(crate) places: usize,
    /// How long one takes alone, in seconds, and how that varies.
    pub(crate) service: f64,
    pub(crate) spread: Spread,
    /// How much longer one takes when all places are taken, as a share: 1 is twice as long, as in a batch.
    pub(crate) slower: f64,
    /// How long each then holds the one lock, as a share of `service`.
    pub(crate) locked: f64,
    /// How many may wait before others are turned away at once.
    pub(crate) queue: usize,
    /// How long it takes until the next request of a place is there, in seconds.
    pub(crate) away: f64,
}

pub(crate) const fn places(places: usize, service: f64, spread: Spread) -> Server {
    Server { places, service, spread, slower: 0.0, locked: 0.0, queue: usize::MAX, away: 0.0 }
}

struct Request {
    begun: f64,
    /// Seconds of work that are left at full speed, and those under the lock after them.
    left: f64,
    locked: f64,
}

/// A request that has ended.
pub(crate) struct Ended {
    pub(crate) latency: f64,
    pub(crate) is_refused: bool,
}

/// How long it takes to be turned away, in seconds.
const REFUSAL: f64 = 0.001;

/// A server at work.
pub(crate) struct Work {
    pub(crate) server: Server,
    pub(crate) now: f64,
    active: Vec<Request>,
    waiting: VecDeque<Request>,
    /// The first one holds the lock.
    locked: VecDeque<Request>,
    /// When requests are turned away that began `REFUSAL` before.
    refused: VecDeque<f64>,
}

impl Work {
    pub(crate) fn new(server: Server) -> Work {
        Work { server, now: 0.0, active: Vec::new(), waiting: VecDeque::new(), locked: VecDeque::new(), refused: VecDeque::new() }
    }

    pub(crate) fn send(&mut self, dice: &mut Dice) {
        let Server { service, spread, locked, queue, .. } = self.server;
        let size = spread.draw(dice) * service;
        let hold = if locked > 0.0 { spread.draw(dice) * service * locked } else { 0.0 };
        let request = Request { begun: self.now, left: size, locked: hold };
        if self.active.len() >= self.server.places && self.waiting.len() >= queue {
            self.refused.push_back(self.now + REFUSAL);
        } else {
            self.waiting.push_back(request);
        }
        self.seat();
    }

    fn seat(&mut self) {
        while self.active.len() < self.server.places
            && let Some(next) = self.waiting.pop_front()
        {
            self.active.push(next);
        }
    }

    /// How much of a second's work each active one is done with in a second.
    fn speed(&self) -> f64 {
        let others = self.active.len().saturating_sub(1) as f64;
        1.0 / (1.0 + self.server.slower * others / (self.server.places - 1).max(1) as f64)
    }

    /// Goes on to the next end of a request, at most to `until`; gives it.
    pub(crate) fn next(&mut self, until: f64) -> Option<Ended> {
        loop {
            let speed = self.speed();
            let first = (0..self.active.len()).min_by(|a, b| self.active[*a].left.total_cmp(&self.active[*b].left));
            let served = first.map_or(f64::INFINITY, |index| self.now + self.active[index].left / speed);
            let unlocked = self.locked.front().map_or(f64::INFINITY, |one| self.now + one.locked);
            let refused = self.refused.front().copied().unwrap_or(f64::INFINITY);
            let at = served.min(unlocked).min(refused);
            let (to, span) = (at.min(until), at.min(until) - self.now);
            self.active.iter_mut().for_each(|one| one.left -= span * speed);
            if let Some(one) = self.locked.front_mut() {
                one.locked -= span;
            }
            self.now = to;
            if at > until {
                return None;
            }
            if refused <= at {
                self.refused.pop_front();
                return Some(Ended { latency: REFUSAL, is_refused: true });
            }
            if unlocked <= at {
                return self.locked.pop_front().map(|one| Ended { latency: self.now - one.begun, is_refused: false });
            }
            let one = self.active.swap_remove(first.unwrap_or(0));
            self.seat();
            if one.locked > 0.0 {
                self.locked.push_back(one);
            } else {
                return Some(Ended { latency: self.now - one.begun, is_refused: false });
            }
        }
    }
}
