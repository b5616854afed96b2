//! Who may do what: every route with every scope, and what is refused at the start.

use std::path::Path;

use serde_json::Value;

use crate::command::{run, until};
use crate::service::Service;

fn new(name: &str, scope: &str) -> (String, String) {
    let made = run(&["token", "new", "--name", name, "--scope", scope, "-o", "json"]).expect(0).json();
    (made["token"].as_str().unwrap().to_owned(), made["line"].as_str().unwrap().to_owned())
}

fn guarded(home: &Path, lines: &[&str]) -> Service {
    let file = home.join("tokens");
    std::fs::write(&file, lines.join("\n")).unwrap();
    Service::start_with(home, &[], &[("ERGATE_HTTP__TOKENS", file.to_str().unwrap())])
}

/// Which scope allows what needs another, as the documentation has it.
fn allows(has: &str, needed: &str) -> bool {
    match has {
        "admin" => true,
        "operate" => matches!(needed, "operate" | "read"),
        has => has == needed,
    }
}

#[test]
fn every_route_asks_for_its_scope() {
    let home = tempfile::tempdir().unwrap();
    let scopes = ["read", "submit", "operate", "work", "admin"];
    let made: Vec<_> = scopes.iter().map(|scope| new(scope, scope)).collect();
    let service = guarded(home.path(), &made.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>());
    let document = service.get("/openapi.json").expect(200).json();
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let (method, path) = (
                method.to_ascii_uppercase(),
                path.replace("{id}", "0-999").replace("{name}", "nope").replace("{attempt}", "0-999.1"),
            );
            let Some(needed) = operation["security"][0]["bearer"][0].as_str() else {
                // The token of an attempt is another one, and needed whether the service has tokens or not.
                match operation["security"][0]["attempt"].is_array() {
                    true => drop(service.ask(&method, &path, &[], b"").problem(401, "unauthorized")),
                    false => assert!(!path.starts_with("/v1"), "{path} is open"),
                }
                continue;
            };
            seen += 1;
            // A stream of events would not end.
            let path = if path == "/v1/log" { "/v1/log?from=999999".to_owned() } else { path };
            let without = service.ask(&method, &path, &[], b"");
            assert!(without.header("www-authenticate").is_some());
            without.problem(401, "unauthorized");
            for (scope, (token, _)) in scopes.iter().zip(&made) {
                let status = service.ask(&method, &path, &[("authorization", &format!("Bearer {token}"))], b"").status;
                assert_eq!(status != 403, allows(scope, needed), "{scope} {method} {path}: {status}");
                assert_ne!((status, 401), (401, status), "{scope} {method} {path}");
            }
        }
    }
    assert_eq!(seen, 41);
    let wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer ergate_x",
        "Basic YTpi",
        &format!("Bearer {}x", made[4].0),
        &format!("Bearer {}", "a".repeat(4_000)),
    ];
    for wrong in wrong {
        service.ask("GET", "/v1/tasks", &[("authorization", wrong)], b"").problem(401, "unauthorized");
    }
    // What comes from outside is named by its token, and no token is anywhere.
    let bearer = format!("Bearer {}", made[4].0);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let id = service.ask("POST", "/v1/tasks", &headers, br#"{"type":"sleep","payload":{"ms":60000}}"#).expect(201).json()["id"]
        .clone();
    service.ask("POST", &format!("/v1/tasks/{}/kill", id.as_str().unwrap()), &headers, b"").expect(200);
    let history = service.ask("GET", &format!("/v1/tasks/{}/history", id.as_str().unwrap()), &headers, b"").expect(200).text();
    assert!(history.contains("token admin"), "{history}");
    assert!(!history.contains(&made[4].0) && !service.said().contains(&made[4].0));
}

#[test]
fn tokens_are_read_again_when_their_file_changes() {
    let home = tempfile::tempdir().unwrap();
    let ((old, old_line), (fresh, fresh_line)) = (new("old", "read"), new("fresh", "read"));
    let service = guarded(home.path(), &[&old_line]);
    let status = |token: &str| service.ask("GET", "/v1/tasks", &[("authorization", &format!("Bearer {token}"))], b"").status;
    assert_eq!((status(&old), status(&fresh)), (200, 401));
    std::fs::write(home.path().join("tokens"), &fresh_line).unwrap();
    service.signal("HUP");
    until("the new token is known", || status(&fresh) == 200);
    assert_eq!(status(&old), 401);
    std::fs::write(home.path().join("tokens"), format!("{old_line}\n{fresh_line}\n")).unwrap();
    until("the change is noticed without a signal", || status(&old) == 200);
    std::fs::write(home.path().join("tokens"), "nonsense\n").unwrap();
    service.signal("HUP");
    until("the fault is told", || service.said().contains("not read again"));
    assert_eq!(status(&fresh), 200);
}

#[test]
fn a_service_that_others_reach_does_not_start_without_tokens() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let up = |listen: &str| run(&["up", "--data", data.to_str().unwrap(), "--listen", listen]);
    let refused = up("0.0.0.0:0").expect(2);
    assert!(
        refused.err.lines().count() <= 1 && refused.err.contains("ergate token new") && refused.err.contains("http.tokens"),
        "{refused:?}"
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = up(&taken.local_addr().unwrap().to_string()).expect(1);
    assert!(busy.err.contains("--listen"), "{busy:?}");
    let config = home.path().join("bad.toml");
    std::fs::write(&config, "[http]\ntls_cert = \"/nowhere.pem\"\n").unwrap();
    let half = run(&["up", "--data", data.to_str().unwrap(), "--config", config.to_str().unwrap()]).expect(2);
    assert!(half.err.contains("http.tls_key"), "{half:?}");
    let shown = run(&["config", "show", "-o", "json"]).expect(0).out;
    assert!(shown.contains("http.listen"));
    run(&["token", "new", "--scope", "root"]).expect(2);
}

#[test]
fn pages_and_foreign_names_are_kept_out() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__HOSTS", "tasks.example.org")]);
    for (host, status) in
        [("localhost", 200), ("localhost:7420", 200), ("127.0.0.1", 200), ("tasks.example.org:80", 200), ("[::1]:1", 200)]
    {
        assert_eq!(service.ask("GET", "/v1/tasks", &[("host", host)], b"").status, status, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "", "localhost.", "0.0.0.0"] {
        service.ask("GET", "/v1/tasks", &[("host", host)], b"").problem(421, "misdirected");
    }
    let json = ("content-type", "application/json");
    let from = |origin: &str| service.ask("POST", "/v1/tasks", &[json, ("origin", origin)], br#"{"type":"noop"}"#);
    from("http://evil.example").problem(403, "foreign-origin");
    from("null").problem(403, "foreign-origin");
    let own = from(&format!("http://{}", service.address)).expect(201);
    let headers = [
        "x-content-type-options: nosniff",
        "cache-control: no-store",
        "content-security-policy: default-src 'none'",
        "x-frame-options: deny",
    ];
    headers.iter().for_each(|header| assert!(own.head.contains(header), "{header}: {}", own.head));
    assert!(!own.head.contains("access-control"));
    let asked = [("origin", "http://evil.example"), ("access-control-request-method", "POST")];
    assert!(!service.ask("OPTIONS", "/v1/tasks", &asked, b"").head.contains("access-control"));
}

/// A certificate of its own, made by openssl.
fn certificate(dir: &Path) -> Result<(), String> {
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ])
        .arg("-keyout")
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output();
    made.map_err(|error| error.to_string())
        .and_then(|made| made.status.success().then_some(()).ok_or_else(|| "openssl failed".to_owned()))
}

#[test]
fn tls_is_spoken_with_a_certificate() {
    let home = tempfile::tempdir().unwrap();
    if let Err(reason) = certificate(home.path()).and_then(|()| crate::packages::has("curl", "--version")) {
        return crate::packages::say(&format!("SKIPPED tls_is_spoken_with_a_certificate: {reason}"));
    }
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__TLS_CERT", &cert), ("ERGATE_HTTP__TLS_KEY", &key)]);
    assert!(service.said().contains("https://"));
    let url = format!("https://localhost:{}/version", service.address.port());
    let answer = std::process::Command::new("curl").args(["-sS", "--cacert", &cert, &url]).output().unwrap();
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
    assert_eq!(answer["name"], "ergate");
    assert!(!service.raw(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").contains("ergate"));
    // Half of a new pair changes nothing; the whole is used from the next connection on.
    let speaks = |cert: &str| {
        let asked = std::process::Command::new("curl").args(["-sS", "--cacert", cert, &url]).output().unwrap();
        asked.status.success()
    };
    let old = path("old.pem");
    std::fs::copy(&cert, &old).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    certificate(fresh.path()).unwrap();
    std::fs::copy(fresh.path().join("cert.pem"), &cert).unwrap();
    service.signal("HUP");
    until("the fault is told", || service.said().contains("the certificate was not read again"));
    assert!(speaks(&old) && !speaks(&cert));
    std::fs::copy(fresh.path().join("key.pem"), &key).unwrap();
    until("the new certificate is used", || speaks(&cert));
    assert!(!speaks(&old));
}
