//! Attempts on their way from an answer to the runner.

use ergate_actors::effects::{self, Attempts, Origin};
use ergate_events::id::{AttemptId, Epoch, Ordinal, TypeId};
use ergate_events::time::{Micros, Timestamp};

use super::agent::Agent;
use super::table::{Held, Left, Stage};
use super::wire::{self, Given};

/// An attempt whose payload has to be fetched.
pub(super) struct Fetch {
    /// Its place in the table.
    pub(super) place: usize,
    /// Where its payload is.
    pub(super) path: String,
    id: AttemptId,
    facts: Facts,
    checkpoint: Option<Vec<u8>>,
    trace_parent: Option<String>,
}

impl Fetch {
    /// Whether the attempt in its place waits for it.
    pub(super) fn is_for(&self, held: Held) -> bool {
        held.id == self.id && held.stage == Stage::Fetching
    }
}

/// What needs no bytes.
#[derive(Clone, Copy)]
struct Facts {
    task_type: TypeId,
    deadline: Timestamp,
    heartbeat: Option<Micros>,
    epoch: Epoch,
}

impl Agent {
    /// Takes in what an engine gave, and runs it.
    pub(super) fn take_in(&mut self, from: usize, given: Vec<Given<'_>>) {
        let mut attempts = Attempts::default();
        for one in given {
            let stage = if one.payload_url.is_some() { Stage::Fetching } else { Stage::Running };
            let is_room = self.takes_from(from);
            let Some(place) = is_room.then(|| self.table.take(one.attempt, stage, from)).flatten() else {
                // Another engine was faster, or there is less room than when it was asked for.
                self.return_beyond(one.attempt, from);
                continue;
            };
            // An engine that wants no more of the worker gave this before it did, and waits for it; whoever ends the worker does not wait for long.
            if self.drain.is_some_and(|drain| drain.until.is_some()) {
                self.leave(place, Held { id: one.attempt, stage, from }, Left::Returned);
            } else {
                self.prepare(place, from, &one, &mut attempts);
            }
        }
        self.runner.run(attempts);
    }

    fn prepare(&mut self, place: usize, from: usize, one: &Given<'_>, attempts: &mut Attempts) {
        let facts = self.facts(one);
        let checkpoint = wire::bytes(one.checkpoint, one.checkpoint_base64.as_deref());
        if let Some(path) = &one.payload_url {
            let fetch = Fetch {
                place,
                path: path.clone().into_owned(),
                id: one.attempt,
                facts,
                checkpoint: checkpoint.map(std::borrow::Cow::into_owned),
                trace_parent: one.traceparent.as_deref().map(str::to_owned),
            };
            if let Some(link) = self.link_mut(from) {
                link.fetches.push_back(fetch);
            }
            return;
        }
        self.begin(place, Micros::from_millis(one.timeout_ms));
        let payload = wire::bytes(one.payload, one.payload_base64.as_deref()).unwrap_or_default();
        attempts.add(given(place, one.attempt, facts, (&payload, checkpoint.as_deref(), one.traceparent.as_deref())));
    }

    fn begin(&mut self, place: usize, timeout: Micros) {
        if let Some(pace) = &mut self.pace {
            pace.begin(place, timeout);
        }
    }

    fn facts(&self, one: &Given<'_>) -> Facts {
        let epoch = one.fence.split_once('.').and_then(|(epoch, _)| epoch.parse().ok()).map_or(Epoch(0), Epoch);
        Facts {
            // One that the runner does not know fails there, by name.
            task_type: self.types.get(&*one.task_type).copied().unwrap_or(TypeId(u16::MAX)),
            deadline: self.clock.now().after(Micros::from_millis(one.timeout_ms)),
            heartbeat: one.heartbeat_ms.map(Micros::from_millis),
            epoch,
        }
    }

    /// Runs an attempt whose payload has come.
    pub(super) fn run_fetched(&mut self, fetch: &Fetch, payload: &[u8]) {
        let Fetch { place, id, facts, checkpoint, trace_parent, .. } = fetch;
        if self.table.get(*place).is_none_or(|held| !fetch.is_for(held)) {
            return;
        }
        self.table.set(*place, Stage::Running);
        self.begin(*place, facts.deadline.since(self.clock.now()));
        let mut attempts = Attempts::default();
        attempts.add(given(*place, *id, *facts, (payload, checkpoint.as_deref(), trace_parent.as_deref())));
        self.runner.run(attempts);
    }
}

fn given<'a>(
    place: usize,
    id: AttemptId,
    facts: Facts,
    (payload, checkpoint, trace_parent): (&'a [u8], Option<&'a [u8]>, Option<&'a str>),
) -> effects::Given<'a> {
    let Facts { task_type, deadline, heartbeat, epoch } = facts;
    let origin = Origin { shard: id.task.shard, task: id.task.ordinal, epoch };
    let (task, number) = (Ordinal(place as u64), id.number);
    effects::Given { task, number, task_type, deadline, heartbeat, origin, payload, checkpoint, trace_parent }
}
