//! What an import shows and writes: sections of pools, a file for each policy, and notes.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use ergate::events::resources::cores;
use serde_json::{Value, json};

use super::From;
use super::plan::{Note, Outcome, Pool};
use crate::cli::exit::Trouble;
use crate::cli::{Format, output};

/// The file of all pools.
const POOLS_FILE: &str = "pools.toml";
/// How wide comments are.
const COMMENT_CHARS: usize = 110;

/// Prints everything as the files that `--into` would write, one after the other.
pub(super) fn print(outcome: &Outcome) -> anyhow::Result<()> {
    for (name, text) in files(outcome) {
        output::line(&format!("# ==> {name} <=="))?;
        output::line(&output::escape(&text))?;
    }
    passed_over(outcome).iter().try_for_each(|line| output::line(&format!("# {}", one_line(line))))
}

/// Prints everything for programs.
pub(super) fn json(outcome: &Outcome, written: &[String]) -> anyhow::Result<()> {
    let names = policy_files(outcome);
    let pool = |(pool, file): (&Pool, &String)| {
        let mut value = serde_json::to_value(pool)?;
        if let Value::Object(fields) = &mut value {
            fields.insert("policy_file".to_owned(), json!(file));
            fields.insert("policy_toml".to_owned(), json!(ergate_config::policy_text(&pool.policy)));
            fields.insert("pool_toml".to_owned(), json!(section(pool, file)));
        }
        Ok::<_, serde_json::Error>(value)
    };
    let pools: Vec<Value> = outcome.pools.iter().zip(&names).map(pool).collect::<Result<_, _>>()?;
    output::json(&json!({ "pools": pools, "passed_over": outcome.passed_over, "written": written }))
}

/// Writes a file for each policy and one for the pools; nothing at all where one is there already and `force` is not given.
pub(super) fn write(outcome: &Outcome, dir: &Path, force: bool, format: Format) -> anyhow::Result<()> {
    let unwritable = |path: &Path, source| Trouble::Unwritable { path: path.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(|source| unwritable(dir, source))?;
    let files = files(outcome);
    if !force && let Some((name, _)) = files.iter().find(|(name, _)| dir.join(name).symlink_metadata().is_ok()) {
        let path = dir.join(name).display().to_string();
        return Err(Trouble::Usage(format!(
            "{path} is there already; nothing was written: move it, or overwrite it with --force"
        ))
        .into());
    }
    let mut written = Vec::new();
    for (name, text) in &files {
        let path = dir.join(name);
        let mut options = OpenOptions::new();
        options.write(true);
        // What somebody made in between is not overwritten either.
        if force {
            options.create(true).truncate(true)
        } else {
            options.create_new(true)
        };
        let file = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        file.map_err(|source| unwritable(&path, source))?;
        written.push(path.display().to_string());
    }
    if format == Format::Json {
        return json(outcome, &written);
    }
    written.iter().try_for_each(|path| output::line(&output::escape(&format!("wrote {path}"))))?;
    for pool in &outcome.pools {
        output::line(&format!("pool {}, {} to {} replicas, of {}", pool.name, pool.min, pool.max, one_line(&pool.made_of)))?;
        pool.notes.iter().try_for_each(|note| output::line(&format!("  {}", one_line(&sentence(note)))))?;
    }
    passed_over(outcome).iter().try_for_each(|line| output::line(&one_line(line)))
}

/// Says that there was nothing, and what there was.
pub(super) fn nothing(from: From, outcome: &Outcome) -> String {
    let wanted = match from {
        From::Hpa => "HorizontalPodAutoscaler",
        From::Keda => "ScaledObject or ScaledJob",
        From::Aws => "scaling policy",
    };
    let objects = || outcome.passed_over.iter();
    let found: Vec<_> = objects().take(5).map(|it| it.object.as_str()).collect();
    let found = if found.is_empty() { String::new() } else { format!("; found {}", found.join(", ")) };
    let hint = objects().find_map(|it| it.hint.as_deref()).map(|hint| format!("; {hint}")).unwrap_or_default();
    format!("there is no {wanted} in the files{found}{hint}")
}

/// The files with their names.
pub(super) fn files(outcome: &Outcome) -> Vec<(String, String)> {
    let names = policy_files(outcome);
    let mut pools = comment("Sections for ergate.toml, beside which the files of the policies belong.");
    let mut files = Vec::new();
    for (pool, name) in outcome.pools.iter().zip(names) {
        pools.push('\n');
        pools.push_str(&section(pool, &name));
        let mut text = comment(&format!("{}, for a pool of {} to {} replicas.", pool.made_of, pool.min, pool.max));
        for note in &pool.notes {
            text.push_str("#\n");
            text.push_str(&comment(&sentence(note)));
        }
        text.push_str(&ergate_config::policy_text(&pool.policy));
        files.push((name, text));
    }
    files.insert(0, (POOLS_FILE.to_owned(), pools));
    files
}

/// The name of each policy's file: that of its pool, unless that is the name of another file or of a policy that comes with Ergate.
fn policy_files(outcome: &Outcome) -> Vec<String> {
    let mut taken: BTreeSet<String> = ["pools", "ergate"].map(str::to_owned).into();
    let mut name = |pool: &Pool| {
        let mut name = pool.name.clone();
        while !taken.insert(name.to_ascii_lowercase()) {
            name.push_str("-policy");
        }
        format!("{name}.toml")
    };
    outcome.pools.iter().map(&mut name).collect()
}

/// `[pool.NAME]`.
fn section(pool: &Pool, file: &str) -> String {
    let replicas = format!("replicas = {{ min = {}, max = {} }}", pool.min, pool.max);
    let slots = "slots = 1 # how many tasks a replica does at once; targets are for each replica";
    let cpu = pool.asked.cpu_milli.map(|milli| format!("cpu = {}\n", cores(milli)));
    let memory = pool.asked.memory_bytes.map(|bytes| format!("memory = \"{}\"\n", ergate_config::show_size(bytes)));
    let asked: String = cpu.into_iter().chain(memory).collect();
    format!("{}[pool.{}]\n{replicas}\n{slots}\n{asked}policy = \"{file}\"\n", comment(&pool.made_of), pool.name)
}

fn sentence(note: &Note) -> String {
    let line = if note.line > 0 { format!("line {}: ", note.line) } else { String::new() };
    let instead = if note.instead.is_empty() { String::new() } else { format!(" Instead: {}.", note.instead) };
    let field = if note.field.is_empty() { String::new() } else { format!("{}: ", note.field) };
    format!("{line}{field}{}, because {}.{instead}", note.what, note.why)
}

fn passed_over(outcome: &Outcome) -> Vec<String> {
    let line = |it: &super::PassedOver| {
        let hint = it.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("passed over: {} ({}, line {}){hint}", it.object, it.file, it.line)
    };
    outcome.passed_over.iter().map(line).collect()
}

/// Text of others on one line, without anything that a terminal or TOML would take for more than text.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A comment, in lines of a readable length.
fn comment(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::from("#"));
    for word in one_line(text).split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COMMENT_CHARS && line.len() > 1 {
            lines.push_str(&line);
            lines.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    lines + &line + "\n"
}
