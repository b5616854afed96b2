//! Several versions of the workers of a pool at once.

use crate::command::until;
use crate::ground::Ground;

const CANARY: &str = r#"
[pool.shop]
fleet = "external"
canary = { label = "version=2", share = 0.2 }
[task.who]
pool = "shop"
executor = "worker"
"#;

/// A worker whose tasks say which version it is.
fn version(ground: &Ground, version: &str) -> crate::ground::Worker {
    let config = format!("[task.who]\npool = \"shop\"\nexecutor = {{ process = [\"echo\", \"{version}\"] }}\n");
    let label = format!("version={version}");
    ground.worker_with(&config, &["--pool", "shop", "--slots", "3", "--label", &label])
}

#[test]
fn a_new_version_gets_its_share_and_everything_once_the_old_one_is_drained() {
    let ground = Ground::new(CANARY);
    let mut old = version(&ground, "1");
    let new = version(&ground, "2");
    let ids: Vec<String> = (0..200).map(|_| ground.submit(r#"{"type":"who"}"#)).collect();
    ground.until_done();
    let by_new = ids.iter().filter(|id| ground.task(id)["result"].as_str().unwrap().trim() == "2").count();
    assert!((36..=44).contains(&by_new), "two of ten go to the new version: {by_new} of 200");

    // The pool shows both.
    let pool = ground.ask("GET", "/v1/pools/shop", "").expect(200).json();
    assert_eq!(
        (&pool["replicas_up"], &pool["slots_up"], pool["members"].as_array().unwrap().len()),
        (&2.into(), &6.into(), 3),
        "{pool}"
    );
    let metrics = ground.ask("GET", "/metrics", "").text();
    assert!(metrics.contains("ergate_workers{pool=\"shop\",state=\"working\"} 2"), "{metrics}");

    let url = ground.url();
    let listed = ground.cli(&["workers", "list", "--url", &url, "--pool", "shop"]);
    assert!(listed.contains("version=1") && listed.contains("version=2") && listed.lines().count() == 3, "{listed}");
    let drained = ground.cli(&["workers", "drain", "--url", &url, "--label", "version=1", "--pool", "shop"]);
    assert_eq!(drained.lines().count(), 1, "{drained}");
    assert_eq!(old.code(), Some(0), "{}", old.said());
    let ids: Vec<String> = (0..20).map(|_| ground.submit(r#"{"type":"who"}"#)).collect();
    for id in &ids {
        assert_eq!(ground.outcome(id), "SUCCEEDED");
        assert_eq!(ground.task(id)["result"].as_str().unwrap().trim(), "2");
    }
    new.end();
    let told = ground.end();
    told.all_succeeded(220);
    assert_eq!((told.count("lost"), told.count("started")), (0, 220), "{told:?}");
}

#[test]
fn which_workers_are_to_end_has_to_be_said() {
    let ground = Ground::new(CANARY);
    let worker = version(&ground, "1");
    let ask = |body: &str| ground.ask("POST", "/v1/workers/drain", body);
    for wrong in ["{}", r#"{"label":"version"}"#, r#"{"ids":["x"]}"#, r#"{"pools":"shop"}"#] {
        assert_eq!(ask(wrong).expect(422).json()["type"].as_str().map(|kind| kind.ends_with("invalid")), Some(true), "{wrong}");
    }
    let unknown = format!(r#"{{"ids":["{}"]}}"#, "0".repeat(32));
    assert!(ask(&unknown).expect(422).json()["detail"].as_str().unwrap().contains("GET /v1/workers"));
    for none in [r#"{"label":"version=2"}"#, r#"{"pool":"models"}"#, r#"{"pool":"shop","label":"version=2"}"#] {
        assert_eq!(ask(none).expect(200).json()["draining"], serde_json::json!([]), "{none}");
    }
    let id = ground.submit(r#"{"type":"who"}"#);
    assert_eq!(ground.outcome(&id), "SUCCEEDED");
    until("it is known", || ground.ask("GET", "/v1/workers", "").json()["workers"].as_array().unwrap().len() == 1);
    worker.end();
    ground.end().all_succeeded(1);
}
