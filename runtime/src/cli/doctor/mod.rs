//! `ergate doctor`: what this machine and this data directory are fit for.

mod directory;
#[cfg(feature = "gpu")]
mod gpu;
mod machine;

use serde::Serialize;

use super::table::Table;
use super::{Exit, Format, Globals, config, output};

/// Nothing to choose yet.
#[derive(clap::Args)]
pub(crate) struct DoctorArgs {}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Check {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Check {
        Check { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    pub(super) fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { check, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { check, verdict: Verdict::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

pub(crate) fn run(_: &DoctorArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let config = config::settings(globals)?;
    let (mut checks, last_time) = directory::checks(&config.log);
    checks.extend(machine::checks(last_time));
    #[cfg(feature = "gpu")]
    checks.extend(gpu::checks());
    report(&checks, globals)
}

/// Prints the checks.
///
/// # Errors
/// When one of them failed.
pub(super) fn report(checks: &[Check], globals: &Globals) -> anyhow::Result<Exit> {
    match globals.output {
        Format::Json => checks.iter().try_for_each(output::json)?,
        Format::Table => print(checks)?,
    }
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    if failed > 0 {
        anyhow::bail!("{failed} of {} checks failed; the lines marked FAIL say what to do", checks.len());
    }
    Ok(Exit::Done)
}

fn print(checks: &[Check]) -> anyhow::Result<()> {
    let mut table = Table::new(&["", "CHECK", "FOUND"]);
    for Check { check, verdict, found, advice } in checks {
        let mark = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        let advice = advice.as_ref().map_or_else(String::new, |advice| format!("; {advice}"));
        table.row([mark.to_owned(), (*check).to_owned(), format!("{found}{advice}")]);
    }
    table.print()
}

/// Bytes in a unit that people read.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let unit = UNITS.iter().find(|(_, shift)| count >> shift > 0);
    unit.map_or_else(|| format!("{count} B"), |(name, shift)| format!("{:.1} {name}", count as f64 / (1_u64 << shift) as f64))
}
