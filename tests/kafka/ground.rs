//! What a round runs on: brokers, a namespace, engines, and what is known of what they were asked.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::checker::{Effect, Evidence, Totals, check};
use crate::engine::{EFFECTS, Orders};
use crate::faults::Fault;
use crate::fleet::Engine;
use crate::kafka::{Cluster, Options, namespace};
use crate::load::{Acknowledged, Load};
use crate::others::Heads;
use crate::process::Chance;
use crate::shard::CAPACITY;
use crate::topic::Topics;
use crate::{SHARDS, others, topic, watch};

/// Engines of a namespace; the last one only joins where a fault asks for it.
pub(crate) const ENGINES: usize = 4;
/// Engines that run from the beginning.
const ENGINES_FIRST: usize = 3;
/// Shorter than the default, for every round waits for it, and the least that our brokers allow.
pub(crate) const SESSION: Duration = Duration::from_secs(3);
/// Records a second.
const RATE: u64 = 350;
/// How long engines may take until every shard is led.
const LED_WITHIN: Duration = Duration::from_secs(60);
/// The disk of the broker that runs out of it.
const SMALL_DISK_MIB: u32 = 96;

/// Which brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One.
    Single,
    /// Three, each partition on all of them.
    Three,
    /// One on a small disk.
    SmallDisk,
}

/// Brokers of a kind, and what they need.
pub(crate) struct Brokers {
    pub(crate) cluster: Cluster,
    count: u32,
    pub(crate) disk: Option<Disk>,
}

/// Brokers of this kind; `None`, said aloud, where they cannot be had.
pub(crate) fn cluster(kind: Kind) -> Option<Brokers> {
    let mut properties = vec![("group.min.session.timeout.ms", "1000".to_owned())];
    let disk = match (kind == Kind::SmallDisk).then(Disk::new) {
        Some(Err(reason)) => {
            eprintln!("SKIPPED: no small disk for a broker can be mounted here: {reason}");
            return None;
        }
        Some(Ok(disk)) => Some(disk),
        None => None,
    };
    if let Some(disk) = &disk {
        properties.push(("log.dirs", disk.mount.join("data").display().to_string()));
        properties.push(("log.segment.bytes", (4 << 20).to_string()));
        // Two files of this size for every partition would be all of the disk.
        properties.push(("log.index.size.max.bytes", (16 << 10).to_string()));
    }
    let brokers = if kind == Kind::Three { 3 } else { 1 };
    let cluster = Cluster::start(Options { brokers, properties, routes: ENGINES + 1, ..Options::default() })?;
    Some(Brokers { cluster, count: brokers, disk })
}

/// A file system in memory.
pub(crate) struct Disk {
    home: tempfile::TempDir,
    pub(crate) mount: PathBuf,
}

impl Disk {
    fn new() -> Result<Disk, String> {
        let home = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = home.path().join("disk");
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let size = format!("size={SMALL_DISK_MIB}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&mount))?;
        Ok(Disk { home, mount })
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }

    /// Takes all that is free.
    pub(crate) fn fill(&self) {
        let _ = run(Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", self.ballast().display())));
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("what was filled can be freed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The broker has it open until it is gone, and nobody waits for that here.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount));
        let _ = std::fs::remove_dir_all(self.home.path());
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let ran = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if ran.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned()) }
}

/// A namespace with its engines.
pub(crate) struct Ground<'a> {
    pub(crate) brokers: &'a Brokers,
    pub(crate) engines: Vec<Engine>,
    namespace: String,
    home: RefCell<Option<tempfile::TempDir>>,
    acknowledged: Acknowledged,
    /// Where the logs ended after the last round.
    heads: Heads,
    began: Instant,
}

impl<'a> Ground<'a> {
    pub(crate) fn new(brokers: &'a Brokers, kind: Kind) -> Ground<'a> {
        let home = tempfile::tempdir().expect("a folder");
        let namespace = namespace("faults");
        let replicas = if kind == Kind::Three { 3 } else { 1 };
        topic::create(brokers.cluster.bootstrap(), &namespace, SHARDS, replicas);
        let engine = |index: usize| {
            let orders = Orders {
                brokers: brokers.cluster.route(index).bootstrap().to_owned(),
                namespace: namespace.clone(),
                session_ms: SESSION.as_millis() as u64,
                transaction_ms: 10_000,
                skew_ms: 0,
            };
            Engine::new(&home.path().join(format!("engine-{index}")), orders)
        };
        let engines = (0..ENGINES).map(engine).collect();
        let home = RefCell::new(Some(home));
        let (acknowledged, heads) = (Acknowledged::new(), Heads::new());
        Ground { brokers, engines, namespace, home, acknowledged, heads, began: Instant::now() }
    }

    fn topics(&self) -> Topics {
        Topics::of(&self.namespace)
    }

    fn bootstrap(&self) -> &str {
        self.brokers.cluster.bootstrap()
    }

    /// Engines work, a producer publishes, something goes wrong; then all that was accepted ends, and everything is checked.
    pub(crate) fn round(&mut self, fault: Fault, chance: &mut Chance) {
        self.began = Instant::now();
        fault.prepare(self, chance);
        self.engines[..ENGINES_FIRST].iter_mut().for_each(Engine::start);
        self.wait_led();
        let requests = self.topics().requests;
        let way = self.brokers.cluster.route(ENGINES).bootstrap();
        let load = Load::start(way, &requests, chance.next(), RATE);
        std::thread::sleep(Duration::from_millis(200 + chance.below(800)));
        fault.strike(self, chance);
        std::thread::sleep(Duration::from_millis(500 + chance.below(1_000)));
        let (acknowledged, given_up) = load.finish();
        self.acknowledged.extend(acknowledged);
        let quiet =
            watch::until_quiet(self.bootstrap(), &requests, &self.topics().events).unwrap_or_else(|error| panic!("{error}"));
        self.stop();
        fault.clean_up(self);
        let totals = check(&self.evidence()).unwrap_or_else(|error| panic!("{error}"));
        self.report(fault, &totals, (given_up, quiet));
        self.heads = totals.heads;
    }

    fn report(&self, fault: Fault, totals: &Totals, (given_up, quiet): (u64, Duration)) {
        let Totals { records, tasks, duplicates, refused, events, blocks, repeated, epochs, lost, effects, copies, .. } = totals;
        eprintln!(
            "kafka: {:<11} {records} records ({} acknowledged, {given_up} given up), {tasks} tasks, {duplicates} duplicates, {refused} refused, \
             {effects} runs, {lost} lost and repeated, {events} events in {blocks} blocks ({repeated} twice), {epochs} epochs, {copies} copies; \
             quiet after {quiet:.1?}, {:.1?} in all",
            fault.name(),
            self.acknowledged.len(),
            self.began.elapsed()
        );
    }

    /// After the last round: somebody else's verifier finds the same logs.
    pub(crate) fn compare_with_others(&self) {
        let Some(heads) = others::heads(self.bootstrap(), &self.namespace) else { return };
        let ours: Heads = self
            .heads
            .iter()
            .filter(|(shard, _)| i32::from(**shard) < SHARDS)
            .map(|(shard, head)| (*shard, head.clone()))
            .collect();
        assert_eq!(heads, ours, "the verifier in Python finds other logs");
    }

    /// An engine that leads something.
    pub(crate) fn victim(&self, chance: &mut Chance) -> usize {
        let running: Vec<usize> = (0..ENGINES).filter(|index| !self.engines[*index].leads().is_empty()).collect();
        running.get(chance.below(running.len() as u64) as usize).copied().unwrap_or(0)
    }

    /// Waits until every shard is led by somebody.
    pub(crate) fn wait_led(&self) {
        let started = Instant::now();
        let all = usize::try_from(SHARDS).expect("there are few");
        loop {
            let led: BTreeSet<u16> =
                self.engines.iter().flat_map(Engine::leads).filter(|shard| i32::from(*shard) < SHARDS).collect();
            if led.len() == all {
                return;
            }
            assert!(started.elapsed() < LED_WITHIN, "only shards {led:?} are led after {LED_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends all engines, at one time as a deployment does.
    fn stop(&mut self) {
        let mut running: Vec<&mut Engine> = self.engines.iter_mut().filter(|engine| engine.is_running()).collect();
        running.iter_mut().for_each(|engine| engine.say("stop"));
        running.iter_mut().for_each(|engine| engine.ended().unwrap_or_else(|error| panic!("{error}")));
    }

    fn evidence(&self) -> Evidence {
        let (topics, at) = (self.topics(), self.bootstrap());
        Evidence {
            requests: topic::read(at, &topics.requests),
            events: topic::read(at, &topics.events),
            capacity: topic::read(at, &topics.capacity),
            dead_letters: topic::read(at, &topics.dead_letters),
            results: topic::read(at, &topics.results),
            committed: topic::committed(at, &format!("{}-engines", self.namespace), &topics.requests, SHARDS),
            acknowledged: self.acknowledged.clone(),
            effects: self.engines.iter().flat_map(|engine| effects(&engine.dir.join(EFFECTS))).collect(),
            copies: self.engines.iter().flat_map(|engine| copies(&engine.dir.join(&self.namespace))).collect(),
        }
    }

    /// Keeps what the engines have on their disks, to be looked at.
    pub(crate) fn keep(&self) -> PathBuf {
        self.home.borrow_mut().take().map_or_else(PathBuf::new, tempfile::TempDir::keep)
    }

    /// What helps to understand a failure.
    pub(crate) fn dump(&self) -> String {
        let one = |(index, engine): (usize, &Engine)| {
            let leads = engine.leads();
            format!("engine {index} leads {leads:?}\n{}\n{}", engine.tail("log", 15), engine.tail("stderr", 5))
        };
        let broker = |id: u32| {
            let state = if self.brokers.cluster.has_ended(id) { "has ended" } else { "runs" };
            format!("broker {id} {state}\n{}", self.brokers.cluster.log_tail(id))
        };
        let brokers = (0..self.brokers.count).map(broker);
        brokers.chain(self.engines.iter().enumerate().map(one)).collect::<Vec<_>>().join("\n")
    }
}

/// The traces in an engine's file; the last line may be cut off where the engine was killed.
fn effects(file: &Path) -> Vec<Effect> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let words: Vec<u64> = line.split(' ').map(|word| word.parse().expect("a trace is made of numbers")).collect();
        let small = |index: usize| u32::try_from(words[index]).expect("it is small");
        Effect { shard: small(0) as u16, task: words[1], attempt: small(2), epoch: small(3) }
    };
    complete.lines().map(parse).collect()
}

/// The directories of an engine's copies.
fn copies(dir: &Path) -> Vec<(u16, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("a directory can be read").path());
    let shard = |name: &str| if name == "capacity" { Some(CAPACITY) } else { name.parse().ok() };
    paths.filter_map(|path| Some((shard(path.file_name()?.to_str()?)?, path))).collect()
}
