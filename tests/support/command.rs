//! Runs the `ergate` command and looks at what it leaves behind.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part of this, and a test may panic")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ergate::events::audit::{Audit, Depth};
use ergate::events::id::Position;
use ergate::events::log::directory::{self, Engine, Options};
use ergate::events::state::State;

/// How long anything here may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command with these arguments.
pub(crate) fn ergate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ergate"));
    // Tests read what people read, and those of the JSON say so.
    command.env("ERGATE_LOG_FORMAT", "pretty");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Ended::of(&ergate(args).output().unwrap())
}

/// Runs it with this on standard input.
pub(crate) fn run_with(args: &[&str], input: &[u8]) -> Ended {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::write(&path, input).unwrap();
    Ended::of(&ergate(args).stdin(std::fs::File::open(path).unwrap()).output().unwrap())
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Ended {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Sends a signal.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Begins a log of files, which can be watched from outside while a process writes it; one of sled cannot.
pub(crate) fn watchable(data: &Path) {
    let options = Options { create: true, engine: Some(Engine::File), ..Options::default() };
    directory::open(data, &options).unwrap().0.close().unwrap();
}

/// Events in a log that another process may be writing, begun by [`watchable`].
pub(crate) fn events(data: &Path) -> u64 {
    directory::read(data).map_or(0, |reader| reader.span().next.0)
}

/// Folds the log with every decision computed again.
#[track_caller]
pub(crate) fn verify(data: &Path) -> State {
    let reader = directory::read(data).unwrap();
    let mut audit = Audit::new(Depth::Decisions, State::default(), None);
    let mut cursor = reader.cursor(Position(0)).unwrap();
    while let Some(block) = cursor.next_block().unwrap() {
        audit.follow(&block).unwrap();
    }
    assert_eq!(audit.state().position, reader.span().next);
    audit.into_state()
}
