//! Generators on Kafka: each belongs to a shard, and is asked where that is led and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ergate::events::event::Event;
use ergate::events::id::{Position, ShardId};
use ergate::kafka::home;
use ergate::{GenerateError, GeneratedBatch, Runtime, TaskError, TaskGenerator, View};
use tempfile::TempDir;

use crate::{Log, block_on, leads, program, shared_out, until};

/// Enough that each of two engines leads one with tasks, wherever the log of pools is.
const SHARDS: u16 = 4;
/// Tasks of a slot.
const TASKS: usize = 3;

/// What generators were asked and told, by task type and engine.
#[derive(Default)]
struct Told {
    asked: BTreeSet<(String, &'static str)>,
    cleaned_up: BTreeSet<(String, &'static str)>,
}

struct Jobs {
    name: String,
    engine: &'static str,
    told: Arc<Mutex<Told>>,
}

impl TaskGenerator for Jobs {
    fn task_type(&self) -> &str {
        &self.name
    }

    fn every(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn generate(&mut self, view: &View) -> Result<GeneratedBatch, GenerateError> {
        self.told.lock().unwrap().asked.insert((self.name.clone(), self.engine));
        let mut batch = GeneratedBatch::new();
        (0..TASKS).try_for_each(|index| batch.push(&format!("{} {index}", view.slot())))?;
        Ok(batch)
    }

    fn clean_up(&mut self) {
        self.told.lock().unwrap().cleaned_up.insert((self.name.clone(), self.engine));
    }
}

/// The task type of a generator of this shard.
fn name(shard: u16) -> String {
    (0..).map(|number| format!("job-{number}")).find(|name| home(name, SHARDS) == ShardId(shard)).unwrap()
}

async fn engine(log: &Log, engine: &'static str, told: &Arc<Mutex<Told>>) -> (Runtime, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = program(engine).data(dir.path()).kafka(log.settings.clone());
    for shard in 0..SHARDS {
        let told = Arc::clone(told);
        builder = builder.task(&name(shard), async |value: String| Ok::<_, TaskError>(value));
        builder = builder.generator(move || Jobs { name: name(shard), engine, told: Arc::clone(&told) });
    }
    (builder.start().await.unwrap(), dir)
}

/// The keys that generated tasks of a shard have, by the slot.
fn generated(runtime: &Runtime, shard: u16) -> BTreeMap<String, Vec<String>> {
    let reader = runtime.reader_of(ShardId(shard)).unwrap();
    let mut cursor = reader.cursor(Position(0)).unwrap();
    let mut found = BTreeMap::<_, Vec<_>>::new();
    while let Some(block) = cursor.next_block().unwrap() {
        for record in block.records().map(Result::unwrap) {
            if let Event::Requested { key: Some(key), .. } = record.event {
                let (batch, index) = key.key.rsplit_once('/').unwrap();
                found.entry(batch.to_owned()).or_default().push(index.to_owned());
            }
        }
    }
    found
}

#[test]
fn a_generator_runs_where_its_shard_is_led_and_cleans_up_where_it_is_no_more() {
    block_on(async {
        let Some(log) = Log::new("generators", u32::from(SHARDS)).await else { return };
        let told = Arc::new(Mutex::new(Told::default()));
        let asked = |shard: u16, engine| told.lock().unwrap().asked.contains(&(name(shard), engine));
        let cleaned_up = |shard: u16, engine| told.lock().unwrap().cleaned_up.contains(&(name(shard), engine));
        let (a, _left) = engine(&log, "a", &told).await;
        until("all are asked", || (0..SHARDS).all(|shard| asked(shard, "a"))).await;
        let (b, _right) = engine(&log, "b", &told).await;
        shared_out(&[&a, &b], usize::from(SHARDS)).await;
        let (stayed, moved) = (leads(&a).first().unwrap().0, leads(&b).first().unwrap().0);
        until("the one whose shard has moved is asked there", || asked(moved, "b")).await;
        until("it has cleaned up where it was", || cleaned_up(moved, "a")).await;
        assert!(!asked(stayed, "b") && !cleaned_up(stayed, "a"), "another one stays where it is");
        a.shutdown().await.unwrap();
        until("that is asked as well", || asked(stayed, "b")).await;
        // A slot that both were asked about, or one of them twice, has its tasks once.
        let slots = |shard| generated(&b, shard);
        until("some slots", || (0..SHARDS).all(|shard| slots(shard).len() >= 6)).await;
        b.shutdown().await.unwrap();
        for shard in 0..SHARDS {
            for (batch, mut indexes) in slots(shard) {
                assert!(batch.starts_with(&format!("generator/{}/", name(shard))), "{batch} is on shard {shard}");
                indexes.sort();
                assert_eq!(indexes, ["0", "1", "2"], "{batch}");
            }
        }
    });
}
