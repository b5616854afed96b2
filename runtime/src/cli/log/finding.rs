//! What is wrong with a log, for people and for programs.

use std::path::PathBuf;

use ergate::events::audit::Finding;
use ergate::events::id::{Position, ShardId};
use ergate::events::log::LogError;
use ergate::events::log::directory::Inspection;
use ergate::kafka::logs::shard_name;
use ergate::store::RecoverError;
use serde_json::{Map, Value};

use crate::cli::{Exit, Format, output};

/// Where and what.
#[derive(Default)]
struct Described {
    kind: &'static str,
    at: Option<Position>,
    file: Option<PathBuf>,
    /// Both sides of a decision.
    recorded: Option<String>,
    expected: Option<String>,
}

/// What is known of where a finding lies beside what it says.
#[derive(Clone, Copy, Default)]
pub(super) struct Around<'a> {
    /// The directory.
    pub(super) inspection: Option<&'a Inspection>,
    /// Which of several shards.
    pub(super) shard: Option<ShardId>,
}

/// Prints a finding; anything that is none stays an error.
///
/// # Errors
/// The error itself when it says nothing about what the log holds, or when the output is closed.
pub(super) fn report(error: anyhow::Error, around: Around<'_>, format: Format) -> anyhow::Result<Exit> {
    let Some(mut described) = describe(&error) else { return Err(error) };
    if described.file.is_none() {
        described.file = described.at.and_then(|at| around.inspection?.file_of(at).map(PathBuf::from));
    }
    let shard = around.shard.map(shard_name);
    let text = shard.as_ref().map_or_else(|| format!("{error:#}"), |shard| format!("shard {shard}: {error:#}"));
    match format {
        Format::Json => output::json(&json(&described, shard, &text))?,
        Format::Table => {
            let file = described.file.as_ref().map(|file| file.display().to_string()).filter(|file| !text.contains(file));
            let place = file.map_or_else(String::new, |file| format!(" (in {file})"));
            output::error(&output::escape(&format!("{text}{place}")));
        }
    }
    Ok(Exit::Damaged)
}

fn json(described: &Described, shard: Option<String>, text: &str) -> Value {
    let mut finding = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| finding.insert(name.to_owned(), value));
    put("kind", Some(described.kind.into()));
    put("shard", shard.map(Value::from));
    put("position", described.at.map(|at| at.0.into()));
    put("file", described.file.as_ref().map(|file| file.display().to_string().into()));
    put("recorded", described.recorded.clone().map(Value::from));
    put("expected", described.expected.clone().map(Value::from));
    put("message", Some(text.into()));
    serde_json::json!({ "ok": false, "finding": finding })
}

fn describe(error: &anyhow::Error) -> Option<Described> {
    if let Some(finding) = error.downcast_ref::<Finding>() {
        return Some(of_audit(finding));
    }
    if let Some(error) = error.downcast_ref::<LogError>() {
        return of_log(error);
    }
    match error.downcast_ref::<RecoverError>()? {
        RecoverError::Log(error) => of_log(error),
        RecoverError::Audit(finding) => Some(of_audit(finding)),
        RecoverError::NoBase { first, .. } => Some(Described { kind: "no_base", at: Some(*first), ..Described::default() }),
    }
}

fn of_audit(finding: &Finding) -> Described {
    let plain = |kind, at: Position| Described { kind, at: Some(at), ..Described::default() };
    match finding {
        Finding::Block { at, .. } => plain("block", *at),
        Finding::Chain { at, .. } => plain("chain", *at),
        Finding::Sequence { at, .. } => plain("sequence", *at),
        Finding::Time { at, .. } => plain("time", *at),
        Finding::UnknownRules { at, .. } => plain("unknown_rules", *at),
        Finding::Refused { at, recorded, .. } => Described { recorded: Some(recorded.clone()), ..plain("refused", *at) },
        Finding::Decision { at, recorded, expected, .. } => {
            Described { recorded: Some(recorded.clone()), expected: Some(expected.clone()), ..plain("decision", *at) }
        }
    }
}

fn of_log(error: &LogError) -> Option<Described> {
    let plain = |kind, at: Position| Described { kind, at: Some(at), ..Described::default() };
    let file = |kind, path: &PathBuf| Described { kind, file: Some(path.clone()), ..Described::default() };
    Some(match error {
        LogError::Damaged { at, path, .. } | LogError::Unusable { at, path, .. } => {
            Described { at: Some(*at), ..file("damaged", path) }
        }
        LogError::Chain { at, .. } => plain("chain", *at),
        LogError::NoBlock { at, .. } => plain("block", *at),
        LogError::Contradiction { at, .. } => plain("contradiction", *at),
        LogError::Missing { found, .. } => plain("missing", *found),
        LogError::Gap { found, .. } => plain("gap", *found),
        LogError::Anchor { path, .. } => file("anchor", path),
        LogError::Foreign { path, .. } => file("foreign", path),
        LogError::NotFound { .. }
        | LogError::Fenced { .. }
        | LogError::Kafka { .. }
        | LogError::NoTopic { .. }
        | LogError::Locked { .. }
        | LogError::OtherEngine { .. }
        | LogError::Io { .. }
        | LogError::Full { .. }
        | LogError::Poisoned { .. }
        | LogError::FormatTooNew { .. }
        | LogError::NewerBlock { .. }
        | LogError::Gone { .. }
        | LogError::Beyond { .. } => return None,
    })
}
