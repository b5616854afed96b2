//! `ergate submit` to a service: it runs the task, and the command ends once the task is durable there.

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::answers::Line;
use super::{SubmitArgs, Wishes};
use crate::cli::exit::Trouble;
use crate::cli::remote::{Answer, Ask, Path, Remote};
use crate::cli::task::result;
use crate::cli::{Exit, Format, Globals, output};

/// Submits what was asked for.
pub(super) fn run(remote: &Remote, args: &SubmitArgs, payload: Option<&RawValue>, globals: &Globals) -> anyhow::Result<Exit> {
    refuse_local(args)?;
    if let Some(path) = &args.ndjson {
        return super::stream::run(remote, path, globals);
    }
    let request = request(args, payload)?;
    let ask = Ask::post(Path::new("/v1/tasks"), &request);
    let Answer { body, .. } =
        remote.ask_with_patience(&ask).map_err(|error| match error.problem().map(|problem| problem.status) {
            // What the service refuses of a request is input, as it is offline.
            Some(400 | 409 | 413 | 415 | 422) => Trouble::Input(error.to_string()).into(),
            Some(_) | None => anyhow::Error::from(error),
        })?;
    let taken: Value = remote.parse(&body)?;
    let id = taken["id"].as_str().ok_or_else(|| remote.foreign("no id".to_owned()))?;
    match args.wait {
        Some(wait) => result::wait_for(remote, id, wait, globals),
        None => told(id, taken["duplicate"] == true, globals),
    }
}

/// Flags that say how this process runs tasks mean nothing where another one does.
fn refuse_local(args: &SubmitArgs) -> Result<(), Trouble> {
    let flags = [("--resume", args.resume), ("--durability", args.durability.is_some()), ("--drain", args.drain.is_some())];
    match flags.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => {
            Err(Trouble::Usage(format!("{flag} is for a data directory, where this command runs the tasks; leave it out")))
        }
        None => Ok(()),
    }
}

fn told(id: &str, duplicate: bool, globals: &Globals) -> anyhow::Result<Exit> {
    match globals.output {
        Format::Json => output::json(&Line { id: Some(id.to_owned()), duplicate, ..Line::default() })?,
        Format::Table => output::line(&output::escape(id))?,
    }
    Ok(Exit::Done)
}

/// The request as the service reads it.
fn request(args: &SubmitArgs, payload: Option<&RawValue>) -> anyhow::Result<Value> {
    let Wishes { key, priority, delay, not_before, attempts, timeout, labels, after, on_failure } = &args.wishes;
    let span = |span: &Duration| format!("{}us", span.as_micros());
    let mut request = Map::new();
    let mut put = |name: &str, value: Option<Value>| request.extend(value.map(|value| (name.to_owned(), value)));
    put("type", args.task_type.as_deref().map(Value::from));
    put("payload", payload.map(|payload| serde_json::from_str(payload.get())).transpose()?);
    put("key", key.as_deref().map(Value::from));
    put("priority", priority.map(Value::from));
    put("delay", delay.as_ref().map(|delay| span(delay).into()));
    put("not_before", not_before.map(|at| at.rfc3339().into()));
    put("retry", attempts.map(|attempts| json!({ "attempts": attempts })));
    put("timeouts", timeout.as_ref().map(|timeout| json!({ "start_to_close": span(timeout) })));
    let named: Map<_, _> = labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    put("labels", (!named.is_empty()).then(|| named.into()));
    put("after", (!after.is_empty()).then(|| json!(after)));
    put("on_failure", on_failure.map(|policy| policy.name().into()));
    Ok(request.into())
}
