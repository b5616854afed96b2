//! Lists of tasks by their labels.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::service::Service;

fn ids(page: &Value) -> Vec<&str> {
    page["tasks"].as_array().unwrap().iter().map(|row| row["task"].as_str().unwrap()).collect()
}

/// Submits a task with these labels, and waits for its end if it has one.
fn submit(service: &Service, task_type: &str, payload: &Value, labels: &Value) -> String {
    let id = service.submit(&json!({"type": task_type, "payload": payload, "labels": labels}).to_string());
    if task_type != "sleep" {
        assert_ne!(service.get(&format!("/v1/tasks/{id}/result?wait=60s")).status, 202);
    }
    id
}

#[test]
fn live_and_ended_tasks_are_listed_by_one_label_and_by_several() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let acme = json!({"customer": "acme", "note": "a=b & c"});
    submit(&service, "noop", &Value::Null, &acme);
    submit(&service, "noop", &Value::Null, &json!({"customer": "other"}));
    submit(&service, "fail", &json!({"class": "c", "message": "m"}), &json!({"customer": "acme"}));
    submit(&service, "sleep", &json!({"ms": 600_000}), &acme);
    submit(&service, "sleep", &json!({"ms": 600_000}), &json!({"customer": "acm"}));
    submit(&service, "noop", &Value::Null, &json!({}));
    let found = |query: &str| {
        let page = service.get(&format!("/v1/tasks?{query}")).expect(200).json();
        assert_eq!(page["cursor"], Value::Null, "{page}");
        ids(&page).join(" ")
    };
    assert_eq!(found("label=customer=acme"), "0-3 0-2 0-0");
    assert_eq!(found("label=customer%3Dacme"), "0-3 0-2 0-0");
    assert_eq!(found("label=customer=acme&label=note=a%3Db+%26%20c"), "0-3 0-0");
    assert_eq!(found("label=customer=acme&label=customer=other"), "");
    assert_eq!(found("label=customer="), "");
    assert_eq!(found("label=customer=acme&state=live"), "0-3");
    assert_eq!(found("label=customer=acme&state=dead"), "0-2");
    assert_eq!(found("label=customer=acme&outcome=succeeded&type=noop&pool=default"), "0-0");
    service.post("/v1/tasks/0-2/retry", "").expect(201);
    service.get("/v1/tasks/0-6/result?wait=60s").problem(409, "unsuccessful");
    assert_eq!(found("label=customer=acme"), "0-3 0-6 0-2 0-0");
    // The stream of a dashboard's filter: what does not end with the page goes on behind a task.
    let page = service.get("/v1/tasks?label=customer=acme&limit=2").expect(200).json();
    assert_eq!(ids(&page), ["0-3", "0-6"]);
    let rest = service.get(&format!("/v1/tasks?label=customer=acme&limit=2&cursor={}", page["cursor"].as_str().unwrap()));
    assert_eq!(ids(&rest.expect(200).json()), ["0-2", "0-0"]);
}

#[test]
fn what_is_no_label_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let long = format!("label=a={}", "b".repeat(600));
    let many = vec!["label=a=b"; 17].join("&");
    for (bad, told) in [
        ("label=customer", "\"customer\" where a label NAME=VALUE"),
        ("label=", "a label NAME=VALUE"),
        ("label==acme", "\"=acme\" where"),
        ("label=a=b&label=c", "\"c\" where"),
        (long.as_str(), "at most 256 bytes"),
        (many.as_str(), "17 times; it is expected at most 16 times"),
    ] {
        let problem = service.get(&format!("/v1/tasks?{bad}")).problem(422, "invalid");
        assert_eq!(problem["field"], "label", "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(told), "{problem}");
    }
    service.get("/v1/dead-letters?label=a=b").problem(422, "invalid");
    service.get(&format!("/v1/tasks?{}", vec!["label=a=b"; 16].join("&"))).expect(200);
}

/// Their requests have more bytes than are read for one page.
#[test]
fn a_page_that_reads_too_much_is_short_and_its_cursor_goes_on() {
    const TASKS: usize = 72;
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let large = "x".repeat(1_000_000);
    for number in 0..TASKS {
        let labels = if number % 24 == 5 { json!({"rare": "yes", "of": "all"}) } else { json!({"of": "all"}) };
        service.submit(&json!({"type": "noop", "payload": large, "labels": labels}).to_string());
    }
    let live = submit(&service, "sleep", &json!({"ms": 600_000}), &json!({"rare": "yes"}));
    service.get(&format!("/v1/tasks/0-{}/result?wait=60s", TASKS - 1)).expect(200);
    let (mut found, mut cursor, mut short, mut pages) = (Vec::new(), String::new(), 0, 0);
    loop {
        let page = service.get(&format!("/v1/tasks?label=rare=yes{cursor}")).expect(200).json();
        found.extend(ids(&page).into_iter().map(str::to_owned));
        pages += 1;
        short += usize::from(page["looked_to"].is_string());
        // It ends between two pages, and another one comes: neither changes what the list has.
        if pages == 1 {
            service.post(&format!("/v1/tasks/{live}/kill"), "").expect(200);
            submit(&service, "noop", &Value::Null, &json!({"rare": "yes"}));
        }
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, ["0-72", "0-53", "0-29", "0-5"]);
    assert_eq!((pages, short), (2, 1));
    let once: BTreeSet<_> = found.iter().collect();
    assert_eq!(once.len(), found.len());
}

#[test]
fn the_document_has_every_parameter_of_the_list() {
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let document = service.get("/openapi.json").expect(200).json();
    let parameters = document["paths"]["/v1/tasks"]["get"]["parameters"].as_array().unwrap().clone();
    let described: BTreeSet<_> = parameters.iter().map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect();
    let problem = service.get("/v1/tasks?colour=red").problem(422, "invalid");
    let known = problem["detail"].as_str().unwrap().split_once("known are ").unwrap().1.split(", ").map(str::to_owned).collect();
    assert_eq!(described, known);
    let label = parameters.iter().find(|parameter| parameter["name"] == "label").unwrap();
    let kinds = &label["schema"]["type"];
    assert!(*kinds == "array" || kinds.as_array().is_some_and(|kinds| kinds.contains(&json!("array"))), "{label}");
    assert_eq!((&label["schema"]["items"]["type"], &label["schema"]["maxItems"]), (&json!("string"), &json!(16)), "{label}");
    assert!(document["components"]["schemas"]["TaskPage"]["properties"]["looked_to"].is_object());
}
