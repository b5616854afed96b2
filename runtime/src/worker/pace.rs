//! How many attempts a worker runs at a time, where it finds that out: measured from the beginning of each to its end, and told to the engine.

use std::time::{Duration, Instant};

use ergate_actors::workers::runner::News;
use ergate_events::concurrency::{Controller, End, Meter, Settings};
use ergate_events::time::Micros;

use super::wire;

/// Shortest time between two changes that are told; what changes in between is told with the next one.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How many attempts a worker runs at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as it has slots.
    #[default]
    Fixed,
    /// As many as do best, which it finds out by how long they take; `docs/workers.md` says how.
    Adaptive {
        /// At least so many, and so many at first.
        min: u32,
        /// At most so many, and at most as many as it has slots.
        max: u32,
    },
}

impl Concurrency {
    /// What is wrong with it, if anything.
    pub(super) fn fault(self, slots: u32) -> Option<String> {
        match self {
            Concurrency::Adaptive { min, max } if min == 0 || min > max || max > slots => Some(format!(
                "its concurrency is {min} to {max}; at least 1, and at most as many as its {slots} slots are expected"
            )),
            Concurrency::Adaptive { .. } | Concurrency::Fixed => None,
        }
    }
}

/// An attempt that runs.
#[derive(Clone, Copy)]
struct Run {
    begun: Instant,
    timeout: Duration,
}

/// Finds out how many attempts at a time do best.
pub(super) struct Pace {
    controller: Controller,
    meter: Meter,
    start: Instant,
    /// The attempts that run, by their places.
    runs: Vec<Option<Run>>,
    reason: String,
}

/// What an engine was told of the limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Notice {
    /// What it was told last. Nothing where it is to hear of the limit in any case, whatever it heard before: it may be another one.
    limit: Option<u32>,
    /// What it was told before that.
    before: Option<u32>,
    /// When it was told last.
    at: Option<Instant>,
}

impl Notice {
    /// It may not have heard what it was told last.
    pub(super) const fn take_back(&mut self) {
        self.limit = self.before;
    }
}

impl Pace {
    /// What the concurrency of a worker with so many slots needs; nothing where it is fixed.
    pub(super) fn of(concurrency: Concurrency, slots: u32) -> Option<Pace> {
        let Concurrency::Adaptive { min, max } = concurrency else { return None };
        Some(Pace {
            controller: Controller::new(Settings::between(min, max)),
            meter: Meter::new(Micros(0)),
            start: Instant::now(),
            runs: vec![None; slots as usize],
            reason: "nothing is known yet".to_owned(),
        })
    }

    /// How many attempts may run.
    pub(super) const fn limit(&self) -> u32 {
        self.controller.limit()
    }

    /// An attempt begins to run.
    pub(super) fn begin(&mut self, place: usize, timeout: Micros) {
        if let Some(run) = self.runs.get_mut(place) {
            *run = Some(Run { begun: Instant::now(), timeout: timeout.to_std() });
            self.meter.begin(self.start.elapsed().into(), 1);
        }
    }

    /// There is no work for free places from now on, or there is.
    pub(super) fn starve(&mut self, is_starved: bool) {
        self.meter.starve(self.start.elapsed().into(), is_starved);
    }

    /// An attempt has ended; where it never ran nothing is measured.
    pub(super) fn end(&mut self, place: usize, news: News<'_>) {
        let Some(run) = self.runs.get_mut(place).and_then(Option::take) else { return };
        let latency = run.begun.elapsed();
        let end = judge(news, latency, run.timeout);
        let Some(window) = self.meter.end(self.start.elapsed().into(), latency.into(), end, self.controller.wanted()) else {
            return;
        };
        let before = self.controller.limit();
        let step = self.controller.step(&window);
        if step.limit != before {
            self.meter.skip();
            self.reason = step.reason.to_string();
            tracing::debug!(before, limit = step.limit, reason = self.reason, "the concurrency of the worker has changed");
        }
    }

    /// When there is something to tell an engine.
    pub(super) fn due(&self, notice: &Notice) -> Option<Instant> {
        let is_new = notice.limit != Some(self.limit());
        is_new.then(|| notice.at.map_or(self.start, |at| at + TELL_EVERY))
    }

    /// What there is to tell it now, as a part of a report.
    pub(super) fn tell(&self, notice: &mut Notice) -> Option<Vec<u8>> {
        self.due(notice).filter(|due| *due <= Instant::now())?;
        let limit = self.limit();
        let was = notice.limit.unwrap_or(limit);
        *notice = Notice { limit: Some(limit), before: notice.limit, at: Some(Instant::now()) };
        let mut part = Vec::new();
        wire::push_value(&mut part, "concurrency", &wire::Concurrency { limit, was, reason: &self.reason });
        Some(part)
    }
}

/// What the end of an attempt says about the server that it asked.
fn judge(news: News<'_>, latency: Duration, timeout: Duration) -> End {
    match news {
        News::Failed(failure) if is_overload(failure.class) => End::Overloaded,
        News::Succeeded(..) | News::Failed(_) => End::Served,
        // The engine ends what has taken too long; by its own clock, a moment sooner than by this one.
        News::Released if latency >= timeout.mul_f64(0.95) => End::Overloaded,
        News::Released | News::Kept(_) | News::Progressed(_) | News::Ran(_) | News::Alive => End::Taken,
    }
}

/// Whether a failure says that a server has too much to do, and not that it cannot do what it was asked: the classes of the `http` executor for
/// connections that are refused or broken or take too long to come, for 429 and 503, and for 504 of what stands before the server.
fn is_overload(class: &str) -> bool {
    matches!(class, "connect" | "timeout" | "http-429" | "http-503" | "http-504")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use ergate_events::task::{Failure, Outcome};

    use super::*;

    const OK: News<'_> = News::Succeeded(Outcome::Succeeded, b"null");

    fn pace() -> Pace {
        Pace::of(Concurrency::Adaptive { min: 2, max: 8 }, 8).unwrap()
    }

    fn failed(class: &str) -> News<'_> {
        News::Failed(Failure { class, message: "", retryable: true, delay: None })
    }

    #[test]
    fn some_failures_are_overload_and_others_are_answers() {
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(1));
        for class in ["connect", "timeout", "http-429", "http-503", "http-504"] {
            assert_eq!(judge(failed(class), short, long), End::Overloaded, "{class}");
        }
        for class in ["http-400", "http-500", "result", "boom"] {
            assert_eq!(judge(failed(class), short, long), End::Served, "{class}");
        }
        assert_eq!(judge(OK, short, long), End::Served);
        assert_eq!((judge(News::Released, short, long), judge(News::Released, long, long)), (End::Taken, End::Overloaded));
    }

    #[test]
    fn the_limit_is_told_at_first_and_after_each_change_but_not_more_often_than_once_a_second() {
        let (mut pace, mut notice) = (pace(), Notice::default());
        let said = |part: Option<Vec<u8>>| String::from_utf8(part.unwrap()).unwrap();
        assert_eq!(said(pace.tell(&mut notice)), r#","concurrency":{"limit":2,"was":2,"reason":"nothing is known yet"}"#);
        assert_eq!((pace.tell(&mut notice), pace.due(&notice)), (None, None));
        for _ in 0..200 {
            (0..2).for_each(|place| pace.begin(place, Micros::from_secs(9)));
            std::thread::sleep(Duration::from_millis(2));
            (0..2).for_each(|place| pace.end(place, OK));
            if pace.limit() != 2 {
                break;
            }
        }
        assert_eq!(pace.limit(), 4);
        assert_eq!(pace.tell(&mut notice), None, "a second has not gone by");
        notice.at = notice.at.map(|at| at - TELL_EVERY);
        let told = said(pace.tell(&mut notice));
        assert!(told.contains(r#""limit":4,"was":2,"reason":"attempts take "#), "{told}");
        // Each engine is told by itself, and one that may not have heard it once more.
        assert!(said(pace.tell(&mut Notice::default())).contains(r#""limit":4,"was":4"#));
        notice.take_back();
        assert!(pace.due(&notice).is_some_and(|due| due > Instant::now()));
        notice.at = notice.at.map(|at| at - TELL_EVERY);
        assert!(said(pace.tell(&mut notice)).contains(r#""limit":4,"was":2"#));
    }

    #[test]
    fn a_limit_for_which_there_is_no_work_stays_what_it_is() {
        let mut pace = pace();
        pace.starve(true);
        for _ in 0..100 {
            (0..2).for_each(|place| pace.begin(place, Micros::from_secs(9)));
            std::thread::sleep(Duration::from_millis(2));
            (0..2).for_each(|place| pace.end(place, OK));
        }
        assert_eq!(pace.limit(), 2);
    }

    #[test]
    fn an_end_without_a_beginning_is_none() {
        let mut pace = pace();
        pace.end(0, OK);
        pace.end(99, OK);
        pace.begin(99, Micros(0));
        assert_eq!(pace.meter.in_flight(), 0);
        pace.begin(1, Micros(0));
        pace.end(1, News::Released);
        assert_eq!(pace.meter.in_flight(), 0);
    }

    #[test]
    fn bounds_lie_within_the_slots() {
        for (min, max, is_right) in [(1, 8, true), (8, 8, true), (0, 8, false), (5, 4, false), (1, 9, false)] {
            assert_eq!(Concurrency::Adaptive { min, max }.fault(8).is_none(), is_right, "{min} to {max}");
        }
        assert_eq!(Concurrency::Fixed.fault(1), None);
    }
}
