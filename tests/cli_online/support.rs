//! The command beside a service.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::command::{Ended, ergate, until};
use crate::service::Service;

/// The command with these arguments, far from any configuration.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = ergate(args);
    command.current_dir("/");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ERGATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    Ended::of(&command(args).output().unwrap())
}

/// The command that asks a service.
pub(crate) fn asking(service: &Service, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("ERGATE_URL", format!("http://{}", service.address));
    command
}

/// Asks a service and waits for the end of the command.
pub(crate) fn ask(service: &Service, args: &[&str]) -> Ended {
    Ended::of(&asking(service, args).output().unwrap())
}

/// As [`ask`], with answers in JSON.
#[track_caller]
pub(crate) fn json(service: &Service, args: &[&str]) -> Vec<Value> {
    ask(service, &[args, &["-o", "json"]].concat()).expect(0).json_lines()
}

/// It ended with this code and told why in one line that has these words.
#[track_caller]
pub(crate) fn refuses(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let lines: Vec<_> = ended.err.lines().filter(|line| line.starts_with("ergate: ") || line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.err);
    for word in words {
        assert!(ended.err.contains(word), "{word:?} is not in: {}", ended.err);
    }
}

/// Submits a task over HTTP and gives its id.
pub(crate) fn submit(service: &Service, args: &[&str]) -> String {
    ask(service, &[&["submit"], args].concat()).expect(0).out.trim().to_owned()
}

/// A service at an address of which is known that it is free; it can be started again there.
pub(crate) fn up_at(home: &Path, address: SocketAddr) -> Child {
    let data = home.join("data");
    let args = ["up", "--data", data.to_str().unwrap(), "--listen", &address.to_string(), "--drain", "1s", "-q"];
    let mut child = command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("the service answers", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::net::TcpStream::connect(address).is_ok()
    });
    child
}

/// An address that nobody listens on.
pub(crate) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
