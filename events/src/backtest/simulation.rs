//! The run itself: from event to event, with the policy asked when its cadence says so.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::arrivals::{Arrival, Arrivals};
use super::fleet::Fleet;
use super::meter::{Meter, Now};
use super::queue::Ready;
use super::report::{Report, Tally};
use super::setup::{Setup, SetupError};
use crate::scaling::{Cadence, Decision, Memory, Observation, Policy};

/// Why a day could not be run to its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BacktestError {
    /// The pool or the policy makes no sense.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The policy would have to be asked more often than anybody waits for.
    #[error(
        "the policy would be asked {looks} times or more, and at most {max} are computed; a trace so long needs one that looks less often"
    )]
    TooManyLooks {
        /// How often at least.
        looks: u64,
        /// How often at most.
        max: u64,
    },
}

/// Most looks of a run: about a minute of computing.
const LOOKS_MAX: u64 = 50_000_000;
/// For how long a policy may leave work alone with no replica, none starting and nothing to come: longer than any setting of a policy may last.
const PATIENCE: u64 = 8 * 86_400 * 1_000_000;

/// Runs the tasks under the policy.
///
/// # Errors
/// [`BacktestError`] names the setting that makes no sense, or says that there would be too much to compute.
pub fn run(arrivals: &Arrivals, setup: &Setup) -> Result<Report, BacktestError> {
    run_with(arrivals, setup, |_, _| {})
}

/// Runs the tasks under the policy and shows every decision with what it was made from.
///
/// # Errors
/// As for [`run`].
pub fn run_with(
    arrivals: &Arrivals,
    setup: &Setup,
    decided: impl FnMut(&Observation, &Decision),
) -> Result<Report, BacktestError> {
    setup.check()?;
    let longest = match setup.policy.cadence() {
        Cadence::Every(period) => period,
        Cadence::OnEvents { timer, .. } => timer,
    };
    // A trace of years under a policy that looks every other second is known to be too much before it has begun.
    let at_least = arrivals.span().0 / longest.0.max(1);
    if at_least > LOOKS_MAX {
        return Err(BacktestError::TooManyLooks { looks: at_least, max: LOOKS_MAX });
    }
    let mut simulation = Simulation::new(arrivals, setup, decided);
    simulation.run()?;
    let end = simulation.now;
    simulation.tally.wait_for_nothing(end, simulation.ready.iter(), arrivals.tasks());
    Ok(simulation.tally.report(arrivals, setup, end, simulation.fleet.asked()))
}

struct Simulation<'a, F> {
    setup: &'a Setup,
    tasks: &'a [Arrival],
    now: u64,
    /// So many tasks have arrived.
    arrived: usize,
    ready: Ready,
    /// Tasks that run: when they end, which they are, where they run. Of two that end at once the one that arrived first is first.
    running: BinaryHeap<Reverse<(u64, u32, u32)>>,
    fleet: Fleet,
    wanted: u32,
    meter: Meter,
    memory: Memory,
    looks: Looks,
    tally: Tally,
    /// The last moment at which anything but a look happened.
    eventful: u64,
    decided: F,
}

/// When the policy is asked.
struct Looks {
    cadence: Cadence,
    last: u64,
    next: u64,
    count: u64,
}

impl<'a, F: FnMut(&Observation, &Decision)> Simulation<'a, F> {
    fn new(arrivals: &'a Arrivals, setup: &'a Setup, decided: F) -> Self {
        let initially = setup.initially();
        let mut fleet = Fleet::new(setup.slots);
        fleet.grow(initially, 0);
        (0..initially).for_each(|_| fleet.make_ready());
        Simulation {
            setup,
            tasks: arrivals.tasks(),
            now: 0,
            arrived: 0,
            ready: Ready::default(),
            running: BinaryHeap::new(),
            fleet,
            wanted: initially,
            meter: Meter::new(setup, arrivals.began()),
            memory: Memory::default(),
            looks: Looks { cadence: setup.policy.cadence(), last: 0, next: 0, count: 0 },
            tally: Tally::new(arrivals, setup),
            eventful: 0,
            decided,
        }
    }

    fn run(&mut self) -> Result<(), BacktestError> {
        while let Some(at) = self.next() {
            self.tally.advance(self.now, at, self.fleet.counts(), self.ready.len(), self.wanted);
            self.now = at;
            let is_less = self.end_tasks();
            let is_more = self.ready_replicas() | self.arrive();
            self.dispatch();
            self.looks.note(at, is_more, is_less);
            if is_more || is_less {
                self.eventful = at;
            }
            if self.is_over() {
                break;
            }
            if self.looks.next <= at {
                self.look()?;
            }
        }
        Ok(())
    }

    /// The moment at which something happens; `None` where nothing ever will.
    fn next(&self) -> Option<u64> {
        let arrival = self.tasks.get(self.arrived).map(|task| task.at.0);
        let end = self.running.peek().map(|Reverse((at, ..))| *at);
        let work = [arrival, end, self.fleet.next_ready()].into_iter().flatten().min();
        let look = self.looks.next.max(self.now);
        match work {
            Some(at) => Some(at.min(look)),
            None => (!self.is_over() && look - self.eventful <= PATIENCE).then_some(look),
        }
    }

    /// Whether everything has arrived and is done. Replicas that are left are billed until here and no longer: what comes next is not known.
    fn is_over(&self) -> bool {
        self.arrived == self.tasks.len() && self.running.is_empty() && self.ready.len() == 0
    }

    fn end_tasks(&mut self) -> bool {
        let mut is_any = false;
        while let Some(Reverse((at, task, place))) = self.running.peek().copied() {
            if at > self.now {
                break;
            }
            self.running.pop();
            self.fleet.finish(place);
            self.meter.finished(self.tasks[task as usize].service.0);
            is_any = true;
        }
        is_any
    }

    fn ready_replicas(&mut self) -> bool {
        let mut is_any = false;
        while self.fleet.next_ready().is_some_and(|at| at <= self.now) {
            self.fleet.make_ready();
            self.meter.replica_ready(self.setup.start.0);
            is_any = true;
        }
        is_any
    }

    fn arrive(&mut self) -> bool {
        let before = self.arrived;
        while let Some(task) = self.tasks.get(self.arrived).filter(|task| task.at.0 <= self.now) {
            // At most `Arrivals::COUNT_MAX`, which 32 bits hold.
            self.ready.push(self.arrived as u32, task.priority);
            self.arrived += 1;
        }
        self.arrived > before
    }

    /// Starts what can start.
    fn dispatch(&mut self) {
        while self.ready.len() > 0
            && let Some(place) = self.fleet.start()
            && let Some(index) = self.ready.pop()
        {
            let task = self.tasks[index as usize];
            let wait = self.now - task.at.0;
            self.meter.started(self.now, wait);
            self.tally.started(index, self.now, wait);
            self.running.push(Reverse((self.now + task.service.0, index, place)));
        }
    }

    fn look(&mut self) -> Result<(), BacktestError> {
        let Simulation { now: at, tasks, arrived, wanted, .. } = *self;
        let seen = Now { at, tasks, arrived, ready: &self.ready, fleet: &self.fleet, wanted };
        let observation = self.meter.observe(seen);
        let decision = self.setup.policy.evaluate(&mut self.memory, observation);
        (self.decided)(observation, &decision);
        self.tally.decided(at, &decision);
        let to = self.setup.bounds.nearest(decision.wanted);
        if to > wanted {
            self.fleet.grow(to - wanted, at + self.setup.start.0);
        } else {
            self.fleet.shrink(wanted - to);
        }
        self.wanted = to;
        let again = decision.look_again.map(|moment| moment.since(observation.at).0.saturating_add(at));
        self.looks.looked(at, again);
        if self.looks.count > LOOKS_MAX {
            return Err(BacktestError::TooManyLooks { looks: self.looks.count, max: LOOKS_MAX });
        }
        Ok(())
    }
}

impl Looks {
    /// Something happened that may make the pool grow, or shrink.
    fn note(&mut self, at: u64, is_more: bool, is_less: bool) {
        let Cadence::OnEvents { up, down, .. } = self.cadence else { return };
        if is_more {
            self.next = self.next.min(at.max(self.last + up.0));
        }
        if is_less {
            self.next = self.next.min(at.max(self.last + down.0));
        }
    }

    /// It was asked, and says when it may decide otherwise although nothing happens.
    fn looked(&mut self, at: u64, again: Option<u64>) {
        self.count += 1;
        self.last = at;
        self.next = match self.cadence {
            Cadence::Every(period) => at + period.0.max(1),
            Cadence::OnEvents { up, timer, .. } => {
                let soonest = at + up.0.max(1);
                (at + timer.0).min(again.unwrap_or(u64::MAX)).max(soonest)
            }
        };
    }
}
