//! What clients and workers saw, kept outside the system, and what the log must therefore say.

use std::collections::{BTreeMap, BTreeSet};

use ergate_events::audit::{Audit, Depth};
use ergate_events::block::{Block, Hash};
use ergate_events::event::{Cause, Event, Timeout};
use ergate_events::id::{Ordinal, ReplicaId};
use ergate_events::state::State;
use ergate_events::task::{Ask, Dependency, OnFailure, Outcome};

/// Expectations.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Acknowledged requests by the client's number.
    pub(crate) acknowledged: BTreeMap<u64, Ordinal>,
    /// Attempts that a worker began to run, and which.
    pub(crate) executions: BTreeMap<(Ordinal, u32), ReplicaId>,
    /// Attempts whose report was acknowledged.
    pub(crate) reported: BTreeSet<(Ordinal, u32)>,
}

/// The life of one task as its events tell it, without a line of the core.
#[derive(Debug, Default)]
struct Life {
    running: Option<u32>,
    started: u32,
    over: bool,
    outcome: Option<Outcome>,
    /// Tasks that it comes after, and whether it runs whatever they come to.
    after: Vec<Ordinal>,
    runs: bool,
}

impl Ledger {
    /// A worker begins to run an attempt; `again` says that the engine only repeats itself.
    pub(crate) fn execute(&mut self, task: Ordinal, attempt: u32, replica: ReplicaId, again: bool) -> Result<bool, String> {
        match self.executions.get(&(task, attempt)) {
            None => {
                self.executions.insert((task, attempt), replica);
                Ok(true)
            }
            Some(before) if again && *before == replica => Ok(false),
            Some(before) => Err(format!("I2: attempt {task}.{attempt} was started on {before} and again on {replica}")),
        }
    }

    pub(crate) fn acknowledge(&mut self, client: u64, task: Ordinal) -> Result<(), String> {
        match self.acknowledged.insert(client, task) {
            Some(before) if before != task => Err(format!("I1: request {client} was acknowledged as {before} and as {task}")),
            Some(_) | None => Ok(()),
        }
    }

    /// Reads the whole log and compares it with what was seen.
    pub(crate) fn check(&self, blocks: &[Block], live: &State, all_ended: bool) -> Result<u64, String> {
        let mut audit = Audit::new(Depth::Decisions, State::default(), Some(Hash::ZERO));
        blocks.iter().try_for_each(|block| audit.follow(block)).map_err(|finding| format!("I3: {finding}"))?;
        if audit.state().digest() != live.digest() {
            return Err("I4: the folded log is not the live state".to_owned());
        }
        let mut book = Book::default();
        for envelope in blocks.iter().flat_map(Block::records) {
            book.read(&envelope.map_err(|error| error.to_string())?.event)?;
        }
        self.compare(&book)?;
        let open = book.lives.iter().filter(|(_, life)| !life.over).count();
        if all_ended && open > 0 { Err(format!("I6: {open} tasks never ended")) } else { Ok(audit.events()) }
    }

    fn compare(&self, book: &Book) -> Result<(), String> {
        for (client, task) in &self.acknowledged {
            match book.requests.get(client).map(Vec::as_slice) {
                Some([found]) if found == task => {}
                found => return Err(format!("I1: request {client} was acknowledged as {task} and is recorded as {found:?}")),
            }
        }
        if let Some((client, tasks)) = book.requests.iter().find(|(_, tasks)| tasks.len() > 1) {
            return Err(format!("I1: request {client} is recorded as {tasks:?}"));
        }
        if let Some((attempt, replica)) =
            self.executions.iter().find(|(attempt, replica)| book.starts.get(attempt) != Some(replica))
        {
            return Err(format!("I2: {attempt:?} ran on {replica} and the log says {:?}", book.starts.get(attempt)));
        }
        match self.reported.difference(&book.reports).next() {
            Some(attempt) => Err(format!("I1: the report of {attempt:?} was acknowledged and is not there")),
            None => Ok(()),
        }
    }
}

/// What the log says.
#[derive(Debug, Default)]
struct Book {
    requests: BTreeMap<u64, Vec<Ordinal>>,
    lives: BTreeMap<Ordinal, Life>,
    starts: BTreeMap<(Ordinal, u32), ReplicaId>,
    reports: BTreeSet<(Ordinal, u32)>,
    next: u64,
}

impl Book {
    /// Notes what a new task comes after; what the request says of those that have ended must be so.
    fn depend(&mut self, task: Ordinal, asks: &[Ask<'_>]) -> Result<(), String> {
        let mut after = Vec::new();
        for ask in asks {
            let Ask::After(dependency) = ask else { continue };
            let (of, said) = match dependency {
                Dependency::Task(of) => (*of, None),
                Dependency::Ended(of, outcome) => (*of, Some(*outcome)),
                Dependency::Key(..) => return Err(format!("I7: {task} is recorded with a key in place of a task")),
            };
            if of >= task || self.lives.get(&of).and_then(|life| life.outcome) != said {
                return Err(format!("I7: {task} comes after {of}, which is said to have ended {said:?}"));
            }
            after.push(of);
        }
        if let Some(life) = self.lives.get_mut(&task) {
            (life.after, life.runs) = (after, asks.contains(&Ask::OnFailure(OnFailure::Run)));
        }
        Ok(())
    }

    /// A task starts behind all that it comes after, and is cancelled for one of them only if that one failed.
    fn check_order(&self, event: &Event<'_>) -> Result<(), String> {
        let outcome = |task: &Ordinal| self.lives.get(task).and_then(|life| life.outcome);
        let Some(life) = event.task().and_then(|task| self.lives.get(&task)) else { return Ok(()) };
        let is_right = if let Event::Started { .. } = event {
            life.after.iter().all(|of| outcome(of).is_some_and(|outcome| life.runs || outcome.is_success()))
        } else if let Event::Ended { cause: Cause::Dependency(of), .. } = event {
            !life.runs && life.after.contains(of) && outcome(of).is_some_and(|outcome| !outcome.is_success())
        } else {
            true
        };
        if is_right { Ok(()) } else { Err(format!("I7: {event:?} in a task that was {life:?}")) }
    }

    fn read(&mut self, event: &Event<'_>) -> Result<(), String> {
        self.check_order(event)?;
        if event.creates_task() {
            let task = Ordinal(self.next);
            self.next += 1;
            self.lives.insert(task, Life::default());
            if let Event::Requested { payload, asks, .. } = event {
                self.depend(task, asks)?;
                let client = payload.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
                self.requests.entry(client).or_default().push(task);
            }
            return Ok(());
        }
        let Some(life) = event.task().and_then(|task| self.lives.get_mut(&task)) else { return Ok(()) };
        if let Some((_, outcome)) = event.ends() {
            life.outcome = Some(outcome);
        }
        let wrong = || Err(format!("I2: {event:?} in a task that was {life:?}"));
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other events neither begin nor end an attempt or a task")]
        match *event {
            Event::Started { attempt, .. } if life.over || life.running.is_some() || attempt != life.started + 1 => wrong(),
            Event::Started { task, attempt, replica } => {
                (life.running, life.started) = (Some(attempt), attempt);
                self.starts.insert((task, attempt), replica);
                Ok(())
            }
            Event::Succeeded { attempt, .. }
            | Event::Failed { attempt, .. }
            | Event::Lost { attempt, .. }
            | Event::TimedOut { attempt, timeout: Timeout::StartToClose | Timeout::Heartbeat, .. }
                if life.over || life.running != Some(attempt) =>
            {
                wrong()
            }
            Event::Succeeded { task, attempt, .. } => {
                (life.running, life.over) = (None, true);
                self.reports.insert((task, attempt));
                Ok(())
            }
            Event::Failed { task, attempt, .. } => {
                life.running = None;
                self.reports.insert((task, attempt));
                Ok(())
            }
            Event::Lost { .. } | Event::TimedOut { timeout: Timeout::StartToClose | Timeout::Heartbeat, .. } => {
                life.running = None;
                Ok(())
            }
            Event::SlotReleased { task, attempt, .. } | Event::AttemptReturned { task, attempt } => {
                self.reports.insert((task, attempt));
                Ok(())
            }
            Event::Ended { .. } | Event::DeadLettered { .. } if life.over => wrong(),
            Event::Ended { .. } | Event::DeadLettered { .. } => {
                (life.running, life.over) = (None, true);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
