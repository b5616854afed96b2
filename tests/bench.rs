//! `ergate bench` as a user sees it: what it reports, and what it does when there is no space.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;

use std::fs::File;
use std::path::Path;

use command::{Ended, ergate, signal, until};

/// No disk has that much.
const LOW_WATER: (&str, &str) = ("ERGATE_LOG__LOW_WATER", "900TiB");

fn bench(dir: &Path, args: &[&str]) -> Ended {
    Ended::of(&ergate(&[&["bench"], args].concat()).current_dir(dir).output().unwrap())
}

#[test]
fn a_log_in_memory_claims_no_sync() {
    let dir = tempfile::tempdir().unwrap();
    let figures = bench(dir.path(), &["--tasks", "2000", "--log", "memory", "--json"]).expect(0).json();
    assert_eq!((&figures["log"], &figures["durability"], &figures["fsyncs"]), (&"memory".into(), &"memory".into(), &0.into()));
    assert!(figures["cpu_us_per_task"].as_f64().unwrap() > 0.0, "{figures}");
}

#[test]
fn several_logs_are_compared_round_after_round() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--tasks", "2000", "--log", "memory,file", "--rounds", "2"];
    let compared = bench(dir.path(), &[&args[..], &["-o", "json"]].concat()).expect(0).json();
    let runs: Vec<_> = compared["runs"].as_array().unwrap().iter().map(|run| run["log"].as_str().unwrap()).collect();
    assert_eq!(runs, ["memory", "file", "memory", "file"]);
    let [memory, file] = compared["medians"].as_array().unwrap().as_slice() else { panic!("a line a log: {compared}") };
    assert_eq!((&memory["durability"], &file["durability"]), (&"memory".into(), &"fsync".into()));
    assert_eq!(memory["of_first"], 1.0);
    assert!(file["disk_bytes_per_event"].as_f64().unwrap() > 10.0, "{file}");
    assert!(file["fsyncs"].as_f64().unwrap() > 0.0 && file["bare_file_ratio"].as_f64().unwrap() > 0.0, "{file}");
    let table = bench(dir.path(), &args).expect(0);
    assert!(table.out.contains("OF MEMORY") && table.out.lines().count() == 4, "{table:?}");
    assert!(table.err.contains("round 2 of 2: file"), "{table:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "every run takes its directory with it");
}

#[test]
fn a_full_disk_ends_the_bench_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["bench", "--tasks", "100000000", "--log", "file", "--space-wait", "1s", "--quiet"];
    let ended = Ended::of(&ergate(&args).env(LOW_WATER.0, LOW_WATER.1).current_dir(dir.path()).output().unwrap()).expect(8);
    assert!(ended.err.contains("waiting for space: ") && ended.err.contains("gave up waiting for space: "), "{ended:?}");
    assert!(ended.err.contains("bytes (") && ended.err.contains("low-water mark of 989560464998400 (900.00 TiB)"), "{ended:?}");
}

#[test]
fn work_that_waits_for_space_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let line = "{\"type\":\"sleep\",\"payload\":{\"ms\":100}}\n";
    std::fs::write(dir.path().join("lines"), line.repeat(20_000)).unwrap();
    let mut child = ergate(&["submit", "--ndjson", "lines", "--log", "file:data", "--drain", "0s", "--quiet"])
        .env(LOW_WATER.0, LOW_WATER.1)
        .current_dir(dir.path())
        .stderr(File::create(dir.path().join("err")).unwrap())
        .spawn()
        .unwrap();
    let err = || std::fs::read_to_string(dir.path().join("err")).unwrap();
    until("it says that it waits", || err().contains("waiting for space: "));
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", err());
}
