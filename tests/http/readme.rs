//! The example of the README with a real script and a real server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::service::Service;

const README: &str = include_str!("../../README.md");
/// Where the example says that the server is.
const PLACE: &str = "127.0.0.1:9000";

/// The configuration that the README shows.
fn example() -> &'static str {
    let after = README.split_once("## As a service").unwrap().1.split_once("```toml\n").unwrap().1;
    after.split_once("```").unwrap().0
}

/// Answers every request with what it was sent, as `{"embedded": ...}`.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).unwrap_or(0) > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).is_err() {
            continue;
        }
        let answer = format!("{{\"embedded\":{}}}", String::from_utf8(body).unwrap());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        let _ = write!(stream.get_mut(), "{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
    }
}

#[test]
fn the_example_of_the_readme_runs_a_script_and_calls_a_server() {
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("thumb.sh");
    std::fs::write(&script, "#!/bin/sh\nprintf '{\"thumbnail\":%s}' \"$(cat)\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || serve(&listener));
    assert!(example().contains(PLACE));
    let config = home.path().join("ergate.toml");
    std::fs::write(&config, example().replace(PLACE, &place)).unwrap();
    let service = Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &[]);
    for (task_type, result) in [("thumbnail", r#"{"thumbnail":{"file":"a.png"}}"#), ("embed", r#"{"embedded":{"file":"a.png"}}"#)]
    {
        let id =
            service.submit(&format!(r#"{{"type":"{task_type}","payload":{{"file":"a.png"}},"labels":{{"tenant":"acme"}}}}"#));
        assert_eq!(service.get(&format!("/v1/tasks/{id}?wait=30s")).expect(200).json()["outcome"], "SUCCEEDED", "{task_type}");
        assert_eq!(service.get(&format!("/v1/tasks/{id}/result")).expect(200).text(), result);
    }
    let pool = service.get("/v1/pools/models").expect(200).json();
    // It follows its work, which one replica did.
    assert_eq!((&pool["replicas"], &pool["slots"]), (&1.into(), &2.into()));
    let why = service.get("/v1/pools/models/why").expect(200).json();
    assert_eq!((&why["min"], &why["max"], &why["policy"]["policy"]), (&1.into(), &4.into(), &"rate".into()), "{why}");
}
