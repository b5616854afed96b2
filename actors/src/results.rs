//! What requesters elsewhere are told of the ends of their tasks: a message on a topic, committed with the end itself.

use std::collections::BTreeMap;

use ergate_events::event::{Cause, Event, hex};
use ergate_events::id::{Ordinal, ShardId, TaskId};
use ergate_events::log::Outgoing;
use ergate_events::slab::Extra;
use ergate_events::state::State;
use ergate_events::task::Outcome;
use serde::Serialize;
use serde_json::value::RawValue;

/// Who gets told.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The topic that gets the end of every task; `None` sends only to those who asked.
    pub topic: Option<String>,
    /// The shard's partition of a topic; answers on others go where their keys lead.
    own: Option<(String, i32)>,
    /// Where answers may go. Requests for others are refused, but the log may have some that were taken when they were allowed.
    allowed: Vec<String>,
    /// Live tasks whose requesters asked for an answer, or named the request.
    asked: BTreeMap<Ordinal, Asked>,
}

#[derive(Clone, Debug)]
struct Asked {
    reply_to: Option<Box<str>>,
    correlation_id: Option<Box<str>>,
}

/// The end of a task as it is told.
#[derive(Serialize)]
struct Told<'a> {
    task: TaskId,
    outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    /// A result that is not JSON, as hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    result_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
}

/// How a task ended, borrowed.
pub(crate) struct Ending<'a> {
    pub(crate) outcome: Outcome,
    pub(crate) result: &'a [u8],
    pub(crate) failure: Option<(Cause, &'a str, &'a str)>,
}

impl Results {
    /// Tells everybody who asked for an answer on a topic that is `allowed`, and `topic` of every end. The state names the live tasks whose
    /// requesters asked before. On the topic of `own` messages go to that partition.
    pub fn new(topic: Option<String>, own: Option<(String, i32)>, allowed: Vec<String>, state: &State) -> Results {
        let mut results = Results { topic, own, allowed, asked: BTreeMap::new() };
        state.work.tasks.iter().for_each(|(ordinal, task, _)| results.note(ordinal, task.extra.as_deref()));
        results
    }

    fn note(&mut self, task: Ordinal, extra: Option<&Extra>) {
        if let Some(extra) = extra.filter(|extra| extra.reply_to.is_some() || extra.correlation_id.is_some()) {
            let asked = Asked { reply_to: extra.reply_to.clone(), correlation_id: extra.correlation_id.clone() };
            self.asked.insert(task, asked);
        }
    }

    /// Notes who asked when a task was created; `state` is the one after the event.
    pub(crate) fn created(&mut self, event: &Event<'_>, state: &State) {
        if event.creates_task() {
            let task = Ordinal(state.next_ordinal().0.saturating_sub(1));
            self.note(task, state.work.tasks.get(task).and_then(|task| task.extra.as_deref()));
        }
    }

    /// Whether anybody is told of the end of this task.
    pub(crate) fn wants(&self, task: Ordinal) -> bool {
        self.topic.is_some() || (!self.asked.is_empty() && self.asked.contains_key(&task))
    }

    /// The messages that tell of an end: one for the topic of all results, one for the requester's own.
    pub(crate) fn ended(&mut self, shard: ShardId, task: Ordinal, end: &Ending<'_>) -> Vec<Outgoing> {
        let asked = self.asked.remove(&task);
        let reply = asked.as_ref().and_then(|asked| asked.reply_to.as_deref());
        // A topic that cannot be written to, or is there no more, would hold up the shard for ever.
        let (allowed, other) = reply.map_or((None, None), |topic| match self.allowed.iter().any(|allowed| allowed == topic) {
            true => (Some(topic), None),
            false => (None, Some(topic)),
        });
        if let Some(topic) = other {
            tracing::warn!(%shard, %task, topic, "an answer is not sent: this engine may not answer on that topic");
        }
        let topics = self.topic.iter().map(String::as_str).chain(allowed);
        let id = TaskId { shard, ordinal: task };
        let correlation_id = asked.as_ref().and_then(|asked| asked.correlation_id.as_deref());
        let partition = |topic: &str| self.own.as_ref().filter(|(own, _)| own == topic).map(|(_, partition)| *partition);
        let message = |topic: &str| Outgoing { partition: partition(topic), ..message(topic, id, correlation_id, end) };
        topics.map(message).collect()
    }
}

fn message(topic: &str, task: TaskId, correlation_id: Option<&str>, end: &Ending<'_>) -> Outgoing {
    let succeeded = end.failure.is_none();
    let json = succeeded.then(|| serde_json::from_slice::<&RawValue>(end.result).ok()).flatten();
    let told = Told {
        task,
        outcome: end.outcome,
        result: json,
        result_hex: (succeeded && json.is_none() && !end.result.is_empty()).then(|| hex(end.result)),
        cause: end.failure.map(|(cause, _, _)| cause),
        class: end.failure.map(|(_, class, _)| class).filter(|class| !class.is_empty()),
        message: end.failure.map(|(_, _, message)| message).filter(|message| !message.is_empty()),
        correlation_id,
    };
    let mut headers = vec![("ergate-task".to_owned(), Some(task.to_string().into_bytes()))];
    headers.extend(correlation_id.map(|id| ("correlation-id".to_owned(), Some(id.as_bytes().to_vec()))));
    // Every field has a JSON form.
    let value = serde_json::to_vec(&told).unwrap_or_default();
    Outgoing { topic: topic.to_owned(), partition: None, key: Some(task.to_string().into_bytes()), headers, value: Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId { shard: ShardId(3), ordinal: Ordinal(4) };

    fn told(end: &Ending<'_>) -> serde_json::Value {
        let message = message("topic", TASK, Some("c"), end);
        serde_json::from_slice(&message.value.expect("it says something")).expect("it is JSON")
    }

    #[test]
    fn a_result_is_told_as_the_json_that_it_is_and_as_digits_otherwise() {
        let end = |result| Ending { outcome: Outcome::Succeeded, result, failure: None };
        let expected =
            serde_json::json!({ "task": "3-4", "outcome": "SUCCEEDED", "result": { "a": [1] }, "correlation_id": "c" });
        assert_eq!(told(&end(br#"{"a":[1]}"#)), expected);
        assert_eq!(told(&end(b"\xff\x00"))["result_hex"], "ff00");
        assert_eq!(told(&end(b"")).get("result"), None);
    }

    /// A task from the days when a topic was allowed held up its shard once the topic was gone.
    #[test]
    fn an_answer_goes_only_where_answers_may_go_now() {
        let end = Ending { outcome: Outcome::Succeeded, result: b"1", failure: None };
        let mut results =
            Results::new(Some("all".to_owned()), Some(("all".to_owned(), 3)), vec!["allowed".to_owned()], &State::default());
        for (topic, told) in [("allowed", vec![("all", Some(3)), ("allowed", None)]), ("gone", vec![("all", Some(3))])] {
            let extra = Extra { reply_to: Some(topic.into()), ..Extra::default() };
            results.note(TASK.ordinal, Some(&extra));
            let sent = results.ended(TASK.shard, TASK.ordinal, &end);
            assert_eq!(sent.iter().map(|message| (message.topic.as_str(), message.partition)).collect::<Vec<_>>(), told);
        }
    }

    #[test]
    fn a_failure_is_told_with_its_cause() {
        let failure = Some((Cause::AttemptsExhausted, "io", "no disk"));
        let said = told(&Ending { outcome: Outcome::Failed, result: b"", failure });
        let expected = serde_json::json!({ "task": "3-4", "outcome": "FAILED", "cause": "attempts_exhausted", "class": "io", "message": "no disk", "correlation_id": "c" });
        assert_eq!(said, expected);
    }
}
