//! When the engine that a request is sent on to is not there, does not lead the shard, or does not let the caller in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::command::{run, until};
use crate::engines::{Engines, SHARDS, leads, shard_of};
use crate::kafka::shared;
use crate::service::Service;

#[test]
fn a_shard_whose_engine_died_is_named_until_another_has_taken_it_over() {
    let Some(kafka) = shared() else { return };
    let mut engines = Engines::two("died", kafka);
    let ids: Vec<_> = (0..SHARDS).map(|shard| engines.submit(shard, &json!({"type": "noop"}))).collect();
    ids.iter().for_each(|id| drop(engines.all[0].get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200)));
    let lost: Vec<_> = ids.iter().filter(|id| engines.leader(shard_of(id)) == 1).cloned().collect();
    engines.all.pop().unwrap().kill();
    let left = &engines.all[0];
    let (asked, path) = (Instant::now(), format!("/v1/tasks/{}", lost[0]));
    let refused = left.get(&path);
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    let problem = refused.problem(503, "led-elsewhere");
    assert_eq!(problem["shard"], shard_of(&lost[0]));
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited for {:?}", asked.elapsed());
    let page = left.get("/v1/tasks").expect(200).json();
    assert_eq!(page["missing_shards"].as_array().unwrap().len(), lost.len(), "{page}");
    assert_eq!(page["tasks"].as_array().unwrap().len(), ids.len() - lost.len(), "{page}");
    until("the shards are taken over", || left.get(&path).status == 200);
    until("every shard is there again", || left.get("/v1/tasks").json()["missing_shards"] == json!([]));
    assert_eq!(left.get("/v1/tasks").expect(200).json()["tasks"].as_array().unwrap().len(), ids.len());
    left.get(&path).expect(200);
}

#[test]
fn what_was_sent_on_once_is_never_sent_on_again() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("loop", kafka);
    let other = engines.other("0");
    let began = Instant::now();
    for path in ["/v1/tasks/0-0", "/v1/tasks/0-0/result?wait=30s", "/v1/state?shard=0", "/v1/tasks?shard=0", "/v1/log?shard=0"] {
        let refused = other.ask("GET", path, &[("ergate-forwarded", "http://127.0.0.1:1")], b"");
        assert_eq!(refused.header("ergate-engine"), Some(format!("http://{}", other.address)), "{path}");
        refused.problem(503, "led-elsewhere");
    }
    other.ask("POST", "/v1/tasks/0-0/kill", &[("ergate-forwarded", "")], b"").problem(503, "led-elsewhere");
    // At once: nobody was asked.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn an_address_that_is_this_engine_or_nobody_is_no_way_around() {
    let Some(kafka) = shared() else { return };
    // Both say that they are reached where the first one listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("http://127.0.0.1:{port}");
    let engines =
        Engines::with("wrong", kafka, [&[("ERGATE_HTTP__ADVERTISE", &address)], &[("ERGATE_HTTP__ADVERTISE", &address)]]);
    let other = engines.other("0");
    let problem = other.get("/v1/tasks/0-0").problem(503, "led-elsewhere");
    assert!(problem["detail"].as_str().unwrap().contains("http.advertise"), "{problem}");
}

#[test]
fn an_engine_asks_for_the_callers_own_token_again() {
    let Some(kafka) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let token = |name: &str, scope: &str| {
        let made = run(&["token", "new", "--name", name, "--scope", scope]).expect(0);
        let lines: Vec<_> = made.out.lines().map(str::to_owned).chain(made.err.lines().map(str::to_owned)).collect();
        let find = |wanted: &dyn Fn(&str) -> bool| lines.iter().find(|line| wanted(line)).unwrap().clone();
        (find(&|line| line.starts_with("ergate_")), find(&|line| line.contains("blake3:")))
    };
    let (shared_token, shared_line) = token("shared", "admin");
    let (only_first, first_line) = token("first", "admin");
    let (reader, reader_line) = token("reader", "read");
    let file = |name: &str, lines: &[&String]| {
        let path = dir.path().join(name);
        std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let files = [file("a", &[&shared_line, &first_line, &reader_line]), file("b", &[&shared_line, &reader_line])];
    let [a, b] = files.each_ref().map(|file| [("ERGATE_HTTP__TOKENS", file.as_str())]);
    let engines = Engines::with("tokens", kafka, [&a, &b]);
    // Of a shard that the second engine leads.
    let shard = (0..4).find(|shard: &u16| engines.leader(&shard.to_string()) == 1).unwrap();
    let ask = |method: &str, path: &str, token: &str| {
        engines.all[0].ask(method, path, &[("authorization", &format!("Bearer {token}"))], b"")
    };
    let path = format!("/v1/state?shard={shard}");
    ask("GET", &path, &shared_token).expect(200);
    let refused = ask("GET", &path, &only_first).expect(401);
    assert_eq!(refused.header("ergate-engine"), None, "the gate of the other engine lets nobody in");
    assert!(refused.header("www-authenticate").is_some());
    engines.all[0].get(&path).problem(401, "unauthorized");
    ask("POST", &format!("/v1/tasks/{shard}-0/kill"), &reader).problem(403, "forbidden");
    ask("POST", &format!("/v1/tasks/{shard}-0/kill"), &shared_token).problem(404, "not-found");
}

#[test]
fn an_engine_that_cannot_be_reached_is_not_started() {
    // It is told before any broker is asked.
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let tokens = dir.path().join("tokens");
    let made = run(&["token", "new", "--name", "a", "--scope", "admin"]).expect(0);
    std::fs::write(&tokens, made.out.lines().find(|line| line.contains("blake3:")).unwrap()).unwrap();
    let mut command = crate::command::ergate(&["up", "--data", data, "--log", "kafka://127.0.0.1:1/ns", "--listen", "0.0.0.0:0"]);
    command.env("ERGATE_HTTP__TOKENS", tokens.to_str().unwrap());
    let ended = crate::command::Ended::of(&command.output().unwrap()).expect(2);
    assert!(ended.err.contains("http.advertise"), "{}", ended.err);
    let mut command =
        crate::command::ergate(&["up", "--data", data, "--log", "kafka://127.0.0.1:1/ns", "--listen", "127.0.0.1:0"]);
    command.env("ERGATE_HTTP__PEER_CA", "/nonexistent/ca.pem");
    let ended = crate::command::Ended::of(&command.output().unwrap());
    assert!(ended.code != Some(0) && ended.err.contains("/nonexistent/ca.pem"), "{}", ended.err);
}

#[test]
fn events_of_a_shard_are_followed_through_any_engine_and_end_with_it() {
    let Some(kafka) = shared() else { return };
    let mut engines = Engines::two("follow", kafka);
    let shard = (0..4).find(|shard: &u16| engines.leader(&shard.to_string()) == 1).unwrap();
    let mut stream = engines.all[0].connect();
    let head = format!("GET /v1/log?shard={shard} HTTP/1.1\r\nhost: {}\r\n\r\n", engines.all[0].address);
    stream.write_all(head.as_bytes()).unwrap();
    let mut seen = String::new();
    let mut read_until = |stream: &mut std::net::TcpStream, text: &str| {
        let mut piece = [0; 4096];
        while !seen.contains(text) {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "it ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        seen.clone()
    };
    let opened = read_until(&mut stream, ": following");
    assert!(opened.contains("content-type: text/event-stream") && opened.contains("ergate-engine: "), "{opened}");
    engines.submit(shard, &json!({"type": "noop"}));
    read_until(&mut stream, "event: succeeded");
    let last: SocketAddr = engines.all[1].address;
    engines.all.pop().unwrap().kill();
    // A stream that broke is no stream that ended.
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "the stream of {last} looks whole");
}

#[test]
fn engines_speak_tls_and_trust_no_stranger() {
    let Some(kafka) = shared() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let certificate = |name: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
        openssl.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-keyout", &path(&format!("{name}.key")), "-out", &path(&format!("{name}.pem"))]);
        assert!(openssl.output().unwrap().status.success());
    };
    certificate("ours");
    certificate("theirs");
    let (cert, key, theirs) = (path("ours.pem"), path("ours.key"), path("theirs.pem"));
    let tls = [("ERGATE_HTTP__TLS_CERT", cert.as_str()), ("ERGATE_HTTP__TLS_KEY", key.as_str())];
    // The second one trusts somebody else.
    let [a, b] = [&cert, &theirs].map(|trusted| [tls.as_slice(), &[("ERGATE_HTTP__PEER_CA", trusted.as_str())]].concat());
    let engines = Engines::with("tls", kafka, [&a, &b]);
    let url = |engine: usize| format!("https://{}", engines.all[engine].address);
    let led = |engine: usize| (0..4).find(|shard: &u16| engines.leader(&shard.to_string()) == engine).unwrap().to_string();
    let tail =
        |engine: usize, shard: &str| run(&["log", "tail", "--shard", shard, "--url", &url(engine), "--ca", &cert, "-o", "json"]);
    assert!(!tail(0, &led(1)).expect(0).json_lines().is_empty());
    let refused = tail(1, &led(0));
    assert!(refused.code != Some(0) && refused.err.contains("certificate"), "{refused:?}");
}

#[test]
fn a_shard_that_moves_is_found_where_it_went() {
    let Some(kafka) = shared() else { return };
    let mut engines = Engines::two("moves", kafka);
    let ids: Vec<_> = (0..SHARDS).map(|shard| engines.submit(shard, &json!({"type": "noop"}))).collect();
    engines.add(&[]);
    let third = Instant::now();
    // Both know old leaders for a while, and ask them.
    while leads(&engines.all[2]).is_empty() || third.elapsed() < Duration::from_secs(5) {
        assert!(third.elapsed() < Duration::from_secs(120), "the third engine leads nothing: {}", engines.all[2].said());
        for (engine, id) in engines.all.iter().flat_map(|engine| ids.iter().map(move |id| (engine, id))) {
            match engine.get(&format!("/v1/tasks/{id}")) {
                answer if answer.status == 200 => assert_eq!(answer.json()["task"], id.as_str()),
                answer => drop(answer.problem(503, "led-elsewhere")),
            }
        }
    }
    for (engine, id) in engines.all.iter().flat_map(|engine| ids.iter().map(move |id| (engine, id))) {
        until("every task is told by every engine", || engine.get(&format!("/v1/tasks/{id}")).status == 200);
    }
}

#[test]
fn a_task_from_before_the_copy_of_its_leader_is_told_from_its_topic() {
    let Some(kafka) = shared() else { return };
    let often = [("ERGATE_KAFKA__SNAPSHOT_INTERVAL", "1s")];
    let mut engines = Engines::with("older", kafka, [&often, &often]);
    let id = engines.submit(0, &json!({"type": "noop"}));
    let told = |engine: &Service| engine.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
    engines.all[0].get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200);
    let history = told(&engines.all[0]);
    // One is taken when it is time and enough has happened.
    let lines: String = (0..4_000).map(|n| format!("{}\n", json!({"type": "noop", "key": format!("k{n}")}))).collect();
    engines.all[0].ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
    until("a snapshot is in the topic", || {
        engines.submit(0, &json!({"type": "noop"}));
        !engines.namespace.records("snapshots", 0).is_empty()
    });
    // Engines on machines that have nothing yet.
    engines.all.drain(..).for_each(|engine| {
        engine.signal("TERM");
        assert_eq!(engine.end(), Some(0));
    });
    let fresh = engines.namespace.data.path().join("fresh");
    std::fs::create_dir_all(&fresh).unwrap();
    engines.all.push(Service::start_with(&fresh, &["--log", &engines.namespace.log()], &[]));
    let engine = &engines.all[0];
    until("the shard is led", || engine.get("/v1/tasks?shard=0").status == 200);
    let listed = engine.get("/v1/tasks?shard=0&limit=1000").expect(200).text();
    assert!(!listed.contains(&format!("\"{id}\"")), "the copy begins behind the task: {listed}");
    assert_eq!(told(engine), history);
    let task = engine.get(&format!("/v1/tasks/{id}")).expect(200).json();
    assert_eq!((task["outcome"].as_str(), task["type"].as_str()), (Some("SUCCEEDED"), Some("noop")));
    engine.get("/v1/tasks/0-999999").problem(404, "not-found");
}

/// How many requests an engine sends on at one time.
const FORWARDS_MAX: usize = 256;

#[test]
fn only_so_many_requests_are_with_other_engines_and_those_for_this_one_are_answered() {
    let Some(kafka) = shared() else { return };
    let engines = Engines::two("forwards", kafka);
    let long = json!({"type": "sleep", "payload": {"ms": 600_000}});
    let ids: Vec<_> = (0..SHARDS).map(|shard| engines.submit(shard, &long)).collect();
    let there = ids.iter().find(|id| engines.leader(shard_of(id)) == 1).unwrap();
    let here = ids.iter().find(|id| engines.leader(shard_of(id)) == 0).unwrap();
    let engine = &engines.all[0];
    let waits = format!("GET /v1/tasks/{there}/result?wait=60s HTTP/1.1\r\nhost: {}\r\n\r\n", engine.address);
    let wait = || {
        let mut connection = TcpStream::connect(engine.address).unwrap();
        connection.write_all(waits.as_bytes()).unwrap();
        connection
    };
    let mut waiting: Vec<_> = (0..FORWARDS_MAX).map(|_| wait()).collect();
    until("no more are sent on", || {
        let answer = engine.get(&format!("/v1/tasks/{there}"));
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after").as_deref(), Some("1"));
            let problem = answer.problem(429, "busy");
            assert!(problem["detail"].as_str().unwrap().contains(&FORWARDS_MAX.to_string()), "{problem}");
            return true;
        }
        // This question may have had the place of one that waits.
        waiting.push(wait());
        false
    });
    engine.get(&format!("/v1/tasks/{here}")).expect(200);
    // What those wait for comes to each of them, and there is room again.
    engines.all[1].post(&format!("/v1/tasks/{there}/kill"), "").expect(200);
    let answers = waiting.into_iter().map(|mut connection| {
        let mut head = [0; 12];
        connection.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    });
    let (ended, refused): (Vec<_>, Vec<_>) = answers.partition(|head| head == "HTTP/1.1 409");
    assert!(ended.len() >= FORWARDS_MAX && refused.iter().all(|head| head == "HTTP/1.1 429"), "{} {refused:?}", ended.len());
    until("there is room again", || engine.get(&format!("/v1/tasks/{there}")).status == 200);
}
