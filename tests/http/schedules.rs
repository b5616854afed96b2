//! Schedules from the configuration: they fire while the service runs, over HTTP and by the command line they are looked at, paused and triggered.

use std::path::Path;

use serde_json::Value;

use crate::command::{Ended, ergate, until};
use crate::service::Service;

const TICK: &str = "[schedule.tick]\nevery = \"1s\"\ntask = \"noop\"\n";
const NIGHTLY: &str = "[schedule.nightly]\ncron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"\ntask = \"sleep\"\npayload = '{\"ms\": 600000}'\n\
                       catch_up = \"run-once\"\noverlap = \"skip\"\nlabels = [\"team=blue\"]\n";

fn start(home: &Path, config: &str) -> Service {
    let path = home.join("my.toml");
    std::fs::write(&path, config).unwrap();
    Service::start_with(home, &["--config", path.to_str().unwrap()], &[("ERGATE_LOG__ENGINE", "file")])
}

fn get(service: &Service, path: &str) -> Value {
    service.get(path).expect(200).json()
}

fn post(service: &Service, path: &str, body: &str) -> crate::service::Answer {
    service.ask("POST", path, &[("content-type", "application/json")], body.as_bytes())
}

/// The command with the URL of a service.
fn asked(service: &Service, args: &[&str]) -> Ended {
    let url = format!("http://{}", service.address);
    Ended::of(&ergate(&[args, &["--url", &url]].concat()).current_dir("/").output().unwrap())
}

#[test]
fn a_service_fires_its_schedules_and_a_restart_neither_loses_nor_doubles_a_slot() {
    let home = tempfile::tempdir().unwrap();
    let service = start(home.path(), TICK);
    let fired = |service: &Service| get(service, "/v1/schedules/tick")["fired"].as_u64().unwrap();
    until("it fires", || fired(&service) >= 2);
    service.kill();
    let service = start(home.path(), TICK);
    let before = fired(&service);
    until("it fires again", || fired(&service) >= before + 2);
    let shown = service.get("/metrics").expect(200).text();
    assert!(shown.contains("ergate_schedule_firings_total{schedule=\"tick\",outcome=\"fired\"}"), "{shown}");
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let exported = ergate(&["log", "export", "--data", data]).output().unwrap();
    let events: Vec<Value> =
        exported.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let of = |name: &str| events.iter().filter(|event| event["event"] == name).cloned().collect::<Vec<_>>();
    let slots: Vec<u64> = of("fired").iter().map(|event| event["slot"].as_u64().unwrap()).collect();
    let seconds: Vec<u64> = (slots[0]..).step_by(1_000_000).take(slots.len()).collect();
    assert_eq!(slots, seconds, "every second from the first to the last, also those of the restart");
    let key = |slot: &u64| format!("schedule/tick/{}", ergate::events::time::Timestamp(*slot).rfc3339());
    let requested: Vec<String> = of("requested").iter().map(|event| event["key"]["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(requested, slots.iter().map(key).collect::<Vec<_>>());
    let verified = Ended::of(&ergate(&["log", "verify", "--decisions", "--data", data]).output().unwrap());
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn a_schedule_is_shown_foreseen_paused_and_triggered() {
    let home = tempfile::tempdir().unwrap();
    let service = start(home.path(), NIGHTLY);
    let all = get(&service, "/v1/schedules");
    assert_eq!((all["schedules"].as_array().unwrap().len(), &all["schedules"][0]["cron"]), (1, &"30 2 * * *".into()));
    let preview = get(&service, "/v1/schedules/nightly/preview?after=2026-03-28T00:00:00Z&limit=3");
    let local: Vec<&str> =
        preview["firings"].as_array().unwrap().iter().map(|firing| firing["local"].as_str().unwrap()).collect();
    let days = ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"];
    assert_eq!(local, days.map(|day| format!("{day}[Europe/Berlin]")));

    let triggered = post(&service, "/v1/schedules/nightly/trigger", "{\"reason\":\"try it\"}").expect(201).json();
    let task = triggered["task"].as_str().unwrap();
    let shown = get(&service, &format!("/v1/tasks/{task}"));
    assert_eq!((&shown["task"], &shown["type"]), (&task.into(), &"sleep".into()));
    let history = get(&service, &format!("/v1/tasks/{task}/history"));
    let wanted = history["events"].as_array().unwrap().iter().find(|event| event["event"] == "triggered").unwrap();
    assert_eq!((&wanted["schedule"], &wanted["reason"]), (&"nightly".into(), &"try it".into()));
    let again = post(&service, "/v1/schedules/nightly/trigger", "").expect(409).json();
    assert!(again["detail"].as_str().unwrap().contains("still going on"), "{again}");
    let known = get(&service, "/v1/schedules/nightly");
    assert_eq!(
        (&known["last"]["task"], &known["last"]["live"], &known["labels"]["team"]),
        (&task.into(), &true.into(), &"blue".into())
    );

    let paused = post(&service, "/v1/schedules/nightly/pause", "{\"reason\":\"holidays\"}").expect(200).json();
    assert_eq!((&paused["paused"]["reason"], &paused["next"]), (&"holidays".into(), &Value::Null));
    let resumed = post(&service, "/v1/schedules/nightly/resume", "").expect(200).json();
    assert!(resumed["paused"].is_null() && resumed["next"]["slot"].is_string(), "{resumed}");
    for path in ["/v1/schedules/weekly", "/v1/schedules/weekly/preview"] {
        assert_eq!(service.get(path).expect(404).json()["field"], "name");
    }
    post(&service, "/v1/schedules/weekly/pause", "").expect(404);
    assert_eq!(service.get("/v1/schedules/nightly/preview?limit=1001").expect(422).json()["field"], "limit");
}

#[test]
fn the_command_line_shows_a_service_and_its_log_alike_and_acts_on_the_service() {
    let home = tempfile::tempdir().unwrap();
    let service = start(home.path(), NIGHTLY);
    let paused = asked(&service, &["schedule", "pause", "nightly", "--reason", "holidays"]).expect(0);
    assert!(paused.out.contains("holidays"), "{paused:?}");
    let data = home.path().join("data");
    for verb in [
        &["schedule", "list"][..],
        &["schedule", "show", "nightly"],
        &["schedule", "preview", "nightly", "-n", "4", "--after", "2026-10-24T00:00:00Z"],
        &["schedule", "show", "weekly"],
    ] {
        for format in ["table", "json"] {
            let args = [verb, &["-q", "-o", format]].concat();
            let (online, local) = (asked(&service, &args), [&args[..], &["--data", data.to_str().unwrap()]].concat());
            let offline = Ended::of(&ergate(&local).current_dir("/").output().unwrap());
            assert_eq!((online.code, &online.out), (offline.code, &offline.out), "{args:?}\n{online:?}\n{offline:?}");
        }
    }
    let preview = asked(&service, &["schedule", "preview", "nightly", "-n", "2", "--after", "2026-10-24T12:00:00Z"]).expect(0);
    assert!(preview.out.contains("2026-10-25T02:30:00+02:00[Europe/Berlin]"), "{preview:?}");
    asked(&service, &["schedule", "resume", "nightly"]).expect(0);
    assert!(asked(&service, &["schedule", "trigger", "nightly"]).expect(0).out.contains("0-0"));
    let missing = asked(&service, &["schedule", "trigger", "weekly"]);
    assert_eq!(missing.code, Some(6), "{missing:?}");
}

#[test]
fn a_mistake_in_the_configuration_is_marked_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (path, data) = (home.path().join("my.toml"), home.path().join("data"));
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let args = ["up", "--no-http", "--config", path.to_str().unwrap(), "--data", data.to_str().unwrap()];
        let ended = Ended::of(&ergate(&args).output().unwrap());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        ended.err
    };
    let cron = refused("[schedule.a]\ncron = \"0 25 * * *\"\ntask = \"noop\"\n");
    assert!(
        cron.contains("my.toml:2: `schedule.a.cron` is refused: \"25\" is no hour; 0 to 23 are\n  0 25 * * *\n    ^^"),
        "{cron}"
    );
    let zone = refused("[schedule.a]\ncron = \"0 3 * * *\"\ntimezone = \"Europe/Berln\"\ntask = \"noop\"\n");
    assert!(
        zone.contains("my.toml:3: `schedule.a.timezone` is refused")
            && zone.contains("Europe/Berlin\n  Europe/Berln\n             ^"),
        "{zone}"
    );
    let payload = refused("[schedule.a]\nevery = \"1h\"\ntask = \"noop\"\npayload = \"{\"\n");
    assert!(payload.contains("my.toml:4: `schedule.a.payload` is refused: it is not JSON"), "{payload}");
}
