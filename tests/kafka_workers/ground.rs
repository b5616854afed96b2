//! Engines that share the shards of one log, workers as processes, and what the log says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ergate::events::event::{Departure, Event};
use ergate::events::json as messages;
use ergate::events::worker::WORKER_FIRST;
use rdkafka::producer::BaseRecord;
use serde_json::Value;

use crate::command::{ergate, signal, until};
use crate::kafka::Cluster;
use crate::kafka_log::Namespace;
use crate::service::Service;

/// Enough that each of three engines, and of four, leads some with tasks.
pub(crate) const SHARDS: u16 = 8;
/// How long shards may take to come to where they belong.
const PATIENCE: Duration = Duration::from_secs(120);
/// The work of both pools is done by workers alone.
const CONFIG: &str = "[pool.default]\nfleet = \"external\"\n";

/// Some engines and their log.
pub(crate) struct Ground {
    pub(crate) namespace: Namespace,
    pub(crate) engines: Vec<Service>,
    next: usize,
}

/// A worker; killed at the end of its test.
pub(crate) struct Worker {
    pub(crate) child: Child,
    said: PathBuf,
    pub(crate) name: String,
}

impl Ground {
    /// Starts so many engines, of which each leads some of the shards.
    pub(crate) fn new(test: &str, kafka: &Cluster, engines: usize) -> Ground {
        Ground::with(test, kafka, engines, CONFIG)
    }

    /// The same with another configuration.
    pub(crate) fn with(test: &str, kafka: &Cluster, engines: usize, config: &str) -> Ground {
        let namespace = Namespace::init(test, kafka.bootstrap(), i32::from(SHARDS));
        std::fs::write(namespace.data.path().join("ergate.toml"), config).unwrap();
        let mut ground = Ground { namespace, engines: Vec::new(), next: 0 };
        (0..engines).for_each(|_| ground.add());
        ground.until_shared();
        ground
    }

    /// Starts one more engine.
    pub(crate) fn add(&mut self) {
        let home = self.namespace.data.path();
        let dir = home.join(format!("engine-{}", self.next));
        self.next += 1;
        std::fs::create_dir_all(&dir).unwrap();
        let config = home.join("ergate.toml").display().to_string();
        self.engines.push(Service::start_with(&dir, &["--log", &self.namespace.log(), "--config", &config], &[]));
    }

    /// The shards with tasks that each engine leads.
    pub(crate) fn leaders(&self) -> Vec<BTreeSet<u16>> {
        self.engines.iter().map(leads).collect()
    }

    /// Waits until all shards are led, and each engine leads one at least.
    pub(crate) fn until_shared(&self) {
        let started = Instant::now();
        loop {
            let led = self.leaders();
            let all: BTreeSet<u16> = led.iter().flatten().copied().collect();
            let is_whole =
                led.iter().map(BTreeSet::len).sum::<usize>() == usize::from(SHARDS) && all.len() == usize::from(SHARDS);
            if is_whole && led.iter().all(|shards| !shards.is_empty()) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "shards are not shared: {led:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Publishes so many requests, to all shards in turn.
    pub(crate) fn submit(&self, count: usize, request: &str) {
        let topic = format!("{}.requests", self.namespace.name);
        for index in 0..count {
            let partition = i32::try_from(index % usize::from(SHARDS)).unwrap();
            self.namespace.send(BaseRecord::to(&topic).partition(partition).payload(request.as_bytes()));
        }
        self.namespace.flush();
    }

    /// Starts a worker that names one engine, and waits until that knows it.
    pub(crate) fn worker(&self, engine: usize, slots: usize) -> Worker {
        let name = format!("worker-{}", std::fs::read_dir(self.namespace.data.path()).unwrap().count());
        let said = self.namespace.data.path().join(format!("{name}.said"));
        let (url, slots) = (format!("http://{}", self.engines[engine].address), slots.to_string());
        let mut command = ergate(&["worker", "--engine", &url, "--name", &name, "--slots", &slots, "--lease", "4s"]);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
        let mut worker = Worker { child: command.spawn().unwrap(), said, name };
        until("the worker is ready", || {
            assert!(worker.child.try_wait().unwrap().is_none(), "it ended: {}", worker.said());
            worker.said().contains("ready: worker")
        });
        worker
    }

    /// Waits until an engine knows these workers.
    pub(crate) fn until_known(&self, engine: usize, workers: &[&Worker]) {
        until("the engine knows the workers", || {
            let known = self.engines[engine].get("/v1/workers").json();
            let names: Vec<&str> = known["workers"].as_array().unwrap().iter().filter_map(|one| one["name"].as_str()).collect();
            workers.iter().all(|worker| names.contains(&worker.name.as_str()))
        });
    }

    /// How many tasks are in a state, as the engines tell.
    pub(crate) fn count(&self, engine: usize, state: &str) -> usize {
        let list: Value = self.engines[engine].get(&format!("/v1/tasks?state={state}&limit=1000")).json();
        list["tasks"].as_array().map_or(0, Vec::len)
    }

    /// What the log says.
    pub(crate) fn told(&self) -> Told {
        std::thread::scope(|scope| {
            let shards: Vec<_> = (0..SHARDS).map(|shard| scope.spawn(move || self.told_of(shard))).collect();
            shards.into_iter().fold(Told::default(), |told, shard| told.and(shard.join().unwrap()))
        })
    }

    fn told_of(&self, shard: u16) -> Told {
        // Replicas by number are those of one shard.
        let (mut told, mut names) = (Told::default(), BTreeMap::new());
        for record in self.namespace.records("events", i32::from(shard)) {
            let (block, _) = messages::decode(&record.value).unwrap();
            block.records().for_each(|envelope| told.note(shard, &envelope.unwrap().event, &mut names));
        }
        told
    }

    /// Waits until so many tasks have ended, and gives what the log says then.
    #[track_caller]
    pub(crate) fn until_ended(&self, tasks: usize) -> Told {
        let mut told = Told::default();
        until("all tasks end", || {
            told = self.told();
            told.count("ended") + told.count("succeeded") >= tasks
        });
        told
    }
}

/// What the logs of all shards say.
#[derive(Debug, Default)]
pub(crate) struct Told {
    counts: BTreeMap<&'static str, usize>,
    /// How many attempts each worker was given, and of which shards.
    pub(crate) given: BTreeMap<String, (usize, BTreeSet<u16>)>,
}

impl Told {
    fn note<'a>(&mut self, shard: u16, event: &Event<'a>, names: &mut BTreeMap<u32, String>) {
        if let Event::WorkerJoined { replica, worker, .. } = event {
            names.insert(replica.0, worker.name.clone());
        }
        // Other replicas are threads of engines.
        if let Event::Started { replica, .. } = event
            && *replica >= WORKER_FIRST
        {
            let given = self.given.entry(names[&replica.0].clone()).or_default();
            given.0 += 1;
            given.1.insert(shard);
        }
        let is_unburned = matches!(event, Event::Lost { departure: Departure::Drained, .. });
        *self.counts.entry(if is_unburned { "left" } else { event.name() }).or_default() += 1;
    }

    fn and(mut self, other: Told) -> Told {
        other.counts.into_iter().for_each(|(name, count)| *self.counts.entry(name).or_default() += count);
        for (name, (attempts, shards)) in other.given {
            let given = self.given.entry(name).or_default();
            given.0 += attempts;
            given.1.extend(shards);
        }
        self
    }

    /// How many events of this name there are.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or_default()
    }
}

impl Worker {
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and expects that it does so well.
    #[track_caller]
    pub(crate) fn end(mut self) {
        signal(&self.child, "TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{}", self.said());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shards with tasks that an engine leads by what it said last.
pub(crate) fn leads(engine: &Service) -> BTreeSet<u16> {
    let said = engine.said();
    let last = said.lines().rev().find(|line| line.starts_with("leads ") || line.starts_with("takes over "));
    let led = last.and_then(|line| line.strip_prefix("leads ")).unwrap_or_default();
    led.split(';').next().unwrap_or_default().split_whitespace().filter_map(|shard| shard.parse().ok()).collect()
}
