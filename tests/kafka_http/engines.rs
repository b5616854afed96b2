//! Engines of one namespace that serve HTTP, as users start them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kafka::Cluster;
use crate::kafka_log::Namespace;
use crate::producers::Partitioner;
use crate::service::Service;

/// How long shards may take to come to where they belong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Enough that each of two engines leads one with tasks, wherever the log of pools is.
pub(crate) const SHARDS: u16 = 4;

/// The configuration of all engines, beside their directories.
const CONFIG: &str = "ergate.toml";

/// Some engines and their log.
pub(crate) struct Engines {
    pub(crate) namespace: Namespace,
    pub(crate) all: Vec<Service>,
}

impl Engines {
    /// Starts two engines, of which each leads some of the shards.
    pub(crate) fn two(test: &str, kafka: &Cluster) -> Engines {
        Engines::with(test, kafka, [&[], &[]])
    }

    /// The same with variables of their environments.
    pub(crate) fn with(test: &str, kafka: &Cluster, variables: [&[(&str, &str)]; 2]) -> Engines {
        Engines::configured(test, kafka, "", variables)
    }

    /// The same with a configuration that all have.
    pub(crate) fn configured(test: &str, kafka: &Cluster, config: &str, variables: [&[(&str, &str)]; 2]) -> Engines {
        let namespace = Namespace::init(test, kafka.bootstrap(), i32::from(SHARDS));
        std::fs::write(namespace.data.path().join(CONFIG), config).unwrap();
        let mut engines = Engines { namespace, all: Vec::new() };
        variables.into_iter().for_each(|variables| engines.add(variables));
        engines.until_shared();
        engines
    }

    /// Starts one more.
    pub(crate) fn add(&mut self, variables: &[(&str, &str)]) {
        let dir = self.namespace.data.path().join(format!("engine-{}", self.all.len()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = self.namespace.data.path().join(CONFIG).display().to_string();
        self.all.push(Service::start_with(&dir, &["--log", &self.namespace.log(), "--config", &config], variables));
    }

    /// Waits until all shards are led, and each engine leads one at least.
    pub(crate) fn until_shared(&self) {
        let started = Instant::now();
        loop {
            let led: Vec<_> = self.all.iter().map(leads).collect();
            let all: BTreeSet<_> = led.iter().flatten().collect();
            // Those and the log of pools.
            let whole = led.iter().map(BTreeSet::len).sum::<usize>() == all.len() && all.len() == usize::from(SHARDS) + 1;
            if whole && led.iter().all(|shards| shards.iter().any(|shard| shard != "capacity")) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "shards are not shared: {led:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The engine that leads a shard, by its place.
    pub(crate) fn leader(&self, shard: &str) -> usize {
        self.all.iter().position(|engine| leads(engine).contains(shard)).unwrap()
    }

    /// The engine of two that does not lead a shard.
    pub(crate) fn other(&self, shard: &str) -> &Service {
        &self.all[1 - self.leader(shard)]
    }

    /// A request that goes to this shard, and gives its id.
    #[track_caller]
    pub(crate) fn submit(&self, shard: u16, request: &Value) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let goes_there = |key: &String| Partitioner::Murmur2.partition(key.as_bytes(), u32::from(SHARDS)) == u32::from(shard);
        let mut keys = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed).to_string());
        let mut request = request.clone();
        request["key"] = keys.find(goes_there).into();
        let id = self.all[0].submit(&request.to_string());
        assert_eq!(shard_of(&id), shard.to_string());
        id
    }

    /// A task of this shard that failed for good.
    #[track_caller]
    pub(crate) fn dead(&self, shard: u16) -> String {
        let id = self.submit(shard, &json!({"type": "fail", "payload": {"class": "test", "message": "on purpose"}}));
        self.all[0].get(&format!("/v1/tasks/{id}/result?wait=30s")).problem(409, "unsuccessful");
        id
    }
}

/// What an engine leads by what it said last.
pub(crate) fn leads(engine: &Service) -> BTreeSet<String> {
    let said = engine.said();
    let last = said.lines().rev().find(|line| line.starts_with("leads ") || line.starts_with("takes over "));
    let led = last.and_then(|line| line.strip_prefix("leads ")).filter(|led| *led != "no shard").unwrap_or_default();
    led.split(';').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The shard in the id of a task.
pub(crate) fn shard_of(id: &str) -> &str {
    id.split('-').next().unwrap()
}
