//! The same verb prints the same, whether it asks a service or looks at its log.

use crate::command::Ended;
use crate::service::Service;
use crate::support::{ask, run, submit};

/// A service with tasks in every state that lasts; its log can be read beside it.
fn service(home: &std::path::Path) -> Service {
    let service = Service::start_with(home, &[], &[("ERGATE_LOG__ENGINE", "file")]);
    let done = submit(&service, &["noop", "[1]", "--key", "first", "--priority", "7", "--label", "team=red"]);
    ask(&service, &["task", "result", &done, "--wait", "60s"]).expect(0);
    for _ in 0..3 {
        let labels = ["--label", "team=red", "--label", "a=b=c & d"];
        let failed = submit(&service, &[&["fail", r#"{"class":"c","message":"it is \u001b[31mred"}"#], &labels[..]].concat());
        ask(&service, &["task", "result", &failed, "--wait", "60s"]).expect(3);
    }
    ask(&service, &["task", "retry", "0-1", "--reason", "once more"]).expect(0);
    ask(&service, &["task", "result", "0-4", "--wait", "60s"]).expect(3);
    submit(&service, &["sleep", r#"{"ms":600000}"#, "--label", "a=b"]);
    submit(&service, &["noop", "--delay", "1h"]);
    crate::command::until("the task runs", || ask(&service, &["task", "list", "--state", "running"]).out.contains("0-5"));
    service
}

#[test]
fn a_service_and_its_log_are_shown_alike() {
    let home = tempfile::tempdir().unwrap();
    let service = service(home.path());
    let data = home.path().join("data");
    let position = service.get("/v1/state").expect(200).json()["position"].as_u64().unwrap().to_string();
    let newest = (position.parse::<u64>().unwrap() - 3).to_string();
    let verbs: &[&[&str]] = &[
        &["task", "list"],
        &["task", "list", "--limit", "3"],
        &["task", "list", "--limit", "2", "--before", "live-5"],
        &["task", "list", "--type", "fail", "--state", "dead"],
        &["task", "list", "--outcome", "succeeded"],
        &["task", "list", "--state", "delayed", "--pool", "default"],
        &["task", "list", "--since", "2020-01-01T00:00:00Z", "--until", "2020-01-02T00:00:00Z"],
        &["task", "list", "--label", "a=b"],
        &["task", "list", "--label", "team=red"],
        &["task", "list", "--label", "team=red", "--label", "a=b=c & d", "--limit", "1"],
        &["task", "list", "--label", "team=red", "--state", "ended", "--type", "noop"],
        &["task", "list", "--label", "team=blue"],
        &["task", "show", "0-0"],
        &["task", "show", "0-1"],
        &["task", "show", "0-2"],
        &["task", "show", "0-5"],
        &["task", "history", "0-0"],
        &["task", "history", "0-1"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--type", "fail", "--cause", "not_retryable", "--limit", "1"],
        &["dead-letters", "list", "--before", "0-3"],
        &["pool", "list"],
        &["pool", "show", "default"],
        &["log", "tail"],
        &["log", "tail", "-n", "3"],
        &["log", "tail", "--from", "2", "-n", "4"],
        &["log", "tail", "--from", &newest],
        &["replay", "--until", "7"],
        &["replay", "--until", &position],
        &["replay", "--until", "2100-01-01T00:00:00Z"],
        &["task", "show", "0-99"],
        &["task", "list", "--type", "nope"],
        &["task", "list", "--pool", "nope"],
        &["pool", "show", "nope"],
        &["log", "tail", "--from", "999999"],
        &["replay", "--until", "999999"],
    ];
    let mut printed = 0;
    for verb in verbs {
        for format in ["table", "json"] {
            let args = [*verb, &["-q", "-o", format]].concat();
            let online = ask(&service, &args);
            let offline = run(&[&args[..], &["--data", data.to_str().unwrap()]].concat());
            assert_eq!((online.code, &online.out), (offline.code, &offline.out), "{args:?}\n{online:?}\n{offline:?}");
            assert!(!online.out.contains('\u{1b}'), "{args:?}");
            printed += usize::from(online.code == Some(0) && !online.out.is_empty());
            told_alike(&args, &online, &offline);
        }
    }
    assert!(printed >= 54, "only {printed} verbs printed something");
}

#[test]
fn what_only_a_service_knows_is_shown_when_it_is_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let service = service(home.path());
    let verb = ["pool", "show", "default", "--usage"];
    let online = ask(&service, &verb).expect(0).out;
    assert!(online.contains("they use") && online.contains("(1 told lately)"), "{online}");
    let data = home.path().join("data");
    let offline = run(&[&verb[..], &["--data", data.to_str().unwrap()]].concat()).expect(2);
    assert!(offline.err.contains("what replicas use is in no log; name a running service"), "{offline:?}");
}

/// What is not there is told in one line, here and there.
fn told_alike(args: &[&str], online: &Ended, offline: &Ended) {
    let lines = |ended: &Ended| ended.err.lines().count();
    if online.code != Some(0) {
        assert_eq!((lines(online), lines(offline)), (1, 1), "{args:?}\n{online:?}\n{offline:?}");
    }
}
