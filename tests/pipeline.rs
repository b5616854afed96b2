//! The example `examples/pipeline`, by exactly the commands of its README.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "support/command.rs"]
mod command;
#[path = "support/process.rs"]
mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use command::{ergate, signal, until};
use process::{Facts, facts};
use serde_json::Value;

const README: &str = include_str!("../examples/pipeline/README.md");
/// The engine of the README.
const PLACE: &str = "127.0.0.1:7420";
/// What the shell says after each command.
const DONE: &str = "@@@";

/// A copy of the example, as somebody has it who has never started it.
struct Copied {
    home: tempfile::TempDir,
}

/// Its engine, killed at the end of its test.
struct Engine {
    child: Child,
    said: PathBuf,
    place: String,
}

impl Copied {
    /// None where there is no Python, which is said.
    fn new() -> Option<Copied> {
        if !Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED the pipeline: python3 is missing");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/pipeline");
        for file in std::fs::read_dir(example).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
            std::fs::copy(&file, home.path().join(file.file_name().unwrap())).unwrap();
        }
        Some(Copied { home })
    }

    /// With this build of `ergate`, and with the programs of the directory.
    fn path(&self) -> String {
        let build = Path::new(env!("CARGO_BIN_EXE_ergate")).parent().unwrap();
        format!("{}:{}:{}", self.home.path().display(), build.display(), std::env::var("PATH").unwrap())
    }

    /// Starts an engine here, on a free port.
    fn engine(&self, args: &[&str]) -> Engine {
        let said = self.home.path().join("said");
        let mut command = ergate(args);
        command.current_dir(self.home.path()).env("PATH", self.path()).env("ERGATE_HTTP__LISTEN", "127.0.0.1:0");
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
        let mut engine = Engine { child: command.spawn().unwrap(), said, place: String::new() };
        until("the engine is ready", || {
            let text = engine.said();
            assert!(engine.child.try_wait().unwrap().is_none(), "it ended: {text}");
            engine.place =
                text.split_once("://").and_then(|(_, rest)| rest.split_once(';')).map_or("", |(place, _)| place).to_owned();
            !engine.place.is_empty()
        });
        engine
    }

    /// Runs commands in one shell that ends at the first which fails; gives what each of them printed.
    fn shell(&self, place: &str, commands: &[&str]) -> Vec<String> {
        let told = commands.iter().map(|command| format!("{command}\necho {DONE}\n"));
        let script = format!("set -euo pipefail\n{}", told.collect::<String>()).replace(PLACE, place);
        let ended =
            Command::new("bash").arg("-c").arg(&script).env("PATH", self.path()).current_dir(self.home.path()).output().unwrap();
        let (out, err) = (String::from_utf8(ended.stdout).unwrap(), String::from_utf8_lossy(&ended.stderr));
        assert!(ended.status.success(), "{out}\n{err}");
        assert!(err.is_empty(), "{err}");
        out.split_terminator(&format!("{DONE}\n")).map(str::to_owned).collect()
    }

    /// What the log says, which is folded anew and found right.
    fn facts(&self) -> Facts {
        facts(&self.home.path().join("ergate-data"), &Default::default()).unwrap()
    }

    /// Whether a model server of this directory is left.
    fn is_left(&self) -> bool {
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        let is_here = |process: &Path| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == self.home.path());
        all.filter(|path| is_here(path)).any(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("stand_in.py")
        })
    }
}

impl Engine {
    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    fn end(mut self) {
        signal(&self.child, "TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.said());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each command that the README shows, with what it shows of its output.
fn shown() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut all: Vec<(&str, Vec<&str>)> = Vec::new();
    let blocks = README.split("```console\n").skip(1).map(|block| block.split_once("```").unwrap().0);
    for line in blocks.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => all.push((command, Vec::new())),
            None => all.last_mut().unwrap().1.push(line),
        }
    }
    all
}

/// Whether a line is as the README shows it, but for what differs each time.
fn is_as_shown(line: &str, shown: &str) -> bool {
    let steady = |text: &str| {
        let mut json: Value = serde_json::from_str(text).ok()?;
        json.as_object_mut()?.retain(|name, _| !["total_duration", "server"].contains(&name.as_str()));
        Some(json)
    };
    if let Some(json) = steady(shown) {
        return steady(line) == Some(json);
    }
    // How many servers there were, and how far a task was at that moment.
    let part = |text: &str| match text.split_once(", from ") {
        Some((numbers, _)) => numbers.to_owned(),
        None if text.starts_with("0-") => text.split_whitespace().take(2).collect(),
        None => text.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    part(line) == part(shown)
}

#[track_caller]
fn compare(command: &str, printed: &str, shown: &[&str]) {
    let mut lines = printed.lines();
    let mut is_any = false;
    for expected in shown {
        if *expected == "…" {
            is_any = true;
            continue;
        }
        let found = if is_any {
            lines.any(|line| is_as_shown(line, expected))
        } else {
            lines.next().is_some_and(|line| is_as_shown(line, expected))
        };
        assert!(found, "`{command}` printed\n{printed}\nand the README shows\n{expected}");
        is_any = false;
    }
}

/// How many servers answered, as a line of `answers.py` says it.
fn servers(printed: &str) -> u32 {
    printed.trim_end().rsplit_once(", from ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap()
}

#[test]
fn the_commands_of_its_readme_do_what_it_says() {
    let Some(copied) = Copied::new() else { return };
    let mut all = shown();
    let (first, said) = all.remove(0);
    assert_eq!(first, "ergate up");
    let engine = copied.engine(&first.split(' ').skip(1).collect::<Vec<_>>());
    assert_eq!(engine.said().replace(&engine.place, PLACE).trim_end(), said.join("\n"));
    let commands: Vec<&str> = all.iter().map(|(command, _)| *command).collect();
    assert!(commands.len() > 15, "{commands:?}");
    let printed = copied.shell(&engine.place, &commands);
    for ((command, shown), printed) in all.iter().zip(&printed) {
        compare(command, printed, shown);
    }
    let counts: Vec<u32> = printed.iter().filter(|text| text.contains(", from ")).map(|text| servers(text)).collect();
    // Both answered, and then the one that was started for the one that was killed.
    assert_eq!((counts[0], counts.len()), (2, 4), "{counts:?}");
    assert!(counts[3] >= 3, "{counts:?}");
    assert!(engine.said().contains("started again"), "{}", engine.said());
    let pools = printed.last().unwrap();
    let models = pools.lines().find(|line| line.starts_with("models")).unwrap();
    assert_eq!(models.split_whitespace().nth(2), Some("1"), "{pools}");
    engine.end();
    assert!(!copied.is_left(), "a model server outlived the engine");
    let facts = copied.facts();
    assert_eq!((facts.tasks.len(), facts.live(), facts.outcomes.get("SUCCEEDED"), facts.lost), (216, 0, Some(&216), 0));
    let keys: std::collections::BTreeSet<_> = facts.tasks.iter().map(|(_, key)| key.clone().unwrap()).collect();
    assert_eq!(keys.len(), 216, "each city once for each model");
    // What the killed server had in its hands was asked again.
    assert!(facts.starts.len() > 216, "{}", facts.starts.len());
}

#[test]
fn the_configuration_for_ollama_starts_one_for_each_worker() {
    let Some(copied) = Copied::new() else { return };
    // Takes its port as Ollama does, and is nothing else.
    let script =
        "#!/bin/sh\n[ \"$*\" = serve ] && [ -n \"$HOME\" ] && exec python3 stand_in.py --port \"${OLLAMA_HOST#127.0.0.1:}\"\n";
    let ollama = copied.home.path().join("ollama");
    std::fs::write(&ollama, script).unwrap();
    std::fs::set_permissions(&ollama, std::fs::Permissions::from_mode(0o755)).unwrap();
    let command = README.lines().find(|line| line.starts_with("ergate up --config")).unwrap();
    let engine = copied.engine(&command.split(' ').skip(1).collect::<Vec<_>>());
    let commands: Vec<&str> = shown()[1..=8].iter().map(|(command, _)| *command).collect();
    let printed = copied.shell(&engine.place, &commands);
    assert_eq!(printed.last().unwrap().trim_end().rsplit_once('\n').unwrap().1, "24 answers and 0 failures, from 2 servers");
    engine.end();
    assert!(!copied.is_left(), "a model server outlived the engine");
    assert_eq!(copied.facts().outcomes.get("SUCCEEDED"), Some(&24));
}
