use crate::support::{builder, json, log, long_log, run, small_files, with_runtime};

fn ids(rows: &[serde_json::Value]) -> Vec<&str> {
    rows.iter().map(|row| row["task"].as_str().unwrap()).collect()
}

#[test]
fn a_task_is_shown_with_all_that_is_known() {
    let (_holder, dir) = log();
    let [done] = &json(&dir, &["task", "show", "0-0"])[..] else { panic!("one object") };
    assert_eq!((&done["type"], &done["state"], &done["outcome"]), (&"greet".into(), &"ended".into(), &"SUCCEEDED".into()));
    assert_eq!(done["result"], "\"hello, world\"");
    assert_eq!(done["attempts"][0]["how"], "succeeded");
    assert_eq!(done["key"]["key"], "first");
    let [dead] = &json(&dir, &["task", "show", "0-3"])[..] else { panic!("one object") };
    assert_eq!(
        (&dead["state"], &dead["cause"], &dead["failure"]["class"]),
        (&"dead".into(), &"not_retryable".into(), &"broken".into())
    );
    let [live] = &json(&dir, &["task", "show", "0-4"])[..] else { panic!("one object") };
    assert_eq!((&live["type"], &live["outcome"]), (&"sleep".into(), &serde_json::Value::Null));
    assert!(["ready", "running"].contains(&live["state"].as_str().unwrap()), "{live}");
    let table = run(&dir, &["task", "show", "0-0"]);
    assert!(table.out.contains("outcome") && table.out.contains("ATTEMPT"), "{}", table.out);
}

#[test]
fn a_history_has_the_events_of_its_task_in_order() {
    let (_holder, dir) = log();
    let events = json(&dir, &["task", "history", "0-3"]);
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["requested", "started", "failed", "dead_lettered"]);
    assert!(events.iter().all(|event| event["task"] == "0-3"));
}

#[test]
fn unknown_and_malformed_ids_are_refused_with_what_to_do() {
    let (_holder, dir) = log();
    for verb in ["show", "history"] {
        run(&dir, &["task", verb, "0-77"]).refuses(6, &["no task 0-77", "ergate task list"]);
        run(&dir, &["task", verb, "3-0"]).refuses(6, &["no task 3-0"]);
        run(&dir, &["task", verb, "seven"]).refuses(2, &["`SHARD-NUMBER`, for example `0-42`"]);
    }
    run(&dir, &["task", "list", "--type", "nope"]).refuses(6, &["no task type \"nope\"", "fail, greet, sleep"]);
    run(&dir, &["task", "list", "--outcome", "great"]).refuses(2, &["succeeded, partial, failed"]);
    run(&dir, &["task", "list", "--before", "12"]).refuses(2, &["ended-1200"]);
}

#[test]
fn the_list_is_filtered_by_type_outcome_and_state() {
    let (_holder, dir) = log();
    assert_eq!(ids(&json(&dir, &["task", "list"])), ["0-4", "0-3", "0-2", "0-1", "0-0"]);
    assert_eq!(ids(&json(&dir, &["task", "list", "--type", "greet", "--limit", "2"])), ["0-2", "0-1"]);
    assert_eq!(ids(&json(&dir, &["task", "list", "--outcome", "failed"])), ["0-3"]);
    assert_eq!(ids(&json(&dir, &["task", "list", "--state", "live"])), ["0-4"]);
    assert_eq!(ids(&json(&dir, &["task", "list", "--state", "dead"])), ["0-3"]);
    assert_eq!(ids(&json(&dir, &["task", "list", "--state", "ended"])), ["0-3", "0-2", "0-1", "0-0"]);
    assert_eq!(ids(&json(&dir, &["task", "list", "--state", "delayed"])), [""; 0]);
}

#[test]
fn the_list_is_filtered_by_labels() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    let labelled = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ergate::Extras { labels, ..ergate::Extras::default() }
    };
    with_runtime(builder(&dir), async |runtime| {
        for number in 0..300 {
            let (team, parity) = (["red", "blue", "green"][number % 3], (number % 2).to_string());
            let extras = labelled(&[("team", team), ("parity", &parity)]);
            runtime.submit_with("greet", "you", extras).await.unwrap().result::<String>().await.unwrap();
        }
        let red = labelled(&[("team", "red")]);
        runtime.submit_with("fail", &1, red.clone()).await.unwrap().end().await.unwrap();
        runtime.redrive("0-300".parse().unwrap(), "test", "try again").await.unwrap();
        runtime.wait("0-301".parse().unwrap()).await.unwrap();
        runtime.submit_with("sleep", &1, red).await.unwrap();
    });
    let list = |args: &[&str]| {
        let rows = json(&dir, &[&["task", "list", "--limit", "500"], args].concat());
        ids(&rows).iter().map(|id| id[2..].parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    let those = |wanted: fn(&u32) -> bool| (0..300).rev().filter(wanted).collect::<Vec<_>>();
    assert_eq!(list(&["--label", "team=red"]), [vec![302, 301, 300], those(|n| n % 3 == 0)].concat());
    assert_eq!(list(&["--label", "team=red", "--label", "parity=1"]), those(|n| n % 6 == 3));
    assert_eq!(list(&["--label", "team=red", "--state", "dead"]), [301]);
    assert_eq!(list(&["--label", "team=red", "--outcome", "failed"]), [301, 300]);
    assert_eq!(list(&["--label", "team=red", "--state", "live"]), [302]);
    assert_eq!(list(&["--label", "team=r"]), [0; 0]);
    run(&dir, &["task", "list", "--label", "team"]).refuses(2, &["a label NAME=VALUE"]);
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let (_holder, dir) = log();
    let (mut seen, mut before) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["task", "list", "--limit", "2"];
        if let Some(before) = &before {
            args.extend(["--before", before]);
        }
        let rows = json(&dir, &args);
        let Some(last) = rows.last() else { break };
        before = Some(last["cursor"].as_str().unwrap().to_owned());
        seen.extend(ids(&rows).into_iter().map(str::to_owned));
    }
    assert_eq!(seen, ["0-4", "0-3", "0-2", "0-1", "0-0"]);
}

#[test]
fn indexes_that_are_gone_are_built_again_unless_somebody_writes() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    long_log(&dir, 200);
    let list = || json(&dir, &["task", "list", "--limit", "500"]);
    let remove = || std::fs::remove_dir_all(dir.join("index")).unwrap();
    remove();
    let listed = with_runtime(builder(&dir), async |_| {
        let listed = list();
        assert!(!dir.join("index").exists(), "a writer is there");
        listed
    });
    assert!(dir.join("index").exists(), "the runtime built them when it stopped");
    assert_eq!(list(), listed);
    remove();
    assert_eq!(list(), listed);
    assert!(dir.join("index").read_dir().unwrap().count() > 0);
    assert_eq!(list(), listed);
    assert_eq!(listed.len(), 200);
}

#[test]
fn what_retention_has_dropped_is_named_as_such() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    let retention = ergate::Retention { keep_events: Some(100), keep_for: None };
    let cut = || builder(&dir).log_options(small_files()).snapshot_every_events(150).retention(retention);
    with_runtime(cut(), async |runtime| {
        for number in 0..400 {
            runtime.submit("greet", &format!("{number:0>400}")).await.unwrap().result::<String>().await.unwrap();
        }
        for _ in 0..200 {
            if runtime.reader().span().first.0 > 0 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    run(&dir, &["task", "show", "0-0"]).refuses(6, &["task 0-0 is no longer kept", "the log begins at position"]);
    run(&dir, &["log", "show", "0"]).refuses(6, &["position 0 is no longer kept; the log begins at"]);
    run(&dir, &["replay", "--until", "0"]).refuses(6, &["no longer kept"]);
    let [verified] = &json(&dir, &["log", "verify", "--decisions"])[..] else { panic!("one object") };
    assert!(verified["audited_from"].as_u64().unwrap() >= verified["first"].as_u64().unwrap());
    assert!(verified["first"].as_u64().unwrap() > 0);
    assert_eq!(json(&dir, &["replay"])[0]["digest"], verified["state_digest"]);
    assert_eq!(json(&dir, &["task", "show", "0-399"])[0]["outcome"], "SUCCEEDED");
    std::fs::rename(dir.join("snapshots"), holder.path().join("elsewhere")).unwrap();
    run(&dir, &["replay"]).refuses(5, &["no usable snapshot leads there", "restore the snapshots folder"]);
    run(&dir, &["log", "verify"]).refuses(5, &["no usable snapshot leads there"]);
    run(&dir, &["doctor"]).refuses(1, &["checks failed"]);
    assert!(run(&dir, &["log", "export"]).json().len() > 100, "reading needs no state");
}

#[test]
fn a_repeated_request_and_a_redriven_dead_letter_name_both_tasks() {
    let (_holder, dir) = log();
    with_runtime(builder(&dir), async |runtime| {
        let again = ergate::Extras { key: Some("first".to_owned()), ..ergate::Extras::default() };
        assert!(runtime.submit_with("greet", "world", again).await.unwrap().duplicate);
        runtime.redrive("0-3".parse().unwrap(), "test", "try again").await.unwrap();
        runtime.wait("0-5".parse().unwrap()).await.unwrap();
    });
    let repeated = json(&dir, &["task", "history", "0-0"]).pop().unwrap();
    assert_eq!((&repeated["event"], &repeated["of"]), (&"deduplicated".into(), &"0-0".into()));
    let old = json(&dir, &["task", "history", "0-3"]).pop().unwrap();
    let new = json(&dir, &["task", "history", "0-5"]).remove(0);
    assert_eq!(old, new);
    assert_eq!((&new["event"], &new["task"], &new["of"]), (&"redriven".into(), &"0-5".into(), &"0-3".into()));
    let old = &json(&dir, &["task", "show", "0-3"])[0];
    assert_eq!((&old["state"], &old["redriven_as"]), (&"ended".into(), &"0-5".into()));
    let new = &json(&dir, &["task", "show", "0-5"])[0];
    assert_eq!((&new["state"], &new["redriven_from"], &new["type"]), (&"dead".into(), &"0-3".into(), &"fail".into()));
    assert_eq!(ids(&json(&dir, &["task", "list", "--state", "dead"])), ["0-5"]);
}
