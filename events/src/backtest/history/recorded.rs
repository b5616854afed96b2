//! What can be run again of a history, and what came of it when it really ran.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decisions, History, Life, Shadow, Turn};
use crate::backtest::arrivals::{Arrival, Arrivals, ArrivalsError, Retry};
use crate::backtest::fleet::Counts;
use crate::backtest::report::{Report, Tally};
use crate::backtest::setup::{Change, Setup};
use crate::id::ReplicaId;
use crate::scaling::AnyPolicy;
use crate::scaling::signal::Bounds;
use crate::time::{Micros, Timestamp};
use crate::worker::WORKER_FIRST;

/// A history that has come to its end.
#[derive(Debug)]
pub struct Recorded {
    /// The work that there was.
    pub arrivals: Arrivals,
    /// What was changed on the way: policies, bounds, sizes by hand; the first ones are those that there were at the beginning.
    pub changes: Vec<(Micros, Change)>,
    /// Sizes as they were wanted: the first one, then each that was another.
    pub sizes: Vec<(Micros, u32)>,
    /// Replicas that were there at the beginning.
    pub initial: u32,
    /// Slots of a replica, as set last.
    pub slots: u32,
    /// How long each start took that was seen from its beginning to its end.
    pub starts: Vec<Micros>,
    /// Where it ends.
    pub length: Micros,
    /// When policies were asked.
    pub looks: Vec<Micros>,
    /// What was decided, and decided again.
    pub decisions: Decisions,
    /// What ran in the shadow of its policy, by name.
    pub shadows: Vec<Shadow>,
    /// What is not in the work, and what is not simulated.
    pub left: Left,
    marks: Vec<(u64, Mark)>,
}

/// What of a history no back-test runs again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Tasks that had not started at the end, or never did.
    pub unstarted: usize,
    /// Attempts that ran at the end; they count as if they had ended then.
    pub unended: usize,
    /// Attempts that were lost with their replica; their tasks count as if they had come anew.
    pub lost: usize,
    /// Openings of the log: what the process had measured was forgotten.
    pub restarts: usize,
    /// Other numbers of slots that replicas had before.
    pub slot_changes: usize,
}

/// Something that happened, in the order in which it counts where it happened at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Bounds(u32),
    Size(u32),
    Ended(ReplicaId),
    Gone,
    StartGivenUp,
    DrainingGone,
    Asked,
    Up,
    Drains,
    StartDrains,
    NoWork(ReplicaId),
    TaskReady,
    TaskLeft,
    Started { task: u32, wait: u64, replica: ReplicaId },
}

impl History {
    /// What can be run again of it.
    ///
    /// # Errors
    /// As for [`Arrivals::new`].
    pub fn finish(self, until: Option<Timestamp>) -> Result<Recorded, ArrivalsError> {
        let end = until.map_or(self.last, |until| until.min(self.last)).max(self.began);
        let mut left = Left {
            lost: self.lost,
            restarts: self.restarts,
            slot_changes: self.slots.len().saturating_sub(1),
            ..Left::default()
        };
        let mut marks = Vec::new();
        let (mut work, mut carried) = (Vec::new(), 0);
        for (index, task) in self.tasks.iter().enumerate() {
            let started: Vec<&Turn> = task.turns.iter().filter(|turn| turn.started.is_some()).collect();
            for turn in task.turns.iter().filter(|turn| turn.started.is_none()) {
                marks.push((self.offset(turn.ready).0, Mark::TaskReady));
                marks.extend(turn.ended.map(|ended| (self.offset(ended).0, Mark::TaskLeft)));
            }
            let Some(first) = started.first() else {
                left.unstarted += 1;
                continue;
            };
            carried += usize::from(index < self.carried);
            left.unended += started.iter().filter(|turn| turn.ended.is_none()).count();
            let service = |turn: &Turn| turn.ended.unwrap_or(end).since(turn.started.map_or(end, |(at, _)| at));
            let retry =
                |pair: &[&Turn]| Retry { delay: pair[1].ready.since(pair[0].ended.unwrap_or(end)), service: service(pair[1]) };
            let retries = started.windows(2).map(retry).collect::<Vec<_>>();
            let arrival = Arrival { at: self.offset(first.ready), service: service(first), priority: task.priority };
            work.push((arrival, retries, started.into_iter().copied().collect::<Vec<_>>()));
        }
        work[carried..].sort_by_key(|(arrival, ..)| arrival.at);
        for (task, (.., turns)) in (0..=u32::MAX).zip(&work) {
            for turn in turns {
                let Some((started, replica)) = turn.started else { continue };
                marks.push((self.offset(turn.ready).0, Mark::TaskReady));
                marks.push((self.offset(started).0, Mark::Started { task, wait: started.since(turn.ready).0, replica }));
                marks.push((self.offset(turn.ended.unwrap_or(end)).0, Mark::Ended(replica)));
            }
        }
        let work = work.into_iter().map(|(arrival, retries, _)| (arrival, retries)).collect();
        let arrivals = Arrivals::with_retries(self.began, work, carried)?;
        let (starts, initial) = self.replicas(&mut marks);
        for (at, change) in &self.changes {
            let most = match change {
                Change::Policy(_, bounds) | Change::Bounds(bounds) => bounds.max,
                Change::NoPolicy => u32::MAX,
                Change::Size(_) | Change::Runs(_) | Change::Hold(_) => continue,
            };
            marks.push((self.offset(*at).0, Mark::Bounds(most)));
        }
        marks.extend(self.sizes.iter().map(|(at, size)| (self.offset(*at).0, Mark::Size(*size))));
        marks.extend(self.drains.iter().map(|(at, replica)| (self.offset(*at).0, Mark::NoWork(*replica))));
        marks.sort_unstable();
        Ok(Recorded {
            arrivals,
            changes: self.changes.iter().map(|(at, change)| (self.offset(*at), change.clone())).collect(),
            sizes: self.sizes.iter().map(|(at, size)| (self.offset(*at), *size)).collect(),
            initial,
            slots: self.slots.last().copied().unwrap_or(1),
            starts,
            length: self.offset(end),
            looks: self.looks.iter().map(|at| self.offset(*at)).collect(),
            decisions: self.decisions,
            shadows: self.shadows.iter().filter_map(|(name, track)| track.finish(name, |at| self.offset(at))).collect(),
            left,
            marks,
        })
    }

    /// Marks the lives of replicas; gives how long starts took, and how many replicas there were at the beginning.
    fn replicas(&self, marks: &mut Vec<(u64, Mark)>) -> (Vec<Micros>, u32) {
        // Workers that come by themselves are the replicas of a pool that has no others.
        let is_own = |id: &ReplicaId| *id < WORKER_FIRST;
        let has_own = self.lives.iter().any(|(id, life)| is_own(id) && life.ready.is_some());
        let (mut starts, mut initial) = (Vec::new(), 0);
        for (_, life) in self.lives.iter().filter(|(id, _)| is_own(id) == has_own) {
            let Life { requested, ready, draining, gone } = *life;
            let mut mark = |at: Timestamp, mark| marks.push((self.offset(at).0, mark));
            mark(requested, Mark::Asked);
            // One that is no longer wanted does not become ready.
            let ready = ready.filter(|ready| draining.is_none_or(|draining| *ready <= draining));
            if let Some(ready) = ready {
                mark(ready, Mark::Up);
                if requested > self.began {
                    starts.push(ready.since(requested));
                } else {
                    initial += u32::from(ready == requested);
                }
            }
            if let Some(draining) = draining {
                mark(draining, if ready.is_some() { Mark::Drains } else { Mark::StartDrains });
            }
            if let Some(gone) = gone {
                let last = match (draining, ready) {
                    (Some(_), _) => Mark::DrainingGone,
                    (None, Some(_)) => Mark::Gone,
                    (None, None) => Mark::StartGivenUp,
                };
                mark(gone, last);
            }
        }
        (starts, initial)
    }
}

impl Recorded {
    /// The mean time of a start; `None` where none was seen.
    pub fn start_mean(&self) -> Option<Micros> {
        let count = self.starts.len() as u64;
        let sum: u64 = self.starts.iter().map(|span| span.0).sum();
        (count > 0).then(|| Micros(sum / count))
    }

    /// The policy and the bounds that were in force last; `None` where nobody had set any.
    pub fn policy(&self) -> Option<(&AnyPolicy, Bounds)> {
        self.changes.iter().fold(None, |known, (_, change)| match change {
            Change::Policy(policy, bounds) => Some((policy.as_ref(), *bounds)),
            Change::Bounds(bounds) => known.map(|(policy, _)| (policy, *bounds)),
            Change::NoPolicy => None,
            Change::Size(_) | Change::Runs(_) | Change::Hold(_) => known,
        })
    }

    /// The setup in which what really ran is run again: what was changed then is changed then, and policies are asked when they were asked. When that
    /// is depends on commits and on who gets the processor, and no back-test knows those.
    #[must_use]
    pub fn again(&self, setup: &Setup) -> Setup {
        let most = self.sizes.iter().map(|(_, size)| *size).max().unwrap_or(1).max(1);
        let initial = Some(self.sizes.first().map_or(self.initial, |(_, size)| *size));
        Setup {
            bounds: Bounds { min: 0, max: most },
            initial,
            changes: self.changes.clone(),
            looks: Some(self.looks.clone()),
            ..setup.clone()
        }
    }

    /// What really happened, counted as a back-test counts.
    pub fn report(&self, setup: &Setup) -> Report {
        let mut tally = Tally::new(&self.arrivals, setup);
        let mut sweep = Sweep::default();
        let (end, mut now) = (self.length.0, 0);
        for (at, mark) in self.marks.iter().filter(|(at, _)| *at <= end) {
            tally.advance(now, *at, sweep.counts, sweep.backlog, sweep.size);
            now = *at;
            sweep.apply(*at, *mark, &mut tally);
        }
        tally.advance(now, end, sweep.counts, sweep.backlog, sweep.size);
        let looks = self.decisions.looks;
        let setup = Setup { initial: Some(0), bounds: Bounds { min: 0, ..setup.bounds }, ..setup.clone() };
        Report { looks, ..tally.report(&self.arrivals, &setup, end, sweep.asked) }
    }
}

/// The pool as marks go by.
#[derive(Debug, Default)]
struct Sweep {
    counts: Counts,
    backlog: usize,
    size: u32,
    asked: u64,
    has_size: bool,
    running: BTreeMap<ReplicaId, u32>,
    going: BTreeSet<ReplicaId>,
}

impl Sweep {
    fn apply(&mut self, at: u64, mark: Mark, tally: &mut Tally) {
        let Counts { starting, ready, draining, running, leaving } = &mut self.counts;
        let less = |count: &mut u32| *count = count.saturating_sub(1);
        match mark {
            Mark::Bounds(most) => tally.aim(Bounds { min: 0, max: most }),
            Mark::Size(size) => {
                if self.has_size {
                    tally.resized(at, self.size, size);
                }
                (self.size, self.has_size) = (size, true);
            }
            Mark::Asked => {
                *starting += 1;
                self.asked += 1;
            }
            Mark::Up => {
                less(starting);
                *ready += 1;
            }
            Mark::Drains => {
                less(ready);
                *draining += 1;
            }
            Mark::StartDrains => {
                less(starting);
                *draining += 1;
            }
            Mark::DrainingGone => less(draining),
            Mark::Gone => less(ready),
            Mark::StartGivenUp => less(starting),
            Mark::NoWork(replica) => {
                if self.going.insert(replica) {
                    *leaving += self.running.get(&replica).copied().unwrap_or(0);
                }
            }
            Mark::TaskReady => self.backlog += 1,
            Mark::TaskLeft => self.backlog = self.backlog.saturating_sub(1),
            Mark::Started { task, wait, replica } => {
                self.backlog = self.backlog.saturating_sub(1);
                *running += 1;
                *self.running.entry(replica).or_default() += 1;
                *leaving += u32::from(self.going.contains(&replica));
                tally.started(task, at, wait);
            }
            Mark::Ended(replica) => {
                less(running);
                if let Some(count) = self.running.get_mut(&replica) {
                    less(count);
                }
                if self.going.contains(&replica) {
                    less(leaving);
                }
            }
        }
    }
}
