//! Engines as child processes, from the parent's side: started, disturbed, ended.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::Orders;
use crate::process;

/// How long an engine may take to give its shards back and end.
const STOP_WITHIN: Duration = Duration::from_secs(45);

/// What an engine last said.
#[derive(Clone, Debug, Default)]
struct Said {
    leads: BTreeSet<u16>,
    stopped: bool,
    failed: Option<String>,
}

/// One engine: a directory, and a process while it runs.
pub(crate) struct Engine {
    pub(crate) dir: PathBuf,
    pub(crate) orders: Orders,
    child: Option<Child>,
    said: Arc<Mutex<Said>>,
}

impl Engine {
    pub(crate) fn new(dir: &Path, orders: Orders) -> Engine {
        Engine { dir: dir.to_owned(), orders, child: None, said: Arc::default() }
    }

    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "the engine runs");
        let argument = serde_json::to_string(&self.orders).expect("orders can be written");
        let mut command = process::child("engine", &self.dir, &argument);
        std::fs::create_dir_all(&self.dir).expect("a directory can be made");
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("stderr")).expect("a file");
        let mut child = command.stdin(Stdio::piped()).stderr(errors).spawn().expect("the child starts");
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        self.said = Arc::default();
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| note(&said, &line)));
        self.child = Some(child);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    fn said(&self) -> Said {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The shards that it last said to lead.
    pub(crate) fn leads(&self) -> BTreeSet<u16> {
        if self.is_running() { self.said().leads } else { BTreeSet::new() }
    }

    /// Ends it as a power cut would (SIGKILL).
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().and_then(|()| child.wait()).expect("a child can be killed");
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().map(|child| i32::try_from(child.id()).expect("ids are small"));
        kill_process(id.and_then(Pid::from_raw).expect("the engine runs"), signal).expect("a child can be signalled");
    }

    pub(crate) fn say(&mut self, what: &str) {
        let input = self.child.as_mut().and_then(|child| child.stdin.as_mut()).expect("the engine runs");
        // One that has just died hears nothing, which is found when it is stopped.
        let _ = writeln!(input, "{what}");
    }

    /// Asks it to give its shards back and end, and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        self.say("stop");
        self.ended()
    }

    /// Waits for the end of one that was told to stop.
    pub(crate) fn ended(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let started = Instant::now();
        let status = loop {
            match child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if started.elapsed() > STOP_WITHIN => {
                    let _ = child.kill().and_then(|()| child.wait());
                    return Err(format!("{} does not end within {STOP_WITHIN:?}", self.dir.display()));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        // The reader has the last line a moment after the end.
        let heard = Instant::now();
        while !self.said().stopped && heard.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let Said { stopped, failed, .. } = self.said();
        if status.success() && stopped && failed.is_none() {
            return Ok(());
        }
        Err(format!("{} ended badly ({status}, {failed:?}): {}", self.dir.display(), self.tail("stderr", 12)))
    }

    /// The last lines of a file beside its data.
    pub(crate) fn tail(&self, file: &str, lines: usize) -> String {
        let text = std::fs::read(self.dir.join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn note(said: &Mutex<Said>, line: &str) {
    let Some(line) = line.find('@').map(|at| &line[at + 1..]) else { return };
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    match line.split_once(' ').unwrap_or((line, "")) {
        ("LEADS", shards) => said.leads = shards.split(' ').filter_map(|shard| shard.parse().ok()).collect(),
        ("FAILED", reason) => said.failed = Some(reason.to_owned()),
        ("STOPPED", _) => said.stopped = true,
        _ => {}
    }
}
