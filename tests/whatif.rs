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
    refused(&good, &["--policy", unknown.to_str().unwrap()], "p.toml: it is no policy: unknown variant `magic`");
    let sleeps = format!("{POLICIES}/rules-gpu.toml");
    refused(&good, &["--policy", &sleeps], "rules-gpu: `idle.replicas` is 0");
    whatif(&good, &["--policy", &sleeps, "--min", "0"]).expect(0);
    let picture = dir.path().join("no/such/folder.svg");
    whatif(&good, &["--plot", picture.to_str().unwrap()]).expect(8);
}

/// Ten seconds of a trace that drive a live pool: a task every 5 s that takes 30 s, sixty times as fast.
fn live(dir: &Path) -> (PathBuf, Value) {
    let rows: String = (0..400).map(|index| format!("{},30\n", index * 5)).collect();
    let trace = written(dir, "live.csv", &format!("arrival_s,service_s\n{rows}"));
    let data = dir.join("data");
    let flags = ["demo", "--trace", trace.to_str().unwrap(), "--data", data.to_str().unwrap(), "--seconds", "10", "--max", "9"];
    let ended = run(&[&flags[..], &["-o", "json"]].concat()).expect(0);
    assert!(ended.err.contains(" of 121 tasks done, "), "{}", ended.err);
    assert!(ended.err.contains(" from 0 to 1 replica: "), "{}", ended.err);
    (data, ended.json())
}

#[test]
fn a_trace_drives_a_live_pool_whose_log_is_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data, told) = live(dir.path());
    assert_eq!((&told["happened"]["tasks"], &told["backtest"]["tasks"]), (&121.into(), &121.into()));
    assert_eq!((&told["replay"]["equal"], &told["speed"]), (&true.into(), &60.0.into()));
    assert!(told["happened"]["changes"].as_u64().unwrap() >= 3, "{told}");
    // Six at work at a time, for ten seconds; each task has half a second to sleep.
    let seconds = |row: &str| told[row]["replica_seconds"].as_f64().unwrap();
    assert!(seconds("happened") >= 60.0 && seconds("backtest") >= 60.0, "{told}");

    let log = ["--data", data.to_str().unwrap(), "--pool", "trace"];
    let asked = |more: &[&str]| run(&[&["whatif"], &log[..], more].concat());
    let json = asked(&["--policy", "balanced", "-o", "json"]).expect(0).json();
    let rows = json["policies"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["recorded", "run again", "balanced"]);
    for (row, column) in [("waits_counted", "tasks"), ("changes", "changes"), ("replicas_started", "replicas_started")] {
        assert_eq!(rows[0][row], told["happened"][column], "{row}");
    }
    assert!(rows.iter().all(|row| row["waits_counted"] == 121 && row["unserved"] == 0), "{json}");
    let fidelity = &json["fidelity"];
    assert!(fidelity["decision_that_differs"].is_null() && fidelity["decisions"].as_u64().unwrap() > 3, "{json}");
    assert_eq!(fidelity["reliable"].as_bool().unwrap(), fidelity["doubts"].as_array().unwrap().is_empty());
    assert_eq!(json["pool"]["max"], 9);
    // Both numbers are there for whoever reads, and the answer is the same every time.
    let out = asked(&["--policy", "balanced"]).expect(0).out;
    assert!(out.contains("waits recorded and simulated: mean ") && out.contains("\nrecorded "), "{out}");
    assert!(out.contains("\nUNRELIABLE: ") || out.contains("\nreliable: "), "{out}");
    assert_eq!(out, asked(&["--policy", "balanced"]).expect(0).out);
    // A part of it: what counts begins later, and nothing is lost of what came before.
    let since = json["log"]["began"].as_str().unwrap().to_owned();
    let part = asked(&["--policy", "balanced", "-o", "json", "--since", &since]).expect(0).json();
    assert_eq!(part["policies"][0]["waits_counted"], 121);
    assert!(asked(&["--until", "4"]).expect(2).err.contains("it holds no task"));
    assert!(run(&["whatif", "--data", data.to_str().unwrap(), "--pool", "nobody"]).expect(6).err.contains("\"nobody\""));

    let check = |budget: &str, code: i32| {
        let policy = format!("{POLICIES}/low-latency.toml");
        run(&[&["policy", "check", &policy], &log[..], &["--budget", budget]].concat()).expect(code)
    };
    check("p99<10s,cost<+10000%", 0);
    let outside = check("p99<10s,changes<0", 1).out;
    assert!(outside.contains("within p99<10s: ") && outside.contains("OUTSIDE changes<0: "), "{outside}");
    assert!(check("p98<1s", 2).err.contains("there is no \"p98\" in a budget"));
    assert!(run(&["demo", "--trace", "x.csv", "--data", data.to_str().unwrap()]).expect(2).err.contains("x.csv as a trace"));
}

#[test]
fn a_sweep_shows_what_no_other_combination_beats() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let flags = ["--policy", "rate", "--sweep", "reserve=0,1,2", "max=2,4,8"];
    let out = whatif(&trace, &flags).expect(0).out;
    assert!(out.contains("9 combinations; shown are those that no other one beats"), "{out}");
    let shown = out.lines().filter(|line| line.starts_with("reserve=")).count();
    let csv = whatif(&trace, &[&flags[..], &["--csv"]].concat()).expect(0).out;
    let front = csv.lines().filter(|line| line.split(',').nth(25) == Some("true")).count();
    assert_eq!((csv.lines().count(), front), (10, shown));
    assert!((1..9).contains(&shown), "{out}");
    let json = whatif(&trace, &[&flags[..], &["-o", "json"]].concat()).expect(0).json();
    assert_eq!((&json["combinations"], json["policies"].as_array().unwrap().len()), (&9.into(), 9));
    let refused = |flags: &[&str], part: &str| {
        let error = whatif(&trace, flags).expect(2).err;
        assert!(error.contains(part), "{flags:?}: {error}");
    };
    refused(&["--sweep", "reserves=1"], "there is no such key; there are min, max, slots, ");
    refused(&["--sweep", "reserve"], "write KEY=a,b,c");
    refused(&["--sweep", "max=0,1"], "min is 1; allowed is at most the maximum");
    refused(&["--policy", "rate", "kpa", "--sweep", "max=1"], "--sweep tries values of one policy");
    refused(&["--pool", "crew"], "cannot be used with");
}

#[test]
fn a_policy_is_held_against_another_one_on_a_trace() {
    let dir = tempfile::tempdir().unwrap();
    let trace = trace(dir.path());
    let check = |more: &[&str]| run(&[&["policy", "check", "balanced", "--trace", trace.to_str().unwrap()], more].concat());
    assert!(check(&["--budget", "p99<1h"]).expect(2).err.contains("name the one to compare with"));
    let against = ["--against", "kpa", "--budget"];
    let json = check(&[&against[..], &["cost<+1000%,over<50%", "-o", "json"]].concat()).expect(0).json();
    assert_eq!((&json["within"], &json["terms"][0]["term"]), (&true.into(), &"cost<+1000%".into()));
    let other = json["terms"][0]["other"].as_f64().unwrap();
    assert!((json["terms"][0]["below"].as_f64().unwrap() - 11.0 * other).abs() < 1e-9);
    let json = check(&[&against[..], &["cost<-99%", "-o", "json"]].concat()).expect(1).json();
    assert_eq!(json["terms"][0]["holds"], false);
}
