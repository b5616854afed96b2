//! Schedules of engines that share a log: each is fired by the leader of its shard, and looked at and acted on from any engine.

use std::collections::BTreeMap;

use ergate::events::id::ShardId;
use serde_json::{Value, json};

use crate::command::{run, until};
use crate::engines::{Engines, SHARDS, shard_of};
use crate::kafka::shared;
use crate::service::Service;

/// As many as there are shards, and one on each.
fn names() -> Vec<String> {
    let home = |name: &String| ergate::kafka::home(name, SHARDS);
    let of = |shard| (0..).map(|number| format!("tick-{number}")).find(|name| home(name) == ShardId(shard)).unwrap();
    (0..SHARDS).map(of).collect()
}

/// Two engines with a schedule on each shard that fires every second.
fn engines(test: &str) -> Option<Engines> {
    let kafka = shared()?;
    let section = |name: &String| format!("[schedule.{name}]\nevery = \"1s\"\ntask = \"noop\"\ncatch_up = \"run-all\"\n");
    Some(Engines::configured(test, kafka, &names().iter().map(section).collect::<String>(), [&[], &[]]))
}

fn fired(engine: &Service, name: &str) -> u64 {
    let answer = engine.get(&format!("/v1/schedules/{name}"));
    if answer.status == 200 { answer.json()["fired"].as_u64().unwrap() } else { 0 }
}

/// The slots that the log has of each schedule, in order, and the reasons of those that were passed over.
fn slots(log: &str) -> BTreeMap<String, Vec<u64>> {
    let (mut names, mut slots) = (BTreeMap::new(), BTreeMap::<String, Vec<u64>>::new());
    for event in run(&["log", "export", "-o", "json", "--log", log]).expect(0).json_lines() {
        let at = (event["shard"].to_string(), event["schedule"].to_string());
        match event["event"].as_str().unwrap() {
            "schedule_defined" => drop(names.insert(at, event["name"].as_str().unwrap().to_owned())),
            "fired" => slots.entry(names[&at].clone()).or_default().push(event["slot"].as_u64().unwrap()),
            "slots_passed" => panic!("{event}"),
            _ => {}
        }
    }
    slots
}

#[test]
fn every_slot_fires_once_whichever_engine_leads_and_no_request_is_lost_beside() {
    let Some(mut engines) = engines("fires") else { return };
    let log = engines.namespace.log();
    // Requests by records between the firings, which are none: a shard that counted them would leave a record out.
    let mut ids = Vec::new();
    let mut work = |engines: &Engines| {
        let submitted = (0..SHARDS).map(|shard| engines.submit(shard, &json!({"type": "noop"})));
        ids.extend(submitted.collect::<Vec<_>>());
    };
    for name in &names() {
        until("it fires", || fired(&engines.all[0], name) >= 2);
    }
    work(&engines);
    let shown = engines.all[0].get("/metrics").expect(200).text();
    assert!(shown.contains("ergate_schedule_firings_total{schedule=\"tick-"), "{shown}");
    engines.all.pop().unwrap().kill();
    let before: Vec<_> = names().iter().map(|name| fired(&engines.all[0], name)).collect();
    for (name, before) in names().iter().zip(before) {
        until("it fires after its engine died", || fired(&engines.all[0], name) >= before + 8);
    }
    work(&engines);
    engines.add(&[]);
    engines.until_shared();
    for name in &names() {
        let before = fired(&engines.all[0], name);
        until("it fires after another engine came", || fired(&engines.all[0], name) >= before + 2);
    }
    work(&engines);
    for id in &ids {
        let ended = engines.all[0].get(&format!("/v1/tasks/{id}/result?wait=30s"));
        assert_eq!(ended.status, 200, "{id}");
    }
    for engine in engines.all.drain(..) {
        engine.signal("TERM");
        assert_eq!(engine.end(), Some(0));
    }
    let slots = slots(&log);
    assert_eq!(slots.len(), usize::from(SHARDS));
    for (name, slots) in slots {
        let every: Vec<u64> = (slots[0]..).step_by(1_000_000).take(slots.len()).collect();
        assert_eq!(slots, every, "{name} has every second once");
    }
    run(&["log", "verify", "--decisions", "--log", &log]).expect(0);
}

#[test]
fn a_schedule_is_seen_and_acted_on_from_any_engine() {
    let Some(engines) = engines("acted") else { return };
    let name = &names()[0];
    let (leader, other) = (&engines.all[engines.leader("0")], engines.other("0"));
    for engine in [leader, other] {
        let all = engine.get("/v1/schedules").expect(200).json();
        let told: Vec<_> = all["schedules"].as_array().unwrap().iter().map(|one| one["name"].clone()).collect();
        let mut expected = names();
        expected.sort();
        assert_eq!((json!(told), &all["missing_shards"]), (json!(expected), &json!([])));
        assert_eq!(engine.get("/v1/schedules?shard=0").expect(200).json()["schedules"].as_array().unwrap().len(), 1);
        engine.get("/v1/schedules/nobody").problem(404, "not-found");
    }
    let post = |path: &str, body: &Value| {
        other.ask(
            "POST",
            &format!("/v1/schedules/{name}/{path}"),
            &[("content-type", "application/json")],
            body.to_string().as_bytes(),
        )
    };
    let paused = post("pause", &json!({"reason": "to test"})).expect(200).json();
    assert_eq!(paused["paused"]["reason"], "to test");
    let before = fired(leader, name);
    let triggered = post("trigger", &json!({})).expect(201).json();
    let task = triggered["task"].as_str().unwrap();
    assert_eq!(shard_of(task), "0");
    other.get(&format!("/v1/tasks/{task}/result?wait=30s")).expect(200);
    assert_eq!(fired(other, name), before + 1);
    assert_eq!(
        other.get(&format!("/v1/schedules/{name}/preview?limit=3")).expect(200).json()["firings"].as_array().unwrap().len(),
        3
    );
    post("resume", &json!({})).expect(200);
    until("it fires again", || fired(other, name) >= before + 2);

    let log = engines.namespace.log();
    let listed = run(&["schedule", "list", "-o", "json", "--log", &log]).expect(0).json_lines();
    assert_eq!(listed.len(), usize::from(SHARDS));
    let shown = run(&["schedule", "show", name, "-o", "json", "--log", &log]).expect(0).json();
    assert_eq!(shown["name"], name.as_str());
    let url = format!("http://{}", other.address);
    let shown = run(&["schedule", "show", name, "-o", "json", "--url", &url]).expect(0).json();
    assert_eq!(shown["name"], name.as_str());
}
