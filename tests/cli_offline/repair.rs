use std::path::Path;

use crate::support::{builder, flip, json, log, long_log, run, segments, with_runtime};

/// Damages the middle of a long log; says how many events are behind the damage.
fn damaged(dir: &Path) -> u64 {
    long_log(dir, 100);
    let segment = &segments(dir)[1];
    let middle = std::fs::metadata(segment).unwrap().len() as usize / 2;
    flip(segment, middle);
    let [found] = &json(dir, &["log", "repair"])[..] else { panic!("one object") };
    found["missing"].as_u64().unwrap()
}

#[test]
fn a_whole_log_has_nothing_to_repair() {
    let (_holder, dir) = log();
    let before = json(&dir, &["log", "verify"])[0]["head"].clone();
    for args in [&["log", "repair"][..], &["log", "repair", "--accept-loss", "0", "--yes"]] {
        let ran = run(&dir, args);
        assert_eq!(ran.code, 0, "{}", ran.err);
        assert!(ran.out.contains("nothing to repair"), "{}", ran.out);
    }
    assert_eq!(json(&dir, &["log", "verify"])[0]["head"], before);
    run(&dir, &["log", "repair", "--accept-loss", "5", "--yes"]).refuses(2, &["the log is whole, so there is no loss to accept"]);
}

#[test]
fn without_acceptance_a_repair_only_explains() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    let missing = damaged(&dir);
    assert!(missing > 0);
    let before = std::fs::read(&segments(&dir)[1]).unwrap();
    let ran = run(&dir, &["log", "repair"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.out.contains("damaged at position") && ran.out.contains(&format!("--accept-loss {missing}")), "{}", ran.out);
    let wrong = (missing - 1).to_string();
    run(&dir, &["log", "repair", "--accept-loss", &wrong, "--yes"]).refuses(5, &[&format!("{missing} acknowledged events")]);
    let right = missing.to_string();
    run(&dir, &["log", "repair", "--accept-loss", &right]).refuses(2, &["add `--yes`"]);
    assert_eq!(std::fs::read(&segments(&dir)[1]).unwrap(), before);
}

#[test]
fn an_accepted_loss_is_recorded_and_the_log_goes_on() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    let missing = damaged(&dir).to_string();
    let ran = run(&dir, &["log", "repair", "--accept-loss", &missing, "--yes", "--reason", "the disk died"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("set aside: ") && ran.out.contains("recorded in the log"), "{}", ran.out);
    assert_eq!(json(&dir, &["log", "verify", "--decisions"])[0]["ok"], true);
    let events = json(&dir, &["log", "tail", "-n", "20"]);
    let accepted = events.iter().find(|event| event["event"] == "loss_accepted").unwrap();
    assert_eq!((accepted["missing"].to_string(), &accepted["reason"]), (missing, &"the disk died".into()));
    with_runtime(builder(&dir), async |runtime| {
        runtime.submit("greet", "again").await.unwrap().result::<String>().await.unwrap();
    });
    assert_eq!(json(&dir, &["log", "verify", "--decisions"])[0]["ok"], true);
}

#[test]
fn a_lost_anchor_is_written_anew_without_any_loss() {
    let (_holder, dir) = log();
    std::fs::remove_file(dir.join("anchor")).unwrap();
    let ran = run(&dir, &["log", "repair"]);
    assert_eq!(ran.code, 5, "{}", ran.err);
    assert!(ran.out.contains("would lose no event"), "{}", ran.out);
    assert_eq!(run(&dir, &["log", "repair", "--accept-loss", "0", "--yes"]).code, 0);
    assert_eq!(json(&dir, &["log", "verify", "--decisions"])[0]["ok"], true);
}

#[test]
fn a_log_in_use_is_left_alone() {
    let (_holder, dir) = log();
    with_runtime(builder(&dir), async |_| {
        run(&dir, &["log", "repair"]).refuses(7, &["is in use by process"]);
    });
    run(&dir, &["log", "repair", "--accept-loss", "many"]).refuses(2, &["invalid digit"]);
    let long = "x".repeat(300);
    run(&dir, &["log", "repair", "--reason", &long]).refuses(2, &["the reason is longer than 256 bytes"]);
}
