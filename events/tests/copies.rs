//! What it costs a shard that its state is copied, and that the copy is written elsewhere while it goes on. A measurement, for people.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "it takes the time, runs a thread and prints"
)]

mod common;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::plain;
use ergate_events::command::Command;
use ergate_events::event::{Envelope, RuleVersions};
use ergate_events::id::{Ordinal, ReplicaId, ShardId, TypeId};
use ergate_events::shard::Shard;
use ergate_events::slab::Task;
use ergate_events::state::State;
use ergate_events::task::{Ask, Failure, IdempotencyKey, Outcome, RetryPolicy, TypeSettings};
use ergate_events::time::Timestamp;

const HOUR: u64 = 3_600_000_000;
const PAYLOAD: [u8; 100] = [b'x'; 100];
const JOB: TypeId = TypeId(0);
const FAILS: TypeId = TypeId(1);
/// Tasks that are requested together.
const BATCH: u64 = 1_000;
/// Pairs of batches of which one round consists.
const ROUND: u32 = 40;

/// The time that this thread has had a core: what the shard needs, whatever else the machine does meanwhile.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// A shard that is timed.
struct Bench {
    shard: Shard,
    at: u64,
    requested: u64,
}

impl Bench {
    fn new(slots: u32) -> Bench {
        let mut bench = Bench { shard: Shard::new(ShardId(0), State::default()), at: 1_000_000, requested: 0 };
        let fails = TypeSettings { retry: RetryPolicy::NEVER, ..plain() };
        bench.tell(&[
            Command::Open { rules: RuleVersions::CURRENT, writer: "test" },
            Command::DefineType { name: "job", settings: &plain(), by: "test" },
            Command::DefineType { name: "fails", settings: &fails, by: "test" },
            Command::JoinReplica { replica: ReplicaId(0), pool: "default", slots },
        ]);
        bench
    }

    /// Decides commands in as many batches as they need and gives the blocks up; returns how long the longest batch took.
    fn tell(&mut self, commands: &[Command<'_>]) -> Duration {
        let (mut rest, mut longest, mut answers) = (commands, Duration::ZERO, Vec::new());
        while !rest.is_empty() {
            self.at += 1;
            let begun = busy();
            let taken = self.shard.batch(Timestamp(self.at), rest, &mut answers, &mut |_: &Envelope<'_>, _: &State| {});
            longest = longest.max(busy() - begun);
            drop(self.shard.take_open());
            rest = &rest[taken..];
        }
        assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
        longest
    }

    /// Requests a thousand tasks, each with a new key or with none, each for the moment that `due` names or for now.
    fn request(&mut self, task_type: TypeId, keyed: bool, due: Option<fn(u64) -> u64>) -> Duration {
        let numbers: Vec<u64> = (self.requested..self.requested + BATCH).collect();
        self.requested += BATCH;
        let ask = |number: &u64| due.map(|due| Ask::NotBefore(Timestamp(due(*number)))).into_iter().collect();
        let asks: Vec<Vec<Ask<'_>>> = numbers.iter().map(ask).collect();
        let names: Vec<String> = numbers.iter().map(|number| format!("order-{number}")).collect();
        let mut requests = Vec::new();
        for (name, asks) in names.iter().zip(&asks) {
            let key = keyed.then_some(IdempotencyKey { key: name, window: None });
            requests.push(Command::Request { task_type, payload: &PAYLOAD, key, asks });
        }
        self.tell(&requests)
    }

    /// Lets a thousand tasks start and succeed; returns how long the longest batch took.
    fn flow(&mut self, keyed: bool) -> Duration {
        let first = self.shard.next_ordinal().0;
        let longest = self.request(JOB, keyed, None);
        let tasks = (first..first + BATCH).map(Ordinal);
        let end = |task| Command::Succeed { task, attempt: 1, outcome: Outcome::Succeeded, result: b"null" };
        longest.max(self.tell(&tasks.map(end).collect::<Vec<_>>()))
    }

    /// Makes a thousand dead letters.
    fn bury(&mut self) {
        let first = self.shard.next_ordinal().0;
        self.request(FAILS, false, None);
        let failure = Failure { class: "test", message: "", retryable: false, delay: None };
        let tasks = (first..first + BATCH).map(Ordinal);
        self.tell(&tasks.map(|task| Command::Fail { task, attempt: 1, failure }).collect::<Vec<_>>());
    }

    /// Decides the next full batch of tasks that wake, in the order of their time, which is none among their places.
    fn wake(&mut self) -> Duration {
        self.at = 2 * HOUR;
        let begun = busy();
        self.shard.batch(Timestamp(self.at), &[], &mut Vec::new(), &mut |_: &Envelope<'_>, _: &State| {});
        let took = busy() - begun;
        drop(self.shard.take_open());
        took
    }

    /// Writes a copy of the state on a thread of its own, and drops it there; returns how long the copy took.
    fn snapshot(&self) -> (Duration, Receiver<()>) {
        let (done, written) = channel();
        let begun = busy();
        let copy = self.shard.state().clone();
        let took = busy() - begun;
        std::thread::spawn(move || {
            copy.encode(&mut std::io::BufWriter::with_capacity(1 << 16, std::io::sink())).unwrap();
            drop(copy);
            done.send(())
        });
        (took, written)
    }
}

/// A moment of the second hour, in no order.
fn some_time(number: u64) -> u64 {
    HOUR + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % HOUR
}

/// A line of the process's memory figures, in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn spread(spans: &mut [Duration]) -> String {
    spans.sort_unstable();
    let at = |part: usize| spans[(spans.len() - 1) * part / 100].as_micros();
    format!("{} µs, p99 {} µs, at most {} µs ({} of them)", at(50), at(99), at(100), spans.len())
}

/// `cargo test --release -p ergate-events --test copies -- --ignored --nocapture --test-threads 1`
#[test]
#[ignore = "a measurement: needs a release build and a gigabyte"]
fn the_longest_pause_while_snapshots_of_a_million_waiting_tasks_are_written() {
    let mut bench = Bench::new(65_536);
    for batch in 0..1_000 {
        bench.request(JOB, batch % 10 != 0, Some(some_time));
    }
    (0..10).for_each(|_| bench.bury());
    let work = &bench.shard.state().work;
    println!(
        "{} live, {} timers, {} keys, {} dead letters",
        work.tasks.len(),
        work.timers.len(),
        work.keys.len(),
        work.dead.len()
    );
    for (what, keyed) in [("", false), ("", false), ("", false), (" with a new key each", true)] {
        measure(&mut bench, what, keyed);
    }
    let mut woken: Vec<Duration> = (0..20).map(|_| bench.wake()).collect();
    println!("1,024 tasks that wake: {}", spread(&mut woken));
    let (took, written) = bench.snapshot();
    let mut woken: Vec<Duration> = (0..20).map(|_| bench.wake()).collect();
    println!("1,024 tasks that wake right after a copy of {} µs: {}", took.as_micros(), spread(&mut woken));
    written.recv().unwrap();
}

/// A round of tasks alone, then one beside a snapshot.
fn measure(bench: &mut Bench, what: &str, keyed: bool) {
    let begun = busy();
    let mut alone: Vec<Duration> = (0..ROUND).map(|_| bench.flow(keyed)).collect();
    let quiet = (busy() - begun) / ROUND;
    let (copy, written) = bench.snapshot();
    let (begun, mut beside) = (busy(), Vec::new());
    while beside.len() < ROUND as usize {
        beside.push(bench.flow(keyed));
    }
    let busy = (busy() - begun) / ROUND;
    written.recv().unwrap();
    println!("a copy takes {} µs", copy.as_micros());
    println!("  a batch of tasks{what}: {}", spread(&mut alone));
    println!("  beside a snapshot: {}", spread(&mut beside));
    println!("  {:.2} times the time", busy.as_secs_f64() / quiet.as_secs_f64());
}

/// See above; in a process of its own, for what the process once needed stays in its peak.
#[test]
#[ignore = "a measurement: needs a release build"]
fn the_memory_of_a_million_waiting_tasks() {
    for (what, due) in [("ready", None), ("delayed", Some(some_time as fn(u64) -> u64))] {
        let mut bench = Bench::new(1);
        let before = memory("VmRSS");
        for _ in 0..1_000 {
            bench.request(JOB, false, due);
        }
        let (now, peak) = (memory("VmRSS"), memory("VmHWM"));
        println!("a million {what} tasks of 100 bytes: {} MiB more, {} MiB at most", (now - before) >> 10, peak >> 10);
    }
    println!("a task is {} bytes", size_of::<Option<Task>>());
}
