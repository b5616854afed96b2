//! Lines as they are appended: whole ones, halves, and what is no request.

use std::time::{Duration, Instant};

use crate::ground::{Ground, append, counted, lines, numbers, until_taken};

#[test]
fn what_is_appended_is_a_task_within_a_second_and_once() {
    let ground = Ground::new("[source.orders]\npath = \"orders.ndjson\"\n");
    let service = ground.start();
    let path = ground.path("orders.ndjson");
    let waits = (1..=5).map(|count| {
        append(&path, &lines([count]));
        let began = Instant::now();
        until_taken(&service, count);
        began.elapsed()
    });
    // Two looks and a commit. A machine that is busy with other tests may be slow, and is not five times.
    let shortest = waits.min().unwrap();
    assert!(shortest < Duration::from_secs(1), "{shortest:?}");
    let shown = service.get("/v1/tasks/0-0?wait=30s").expect(200).json();
    assert_eq!(shown["asks"][0]["label"], serde_json::json!(["ergate.source", "orders/orders.ndjson@0"]), "{shown}");
    ground.stop(service);
    let service = ground.start();
    append(&path, &lines([6]));
    until_taken(&service, 1);
    ground.stop(service);
    assert_eq!(ground.payloads(), numbers(1..=6));
}

#[test]
fn half_a_line_waits_for_its_end() {
    let ground = Ground::with_inbox();
    let service = ground.start();
    let path = ground.inbox("a.ndjson");
    let text = lines([1, 2]);
    let (half, rest) = text.split_at(text.len() - 9);
    append(&path, half);
    until_taken(&service, 1);
    std::thread::sleep(Duration::from_millis(300));
    let counts = counted(&service);
    assert_eq!((counts["taken"], counts["refused"]), (1, 0));
    assert_eq!(counts["unread"], half.len() as u64 - lines([1]).len() as u64);
    // Also over a restart.
    ground.stop(service);
    let service = ground.start();
    append(&path, rest);
    until_taken(&service, 1);
    ground.stop(service);
    assert_eq!(ground.payloads(), numbers([1, 2]));
}

#[test]
fn a_line_that_is_no_request_is_kept_with_its_reason_and_the_next_one_is_taken() {
    let ground = Ground::with_inbox();
    let labels: String = (0..16).map(|n| format!("\"l{n}\":\"x\",")).collect();
    let bad = [
        "{\"type\":\"noop\",\"priorty\":1}",
        "not json",
        "{\"type\":\"nope\"}",
        &format!("{{\"type\":\"noop\",\"labels\":{{{}}}}}", labels.trim_end_matches(',')),
        "{\"type\":\"noop\",\"labels\":{\"ergate.source\":\"me\"}}",
    ];
    let key = |payload: u64| format!("{{\"type\":\"noop\",\"key\":\"k\",\"payload\":{payload}}}\n");
    let text = bad.map(|line| format!("{line}\n")).concat() + "\n  \n" + &lines([1]) + &key(2) + &key(2) + &key(3);
    append(&ground.inbox("a.ndjson"), &text);
    let service = ground.start();
    ground.until_read(&ground.inbox("a.ndjson"));
    let counts = counted(&service);
    assert_eq!((counts["taken"], counts["duplicate"], counts["refused"]), (2, 1, 6));
    let said = ground.stop(service);
    let refused = ground.refused();
    let fields: Vec<_> = refused.iter().map(|line| line["field"].as_str()).collect();
    assert_eq!(
        fields,
        [Some("priorty"), Some("value"), Some("type"), Some("labels"), Some("labels.ergate.source"), None],
        "{refused:#?}"
    );
    for (line, kept) in bad.iter().zip(&refused) {
        assert_eq!((kept["line"].as_str(), kept["file"].as_str()), (Some(*line), Some("a.ndjson")));
        let at = text.find(line).unwrap();
        assert_eq!(kept["offset"], at);
        assert!(!kept["reason"].as_str().unwrap().is_empty());
        assert_eq!(said.matches(&format!("offset={at} ")).count(), 1, "{said}");
    }
    assert!(refused[0]["reason"].as_str().unwrap().contains("did you mean `priority`?"), "{}", refused[0]);
    assert!(refused[5]["reason"].as_str().unwrap().contains("idempotency key"), "{}", refused[5]);
    // The next start knows that they were refused.
    let service = ground.start();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&service)["refused"], 0);
    ground.stop(service);
    assert_eq!((ground.payloads(), ground.refused().len()), (numbers([1, 2]), 6));
}

#[test]
fn a_line_comes_after_lines_before_it_and_never_after_later_ones() {
    let ground = Ground::with_inbox();
    let keyed = |key: &str, after: &str| format!("{{\"type\":\"noop\",\"key\":\"{key}\"{after}}}\n");
    let text = lines([1])
        + &keyed("a", "")
        + &keyed("b", ",\"after\":[{\"key\":\"a\"}]")
        + &keyed("c", ",\"after\":[{\"key\":\"d\"}]")
        + &keyed("d", "");
    append(&ground.inbox("a.ndjson"), &text);
    let service = ground.start();
    ground.until_read(&ground.inbox("a.ndjson"));
    let counts = counted(&service);
    assert_eq!((counts["taken"], counts["refused"]), (4, 1));
    for id in ["0-1", "0-2", "0-3"] {
        assert_eq!(service.get(&format!("/v1/tasks/{id}?wait=30s")).expect(200).json()["outcome"], "SUCCEEDED");
    }
    ground.stop(service);
    let refused = ground.refused();
    assert!(refused[0]["line"].as_str().unwrap().contains("\"c\""), "{refused:#?}");
    assert!(refused[0].to_string().contains("after"), "{refused:#?}");
}
