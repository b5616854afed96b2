//! The run itself: from event to event, with the policy asked when its cadence says so.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::arrivals::{Arrival, Arrivals};
use super::fleet::Fleet;
use super::meter::{Meter, Now};
use super::queue::Ready;
use super::report::{Report, Tally};
use super::setup::{Change, Setup, SetupError};
use crate::scaling::decision::{By, LimitKind};
use crate::scaling::looks::{self, There};
use crate::scaling::signal::Bounds;
use crate::scaling::{AnyPolicy, Cadence, Decision, Memory, Observation, Policy};
use crate::time::Timestamp;

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
    simulation.tally.wait_for_nothing(end, simulation.ready.iter());
    Ok(simulation.tally.report(arrivals, setup, end, simulation.fleet.asked()))
}

struct Simulation<'a, F> {
    setup: &'a Setup,
    arrivals: &'a Arrivals,
    tasks: &'a [Arrival],
    now: u64,
    /// So many tasks have arrived.
    arrived: usize,
    ready: Ready,
    /// Attempts that run: when they end, of which task, where they run. Of two that end at once the one whose task arrived first is first.
    running: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Tasks that are ready again at a moment.
    returning: BinaryHeap<Reverse<(u64, u32)>>,
    /// How many further attempts were begun, of the tasks that have any.
    attempts: BTreeMap<u32, usize>,
    fleet: Fleet,
    wanted: u32,
    sizing: Option<Sizing<'a>>,
    /// So many of the changes were made.
    changed: usize,
    /// Whether tasks are started, and the pool is sized.
    runs: bool,
    meter: Meter,
    tally: Tally,
    /// How often the policy was asked.
    looks: u64,
    /// The last moment at which anything but a look happened.
    eventful: u64,
    decided: F,
}

/// Who sizes the pool, and when that is next.
struct Sizing<'a> {
    policy: &'a AnyPolicy,
    bounds: Bounds,
    memory: Memory,
    cadence: Cadence,
    /// When it was asked last, and what there was.
    last: Option<(Timestamp, There)>,
    /// When it wants to look again at the latest.
    again: Option<Timestamp>,
    /// At how many replicas somebody holds the pool, within its bounds, and until when.
    hold: Option<(u32, u64)>,
}

impl<'a> Sizing<'a> {
    fn new(policy: &'a AnyPolicy, bounds: Bounds, size: u32) -> Sizing<'a> {
        Sizing { policy, bounds, memory: policy.begin(size), cadence: policy.cadence(), last: None, again: None, hold: None }
    }

    fn due(&self, there: There) -> u64 {
        self.last.map_or(0, |last| looks::due(self.cadence, last, there, self.bounds.max, self.again).0)
    }
}

impl<'a, F: FnMut(&Observation, &Decision)> Simulation<'a, F> {
    fn new(arrivals: &'a Arrivals, setup: &'a Setup, decided: F) -> Self {
        let initially = setup.initially();
        let mut fleet = Fleet::new(setup.slots);
        fleet.grow(initially, 0);
        (0..initially).for_each(|_| fleet.make_ready());
        let mut meter = Meter::new(setup.window, arrivals.began());
        meter.aim(&setup.policy, setup.bounds);
        Simulation {
            setup,
            arrivals,
            tasks: arrivals.tasks(),
            now: 0,
            arrived: 0,
            ready: Ready::default(),
            running: BinaryHeap::new(),
            returning: BinaryHeap::new(),
            attempts: BTreeMap::new(),
            fleet,
            wanted: initially,
            sizing: Some(Sizing::new(&setup.policy, setup.bounds, initially)),
            changed: 0,
            runs: true,
            meter,
            tally: Tally::new(arrivals, setup),
            looks: 0,
            eventful: 0,
            decided,
        }
    }

    fn run(&mut self) -> Result<(), BacktestError> {
        while let Some(at) = self.next() {
            self.tally.advance(self.now, at, self.fleet.counts(), self.ready.len(), self.wanted);
            self.now = at;
            let is_event = self.change() | self.end_attempts() | self.ready_replicas() | self.arrive();
            if is_event {
                self.dispatch();
                self.meter.note_work(self.ready.len() > 0 || self.fleet.counts().running > 0, at);
                self.eventful = at;
            }
            if self.is_over() {
                break;
            }
            if self.next_look() <= at {
                self.look()?;
            }
        }
        Ok(())
    }

    /// The moment at which something happens; `None` where nothing ever will.
    fn next(&self) -> Option<u64> {
        let arrival = self.tasks.get(self.arrived).map(|task| task.at.0);
        let end = self.running.peek().map(|Reverse((at, ..))| *at);
        let again = self.returning.peek().map(|Reverse((at, _))| *at);
        let change = self.setup.changes.get(self.changed).map(|(at, _)| at.0);
        let until = (self.now < self.setup.until.0).then_some(self.setup.until.0);
        let work = [arrival, end, again, change, until, self.fleet.next_ready()].into_iter().flatten().min();
        let look = self.next_look().max(self.now);
        match work {
            Some(at) => Some(at.min(look)),
            None => (!self.is_over() && look < u64::MAX && look - self.eventful <= PATIENCE).then_some(look),
        }
    }

    fn next_look(&self) -> u64 {
        if let Some(looks) = &self.setup.looks {
            return usize::try_from(self.looks).ok().and_then(|index| looks.get(index)).map_or(u64::MAX, |at| at.0);
        }
        match &self.sizing {
            Some(sizing) if self.runs => sizing.due(self.there()),
            Some(_) | None => u64::MAX,
        }
    }

    const fn there(&self) -> There {
        There { ready: self.ready.len() as u64, running: self.fleet.counts().running as u64, wanted: self.wanted }
    }

    /// Whether everything has arrived and is done. Replicas that are left are billed until here and no longer: what comes next is not known.
    fn is_over(&self) -> bool {
        let is_done = self.arrived == self.tasks.len() && self.running.is_empty() && self.ready.len() == 0;
        is_done && self.returning.is_empty() && self.now >= self.setup.until.0
    }

    /// Makes the changes of this moment.
    fn change(&mut self) -> bool {
        let before = self.changed;
        while let Some((_, change)) = self.setup.changes.get(self.changed).filter(|(at, _)| at.0 <= self.now) {
            self.changed += 1;
            match change {
                Change::Policy(policy, bounds) => {
                    self.meter.aim(policy, *bounds);
                    self.tally.aim(*bounds);
                    let hold = self.sizing.as_ref().and_then(|sizing| sizing.hold);
                    self.sizing = Some(Sizing { hold, ..Sizing::new(policy, *bounds, self.wanted) });
                }
                Change::Bounds(bounds) => {
                    self.meter.bound(*bounds);
                    self.tally.aim(*bounds);
                    if let Some(sizing) = &mut self.sizing {
                        // Policies are asked at once when a ceiling is another one.
                        (sizing.bounds, sizing.last) = (*bounds, None);
                    }
                }
                Change::NoPolicy => self.sizing = None,
                Change::Size(size) => {
                    self.tally.resized(self.now, self.wanted, *size);
                    self.resize(*size);
                }
                Change::Runs(runs) => self.runs = *runs,
                Change::Hold(hold) => {
                    let Some(sizing) = &mut self.sizing else { continue };
                    sizing.hold = hold.map(|(size, until)| (size, until.0));
                    if let Some(size) = hold.map(|(size, _)| sizing.bounds.nearest(size)) {
                        self.tally.resized(self.now, self.wanted, size);
                        self.resize(size);
                    }
                }
            }
        }
        self.changed > before
    }

    fn end_attempts(&mut self) -> bool {
        let mut is_any = false;
        while let Some(Reverse((at, task, place))) = self.running.peek().copied() {
            if at > self.now {
                break;
            }
            self.running.pop();
            self.fleet.finish(place);
            let service = self.service(task);
            self.meter.finished(at, service);
            self.end(task);
            is_any = true;
        }
        is_any
    }

    /// How long the attempt that runs of a task takes.
    fn service(&self, task: u32) -> u64 {
        let begun = if self.arrivals.has_retries() { self.attempts.get(&task).copied().unwrap_or(0) } else { 0 };
        let retry = begun.checked_sub(1).and_then(|index| self.arrivals.retries(task).get(index));
        retry.map_or_else(|| self.tasks[task as usize].service.0, |retry| retry.service.0)
    }

    /// An attempt has ended; there may be another one.
    fn end(&mut self, task: u32) {
        if !self.arrivals.has_retries() {
            return;
        }
        let begun = self.attempts.get(&task).copied().unwrap_or(0);
        if let Some(retry) = self.arrivals.retries(task).get(begun) {
            self.attempts.insert(task, begun + 1);
            self.returning.push(Reverse((self.now + retry.delay.0, task)));
        }
    }

    fn ready_replicas(&mut self) -> bool {
        let mut is_any = false;
        while self.fleet.next_ready().is_some_and(|at| at <= self.now) {
            self.fleet.make_ready();
            self.meter.replica_ready(self.setup.start);
            is_any = true;
        }
        is_any
    }

    fn arrive(&mut self) -> bool {
        let before = self.arrived;
        while let Some(task) = self.tasks.get(self.arrived).filter(|task| task.at.0 <= self.now) {
            // At most `Arrivals::COUNT_MAX`, which 32 bits hold.
            self.ready.push(self.arrived as u32, task.at.0, task.priority);
            self.arrived += 1;
        }
        // What was there before the beginning has not come now.
        let came = self.arrived.saturating_sub(before.max(self.arrivals.carried()));
        if came > 0 {
            self.meter.arrived(self.now, came);
        }
        let mut is_any = self.arrived > before;
        while let Some(Reverse((at, task))) = self.returning.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.returning.pop();
            self.ready.push(task, at, self.tasks[task as usize].priority);
            is_any = true;
        }
        is_any
    }

    /// Starts what can start.
    fn dispatch(&mut self) {
        while self.runs
            && self.ready.len() > 0
            && let Some(place) = self.fleet.start()
            && let Some((since, index)) = self.ready.pop()
        {
            let wait = self.now - since;
            self.meter.started(self.now, wait);
            self.tally.started(index, self.now, wait);
            self.running.push(Reverse((self.now + self.service(index), index, place)));
        }
    }

    fn look(&mut self) -> Result<(), BacktestError> {
        let Simulation { now: at, wanted, .. } = *self;
        let there = self.there();
        self.looks += 1;
        let Some(sizing) = &mut self.sizing else { return Ok(()) };
        let observation = self.meter.observe(Now { at, ready: &self.ready, fleet: &self.fleet, wanted });
        let mut decision = sizing.policy.evaluate(&mut sizing.memory, observation);
        let hold = sizing.hold.filter(|(_, until)| at < *until).map(|(size, _)| sizing.bounds.nearest(size));
        if let Some(held) = hold.filter(|held| *held != decision.wanted) {
            decision.cut(LimitKind::Hold, held, By::Hold(observation.at));
            sizing.policy.overruled(&mut sizing.memory, observation, held);
        }
        (self.decided)(observation, &decision);
        self.tally.decided(at, &decision);
        sizing.last = Some((Timestamp(at), there));
        sizing.again = decision.look_again.map(|moment| Timestamp(moment.since(observation.at).0.saturating_add(at)));
        let to = sizing.bounds.nearest(decision.wanted);
        self.resize(to);
        if self.looks > LOOKS_MAX {
            return Err(BacktestError::TooManyLooks { looks: self.looks, max: LOOKS_MAX });
        }
        Ok(())
    }

    fn resize(&mut self, to: u32) {
        if to > self.wanted {
            self.fleet.grow(to - self.wanted, self.now + self.setup.start.0);
        } else {
            self.fleet.shrink(self.wanted - to);
        }
        self.wanted = to;
    }
}
