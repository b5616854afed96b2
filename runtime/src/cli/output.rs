//! What people and programs see: standard output for answers, standard error for everything else. Control characters never reach a terminal.

use std::env::VarError;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub(crate) use ergate::look::text::escape;

use super::Globals;
use super::exit::Trouble;

/// Prepares the process: a panic prints one line and no backtrace unless asked.
pub(crate) fn init() {
    std::panic::set_hook(Box::new(|info| {
        // Damaged files make sled panic; the log's error says which.
        if ergate::events::log::sled::is_inside() {
            return;
        }
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("a value that is not a text");
        tracing::error!(place, text = escape(text), "panic");
    }));
}

/// Whether every line on standard error is a JSON object.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Sends log lines to standard error, for people or as JSON: `ERGATE_LOG_FORMAT` says which, and without it a service that has no terminal
/// there writes JSON. `ERGATE_LOG` filters them.
///
/// # Errors
/// [`Trouble::Usage`] for a format that there is not.
pub(crate) fn start_logging(globals: &Globals, is_service: bool) -> Result<(), Trouble> {
    let is_terminal = io::stderr().is_terminal();
    let is_json = match std::env::var("ERGATE_LOG_FORMAT").as_deref() {
        Ok("json") => true,
        Ok("pretty") => false,
        Ok("auto" | "") | Err(VarError::NotPresent) => is_service && !is_terminal,
        Ok(_) | Err(VarError::NotUnicode(_)) => {
            return Err(Trouble::Usage("ERGATE_LOG_FORMAT is one of auto, pretty and json".to_owned()));
        }
    };
    let default = if globals.quiet { "error" } else { "warn" };
    let filter = EnvFilter::try_from_env("ERGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(is_terminal);
    let lines = if is_json { lines.json().boxed() } else { lines.with_target(false).boxed() };
    let registry = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    let registry = registry.with(if is_service { super::otlp::layer()? } else { None });
    registry.init();
    IS_JSON.store(is_json, Ordering::Relaxed);
    if is_service && cfg!(not(feature = "otlp")) && std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("OTEL_EXPORTER_OTLP_ENDPOINT is set, and this build sends no spans; build it with `--features otlp`");
    }
    Ok(())
}

/// Prints one error line.
pub(crate) fn error(text: &str) {
    say("ERROR", "ergate: ", text);
}

/// Prints one line about what is going on.
pub(crate) fn note(text: &str) {
    say("INFO", "", text);
}

/// Prints a line whatever is filtered. Nobody is left to tell when this fails, and the work does not depend on it.
fn say(level: &str, prefix: &str, text: &str) {
    if IS_JSON.load(Ordering::Relaxed) {
        // As the lines that are logged are.
        let (timestamp, fields) = (jiff::Timestamp::now().to_string(), serde_json::json!({ "message": text }));
        let line = serde_json::json!({ "timestamp": timestamp, "level": level, "fields": fields, "target": "ergate" });
        let _ = writeln!(io::stderr(), "{line}");
    } else {
        let _ = writeln!(io::stderr(), "{}{prefix}{text}", fresh_line());
    }
}

/// What takes a half-drawn progress bar off its line; the bar draws itself again on the next one.
fn fresh_line() -> &'static str {
    if io::stderr().is_terminal() { "\r\x1b[K" } else { "" }
}

/// Prints one line of an answer.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").map_err(Into::into)
}

/// Whether a result is written as it is: it has bytes that are for machines only, and no terminal is there to obey them.
pub(crate) fn is_raw(result: &[u8]) -> bool {
    let is_plain = |character: char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
    let is_text = std::str::from_utf8(result).is_ok_and(|text| text.chars().all(is_plain));
    !is_text && !io::stdout().is_terminal()
}

/// Writes bytes as they are.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()).map_err(Into::into)
}

/// Prints an answer as JSON on one line.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Whether an error is only that nobody reads the output any more.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &str) -> String {
    let plain = !path.is_empty() && path.chars().all(|c| c.is_alphanumeric() || "/._-+:@,".contains(c));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
