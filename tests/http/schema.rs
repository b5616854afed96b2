//! The served document: what it says is so, tried by schemathesis with requests of its own.

use std::process::Command;

use crate::packages;
use crate::service::Service;

/// The version that was tried: later ones may check more.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

#[test]
fn every_operation_of_the_document_is_there() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let document = service.get("/openapi.json").expect(200).json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = path.replace("{id}", "0-999").replace("{name}", "nope").replace("/v1/log", "/v1/log?from=99999");
            let answer = service.ask(&method.to_ascii_uppercase(), &path, &[], b"");
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(!answer.text().contains("nothing at this address"), "{method} {path}");
        }
    }
}

#[test]
fn what_is_sent_and_answered_is_as_the_document_says() {
    let python = match packages::python(&[SCHEMATHESIS]) {
        Ok(python) => python,
        Err(reason) => return packages::say(&format!("SKIPPED what_is_sent_and_answered_is_as_the_document_says: {reason}")),
    };
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    service.submit(r#"{"type":"noop"}"#);
    let url = format!("http://{}/openapi.json", service.address);
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command.args(["run", &url, "--max-examples", "25", "--seed", "7420", "--exclude-path", "/v1/log", "--no-color"]);
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let output =
        command.args(["--phases", "examples,coverage,fuzzing", "--checks", checks]).current_dir(home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    service.submit(r#"{"type":"noop"}"#);
}
