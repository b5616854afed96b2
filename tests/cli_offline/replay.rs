use crate::support::{builder, json, log, run, with_runtime};

#[test]
fn every_position_and_time_can_be_replayed_to() {
    let (_holder, dir) = log();
    let all = json(&dir, &["log", "tail", "--from", "0"]);
    let [empty] = &json(&dir, &["replay", "--until", "0"])[..] else { panic!("one object") };
    assert_eq!((&empty["position"], &empty["requested"]), (&0.into(), &0.into()));
    for position in [1, all.len() / 2, all.len()] {
        let [state] = &json(&dir, &["replay", "--until", &position.to_string()])[..] else { panic!("one object") };
        let requested = all[..position].iter().filter(|event| event["event"] == "requested").count();
        assert_eq!((&state["position"], &state["requested"]), (&position.into(), &requested.into()));
        assert_eq!(state["time"], all[position - 1]["time"]);
    }
    let last = all.last().unwrap()["time"].as_str().unwrap();
    assert_eq!(json(&dir, &["replay", "--until", last]), json(&dir, &["replay"]));
    assert_eq!(json(&dir, &["replay", "--until", "1970-01-01T00:00:00Z"])[0]["position"], 0);
}

#[test]
fn the_state_says_what_waits_and_what_is_dead() {
    let (_holder, dir) = log();
    let rows = json(&dir, &["replay", "--tasks"]);
    let [state, task] = &rows[..] else { panic!("a state and a task: {rows:?}") };
    assert_eq!((&state["live"], &state["dead_letters"], &state["ended"]["SUCCEEDED"]), (&1.into(), &1.into(), &3.into()));
    assert_eq!((&state["pools"][0]["name"], &state["keys"]), (&"default".into(), &1.into()));
    assert_eq!((&task["task"], &task["type"]), (&"0-4".into(), &"sleep".into()));
    let table = run(&dir, &["replay", "--tasks"]).out;
    assert!(table.contains("digest") && table.contains("POOL") && table.contains("0-4"), "{table}");
}

#[test]
fn a_difference_names_what_changed_and_nothing_else() {
    let (_holder, dir) = log();
    let end = json(&dir, &["replay"])[0]["position"].to_string();
    let [diff] = &json(&dir, &["replay", "--diff", "0", &end])[..] else { panic!("one object") };
    assert_eq!(diff["counts"]["requested"]["to"], 5);
    assert_eq!(diff["counts"]["ended_succeeded"]["to"], 3);
    assert_eq!(diff["fleet"]["pool default"]["from"], "-");
    let [none] = &json(&dir, &["replay", "--diff", &end, &end])[..] else { panic!("one object") };
    assert_eq!(
        (&none["counts"], &none["moves"], &none["fleet"]),
        (&serde_json::json!({}), &serde_json::json!({}), &serde_json::json!({}))
    );
    assert!(run(&dir, &["replay", "--diff", &end, &end]).out.contains("nothing changed"));
    run(&dir, &["replay", "--diff", &end, "0"]).refuses(2, &["comes before", "write the earlier moment first"]);
    run(&dir, &["replay", "--until", "999999"]).refuses(6, &["beyond the end"]);
    run(&dir, &["replay", "--diff", "0", "999999"]).refuses(6, &["beyond the end"]);
    run(&dir, &["replay", "--until", "soon"]).refuses(2, &["write a position"]);
}

#[test]
fn a_snapshot_on_the_way_changes_nothing_but_the_time_it_takes() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    with_runtime(builder(&dir).snapshot_every_events(40), async |runtime| {
        for number in 0..60 {
            runtime.submit("greet", &number.to_string()).await.unwrap().result::<String>().await.unwrap();
        }
    });
    let snapshots = dir.join("snapshots");
    assert!(snapshots.read_dir().unwrap().count() > 0);
    let states = || -> Vec<_> { ["30", "100", "150"].iter().flat_map(|at| json(&dir, &["replay", "--until", at])).collect() };
    let with = states();
    std::fs::rename(&snapshots, holder.path().join("elsewhere")).unwrap();
    assert_eq!(states(), with);
}
