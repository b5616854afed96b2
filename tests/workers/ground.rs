//! An engine that can be started again, workers as processes, and what the log says of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use ergate::events::event::{Departure, Event};
use ergate::events::id::Position;
use ergate::events::log::directory;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{ergate, signal, until};
use crate::process::facts;
use crate::service::Answer;

/// The lease of the workers here: short, and long enough for two busy cores.
pub(crate) const LEASE: Duration = Duration::from_secs(4);

/// What the engine and the workers have in common: the pool `models`, whose work nobody but workers does, and the built-in types.
const POOLS: &str = "[pool.models]\nfleet = \"external\"\n[pool.default]\nfleet = \"external\"\n";

/// A directory with an engine and its workers.
pub(crate) struct Ground {
    home: TempDir,
    address: SocketAddr,
    engine: Option<Child>,
    variables: Vec<(String, String)>,
}

/// A worker; killed at the end of its test.
pub(crate) struct Worker {
    pub(crate) child: Child,
    said: PathBuf,
}

impl Ground {
    /// An engine whose configuration has this beside the pools.
    pub(crate) fn new(config: &str) -> Ground {
        Ground::with(config, &[])
    }

    pub(crate) fn with(config: &str, variables: &[(&str, &str)]) -> Ground {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("engine.toml"), format!("{POOLS}{config}")).unwrap();
        // Free now, and taken again by the engine after each restart.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut ground = Ground { home, address, engine: None, variables };
        ground.start();
        ground
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// What the engine has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.home().join("engine.said")).unwrap()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts the engine, also again.
    pub(crate) fn start(&mut self) {
        let (data, config) = (self.home().join("data"), self.home().join("engine.toml"));
        let (said, address) = (self.home().join("engine.said"), self.address.to_string());
        let args = ["up", "--data", data.to_str().unwrap(), "--config", config.to_str().unwrap(), "--listen", &address];
        let mut command = ergate(&[&args[..], &["--drain", "1s"]].concat());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        until("the engine is ready", || {
            let text = std::fs::read_to_string(&said).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {text}");
            text.contains("ready at")
        });
        self.engine = Some(child);
    }

    /// Kills the engine as a power cut would, but for the disk.
    pub(crate) fn kill(&mut self) {
        let mut engine = self.engine.take().unwrap();
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    /// Stops the engine as a deployment does.
    pub(crate) fn stop(&mut self) {
        let mut engine = self.engine.take().unwrap();
        signal(&engine, "TERM");
        assert!(engine.wait().unwrap().success());
    }

    /// Starts a worker and waits until the engine knows it.
    pub(crate) fn worker(&self, args: &[&str]) -> Worker {
        self.worker_with("", args)
    }

    /// As [`Ground::worker`], with task types of its own.
    pub(crate) fn worker_with(&self, config: &str, args: &[&str]) -> Worker {
        self.spawn(config, args).ready()
    }

    /// Starts a worker.
    pub(crate) fn spawn(&self, config: &str, args: &[&str]) -> Worker {
        self.spawn_at(self.address, &[], config, args)
    }

    /// As [`Ground::spawn`], with an engine that is here and these variables; the arguments may name another lease.
    pub(crate) fn spawn_at(&self, engine: SocketAddr, variables: &[(&str, &str)], config: &str, args: &[&str]) -> Worker {
        let said = tempfile::NamedTempFile::new_in(self.home()).unwrap().into_temp_path().keep().unwrap();
        let path = said.with_extension("toml");
        std::fs::write(&path, config).unwrap();
        let (url, lease) = (format!("http://{engine}"), format!("{LEASE:?}"));
        let own = ["worker", "--engine", &url, "--config", path.to_str().unwrap()];
        let lease: &[&str] = if args.contains(&"--lease") { &[] } else { &["--lease", &lease] };
        let mut command = ergate(&[&own[..], lease, args].concat());
        command.envs(variables.iter().copied());
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
        Worker { child: command.spawn().unwrap(), said }
    }

    /// What a verb prints that succeeds.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let out = ergate(args).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            if body.contains('\n') { "application/x-ndjson" } else { "application/json" },
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all((head + body).as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Answer::read(&bytes)
    }

    /// Submits one task and gives its id.
    #[track_caller]
    pub(crate) fn submit(&self, request: &str) -> String {
        self.ask("POST", "/v1/tasks", request).expect(201).json()["id"].as_str().unwrap().to_owned()
    }

    /// Submits many tasks at once.
    #[track_caller]
    pub(crate) fn submit_many(&self, count: usize, request: &str) {
        let answer = self.ask("POST", "/v1/tasks", &format!("{request}\n").repeat(count));
        assert_eq!(answer.expect(200).json()["accepted"], count);
    }

    pub(crate) fn task(&self, id: &str) -> Value {
        self.ask("GET", &format!("/v1/tasks/{id}"), "").json()
    }

    /// Waits for the end of a task, and gives how it ended.
    #[track_caller]
    pub(crate) fn outcome(&self, id: &str) -> String {
        let mut outcome = String::new();
        until(&format!("task {id} ends"), || {
            self.task(id)["outcome"].as_str().unwrap_or_default().clone_into(&mut outcome);
            !outcome.is_empty()
        });
        outcome
    }

    /// The result of a task, which is JSON.
    pub(crate) fn result(&self, id: &str) -> Value {
        serde_json::from_str(self.task(id)["result"].as_str().unwrap()).unwrap()
    }

    /// How many tasks have not ended; those that run, with `state` as "running".
    pub(crate) fn live(&self, state: &str) -> usize {
        let list = self.ask("GET", &format!("/v1/tasks?state={state}&limit=1000"), "").expect(200).json();
        list["tasks"].as_array().map_or(0, Vec::len)
    }

    #[track_caller]
    pub(crate) fn until_done(&self) {
        until("all tasks end", || self.live("live") == 0);
    }

    /// Stops the engine and gives what its log says: that no task ended twice, and none by an attempt that others had taken over, is looked at for all
    /// tests.
    #[track_caller]
    pub(crate) fn end(mut self) -> Told {
        let mut engine = self.engine.take().unwrap();
        signal(&engine, "TERM");
        assert_eq!(engine.wait().unwrap().code(), Some(0), "{}", self.said());
        let data = self.home().join("data");
        // Whatever was decided follows from what was recorded.
        self.cli(&["log", "verify", "--decisions", "--data", data.to_str().unwrap()]);
        let facts = facts(&data, &Default::default()).unwrap();
        let (mut counts, mut exits): (BTreeMap<&'static str, usize>, Vec<_>) = Default::default();
        let mut limits = Vec::new();
        let mut newest = BTreeMap::new();
        let reader = directory::read(&data).unwrap();
        let mut cursor = reader.cursor(Position(0)).unwrap();
        while let Some(block) = cursor.next_block().unwrap() {
            for envelope in block.records() {
                let event: Event<'_> = envelope.unwrap().event;
                #[expect(clippy::wildcard_enum_match_arm, reason = "only these say which attempt counts")]
                match event {
                    Event::Started { task, attempt, .. } => drop(newest.insert(task, attempt)),
                    Event::Succeeded { task, attempt, .. } | Event::Failed { task, attempt, .. } => {
                        assert_eq!(
                            newest.get(&task),
                            Some(&attempt),
                            "task {task} was ended by an attempt that no longer counted"
                        );
                    }
                    _ => {}
                }
                if let Event::ProcessExited { code, note, wait, .. } = event {
                    exits.push((code, note.to_owned(), wait.0 / 1_000));
                }
                if let Event::ConcurrencyChanged { before, concurrency, reason, .. } = event {
                    limits.push((before, concurrency, reason.to_owned()));
                }
                // What a worker gave back is written as left without a loss.
                let is_unburned = matches!(event, Event::Lost { departure: Departure::Drained, .. });
                *counts.entry(if is_unburned { "left" } else { event.name() }).or_default() += 1;
            }
        }
        Told { tasks: facts.tasks.len(), live: facts.live(), outcomes: facts.outcomes, counts, exits, limits }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
    }
}

/// What a log says.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) tasks: usize,
    pub(crate) live: usize,
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    counts: BTreeMap<&'static str, usize>,
    /// Processes that ended by themselves: the exit code, what they said last, and the milliseconds that the next one waited.
    pub(crate) exits: Vec<(Option<u8>, String, u64)>,
    /// How the concurrency of workers changed: from, to, and why.
    pub(crate) limits: Vec<(u32, u32, String)>,
}

impl Told {
    /// How many events of this name there are.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or_default()
    }

    /// Every one of so many tasks ended once, and well.
    #[track_caller]
    pub(crate) fn all_succeeded(&self, tasks: usize) {
        assert_eq!((self.tasks, self.live, self.outcomes.get("SUCCEEDED")), (tasks, 0, Some(&(tasks as u64))), "{self:?}");
    }
}

impl Worker {
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits until the engine knows it.
    #[track_caller]
    pub(crate) fn ready(mut self) -> Worker {
        until("the worker is ready", || {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.said());
            self.said().contains("ready: worker")
        });
        self
    }

    /// Waits for its end, and gives the exit code.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Asks it to end, and expects that it does so well.
    #[track_caller]
    pub(crate) fn end(mut self) {
        self.signal("TERM");
        assert_eq!(self.code(), Some(0), "{}", self.said());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
