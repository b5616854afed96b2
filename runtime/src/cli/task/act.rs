//! `ergate task cancel|kill|retry`: asks a service to stop a task, to end it now, or to try a dead letter again.

use ergate::events::id::TaskId;
use serde_json::{Value, json};

use crate::cli::remote::{Ask, Path};
use crate::cli::{Exit, Format, Globals, choice, output};

/// Which tasks, and why.
#[derive(clap::Args)]
pub(crate) struct ActArgs {
    /// Their ids, such as `0-42`
    #[arg(value_name = "ID", required = true)]
    ids: Vec<TaskId>,
    /// A sentence for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Asks one task after the other; ends at the first that the service says no to.
pub(crate) fn run(verb: &'static str, args: &ActArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, &format!("task {verb}"))?;
    let body = args.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    for id in &args.ids {
        let path = Path::new("/v1/tasks").below(&id.to_string()).then(&format!("/{verb}"));
        let recorded: Value = remote.parse(&remote.ask_with_patience(&Ask::post(path, &body))?.body)?;
        tell(verb, *id, &recorded, globals.output)?;
    }
    Ok(Exit::Done)
}

fn tell(verb: &str, id: TaskId, recorded: &Value, format: Format) -> anyhow::Result<()> {
    match (format, verb) {
        (Format::Json, _) => output::json(recorded),
        (Format::Table, "cancel") => output::line(&format!("{id} is asked to stop")),
        (Format::Table, "kill") => output::line(&format!("{id} has ended")),
        (Format::Table, _) => {
            let task = recorded["task"].as_str().unwrap_or("another task");
            output::line(&output::escape(&format!("{id} is tried again as {task}")))
        }
    }
}
