//! Figures: how long shards are without an owner that answers, and what an idle engine costs. With the real binary and its defaults:
//!
//! ```text
//! cargo test --features kafka-ssl --test kafka -- --ignored takeover --nocapture --test-threads=1
//! ```
//! `ERGATE_BINARY=target/release/ergate` gives the figures of a release, without a release of the tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ergate::events::event::Event;
use ergate::events::json;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::{Pid, Signal, kill_process};

use crate::kafka::{Cluster, Options, namespace};
use crate::topic::{self, Reader, Topics, client};

const SHARDS: i32 = 16;
/// Tasks that wait for a time far away.
const LIVE: u32 = 100_000;
/// How often every shard is asked for something.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How long shards are watched after something has happened.
const WATCH: Duration = Duration::from_secs(25);
/// How long an idle engine is measured.
const IDLE: Duration = Duration::from_secs(20);
/// What Linux counts processor time in, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(300);

/// A running `ergate up`.
struct Up(Child);

impl Up {
    fn start(kafka: &Cluster, namespace: &str, dir: &Path) -> Up {
        let log = format!("kafka://{}/{namespace}", kafka.bootstrap());
        std::fs::create_dir_all(dir).unwrap();
        let errors = std::fs::File::create(dir.join("stderr")).unwrap();
        let binary = std::env::var("ERGATE_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ergate").to_owned());
        let mut command = Command::new(binary);
        command.args(["up", "--log", &log, "--data"]).arg(dir.join("data")).stdin(Stdio::null()).stderr(errors);
        // What it leads is read from what it says.
        command.env("ERGATE_LOG_FORMAT", "pretty");
        Up(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id() as i32).unwrap(), signal).unwrap();
    }

    /// Memory in MiB, and seconds of processor time since the start.
    fn usage(&self) -> (f64, f64) {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap();
        let status = read("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let stat = read("stat");
        // The name, which may have spaces in it, ends with the last bracket.
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..].split_whitespace().collect();
        let ticks: f64 = fields[12].parse::<f64>().unwrap() + fields[13].parse::<f64>().unwrap();
        (kib / 1024.0, ticks / TICKS_PER_SECOND)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Asks every shard for something again and again.
struct Probe(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Probe {
    fn start(bootstrap: &str, requests: &str) -> Probe {
        let over = Arc::new(AtomicBool::new(false));
        let (producer, topic, stop): (BaseProducer, _, _) =
            (client(bootstrap).create().unwrap(), requests.to_owned(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                for shard in 0..SHARDS {
                    let record = BaseRecord::<(), str>::to(&topic).partition(shard).payload(r#"{"type":"noop"}"#);
                    producer.send(record).map_err(|(error, _)| error).unwrap();
                }
                producer.poll(Duration::ZERO);
                std::thread::sleep(PROBE_EVERY);
            }
            producer.flush(PATIENCE).unwrap();
        });
        Probe(over, Some(thread))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

fn publish_live(bootstrap: &str, requests: &str) {
    let producer: BaseProducer = client(bootstrap).set("linger.ms", "20").set("acks", "all").create().unwrap();
    for index in 0..LIVE {
        let value = format!(r#"{{"type":"noop","payload":{index},"delay":"720h"}}"#);
        let mut record = BaseRecord::<(), str>::to(requests).partition(index as i32 % SHARDS).payload(&value);
        while let Err((_, same)) = producer.send(record) {
            record = same;
            producer.poll(Duration::from_millis(5));
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// The longest time that each shard answered nothing, while somebody watched.
fn gaps(reader: &mut Reader, watch: Duration) -> BTreeMap<i32, Duration> {
    let started = Instant::now();
    let mut last: BTreeMap<i32, Instant> = (0..SHARDS).map(|shard| (shard, started)).collect();
    let mut gaps: BTreeMap<i32, Duration> = BTreeMap::new();
    while started.elapsed() < watch {
        let Some(message) = reader.poll(Duration::from_millis(5)) else { continue };
        let (block, _) = json::decode(message.value.as_deref().unwrap()).unwrap();
        if block.records().any(|record| matches!(record.unwrap().event, Event::Requested { .. })) {
            let before = last.insert(message.partition, Instant::now()).unwrap();
            let gap = gaps.entry(message.partition).or_default();
            *gap = (*gap).max(before.elapsed());
        }
    }
    for (shard, last) in last {
        let gap = gaps.entry(shard).or_default();
        *gap = (*gap).max(last.elapsed());
    }
    gaps
}

fn wait_consumed(bootstrap: &str, namespace: &str, records: u64) {
    let started = Instant::now();
    let sum = || {
        topic::committed(bootstrap, &format!("{namespace}-engines"), &Topics::of(namespace).requests, SHARDS)
            .values()
            .sum::<u64>()
    };
    while sum() < records {
        assert!(started.elapsed() < PATIENCE, "only {} of {records} records are answered", sum());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Reads what there is, so that what comes is new.
fn catch_up(reader: &mut Reader) {
    let mut heard = Instant::now();
    while heard.elapsed() < Duration::from_secs(3) {
        if reader.poll(Duration::from_millis(50)).is_some() {
            heard = Instant::now();
        }
    }
}

fn say(what: &str, gaps: &BTreeMap<i32, Duration>) {
    let mut sorted: Vec<Duration> = gaps.values().copied().collect();
    sorted.sort();
    eprintln!(
        "takeover: {what}: shards answered nothing for at most {:.2?}, median {:.2?}, least {:.2?}; all: {sorted:.1?}",
        sorted[sorted.len() - 1],
        sorted[sorted.len() / 2],
        sorted[0]
    );
}

#[test]
#[ignore = "measures for some minutes"]
fn takeover_and_hand_over_with_many_live_tasks() {
    let Some(kafka) = Cluster::start(Options::default()) else { return };
    let (namespace, home) = (namespace("takeover"), tempfile::tempdir().unwrap());
    let topics = Topics::of(&namespace);
    topic::create(kafka.bootstrap(), &namespace, SHARDS, 1);
    let mut first = Up::start(&kafka, &namespace, &home.path().join("first"));
    let second = Up::start(&kafka, &namespace, &home.path().join("second"));
    let started = Instant::now();
    publish_live(kafka.bootstrap(), &topics.requests);
    wait_consumed(kafka.bootstrap(), &namespace, u64::from(LIVE));
    eprintln!("takeover: {LIVE} requests published and answered within {:.1?}", started.elapsed());
    let mut reader = Reader::new(kafka.bootstrap(), &topics.events);
    catch_up(&mut reader);
    let probe = Probe::start(kafka.bootstrap(), &topics.requests);
    // The producer has its connections now, and everybody is warm.
    gaps(&mut reader, Duration::from_secs(6));
    say("undisturbed", &gaps(&mut reader, Duration::from_secs(6)));
    first.0.kill().unwrap();
    say("SIGKILL of one of two", &gaps(&mut reader, WATCH));
    first.0.wait().unwrap();
    first = Up::start(&kafka, &namespace, &home.path().join("first"));
    say("the killed one joins again", &gaps(&mut reader, WATCH));
    second.signal(Signal::TERM);
    say("SIGTERM of the other", &gaps(&mut reader, WATCH));
    drop((probe, first, second));
}

#[test]
#[ignore = "measures for a while"]
fn takeover_of_nothing_an_idle_engine() {
    let Some(kafka) = Cluster::start(Options::default()) else { return };
    let (namespace, home) = (namespace("idle"), tempfile::tempdir().unwrap());
    topic::create(kafka.bootstrap(), &namespace, SHARDS, 1);
    let engine = Up::start(&kafka, &namespace, home.path());
    // Until it leads everything, and has done what follows.
    std::thread::sleep(Duration::from_secs(15));
    let (_, before) = engine.usage();
    std::thread::sleep(IDLE);
    let (mib, after) = engine.usage();
    let share = 100.0 * (after - before) / IDLE.as_secs_f64();
    eprintln!("takeover: an idle engine with {SHARDS} shards: {mib:.0} MiB, {share:.1} % of a core over {IDLE:?}");
    let said = std::fs::read_to_string(home.path().join("stderr")).unwrap();
    let last = said.lines().rev().find_map(|line| line.strip_prefix("leads ")).unwrap_or_default();
    assert!(
        last.split(' ').filter(|word| word.parse::<i32>().is_ok()).count() == SHARDS as usize,
        "it does not lead all: {said}"
    );
}
