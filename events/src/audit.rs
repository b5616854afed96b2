//! The re-decision audit: folds a log and computes every derived event again, from the inputs and by the rule versions that the log names.
//!
//! It also follows the chain: each block must name the hash, position and ordinal at which the one before ended.

use crate::block::{Block, BlockError, Hash};
use crate::command::{Command, Rejection};
use crate::decide::decide;
use crate::due::{DUE_MAX, next_due};
use crate::event::{Envelope, Event, Origin, RuleVersions};
use crate::id::Position;
use crate::settle::Settling;
use crate::state::State;
use crate::state::keys::KeyTable;
use crate::time::Timestamp;

/// How thoroughly to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Checksums, hashes, positions, ordinals and times.
    Chain,
    /// All of that, and every decision.
    Decisions,
}

/// The first thing that is wrong with a log.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum Finding {
    /// The bytes of a block are not what was written.
    #[error("the block at position {at} cannot be read")]
    Block {
        at: Position,
        #[source]
        source: BlockError,
    },
    /// A block does not follow the one before it.
    #[error("the chain breaks at position {at}: the block names {found} as its predecessor, which is {expected}")]
    Chain { at: Position, expected: Hash, found: Hash },
    /// Positions or ordinals do not continue.
    #[error("the block at position {at} has {what} {found} where {expected} follows")]
    Sequence { at: Position, what: &'static str, expected: u64, found: u64 },
    /// Time went back.
    #[error("time goes back at position {at}: {found} µs after {previous} µs")]
    Time { at: Position, previous: u64, found: u64 },
    /// A recorded decision is not what the rules give.
    #[error("position {at} is not what the rules give (rule versions {rules:?})\n  recorded: {recorded}\n  expected: {expected}")]
    Decision { at: Position, rules: RuleVersions, recorded: String, expected: String },
    /// A recorded input would have been refused.
    #[error("position {at} records an input that the rules refuse: {recorded}")]
    Refused {
        at: Position,
        recorded: String,
        #[source]
        rejection: Rejection,
    },
    /// The log was decided by rules that this build does not have.
    #[error("position {at} was decided by rule versions that this build does not know ({rules:?}); use a newer build")]
    UnknownRules { at: Position, rules: RuleVersions },
}

/// Follows a log block by block.
#[derive(Debug)]
pub struct Audit {
    depth: Depth,
    state: State,
    previous: Option<Hash>,
    stage: Stage,
    /// Events that must come next, as they were computed.
    expected: std::collections::VecDeque<Event<'static>>,
    settling: Settling,
    /// Things that fell due in the current batch.
    due: usize,
    /// Time of the current batch.
    at: Timestamp,
    events: u64,
}

/// What may come next in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// What falls due, then inputs, then starts.
    Due,
    /// Inputs with what follows from each, then the last step.
    Inputs,
    /// What limits let through, and starts.
    Starts,
    /// Nothing.
    Over,
}

impl Audit {
    /// An audit that begins with this state: the empty one, or a snapshot's with the hash of the block before it.
    pub fn new(depth: Depth, state: State, previous: Option<Hash>) -> Audit {
        let at = state.last_at;
        let (expected, settling) = (std::collections::VecDeque::new(), Settling::default());
        Audit { depth, state, previous, stage: Stage::Over, expected, settling, due: 0, at, events: 0 }
    }

    /// The state after everything that was followed.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The state after everything that was followed.
    pub fn into_state(self) -> State {
        self.state
    }

    /// Hash of the last block.
    pub fn head(&self) -> Hash {
        self.previous.unwrap_or(Hash::ZERO)
    }

    /// Events followed.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Follows one block.
    ///
    /// # Errors
    /// The first [`Finding`]; the audit is over then.
    pub fn follow(&mut self, block: &Block) -> Result<(), Finding> {
        let header = &block.header;
        let at = header.first_position;
        if let Some(expected) = self.previous.filter(|expected| *expected != header.previous) {
            return Err(Finding::Chain { at, expected, found: header.previous });
        }
        sequence(at, "position", self.state.position.0, header.first_position.0)?;
        sequence(at, "first ordinal", self.state.next_ordinal().0, header.first_ordinal.0)?;
        for envelope in block.records() {
            let envelope = envelope.map_err(|source| Finding::Block { at: self.state.position, source })?;
            if envelope.recorded_at < self.state.last_at {
                let (previous, found) = (self.state.last_at.0, envelope.recorded_at.0);
                return Err(Finding::Time { at: envelope.position, previous, found });
            }
            if self.depth == Depth::Decisions {
                self.check(&envelope)?;
            }
            self.state.apply(&envelope);
            self.events += 1;
        }
        sequence(at, "epoch", u64::from(self.state.epoch.0), u64::from(header.epoch.0))?;
        self.previous = Some(block.hash());
        // A batch never spans two blocks.
        if self.depth == Depth::Decisions { self.close_batch(self.state.position) } else { Ok(()) }
    }

    fn check(&mut self, envelope: &Envelope<'_>) -> Result<(), Finding> {
        let rules = if let Event::Opened { rules, .. } = envelope.event { rules } else { self.state.rules };
        if !rules.are_known() {
            return Err(Finding::UnknownRules { at: envelope.position, rules });
        }
        if envelope.recorded_at > self.at {
            self.close_batch(envelope.position)?;
            self.open_batch(envelope.recorded_at);
        }
        if let Some(expected) = self.next_expected() {
            return if expected == envelope.event {
                Ok(())
            } else {
                Err(self.difference(envelope.position, Some(&envelope.event), Some(&expected)))
            };
        }
        match envelope.event.origin() {
            Origin::Derived if self.stage < Stage::Starts => {
                self.close_inputs();
                self.check_start(envelope)
            }
            Origin::Derived => self.check_start(envelope),
            Origin::Input if self.stage >= Stage::Starts => Err(self.difference(envelope.position, Some(&envelope.event), None)),
            Origin::Input => self.check_input(envelope),
        }
    }

    /// The next event that must come: what follows from the last input, or what falls due.
    fn next_expected(&mut self) -> Option<Event<'static>> {
        if self.expected.is_empty() && self.stage == Stage::Due && self.due < DUE_MAX {
            let mut events = Vec::new();
            next_due(&self.state, self.at, &mut events);
            self.expected.extend(events);
            self.due += 1;
        }
        let next = self.expected.pop_front();
        if next.is_none() && self.stage == Stage::Due {
            self.stage = Stage::Inputs;
        }
        next
    }

    fn open_batch(&mut self, at: Timestamp) {
        self.at = at;
        self.due = 0;
        self.stage = Stage::Due;
        self.state.refresh(at);
    }

    fn check_input(&mut self, envelope: &Envelope<'_>) -> Result<(), Finding> {
        let at = envelope.position;
        let Some(command) = Command::of_input(&envelope.event) else { return self.check_duplicate(envelope) };
        let mut events = Vec::new();
        decide(&self.state, &command, envelope.recorded_at, &mut events).map_err(|rejection| Finding::Refused {
            at,
            recorded: text(&envelope.event),
            rejection,
        })?;
        let mut events = events.into_iter();
        match events.next() {
            Some(input) if input == envelope.event => {}
            other => return Err(self.difference(at, Some(&envelope.event), other.as_ref())),
        }
        self.expected.extend(events.filter_map(|event| derived(&event)));
        Ok(())
    }

    /// The payload of a deduplicated request is not in the log; its digest stands for it.
    fn check_duplicate(&self, envelope: &Envelope<'_>) -> Result<(), Finding> {
        let Event::Deduplicated { task_type, key, digest, of } = envelope.event else {
            return Err(self.difference(envelope.position, Some(&envelope.event), None));
        };
        let name = self.state.work.types.get(usize::from(task_type.0)).map_or("", |known| known.name.as_str());
        let entry = self.state.work.keys.get(KeyTable::hash(name, key), envelope.recorded_at);
        if entry.is_some_and(|entry| entry.task == of && entry.digest == digest) {
            return Ok(());
        }
        Err(self.difference(envelope.position, Some(&envelope.event), None))
    }

    fn close_inputs(&mut self) {
        self.stage = Stage::Starts;
        self.settling.begin();
    }

    /// What follows in the last step of a batch.
    fn next_start(&mut self) -> Option<Event<'static>> {
        if self.stage == Stage::Starts { self.settling.next(&self.state, self.at) } else { None }
    }

    fn check_start(&mut self, envelope: &Envelope<'_>) -> Result<(), Finding> {
        let expected = self.next_start();
        if expected.as_ref() == Some(&envelope.event) {
            return Ok(());
        }
        Err(self.difference(envelope.position, Some(&envelope.event), expected.as_ref()))
    }

    /// Checks that nothing is missing at the end of a batch.
    fn close_batch(&mut self, at: Position) -> Result<(), Finding> {
        if self.stage < Stage::Starts || !self.expected.is_empty() {
            if let Some(missing) = self.next_expected() {
                return Err(self.difference(at, None, Some(&missing)));
            }
            self.close_inputs();
        }
        match self.next_start() {
            None => {
                self.stage = Stage::Over;
                Ok(())
            }
            Some(missing) => Err(self.difference(at, None, Some(&missing))),
        }
    }

    fn difference(&self, at: Position, recorded: Option<&Event<'_>>, expected: Option<&Event<'_>>) -> Finding {
        let show = |event: Option<&Event<'_>>| event.map_or_else(|| "nothing".to_owned(), text);
        Finding::Decision { at, rules: self.state.rules, recorded: show(recorded), expected: show(expected) }
    }
}

/// A derived event on its own; derived events borrow nothing.
fn derived(event: &Event<'_>) -> Option<Event<'static>> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`Origin` lists the derived events; the audit's own tests record each of them"
    )]
    Some(match *event {
        Event::Started { task, attempt, replica } => Event::Started { task, attempt, replica },
        Event::Ready { task } => Event::Ready { task },
        Event::TimedOut { task, attempt, timeout } => Event::TimedOut { task, attempt, timeout },
        Event::RetryScheduled { task, due } => Event::RetryScheduled { task, due },
        Event::Lost { task, attempt, departure } => Event::Lost { task, attempt, departure },
        Event::Ended { task, outcome, cause } => Event::Ended { task, outcome, cause },
        Event::DeadLettered { task, cause } => Event::DeadLettered { task, cause },
        Event::DeadLetterDropped { task } => Event::DeadLetterDropped { task },
        Event::ReplicaRequested { replica, pool } => Event::ReplicaRequested { replica, pool },
        Event::DrainRequested { replica } => Event::DrainRequested { replica },
        Event::Limited { task, limit } => Event::Limited { task, limit },
        Event::Admitted { task } => Event::Admitted { task },
        Event::DependencyMet { task, dependency, left } => Event::DependencyMet { task, dependency, left },
        Event::PoolScaled { pool, replicas, ref decision, ref shadow } => {
            let (decision, shadow) = (decision.clone().into_owned().into(), shadow.clone().map(|name| name.into_owned().into()));
            Event::PoolScaled { pool, replicas, decision, shadow }
        }
        _ => return None,
    })
}

const fn sequence(at: Position, what: &'static str, expected: u64, found: u64) -> Result<(), Finding> {
    if expected == found { Ok(()) } else { Err(Finding::Sequence { at, what, expected, found }) }
}

/// An event as one line of at most 300 characters.
fn text(event: &Event<'_>) -> String {
    format!("{event:?}").chars().take(300).collect()
}
