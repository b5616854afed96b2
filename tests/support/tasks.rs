//! What tests of the executors share: a runtime in memory, scripts, and a look at how tasks end.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part of this, and a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ergate::events::time::Micros;
use ergate::{Builder, Extras, RetryPolicy, Runtime, TaskEnd, TypeSettings};

/// How long anything here may take on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// So many attempts, one right after the other.
pub(crate) fn attempts(attempts: u32) -> TypeSettings {
    let retry =
        RetryPolicy { attempts, initial: Micros::from_millis(10), max: Micros::from_millis(10), ..RetryPolicy::default() };
    TypeSettings { retry, ..TypeSettings::default() }
}

/// An executable file.
pub(crate) fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Starts a runtime in memory.
pub(crate) async fn start(with: impl FnOnce(Builder) -> Builder) -> Runtime {
    with(Runtime::builder().memory().pool("default", 1, 16)).start().await.unwrap()
}

/// Submits one task and waits for its end.
pub(crate) async fn end(ergate: &Runtime, name: &str, payload: impl serde::Serialize) -> TaskEnd {
    ergate.submit(name, &payload).await.unwrap().end().await.unwrap()
}

/// The trace context of [`end_traced`].
pub(crate) const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The same with a trace context.
pub(crate) async fn end_traced(ergate: &Runtime, name: &str, payload: impl serde::Serialize) -> TaskEnd {
    let extras = Extras { trace_parent: Some(TRACE.to_owned()), ..Extras::default() };
    ergate.submit_with(name, &payload, extras).await.unwrap().end().await.unwrap()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < LIMIT, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there and no zombie.
pub(crate) fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
