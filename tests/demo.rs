//! `ergate demo` as a user sees it.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "support/command.rs"]
mod command;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use command::{Ended, ergate, events, run, signal, until, verify, watchable};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A digest of every line of a file written by `--digests`, by name.
fn digests(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split_once("  ").map(|(hash, name)| (name.to_owned(), hash.to_owned())).unwrap()).collect()
}

#[test]
fn a_tree_of_every_kind_of_file_is_digested_and_the_log_verifies() {
    let home = tempfile::tempdir().unwrap();
    let (tree, data, list) = (home.path().join("tree"), home.path().join("data"), home.path().join("list"));
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::create_dir_all(tree.join("target/x")).unwrap();
    fs::create_dir_all(tree.join(".git")).unwrap();
    let mut content: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    content.insert(b"empty".to_vec(), Vec::new());
    content.insert(b"one line".to_vec(), b"text\n".to_vec());
    content.insert(b"no-end".to_vec(), b"a\nb".to_vec());
    content.insert(b"huge-line".to_vec(), vec![b'x'; 3 << 20]);
    content.insert(b"not-utf8-\xff\xfe".to_vec(), b"\n\n".to_vec());
    content.insert("deep/er/ü 🐜".as_bytes().to_vec(), b"ant\n".to_vec());
    content.insert(b"new\nline\x1b[31m".to_vec(), b"1".to_vec());
    for (name, bytes) in &content {
        fs::write(tree.join(OsStr::from_bytes(name)), bytes).unwrap();
    }
    fs::write(tree.join("target/x/skipped"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("..", tree.join("deep/loop")).unwrap();
    assert!(Command::new("mkfifo").arg(tree.join("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();

    let ended = run(&["demo", "-o", "json", "--dir", text(&tree), "--data", text(&data), "--digests", text(&list)]).expect(0);
    let summary = ended.json();
    assert_eq!(summary["files"], content.len());
    assert_eq!(summary["outcomes"]["SUCCEEDED"], content.len());
    assert_eq!(summary["bytes"], content.values().map(Vec::len).sum::<usize>());
    assert_eq!(summary["lines"], content.values().flatten().filter(|byte| **byte == b'\n').count());
    assert_eq!(summary["skipped"]["symbolic links"], 2);
    assert_eq!(summary["skipped"]["pipes, sockets and devices"], 2);
    assert_eq!(summary["skipped"]["directories named target"], 1);
    assert_eq!(summary["skipped"]["named .git"], 1);
    assert_eq!(summary["replay"]["equal"], true);
    assert_eq!(summary["replay"]["live_state_digest"], summary["replay"]["replayed_state_digest"]);
    let state = verify(&data);
    assert_eq!(summary["replay"]["head_position"], state.position.0);
    assert_eq!(state.work.tasks.len(), 0);
    let found = digests(&list);
    assert_eq!(found.len(), content.len());
    for (name, bytes) in &content {
        let name = String::from_utf8_lossy(name).replace('\\', "\\\\").replace('\n', "\\n");
        let (name, escaped) = (format!("{}/{name}", text(&tree)), if name.contains("\\n") { "\\" } else { "" });
        assert_eq!(found[&name], format!("{escaped}{}", blake3::hash(bytes).to_hex()), "{name}");
    }
}

#[test]
fn a_second_run_on_the_same_data_goes_on_with_the_log_and_skips_it() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::write(home.path().join("file"), "text").unwrap();
    let args = ["demo", "--dir", text(home.path()), "--data", text(&data)];
    assert!(run(&args).expect(0).err.contains("a new log in"));
    let ended = run(&args).expect(0);
    assert!(ended.err.contains("going on with the log in"), "{ended:?}");
    assert!(ended.out.contains("1 (directories with an Ergate log)"), "{ended:?}");
    assert_eq!(verify(&data).next_ordinal().0, 2);
}

#[test]
fn without_a_data_directory_every_run_has_its_own() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("file"), "text").unwrap();
    for runs in 1..=3 {
        let ended = Ended::of(&ergate(&["demo"]).current_dir(home.path()).output().unwrap()).expect(0);
        assert!(ended.out.contains("1 found under ., 1 digested"), "{ended:?}");
        let kept: Vec<_> = fs::read_dir(home.path().join("ergate-demo")).unwrap().collect();
        assert_eq!(kept.len(), runs);
    }
}

#[test]
fn a_file_that_cannot_be_read_is_a_failed_task_with_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let (tree, data) = (home.path().join("tree"), home.path().join("data"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("good"), "text").unwrap();
    fs::write(tree.join("closed"), "text").unwrap();
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    if fs::File::open(tree.join("closed")).is_ok() {
        eprintln!("skipped: this user may read every file");
        return;
    }
    let ended = run(&["demo", "-o", "json", "--dir", text(&tree), "--data", text(&data)]).expect(3);
    let failures = ended.json()["failures"].clone();
    assert!(failures[0]["reason"].as_str().unwrap().starts_with("unreadable: failed to open"), "{failures}");
    verify(&data);
}

#[test]
fn a_file_that_vanishes_before_its_turn_is_a_failed_task_with_the_reason() {
    let home = tempfile::tempdir().unwrap();
    let (tree, data) = (home.path().join("tree"), home.path().join("data"));
    watchable(&data);
    fs::create_dir(&tree).unwrap();
    // One slot, and files before and after that keep it busy whatever the order of the directory is.
    for name in ["a", "b", "c"] {
        fs::File::create(tree.join(name)).unwrap().set_len(256 << 20).unwrap();
    }
    let small: Vec<_> = (0..64).map(|number| tree.join(format!("small-{number}"))).collect();
    small.iter().for_each(|path| fs::write(path, "x").unwrap());
    let args = ["demo", "-o", "json", "--replicas", "1", "--slots", "1", "--dir", text(&tree), "--data", text(&data)];
    let child = ergate(&args).spawn().unwrap();
    until("the requests are recorded", || events(&data) >= 67);
    small.iter().for_each(|path| fs::remove_file(path).unwrap());
    let ended = Ended::of(&child.wait_with_output().unwrap());
    let summary = ended.json();
    if summary["outcomes"]["FAILED"] == 0 {
        eprintln!("skipped: every file was read before it could be removed");
        return;
    }
    let ended = ended.expect(3);
    let reason = summary["failures"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("unreadable: failed to open") && reason.contains("No such file"), "{ended:?}");
    assert_eq!(summary["replay"]["equal"], true);
}

#[test]
fn twenty_thousand_small_files_take_less_than_a_minute_and_bounded_memory() {
    let home = tempfile::tempdir().unwrap();
    let (tree, data) = (home.path().join("tree"), home.path().join("data"));
    for dir in 0..20 {
        let dir = tree.join(dir.to_string());
        fs::create_dir_all(&dir).unwrap();
        (0..1_000).for_each(|number| fs::write(dir.join(number.to_string()), number.to_string()).unwrap());
    }
    let started = Instant::now();
    let ended = run(&["demo", "-o", "json", "--durability", "memory", "--dir", text(&tree), "--data", text(&data)]).expect(0);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    let summary = ended.json();
    assert_eq!(summary["outcomes"]["SUCCEEDED"], 20_000);
    assert_eq!(summary["durability"], "memory");
    assert_eq!(summary["replay"]["equal"], true);
}

#[test]
fn a_signal_ends_it_well_and_the_next_run_goes_on() {
    for name in ["INT", "TERM"] {
        let home = tempfile::tempdir().unwrap();
        let (tree, data) = (home.path().join("tree"), home.path().join("data"));
        watchable(&data);
        fs::create_dir(&tree).unwrap();
        for number in 0..50 {
            fs::File::create(tree.join(number.to_string())).unwrap().set_len(32 << 20).unwrap();
        }
        let args = ["demo", "--slots", "1", "--replicas", "1", "--dir", text(&tree), "--data", text(&data)];
        let child = ergate(&args).spawn().unwrap();
        until("the requests are recorded", || events(&data) >= 60);
        signal(&child, name);
        let ended = Ended::of(&child.wait_with_output().unwrap()).expect(130);
        assert!(ended.err.contains("are kept in") && ended.err.contains("ergate submit --resume --data"), "{ended:?}");
        assert!(!verify(&data).work.tasks.is_empty());
        (0..50).for_each(|number| fs::write(tree.join(number.to_string()), "small now").unwrap());
        run(&["submit", "--resume", "--data", text(&data)]).expect(0);
        let state = verify(&data);
        assert_eq!((state.work.tasks.len(), state.next_ordinal().0), (0, 50));
    }
}

#[test]
fn what_cannot_be_used_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "text").unwrap();
    let gone = home.path().join("gone");
    let ended = run(&["demo", "--dir", text(&gone), "--data", text(&home.path().join("data"))]).expect(1);
    assert!(ended.err.contains("failed to find the directory"), "{ended:?}");
    let ended = run(&["demo", "--dir", text(&file)]).expect(1);
    assert!(ended.err.contains("is not a directory"), "{ended:?}");
    let ended = run(&["demo", "--dir", text(home.path()), "--data", text(&file)]).expect(8);
    assert!(ended.err.contains("not a directory"), "{ended:?}");
    for wrong in [["--durability", "maybe"], ["--slots", "0"], ["--drain", "soon"]] {
        run(&["demo", wrong[0], wrong[1]]).expect(2);
    }
    assert!(!home.path().join("data").exists());
}

#[test]
fn the_configuration_file_sets_what_no_flag_does() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("ergate.toml");
    std::fs::write(home.path().join("file"), "one line\n").unwrap();
    std::fs::write(&config, "[log]\ndurability = \"memory\"\n").unwrap();
    let demo = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ergate"));
        command.current_dir(home.path()).args(["demo", "-o", "json", "--quiet", "--config"]).arg(&config).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(demo(&[]).contains("\"durability\":\"memory\""));
    assert!(demo(&["--durability", "interval:5ms"]).contains("\"durability\":\"interval:5ms\""));
}
