//! Shadows and holds of an engine that is killed: what they decide and until when is in the log, and a restart changes none of it.

use std::path::Path;
use std::time::{Duration, Instant};

use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::events::log::directory;
use ergate::events::scaling::decision::{By, Decision, LimitKind};
use ergate::events::scaling::{AnyPolicy, Memory, Policy};
use ergate::events::state::State;
use serde_json::Value;

use crate::command::{run, until};
use crate::ground::Ground;

/// Two shadows: one looks often, the other when its period is over.
const CONFIG: &str = r#"[log]
engine = "sled"
[pool.crew]
preset = "scale-to-zero"
replicas = { min = 0, max = 4 }
slots = 8
policy = "live.json"
shadow.eager.policy = "eager.json"
shadow.queue.policy = "queue.json"
[task.nap]
pool = "crew"
executor = { process = ["sh", "-c", "sleep 0.02"] }
"#;
const LIVE: &str = r#"{"policy":"rate","keep_alive":1000000}"#;
const EAGER: &str = r#"{"policy":"rate","keep_alive":5000000,"reserve":2.0,"catch_up":1000000}"#;
const QUEUE: &str = r#"{"policy":"hpa","metrics":[{"source":{"external":{}},"name":"work","target":{"average_value_milli":8000}}],"controller":{"sync_period":1000000}}"#;

/// An engine with that configuration; it begins without the pool, whose policies lie beside its configuration.
fn start() -> Ground {
    let mut ground = Ground::new("[log]\nengine = \"sled\"\n");
    ground.stop();
    for (name, text) in [("live", LIVE), ("eager", EAGER), ("queue", QUEUE)] {
        std::fs::write(ground.home().join(format!("{name}.json")), text).unwrap();
    }
    std::fs::write(ground.home().join("engine.toml"), CONFIG).unwrap();
    ground.start();
    ground
}

fn size(ground: &Ground) -> u64 {
    ground.ask("GET", "/v1/pools/crew", "").json()["replicas"].as_u64().unwrap()
}

fn why(ground: &Ground) -> Value {
    ground.ask("GET", "/v1/pools/crew/why", "").expect(200).json()
}

/// A policy that has never been interrupted, and what it decided last.
struct Uninterrupted {
    name: Option<&'static str>,
    policy: AnyPolicy,
    memory: Memory,
    last: Option<Decision>,
    looks: usize,
    recorded: usize,
}

impl Uninterrupted {
    fn new(name: Option<&'static str>, text: &str) -> Uninterrupted {
        let policy: AnyPolicy = serde_json::from_str(text).unwrap();
        let memory = policy.begin(0);
        Uninterrupted { name, policy, memory, last: None, looks: 0, recorded: 0 }
    }
}

/// Shows every recorded observation, event by event, to policies whose memory was never in a log nor lost; gives how often the log was opened.
fn decide_again(data: &Path, all: &mut [Uninterrupted]) -> usize {
    let reader = directory::read(data).unwrap();
    let (mut cursor, mut state, mut opened) = (reader.cursor(Position(0)).unwrap(), State::default(), 0);
    let mut expected: Vec<(Option<String>, u32, Decision)> = Vec::new();
    while let Some(block) = cursor.next_block().unwrap() {
        for envelope in block.records() {
            let envelope = envelope.unwrap();
            if let Event::PoolScaled { replicas, ref decision, ref shadow, .. } = envelope.event {
                let (name, wanted, mine) = expected.remove(0);
                let recorded: Decision = serde_json::from_str(decision).unwrap();
                assert_eq!((shadow.as_deref(), replicas, recorded), (name.as_deref(), wanted, mine), "at {}", envelope.position);
            } else {
                assert!(expected.is_empty(), "at {} nothing was recorded of {expected:?}", envelope.position);
            }
            opened += usize::from(matches!(envelope.event, Event::Opened { .. }));
            let held = state.control.scaling.values().next().and_then(|scaling| scaling.hold_at(envelope.recorded_at).cloned());
            state.apply(&envelope);
            let Event::PoolObserved { pool, asked, .. } = envelope.event else { continue };
            let scaling = &state.control.scaling[&pool];
            let mut size = None;
            for (bit, name, decider) in scaling.deciders().filter(|(bit, ..)| asked & bit != 0) {
                let one = all.iter_mut().find(|one| one.name == name).unwrap();
                let seen = &decider.last.as_ref().unwrap().seen;
                let mut decision = one.policy.evaluate(&mut one.memory, seen);
                let wanted = decision.wanted;
                let mut got = size.unwrap_or(seen.replicas.wanted);
                if bit == 1 {
                    got = held.as_ref().map_or(wanted, |hold| hold.replicas.clamp(scaling.bounds.min, scaling.bounds.max));
                    if got != wanted {
                        let by = By::Hold(held.as_ref().unwrap().since);
                        let limit = ergate::events::scaling::decision::Limit { kind: LimitKind::Hold, from: wanted, to: got, by };
                        decision.limits.push(limit);
                        decision.wanted = got;
                    }
                    size = Some(got);
                }
                if got != wanted {
                    one.policy.overruled(&mut one.memory, seen, got);
                }
                assert_eq!(decider.last.as_ref().unwrap().decision, decision, "{name:?} at {}", envelope.position);
                one.looks += 1;
                let is_told = one.last.as_ref().is_some_and(|last| match bit {
                    1 => decision.says_the_same(last),
                    _ => decision.wants_the_same(last),
                });
                if !is_told {
                    one.recorded += 1;
                    expected.push((name.map(str::to_owned), decision.wanted, decision.clone()));
                }
                one.last = Some(decision);
            }
        }
    }
    opened
}

#[test]
fn a_kill_in_the_middle_of_scaling_changes_no_decision_of_a_policy_nor_of_its_shadows() {
    let mut ground = start();
    until("it sleeps", || size(&ground) == 0);
    ground.submit_many(1_500, r#"{"type":"nap"}"#);
    until("it grows", || size(&ground) > 0);
    ground.kill();
    ground.start();
    until("it has grown", || size(&ground) == 4 || ground.live("live") == 0);
    ground.kill();
    ground.start();
    let shadows = why(&ground)["shadows"].clone();
    assert!(
        shadows.as_array().unwrap().iter().all(|shadow| shadow["wanted"].is_u64()),
        "what they decided before counts: {shadows}"
    );
    ground.until_done();
    until("it sleeps again", || size(&ground) == 0);
    let data = ground.home().join("data");
    let url = ground.url();
    // Each shadow in a line, and the whole of one.
    let shown = ground.cli(&["why", "crew", "--url", &url]);
    assert!(shown.contains("shadow eager would have ") && shown.contains("shadow queue would have "), "{shown}");
    let one = ground.cli(&["why", "crew", "--shadow", "queue", "--url", &url]);
    assert!(
        one.starts_with("shadow queue of crew ") && one.contains("external metric work") && !one.contains("arrivals_per_s"),
        "{one}"
    );
    run(&["why", "crew", "--shadow", "nobody", "--url", &url]).expect(6);
    run(&["why", "crew", "--shadow", "queue", "--not", "3", "--url", &url]).expect(2);
    ground.stop();
    let offline = run(&["why", "crew", "--shadow", "queue", "--data", data.to_str().unwrap()]).expect(0).out;
    assert!(offline.starts_with("shadow queue of crew "), "{offline}");
    let mut all =
        [Uninterrupted::new(None, LIVE), Uninterrupted::new(Some("eager"), EAGER), Uninterrupted::new(Some("queue"), QUEUE)];
    // One start more than kills: the first engine had no such pool.
    assert_eq!(decide_again(&data, &mut all), 4);
    assert!(all.iter().all(|one| one.looks > 3 && one.recorded > 1), "every one of them had something to say");
    beside(&data);
    ground.start();
    ground.end().all_succeeded(1_500);
}

/// What `whatif --shadows` says of the same log.
fn beside(data: &Path) {
    let data = data.to_str().unwrap();
    let picture = Path::new(data).join("../shadows.svg");
    let asked = ["whatif", "--shadows", "--data", data, "--pool", "crew", "--plot", picture.to_str().unwrap()];
    let told = run(&[&asked[..], &["-o", "json"]].concat()).expect(0).json();
    let rows = told["shadows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["policy"].as_str().unwrap()).collect();
    assert_eq!(names, ["recorded", "eager", "queue"], "{told}");
    assert!(told["fidelity"]["decision_that_differs"].is_null(), "{told}");
    for row in rows {
        assert!(row["replica_hours_wanted"].as_f64().unwrap() > 0.0 && row["changes"].as_u64().unwrap() > 0, "{row}");
    }
    for row in &rows[1..] {
        let mean = row["difference_mean"].as_f64().unwrap();
        assert!(row["watched_s"].as_f64().unwrap() > 0.5 && mean.abs() <= 4.0, "{row}");
        assert!((0.0..=1.0).contains(&row["below_share"].as_f64().unwrap()), "{row}");
        assert!(row["simulated"]["wait_s_p99"].is_f64() && row["simulated"]["cost"].as_f64().unwrap() > 0.0, "{row}");
    }
    // It has three reserves more and keeps them: more than what ran, or nothing of this test is true.
    assert!(rows[1]["difference_largest"].as_i64().unwrap() > 0 && rows[1]["difference_largest_at"].is_string(), "{told}");
    let shown = run(&asked).expect(0).out;
    for part in ["HOURS WANTED", "simulated: eager", "simulated: queue", "recorded"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.contains("Replicas wanted, as recorded") && drawn.contains(">eager<") && !drawn.contains("NaN"));
    run(&["whatif", "--shadows", "--data", data, "--pool", "models"]).expect(2);
    run(&["whatif", "--shadows", "--data", data, "--pool", "crew", "--policy", "rate"]).expect(2);
}

#[test]
fn a_held_size_stays_over_a_kill_until_its_time_is_over() {
    let mut ground = start();
    until("it sleeps", || size(&ground) == 0);
    let url = ground.url();
    let held = ground.cli(&["pool", "scale", "crew", "9", "--for", "20s", "--reason", "launch", "--url", &url]);
    let begun = Instant::now();
    assert!(held.contains("held at 4 and not 9, for the pool's `max` is in the way, until "), "{held}");
    assert_eq!(size(&ground), 4);
    until("its replicas are up", || ground.ask("GET", "/v1/pools/crew", "").json()["replicas_up"] == 4);
    let told = why(&ground);
    assert_eq!(
        (&told["hold"]["replicas"], &told["hold"]["size"], &told["hold"]["cut_by"]),
        (&9.into(), &4.into(), &"max".into())
    );
    ground.kill();
    ground.start();
    std::thread::sleep(Duration::from_millis(1_500));
    let shown = ground.cli(&["why", "crew", "--url", &url]);
    assert_eq!(size(&ground), 4, "{shown}");
    assert!(shown.contains("held at 4 (9 were asked for") && shown.contains(": launch"), "{shown}");
    assert!(shown.contains("hold   4     0"), "the policy goes on, and says what it wants: {shown}");
    let not = ground.cli(&["why", "crew", "--not", "2", "--url", &url]);
    assert!(not.contains("not 2: it is held at 4 (") && not.contains("ergate pool release crew"), "{not}");
    assert!(begun.elapsed() < Duration::from_secs(18), "too slow a machine to see that it is held");
    // Nobody asks, and the policy lets it sleep.
    let rest = Duration::from_secs(20).saturating_sub(begun.elapsed());
    std::thread::sleep(rest.saturating_sub(Duration::from_millis(300)));
    until("the policy decides again", || size(&ground) == 0);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert!(why(&ground)["hold"].is_null());
    // Another one ends when somebody says so.
    ground.ask("PATCH", "/v1/pools/crew", r#"{"replicas":2,"for":"1h","reason":"again"}"#).expect(200);
    assert_eq!(size(&ground), 2);
    ground.cli(&["pool", "release", "crew", "--reason", "over", "--url", &url]);
    until("the policy decides again", || size(&ground) == 0);
    // What makes no sense is refused with its name.
    for (body, part) in [
        (r#"{"replicas":2,"for":"1"}"#, "for"),
        (r#"{"replicas":2,"slots":3,"for":"1h"}"#, "for"),
        (r#"{"slots":3,"for":"1h"}"#, "for"),
        (r#"{"replicas":2,"for":"800h"}"#, "31 days"),
        (r#"{"replicas":2,"for":"10ms"}"#, "31 days"),
    ] {
        let answer = ground.ask("PATCH", "/v1/pools/crew", body).expect(422).text();
        assert!(answer.contains(part), "{body}: {answer}");
    }
    let other = ground.ask("PATCH", "/v1/pools/models", r#"{"replicas":2,"for":"1h"}"#);
    assert!(other.expect(422).text().contains("one that a policy sizes"));
    ground.ask("POST", "/v1/pools/nobody/release", "").expect(404);
    ground.end();
}

#[test]
fn shadows_come_and_go_by_hand() {
    let ground = start();
    let url = ground.url();
    let file = ground.home().join("eager.json");
    let set = |name: &str, file: &str| run(&["pool", "shadow", "set", "crew", name, file, "--reason", "to see", "--url", &url]);
    set("other", file.to_str().unwrap()).expect(0);
    set("named", "balanced").expect(0);
    let names = |told: &Value| {
        let shadows = told["shadows"].as_array().unwrap().iter();
        shadows.map(|shadow| shadow["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&why(&ground)), ["eager", "named", "other", "queue"]);
    until("they are asked", || {
        let told = why(&ground);
        told["shadows"].as_array().unwrap().iter().all(|shadow| shadow["wanted"].is_u64())
    });
    assert!(set("no name", "balanced").expect(2).err.contains("letters, digits"));
    assert!(set("x", "nowhere.toml").expect(4).err.contains("nowhere.toml"));
    ground.cli(&["pool", "shadow", "remove", "crew", "named", "--url", &url]);
    run(&["pool", "shadow", "remove", "crew", "named", "--url", &url]).expect(6);
    assert_eq!(names(&why(&ground)), ["eager", "other", "queue"]);
    ground.ask("PUT", "/v1/pools/nobody/shadows/x", r#"{"policy":{"policy":"rate"}}"#).expect(404);
    ground.ask("PUT", "/v1/pools/crew/shadows/x", r#"{"policy":{"policy":"rates"}}"#).expect(422);
    let shadow = ground.ask("GET", "/v1/pools/crew/why?shadow=other", "").expect(200).json();
    assert_eq!((&shadow["shadow"], &shadow["policy"]["reserve"]), (&"other".into(), &2.0.into()));
    ground.ask("GET", "/v1/pools/crew/why?shadow=other&not=2", "").expect(422);
    ground.end();
}
