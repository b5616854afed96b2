//! `ergate submit` as a user sees it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "support/command.rs"]
mod command;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command::{Ended, ergate, events, run, run_with, signal, until, verify, watchable};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file of NDJSON with so many sleeping tasks.
fn sleeps(path: &Path, count: usize, ms: u64) {
    fs::write(path, format!("{{\"type\":\"sleep\",\"payload\":{{\"ms\":{ms}}}}}\n").repeat(count)).unwrap();
}

#[test]
fn one_task_prints_its_result() {
    let home = tempfile::tempdir().unwrap();
    let (data, file) = (home.path().join("data"), home.path().join("file"));
    fs::write(&file, "a\nb").unwrap();
    let payload = format!("{{\"path\":{:?}}}", text(&file));
    let result = run(&["submit", "file.digest", &payload, "--data", text(&data)]).expect(0).json();
    assert_eq!((result["bytes"].as_u64(), result["lines"].as_u64()), (Some(3), Some(1)));
    assert_eq!(result["blake3"], blake3::hash(b"a\nb").to_hex().as_str());
    fs::write(home.path().join("payload"), "\u{feff}{\"ms\": 1}\r\n").unwrap();
    let from_file = format!("@{}", text(&home.path().join("payload")));
    assert_eq!(run(&["submit", "sleep", &from_file, "--data", text(&data)]).expect(0).out, "null\n");
    assert_eq!(run_with(&["submit", "sleep", "-", "--data", text(&data)], b"{\"ms\": 1}").expect(0).out, "null\n");
    verify(&data);
}

#[test]
fn one_task_takes_its_settings() {
    let home = tempfile::tempdir().unwrap();
    let data = text(home.path());
    let all = ["--priority", "9", "--label", "a=b", "--delay", "50ms", "--timeout", "5s", "-o", "json", "--data", data];
    let started = Instant::now();
    let ended = Ended::of(&ergate(&["submit", "noop"]).args(all).output().unwrap()).expect(0);
    assert_eq!(ended.json()["outcome"], "SUCCEEDED");
    assert!(started.elapsed() >= Duration::from_millis(50));
    let twice = ["submit", "noop", "7", "--key", "k", "-o", "json", "--data", data];
    let first = run(&twice).expect(0).json();
    let second = run(&twice).expect(0).json();
    assert_eq!((&first["id"], second["duplicate"].as_bool()), (&second["id"], Some(true)));
    let other = run(&["submit", "noop", "8", "--key", "k", "--data", data]).expect(4);
    assert!(other.err.contains("another payload"), "{other:?}");
    let late = run(&["submit", "sleep", "{\"ms\":60000}", "--timeout", "50ms", "--attempts", "1", "--data", data]).expect(3);
    assert!(late.err.contains("task 0-2 FAILED"), "{late:?}");
    let retried = run(&["submit", "fail", "{\"retryable\":true}", "--attempts", "2", "--data", data]).expect(3);
    assert!(retried.err.contains("AttemptsExhausted"), "{retried:?}");
}

#[test]
fn one_task_that_is_refused_leaves_no_trace() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    fs::write(home.path().join("large"), large).unwrap();
    let large = format!("@{}", text(&home.path().join("large")));
    for (args, code, reason) in [
        (&["nope"][..], 4, "task type \"nope\" is not known; known are: fail, file.digest, noop, sleep"),
        (&["noop", "text"], 4, "a text needs its own quotes"),
        (&["noop", &large], 4, "over the limit of 1048576 bytes"),
        (&["noop", "@/nowhere"], 1, "failed to open /nowhere"),
        (&["noop", "--priority", "10"], 2, "10"),
        (&["noop", "--label", "x"], 2, "NAME=VALUE"),
        (&["noop", "--delay", "-1s"], 2, "span"),
        (&[], 2, "required"),
        (&["noop", "--resume"], 2, "cannot be used"),
    ] {
        let ended = Ended::of(&ergate(&["submit", "--data", text(&data)]).args(args).output().unwrap()).expect(code);
        assert!(ended.err.contains(reason), "{args:?}: {ended:?}");
    }
    let endless = ergate(&["submit", "noop", "@/dev/zero", "--data", text(&data)]).output().unwrap();
    assert_eq!(endless.status.code(), Some(4));
    assert!(!data.exists());
    let wrong = run(&["submit", "sleep", "{\"ms\":\"soon\"}", "--data", text(&data)]).expect(3);
    assert!(wrong.err.contains("the payload is not what the function takes"), "{wrong:?}");
}

#[test]
fn files_that_are_no_files_fail_and_nothing_hangs() {
    let home = tempfile::tempdir().unwrap();
    let (data, pipe, link) = (home.path().join("data"), home.path().join("pipe"), home.path().join("link"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    for (path, reason) in [
        (text(&pipe), "not_a_file"),
        (text(&link), "not_a_file"),
        ("/dev/zero", "not_a_file"),
        ("/", "not_a_file"),
        ("/nowhere", "unreadable: failed to open /nowhere"),
        ("", "payload"),
    ] {
        let ended = run(&["submit", "file.digest", &format!("{{\"path\":{path:?}}}"), "--data", text(&data)]).expect(3);
        assert!(ended.err.contains(reason), "{path}: {ended:?}");
    }
}

#[test]
fn bad_lines_are_named_and_the_rest_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let mut input = b"\xef\xbb\xbf{\"type\":\"noop\"}\r\n\n".to_vec();
    let bad: [(&[u8], &str); 9] = [
        (b"nonsense", "a JSON object is expected"),
        (b"{\"type\":\"nope\"}", "is not known"),
        (b"{\"type\":\"noop\",\"colour\":1}", "`colour` is not a known field"),
        (b"{\"type\":\"noop\",\"type\":\"noop\"}", "`type` is given twice"),
        (b"{\"type\":\"noop\",\"payload\":\"\xff\"}", "not UTF-8"),
        (b"{\"type\":\"noop\",\"payload\":\"\0\"}", "control character"),
        (b"{\"type\":\"noop\",\"priority\":10}", "`priority` is 10 where a whole number from 0 to 9 is expected"),
        (&[b'x'; 3 << 20], "longer than 1463640 bytes"),
        (b"{\"type\":\"noop\",\"payload\":[1}", "at column"),
    ];
    for (line, _) in bad {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    input.extend_from_slice(format!("{{\"type\":\"noop\",\"payload\":\"{}\"}}\n", "x".repeat((1 << 20) - 1)).as_bytes());
    input.extend_from_slice(b"{\"type\":\"sleep\",\"payload\":7}\n{\"type\":\"noop\"}");
    let ended = run_with(&["submit", "--ndjson", "-", "-o", "json", "--data", text(home.path())], &input).expect(4);
    let answers = ended.json_lines();
    let at = |line: u64| answers.iter().find(|answer| answer["line"] == line).unwrap_or_else(|| panic!("no line {line}"));
    for ((_, reason), line) in bad.iter().zip(3..) {
        assert!(at(line)["refused"].as_str().unwrap().contains(reason), "{}", at(line));
    }
    assert!(at(12)["refused"].as_str().unwrap().contains("over the limit of 1048576"), "{}", at(12));
    assert_eq!(at(13)["outcome"], "FAILED");
    assert_eq!(at(13)["failure"]["class"], "payload");
    assert_eq!((&at(1)["outcome"], &at(14)["outcome"]), (&"SUCCEEDED".into(), &"SUCCEEDED".into()));
    assert_eq!(answers.len(), 13);
    let ended = run_with(&["submit", "--ndjson", "-", "--data", text(home.path())], &input).expect(4);
    assert!(ended.err.contains("ergate: line 3: `value` begins with nonsense where a JSON object is expected"), "{ended:?}");
    assert!(ended.out.contains("3 tasks: SUCCEEDED 2, FAILED 1") && ended.out.contains("10 lines were refused"), "{ended:?}");
    verify(home.path());
}

#[test]
fn many_lines_all_run_and_every_answer_is_printed_once() {
    let home = tempfile::tempdir().unwrap();
    let (input, data) = (home.path().join("input"), home.path().join("data"));
    let lines = (0..20_000).fold(String::new(), |mut text, number| {
        writeln!(text, "{{\"type\":\"noop\",\"payload\":{number},\"key\":\"{}\"}}", number % 15_000).unwrap();
        text
    });
    // The last 5,000 keys come again with other payloads.
    fs::write(&input, lines).unwrap();
    let args = ["submit", "--ndjson", text(&input), "-o", "json", "--durability", "memory", "--data", text(&data)];
    let mut numbers: Vec<_> = run(&args).expect(4).json_lines().iter().map(|line| line["line"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=20_000));
    let again = run(&["submit", "--ndjson", text(&input), "--durability", "memory", "--data", text(&data)]).expect(4);
    assert!(again.out.contains("15,000 tasks") && again.out.contains("15,000 of them known before"), "{again:?}");
    assert_eq!(verify(&data).next_ordinal().0, 15_000);
}

#[test]
fn a_line_is_answered_before_the_next_one_comes() {
    let home = tempfile::tempdir().unwrap();
    let args = ["submit", "--ndjson", "-", "-o", "json", "--data", text(home.path())];
    let mut child = ergate(&args).stdin(Stdio::piped()).spawn().unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for number in 0..3 {
        writeln!(input, "{{\"type\":\"noop\"}}").unwrap();
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        assert!(String::from_utf8(line).unwrap().contains(&format!("\"0-{number}\"")));
    }
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_killed_run_goes_on_at_the_next_start() {
    let home = tempfile::tempdir().unwrap();
    let (input, data) = (home.path().join("input"), home.path().join("data"));
    watchable(&data);
    sleeps(&input, 200, 1_000);
    let mut child = ergate(&["submit", "--ndjson", text(&input), "--data", text(&data)]).spawn().unwrap();
    until("everything is started", || events(&data) >= 400);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(verify(&data).work.tasks.len(), 200);
    let ended = run(&["submit", "--resume", "--data", text(&data)]).expect(0);
    assert!(ended.err.contains("200 tasks that were left over from before run too"), "{ended:?}");
    let state = verify(&data);
    assert_eq!((state.work.tasks.len(), state.work.ended[0]), (0, 200));
}

#[test]
fn the_first_signal_drains_and_the_second_stops_at_once() {
    let home = tempfile::tempdir().unwrap();
    let (input, data) = (home.path().join("input"), home.path().join("data"));
    watchable(&data);
    sleeps(&input, 10, 1_500);
    let args = ["submit", "--ndjson", text(&input), "--data", text(&data)];
    let child = ergate(&args).spawn().unwrap();
    until("everything is started", || events(&data) >= 20);
    signal(&child, "INT");
    let ended = Ended::of(&child.wait_with_output().unwrap()).expect(130);
    assert!(ended.err.contains("lines up to 10 were taken") && ended.err.contains("0 unfinished tasks"), "{ended:?}");
    assert_eq!(verify(&data).work.ended[0], 10);

    sleeps(&input, 10, 120_000);
    let before = events(&data);
    let child = ergate(&args).spawn().unwrap();
    until("everything is started", || events(&data) >= before + 20);
    let started = Instant::now();
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "INT");
    let ended = Ended::of(&child.wait_with_output().unwrap()).expect(130);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(ended.err.contains("10 unfinished tasks are kept"), "{ended:?}");
    assert_eq!(verify(&data).work.tasks.len(), 10);
}

#[test]
fn a_signal_ends_a_wait_for_input() {
    let home = tempfile::tempdir().unwrap();
    watchable(home.path());
    let args = ["submit", "--ndjson", "-", "--data", text(home.path())];
    let mut child = ergate(&args).stdin(Stdio::piped()).spawn().unwrap();
    let _input = child.stdin.take();
    until("it has started", || events(home.path()) > 0);
    signal(&child, "INT");
    Ended::of(&child.wait_with_output().unwrap()).expect(130);
}

#[test]
fn a_second_process_on_the_same_data_is_told_who_has_it() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let child = ergate(&["submit", "sleep", "{\"ms\":60000}", "--drain", "0s", "--data", text(&data)]).spawn().unwrap();
    until("the first has started", || ergate::events::log::directory::holder(&data).is_ok_and(|holder| holder.is_some()));
    for verb in [&["submit", "noop"][..], &["demo", "--dir", text(home.path())]] {
        let ended = Ended::of(&ergate(verb).args(["--data", text(&data)]).output().unwrap()).expect(7);
        assert!(ended.err.contains(&format!("in use by process {}", child.id())), "{ended:?}");
    }
    signal(&child, "INT");
    Ended::of(&child.wait_with_output().unwrap()).expect(130);
}

#[test]
fn a_closed_output_ends_it_well() {
    let home = tempfile::tempdir().unwrap();
    let (input, data) = (home.path().join("input"), home.path().join("data"));
    fs::write(&input, "{\"type\":\"noop\"}\n".repeat(5_000)).unwrap();
    let mut child = ergate(&["submit", "--ndjson", text(&input), "-o", "json", "--data", text(&data)]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = Ended::of(&child.wait_with_output().unwrap()).expect(0);
    assert!(!ended.err.contains("panic"), "{ended:?}");
    verify(&data);
}

#[test]
fn a_log_that_cannot_be_written_ends_it_with_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let (input, data) = (home.path().join("input"), home.path().join("data"));
    let line = format!("{{\"type\":\"noop\",\"payload\":\"{}\"}}\n", noise(50_000));
    fs::write(&input, line.repeat(400)).unwrap();
    // No file may grow beyond 8 MiB, and the signal that would say so is ignored, so writing fails.
    let script = "trap '' XFSZ; ulimit -f 16384; exec \"$@\"";
    let args = ["submit", "--ndjson", text(&input), "--data", text(&data)];
    let output = Command::new("sh").args(["-c", script, "sh", env!("CARGO_BIN_EXE_ergate")]).args(args).output().unwrap();
    let ended = Ended::of(&output).expect(8);
    assert!(ended.err.contains("refuses to write after an earlier failure"), "{ended:?}");
    run(&["submit", "--resume", "--data", text(&data)]).expect(0);
    assert!(verify(&data).work.tasks.is_empty());
}

/// A text that does not compress.
fn noise(len: usize) -> String {
    let mut state = 7_u32;
    let mut letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + ((state >> 24) % 90) as u8)
    };
    (0..len).map(|_| letter()).filter(|c| !matches!(c, '"' | '\\')).collect()
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "text").unwrap();
    for (data, code) in [(text(&file), 6), ("/proc/ergate", 8)] {
        let ended = run(&["submit", "noop", "--data", data]).expect(code);
        assert!(ended.err.contains(data), "{ended:?}");
    }
}

/// Attempts of a type that nobody here registered fail, so running another program's log would use up its tasks' attempts.
#[tokio::test]
async fn the_unfinished_tasks_of_another_program_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let wait = |(): ()| async { std::future::pending::<Result<(), ergate::TaskError>>().await };
    let other = ergate::Runtime::builder().file(home.path()).task("other", wait).start().await.unwrap();
    other.submit("other", &()).await.unwrap();
    other.shutdown_within(Duration::ZERO).await.unwrap();
    let before = events(home.path());
    let ended = run(&["submit", "noop", "--data", text(home.path())]).expect(1);
    assert!(ended.err.contains("1 unfinished tasks of types that are not known here (other)"), "{ended:?}");
    assert_eq!(events(home.path()), before);
}

#[test]
fn wishes_for_one_task_are_refused_beside_a_stream_and_nothing_is_made_by_resuming_a_typo() {
    let home = tempfile::tempdir().unwrap();
    let (data, lines) = (home.path().join("data"), home.path().join("lines"));
    fs::write(&lines, "{\"type\":\"noop\",\"payload\":1}\n").unwrap();
    for wish in [["--delay", "1h"], ["--priority", "3"], ["--key", "k"], ["--label", "a=b"]] {
        let ended = run(&["submit", "--ndjson", text(&lines), wish[0], wish[1], "--data", text(&data)]).expect(2);
        assert!(ended.err.contains(wish[0]), "{ended:?}");
    }
    run(&["submit", "--resume", "--data", text(&data)]).expect(6);
    assert!(!data.exists(), "nothing was made");
}
