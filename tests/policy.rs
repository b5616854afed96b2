//! `ergate policy conformance` as scripts use it: what it prints and how it ends, for good files, files that differ and files that are none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;

use std::path::{Path, PathBuf};

use command::{Ended, run};
use serde_json::Value;

const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hpa/scenarios.json");

fn conformance(file: &Path, flags: &[&str]) -> Ended {
    let mut all = vec!["policy", "conformance", file.to_str().unwrap()];
    all.extend(flags);
    run(&all)
}

fn written(dir: &Path, text: &[u8]) -> PathBuf {
    let path = dir.join("scenarios.json");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn our_own_scenarios_do_not_differ() {
    assert_eq!(conformance(OWN.as_ref(), &[]).expect(0).out, "16 scenarios, 0 differ\n");
    let told: Value = conformance(OWN.as_ref(), &["--json"]).expect(0).json();
    assert_eq!((&told["scenarios"], &told["differ"], &told["first"]), (&16.into(), &0.into(), &Value::Null));
}

/// Scenarios of others: in the folder that `ERGATE_SHARED_DATA` names, or beside the repository.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn scenarios_of_others_do_not_differ() {
    let folder = std::env::var_os("ERGATE_SHARED_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data"), PathBuf::from);
    let path = folder.join("hpa-cases.json");
    if !path.exists() {
        eprintln!("skipped: {} is not there; ERGATE_SHARED_DATA names the folder that has it", path.display());
        return;
    }
    let out = conformance(&path, &[]).expect(0).out;
    assert!(out.ends_with(" scenarios, 0 differ\n"), "{out}");
    let count: u32 = out.split(' ').next().unwrap().parse().unwrap();
    assert!(count >= 200, "{out}");
}

#[test]
fn the_first_difference_is_told_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(OWN).unwrap().replace(r#""replicas": 12,"#, r#""replicas": 11,"#);
    let path = written(dir.path(), text.as_bytes());
    let out = conformance(&path, &[]).expect(1).out;
    assert!(out.starts_with("16 scenarios, 1 differ\nfirst: scenario up-100-percent-or-2-a-minute, step 2"), "{out}");
    for part in [
        "expected  11 replicas",
        "found     12 replicas",
        "ScalingLimited=True/ScaleUpLimit",
        "from 6 to 12 replicas",
        r#""wanted":6"#,
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let told = conformance(&path, &["-o", "json"]).expect(1).json();
    assert_eq!(told["differing"], serde_json::json!(["up-100-percent-or-2-a-minute"]));
    assert_eq!((&told["first"]["expected"]["replicas"], &told["first"]["decision"]["wanted"]), (&11.into(), &12.into()));
}

#[test]
fn what_is_no_file_of_scenarios_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path, reason: &str| {
        let ended = conformance(path, &[]).expect(2);
        assert!(ended.err.contains(reason) && ended.out.is_empty(), "{reason}: {ended:?}");
        assert_eq!(ended.err.lines().count(), 1, "{ended:?}");
    };
    refused(&dir.path().join("none.json"), "No such file");
    refused(dir.path(), "directory");
    refused(&written(dir.path(), b"{\"schema\": \"hpa-cases/2\", \"cases\": []}"), "hpa-cases/2");
    refused(&written(dir.path(), b"{\"schema\": \"hpa-cases/1\", \"cases\": []}"), "no scenario");
    refused(&written(dir.path(), &[b'['; 10_000_000]), "nested deeper");
    refused(&written(dir.path(), b"\xff\xfe"), "expected value");
    refused(&written(dir.path(), b"{\"schema\": \"hpa-cases/1\", \"cases\": [{\"id\": \"a\", \"spec\": 7}]}"), "line 1");
    let sparse = std::fs::File::create(dir.path().join("large.json")).unwrap();
    sparse.set_len(100 << 20).unwrap();
    refused(&dir.path().join("large.json"), "larger than 32 MiB");
}
