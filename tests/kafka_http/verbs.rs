//! The command line with the URL of any engine.

use serde_json::{Value, json};

use crate::command::{Ended, run};
use crate::engines::{Engines, SHARDS};
use crate::kafka::shared;
use crate::service::Service;

fn ask(engine: &Service, args: &[&str]) -> Ended {
    run(&[args, &["--url", &format!("http://{}", engine.address)]].concat())
}

#[test]
fn every_verb_asks_any_engine_as_it_asks_a_service_on_one_machine() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("verbs", kafka);
    for shard in 0..SHARDS {
        let (other, name) = (engines.other(&shard.to_string()), shard.to_string());
        let id = engines.submit(shard, &json!({"type": "noop"}));
        assert_eq!(ask(other, &["task", "result", &id, "--wait", "30s"]).expect(0).out.trim(), "null");
        assert!(ask(other, &["task", "show", &id]).expect(0).out.contains("SUCCEEDED"));
        assert!(ask(other, &["task", "history", &id]).expect(0).out.contains("succeeded"));
        let long = engines.submit(shard, &json!({"type": "sleep", "payload": {"ms": 600_000}}));
        ask(other, &["task", "kill", &long]).expect(0);
        let dead = engines.dead(shard);
        ask(other, &["task", "retry", &dead]).expect(0);
        let listed = ask(other, &["task", "list", "--shard", &name, "-o", "json"]).expect(0).json_lines();
        assert!(listed.iter().all(|row| row["task"].as_str().unwrap().starts_with(&format!("{name}-"))) && listed.len() >= 4);
        let tail = ask(other, &["log", "tail", "--shard", &name, "-n", "2", "-o", "json"]).expect(0).json_lines();
        assert_eq!(tail.len(), 2, "{tail:?}");
    }
    for engine in &engines.all {
        let rows = ask(engine, &["task", "list", "--limit", "1000", "-o", "json"]).expect(0).json_lines();
        assert_eq!(rows.len(), 4 * usize::from(SHARDS), "{rows:?}");
        let place = rows[4]["cursor"].as_str().unwrap();
        let rest = ask(engine, &["task", "list", "--limit", "1000", "--before", place, "-o", "json"]).expect(0).json_lines();
        assert_eq!(tasks(&rest), tasks(&rows[5..]));
        let pools = ask(engine, &["pool", "list", "-o", "json"]).expect(0).json_lines();
        assert!(pools.iter().any(|pool| pool["name"] == "files" && pool["replicas_up"] == u64::from(SHARDS)), "{pools:?}");
        ask(engine, &["pool", "scale", "files", "--slots", "5"]).expect(0);
        assert!(ask(engine, &["pool", "show", "files"]).expect(0).out.contains('5'));
        let refused = ask(engine, &["log", "tail"]);
        assert!(refused.code != Some(0) && refused.err.contains("shard"), "{refused:?}");
        ask(engine, &["status"]).expect(0);
    }
    // Each was tried again and failed again.
    let letters = ask(&engines.all[1], &["dead-letters", "list", "-o", "json"]).expect(0).json_lines();
    assert_eq!(letters.len(), usize::from(SHARDS), "{letters:?}");
    let again = ask(&engines.all[0], &["dead-letters", "redrive", "--all", "--yes", "-o", "json"]).expect(0).json();
    assert_eq!(again["redriven"].as_array().unwrap().len(), usize::from(SHARDS), "{again}");
}

fn tasks(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["task"].as_str().unwrap()).collect()
}
