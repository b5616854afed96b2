//! Batches in which requests name tasks that they come after, on a shard that is led here.
//!
//! The state of a shard forgets tasks that end, so how a named task ended is looked up in the log; and requests of a batch may name each other in any
//! order. Both are settled here, in rounds: what can be decided is, and what names a task that ended in between is asked again with its end. A round
//! that decides nothing finds an end, so there are few.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ergate_actors::submission::{After, AnswerRun, BatchAnswer, Extras, NOBODY, RequestBatch, SubmitError};
use ergate_events::command::Rejection;
use ergate_events::dependency;
use ergate_events::id::{Ordinal, Position, ShardId, TaskId, TypeId};
use ergate_events::mates::{self, Mate};
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::Timestamp;

use crate::wiring::Parts;

impl Parts {
    /// Has a batch decided in which requests name tasks; room for it is the caller's.
    pub(crate) async fn submit_dependents(&self, requests: &RequestBatch) -> Result<BatchAnswer, SubmitError> {
        let names = self.types.iter().map(|(name, id)| (*id, name.as_str())).collect();
        let mut dependents = Dependents::new(requests, &names, self);
        while dependents.has_open() {
            self.look_up(&mut dependents).await?;
            let (round, asked) = dependents.round();
            if asked.is_empty() {
                break;
            }
            dependents.take(&asked, &self.submit(round, None).await?.answer);
        }
        Ok(dependents.answer())
    }

    /// Finds out how the tasks ended that are named and have ended by now.
    async fn look_up(&self, dependents: &mut Dependents<'_>) -> Result<(), SubmitError> {
        let state = self.state().await.map_err(|_| self.closed())?;
        let at = self.clock.now();
        let over = dependents.over(&state, at).map(|(_, _, task)| task);
        let wanted: BTreeSet<Ordinal> = over.filter(|task| !dependents.ends.contains_key(task)).collect();
        if !wanted.is_empty() {
            let found = self.ends_of(wanted.clone(), state.position).await?;
            dependents.ends.extend(wanted.iter().map(|task| (*task, found.get(task).copied())));
        }
        dependents.fill_in(&state, at);
        Ok(())
    }

    /// How tasks ended that had ended when the state was at this position.
    async fn ends_of(&self, tasks: BTreeSet<Ordinal>, position: Position) -> Result<BTreeMap<Ordinal, Outcome>, SubmitError> {
        // The end of a task may have been decided just now; it is in the log once it is durable.
        if !self.durable_at(position).await.map_err(|_| self.closed())? {
            return Err(self.closed());
        }
        let reader = Arc::clone(&self.reader);
        let found = tokio::task::spawn_blocking(move || crate::history::outcomes_of(reader.as_ref(), tasks)).await;
        found.map_err(|_| self.closed())?.map_err(|error| SubmitError::Closed { reason: error.to_string() })
    }
}

/// A batch on its way through the rounds.
struct Dependents<'a> {
    shard: ShardId,
    items: Vec<Item<'a>>,
    plan: mates::Plan,
    answers: Vec<Option<AnswerRun>>,
    /// How named tasks ended; `None` where the log does not tell any more.
    ends: BTreeMap<Ordinal, Option<Outcome>>,
    position: Position,
}

struct Item<'a> {
    task_type: TypeId,
    type_name: &'a str,
    payload: &'a [u8],
    extras: Option<&'a Extras>,
    /// The tasks that it comes after, as far as they are known.
    after: Vec<After>,
}

impl<'a> Item<'a> {
    fn mate(&self) -> Mate<'_> {
        let key = self.extras.and_then(|extras| extras.key.as_deref());
        Mate { name: key.map(|key| (self.type_name, key)), after: self.after.iter().map(|after| self.name(after)).collect() }
    }

    /// The type and the key that stand for a task.
    fn name<'s>(&'s self, after: &'s After) -> Option<(&'s str, &'s str)> {
        match after {
            After::Key { task_type, key } => Some((task_type.as_deref().unwrap_or(self.type_name), key)),
            After::Task(_) | After::Ended(..) => None,
        }
    }
}

impl<'a> Dependents<'a> {
    fn new(requests: &'a RequestBatch, names: &BTreeMap<TypeId, &'a str>, parts: &Parts) -> Dependents<'a> {
        let item = |(task_type, payload, extras): (TypeId, &'a [u8], Option<&'a Extras>)| Item {
            task_type,
            type_name: names.get(&task_type).copied().unwrap_or_default(),
            payload,
            extras,
            after: extras.map(|extras| extras.after.clone()).unwrap_or_default(),
        };
        let items: Vec<Item<'a>> = requests.iter().map(item).collect();
        let plan = mates::plan(&items.iter().map(Item::mate).collect::<Vec<_>>());
        let mut answers = vec![None; items.len()];
        for (index, way) in &plan.circular {
            answers[*index] =
                Some(AnswerRun::Refused(format!("after: {way} leads back to itself; leave one of the names out").into()));
        }
        for (index, item) in items.iter().enumerate() {
            if let Some(rejection) = item.extras.and_then(|extras| extras.elsewhere(parts.shard)) {
                answers[index].get_or_insert(AnswerRun::Rejected(rejection));
            }
        }
        Dependents { shard: parts.shard, items, plan, answers, ends: BTreeMap::new(), position: Position(0) }
    }

    fn has_open(&self) -> bool {
        self.answers.iter().any(Option::is_none)
    }

    /// The open requests that name tasks, with the place of each name and the task that it stands for, where it has ended.
    fn over<'s>(&'s self, state: &'s State, at: Timestamp) -> impl Iterator<Item = (usize, usize, Ordinal)> + 's {
        let open = self.items.iter().enumerate().filter(|(index, _)| self.answers[*index].is_none());
        open.flat_map(move |(index, item)| {
            let ended = move |after: &After| dependency::ended(&state.work, item.type_name, after.dependency(self.shard), at);
            item.after.iter().enumerate().filter_map(move |(place, after)| Some((index, place, ended(after)?)))
        })
    }

    /// Writes the ends that are known into the requests that name those tasks. A task whose end is forgotten is one that nobody knows.
    fn fill_in(&mut self, state: &State, at: Timestamp) {
        for (index, place, task) in self.over(state, at).collect::<Vec<_>>() {
            let id = |ordinal| TaskId { shard: self.shard, ordinal };
            self.items[index].after[place] = match self.ends.get(&task) {
                Some(Some(outcome)) => After::Ended(id(task), *outcome),
                Some(None) => After::Task(id(NOBODY)),
                None => continue,
            };
        }
    }

    /// What can be decided now, in an order in which it can, and which requests those are.
    fn round(&self) -> (RequestBatch, Vec<usize>) {
        let asked: Vec<usize> = self.plan.order.iter().copied().filter(|index| self.answers[*index].is_none()).collect();
        let mut round =
            RequestBatch::with_capacity(asked.len(), asked.iter().map(|index| self.items[*index].payload.len()).sum());
        for Item { task_type, payload, extras, after, .. } in asked.iter().map(|index| &self.items[*index]) {
            let extras = extras.map(|extras| Box::new(Extras { after: after.clone(), ..extras.clone() }));
            round.push(*task_type, payload, extras);
        }
        (round, asked)
    }

    /// Takes the answers to a round. Those that named a task which ended just before stay open, and so do those that named one of these.
    fn take(&mut self, asked: &[usize], answer: &BatchAnswer) {
        self.position = answer.position;
        for (index, answer) in asked.iter().zip(answer.each()) {
            self.answers[*index] = if matches!(answer, AnswerRun::Rejected(rejection) if rejection.wants_an_end()) {
                None
            } else if let AnswerRun::Rejected(Rejection::UnknownDependency { index: place }) = answer {
                self.unknown(*index, place)
            } else {
                Some(answer)
            };
        }
    }

    /// The answer to a request that named nobody, who may be another request that was refused or is still open.
    fn unknown(&self, index: usize, place: usize) -> Option<AnswerRun> {
        let mate = self.plan.links[index].iter().find(|(known, _)| *known == place).map(|(_, mate)| *mate);
        let Some(mate) = mate else { return Some(AnswerRun::Rejected(Rejection::UnknownDependency { index: place })) };
        self.answers[mate].as_ref()?;
        let key = self.items[mate].extras.and_then(|extras| extras.key.as_deref()).unwrap_or_default();
        let reason =
            format!("after[{place}]: the request with the key {key:?} was refused, and this one comes after it; mend that one");
        Some(AnswerRun::Refused(reason.into()))
    }

    fn answer(self) -> BatchAnswer {
        // Whoever is left named one of a circle, which the plan refuses with those that lead there.
        BatchAnswer::of(self.answers.into_iter().flatten(), self.position)
    }
}
