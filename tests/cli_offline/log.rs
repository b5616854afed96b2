use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{builder, command, json, log, long_log, run, run_command, with_runtime};

#[test]
fn tail_shows_the_newest_events_and_show_one_in_full() {
    let (_holder, dir) = log();
    let all = json(&dir, &["log", "tail", "--from", "0"]);
    assert!(all.len() > 20, "{}", all.len());
    for (position, event) in all.iter().enumerate() {
        assert_eq!(event["position"], position.to_string());
        assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
    }
    let newest = json(&dir, &["log", "tail", "-n", "3"]);
    assert_eq!(newest, all[all.len() - 3..]);
    assert_eq!(json(&dir, &["log", "tail"]).len(), 10);
    assert_eq!(json(&dir, &["log", "tail", "--from", "2", "-n", "4"]), all[2..6]);
    let requested = all.iter().position(|event| event["event"] == "requested").unwrap();
    let shown = json(&dir, &["log", "show", &requested.to_string(), "--count", "2"]);
    assert_eq!(shown.len(), 2);
    assert_eq!((&shown[0]["task"], &shown[0]["payload"]), (&"0-0".into(), &"\"world\"".into()));
    assert_eq!(shown[0]["origin"], "input");
    assert!(shown[0]["block"]["hash"].as_str().unwrap().len() == 64, "{}", shown[0]);
    let table = run(&dir, &["log", "show", &requested.to_string()]);
    assert!(table.out.contains("event        requested"), "{}", table.out);
}

#[test]
fn nothing_that_a_task_says_reaches_the_terminal_raw() {
    let (_holder, dir) = log();
    for args in [&["log", "tail", "-n", "100"][..], &["task", "show", "0-3"], &["task", "history", "0-3"]] {
        let ran = run(&dir, args);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("broken") && !ran.out.contains('\u{1b}'), "{}", ran.out);
    }
}

#[test]
fn positions_outside_the_log_are_refused_by_name() {
    let (_holder, dir) = log();
    run(&dir, &["log", "show", "99999"]).refuses(6, &["position 99999 is beyond the end of the log at"]);
    run(&dir, &["log", "tail", "--from", "99999"]).refuses(6, &["beyond the end"]);
    run(&dir, &["log", "export", "--from", "99999"]).refuses(6, &["beyond the end"]);
    run(&dir, &["log", "show", "x1"]).refuses(2, &["a position as a plain number"]);
    run(&dir, &["log", "export", "--until", "yesterday"]).refuses(2, &["2026-03-01T12:00:00Z"]);
}

#[test]
fn verify_agrees_with_itself_and_with_the_rules() {
    let (_holder, dir) = log();
    let [chain] = &json(&dir, &["log", "verify"])[..] else { panic!("one object") };
    let [decisions] = &json(&dir, &["log", "verify", "--decisions"])[..] else { panic!("one object") };
    assert_eq!(chain["ok"], true);
    assert_eq!(chain["state_digest"], decisions["state_digest"]);
    assert_eq!(chain["events"], chain["head"]);
    assert_eq!(decisions["decisions"], true);
    let [replayed] = &json(&dir, &["replay"])[..] else { panic!("one object") };
    assert_eq!(replayed["digest"], chain["state_digest"]);
    let table = run(&dir, &["log", "verify", "--decisions"]);
    assert!(table.out.contains("every byte, hash and decision"), "{}", table.out);
}

#[test]
fn export_gives_every_event_as_json_or_as_a_cloud_event() {
    let (holder, dir) = log();
    let all = json(&dir, &["log", "tail", "--from", "0"]);
    let plain = run(&dir, &["log", "export"]).json();
    assert_eq!(plain, all);
    let file = holder.path().join("events.json");
    let ran = run(&dir, &["log", "export", "--format", "cloudevents", "--to", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    let text = std::fs::read_to_string(&file).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), all.len());
    let requested = events.iter().find(|event| event["type"] == "dev.ergate.requested.v1").unwrap();
    assert_eq!(requested["specversion"], "1.0");
    assert_eq!(requested["subject"], "0-0");
    assert_eq!(requested["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    assert_eq!(requested["id"], format!("0-{}", requested["data"]["position"].as_str().unwrap()));
    assert_eq!(requested["sequence"].as_str().unwrap().len(), 20);
    assert!(requested["source"].as_str().unwrap().starts_with("/ergate/"), "{requested}");
    assert_eq!(requested["time"], requested["data"]["time"]);
}

#[test]
fn export_begins_and_ends_where_it_is_told() {
    let (_holder, dir) = log();
    let all = json(&dir, &["log", "tail", "--from", "0"]);
    assert_eq!(run(&dir, &["log", "export", "--from", "3", "--until", "7"]).json(), all[3..7]);
    let time = all[7]["time"].as_str().unwrap();
    let until = run(&dir, &["log", "export", "--until", time]).json();
    assert!(until.iter().all(|event| event["time"].as_str().unwrap() <= time));
    let from = run(&dir, &["log", "export", "--from", time]).json();
    assert!(from.iter().all(|event| event["time"].as_str().unwrap() >= time));
    let both = until.iter().filter(|event| event["time"] == time).count();
    assert_eq!(until.len() + from.len() - both, all.len());
    let micros = all[7]["recorded_at"].to_string();
    assert_eq!(run(&dir, &["log", "export", "--until", &micros]).json(), until);
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    long_log(&dir, 300);
    for args in [&["log", "export"][..], &["log", "tail", "--from", "0"]] {
        let mut child = command(&dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_full_device_and_an_unwritable_target_are_told_apart_from_damage() {
    let (holder, dir) = log();
    for args in [&["log", "export"][..], &["log", "tail"], &["task", "list"], &["replay"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        run_command(command(&dir, args).stdout(full)).refuses(8, &["No space left"]);
    }
    run(&dir, &["log", "export", "--to", "/dev/full"]).refuses(8, &["/dev/full", "No space left"]);
    let nowhere = holder.path().join("no/such/folder/events.json");
    run(&dir, &["log", "export", "--to", nowhere.to_str().unwrap()]).refuses(8, &["failed to write", "No such file"]);
    run(&dir, &["log", "export", "--to", holder.path().to_str().unwrap()]).refuses(8, &["directory"]);
}

#[test]
fn a_follower_sees_what_a_running_writer_adds() {
    let (_holder, dir) = log();
    let next = json(&dir, &["replay"])[0]["position"].to_string();
    let args = ["log", "tail", "--from", &next, "--follow", "-o", "json"];
    let mut child = command(&dir, &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    with_runtime(builder(&dir), async |runtime| {
        runtime.submit("greet", "late").await.unwrap().result::<String>().await.unwrap();
        let seen = lines.by_ref().map(|line| line.unwrap()).find(|line| line.contains("late"));
        assert!(seen.unwrap().contains("\"task\":\"0-5\""));
        assert_eq!(json(&dir, &["log", "verify", "--decisions"])[0]["ok"], true);
    });
    child.kill().unwrap();
    child.wait().unwrap();
}
