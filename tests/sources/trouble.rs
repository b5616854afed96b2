//! Disks that cannot be written, queues that are full, and settings that cannot be.

use std::time::Duration;

use crate::command::{Ended, ergate, until};
use crate::ground::{Ground, append, counted, lines, numbers, until_taken};

#[test]
fn a_registry_that_cannot_be_written_is_said_and_no_line_is_lost_or_doubled() {
    let ground = Ground::with_inbox();
    let path = ground.inbox("a.ndjson");
    append(&path, &lines(0..10));
    let service = ground.start();
    ground.until_read(&path);
    // A folder in the place of the file that is written first: even root cannot write that.
    let obstacle = ground.path("data/sources/orders.json.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    append(&path, &lines(10..20));
    until_taken(&service, 20);
    append(&path, &lines(20..30));
    until_taken(&service, 30);
    // A file that the registry does not know could be taken for an older one of its name, so it waits.
    append(&ground.inbox("b.ndjson"), &lines(40..45));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&service)["taken"], 30);
    assert_eq!(service.said().matches("orders.json cannot be written").count(), 1, "{}", service.said());
    service.kill();
    let service = ground.start();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&service)["taken"], 0, "the log tells what was taken");
    append(&path, &lines(30..40));
    until_taken(&service, 10);
    std::fs::remove_dir(&obstacle).unwrap();
    until_taken(&service, 15);
    ground.stop(service);
    assert_eq!(ground.payloads(), numbers(0..45));
}

#[test]
fn where_there_is_no_room_lines_wait_and_none_is_dropped() {
    let ground = Ground::new("[limits]\ntasks_live_max = 7\n[source.orders]\npath = \"inbox\"\npoll = \"50ms\"\n");
    std::fs::create_dir(ground.inbox("")).unwrap();
    let sleeps: String =
        (0..100).map(|n| format!("{{\"type\":\"sleep\",\"payload\":{{\"ms\":20}},\"labels\":{{\"n\":\"{n}\"}}}}\n")).collect();
    append(&ground.inbox("a.ndjson"), &sleeps);
    let service = ground.start();
    until("some are taken", || counted(&service).get("taken").is_some_and(|taken| *taken > 0));
    // Stopped and killed in the middle of a batch of which a part was taken.
    ground.stop(service);
    let service = ground.start();
    until("some more are taken", || counted(&service).get("taken").is_some_and(|taken| *taken > 0));
    service.kill();
    let service = ground.start();
    ground.until_read(&ground.inbox("a.ndjson"));
    assert_eq!(counted(&service)["refused"], 0);
    ground.stop(service);
    let labels: Vec<String> = ground.tasks().into_iter().map(|(_, label)| label).collect();
    let mut offset = 0;
    let expected: Vec<String> = sleeps
        .lines()
        .map(|line| {
            let label = format!("orders/a.ndjson@{offset}");
            offset += line.len() + 1;
            label
        })
        .collect();
    assert_eq!(labels, expected);
}

#[test]
fn a_file_of_refused_lines_has_an_end() {
    let ground = Ground::new("[source.orders]\npath = \"inbox\"\npoll = \"50ms\"\nrefused_max = \"300B\"\n");
    std::fs::create_dir(ground.inbox("")).unwrap();
    append(&ground.inbox("a.ndjson"), &"nonsense\n".repeat(50));
    let service = ground.start();
    until("all is read", || counted(&service).get("refused") == Some(&50));
    let said = ground.stop(service);
    assert!(said.contains("is as long as `refused_max`"), "{said}");
    assert!(said.contains("lines=42"), "{said}");
    let size = std::fs::metadata(ground.path("data/sources/orders.refused.ndjson")).unwrap().len();
    assert!((150..=300).contains(&size), "{size}");
}

#[test]
fn a_path_that_cannot_be_looked_into_is_said_once_and_tried_on() {
    let ground = Ground::new("[source.orders]\npath = \"blocked/inbox\"\npoll = \"50ms\"\nfiles_max = 2\n");
    let blocked = ground.path("blocked");
    std::fs::write(&blocked, "a file where a directory should be").unwrap();
    let service = ground.start();
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(service.said().matches("cannot be looked into").count(), 1, "{}", service.said());
    std::fs::remove_file(&blocked).unwrap();
    std::fs::create_dir_all(blocked.join("later")).unwrap();
    for (number, name) in (0..).zip(["a", "b", "c", "d"]) {
        append(&blocked.join(format!("later/{name}.ndjson")), &lines([number]));
    }
    std::fs::rename(blocked.join("later"), blocked.join("inbox")).unwrap();
    until_taken(&service, 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&service)["taken"], 2);
    assert_eq!(
        service.said().matches("2 files from c.ndjson on are not followed, for `files_max` are").count(),
        1,
        "{}",
        service.said()
    );
    // One that goes makes room for the next.
    std::fs::remove_file(blocked.join("inbox/a.ndjson")).unwrap();
    until_taken(&service, 3);
    ground.stop(service);
    assert_eq!(ground.payloads(), numbers(0..3));
}

#[test]
fn what_cannot_be_followed_is_said_at_the_start() {
    let ground = Ground::new("[source.orders]\npath = \"inbox\"\n");
    let up = |args: &[&str]| {
        let (config, data) = (ground.path("my.toml"), ground.path("data"));
        let all = [&["up", "--no-http", "--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()], args].concat();
        let ended = Ended::of(&ergate(&all).output().unwrap());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        ended.err
    };
    let on_kafka = up(&["--log", "kafka://127.0.0.1:1/orders"]);
    assert!(on_kafka.contains("publish their lines to the topic of requests instead"), "{on_kafka}");
    std::fs::create_dir_all(ground.path("data/sources")).unwrap();
    std::fs::write(ground.path("data/sources/orders.json"), "{}").unwrap();
    let service = ["submit", "noop", "--data"].map(str::to_owned);
    let data = ground.path("data").display().to_string();
    std::fs::rename(ground.path("data/sources"), ground.path("aside")).unwrap();
    assert!(ergate(&[&service[0], &service[1], &service[2], &data]).output().unwrap().status.success());
    std::fs::rename(ground.path("aside"), ground.path("data/sources")).unwrap();
    let foreign = up(&[]);
    assert!(foreign.contains("orders.json is no registry") && foreign.contains("move it away"), "{foreign}");
    std::fs::write(ground.path("my.toml"), "[source.orders]\npath = \"inbox\"\npol = \"1s\"\n").unwrap();
    let typo = up(&[]);
    assert!(typo.contains("my.toml:3: there is no key `source.orders.pol`; the nearest is `source.orders.poll`"), "{typo}");
}
