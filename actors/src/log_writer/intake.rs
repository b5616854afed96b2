//! Requests from a topic: each record is answered once, in order, by an event; what can never be taken goes to the dead letters with the
//! block that says so, and what has no room yet waits here, which in the end makes the topic wait.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use ergate_events::command::{Command, Rejection};
use ergate_events::dependency;
use ergate_events::id::{Ordinal, ShardId, TypeId};
use ergate_events::log::LogError;
use ergate_events::shard::Answer;
use ergate_events::state::State;
use ergate_events::task::{Ask, Dependency, Outcome};
use ergate_events::time::Timestamp;

use super::LogWriter;
use crate::lane::{Lane, Valve};
use crate::records::{Records, Source, Wish};
use crate::results::Results;
use crate::submission::{Extras, NOBODY};

/// Finds in the durable log how tasks ended; leaves out those of which it has no end.
pub type EndsOf = Arc<dyn Fn(BTreeSet<Ordinal>) -> Result<BTreeMap<Ordinal, Outcome>, LogError> + Send + Sync>;

/// What the log writer of a shard with a requests topic is made of beyond the usual.
pub struct IntakeParts {
    /// Records of the shard's partition, in order.
    pub records: Lane<Records>,
    /// Where they come from.
    pub place: Source,
    /// Who is told of ends.
    pub results: Results,
    /// Refuses new work while so many tasks are live: the records wait.
    pub tasks_live_max: usize,
    /// Knows how tasks ended that records come after.
    pub ends: EndsOf,
}

/// Requests from a topic.
pub(super) struct Intake {
    pub(super) results: Results,
    place: Source,
    tasks_live_max: usize,
    /// Open while nothing waits here.
    valve: Valve,
    waiting: VecDeque<Records>,
    /// How many of the first batch are answered.
    answered: usize,
    ends: EndsOf,
    /// Whether it is being looked up how tasks ended that the next record comes after.
    is_looking: bool,
    /// How those ended that were looked up last; `None` where the log does not tell any more.
    ended: BTreeMap<Ordinal, Option<Outcome>>,
}

impl Intake {
    pub(super) fn start(parts: IntakeParts, context: &mut Context<LogWriter>) -> Intake {
        let valve = Valve::default();
        <LogWriter as StreamHandler<Vec<Records>>>::add_stream(parts.records.behind(&valve), context);
        let IntakeParts { place, results, tasks_live_max, ends, .. } = parts;
        let (waiting, ended) = (VecDeque::new(), BTreeMap::new());
        Intake { results, place, tasks_live_max, valve, waiting, answered: 0, ends, is_looking: false, ended }
    }
}

/// The definition that requests of a name get. Requests of one kind come one after another, so that hardly one needs to be looked up.
#[derive(Default)]
struct Named<'a> {
    last: Option<(&'a str, Option<TypeId>)>,
}

impl<'a> Named<'a> {
    fn find(&mut self, name: &'a str, state: &State) -> Option<TypeId> {
        match self.last {
            Some((last, found)) if last == name => found,
            Some(_) | None => {
                let found = state.work.type_names.get(name).copied();
                self.last = Some((name, found));
                found
            }
        }
    }
}

/// Reasons of refusals that are not the core's.
fn unknown_type(name: &str, state: &State) -> String {
    let known = state.work.type_names.keys().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
    let name: String = name.chars().take(64).collect();
    format!("type: no task type {name:?} is defined on this shard; defined are: {known}")
}

impl StreamHandler<Vec<Records>> for LogWriter {
    fn handle(&mut self, records: Vec<Records>, context: &mut Context<Self>) {
        if let Some(intake) = &mut self.intake {
            intake.waiting.extend(records);
        }
        self.take_records(context);
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl LogWriter {
    /// Answers the records that wait, as far as there is room.
    pub(super) fn take_records(&mut self, context: &mut Context<Self>) {
        if self.intake.as_ref().is_none_or(|intake| intake.waiting.is_empty()) {
            return;
        }
        while self.takes_more()
            && let Some((records, answered)) = self.next_records()
        {
            let (taken, ends) = self.take(&records, answered);
            let taken = answered + taken;
            self.look_up(ends, context);
            self.bury(&records);
            let done = taken == records.len();
            let Some(intake) = &mut self.intake else { break };
            intake.answered = if done { 0 } else { taken };
            if !done {
                intake.waiting.push_front(records);
                break;
            }
        }
        if let Some(intake) = &self.intake {
            intake.valve.set_open(intake.waiting.is_empty() || self.closing.is_some());
        }
        self.commit(context);
    }

    fn takes_more(&self) -> bool {
        let live = self.shard.state().work.tasks.len();
        let room = self.intake.as_ref().is_some_and(|intake| live < intake.tasks_live_max && !intake.is_looking);
        room && self.refusal().is_none() && self.opened && self.in_flight.len() < self.in_flight_max
    }

    fn next_records(&mut self) -> Option<(Records, usize)> {
        let intake = self.intake.as_mut()?;
        Some((intake.waiting.pop_front()?, intake.answered))
    }

    /// Answers the records from index `from` on; returns how many it answered, which are fewer where there was no room for the next one, or where
    /// that one comes after tasks of which somebody has to look up how they ended.
    fn take(&mut self, records: &Records, from: usize) -> (usize, BTreeSet<Ordinal>) {
        let items = &records.items()[from..];
        let wishes: Vec<Wish<'_>> = items.iter().map(|item| records.wish(item)).collect();
        let shard = self.id();
        let mut asks: Vec<Vec<Ask<'_>>> = wishes.iter().map(|wish| asks(wish, shard)).collect();
        let (state, at) = (self.shard.state(), self.clock.now());
        self.fill_in(&wishes, &mut asks, at);
        let mut named = Named::default();
        let types: Vec<Option<TypeId>> = wishes.iter().map(|wish| task_type(wish, &mut named, state)).collect();
        let unknown: Vec<String> = wishes.iter().zip(&types).map(|(wish, found)| reason(wish, *found, state, shard)).collect();
        let mut commands = Vec::with_capacity(items.len());
        // For each command, which record it is about.
        let mut about = Vec::with_capacity(items.len());
        let mut next = state.work.source_next;
        for (index, item) in items.iter().enumerate() {
            let offset = item.offset;
            if offset < next {
                // Answered before: the topic was read again from further back than need be.
                continue;
            }
            if offset > next {
                commands.push(Command::MoveSource { from: Some(next), next: offset });
                about.push(index);
            }
            commands.push(match (&wishes[index], types[index]) {
                (Wish::Request { payload, extras, .. }, Some(task_type)) if unknown[index].is_empty() => {
                    let key = extras.and_then(Extras::key);
                    Command::TakeRecord { offset, task_type, payload, key, asks: &asks[index] }
                }
                (Wish::Request { .. } | Wish::Refused(_), _) => {
                    Command::RefuseRecord { offset: Some(offset), reason: &unknown[index] }
                }
            });
            about.push(index);
            next = offset + 1;
        }
        let mut answers: Vec<Answer> = Vec::with_capacity(commands.len());
        self.fresh = ergate_events::id::Ordinal(u64::MAX);
        self.decide_records(records, &commands, &mut answers);
        let is_open = |rejection: &Rejection| rejection.is_busy() || rejection.wants_an_end();
        let stopped = answers.iter().position(|answer| answer.as_ref().is_err_and(is_open));
        let Some(stopped) = stopped else { return (items.len(), BTreeSet::new()) };
        let (index, wants_ends) = (about[stopped], answers[stopped].is_err_and(|rejection| rejection.wants_an_end()));
        let ends = if wants_ends {
            self.ended(&wishes[index], &asks[index], at).map(|(_, task)| task).collect()
        } else {
            BTreeSet::new()
        };
        (index, ends)
    }

    /// The places of names among what a record asks for whose tasks have ended, and those tasks.
    fn ended<'s>(
        &'s self,
        wish: &Wish<'_>,
        asks: &'s [Ask<'_>],
        at: Timestamp,
    ) -> impl Iterator<Item = (usize, Ordinal)> + use<'s> {
        let name = if let Wish::Request { name, .. } = wish { (*name).to_owned() } else { String::new() };
        asks.iter().enumerate().filter_map(move |(place, ask)| {
            let Ask::After(named) = ask else { return None };
            Some((place, dependency::ended(&self.shard.state().work, &name, *named, at)?))
        })
    }

    /// Writes the ends that were looked up into the records that name those tasks. One whose end is forgotten is one that nobody knows.
    fn fill_in(&self, wishes: &[Wish<'_>], asks: &mut [Vec<Ask<'_>>], at: Timestamp) {
        let Some(known) = self.intake.as_ref().map(|intake| &intake.ended).filter(|known| !known.is_empty()) else { return };
        for (wish, asks) in wishes.iter().zip(asks) {
            for (place, task) in self.ended(wish, asks, at).collect::<Vec<_>>() {
                if let Some(end) = known.get(&task) {
                    asks[place] = Ask::After(end.map_or(Dependency::Task(NOBODY), |outcome| Dependency::Ended(task, outcome)));
                }
            }
        }
    }

    /// Lets the records wait until it is known how these tasks ended. Their ends may have been decided just now, and are looked for once they are
    /// durable.
    fn look_up(&mut self, tasks: BTreeSet<Ordinal>, context: &mut Context<Self>) {
        let Some(intake) = self.intake.as_mut().filter(|_| !tasks.is_empty()) else { return };
        intake.is_looking = true;
        let (ends, position, mut tail) = (Arc::clone(&intake.ends), self.shard.state().position, self.tail.subscribe());
        let found = async move {
            let reached = tail.wait_for(|tail| tail.head.next >= position || tail.failed.is_some()).await.is_ok();
            let wanted = tasks.clone();
            let found = if reached { tokio::task::spawn_blocking(move || ends(wanted)).await.ok() } else { None };
            (tasks, found)
        };
        context.spawn(found.into_actor(self).map(|(tasks, found), writer, context| writer.looked_up(&tasks, found, context)));
    }

    /// Goes on with the records. Where the log could not be read they ask again.
    fn looked_up(
        &mut self,
        tasks: &BTreeSet<Ordinal>,
        found: Option<Result<BTreeMap<Ordinal, Outcome>, LogError>>,
        context: &mut Context<Self>,
    ) {
        let Some(intake) = &mut self.intake else { return };
        intake.is_looking = false;
        match found {
            Some(Ok(found)) => {
                intake.ended = tasks.iter().map(|task| (*task, found.get(task).copied())).collect();
                self.take_records(context);
            }
            Some(Err(error)) => tracing::warn!(%error, "failed to look up how tasks ended that a request comes after; it waits"),
            None => {}
        }
    }

    /// As [`LogWriter::decide_all`], with the records at hand that refused ones are buried from.
    fn decide_records(&mut self, records: &Records, commands: &[Command<'_>], answers: &mut Vec<Answer>) {
        let mut rest = commands;
        while !rest.is_empty() {
            let taken = self.decide(rest, answers);
            rest = &rest[taken..];
            if !rest.is_empty() {
                self.bury(records);
                self.hand_over();
            }
        }
    }

    /// Sends the records that were refused in the open block to the dead letters.
    fn bury(&mut self, records: &Records) {
        let Some(intake) = &self.intake else { return };
        for (offset, reason) in self.open.effects.refused.drain(..) {
            self.open.effects.messages.extend(records.dead_letter(offset, &intake.place, &reason));
        }
    }
}

fn asks<'a>(wish: &Wish<'a>, shard: ShardId) -> Vec<Ask<'a>> {
    match wish {
        Wish::Request { extras: Some(extras), .. } => extras.asks(shard),
        Wish::Request { extras: None, .. } | Wish::Refused(_) => Vec::new(),
    }
}

fn task_type<'a>(wish: &Wish<'a>, named: &mut Named<'a>, state: &State) -> Option<TypeId> {
    match wish {
        Wish::Request { name, .. } => named.find(name, state),
        Wish::Refused(_) => None,
    }
}

/// Why a record is refused before the core sees it; empty for one that is not.
fn reason(wish: &Wish<'_>, found: Option<TypeId>, state: &State, shard: ShardId) -> String {
    match (wish, found) {
        (Wish::Refused(reason), _) => (*reason).to_owned(),
        (Wish::Request { name, .. }, None) => unknown_type(name, state),
        (Wish::Request { extras, .. }, Some(_)) => {
            let elsewhere = extras.and_then(|extras| extras.elsewhere(shard));
            elsewhere.map_or_else(String::new, |rejection| rejection.to_string())
        }
    }
}
