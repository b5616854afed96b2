//! The life of one task as its events tell it.

use ergate_events::event::Event;
use ergate_events::id::{Ordinal, TaskId};
use ergate_events::slab::Task;
use ergate_events::state::State;
use ergate_events::task::Outcome;
use ergate_events::time::Timestamp;
use serde_json::{Map, Value, json};

use super::moment::{due, time};
use super::named::name_tasks;
use super::record::{Record, plain};

/// What is known of a task.
#[derive(Default)]
pub struct Life {
    /// By name, in the order in which they became known.
    pub facts: Vec<(&'static str, Value)>,
    /// Its starts, in order.
    pub attempts: Vec<Attempt>,
}

/// One start of it.
#[derive(serde::Serialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// Where it ran.
    pub replica: String,
    /// When, in RFC 3339.
    pub started: String,
    /// When it ended.
    pub ended: Option<String>,
    /// How it ended, or that it runs.
    pub how: String,
}

impl Life {
    /// Notes a fact; a later one replaces an earlier one of the same name.
    pub fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        let value = value.into();
        match self.facts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.facts.push((name, value)),
        }
    }

    /// Takes over what a record says of the task.
    ///
    /// # Errors
    /// As [`Record::json`].
    pub fn learn(&mut self, task: Ordinal, record: &Record<'_>) -> Result<(), serde_json::Error> {
        let (mut object, at) = (record.json()?, record.envelope.recorded_at);
        name_tasks(&mut object);
        let field = |name: &str| object.get(name).cloned().unwrap_or(Value::Null);
        if record.creates == Some(task) {
            self.put("requested", time(at));
            self.put("requested_position", record.envelope.position.0);
        }
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other events tell nothing that is shown, or are folded into the state"
        )]
        match record.envelope.event {
            Event::Requested { .. } => ["payload", "key", "asks"].into_iter().for_each(|name| self.put(name, field(name))),
            // Seen from the task that came of it, or from the dead letter.
            Event::Redriven { .. } if record.creates == Some(task) => self.put("redriven_from", field("of")),
            Event::Redriven { .. } => self.put("redriven_as", field("task")),
            Event::Started { attempt, replica, .. } => self.start(attempt, replica.to_string(), at),
            Event::Succeeded { attempt, outcome, .. } => {
                self.put("result", field("result"));
                self.close(attempt, at, outcome.name().to_ascii_lowercase());
            }
            Event::Failed { attempt, ref failure, .. } => {
                self.put("failure", field("failure"));
                self.close(attempt, at, format!("failed: {}: {}", failure.class, failure.message));
            }
            Event::TimedOut { attempt, .. } => self.close(attempt, at, format!("timed out: {}", plain(&field("timeout")))),
            Event::Lost { attempt, .. } => self.close(attempt, at, "lost with its executor".to_owned()),
            Event::Ended { .. } | Event::DeadLettered { .. } => self.put("cause", field("cause")),
            Event::CancelRequested { .. } => self.put("cancel_requested", demand(at, &field("by"), &field("reason"))),
            Event::KillRequested { .. } => self.put("kill_requested", demand(at, &field("by"), &field("reason"))),
            _ => {}
        }
        if let Some((_, outcome)) = record.envelope.event.ends() {
            self.end(at, outcome);
        }
        Ok(())
    }

    fn start(&mut self, number: u32, replica: String, at: Timestamp) {
        self.attempts.push(Attempt { number, replica, started: time(at), ended: None, how: "running".to_owned() });
    }

    fn close(&mut self, number: u32, at: Timestamp, how: String) {
        if let Some(attempt) = self.attempts.iter_mut().find(|attempt| attempt.number == number) {
            (attempt.ended, attempt.how) = (Some(time(at)), how);
        }
    }

    fn end(&mut self, at: Timestamp, outcome: Outcome) {
        self.put("outcome", outcome.name());
        self.put("ended", time(at));
        // An attempt that ran when its task was ended by something else.
        for attempt in self.attempts.iter_mut().filter(|attempt| attempt.ended.is_none()) {
            (attempt.ended, attempt.how) = (Some(time(at)), "stopped with its task".to_owned());
        }
    }

    /// Adds what only the folded state tells.
    pub fn complete(&mut self, state: &State, ordinal: Ordinal) {
        let (live, dead) = (state.work.tasks.get(ordinal), state.work.dead.get(&ordinal));
        let phase = match (live, dead) {
            (Some(task), _) => json!(task.phase),
            (None, Some(_)) => "dead".into(),
            (None, None) => "ended".into(),
        };
        self.put("state", phase);
        if let Some(task) = live.or(dead.map(|letter| &letter.task)) {
            self.add_task(state, task);
        }
        if let Some(hold) = state.work.holds.get(ordinal) {
            self.put("waits_for", self.ids(&hold.after));
        }
        if let Some(letter) = dead {
            self.put("cause", json!(letter.cause));
            self.put("ended", time(letter.ended_at));
        }
        if let Some(task) = live.filter(|task| task.due != Timestamp::NEVER) {
            self.put("due", due(task.due));
        }
    }

    /// Ids of tasks on the shard of this one.
    fn ids(&self, tasks: &[Ordinal]) -> Vec<String> {
        let own = self.facts.iter().find(|(name, _)| *name == "task").and_then(|(_, id)| id.as_str()?.parse::<TaskId>().ok());
        tasks.iter().map(|ordinal| TaskId { ordinal: *ordinal, ..own.unwrap_or_default() }.to_string()).collect()
    }

    fn add_task(&mut self, state: &State, task: &Task) {
        self.put("type", state.work.types.get(usize::from(task.task_type.0)).map_or("", |known| known.name.as_str()));
        self.put("pool", state.work.settings(task).pool.as_str());
        self.put("priority", task.priority);
        self.put("requested", time(task.requested_at));
        self.put("starts", task.attempt);
        self.put("failures", task.failures);
        self.put("losses", task.losses);
    }

    /// Everything as one JSON object; what is null was not said.
    ///
    /// # Errors
    /// As [`Record::json`].
    pub fn json(&self) -> Result<Map<String, Value>, serde_json::Error> {
        let known = self.facts.iter().filter(|(_, value)| !value.is_null());
        let mut object: Map<_, _> = known.map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        object.insert("attempts".to_owned(), serde_json::to_value(&self.attempts)?);
        Ok(object)
    }
}

fn demand(at: Timestamp, by: &Value, reason: &Value) -> String {
    format!("{} by {}: {}", time(at), plain(by), plain(reason))
}
