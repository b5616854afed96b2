//! A service in a process of its own, and a client that hides nothing of what is sent and answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::command::{ergate, signal, until};

/// How long an answer may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service; it ends with the test.
pub(crate) struct Service {
    child: Child,
    said: PathBuf,
    pub(crate) address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Service {
    /// Starts one on a free port with its log in `dir/data`.
    pub(crate) fn start(dir: &Path) -> Service {
        Service::start_with(dir, &[], &[])
    }

    pub(crate) fn start_with(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Service {
        Service::start_at("127.0.0.1:0", dir, args, variables)
    }

    /// Starts one at an address, where its clients find it again.
    pub(crate) fn start_at(listen: &str, dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Service {
        let (data, said) = (dir.join("data"), dir.join("said"));
        let all = [&["up", "--data", data.to_str().unwrap(), "--listen", listen, "--drain", "1s"], args].concat();
        let mut command = ergate(&all);
        command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        let mut address = None;
        until("the service is ready", || {
            let text = std::fs::read_to_string(&said).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {text}");
            let after = text.split_once("://").map(|(_, after)| after.split_once(';').map(|(address, _)| address.to_owned()));
            address = after.flatten();
            address.is_some()
        });
        Service { child, said, address: address.unwrap().parse().unwrap() }
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// Kills it as a power cut would, but for the disk.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end after a signal; gives the exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes as they are and reads everything until the service closes the connection.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // It may close while this is still being sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body.as_bytes())
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.address);
        }
        if !body.is_empty() || method == "POST" {
            head += &format!("content-length: {}\r\n", body.len());
        }
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        let mut stream = self.connect();
        stream.write_all((head + "\r\n").as_bytes()).unwrap();
        let _ = stream.write_all(body);
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        Answer::read(&bytes)
    }

    /// Submits a task and gives its id.
    #[track_caller]
    pub(crate) fn submit(&self, request: &str) -> String {
        self.post("/v1/tasks", request).expect(201).json()["id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {bytes:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = &bytes[end + 4..];
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_vec() };
        Answer { status, head, body }
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.text());
        self
    }

    /// Expects a problem document of this status and kind, and gives it.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, kind: &str) -> Value {
        let answer = self.expect(status);
        assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
        let problem = answer.json();
        assert_eq!(
            (problem["type"].as_str(), problem["status"].as_u64()),
            (Some(format!("urn:ergate:problem:{kind}").as_str()), Some(status.into()))
        );
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        problem
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let chunk = &bytes[end + 2..];
        if size == 0 || chunk.len() < size {
            break;
        }
        whole.extend_from_slice(&chunk[..size]);
        bytes = &chunk[(size + 2).min(chunk.len())..];
    }
    whole
}
