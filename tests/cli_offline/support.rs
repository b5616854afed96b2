//! Logs to look at, and the binary to look with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ergate::events::log::directory::Options;
use ergate::{Extras, Runtime, TaskError};
use serde_json::Value;
use tempfile::TempDir;

/// What the command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Every line of the answer as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        assert!(self.code == 0 || self.code == 5, "code {}: {}{}", self.code, self.out, self.err);
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// It ended with this code, and told the user in one line that has these words.
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        let lines: Vec<_> = self.err.lines().filter(|line| line.starts_with("ergate: ") || line.starts_with("error: ")).collect();
        assert_eq!(lines.len(), 1, "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not in: {}", self.err);
        }
    }
}

/// The command, far from any configuration.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ergate"));
    command.args(args).arg("--data").arg(dir).current_dir("/").stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ERGATE_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> Ran {
    Ran::of(command(dir, args).output().unwrap())
}

pub(crate) fn run_command(command: &mut Command) -> Ran {
    Ran::of(command.output().unwrap())
}

/// As [`run`], with answers in JSON.
pub(crate) fn json(dir: &Path, args: &[&str]) -> Vec<Value> {
    run(dir, &[args, &["-o", "json"]].concat()).json()
}

async fn greet(name: String) -> Result<String, TaskError> {
    Ok(format!("hello, {name}"))
}

async fn fail(_: u32) -> Result<(), TaskError> {
    Err(TaskError::permanent("broken", "it is \u{1b}[31mbroken\u{1b}[0m"))
}

async fn sleep(_: u32) -> Result<(), TaskError> {
    tokio::time::sleep(Duration::from_secs(600)).await;
    Ok(())
}

/// Segments so small that a few hundred events fill several.
pub(crate) fn small_files() -> Options {
    Options { segment_bytes: 8 << 10, prealloc_bytes: 4 << 10, low_water_bytes: 0, ..Options::default() }
}

pub(crate) fn builder(dir: &Path) -> ergate::Builder {
    let builder = Runtime::builder().file(dir).log_options(small_files()).pool("default", 1, 4);
    builder.task("greet", greet).task("fail", fail).task("sleep", sleep)
}

/// Runs something with a runtime over `dir`.
pub(crate) fn with_runtime<T>(builder: ergate::Builder, work: impl AsyncFnOnce(&Runtime) -> T) -> T {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio.block_on(async {
        let runtime = builder.start().await.unwrap();
        let answer = work(&runtime).await;
        runtime.shutdown_within(Duration::from_millis(1)).await.unwrap();
        answer
    })
}

/// A log with 5 tasks: 0-0 to 0-2 succeeded, 0-3 is a dead letter, 0-4 is still live.
pub(crate) fn log() -> (TempDir, PathBuf) {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    with_runtime(builder(&dir), async |runtime| {
        let trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
        let extras = Extras { trace_parent: trace, key: Some("first".to_owned()), ..Extras::default() };
        let first = runtime.submit_with("greet", "world", extras).await.unwrap();
        first.result::<String>().await.unwrap();
        for name in ["a", "b"] {
            runtime.submit("greet", name).await.unwrap().result::<String>().await.unwrap();
        }
        runtime.submit("fail", &1).await.unwrap().end().await.unwrap();
        runtime.submit("sleep", &1).await.unwrap();
    });
    (holder, dir)
}

/// A log of several segments, with `tasks` greetings that succeeded.
pub(crate) fn long_log(dir: &Path, tasks: u32) {
    with_runtime(builder(dir), async |runtime| {
        for number in 0..tasks {
            let task = runtime.submit("greet", &format!("{number:0>400}")).await.unwrap();
            task.result::<String>().await.unwrap();
        }
    });
}

/// The segments of a log, in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    found.sort();
    found
}

/// Changes one byte of a file.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}
