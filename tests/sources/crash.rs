//! kill -9 in the middle of many lines: every line is one task.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::command::{until, verify};
use crate::ground::{Ground, append, counted, lines, numbers};

/// Lines of a round.
const LINES: u64 = 20_000;

#[test]
fn an_end_in_the_middle_waits_for_its_batch_and_the_next_start_goes_on_behind_it() {
    let ground = Ground::with_inbox();
    append(&ground.inbox("a.ndjson"), &lines(0..LINES));
    let mut before = 0;
    for count in [1, 3_000] {
        let service = ground.start();
        until("some lines are taken", || counted(&service).get("taken").is_some_and(|taken| *taken >= count));
        ground.stop(service);
        let registry: serde_json::Value =
            serde_json::from_slice(&std::fs::read(ground.path("data/sources/orders.json")).unwrap()).unwrap();
        let taken = ground.tasks().len() as u64;
        assert!(before < taken && taken <= LINES, "{taken}");
        assert_eq!(registry["files"][0]["offset"], lines(0..taken).len(), "the registry is where the log is");
        before = taken;
    }
    let service = ground.start();
    ground.until_read(&ground.inbox("a.ndjson"));
    ground.stop(service);
    assert_eq!(ground.payloads(), numbers(0..LINES));
}

#[test]
fn every_line_is_one_task_however_often_the_engine_is_killed() {
    let ground = Ground::with_inbox();
    for round in 0..5 {
        let all = round * LINES..(round + 1) * LINES;
        // Half of it is there at the start, the rest comes while it is read; every other round in a file of its own.
        let path = ground.inbox(&format!("{}.ndjson", round / 2));
        let middle = all.start + LINES / 2;
        append(&path, &lines(all.start..middle));
        let service = ground.start();
        append(&path, &lines(middle..all.end));
        until("some lines are taken", || counted(&service).get("taken").is_some_and(|taken| *taken > 2_000 * (round + 1)));
        service.kill();
        let service = ground.start();
        ground.until_read(&path);
        if round % 2 == 0 { service.kill() } else { drop(ground.stop(service)) }
    }
    let service = ground.start();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(counted(&service)["taken"], 0, "nothing is left to be read");
    ground.stop(service);
    let tasks = ground.tasks();
    let payloads: BTreeSet<&str> = tasks.iter().map(|(payload, _)| payload.as_str()).collect();
    let labels: BTreeSet<&str> = tasks.iter().map(|(_, label)| label.as_str()).collect();
    assert_eq!(payloads.len() as u64, 5 * LINES, "a line is missing");
    assert_eq!((tasks.len() as u64, labels.len()), (5 * LINES, tasks.len()), "a line is there twice");
    assert_eq!(ground.payloads(), numbers(0..5 * LINES), "the order of the lines is that of the log");
    verify(&ground.path("data"));
}
