//! What the log says about one task.

use ergate_actors::submission::{EndFailure, TaskEnd};
use ergate_events::event::Event;
use ergate_events::id::Ordinal;
use ergate_events::log::{LogError, LogReader};

/// The end of a task, found by reading on from its request; `None` when it has not ended or is not in the log.
///
/// # Errors
/// [`LogError`].
pub fn end_of(reader: &dyn LogReader, task: Ordinal) -> Result<Option<TaskEnd>, LogError> {
    let Some(from) = reader.seek_task(task)? else { return Ok(None) };
    let mut cursor = reader.cursor(from)?;
    let mut last_failure = (String::new(), String::new());
    while let Some(block) = cursor.next_block()? {
        for envelope in block.records() {
            let envelope = envelope.map_err(|source| LogError::Damaged {
                at: block.header.first_position,
                path: "the log".into(),
                offset: 0,
                source,
            })?;
            if envelope.event.task() != Some(task) {
                continue;
            }
            if let Event::Failed { ref failure, .. } = envelope.event {
                last_failure = (failure.class.to_owned(), failure.message.to_owned());
            }
            if let Some(end) = end(&envelope.event, &last_failure) {
                return Ok(Some(end));
            }
        }
    }
    Ok(None)
}

/// The end that an event is, if it is one.
fn end(event: &Event<'_>, (class, message): &(String, String)) -> Option<TaskEnd> {
    let failed = |cause| Some(Box::new(EndFailure { cause, class: class.clone(), message: message.clone() }));
    let (_, outcome) = event.ends()?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "`Event::ends` lists the events that end a task")]
    Some(match *event {
        Event::Succeeded { result, .. } => TaskEnd { outcome, result: result.into(), failure: None },
        Event::Ended { cause, .. } | Event::DeadLettered { cause, .. } => {
            TaskEnd { outcome, result: Box::default(), failure: failed(cause) }
        }
        _ => return None,
    })
}
