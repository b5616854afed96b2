//! `ergate task result`: what a task gave, once it has ended.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate::events::id::TaskId;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::cli::embedded::parse_span;
use crate::cli::remote::{Ask, Path, Remote};
use crate::cli::{Exit, Format, Globals, choice, output};

/// Longest wait of one request, as the service has it; a longer one takes several.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Which task.
#[derive(clap::Args)]
pub(crate) struct ResultArgs {
    /// Its id, such as `0-42`
    id: TaskId,
    /// Wait for its end for at most this span, such as `10m`
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = parse_span)]
    wait: Duration,
}

pub(crate) fn run(args: &ResultArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, "task result")?;
    wait_for(&remote, &args.id.to_string(), args.wait, globals)
}

/// Waits for the end of a task and prints its result, as `ergate submit` does.
pub(crate) fn wait_for(remote: &Remote, id: &str, wait: Duration, globals: &Globals) -> anyhow::Result<Exit> {
    let started = Instant::now();
    loop {
        let left = wait.saturating_sub(started.elapsed()).min(WAIT_MAX);
        let path = Path::new("/v1/tasks").below(id).then("/result").with("wait", Some(format!("{}ms", left.as_millis())));
        match remote.ask(&Ask::get(path).waiting(left)) {
            Ok(answer) if answer.status == 202 && started.elapsed() >= wait => {
                anyhow::bail!("task {id} has not ended yet; wait for it with `ergate task result {id} --wait 10m`");
            }
            // A service that stops answers early; asking again at once would be asking for nothing else.
            Ok(answer) if answer.status == 202 => std::thread::sleep(Duration::from_millis(50)),
            Ok(answer) => return succeeded(id, &answer.body, globals),
            Err(error) => match error.problem().filter(|problem| problem.kind == "unsuccessful") {
                Some(problem) => return unsuccessful(id, &problem.document, globals),
                None => return Err(error.into()),
            },
        }
    }
}

fn succeeded(id: &str, body: &[u8], globals: &Globals) -> anyhow::Result<Exit> {
    let result: Option<&RawValue> = serde_json::from_slice(body).ok();
    match (globals.output, result) {
        (Format::Json, Some(result)) => output::json(&Ended {
            id,
            outcome: "SUCCEEDED",
            result: Some(result),
            result_text: None,
            result_base64: None,
            failure: None,
        })?,
        (Format::Json, None) => {
            let text = std::str::from_utf8(body).ok();
            let result_base64 = text.is_none().then(|| STANDARD.encode(body));
            let ended = Ended { id, outcome: "SUCCEEDED", result: None, result_text: text, result_base64, failure: None };
            output::json(&ended)?;
        }
        (Format::Table, _) if output::is_raw(body) => output::bytes(body)?,
        (Format::Table, _) => {
            let text = output::escape(&String::from_utf8_lossy(body));
            // Commands end their lines themselves.
            output::line(text.strip_suffix('\n').unwrap_or(&text))?;
        }
    }
    Ok(Exit::Done)
}

fn unsuccessful(id: &str, problem: &Map<String, Value>, globals: &Globals) -> anyhow::Result<Exit> {
    let (failure, outcome) = (problem.get("failure"), problem.get("outcome").and_then(Value::as_str).unwrap_or("FAILED"));
    match globals.output {
        Format::Json => output::json(&Ended { id, outcome, result: None, result_text: None, result_base64: None, failure })?,
        Format::Table => {
            let text =
                |name: &str| failure.and_then(|failure| failure.get(name)).map(ergate::look::record::plain).unwrap_or_default();
            let why = if text("class").is_empty() {
                text("cause")
            } else {
                format!("{}: {} ({})", text("class"), text("message"), text("cause"))
            };
            output::error(&output::escape(&format!("task {id} {outcome}: {why}")));
        }
    }
    Ok(Exit::Unsuccessful)
}

/// How a task ended, in the form in which `ergate submit -o json` prints it.
#[derive(serde::Serialize)]
struct Ended<'a> {
    id: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a Value>,
}
