//! Files that come, go, shrink, and take each other's place.

use std::time::Duration;

use crate::command::until;
use crate::ground::{Ground, append, counted, lines, numbers, until_taken};

#[test]
fn a_file_that_is_cut_begins_anew_and_says_so() {
    let ground = Ground::with_inbox();
    let service = ground.start();
    let path = ground.inbox("a.ndjson");
    append(&path, &lines(10..20));
    until_taken(&service, 10);
    std::fs::write(&path, lines([1])).unwrap();
    until_taken(&service, 11);
    // Cut and grown beyond where it was between two starts: what stands before the place is another text.
    ground.stop(service);
    std::fs::write(&path, lines(30..60)).unwrap();
    let service = ground.start();
    until_taken(&service, 30);
    let said = ground.stop(service);
    assert!(said.contains("read from its beginning"), "{said}");
    assert_eq!(ground.payloads(), numbers((10..20).chain([1]).chain(30..60)));
}

#[test]
fn a_file_that_is_replaced_is_read_to_its_end_before_the_new_one() {
    let ground = Ground::new("[source.orders]\npath = \"orders.ndjson\"\npoll = \"50ms\"\n");
    let (path, old) = (ground.path("orders.ndjson"), ground.path("orders.ndjson.1"));
    append(&path, &lines(0..10));
    let service = ground.start();
    until_taken(&service, 10);
    // As logrotate does it: whoever writes has the old one open for a while.
    std::fs::rename(&path, &old).unwrap();
    append(&path, &lines(20..30));
    std::thread::sleep(Duration::from_millis(300));
    append(&old, &lines(10..15));
    until_taken(&service, 25);
    // And so while nobody follows: the rest of the old one is found by its inode.
    append(&path, &lines(30..35));
    until_taken(&service, 30);
    service.kill();
    std::fs::rename(&path, ground.path("orders.ndjson.2")).unwrap();
    append(&ground.path("orders.ndjson.2"), &lines(35..40));
    append(&ground.path("orders.ndjson.2"), lines([40]).trim_end());
    append(&path, &lines(50..60));
    let service = ground.start();
    until_taken(&service, 16);
    ground.stop(service);
    assert_eq!(ground.payloads(), numbers((0..15).chain(20..41).chain(50..60)));
}

#[test]
fn files_of_a_directory_are_read_in_the_order_of_their_names_as_they_come_and_go() {
    let ground = Ground::with_inbox();
    std::fs::remove_dir(ground.inbox("")).unwrap();
    let service = ground.start();
    std::thread::sleep(Duration::from_millis(150));
    // The directory comes later, with all its files at once.
    std::fs::create_dir(ground.path("new")).unwrap();
    append(&ground.path("new/b.ndjson"), &lines(10..20));
    append(&ground.path("new/a.ndjson"), &lines(0..10));
    append(&ground.path("new/c.json"), &lines([99]));
    std::fs::rename(ground.path("new"), ground.inbox("")).unwrap();
    until_taken(&service, 20);
    std::fs::remove_file(ground.inbox("a.ndjson")).unwrap();
    std::fs::rename(ground.inbox("b.ndjson"), ground.inbox("d.ndjson")).unwrap();
    append(&ground.inbox("d.ndjson"), &lines([20]));
    until_taken(&service, 21);
    until("the file is forgotten", || {
        !std::fs::read_to_string(ground.path("data/sources/orders.json")).unwrap().contains("a.ndjson")
    });
    // A new file under an old name is a new file.
    append(&ground.inbox("a.ndjson"), &lines([30]));
    until_taken(&service, 22);
    service.kill();
    let service = ground.start();
    append(&ground.inbox("a.ndjson"), &lines([31]));
    until_taken(&service, 1);
    until("nothing is left", || counted(&service)["unread"] == 0);
    ground.stop(service);
    let tasks = ground.tasks();
    assert_eq!(ground.payloads(), numbers((0..21).chain([30, 31])));
    assert!(tasks[20].1.starts_with("orders/d.ndjson@"), "{:?}", tasks[20]);
}
