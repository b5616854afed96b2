//! `ergate policy conformance`: the policy `hpa` against scenarios that say what Kubernetes does.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ergate::events::scaling::hpa::cases::{self, Difference, SCHEMA, Told};
use serde_json::json;

use super::super::exit::Trouble;
use super::super::{Exit, Format, Globals, output};

/// Largest file: 50 times the largest that anybody has. A larger one is a mistake, and would be read into memory as a whole.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Deepest nesting: the schema needs 9.
const DEPTH_MAX: u32 = 32;

/// Printed below the help of the verb.
const HELP: &str = "The file is JSON of the schema `hpa-cases/1`: docs/autoscaling.md describes it. Exit codes: 0 no scenario differs · 1 some \
differ · 2 the file cannot be read.";

/// Which file.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct ConformanceArgs {
    /// The file of scenarios
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object, as `-o json` does
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ConformanceArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let refused = |reason| Trouble::Usage(format!("cannot use {} as a file of scenarios: {reason}", args.file.display()));
    let file = read(&args.file).and_then(|text| parse(&text)).map_err(refused)?;
    let scenarios = file.scenarios().count();
    let (mut first, mut differing) = (None, Vec::new());
    for (scenario, difference) in file.scenarios().filter_map(|scenario| Some((scenario, file.difference(scenario)?))) {
        differing.push(&scenario.id);
        first.get_or_insert(difference);
    }
    if args.json || globals.output == Format::Json {
        let differ = differing.len();
        output::json(&json!({ "scenarios": scenarios, "differ": differ, "differing": differing, "first": first }))?;
    } else {
        output::line(&format!("{scenarios} scenarios, {} differ", differing.len()))?;
        first.iter().try_for_each(print)?;
    }
    Ok(if differing.is_empty() { Exit::Done } else { Exit::Differs })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    Ok(text)
}

fn parse(text: &[u8]) -> Result<cases::File, String> {
    /// What says whether the rest means anything.
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }

    if depth(text) > DEPTH_MAX {
        return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
    }
    let head: Head = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if head.schema != SCHEMA {
        return Err(format!("its schema is {:?}, and only {SCHEMA:?} is known", head.schema));
    }
    let file: cases::File = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    // A file without a scenario holds, whatever the policy does; nobody asks for that.
    if file.scenarios().next().is_none() {
        return Err("it holds no scenario".to_owned());
    }
    Ok(file)
}

/// How deep objects and lists are nested in each other.
fn depth(text: &[u8]) -> u32 {
    let (mut depth, mut deepest) = (0_u32, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_text,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => depth += 1,
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The whole of a difference, for a person.
fn print(difference: &Difference) -> anyhow::Result<()> {
    let line = |text: String| output::line(&output::escape(&text));
    line(format!("first: scenario {}, step {} (counted from 0)", difference.scenario, difference.step))?;
    if let Some(note) = &difference.note {
        line(format!("  note      {note}"))?;
    }
    line(format!("  expected  {}", told(&difference.expected)))?;
    line(format!("  found     {}", told(&difference.found)))?;
    line(format!("  because   {}", difference.sentence))?;
    line(format!("  seen      {}", serde_json::to_string(&difference.observation)?))
}

fn told(told: &Told) -> String {
    let conditions = told.conditions.iter().map(|(name, (status, reason))| format!("{name}={status}/{reason}"));
    let conditions: Vec<_> = conditions.collect();
    let event = told.event.as_deref().map_or_else(|| "no event".to_owned(), |event| format!("event {event:?}"));
    let error = if told.error { "an error" } else { "no error" };
    format!("{} replicas, {event}, {error}, {}", told.replicas, conditions.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_none_is_refused_with_a_reason() {
        let reason = |text: &str| parse(text.as_bytes()).map(drop).unwrap_err();
        assert!(reason(&"[".repeat(100_000)).contains("deeper than 32"));
        assert!(reason(r#"{"schema": "hpa-cases/2", "cases": 7}"#).contains("hpa-cases/2"));
        assert!(reason(r#"{"schema": "hpa-cases/1"}"#).contains("no scenario"));
        assert!(reason(r#"{"cases": []}"#).contains("schema"));
        assert!(reason("").contains("EOF"));
        assert!(reason(r#"{"schema": "hpa-cases/1", "cases": [{"id": "a"}]}"#).contains("spec"));
    }

    #[test]
    fn brackets_in_texts_are_no_nesting() {
        assert_eq!(depth(br#"{"a": "[[[\"[[", "b": [[]]}"#), 3);
    }
}
