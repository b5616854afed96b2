//! `ergate whatif` as people and scripts use it: what it prints, what it draws and what it refuses.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;

use std::path::{Path, PathBuf};

use command::{Ended, run};
use serde_json::Value;

const POLICIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/examples/policies");

fn whatif(trace: &Path, flags: &[&str]) -> Ended {
    let mut all = vec!["whatif", "--trace", trace.to_str().unwrap()];
    all.extend(flags);
    run(&all)
}

/// A task every two seconds for ten minutes, each of which takes 6 s.
fn trace(dir: &Path) -> PathBuf {
    let rows: String = (0..300).map(|index| format!("{},6\n", index * 2)).collect();
    written(dir, "trace.csv", &format!("arrival_s,service_s\n{rows}"))
}

fn written(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn presets_are_compared_with_what_is_possible() {
    let dir = tempfile::tempdir().unwrap();
    let out = whatif(&trace(dir.path()), &[]).expect(0).out;
    assert!(out.starts_with("300 tasks in 9m 58s; 1 to 20 replicas with 1 slot, 60s to start one"), "{out}");
    for part in ["low-cost ", "balanced ", "low-latency ", "rate ", "kpa ", "hpa ", "hpa-waiting ", "keda "] {
        assert!(out.lines().any(|line| line.starts_with(part)), "{part}: {out}");
    }
    // 300 × 6 s; three at work all the time, each with a start of a minute.
    assert!(out.contains("work alone                             0.50 h"), "{out}");
    assert!(out.contains("clairvoyant, no waits                  0.55 h"), "{out}");
}

#[test]
fn json_csv_and_the_table_say_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let policy = format!("{POLICIES}/balanced.toml");
    let flags = ["--policy", &policy, "--warm-up", "2m", "--price", "2.5"];
    let json: Value = whatif(&trace, &[&flags[..], &["-o", "json"]].concat()).expect(0).json();
    assert_eq!(json, whatif(&trace, &[&flags[..], &["-o", "json"]].concat()).expect(0).json());
    let one = &json["policies"][0];
    assert_eq!((&one["policy"], &one["waits_counted"], &one["interrupted"]), (&"balanced".into(), &240.into(), &0.into()));
    let hours = one["replica_hours"].as_f64().unwrap();
    assert_eq!(one["cost"].as_f64().unwrap(), hours * 2.5);
    assert!(hours > json["bounds_hours"]["work_floor"].as_f64().unwrap());
    assert_eq!(one["digest"].as_str().unwrap().len(), 64);
    assert!(one["series"].as_array().unwrap().len() > 100);
    let csv = whatif(&trace, &[&flags[..], &["--csv"]].concat()).expect(0).out;
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((rows.len(), rows[0][0], rows[0].len()), (2, "policy", rows[1].len()));
    for (column, cell) in rows[0].iter().zip(&rows[1]) {
        let value = &one[*column];
        assert_eq!(value.as_str().map_or_else(|| value.to_string(), str::to_owned), **cell, "{column}");
    }
}

#[test]
fn the_picture_is_well_formed_whatever_policies_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let policy = written(dir.path(), "<&>\".json", r#"{"policy": "rate", "reserve": 1}"#);
    let picture = dir.path().join("plot.svg");
    let flags = ["--policy", policy.to_str().unwrap(), "--warm-up", "1m", "--plot", picture.to_str().unwrap()];
    whatif(&trace(dir.path()), &flags).expect(0);
    let text = std::fs::read_to_string(&picture).unwrap();
    assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    assert!(text.contains("&lt;&amp;&gt;&quot;: ") && !text.contains("<&"));
    for title in ["cost, replica-hours", "wait p99, seconds", "time, hours", "tasks waiting", "wait target", "work alone: 0.5 h"]
    {
        assert!(text.contains(title), "{title}");
    }
    assert!(!text.contains("NaN") && !text.contains("inf"));
    // Every element begins and ends on its own line.
    assert!(text.lines().skip(1).all(|line| line.starts_with('<') && line.ends_with('>')));
}

#[test]
fn what_cannot_be_run_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let good = trace(dir.path());
    let refused = |trace: &Path, flags: &[&str], part: &str| {
        let error = whatif(trace, flags).expect(2).err;
        assert!(error.contains(part), "{flags:?}: {error}");
    };
    refused(&dir.path().join("none.csv"), &[], "none.csv as a trace: ");
    refused(&written(dir.path(), "a.csv", ""), &[], "it is empty");
    refused(&written(dir.path(), "b.csv", "arrival_s,service_s\n"), &[], "it holds no task");
    refused(&written(dir.path(), "c.csv", "arrival_s,service_s\n1,x\n"), &[], "line 2: service_s is \"x\"");
    refused(&good, &["--min", "5", "--max", "4"], "min is 5");
    refused(&good, &["--slots", "0"], "slots is 0");
    refused(&good, &["--price", "nan"], "price is NaN");
    refused(&good, &["--service-model", "gpt"], "use `azure`");
    let unknown = written(dir.path(), "p.toml", "policy = \"magic\"\n");
    refused(&good, &["--policy", unknown.to_str().unwrap()], "p.toml as a policy");
    let sleeps = format!("{POLICIES}/rules-gpu.toml");
    refused(&good, &["--policy", &sleeps], "rules-gpu: `idle.replicas` is 0");
    whatif(&good, &["--policy", &sleeps, "--min", "0"]).expect(0);
    let picture = dir.path().join("no/such/folder.svg");
    whatif(&good, &["--plot", picture.to_str().unwrap()]).expect(8);
}
