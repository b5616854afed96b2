//! What a log says of a pool: the work there was, what it was given, who sized it and how.
//!
//! A [`History`] follows the log event by event beside the [`State`], and decides again what the pool's policies decided. [`History::finish`] makes
//! of it what can be run again: tasks arrive when they could start (a delay is over, a limit lets them through), take as long as they took, and
//! come back after a failure as they did.

mod fidelity;
mod recorded;
mod shadow;

use std::collections::{BTreeMap, VecDeque};

use self::shadow::Track;
use super::setup::Change;
use crate::event::{Envelope, Event, PoolMode};
use crate::id::{Ordinal, PoolId, Position, ReplicaId};
use crate::sizing;
use crate::slab::Phase;
use crate::state::State;
use crate::state::control::ReplicaPhase;
use crate::state::scaling::Scaling;
use crate::time::{Micros, Timestamp};
use crate::worker::WORKER_FIRST;

pub use fidelity::{Fidelity, Sizes, TOLERANCE, WAIT_FLOOR};
pub use recorded::{Left, Recorded};
pub use shadow::{Beside, Shadow, Wanted};

/// A pool as its log has it, up to a moment.
#[derive(Debug)]
pub struct History {
    pool: String,
    id: Option<PoolId>,
    /// When it was first there.
    began: Timestamp,
    /// The last moment that was followed.
    last: Timestamp,
    /// In the order in which they were first ready.
    tasks: Vec<Task>,
    open: BTreeMap<Ordinal, usize>,
    /// So many of the first tasks were there before the beginning.
    carried: usize,
    lives: BTreeMap<ReplicaId, Life>,
    /// Who takes no new work from when on, of those that hold slots.
    drains: Vec<(Timestamp, ReplicaId)>,
    changes: Vec<(Timestamp, Change)>,
    /// The sizes that it should have had: the first one, then each that was another.
    sizes: Vec<(Timestamp, u32)>,
    slots: Vec<u32>,
    decisions: Decisions,
    /// Decisions that have to come next.
    expected: VecDeque<Digest>,
    /// When the policy of the pool was asked.
    looks: Vec<Timestamp>,
    /// What ran in its shadow, by name.
    shadows: BTreeMap<String, Track>,
    lost: usize,
    restarts: usize,
}

/// What was decided by policies, and decided again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decisions {
    /// How often the policy of the pool was shown it.
    pub looks: u64,
    /// How many of its decisions were recorded.
    pub recorded: u64,
    /// The first one that the recorded observation and the recorded policy do not give, those of shadows included.
    pub difference: Option<Position>,
}

/// A recorded decision: of which shadow, if any, how many replicas, and its text.
type Digest = (Option<String>, u32, [u8; 32]);

#[derive(Debug)]
struct Task {
    priority: u8,
    turns: Vec<Turn>,
}

/// From ready to the end of an attempt.
#[derive(Clone, Copy, Debug)]
struct Turn {
    ready: Timestamp,
    started: Option<(Timestamp, ReplicaId)>,
    /// When the attempt ended, or the task without one.
    ended: Option<Timestamp>,
}

/// A replica.
#[derive(Clone, Copy, Debug)]
struct Life {
    requested: Timestamp,
    ready: Option<Timestamp>,
    draining: Option<Timestamp>,
    gone: Option<Timestamp>,
}

impl Life {
    const fn requested(at: Timestamp) -> Life {
        Life { requested: at, ready: None, draining: None, gone: None }
    }
}

impl History {
    /// A pool as it is in a state, of which nothing has been followed yet.
    pub fn new(pool: &str, state: &State) -> History {
        let mut history = History {
            pool: pool.to_owned(),
            id: None,
            began: state.last_at,
            last: state.last_at,
            tasks: Vec::new(),
            open: BTreeMap::new(),
            carried: 0,
            lives: BTreeMap::new(),
            drains: Vec::new(),
            changes: Vec::new(),
            sizes: Vec::new(),
            slots: Vec::new(),
            decisions: Decisions::default(),
            looks: Vec::new(),
            shadows: BTreeMap::new(),
            expected: VecDeque::new(),
            lost: 0,
            restarts: 0,
        };
        history.meet(state, state.last_at);
        history
    }

    /// Whether the log has said anything of the pool.
    pub const fn is_known(&self) -> bool {
        self.id.is_some()
    }

    /// What was decided, and decided again.
    pub const fn decisions(&self) -> Decisions {
        self.decisions
    }

    /// Folds an event into the state and learns what it says of the pool.
    pub fn follow(&mut self, state: &mut State, envelope: &Envelope<'_>) {
        let (at, event) = (envelope.recorded_at, &envelope.event);
        let ordinal = if event.creates_task() { Some(state.next_ordinal()) } else { event.task() };
        let before = ordinal.and_then(|ordinal| self.phase(state, ordinal));
        self.decide_again(state, envelope);
        state.apply(envelope);
        self.last = at;
        if self.id.is_none() {
            self.meet(state, at);
        }
        if let Some(ordinal) = ordinal {
            let after = self.phase(state, ordinal);
            if before != after {
                self.turn(state, ordinal, before, after, envelope);
            }
        }
        self.learn(state, envelope);
    }

    /// The pool is there.
    fn meet(&mut self, state: &State, at: Timestamp) {
        let Some((id, size)) = state.control.pool(&self.pool) else { return };
        self.id = Some(id);
        self.began = at;
        self.sizes.push((at, size.replicas));
        self.slots.push(size.slots);
        self.learn_policy(state, id, at);
        if let Some(scaling) = state.control.scaling.get(&id) {
            scaling.shadows.keys().for_each(|name| self.learn_shadow(state, id, name, at));
            if let Some(hold) = &scaling.hold {
                self.changes.push((at, Change::Hold(Some((hold.replicas, self.offset(hold.until))))));
            }
        }
        if state.control.mode(id) != PoolMode::Running {
            self.changes.push((at, Change::Runs(false)));
        }
        for (replica, life) in state.control.replicas.iter().filter(|(_, life)| life.pool == id) {
            let ready = (life.phase != ReplicaPhase::Requested).then_some(at);
            let draining = (life.phase == ReplicaPhase::Draining).then_some(at);
            self.lives.insert(*replica, Life { ready, draining, ..Life::requested(at) });
        }
        let live = state.work.tasks.iter().filter(|(ordinal, ..)| self.phase(state, *ordinal).is_some());
        let mut live: Vec<_> = live.map(|(ordinal, task, _)| (!task.has_slot(), task.ready_at, ordinal, task)).collect();
        live.sort_unstable_by_key(|(waits, ready_at, ordinal, _)| (*waits, *ready_at, *ordinal));
        for (waits, ready, ordinal, task) in live {
            let started = (!waits).then_some((at, task.replica));
            if started.is_some() || task.phase == Phase::Ready {
                let ready = if waits { ready } else { at };
                self.open.insert(ordinal, self.tasks.len());
                self.tasks.push(Task { priority: task.priority, turns: vec![Turn { ready, started, ended: None }] });
            }
        }
        self.carried = self.tasks.len();
    }

    /// Where a task of this pool is in its life; `None` of any other.
    fn phase(&self, state: &State, ordinal: Ordinal) -> Option<Phase> {
        let task = state.work.tasks.get(ordinal)?;
        (state.work.settings(task).pool == self.pool).then_some(task.phase)
    }

    fn turn(
        &mut self,
        state: &State,
        ordinal: Ordinal,
        before: Option<Phase>,
        after: Option<Phase>,
        Envelope { recorded_at: at, event, .. }: &Envelope<'_>,
    ) {
        let runs = |phase: Option<Phase>| matches!(phase, Some(Phase::Running | Phase::Cancelling));
        let task = state.work.tasks.get(ordinal);
        if runs(before) && !runs(after) {
            let is_lost = matches!(event, Event::Lost { .. });
            self.lost += usize::from(is_lost);
            if let Some(turn) = self.last_turn(ordinal) {
                if is_lost {
                    // Its time was not the task's: the task comes anew.
                    *turn = Turn { ready: *at, started: None, ended: None };
                    return;
                }
                turn.ended = Some(*at);
            }
        }
        if before == Some(Phase::Ready) && !runs(after) {
            // It ends without having begun.
            if let Some(turn) = self.last_turn(ordinal) {
                turn.ended = Some(*at);
            }
        }
        if after == Some(Phase::Ready) {
            let turn = Turn { ready: *at, started: None, ended: None };
            match self.open.get(&ordinal) {
                Some(index) => self.tasks[*index].turns.push(turn),
                None => {
                    self.open.insert(ordinal, self.tasks.len());
                    self.tasks.push(Task { priority: task.map_or(0, |task| task.priority), turns: vec![turn] });
                }
            }
        }
        if before == Some(Phase::Ready)
            && runs(after)
            && let Some(replica) = task.map(|task| task.replica)
            && let Some(turn) = self.last_turn(ordinal)
        {
            turn.started = Some((*at, replica));
        }
        if after.is_none() {
            self.open.remove(&ordinal);
        }
    }

    fn last_turn(&mut self, ordinal: Ordinal) -> Option<&mut Turn> {
        self.tasks.get_mut(*self.open.get(&ordinal)?)?.turns.last_mut()
    }

    /// Makes the decision again that follows from an observation, and holds it against the one that was recorded behind it.
    fn decide_again(&mut self, state: &State, envelope: &Envelope<'_>) {
        let id = self.id;
        let scaled = |event: &Event<'_>| {
            let Event::PoolScaled { pool, replicas, decision, shadow } = event else { return None };
            let shadow = shadow.as_ref().map(|name| name.clone().into_owned());
            (Some(*pool) == id).then(|| (shadow, *replicas, digest(decision)))
        };
        let found = scaled(&envelope.event);
        self.decisions.recorded += u64::from(matches!(found, Some((None, ..))));
        if self.expected.pop_front() != found {
            self.expected.clear();
            self.decisions.difference.get_or_insert(envelope.position);
        }
        let Event::PoolObserved { pool, readings, work, asked, seen } = &envelope.event else { return };
        if Some(*pool) != self.id {
            return;
        }
        if asked & Scaling::LIVE != 0 {
            self.decisions.looks += 1;
            self.looks.push(envelope.recorded_at);
        }
        let (mut events, seen) = (Vec::new(), sizing::Seen { asked: *asked, readings, work, replicas: seen });
        if sizing::observe(&state.control, *pool, seen, envelope.recorded_at, &mut events).is_err() {
            self.decisions.difference.get_or_insert(envelope.position);
        }
        self.expected = events.iter().filter_map(scaled).collect();
    }

    fn learn(&mut self, state: &State, Envelope { recorded_at: at, event, .. }: &Envelope<'_>) {
        let (Some(id), at) = (self.id, *at) else { return };
        let Some(size) = state.control.pools.get(usize::from(id.0)) else { return };
        if self.sizes.last().is_none_or(|(_, last)| *last != size.replicas) {
            self.sizes.push((at, size.replicas));
            if matches!(event, Event::PoolDefined { .. }) {
                self.changes.push((at, Change::Size(size.replicas)));
            }
        }
        if self.slots.last() != Some(&size.slots) {
            self.slots.push(size.slots);
            if state.control.ceiling(id).is_some() {
                // As many slots fit as before, and another number of replicas.
                self.learn_bounds(state, id, at);
            }
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events say nothing of who works in a pool or sizes it")]
        match event {
            Event::Opened { .. } => self.restarts += 1,
            Event::PolicySet { pool, .. } if *pool == id => self.learn_policy(state, id, at),
            Event::PoolResourcesSet { pool, .. } if *pool == id => self.learn_bounds(state, id, at),
            Event::ShadowSet { pool, shadow, .. } if *pool == id => self.learn_shadow(state, id, shadow, at),
            Event::PoolScaled { pool, replicas, shadow: Some(shadow), .. } if *pool == id => {
                self.shadows.entry(shadow.clone().into_owned()).or_default().wants(at, Some(*replicas));
            }
            Event::SizeHeld { pool, replicas, until, .. } if *pool == id => {
                self.changes.push((at, Change::Hold(replicas.map(|replicas| (replicas, self.offset(*until))))));
            }
            Event::PoolModeSet { pool, mode, .. } if *pool == id => {
                self.changes.push((at, Change::Runs(*mode == PoolMode::Running)));
            }
            Event::ReplicaRequested { replica, pool } if *pool == id => drop(self.lives.insert(*replica, Life::requested(at))),
            Event::ReplicaReady { replica } => self.live(*replica, |life| life.ready = life.ready.or(Some(at))),
            Event::DrainRequested { replica } => {
                self.drains.push((at, *replica));
                self.live(*replica, |life| life.draining = Some(at));
            }
            Event::ReplicaDraining { replica } => {
                self.drains.push((at, *replica));
                self.live(*replica, |life| life.draining = life.draining.or(Some(at)));
            }
            Event::ReplicaStopped { replica, .. } => self.live(*replica, |life| life.gone = life.gone.or(Some(at))),
            Event::WorkerJoined { replica, pool, .. } if *pool == self.pool => {
                self.lives.insert(*replica, Life { ready: Some(at), ..Life::requested(at) });
            }
            Event::ReplicaLeft { replica, .. } | Event::WorkerMissed { replica, .. } if *replica >= WORKER_FIRST => {
                self.live(*replica, |life| life.gone = life.gone.or(Some(at)));
            }
            _ => {}
        }
    }

    fn learn_policy(&mut self, state: &State, id: PoolId, at: Timestamp) {
        let change = state.control.scaling.get(&id).map_or(Change::NoPolicy, |scaling| {
            let policy = Box::new(scaling.live.policy().clone());
            // What fits under the ceiling is all that it may have.
            Change::Policy(policy, state.control.bounds(id).unwrap_or(scaling.bounds))
        });
        if change == Change::NoPolicy {
            self.shadows.values_mut().for_each(|track| track.wants(at, None));
        }
        self.changes.push((at, change));
    }

    fn learn_bounds(&mut self, state: &State, id: PoolId, at: Timestamp) {
        self.changes.extend(state.control.bounds(id).map(|bounds| (at, Change::Bounds(bounds))));
    }

    fn learn_shadow(&mut self, state: &State, id: PoolId, name: &str, at: Timestamp) {
        let known = state.control.scaling.get(&id).and_then(|scaling| scaling.shadows.get(name));
        let track = self.shadows.entry(name.to_owned()).or_default();
        track.wants(at, known.and_then(|known| known.last.as_ref()).map(|last| last.decision.wanted));
        if let Some(known) = known {
            track.policy = Some(known.policy().clone());
        }
    }

    fn live(&mut self, replica: ReplicaId, change: impl FnOnce(&mut Life)) {
        if let Some(life) = self.lives.get_mut(&replica) {
            change(life);
        }
    }

    /// How long after the beginning a moment was.
    fn offset(&self, at: Timestamp) -> Micros {
        at.since(self.began)
    }
}

fn digest(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}
