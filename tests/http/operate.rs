//! Looking at tasks, and what operators do with them.

use serde_json::Value;

use crate::command::until;
use crate::service::Service;

#[test]
fn a_task_is_followed_from_its_request_to_its_result() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let id = service.submit(r#"{"type":"sleep","payload":{"ms":300},"labels":{"a":"b"}}"#);
    let pending = service.get(&format!("/v1/tasks/{id}/result")).expect(202);
    assert_eq!(pending.header("retry-after").as_deref(), Some("1"));
    let result = service.get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200);
    assert_eq!((result.text().as_str(), result.header("content-type").as_deref()), ("null", Some("application/json")));
    let shown = service.get(&format!("/v1/tasks/{id}?wait=30s")).expect(200);
    let (task, tag) = (shown.json(), shown.header("etag").unwrap());
    assert_eq!((&task["task"], &task["type"], &task["outcome"]), (&id.as_str().into(), &"sleep".into(), &"SUCCEEDED".into()));
    assert_eq!(service.ask("GET", &format!("/v1/tasks/{id}"), &[("if-none-match", &tag)], b"").status, 304);
    let history = service.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
    let names: Vec<_> = history["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["requested", "started", "succeeded"]);
    let page = service.get(&format!("/v1/tasks/{id}/history?limit=1")).expect(200).json();
    let next =
        service.get(&format!("/v1/tasks/{id}/history?limit=1&cursor={}", page["cursor"].as_str().unwrap())).expect(200).json();
    assert_eq!(next["events"][0]["event"], "started");
    for path in ["/v1/tasks/0-999", "/v1/tasks/1-0", "/v1/tasks/nonsense", "/v1/tasks/0-0x", "/v1/tasks/..%2f..%2fetc%2fpasswd"] {
        for rest in ["", "/history", "/result"] {
            service.get(&format!("{path}{rest}")).problem(404, "not-found");
        }
        service.post(&format!("{path}/cancel"), "").problem(404, "not-found");
    }
    service.get(&format!("/v1/tasks/{id}?wait=1h")).problem(422, "invalid");
}

#[test]
fn tasks_are_listed_by_page_and_filter() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    for _ in 0..5 {
        let id = service.submit(r#"{"type":"noop"}"#);
        service.get(&format!("/v1/tasks/{id}/result?wait=30s")).expect(200);
    }
    let live = service.submit(r#"{"type":"sleep","payload":{"ms":60000}}"#);
    let (mut seen, mut path) = (Vec::new(), "/v1/tasks?limit=2".to_owned());
    loop {
        let page = service.get(&path).expect(200).json();
        seen.extend(page["tasks"].as_array().unwrap().iter().map(|task| task["task"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/v1/tasks?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ["0-5", "0-4", "0-3", "0-2", "0-1", "0-0"]);
    // A page may go on behind any task of another.
    let all = service.get("/v1/tasks").expect(200).json();
    let behind = |index: usize| service.get(&format!("/v1/tasks?cursor={}", all["tasks"][index]["cursor"].as_str().unwrap()));
    for index in 0..6 {
        assert_eq!(
            behind(index).expect(200).json()["tasks"].as_array().unwrap()[..],
            all["tasks"].as_array().unwrap()[index + 1..]
        );
    }
    let count = |query: &str| service.get(&format!("/v1/tasks?{query}")).expect(200).json()["tasks"].as_array().unwrap().len();
    assert_eq!(
        (count("type=noop"), count("type=sleep"), count("type=fail"), count("pool=default"), count("pool=files")),
        (5, 1, 0, 6, 0)
    );
    assert_eq!((count("state=live"), count("state=ended"), count("outcome=succeeded"), count("outcome=failed")), (1, 5, 5, 0));
    assert_eq!(
        (count("since=2020-01-01T00:00:00Z"), count("until=2020-01-01T00:00:00Z"), count("since=2100-01-01T00:00:00Z")),
        (6, 0, 0)
    );
    for bad in [
        "state=x",
        "outcome=x",
        "since=x",
        "limit=0",
        "limit=x",
        "limit=100000",
        "cursor=x",
        "colour=red",
        "type=x",
        "pool=x",
        "limit=1&limit=2",
    ] {
        let problem = service.get(&format!("/v1/tasks?{bad}")).problem(422, "invalid");
        assert_eq!(problem["field"].as_str(), bad.split('=').next(), "{problem}");
    }
    service.post(&format!("/v1/tasks/{live}/cancel"), r#"{"reason":"no longer needed"}"#).expect(202);
    let ended = service.get(&format!("/v1/tasks/{live}/result?wait=30s")).problem(409, "unsuccessful");
    assert_eq!(ended["outcome"], "CANCELLED");
    service.post(&format!("/v1/tasks/{live}/cancel"), "").problem(409, "conflict");
    let killed = service.submit(r#"{"type":"sleep","payload":{"ms":60000}}"#);
    service.post(&format!("/v1/tasks/{killed}/kill"), "").expect(200);
    service.post(&format!("/v1/tasks/{killed}/kill"), r#"{"raeson":"x"}"#).problem(422, "invalid");
}

#[test]
fn dead_letters_are_tried_again_one_by_one_and_together() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let fail = r#"{"type":"fail","payload":{"class":"c","message":"m"}}"#;
    for _ in 0..4 {
        let id = service.submit(fail);
        service.get(&format!("/v1/tasks/{id}/result?wait=30s")).problem(409, "unsuccessful");
    }
    let page = service.get("/v1/dead-letters?limit=3&cause=not_retryable&type=fail").expect(200).json();
    assert_eq!((page["dead_letters"].as_array().unwrap().len(), &page["total"], &page["cursor"]), (3, &4.into(), &"0-1".into()));
    let rest = service.get("/v1/dead-letters?limit=3&cursor=0-1").expect(200).json();
    assert_eq!(rest["dead_letters"][0]["task"], "0-0");
    assert_eq!(service.get("/v1/dead-letters?cause=killed").expect(200).json()["dead_letters"].as_array().unwrap().len(), 0);
    let retried = service.post("/v1/tasks/0-0/retry", "").expect(201);
    assert_eq!((&retried.json()["task"], retried.header("location").as_deref()), (&"0-4".into(), Some("/v1/tasks/0-4")));
    service.post("/v1/tasks/0-0/retry", "").problem(409, "conflict");
    service.get("/v1/tasks/0-4/result?wait=30s").problem(409, "unsuccessful");
    let dry = service.post("/v1/dead-letters/redrive", r#"{"type":"fail","dry_run":true,"limit":2}"#).expect(200).json();
    assert_eq!((&dry["matching"], dry["redriven"].as_array().unwrap().len()), (&4.into(), 2));
    let done =
        service.post("/v1/dead-letters/redrive", r#"{"ids":["0-1","0-2"],"reason":"the bug is mended"}"#).expect(200).json();
    assert_eq!(done["redriven"].as_array().unwrap().len(), 2, "{done}");
    assert_eq!(done["redriven"][0]["of"], "0-1");
    assert!(done["redriven"][0]["task"].is_string(), "{done}");
    service.post("/v1/dead-letters/redrive", r#"{"ids":["0-1"]}"#).problem(409, "conflict");
    for bad in [
        "",
        "{}",
        r#"{"all":true,"type":"fail"}"#,
        r#"{"ids":[]}"#,
        r#"{"ids":["x"]}"#,
        r#"{"all":1}"#,
        r#"{"all":true,"limit":0}"#,
    ] {
        service.post("/v1/dead-letters/redrive", bad).problem(422, "invalid");
    }
}

#[test]
fn pools_are_sized_and_states_of_the_past_are_shown() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let names: Vec<_> = service.get("/v1/pools").expect(200).json()["pools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pool| pool["name"].clone())
        .collect();
    assert_eq!(names, ["default", "files"]);
    let before = service.get("/v1/state").expect(200).json();
    let sized = service.ask("PATCH", "/v1/pools/files", &[("content-type", "application/json")], br#"{"replicas":2,"slots":7}"#);
    assert_eq!(
        (&sized.expect(200).json()["replicas"], &service.get("/v1/pools/files").expect(200).json()["slots"]),
        (&2.into(), &7.into())
    );
    for (body, field) in
        [("{}", "replicas"), (r#"{"slots":0}"#, "slots"), (r#"{"replicas":-1}"#, "replicas"), (r#"{"size":1}"#, "size")]
    {
        assert_eq!(service.ask("PATCH", "/v1/pools/files", &[], body.as_bytes()).problem(422, "invalid")["field"], field);
    }
    service.get("/v1/pools/nope").problem(404, "not-found");
    service.ask("PATCH", "/v1/pools/nope", &[], br#"{"slots":1}"#).problem(404, "not-found");
    let then = service.get(&format!("/v1/state?at={}", before["position"])).expect(200).json();
    assert_eq!((&then["digest"], &then["position"]), (&before["digest"], &before["position"]));
    assert_eq!(service.get("/v1/state?at=0").expect(200).json()["pools"].as_array().unwrap().len(), 0);
    let pools = service.get("/v1/state").expect(200).json()["pools"].clone();
    assert_eq!(pools[1]["slots"], 7);
    service.get("/v1/state?at=999999").problem(404, "not-found");
    service.get("/v1/state?at=yesterday").problem(422, "invalid");
    for path in ["/livez", "/readyz", "/version"] {
        service.get(path).expect(200);
    }
    let refused = service.ask("DELETE", "/v1/tasks", &[], b"");
    assert_eq!(refused.header("allow").as_deref(), Some("get, post"));
    refused.problem(405, "method-not-allowed");
    service.get("/v1/nothing").problem(404, "not-found");
    service.get("/").problem(404, "not-found");
}

/// A server that says how far it is, leaves a checkpoint and fails at first, and is called again with what it left.
#[test]
fn a_service_that_was_called_reports_with_the_token_of_its_attempt() {
    use std::io::{BufRead, BufReader, Write};
    let home = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = home.path().join("ergate.toml");
    let place = listener.local_addr().unwrap();
    let retry = "retry = { attempts = 2, initial = \"10ms\", max = \"10ms\" }";
    std::fs::write(&config, format!("[task.long]\nexecutor = {{ http = \"http://{place}/\" }}\n{retry}\n")).unwrap();
    let service = Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &[]);
    let id = service.submit(r#"{"type":"long"}"#);
    let call = || {
        let mut stream = BufReader::new(listener.accept().unwrap().0);
        let (mut line, mut headers) = (String::new(), std::collections::BTreeMap::new());
        while stream.read_line(&mut line).unwrap() > 2 {
            if let Some((name, value)) = line.split_once(": ") {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            line.clear();
        }
        (stream.into_inner(), headers)
    };
    let answer = |mut stream: std::net::TcpStream, status: &str| {
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    };
    let report = |token: &str, body: &str| service.ask("POST", "/v1/report", &[("ergate-report", token)], body.as_bytes());
    let (first, headers) = call();
    let token = headers["ergate-report"].clone();
    report(&token, r#"{"percent":40,"stage":"reading","checkpoint":"page 7"}"#).expect(204);
    assert_eq!(service.ask("GET", "/v1/report", &[("ergate-report", &token)], b"").expect(204).text(), "");
    assert_eq!(report(&token, r#"{"percent":140}"#).problem(422, "invalid")["title"], "the request is not what it should be");
    report(&token, "[").problem(422, "invalid");
    report("0123456789abcdef.0", r#"{"heartbeat":true}"#).problem(410, "gone");
    service.post("/v1/report", r#"{"heartbeat":true}"#).problem(401, "unauthorized");
    answer(first, "503 Service Unavailable");
    let (second, headers) = call();
    report(&token, r#"{"heartbeat":true}"#).problem(410, "gone");
    let token = headers["ergate-report"].clone();
    let left = service.ask("GET", "/v1/report", &[("ergate-report", &token)], b"").expect(200);
    assert_eq!((left.text().as_str(), headers["ergate-checkpoint-size"].as_str()), ("page 7", "6"));
    answer(second, "200 OK");
    assert_eq!(service.get(&format!("/v1/tasks/{id}?wait=30s")).expect(200).json()["outcome"], "SUCCEEDED");
    let history = service.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
    let told = history["events"].as_array().unwrap().iter().find(|event| event["event"] == "progressed").unwrap();
    assert_eq!((&told["percent"], &told["stage"]), (&40.into(), &"reading".into()));
}

#[test]
fn what_a_command_says_is_logged_with_its_task_and_trace() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("my.toml");
    std::fs::write(&config, "[task.talk]\nexecutor = { process = [\"sh\", \"-c\", \"echo hello >&2\"] }\n").unwrap();
    let logged = [("ERGATE_LOG", "info,ergate_actors=debug"), ("ERGATE_LOG_FORMAT", "json")];
    let service = Service::start_with(home.path(), &["--config", config.to_str().unwrap()], &logged);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let id = service.submit(&format!(r#"{{"type":"talk","traceparent":"00-{trace}-00f067aa0ba902b7-01"}}"#));
    service.get(&format!("/v1/tasks/{id}?wait=60s")).expect(200);
    let lines = || service.said().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    let told = |lines: Vec<Value>| lines.into_iter().find(|line| line["fields"]["stderr"] == "hello");
    until("it is logged", || told(lines()).is_some());
    let span = told(lines()).unwrap()["span"].clone();
    assert_eq!(
        (&span["name"], &span["task"], &span["attempt"], &span["trace"]),
        (&"attempt".into(), &id.into(), &1.into(), &trace.into())
    );
}

#[test]
fn pools_are_paused_drained_and_resumed_and_a_restart_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let pool = |service: &Service| service.get("/v1/pools/default").expect(200).json();
    let set = |service: &Service, verb: &str| {
        service.post(&format!("/v1/pools/default/{verb}"), r#"{"reason":"the night"}"#).expect(200).json()
    };
    let phase = |service: &Service, id: &str| service.get(&format!("/v1/tasks/{id}")).expect(200).json()["state"].clone();
    assert_eq!(pool(&service)["mode"], "running");
    assert_eq!(set(&service, "pause")["mode"], "paused");
    let first = service.submit(r#"{"type":"noop"}"#);
    service.get(&format!("/v1/tasks/{first}/result?wait=300ms")).expect(202);
    assert_eq!((&pool(&service)["replicas_up"], &phase(&service, &first)), (&1.into(), &"ready".into()));
    // A pool that is paused on purpose is no reason to restart the service.
    service.get("/readyz").expect(200);
    service.kill();
    let service = Service::start(home.path());
    assert_eq!(pool(&service)["mode"], "paused");
    assert_eq!(set(&service, "resume")["mode"], "running");
    service.get(&format!("/v1/tasks/{first}/result?wait=30s")).expect(200);
    // What runs ends, what comes waits, and the replicas go.
    let running = service.submit(r#"{"type":"sleep","payload":{"ms":700}}"#);
    until("it runs", || phase(&service, &running) == "running");
    set(&service, "drain");
    let waits = service.submit(r#"{"type":"noop"}"#);
    service.get(&format!("/v1/tasks/{running}/result?wait=30s")).expect(200);
    until("the replicas are gone", || pool(&service)["replicas_up"] == 0);
    assert_eq!((&pool(&service)["mode"], &pool(&service)["replicas"]), (&"drained".into(), &1.into()));
    let figures = service.get("/metrics").expect(200).text();
    for line in ["ergate_pool_held{pool=\"default\"} 1\n", "ergate_replicas_wanted{pool=\"default\"} 0\n"] {
        assert!(figures.contains(line), "{line}");
    }
    set(&service, "resume");
    service.get(&format!("/v1/tasks/{waits}/result?wait=30s")).expect(200);
    service.post("/v1/pools/nope/pause", "").problem(404, "not-found");
    let log = service.get("/v1/log?from=0&follow=false").expect(200).text();
    assert_eq!(log.matches(r#""event":"pool_mode_set""#).count(), 4, "{log}");
    assert!(log.contains(r#""name":"default","mode":"drained","by":"http","reason":"the night""#), "{log}");
}

#[test]
fn without_a_terminal_every_line_of_a_service_is_json() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_LOG_FORMAT", "auto"), ("ERGATE_LOG", "info")]);
    service.submit(r#"{"type":"noop"}"#);
    // In use: it says so, in JSON too.
    let data = home.path().join("data");
    let mut second = crate::command::ergate(&["up", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
    let second = second.env_remove("ERGATE_LOG_FORMAT").output().unwrap();
    assert_eq!(second.status.code(), Some(7));
    let said = service.said() + &String::from_utf8(second.stderr).unwrap();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{said}");
    let message = |line: &Value| line["fields"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(lines.iter().any(|line| line["level"] == "INFO" && message(line).starts_with("ready at http://")), "{said}");
    assert!(lines.iter().any(|line| line["level"] == "ERROR" && message(line).contains("is in use by process")), "{said}");
    let mut odd = crate::command::ergate(&["up", "--no-http", "--data", data.to_str().unwrap()]);
    assert_eq!(odd.env("ERGATE_LOG_FORMAT", "xml").output().unwrap().status.code(), Some(2));
}
