//! Pools whose replicas are processes of the engine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::command::until;
use crate::ground::Ground;

/// Two processes with four slots each; `nap` takes a while, and `murder` kills whoever runs it.
const CREW: &str = r#"
[pool.crew]
fleet = "process"
replicas = { min = 0, max = 2 }
slots = 4
[task.nap]
pool = "crew"
executor = { process = ["sh", "-c", "sleep 0.7; cat"] }
[task.murder]
pool = "crew"
losses_max = 2
executor = { process = ["sh", "-c", "kill -9 $PPID; sleep 10"] }
"#;

impl Ground {
    /// The processes of the engine that are workers, by their ids.
    fn children(&self) -> BTreeSet<u32> {
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let socket = self.home().join("data/workers.sock");
        let is_own = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&str> = line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
            words.contains(&"--child") && words.contains(&format!("--engine=unix:{}", socket.display()).as_str())
        };
        all.filter(is_own).collect()
    }

    /// How many tasks are in the middle of a nap.
    fn naps(&self) -> usize {
        let children = self.children();
        let facts = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            Some((name.to_owned(), rest.split(' ').nth(1)?.parse::<u32>().ok()?))
        };
        let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        // A worker has a shell, which has the nap.
        let sleeps = all.filter_map(facts).filter(|(name, _)| name == "sleep");
        sleeps.filter_map(|(_, shell)| facts(shell)).filter(|(_, worker)| children.contains(worker)).count()
    }

    /// Waits until so many processes work.
    #[track_caller]
    pub(crate) fn until_crew(&self, pool: &str, count: usize) {
        until(&format!("{count} processes of {pool} work"), || {
            let pool = self.ask("GET", &format!("/v1/pools/{pool}"), "").expect(200).json();
            pool["replicas_up"] == count
        });
    }

    #[track_caller]
    pub(crate) fn resize(&self, pool: &str, replicas: usize) {
        let body = format!(r#"{{"replicas":{replicas},"reason":"the test wants it"}}"#);
        self.ask("PATCH", &format!("/v1/pools/{pool}"), &body).expect(200);
    }
}

fn kill(pid: u32, name: &str) {
    assert!(std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_pool_of_processes_does_its_work_in_them() {
    let ground = Ground::new(CREW);
    ground.until_crew("crew", 2);
    assert_eq!(ground.children().len(), 2);
    let begun = Instant::now();
    ground.submit_many(8, r#"{"type":"nap","payload":{"a":1}}"#);
    ground.until_done();
    assert!(begun.elapsed() < Duration::from_secs(5), "eight at a time take as long as one: {:?}", begun.elapsed());
    let told = ground.end();
    told.all_succeeded(8);
    assert_eq!((told.count("worker_joined"), told.count("process_exited"), told.count("lost")), (2, 0, 0), "{told:?}");
}

#[test]
fn a_process_that_is_killed_is_replaced_and_loses_what_it_had_at_once() {
    let ground = Ground::new(CREW);
    ground.until_crew("crew", 2);
    ground.submit_many(8, r#"{"type":"nap"}"#);
    until("they run", || ground.live("running") == 8);
    let before = ground.children();
    let victim = *before.first().unwrap();
    let killed = Instant::now();
    kill(victim, "KILL");
    ground.until_done();
    // Without waiting for a lease, which is five seconds.
    assert!(killed.elapsed() < Duration::from_millis(4_500), "{:?}", killed.elapsed());
    ground.until_crew("crew", 2);
    let after = ground.children();
    assert!(after.len() == 2 && !after.contains(&victim), "{after:?}");
    let told = ground.end();
    told.all_succeeded(8);
    assert_eq!((told.count("process_exited"), told.count("lost"), told.count("started")), (1, 4, 12), "{told:?}");
}

#[test]
fn a_task_that_kills_its_worker_is_given_up_and_the_others_go_on() {
    let ground = Ground::new(CREW);
    ground.until_crew("crew", 2);
    let murder = ground.submit(r#"{"type":"murder"}"#);
    ground.submit_many(20, r#"{"type":"nap"}"#);
    assert_eq!(ground.outcome(&murder), "FAILED");
    ground.until_done();
    let task = ground.task(&murder);
    assert_eq!(task["cause"], "losses_exhausted", "{task}");
    let told = ground.end();
    assert_eq!((told.outcomes.get("SUCCEEDED"), told.outcomes.get("FAILED"), told.live), (Some(&20), Some(&1), 0), "{told:?}");
    // The first, and two more.
    assert_eq!((told.count("process_exited"), told.count("dead_lettered")), (3, 1), "{told:?}");
}

#[test]
fn a_pool_that_shrinks_ends_no_task_and_leaves_no_process() {
    let ground = Ground::new(CREW);
    ground.until_crew("crew", 2);
    ground.submit_many(16, r#"{"type":"nap"}"#);
    until("they run", || ground.live("running") == 8);
    ground.resize("crew", 1);
    until("one is left", || ground.children().len() == 1);
    ground.until_done();
    ground.resize("crew", 0);
    until("none is left", || ground.children().is_empty());
    // From nothing, as soon as somebody wants one.
    ground.submit_many(1, r#"{"type":"nap"}"#);
    ground.resize("crew", 1);
    ground.until_done();
    let told = ground.end();
    told.all_succeeded(17);
    let unwanted = ["lost", "left", "process_exited", "attempt_returned"].map(|name| told.count(name));
    assert_eq!((unwanted, told.count("started")), ([0; 4], 17), "{told:?}");
}

#[test]
fn an_engine_that_stops_waits_for_its_processes_and_leaves_none() {
    let mut ground = Ground::new(CREW);
    ground.until_crew("crew", 2);
    ground.submit_many(8, r#"{"type":"nap"}"#);
    until("they run", || ground.live("running") == 8);
    ground.stop();
    assert!(ground.children().is_empty());
    assert!(!ground.home().join("data/workers.sock").exists());
    ground.start();
    ground.until_done();
    let told = ground.end();
    told.all_succeeded(8);
    assert_eq!((told.count("started"), told.count("lost"), told.count("process_exited")), (8, 0, 0), "{told:?}");
}

#[test]
fn processes_of_an_engine_that_was_killed_end_what_they_have_and_report_it_to_the_next() {
    let mut ground = Ground::new(CREW);
    ground.until_crew("crew", 2);
    ground.submit_many(8, r#"{"type":"nap"}"#);
    // What is durable and has not come to its worker yet would be given back.
    until("they run", || ground.naps() == 8);
    let before = ground.children();
    ground.kill();
    std::thread::sleep(Duration::from_millis(300));
    ground.start();
    ground.until_done();
    until("those of the first are gone", || ground.children().is_disjoint(&before));
    ground.until_crew("crew", 2);
    let told = ground.end();
    told.all_succeeded(8);
    assert_eq!((told.count("started"), told.count("lost")), (8, 0), "{told:?}");
}

#[test]
fn a_process_that_cannot_work_is_started_again_after_waits_that_grow() {
    // Its server ends as soon as it begins.
    let ground = Ground::new(
        r#"
[pool.broken]
command = ["sh", "-c", "echo no model in {port} >&2; exit 3"]
ready = "http://127.0.0.1:{port}/"
"#,
    );
    until("it failed more than once", || ground.said().matches("a process of a pool ended by itself").count() >= 2);
    let told = ground.end();
    let waits: Vec<u64> = told.exits.iter().map(|(.., wait)| *wait).collect();
    assert!(
        waits.len() >= 2 && waits.iter().zip([100, 200, 400, 800, 1_600]).all(|(wait, expected)| *wait == expected),
        "{told:?}"
    );
    let (code, note, _) = &told.exits[0];
    assert!(code.is_some_and(|code| code > 0) && note.contains("no model in"), "{code:?} {note}");
}
