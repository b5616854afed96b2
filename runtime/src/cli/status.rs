//! `ergate status`: which service that is, and whether it gets on.

use serde_json::{Value, json};

use super::choice;
use super::remote::{Path, RemoteError};
use super::{Exit, Format, Globals, output, table};

/// Asks a service for its version and whether it takes work; ends with an error where it does not.
pub(crate) fn run(globals: &Globals) -> anyhow::Result<Exit> {
    let remote = choice::service(globals, "status")?;
    let version: Value = remote.get(Path::new("/version"))?;
    let ready = remote.get::<Value>(Path::new("/readyz"));
    let reason = match &ready {
        Err(RemoteError::Problem(problem)) => Some(problem.detail.clone()),
        Ok(_) | Err(_) => None,
    };
    let text = |name: &str| version[name].as_str().map(str::to_owned);
    match globals.output {
        Format::Json => output::json(&json!({
            "url": remote.url().to_string(), "version": version["version"], "tokens": version["tokens"], "ready": ready.is_ok(), "reason": reason,
        }))?,
        Format::Table => table::facts(&[
            ("url", Some(remote.url().to_string())),
            ("version", text("version")),
            ("tokens", version["tokens"].as_bool().map(|asked| if asked { "asked for" } else { "not asked for" }.to_owned())),
            ("ready", Some(if ready.is_ok() { "yes" } else { "no" }.to_owned())),
        ])?,
    }
    ready?;
    Ok(Exit::Done)
}
