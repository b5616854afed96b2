//! Every example of docs/cli.md is run, in the order of the page, in a directory of its own beside a service.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::command::until;
use crate::service::Service;

/// The page, as its readers have it.
const PAGE: &str = include_str!("../../docs/cli.md");

/// The commands of every block that begins with ```console; those that need brokers are in blocks of another name.
fn examples() -> Vec<&'static str> {
    let blocks = PAGE.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).collect()
}

/// Runs a line as a shell would and gives what it printed.
fn shell(home: &Path, url: &str, line: &str) -> std::process::Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_ergate")).parent().unwrap().display().to_string();
    let path = format!("{binary}:{}", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(home).env("PATH", path).env("HOME", home).stdin(Stdio::null());
    // The page asks `ergate up` on its usual port; here it listens on a free one.
    command.env("ERGATE_URL", url).output().unwrap()
}

#[test]
fn every_example_does_what_the_page_says() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_LOG__ENGINE", "file")]);
    let url = format!("http://{}", service.address);
    // The page looks at `./data`, the log of the service.
    let examples = examples();
    assert!(examples.len() > 40, "{}", examples.len());
    for line in examples {
        let (line, code) = match line.split_once("   # exit code ") {
            Some((line, code)) => (line, code.trim().parse().unwrap()),
            None => (line, 0),
        };
        let ended = shell(home.path(), &url, line);
        assert_eq!(ended.status.code(), Some(code), "{line}: {ended:?}");
        if line.starts_with("ergate submit fail") {
            until("it failed", || !shell(home.path(), &url, "ergate dead-letters list -q -o json").stdout.is_empty());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
