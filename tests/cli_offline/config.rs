use std::path::Path;

use crate::support::{command, json, run, run_command};

/// The page, as its readers have it.
const PAGE: &str = include_str!("../../docs/configuration.md");

fn value<'a>(rows: &'a [serde_json::Value], key: &str) -> (&'a str, &'a str) {
    let row = rows.iter().find(|row| row["key"] == key).unwrap();
    (row["value"].as_str().unwrap(), row["from"].as_str().unwrap())
}

#[test]
fn each_value_names_where_it_comes_from_and_the_stronger_wins() {
    let holder = tempfile::tempdir().unwrap();
    let file = holder.path().join("my.toml");
    std::fs::write(
        &file,
        "[log]\ndurability = \"interval:50ms\"\nkeep_events = 5_000\nlow_water = \"1GiB\"\n\n[pool.gpu]\nslots = 2\n",
    )
    .unwrap();
    let args = ["config", "show", "-o", "json", "--config", file.to_str().unwrap()];
    let ran = run_command(
        command(Path::new("/nowhere"), &args).env("ERGATE_LOG__LOW_WATER", "2GiB").env("ERGATE_POOL__GPU__REPLICAS", "3"),
    );
    let (rows, path) = (ran.json(), file.display());
    assert_eq!(value(&rows, "log.data"), ("/nowhere", "flag --data"));
    assert_eq!(value(&rows, "log.durability"), ("interval:50ms", format!("{path}:2").as_str()));
    assert_eq!(value(&rows, "log.keep_events"), ("5000", format!("{path}:3").as_str()));
    assert_eq!(value(&rows, "log.low_water"), ("2GiB", "environment variable ERGATE_LOG__LOW_WATER"));
    assert_eq!(value(&rows, "pool.gpu.replicas"), ("3", "environment variable ERGATE_POOL__GPU__REPLICAS"));
    assert_eq!(value(&rows, "pool.gpu.slots"), ("2", format!("{path}:7").as_str()));
    assert_eq!(value(&rows, "limits.tasks_live_max"), ("10000000", "default"));
    assert!(json(Path::new("/x"), &["config", "show"]).len() >= 12);
}

#[test]
fn the_documentation_is_a_configuration() {
    let holder = tempfile::tempdir().unwrap();
    let docs = run(Path::new("/nowhere"), &["config", "show", "--docs"]).out;
    let file = holder.path().join("ergate.toml");
    std::fs::write(&file, docs).unwrap();
    let shown = run_command(command(Path::new("/nowhere"), &["config", "show", "-o", "json"]).current_dir(holder.path())).json();
    let values =
        |rows: &[serde_json::Value]| rows.iter().map(|row| (row["key"].clone(), row["value"].clone())).collect::<Vec<_>>();
    assert_eq!(values(&shown), values(&json(Path::new("/nowhere"), &["config", "show"])));
    assert!(value(&shown, "log.durability").1.starts_with("ergate.toml:"), "{shown:?}");
}

#[test]
fn mistakes_are_refused_with_their_place_and_what_would_be_right() {
    let holder = tempfile::tempdir().unwrap();
    let file = holder.path().join("my.toml");
    let refuse = |text: &str, words: &[&str]| {
        std::fs::write(&file, text).unwrap();
        run(holder.path(), &["log", "tail", "--config", file.to_str().unwrap()]).refuses(2, words);
    };
    refuse("[log]\ndurabilty = \"fsync\"\n", &["my.toml:2", "no key `log.durabilty`", "`log.durability`"]);
    refuse("\n[limts]\ntasks_live_max = 5\n", &["my.toml:3", "`limits.tasks_live_max`"]);
    refuse("[pool.gpu]\nslot = 5\n", &["my.toml:2", "`pool.gpu.slots`"]);
    refuse("[log]\nlow_water = 64\n", &["my.toml:2", "`log.low_water` takes a size", "the number 64"]);
    refuse("[log]\ndurability = true\n", &["my.toml:2", "\"fsync\"", "the boolean true"]);
    refuse("[limits]\ntasks_live_max = 0\n", &["a whole number of at least 1", "the number 0"]);
    refuse("log = 5\n", &["my.toml:1", "no key `log`"]);
    refuse("[log\n", &["my.toml:1", "is not TOML"]);
    let env = |name: &str, value: &str| run_command(command(holder.path(), &["log", "tail"]).env(name, value));
    env("ERGATE_LOG__DATUM", "x").refuses(2, &["environment variable ERGATE_LOG__DATUM", "`log.data`"]);
    env("ERGATE_SHUTDOWN__DRAIN", "10").refuses(2, &["`shutdown.drain` takes a duration such as \"10s\"", "the text \"10\""]);
    run(holder.path(), &["log", "tail", "--config", "/no/such/file.toml"])
        .refuses(2, &["failed to read the configuration /no/such/file.toml"]);
}

/// The blocks of the page with this name.
fn blocks(name: &str) -> Vec<&'static str> {
    PAGE.split(&format!("```{name}\n")).skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

#[test]
fn the_page_of_the_configuration_is_true() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("ergate.toml");
    let [example] = blocks("toml")[..] else { panic!("one example") };
    std::fs::write(&file, example).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_ergate")).parent().unwrap().display().to_string();
    let path = format!("{binary}:{}", std::env::var("PATH").unwrap());
    let lines = blocks("console").into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("$ "));
    let printed = lines.map(|line| {
        let mut shell = std::process::Command::new("bash");
        let ran = shell.args(["-c", line]).current_dir(home.path()).env("PATH", &path).output().unwrap();
        assert!(ran.status.success(), "{line}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    });
    let printed = printed.collect::<Vec<_>>();
    assert_eq!(printed.len(), 4);
    let [shown, mistakes] = blocks("text")[..] else { panic!("what is shown, and mistakes") };
    shown.lines().for_each(|line| assert!(printed[2].lines().any(|found| found == line), "{line} is not in {}", printed[2]));
    for key in printed[3].lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        let section = key["key"].as_str().unwrap().split('.').next().unwrap();
        let named = [format!("| `[{section}]`"), format!("| `[{section}.NAME]`")];
        assert!(named.iter().any(|name| PAGE.contains(name)), "the page does not name the section of {key}");
    }
    for (mistake, line) in [("timout = \"30s\"", 0), ("timeout = \"30\"", 1)] {
        std::fs::write(&file, example.replace("timeout = \"30s\"", mistake)).unwrap();
        let ran = run_command(command(Path::new("/nowhere"), &["config", "show"]).current_dir(home.path()));
        ran.refuses(2, &[mistakes.lines().nth(line).unwrap()]);
    }
}
