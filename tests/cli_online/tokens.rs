//! Who may do what, who can be trusted, and where a token is never seen.

use std::path::{Path, PathBuf};

use crate::command::Ended;
use crate::service::Service;
use crate::support::{asking, command, refuses, run};

const SCOPES: [&str; 4] = ["read", "submit", "operate", "admin"];

/// A service that asks for tokens, and a file with a token of each scope.
fn guarded(home: &Path) -> (Service, Vec<PathBuf>) {
    let (mut lines, mut files) = (String::new(), Vec::new());
    for scope in SCOPES {
        let made = run(&["token", "new", "--name", scope, "--scope", scope, "-o", "json"]).expect(0).json();
        lines += &format!("{}\n", made["line"].as_str().unwrap());
        let file = home.join(format!("{scope}.token"));
        std::fs::write(&file, format!("{}\n", made["token"].as_str().unwrap())).unwrap();
        files.push(file);
    }
    std::fs::write(home.join("tokens"), lines).unwrap();
    let service = Service::start_with(home, &[], &[("ERGATE_HTTP__TOKENS", home.join("tokens").to_str().unwrap())]);
    (service, files)
}

#[test]
fn every_verb_asks_for_its_scope() {
    let home = tempfile::tempdir().unwrap();
    let (service, files) = guarded(home.path());
    let ndjson = home.path().join("lines");
    std::fs::write(&ndjson, "{\"type\":\"noop\"}\n").unwrap();
    let ask = |verb: &[&str], token: Option<&Path>| {
        let mut command = asking(&service, verb);
        token.map(|file| command.arg("--token-file").arg(file));
        Ended::of(&command.output().unwrap())
    };
    ask(&["submit", "noop"], Some(&files[1])).expect(0);
    let table: &[(&str, &[&str])] = &[
        ("submit", &["submit", "noop"]),
        ("submit", &["submit", "--ndjson", ndjson.to_str().unwrap()]),
        ("read", &["task", "list"]),
        ("read", &["task", "show", "0-0"]),
        ("read", &["task", "history", "0-0"]),
        ("read", &["task", "result", "0-0", "--wait", "60s"]),
        ("read", &["dead-letters", "list"]),
        ("read", &["pool", "list"]),
        ("read", &["pool", "show", "files"]),
        ("read", &["log", "tail"]),
        ("read", &["replay"]),
        ("operate", &["task", "cancel", "0-99"]),
        ("operate", &["task", "kill", "0-99"]),
        ("operate", &["task", "retry", "0-99"]),
        ("operate", &["dead-letters", "redrive", "--all", "--yes"]),
        ("operate", &["pool", "scale", "files", "--slots", "5"]),
        ("operate", &["pool", "pause", "files"]),
        ("operate", &["pool", "drain", "files"]),
        ("operate", &["pool", "resume", "files"]),
    ];
    for (needed, verb) in table {
        refuses(&ask(verb, None), 10, &["asks for a token", "--token-file"]);
        for (scope, file) in SCOPES.iter().zip(&files) {
            let ended = ask(verb, Some(file));
            let allowed = scope == needed || *scope == "admin" || (*scope == "operate" && *needed == "read");
            match allowed {
                // What is not there is told as such by whoever may look.
                true => assert!(matches!(ended.code, Some(0 | 6)), "{scope} {verb:?}: {ended:?}"),
                false => refuses(&ended, 10, &[&format!("the token of {scope} does not have the scope `{needed}`")]),
            }
        }
    }
    ask(&["status"], None).expect(0);
}

#[test]
fn a_token_comes_from_a_file_or_the_environment_and_is_never_shown() {
    let home = tempfile::tempdir().unwrap();
    let (service, files) = guarded(home.path());
    let token = std::fs::read_to_string(&files[0]).unwrap().trim().to_owned();
    let list = |set: &dyn Fn(&mut std::process::Command) -> &mut std::process::Command| {
        let mut command = asking(&service, &["task", "list"]);
        set(&mut command);
        let ended = Ended::of(&command.output().unwrap());
        assert!(!ended.err.contains(&token) && !ended.out.contains(&token), "{ended:?}");
        ended
    };
    list(&|command| command.env("ERGATE_TOKEN", &token)).expect(0);
    list(&|command| command.env("ERGATE_TOKEN_FILE", &files[0])).expect(0);
    list(&|command| command.env("ERGATE_CLIENT__TOKEN_FILE", &files[0])).expect(0);
    list(&|command| command.env("ERGATE_TOKEN", &token).env("ERGATE_LOG", "trace")).expect(0);
    list(&|command| command.env("ERGATE_TOKEN_FILE", "/nowhere").arg("--token-file").arg(&files[0])).expect(0);
    refuses(&list(&|command| command.env("ERGATE_TOKEN", format!("{token}x"))), 10, &["does not know the token in ERGATE_TOKEN"]);
    refuses(&list(&|command| command.env("ERGATE_TOKEN", format!("{token} x"))), 2, &["ERGATE_TOKEN", "no token"]);
    refuses(&list(&|command| command.arg("--token-file").arg("/nowhere")), 2, &["/nowhere", "--token-file"]);
    let shown = Ended::of(&command(&["config", "show"]).env("ERGATE_TOKEN", &token).output().unwrap()).expect(0);
    assert!(!shown.out.contains(&token));
}

/// A certificate of its own, made by openssl.
fn certificate(dir: &Path) -> Result<(), String> {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.arg("-keyout").arg(dir.join("key.pem")).arg("-out").arg(dir.join("cert.pem"));
    let made = openssl.output().map_err(|error| error.to_string())?;
    if made.status.success() { Ok(()) } else { Err("openssl failed".to_owned()) }
}

#[test]
fn tls_is_spoken_with_whom_the_certificate_proves() {
    let home = tempfile::tempdir().unwrap();
    if let Err(reason) = certificate(home.path()) {
        return crate::packages::say(&format!("SKIPPED tls_is_spoken_with_whom_the_certificate_proves: {reason}"));
    }
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let service = Service::start_with(home.path(), &[], &[("ERGATE_HTTP__TLS_CERT", &cert), ("ERGATE_HTTP__TLS_KEY", &key)]);
    let port = service.address.port();
    let url = format!("https://localhost:{port}");
    let trusting = |url: &str| run(&["submit", "noop", "--url", url, "--ca", &cert]);
    assert_eq!(trusting(&url).expect(0).out, "0-0\n");
    let by_variable = command(&["status", "--url", &url]).env("ERGATE_CA", &cert).output().unwrap();
    assert!(by_variable.status.success(), "{by_variable:?}");
    let stranger = run(&["status", "--url", &url]);
    // A machine that trusts nobody at all says that instead.
    assert!(matches!(stranger.code, Some(10 | 2)) && stranger.err.contains("--ca"), "{stranger:?}");
    refuses(&trusting(&format!("https://127.0.0.1:{port}")), 10, &["no trusted connection", "--ca"]);
    refuses(&run(&["status", "--url", &url, "--ca", &key]), 2, &["key.pem", "no certificate"]);
    refuses(&run(&["status", "--url", &url, "--ca", "/nowhere"]), 2, &["/nowhere"]);
    let other = tempfile::tempdir().unwrap();
    let plain = Service::start(other.path());
    refuses(&trusting(&format!("https://localhost:{}", plain.address.port())), 10, &["no trusted connection"]);
}
