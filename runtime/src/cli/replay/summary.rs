//! A state in numbers, for people.

use ergate::events::id::ShardId;
use ergate::kafka::logs::shard_name;
use ergate::look::record::plain;
pub(super) use ergate::look::summary::{PoolSummary, ReplicaSummary, Summary, phase_name, type_name};
use serde_json::Value;

use crate::cli::output;
use crate::cli::table::{self, Table};

/// Prints the summary for people, from its JSON.
///
/// # Errors
/// When standard output is closed or full.
pub(super) fn print(summary: &Value) -> anyhow::Result<()> {
    let text = |name: &str| plain(&summary[name]);
    let rules = &summary["rules"];
    let shard = text("shard").parse().ok().filter(|shard| *shard != ShardId(0)).map(shard_name);
    let waiting = Some(&summary["oldest_waiting"]).filter(|waiting| !waiting.is_null());
    let waiting = waiting
        .map(|oldest| format!("task {} since {} ({} µs)", plain(&oldest["task"]), plain(&oldest["since"]), oldest["waited_us"]));
    table::facts(&[
        ("shard", shard),
        ("position", Some(text("position"))),
        ("time", Some(text("time"))),
        ("epoch", Some(text("epoch"))),
        ("rules", Some(format!("task {}, retry {}, dispatch {}", rules["task"], rules["retry"], rules["dispatch"]))),
        (
            "tasks",
            Some(format!(
                "{} requested, {} live: {} ready, {} running, {} in the backlog",
                text("requested"),
                text("live"),
                text("ready"),
                text("running"),
                text("backlog")
            )),
        ),
        ("ended", Some(counts(&summary["ended"]))),
        ("oldest waiting", waiting),
        ("dead letters", Some(format!("{} ({} bytes)", text("dead_letters"), text("dead_letter_bytes")))),
        ("idempotency keys", Some(text("keys"))),
        ("digest", Some(text("digest"))),
    ])?;
    print_types(&summary["types"])?;
    rows(&summary["pools"], &["POOL", "REPLICAS", "SLOTS EACH", "READY"], &["name", "replicas", "slots", "ready"])?;
    rows(&summary["replicas"], &["REPLICA", "POOL", "PHASE", "SLOTS", "USED"], &["id", "pool", "phase", "slots", "used"])
}

fn print_types(types: &Value) -> anyhow::Result<()> {
    let Some(types) = types.as_object().filter(|types| !types.is_empty()) else { return Ok(()) };
    output::line("")?;
    let mut table = Table::new(&["TYPE", "LIVE TASKS"]);
    for (name, phases) in types {
        table.row([name.clone(), counts(phases)]);
    }
    table.print()
}

/// Objects as the rows of a table, where there are any.
fn rows(objects: &Value, heads: &[&str], names: &[&str]) -> anyhow::Result<()> {
    let Some(objects) = objects.as_array().filter(|objects| !objects.is_empty()) else { return Ok(()) };
    output::line("")?;
    let mut table = Table::new(heads);
    for object in objects {
        table.row(names.iter().map(|name| plain(&object[*name])));
    }
    table.print()
}

/// Counts that are not zero, with their names.
fn counts(counts: &Value) -> String {
    let some = counts.as_object().into_iter().flatten().filter(|(_, count)| count.as_u64() != Some(0));
    let some: Vec<_> = some.map(|(name, count)| format!("{count} {name}")).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}
