//! What is asked about one task, of an engine that does not lead its shard.

use serde_json::json;

use crate::engines::{Engines, SHARDS, shard_of};
use crate::kafka::shared;
use crate::service::Service;

/// What an engine calls itself in its answers.
fn name(engine: &Service) -> Option<String> {
    Some(format!("http://{}", engine.address))
}

#[test]
fn whatever_the_leader_of_a_task_knows_any_engine_tells() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("one", kafka);
    for shard in 0..SHARDS {
        let id = engines.submit(shard, &json!({"type": "noop", "payload": {"n": 7}}));
        let (leader, other) = (&engines.all[engines.leader(shard_of(&id))], engines.other(shard_of(&id)));
        let result = other.get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200);
        assert_eq!((result.text().as_str(), result.header("ergate-engine")), ("null", name(leader)));
        for path in [format!("/v1/tasks/{id}"), format!("/v1/tasks/{id}/history"), format!("/v1/tasks/{id}/history?limit=1")] {
            let (there, here) = (leader.get(&path).expect(200), other.get(&path).expect(200));
            assert_eq!(there.json(), here.json(), "{path}");
            assert_eq!([there.header("ergate-engine"), here.header("ergate-engine")], [name(leader), name(leader)]);
            assert_eq!(there.header("content-type"), here.header("content-type"));
        }
        let path = format!("/v1/tasks/{id}");
        let tag = other.get(&path).header("etag").unwrap();
        let same = other.ask("GET", &path, &[("if-none-match", &tag)], b"").expect(304);
        assert_eq!((same.header("etag"), same.body.len()), (Some(tag), 0));
        other.get(&format!("/v1/tasks/{shard}-999999")).problem(404, "not-found");
        other.get(&format!("/v1/tasks/{id}?colour=red")).problem(422, "invalid");
        let state = other.get(&format!("/v1/state?shard={shard}")).expect(200);
        assert_eq!(
            (state.json()["shard"].as_str(), state.header("ergate-engine")),
            (Some(shard.to_string().as_str()), name(leader))
        );
        let past = other.get(&format!("/v1/state?shard={shard}&at=3")).expect(200).json();
        assert_eq!(past["position"], 3);
    }
    for engine in &engines.all {
        engine.get("/v1/tasks/4-0").problem(404, "not-found");
        engine.get("/v1/state").problem(422, "invalid");
        engine.get("/v1/state?shard=4").problem(422, "invalid");
    }
}

#[test]
fn a_task_is_stopped_and_tried_again_from_any_engine() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("act", kafka);
    for shard in 0..SHARDS {
        let other = engines.other(&shard.to_string());
        for (verb, status) in [("cancel", 202), ("kill", 200)] {
            let id = engines.submit(shard, &json!({"type": "sleep", "payload": {"ms": 600_000}}));
            let said = other.post(&format!("/v1/tasks/{id}/{verb}"), r#"{"reason":"a test"}"#).expect(status).json();
            assert_eq!(said["task"], id);
            let ended = other.get(&format!("/v1/tasks/{id}?wait=30s")).expect(200).json();
            assert_eq!(ended["outcome"], "CANCELLED", "{ended}");
            other.post(&format!("/v1/tasks/{id}/{verb}"), "").problem(409, "conflict");
        }
        let dead = engines.dead(shard);
        let again = other.post(&format!("/v1/tasks/{dead}/retry"), "").expect(201);
        let task = again.json()["task"].as_str().unwrap().to_owned();
        assert_eq!((shard_of(&task), again.header("location")), (shard_of(&dead), Some(format!("/v1/tasks/{task}"))));
        other.post(&format!("/v1/tasks/{dead}/retry"), "").problem(409, "conflict");
    }
}
