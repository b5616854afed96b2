//! What people and programs see: standard output for answers, standard error for everything else. Control characters never reach a terminal.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::Globals;

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

/// Sends log lines to standard error: pretty on a terminal, JSON elsewhere when `ERGATE_LOG_JSON` is set. `ERGATE_LOG` filters them.
pub(crate) fn start_logging(globals: &Globals) {
    let default = if globals.quiet { "error" } else { "warn" };
    let filter = EnvFilter::try_from_env("ERGATE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    if std::env::var_os("ERGATE_LOG_JSON").is_some() { builder.json().init() } else { builder.with_target(false).init() }
}

/// Prints one error line.
pub(crate) fn error(text: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(io::stderr(), "{}ergate: {text}", fresh_line());
}

/// Prints one line about what is going on.
pub(crate) fn note(text: &str) {
    // Notes are a courtesy; the work does not depend on them.
    let _ = writeln!(io::stderr(), "{}{text}", fresh_line());
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

/// The text with control and direction-changing characters written out, so that it can be shown on a terminal.
pub(crate) fn escape(text: &str) -> String {
    let harmless = |c: char| {
        c == '\n' || !(c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    text.chars().map(|c| if harmless(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect()
}

/// A path as a shell takes it.
pub(crate) fn quoted(path: &str) -> String {
    let plain = !path.is_empty() && path.chars().all(|c| c.is_alphanumeric() || "/._-+:@,".contains(c));
    if plain { path.to_owned() } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
