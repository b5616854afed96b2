//! Many lines to a service: answered one by one, in little memory, and with the truth when the service dies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::command::{Ended, run_with, signal, until, verify};
use crate::service::Service;
use crate::support::{ask, asking, command, free, refuses, up_at};

#[test]
fn every_line_has_its_answer() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let lines = home.path().join("lines");
    let mut text = "\u{feff}{\"type\":\"noop\",\"key\":\"a\"}\r\n\n".to_owned();
    text += "nonsense\n{\"type\":\"noop\",\"priorty\":1}\n{\"type\":\"noop\",\"key\":\"a\"}\n";
    writeln!(text, "{{\"type\":\"noop\",\"payload\":\"{}\"}}", "x".repeat(2 << 20)).unwrap();
    text += "{\"type\":\"noop\"}";
    std::fs::write(&lines, text).unwrap();
    let path = lines.to_str().unwrap();
    let told = ask(&service, &["submit", "--ndjson", path, "-o", "json"]).expect(4).json_lines();
    let of = |line: u64| told.iter().find(|told| told["line"] == line).unwrap_or_else(|| panic!("{line}: {told:?}"));
    assert_eq!((told.len(), &of(1)["id"], &of(5)["id"], &of(7)["id"]), (6, &"0-0".into(), &"0-0".into(), &"0-1".into()));
    assert_eq!(of(5)["duplicate"], true);
    assert!(of(4)["refused"].as_str().unwrap().contains("priorty") && of(6)["refused"].as_str().unwrap().contains("longer than"));
    let table = ask(&service, &["submit", "--ndjson", path]).expect(4);
    assert!(table.out.contains("3 tasks taken") && table.out.contains("3 lines were refused"), "{table:?}");
    assert!(table.err.contains("line 3: ") && table.err.contains("line 4: "), "{table:?}");
    let url = format!("http://{}", service.address);
    let piped = run_with(&["submit", "--ndjson", "-", "-q", "-o", "json", "--url", &url], b"{\"type\":\"noop\"}\n").expect(0);
    assert_eq!(piped.json()["line"], 1);
    assert_eq!(run_with(&["submit", "--ndjson", "-", "--url", &url], b"").expect(0).out.split(';').next(), Some("0 tasks taken"));
    refuses(&ask(&service, &["submit", "--ndjson", "/nowhere"]), 1, &["/nowhere"]);
    refuses(&ask(&service, &["submit", "--ndjson", path, "--wait", "1s"]), 2, &["--wait"]);
}

/// The most memory that a process ever had, in KiB; nothing once it has ended, though its last answers may still be read.
fn peak_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn a_huge_file_takes_little_memory() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_LOG__DURABILITY", "memory")]);
    let path = home.path().join("lines");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let payload = "x".repeat(2_000);
    for number in 0..50_000 {
        writeln!(file, "{{\"type\":\"noop\",\"payload\":\"{number} {payload}\"}}").unwrap();
    }
    file.flush().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    let mut child = asking(&service, &["submit", "--ndjson", path.to_str().unwrap(), "-q", "-o", "json"]).spawn().unwrap();
    let (mut answered, mut peak, mut peak_at) = (0_u64, 0, 0);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let told: Value = serde_json::from_str(&line.unwrap()).unwrap();
        answered += 1;
        assert_eq!((&told["line"], told["id"].is_string()), (&answered.into(), true), "{told}");
        if answered % 1_000 == 0
            && let Some(kib) = peak_kib(child.id())
        {
            (peak, peak_at) = (kib, answered);
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(answered, 50_000);
    assert!(peak_at >= 40_000, "its memory was seen only up to line {peak_at}");
    assert!(bytes > 100_000_000 && peak > 1_000 && peak < 64 << 10, "{peak} KiB for {bytes} bytes");
}

/// Starts to submit so many lines from a pipe that stays open, and gives what the command says.
fn submitting(url: &str, keyed: bool, count: u64) -> (std::process::Child, std::process::ChildStdin) {
    let mut child = command(&["submit", "--ndjson", "-", "-o", "json", "--url", url]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut text = String::new();
    for number in 0..count {
        let key = if keyed { format!(",\"key\":\"k{number}\"") } else { String::new() };
        writeln!(text, "{{\"type\":\"noop\"{key}}}").unwrap();
    }
    input.write_all(text.as_bytes()).unwrap();
    (child, input)
}

#[test]
fn a_service_that_dies_and_comes_back_has_each_line_with_a_key_once() {
    let home = tempfile::tempdir().unwrap();
    let address = free();
    let url = format!("http://{address}");
    let mut service = up_at(home.path(), address);
    let path = home.path().join("lines");
    let text: String = (0..60_000).map(|number| format!("{{\"type\":\"noop\",\"key\":\"k{number}\"}}\n")).collect();
    std::fs::write(&path, text).unwrap();
    let mut child = command(&["submit", "--ndjson", path.to_str().unwrap(), "-o", "json", "--url", &url]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ids: BTreeMap<u64, String> = BTreeMap::new();
    let mut note = |line: String| {
        let told: Value = serde_json::from_str(&line).unwrap();
        let id = told["id"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
        assert!(ids.insert(told["line"].as_u64().unwrap(), id).is_none(), "two answers: {told}");
    };
    (0..5_000).for_each(|_| note(lines.next().unwrap().unwrap()));
    service.kill().unwrap();
    service.wait().unwrap();
    service = up_at(home.path(), address);
    lines.for_each(|line| note(line.unwrap()));
    let ended = Ended::of(&child.wait_with_output().unwrap()).expect(0);
    assert_eq!(ids.len(), 60_000, "{ended:?}");
    assert_eq!(ids.values().collect::<std::collections::BTreeSet<_>>().len(), 60_000, "two lines have one task");
    signal(&service, "TERM");
    service.wait().unwrap();
    // Had a line been taken twice, there would be more of them.
    assert_eq!(verify(&home.path().join("data")).next_ordinal().0, 60_000);
}

#[test]
fn a_service_that_dies_is_told_with_what_is_kept_and_what_nobody_knows() {
    let home = tempfile::tempdir().unwrap();
    let address = free();
    let mut service = up_at(home.path(), address);
    let path = home.path().join("lines");
    std::fs::write(&path, "{\"type\":\"noop\"}\n".repeat(60_000)).unwrap();
    let url = format!("http://{address}");
    let mut child = command(&["submit", "--ndjson", path.to_str().unwrap(), "-o", "json", "--url", &url]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answered: Vec<Value> = Vec::new();
    let mut note = |line: String| answered.push(serde_json::from_str(&line).unwrap());
    // What nobody has read of the answers holds the command up, so it is far from its end.
    (0..1_000).for_each(|_| note(lines.next().unwrap().unwrap()));
    service.kill().unwrap();
    service.wait().unwrap();
    // It is there again, and still nothing is sent twice.
    service = up_at(home.path(), address);
    lines.for_each(|line| note(line.unwrap()));
    let ended = Ended::of(&child.wait_with_output().unwrap());
    signal(&service, "TERM");
    service.wait().unwrap();
    let state = verify(&home.path().join("data"));
    for told in &answered {
        let ordinal: u64 = told["id"].as_str().unwrap().strip_prefix("0-").unwrap().parse().unwrap();
        assert!(ordinal < state.next_ordinal().0, "{told} was acknowledged and is not there");
    }
    let next = answered.len() + 1;
    assert!((1_000..60_000).contains(&answered.len()) && ended.code == Some(10), "{} {}", answered.len(), ended.err);
    assert!(ended.err.contains(&format!("lines {next} to ")) && ended.err.contains("no key"), "{}", ended.err);
}

#[test]
fn an_interruption_waits_for_what_was_sent_and_says_how_far_it_came() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let (mut child, input) = submitting(&format!("http://{}", service.address), false, 3);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (0..3).for_each(|_| assert!(lines.next().unwrap().unwrap().contains("\"id\"")));
    signal(&child, "INT");
    let ended = Ended::of(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("3 tasks taken"), "{ended:?}");
    drop(input);
}

#[test]
fn a_full_service_takes_the_rest_once_there_is_room() {
    let home = tempfile::tempdir().unwrap();
    let full = [("ERGATE_LIMITS__TASKS_LIVE_MAX", "8"), ("ERGATE_HTTP__BODY_TIMEOUT", "300ms")];
    let service = Service::start_with(home.path(), &[], &full);
    let sleeping: Vec<_> = (0..8).map(|_| crate::support::submit(&service, &["sleep", r#"{"ms":600000}"#])).collect();
    let path = home.path().join("lines");
    std::fs::write(&path, "{\"type\":\"noop\"}\n".repeat(5)).unwrap();
    let child = asking(&service, &["submit", "--ndjson", path.to_str().unwrap(), "-o", "json"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    let ids: Vec<_> = sleeping.iter().map(String::as_str).collect();
    ask(&service, &[&["task", "kill"], &ids[..]].concat()).expect(0);
    let told = Ended::of(&child.wait_with_output().unwrap()).expect(0).json_lines();
    let lines: std::collections::BTreeSet<_> = told.iter().map(|told| told["line"].as_u64().unwrap()).collect();
    assert_eq!((told.len(), lines), (5, (1..=5).collect()), "{told:?}");
    let all = ask(&service, &["task", "list", "-o", "json"]).expect(0).json_lines();
    assert_eq!(all.len(), 13, "taken twice, or lost: {all:?}");
}

#[test]
fn an_input_that_pauses_for_longer_than_a_service_waits_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__BODY_TIMEOUT", "300ms")]);
    let (mut child, mut input) = submitting(&format!("http://{}", service.address), false, 2);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (0..2).for_each(|_| assert!(lines.next().unwrap().is_ok()));
    std::thread::sleep(Duration::from_millis(1_500));
    input.write_all(b"{\"type\":\"noop\"}\n").unwrap();
    drop(input);
    let told: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&told["line"], &told["id"]), (&3.into(), &"0-2".into()));
    Ended::of(&child.wait_with_output().unwrap()).expect(0);
    until("all ended", || ask(&service, &["task", "list", "--state", "ended", "-o", "json"]).json_lines().len() == 3);
}
