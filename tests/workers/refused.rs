//! Workers that an engine does not want.

use crate::command::{run, until};
use crate::ground::Ground;

#[track_caller]
fn refuses(ground: &Ground, config: &str, args: &[&str], code: i32, words: &[&str]) {
    let mut worker = ground.spawn(config, args);
    assert_eq!(worker.code(), Some(code), "{}", worker.said());
    words.iter().for_each(|word| assert!(worker.said().contains(word), "{word}: {}", worker.said()));
}

fn token(name: &str) -> (String, String) {
    let made = run(&["token", "new", "--name", name, "--scope", "work", "-o", "json"]).expect(0).json();
    (made["token"].as_str().unwrap().to_owned(), made["line"].as_str().unwrap().to_owned())
}

#[test]
fn a_worker_without_the_right_token_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let (tokens, good, narrow, bad) =
        (home.path().join("tokens"), home.path().join("good"), home.path().join("narrow"), home.path().join("bad"));
    let ((all, all_line), (one, one_line)) = (token("all"), token("narrow"));
    assert!(one_line.contains(" work"), "{one_line}");
    let one_line = one_line.replace(" work", " work:models/shout");
    std::fs::write(&tokens, format!("{all_line}\n{one_line}\n")).unwrap();
    std::fs::write(&good, &all).unwrap();
    std::fs::write(&narrow, &one).unwrap();
    std::fs::write(&bad, all.chars().rev().collect::<String>()).unwrap();
    let config = "[task.shout]\npool = \"models\"\nexecutor = \"worker\"\n";
    let ground = Ground::with(config, &[("ERGATE_HTTP__TOKENS", tokens.to_str().unwrap())]);
    let with = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    refuses(&ground, "", &[], 10, &[&ground.url(), "--token-file"]);
    refuses(&ground, "", &["--token-file", &with(&bad)], 10, &["may have ended"]);
    refuses(&ground, "", &["--token-file", &with(&narrow)], 10, &["the token of narrow", "default", "--scope work"]);
    let shout = "[task.shout]\npool = \"models\"\nexecutor = { process = [\"cat\"] }\n";
    let worker = ground.worker_with(shout, &["--pool", "models", "--token-file", &with(&narrow)]);
    let other = ground.worker(&["--token-file", &with(&good)]);
    worker.end();
    other.end();
}

#[test]
fn a_worker_that_makes_no_sense_is_refused_by_name() {
    let ground = Ground::new("");
    refuses(&ground, "", &["--pool", "nowhere"], 2, &["nowhere", "task.NAME"]);
    refuses(&ground, "", &["--type", "nothing"], 2, &["nothing", "noop"]);
    refuses(&ground, "", &["--slots", "0"], 2, &["slots"]);
    refuses(&ground, "", &["--lease", "1ms"], 2, &["lease"]);
    // The engine does not know the type: it says which it knows.
    let own = "[task.own]\nexecutor = { process = [\"cat\"] }\n";
    refuses(&ground, own, &[], 2, &["refused the worker", "own", "noop"]);
    let url = run(&["worker", "--engine", "http://a,http://b"]).expect(2);
    assert!(url.err.contains("one URL"), "{url:?}");
}

#[test]
fn a_worker_whose_token_is_taken_away_ends_and_says_why() {
    let home = tempfile::tempdir().unwrap();
    let (tokens, file) = (home.path().join("tokens"), home.path().join("token"));
    let (text, line) = token("short");
    std::fs::write(&tokens, format!("{line}\n")).unwrap();
    std::fs::write(&file, text).unwrap();
    let ground = Ground::with("", &[("ERGATE_HTTP__TOKENS", tokens.to_str().unwrap())]);
    let mut worker = ground.worker(&["--token-file", file.to_str().unwrap()]);
    std::fs::write(&tokens, format!("{}\n", token("other").1)).unwrap();
    // Its question waits, and the next call is refused: that comes at the end of the wait, or as the engine goes.
    worker.signal("TERM");
    until("it ends", || worker.child.try_wait().unwrap().is_some());
    assert!(matches!(worker.code(), Some(0 | 10)), "{}", worker.said());
}
