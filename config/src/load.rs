//! Reads a file and the environment over the defaults.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, Origin};
use crate::kafka;
use crate::keys::Config;
use crate::task;
use crate::value::Raw;

/// The file that is read when nobody names one and it is there.
pub const FILE_DEFAULT: &str = "ergate.toml";
/// Variables of the environment that are ours: this, and `__` somewhere behind it.
const PREFIX: &str = "ERGATE_";
/// Largest configuration file; a larger one is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The defaults, overridden by the file (`./ergate.toml` where there is one and none is named) and then by the environment.
///
/// # Errors
/// [`ConfigError`] for a file that cannot be read, for what is not TOML, for unknown keys and for values of the wrong shape.
pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let default = Path::new(FILE_DEFAULT);
    let path = file.or_else(|| default.exists().then_some(default));
    if let Some(path) = path {
        read_file(&mut config, path)?;
    }
    read_environment(&mut config, env)?;
    config.check()?;
    Ok(config)
}

fn read_file(config: &mut Config, path: &Path) -> Result<(), ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
        return Err(read(std::io::ErrorKind::FileTooLarge.into()));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    read_text(config, path, &text)
}

/// Takes over what a file says.
///
/// # Errors
/// As [`load`].
pub(crate) fn read_text(config: &mut Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    read_table(config, path, text, "", table.get_ref())
}

fn read_table(config: &mut Config, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
    for (key, value) in table {
        let line = line_of(text, key.span().start);
        // Names of task types may have dots of their own.
        let name = if prefix == "task." { task::quoted(key.get_ref()) } else { key.get_ref().to_string() };
        let full = format!("{prefix}{name}");
        if prefix == "task." && value.get_ref().is_table() {
            config.begin_task(&full, Origin::File { path: path.to_owned(), line })?;
        }
        // Deeper than any key of ours a table is a value of the wrong shape. Names of options have any number of dots, quoted or not.
        let is_option = full.starts_with(kafka::OPTIONS) || full.starts_with("task.") || full.starts_with("pool.");
        let within = |inner: &DeTable<'_>| {
            !inner.is_empty() && if is_option { reference(inner).is_none() } else { full.matches('.').count() < 2 }
        };
        match value.get_ref() {
            DeValue::Table(inner) if within(inner) => read_table(config, path, text, &format!("{full}."), inner)?,
            DeValue::Table(inner) if inner.is_empty() && is_section(&full) => {}
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => config.set(&full, &raw(value, text), Origin::File { path: path.to_owned(), line })?,
        }
    }
    Ok(())
}

/// Whether an empty section of this name is just that.
fn is_section(name: &str) -> bool {
    ["log", "limits", "shutdown", "http", "client", "kafka", "kafka.options", "pool", "limit", "schedule", "source", "task"]
        .contains(&name)
        || name.starts_with("pool.")
        || name.starts_with("limit.")
        || name.starts_with("task.")
}

fn raw(value: &Spanned<DeValue<'_>>, text: &str) -> Raw {
    let source = text.get(value.span()).unwrap_or_default().to_owned();
    match value.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => {
            u64::from_str_radix(integer.as_str(), integer.radix()).map_or(Raw::Other("number", source), Raw::Number)
        }
        DeValue::Float(_) => Raw::Other("fraction", source),
        DeValue::Boolean(_) => Raw::Other("boolean", source),
        DeValue::Datetime(_) => Raw::Other("date", source),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item, text)).collect()),
        DeValue::Table(table) => reference(table).unwrap_or(Raw::Other("table", source)),
    }
}

/// A list as TOML has it, from where only texts come.
pub(crate) fn list(text: &str) -> Option<Raw> {
    let text = format!("list = {text}");
    let table = DeTable::parse(&text).ok()?;
    let value = table.get_ref().iter().find(|(key, _)| key.get_ref() == "list").filter(|_| table.get_ref().len() == 1)?.1;
    Some(raw(value, &text)).filter(|found| matches!(found, Raw::List(_)))
}

/// `{ file = "…" }` or `{ env = "…" }`.
fn reference(table: &DeTable<'_>) -> Option<Raw> {
    let (key, value) = table.iter().next().filter(|_| table.len() == 1)?;
    let kind = ["file", "env"].into_iter().find(|kind| key.get_ref() == kind)?;
    Some(Raw::Reference(kind, value.get_ref().as_str()?.to_owned()))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn read_environment(config: &mut Config, env: impl Iterator<Item = (String, String)>) -> Result<(), ConfigError> {
    let ours = env.filter(|(name, _)| name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains("__")));
    // Sorted, so that of several mistakes the same one is named every time.
    let ours: std::collections::BTreeMap<String, String> = ours.collect();
    for (name, value) in ours {
        let key = name[PREFIX.len()..].replace("__", ".").to_ascii_lowercase();
        config.set(&key, &Raw::Word(value), Origin::Environment { name })?;
    }
    Ok(())
}
