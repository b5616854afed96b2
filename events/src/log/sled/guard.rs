//! Calling sled so that neither its panics nor its error types come through.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::super::LogError;
use super::super::directory::layout::failed;
use crate::id::Position;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside sled. A panic there means damaged files and becomes a [`LogError`], so a program's panic hook should
/// not print it.
pub fn is_inside() -> bool {
    INSIDE.get()
}

/// Calls sled about the database in `path`, whose first position is `at`.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Full`], and [`LogError::Unusable`] for everything else that sled says or panics with.
pub(super) fn guarded<T>(
    step: &'static str,
    path: &Path,
    at: Position,
    call: impl FnOnce() -> Result<T, sled::Error>,
) -> Result<T, LogError> {
    let outer = INSIDE.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(outer);
    let reason = match outcome {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(sled::Error::Io(error))) => return Err(failed(step, path)(error)),
        Ok(Err(error)) => format!("sled could not {step} it: {}", first_line(&error.to_string())),
        Err(panic) => format!("sled gave up when asked to {step} it: {}", first_line(text(panic.as_ref()))),
    };
    Err(LogError::Unusable { at, path: path.to_owned(), reason })
}

fn text(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
