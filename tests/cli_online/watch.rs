//! A list that is looked at again and again.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::service::Service;
use crate::support::{ask, asking, submit};

#[test]
fn where_there_is_no_terminal_every_change_is_a_line() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let first = submit(&service, &["sleep", r#"{"ms":600000}"#]);
    let mut child = asking(&service, &["task", "list", "--watch=100ms", "-o", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut known = std::collections::BTreeMap::new();
    let mut until_told = |task: &str, state: &str| loop {
        let told: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let id = told["task"].as_str().unwrap().to_owned();
        assert_ne!(known.insert(id, told.clone()), Some(told.clone()), "it is told twice");
        if told["task"] == task && told["state"] == state {
            return;
        }
    };
    until_told(&first, "running");
    let second = submit(&service, &["sleep", r#"{"ms":600000}"#]);
    until_told(&second, "running");
    ask(&service, &["task", "kill", &first]).expect(0);
    until_told(&first, "ended");
    // Whoever read the lines has enough; the next change finds that out.
    drop(lines);
    ask(&service, &["task", "kill", &second]).expect(0);
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(0), ""));
}

/// Runs a command on a terminal of its own and prints what that shows for a while.
const TERMINAL: &str = r"
import os, pty, select, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
end, shown = time.time() + 60, b''
while time.time() < end and shown.count(b'\x1b[2J') < 3:
    if select.select([terminal], [], [], 0.2)[0]:
        shown += os.read(terminal, 65536)
# Not the interrupt: whoever runs the tests in the background has it ignored, and every child with it.
os.kill(pid, signal.SIGTERM)
os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)
";

#[test]
fn on_a_terminal_the_table_is_drawn_anew() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    submit(&service, &["sleep", r#"{"ms":600000}"#]);
    let watch = asking(&service, &["task", "list", "--watch=100ms"]);
    let mut python = std::process::Command::new("python3");
    python.args(["-c", TERMINAL]).arg(watch.get_program()).args(watch.get_args());
    python.env("ERGATE_URL", format!("http://{}", service.address)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = python.spawn() else {
        return crate::packages::say("SKIPPED on_a_terminal_the_table_is_drawn_anew: python3 is missing");
    };
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    child.wait().unwrap();
    let screens: Vec<_> = shown.split("\u{1b}[H\u{1b}[2J").collect();
    assert!(screens.len() >= 3, "{shown:?}");
    assert!(screens[1].contains("TASK") && screens[1].contains("0-0") && screens[1].contains("sleep"), "{shown:?}");
}
