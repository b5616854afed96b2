//! What changed between two moments.

use std::collections::BTreeMap;

use ergate::events::id::{Ordinal, ShardId, TaskId};
use ergate::events::state::State;
use ergate::kafka::logs::shard_name;
use serde_json::{Value, json};

use super::summary::{PoolSummary, ReplicaSummary, Summary, phase_name};
use crate::cli::table::Table;
use crate::cli::{Format, output};

/// What became of one task.
struct Change {
    task: Ordinal,
    from: &'static str,
    to: &'static str,
}

/// Prints the difference between two states of one log.
///
/// # Errors
/// When standard output is closed or full.
pub(super) fn print(shard: ShardId, before: &State, after: &State, tasks: bool, format: Format) -> anyhow::Result<()> {
    let changes = changes(before, after);
    let (a, b) = (Summary::of(shard, before), Summary::of(shard, after));
    match format {
        Format::Json => print_json(&a, &b, &changes, tasks),
        Format::Table => print_table(&a, &b, &changes, tasks),
    }
}

/// Tasks that were created, ended or went to another phase; those that came and went in between are among the counts alone.
fn changes(before: &State, after: &State) -> Vec<Change> {
    let phase = |state: &State, task| state.work.tasks.get(task).map(|task| phase_name(task.phase));
    let gone = |task| if after.work.dead.contains_key(&task) { "dead" } else { "ended" };
    let old = before.work.tasks.iter().map(|(task, known, _)| Change {
        task,
        from: phase_name(known.phase),
        to: phase(after, task).unwrap_or_else(|| gone(task)),
    });
    let new = after.work.tasks.iter().filter(|(task, ..)| *task >= before.next_ordinal());
    let new = new.map(|(task, known, _)| Change { task, from: "new", to: phase_name(known.phase) });
    old.chain(new).filter(|change| change.from != change.to).collect()
}

/// How many tasks went from where to where.
fn moves(changes: &[Change]) -> BTreeMap<String, u64> {
    let mut moves = BTreeMap::new();
    for Change { from, to, .. } in changes {
        *moves.entry(format!("{from} → {to}")).or_default() += 1;
    }
    moves
}

/// A number with its name, before and after.
fn numbers(a: &Summary, b: &Summary) -> Vec<(String, u64, u64)> {
    let plain = [
        ("requested", a.requested, b.requested),
        ("live", a.live, b.live),
        ("ready", a.ready, b.ready),
        ("running", a.running, b.running),
        ("backlog", a.backlog, b.backlog),
        ("dead_letters", a.dead_letters, b.dead_letters),
        ("idempotency_keys", a.keys, b.keys),
    ];
    let plain = plain.into_iter().map(|(name, a, b)| (name.to_owned(), a, b));
    let ended = b
        .ended
        .iter()
        .map(|(name, b)| (format!("ended_{}", name.to_ascii_lowercase()), a.ended.get(name).copied().unwrap_or(0), *b));
    plain.chain(ended).filter(|(_, a, b)| a != b).collect()
}

/// Pools and replicas that are not what they were, as one line each. How busy a replica is changes all the time and is not told.
fn fleet(a: &Summary, b: &Summary) -> Vec<(String, String, String)> {
    let pool =
        |pool: &PoolSummary| (format!("pool {}", pool.name), format!("{} replicas of {} slots", pool.replicas, pool.slots));
    let replica =
        |replica: &ReplicaSummary| (format!("replica {}", replica.id), format!("{} in {}", replica.phase, replica.pool));
    let list = |summary: &Summary| -> BTreeMap<String, String> {
        summary.pools.iter().map(pool).chain(summary.replicas.iter().map(replica)).collect()
    };
    let (old, new) = (list(a), list(b));
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let side = |list: &BTreeMap<String, String>, name| list.get(name).cloned().unwrap_or_else(|| "-".to_owned());
    let rows = names.into_iter().map(|name| (name.clone(), side(&old, name), side(&new, name)));
    rows.filter(|(_, a, b)| a != b).collect()
}

fn print_json(a: &Summary, b: &Summary, changes: &[Change], tasks: bool) -> anyhow::Result<()> {
    let end = |summary: &Summary| json!({ "shard": summary.shard, "position": summary.position, "time": summary.time, "digest": summary.digest });
    let pair = |(name, a, b): (String, Value, Value)| (name, json!({ "from": a, "to": b }));
    let numbers: serde_json::Map<_, _> = numbers(a, b).into_iter().map(|(name, a, b)| pair((name, a.into(), b.into()))).collect();
    let fleet: serde_json::Map<_, _> = fleet(a, b).into_iter().map(|(name, a, b)| pair((name, a.into(), b.into()))).collect();
    output::json(&json!({ "from": end(a), "to": end(b), "counts": numbers, "moves": moves(changes), "fleet": fleet }))?;
    let shown = changes.iter().filter(|_| tasks);
    shown
        .map(|change| json!({ "task": TaskId { shard: b.shard, ordinal: change.task }, "from": change.from, "to": change.to }))
        .try_for_each(|row| output::json(&row))
}

fn print_table(a: &Summary, b: &Summary, changes: &[Change], tasks: bool) -> anyhow::Result<()> {
    let shard = if b.shard == ShardId(0) { String::new() } else { format!("shard {}: ", shard_name(b.shard)) };
    output::line(&format!("{shard}from position {} ({}) to position {} ({})", a.position, a.time, b.position, b.time))?;
    let (numbers, fleet, moves) = (numbers(a, b), fleet(a, b), moves(changes));
    if numbers.is_empty() && fleet.is_empty() && moves.is_empty() {
        return output::line("nothing changed");
    }
    output::line("")?;
    let mut table = Table::new(&["WHAT", "FROM", "TO", "CHANGE"]);
    for (name, a, b) in numbers {
        let change = i128::from(b) - i128::from(a);
        table.row([name.replace('_', " "), a.to_string(), b.to_string(), format!("{change:+}")]);
    }
    for (name, a, b) in fleet {
        table.row([name, a, b, String::new()]);
    }
    for (name, count) in moves {
        table.row([format!("tasks {name}"), String::new(), String::new(), count.to_string()]);
    }
    table.print()?;
    if !tasks || changes.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let mut table = Table::new(&["TASK", "FROM", "TO"]);
    for Change { task, from, to } in changes {
        table.row([TaskId { shard: b.shard, ordinal: *task }.to_string(), (*from).to_owned(), (*to).to_owned()]);
    }
    table.print()
}
