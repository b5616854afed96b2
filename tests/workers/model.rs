//! A server that behaves as one with a model does, under a worker of its own: `tests/support/model_server.py`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::command::until;
use crate::ground::{Ground, Told};

/// A pool whose server has these arguments; its answers are noted in `book`.
fn config(book: &Path, pool: &str, arguments: &str) -> String {
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/model_server.py");
    format!(
        r#"
[pool.model]
command = ["python3", {server:?}, "--port", "{{port}}", "--book", {book:?}{arguments}]
ready = "http://127.0.0.1:{{port}}/health"
concurrency = "fixed"
{pool}
[task.generate]
pool = "model"
retry = {{ attempts = 20, initial = "50ms", max = "200ms" }}
executor = {{ http = "http://127.0.0.1:{{port}}/generate" }}
"#
    )
}

/// Which task was answered how often, and by which servers.
fn answers(book: &Path) -> (BTreeMap<String, usize>, BTreeSet<String>) {
    let (mut tasks, mut servers) = (BTreeMap::new(), BTreeSet::new());
    for line in std::fs::read_to_string(book).unwrap_or_default().lines() {
        let (task, server) = line.split_once(' ').unwrap();
        *tasks.entry(task.to_owned()).or_default() += 1;
        servers.insert(server.to_owned());
    }
    (tasks, servers)
}

/// Whether a server is left of those that have this book.
fn is_left(book: &Path) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
    let book = book.to_str().unwrap();
    all.filter_map(|path| std::fs::read(path).ok()).any(|line| String::from_utf8_lossy(&line).contains(book))
}

#[track_caller]
fn succeeded_once(told: &Told, book: &Path, tasks: usize) {
    told.all_succeeded(tasks);
    let (answered, _) = answers(book);
    assert_eq!((answered.len(), answered.values().max()), (tasks, Some(&1)), "{told:?}");
}

#[test]
fn two_thousand_requests_while_replicas_come_and_go_are_answered_once_each() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("book");
    let pool = "slots = 8\nreplicas = { min = 1, max = 4 }";
    let ground = Ground::new(&config(&book, pool, r#", "--places", "8", "--latency", "0.02""#));
    ground.resize("model", 1);
    ground.until_crew("model", 1);
    ground.submit_many(2_000, r#"{"type":"generate","payload":{"prompt":"a"}}"#);
    until("it has begun", || answers(&book).0.len() > 100);
    ground.resize("model", 4);
    until("all four answer", || answers(&book).1.len() >= 4);
    ground.resize("model", 1);
    ground.until_done();
    ground.until_crew("model", 1);
    let told = ground.end();
    succeeded_once(&told, &book, 2_000);
    let unwanted = ["lost", "left", "failed", "process_exited", "attempt_returned"].map(|name| told.count(name));
    assert_eq!((unwanted, told.count("started")), ([0; 5], 2_000), "{told:?}");
    assert!(!is_left(&book), "a server outlived its worker");
}

#[test]
fn a_server_that_crashes_is_started_again_and_nothing_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("book");
    let ground = Ground::new(&config(&book, "slots = 4", r#", "--places", "4", "--crash-after", "60""#));
    ground.until_crew("model", 1);
    ground.submit_many(200, r#"{"type":"generate"}"#);
    ground.until_done();
    let said = ground.said();
    assert!(said.contains("out of memory, as models say") && said.contains("started again"), "{said}");
    let told = ground.end();
    succeeded_once(&told, &book, 200);
    assert!(answers(&book).1.len() >= 4, "each crashes after sixty: {:?}", answers(&book).1);
    // The worker went on, and lost nothing.
    assert_eq!((told.count("process_exited"), told.count("lost")), (0, 0), "{told:?}");
}

#[test]
fn a_server_that_says_nothing_any_more_is_started_again() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("book");
    let pool = "slots = 4\nhealth_every = \"500ms\"";
    let ground = Ground::new(&config(&book, pool, r#", "--places", "4", "--mute-after", "20""#));
    ground.until_crew("model", 1);
    ground.submit_many(30, r#"{"type":"generate"}"#);
    ground.until_done();
    let told = ground.end();
    told.all_succeeded(30);
    assert!(answers(&book).1.len() >= 2 && told.count("failed") > 0, "{told:?}");
}

#[test]
fn a_worker_anywhere_keeps_a_server_too_and_ends_it_with_itself() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("book");
    let external = config(&book, "fleet = \"external\"", r#", "--places", "4", "--load", "1.0""#);
    let ground = Ground::new(&external);
    let mut worker = ground.worker_with(&external, &["--pool", "model", "--slots", "4", "--gpu", "3"]);
    let id = ground.submit(r#"{"type":"generate"}"#);
    assert_eq!(ground.outcome(&id), "SUCCEEDED");
    assert_eq!(ground.result(&id)["gpu"], "3");
    // Whatever ends the worker, a server does not outlive it.
    assert!(is_left(&book));
    worker.child.kill().unwrap();
    until("its server is gone", || !is_left(&book));
    let worker = ground.worker_with(&external, &["--pool", "model", "--slots", "4"]);
    ground.submit_many(20, r#"{"type":"generate"}"#);
    ground.until_done();
    worker.end();
    assert!(!is_left(&book), "a server outlived its worker");
    ground.end().all_succeeded(21);
}

#[test]
fn a_server_that_is_never_ready_is_named_with_what_it_said() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("book");
    let external = config(&book, "fleet = \"external\"\nready_within = \"4s\"", r#", "--load", "3600""#);
    let ground = Ground::new(&external);
    let mut worker = ground.spawn(&external, &["--pool", "model"]);
    assert_eq!(worker.code(), Some(1));
    let said = worker.said();
    for words in ["python3, the server of the pool, was not ready within 4s", "/health answered with status 503"] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!is_left(&book));
    // And while it loads, a signal ends both.
    let external = config(&book, "fleet = \"external\"", r#", "--load", "3600""#);
    let mut worker = ground.spawn(&external, &["--pool", "model"]);
    until("it loads", || is_left(&book));
    std::thread::sleep(Duration::from_millis(100));
    worker.signal("TERM");
    assert_eq!(worker.code(), Some(0));
    until("its server is gone", || !is_left(&book));
    ground.end();
}

#[test]
fn processes_share_the_gpus_of_their_pool() {
    let home = tempfile::tempdir().unwrap();
    let book = home.path().join("book");
    let pool = "slots = 1\nreplicas = 4\ngpus = [0, 5]";
    let ground = Ground::new(&config(&book, pool, r#", "--latency", "0.05""#));
    ground.until_crew("model", 4);
    let ids: Vec<String> = (0..40).map(|_| ground.submit(r#"{"type":"generate"}"#)).collect();
    let mut gpus: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for id in &ids {
        assert_eq!(ground.outcome(id), "SUCCEEDED");
        let result = ground.result(id);
        gpus.entry(result["gpu"].as_str().unwrap().to_owned()).or_default().insert(result["pid"].to_string());
    }
    let counts: BTreeMap<&str, usize> = gpus.iter().map(|(gpu, servers)| (gpu.as_str(), servers.len())).collect();
    assert_eq!(counts, BTreeMap::from([("0", 2), ("5", 2)]));
    ground.end().all_succeeded(40);
}
