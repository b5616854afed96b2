//! Lists of all shards, and what is done to many tasks at once.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::engines::{Engines, SHARDS, shard_of};
use crate::kafka::shared;
use crate::service::Service;

/// All pages of a list, from one engine and another in turn.
fn pages(engines: &[Service], path: &str, member: &str, mut between: impl FnMut()) -> Vec<Value> {
    let (mut rows, mut cursor, mut turn) = (Vec::new(), String::new(), 0);
    loop {
        let page = engines[turn % engines.len()].get(&format!("{path}{cursor}")).expect(200).json();
        assert_eq!(page["missing_shards"], json!([]), "{page}");
        rows.extend(page[member].as_array().unwrap().iter().cloned());
        let Some(next) = page["cursor"].as_str() else { return rows };
        cursor = format!("&cursor={next}");
        turn += 1;
        between();
    }
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["task"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pages_of_all_shards_have_every_task_once_while_tasks_end() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("pages", kafka);
    // A third has ended, a third ends while the pages are read, and a third does not.
    let lines: String = (0..500)
        .map(|n| {
            let payload = [0, 400 + 6 * n, 600_000][n % 3];
            format!("{}\n", json!({"type": "sleep", "key": format!("k{n}"), "payload": {"ms": payload}}))
        })
        .collect();
    let taken = engines.all[0].ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes());
    assert_eq!(taken.expect(200).json()["accepted"], 500);
    crate::command::until("a third has ended", || {
        let ended = engines.all[0].get("/v1/tasks?state=ended&limit=200").expect(200).json();
        ended["tasks"].as_array().unwrap().len() >= 167
    });
    let path = "/v1/tasks?limit=17";
    let rows = pages(&engines.all, path, "tasks", || std::thread::sleep(std::time::Duration::from_millis(40)));
    let found = ids(&rows);
    let once: BTreeSet<_> = found.iter().collect();
    assert_eq!((found.len(), once.len()), (500, 500));
    let shards: BTreeSet<_> = found.iter().map(|id| shard_of(id)).collect();
    assert_eq!(shards.len(), usize::from(SHARDS));
    let states: BTreeSet<_> = rows.iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert!(states.contains("running") && states.contains("ended"), "{states:?}");
    // What is live comes first; the newest of those that had ended before come last, and all in order.
    let first_ended = rows.iter().rposition(|row| row["state"] == "running").unwrap() + 1;
    let times: Vec<_> = rows[first_ended..].iter().map(|row| row["since"].as_str().unwrap()).collect();
    assert!(times.len() >= 150 && times.is_sorted_by(|later, earlier| later >= earlier), "{times:?}");
    // A list goes on behind each of its rows.
    let page = engines.all[1].get(path).expect(200).json();
    let third = page["tasks"][2]["cursor"].as_str().unwrap();
    let behind = engines.all[0].get(&format!("/v1/tasks?limit=3&state=running&cursor={third}")).expect(200).json();
    assert!(behind["tasks"].as_array().unwrap().iter().all(|row| row["state"] == "running"));
    assert!(!ids(behind["tasks"].as_array().unwrap()).contains(&page["tasks"][2]["task"].as_str().unwrap().to_owned()));
    // One shard by itself is a part of them.
    let own = pages_of_one(&engines.all[0], "1");
    let of_it: BTreeSet<_> = found.iter().filter(|id| shard_of(id) == "1").cloned().collect();
    assert_eq!(own, of_it);
    let problem = engines.all[0].get("/v1/tasks?cursor=live-42").problem(422, "invalid");
    assert_eq!(problem["field"], "cursor");
    engines.all[1].get("/v1/tasks?type=nobody").problem(422, "invalid");
}

#[test]
fn tasks_of_all_shards_are_listed_by_label_while_they_end() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("labels", kafka);
    let lines: String = (0..300)
        .map(|n| {
            let payload = [0, 300 + 4 * n, 600_000][n % 3];
            let labels = if n % 10 == 0 { json!({"tenth": "yes", "team": (n % 4).to_string()}) } else { json!({"team": "x"}) };
            format!("{}\n", json!({"type": "sleep", "key": format!("k{n}"), "payload": {"ms": payload}, "labels": labels}))
        })
        .collect();
    let taken = engines.all[0].ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes());
    assert_eq!(taken.expect(200).json()["accepted"], 300);
    let between = || std::thread::sleep(std::time::Duration::from_millis(100));
    let rows = pages(&engines.all, "/v1/tasks?limit=4&label=tenth=yes", "tasks", between);
    let found: BTreeSet<_> = ids(&rows).into_iter().collect();
    assert_eq!((rows.len(), found.len()), (30, 30));
    assert_eq!(found, (0..300).step_by(10).map(|line| id_of(&engines, line)).collect());
    let states: BTreeSet<_> = rows.iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert!(states.contains("ended") && states.len() > 1, "{states:?}");
    let both = pages(&engines.all, "/v1/tasks?limit=4&label=tenth=yes&label=team=2", "tasks", || ());
    assert_eq!(both.len(), 15);
    assert!(ids(&both).iter().all(|id| found.contains(id)));
    assert_eq!(pages(&engines.all, "/v1/tasks?label=tenth=no", "tasks", || ()).len(), 0);
    let problem = engines.all[1].get("/v1/tasks?label=tenth").problem(422, "invalid");
    assert_eq!(problem["field"], "label");
}

/// The task of the line with this number, which its key names.
fn id_of(engines: &Engines, line: usize) -> String {
    let payload = [0, 300 + 4 * line, 600_000][line % 3];
    let labels = json!({"tenth": "yes", "team": (line % 4).to_string()});
    let again = json!({"type": "sleep", "key": format!("k{line}"), "payload": {"ms": payload}, "labels": labels});
    let told = engines.all[0].post("/v1/tasks", &again.to_string()).expect(200).json();
    assert_eq!(told["duplicate"], true);
    told["id"].as_str().unwrap().to_owned()
}

fn pages_of_one(engine: &Service, shard: &str) -> BTreeSet<String> {
    let page = engine.get(&format!("/v1/tasks?limit=1000&shard={shard}")).expect(200).json();
    ids(page["tasks"].as_array().unwrap()).into_iter().collect()
}

#[test]
fn dead_letters_of_all_shards_are_listed_and_tried_again() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("dead", kafka);
    let dead: Vec<_> = (0..SHARDS).flat_map(|shard| [engines.dead(shard), engines.dead(shard)]).collect();
    let [first, second] = engines.all.as_slice() else { unreachable!() };
    let listed = pages(&engines.all, "/v1/dead-letters?limit=3&type=fail", "dead_letters", || ());
    assert_eq!(ids(&listed).into_iter().collect::<BTreeSet<_>>(), dead.iter().cloned().collect());
    assert_eq!(listed.len(), dead.len());
    assert!(listed.is_sorted_by(|a, b| a["requested"].as_str() >= b["requested"].as_str()));
    assert_eq!(first.get("/v1/dead-letters?limit=1").expect(200).json()["total"], dead.len());
    let redrive = |engine: &Service, body: Value| engine.post("/v1/dead-letters/redrive", &body.to_string());
    let dry = redrive(second, json!({"type": "fail", "dry_run": true})).expect(200).json();
    assert_eq!((dry["matching"].as_u64(), dry["redriven"].as_array().unwrap().len()), (Some(8), 8), "{dry}");
    let some = redrive(second, json!({"all": true, "dry_run": true, "limit": 3})).expect(200).json();
    assert_eq!((some["matching"].as_u64(), some["redriven"].as_array().unwrap().len()), (Some(8), 3), "{some}");
    // Nothing is done where one of them is no dead letter.
    let live = engines.submit(0, &json!({"type": "sleep", "payload": {"ms": 600_000}}));
    redrive(first, json!({"ids": [dead[0], dead[2], live]})).problem(409, "conflict");
    assert_eq!(first.get("/v1/dead-letters").expect(200).json()["total"], 8);
    let two = redrive(first, json!({"ids": [dead[0], dead[2]]})).expect(200).json();
    let of = |told: &Value| {
        told["redriven"].as_array().unwrap().iter().map(|one| one["of"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!((of(&two), &two["missing_shards"]), ([dead[0].clone(), dead[2].clone()].into(), &json!([])));
    let three = redrive(second, json!({"cause": "not_retryable", "limit": 3})).expect(200).json();
    assert_eq!(three["redriven"].as_array().unwrap().len(), 3, "{three}");
    for again in three["redriven"].as_array().unwrap() {
        let task = again["task"].as_str().unwrap();
        first.get(&format!("/v1/tasks/{task}/result?wait=30s")).problem(409, "unsuccessful");
    }
    let rest = redrive(first, json!({"all": true, "limit": 10_000})).expect(200).json();
    assert!(rest["redriven"].as_array().unwrap().len() >= 3, "{rest}");
}

#[test]
fn pools_are_summed_over_all_shards_and_sized_from_any_engine() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("pools", kafka);
    let other = engines.other("capacity");
    let pool = |engine: &Service| engine.get("/v1/pools/files").expect(200).json();
    let before = pool(other);
    assert_eq!(
        (before["slots"].as_u64(), before["slots_up"].as_u64(), &before["missing_shards"]),
        (Some(4), Some(16), &json!([])),
        "{before}"
    );
    assert_eq!(before["members"].as_array().unwrap().len(), usize::from(SHARDS));
    let body = r#"{"replicas":2,"reason":"a second disk"}"#;
    let scaled = other.ask("PATCH", "/v1/pools/files", &[("content-type", "application/json")], body.as_bytes());
    let scaled = scaled.expect(200).json();
    assert!(scaled["replicas"] == 2 && scaled["position"].is_u64(), "{scaled}");
    crate::command::until("every shard has followed", || pool(&engines.all[0])["replicas_up"] == 8);
    for engine in &engines.all {
        let listed = engine.get("/v1/pools").expect(200).json();
        let files = listed["pools"].as_array().unwrap().iter().find(|pool| pool["name"] == "files").unwrap().clone();
        assert_eq!((files["replicas"].as_u64(), files["slots_up"].as_u64()), (Some(2), Some(32)), "{files}");
        engine.get("/v1/pools/nobody").problem(404, "not-found");
        assert_eq!(engine.get("/v1/pools/files?shard=capacity").expect(200).json()["replicas"], 2);
    }
}
