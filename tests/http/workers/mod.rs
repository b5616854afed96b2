//! Workers over HTTP, as a foreign client sees it: what it is given, what its reports lead to, and what becomes of work whose worker is gone.

mod lost;
mod ran;
mod refused;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::{run, verify};
use crate::service::{Answer, Service};

const CONFIG: &str = r#"
[pool.models]
fleet = "external"
[task.resize]
pool = "models"
executor = "worker"
retry = { attempts = 3, initial = "10ms" }
[task.crop]
pool = "models"
executor = "worker"
[task.beating]
pool = "models"
executor = "worker"
heartbeat = "3s"
retry = { attempts = 3, initial = "10ms" }
[task.abroad]
executor = "worker"
"#;

/// A service with task types that workers run, in the pool `models` and one in `default`.
pub(super) fn engine(home: &Path) -> Service {
    engine_with(home, &[])
}

pub(super) fn engine_with(home: &Path, variables: &[(&str, &str)]) -> Service {
    let path = home.join("my.toml");
    std::fs::write(&path, CONFIG).unwrap();
    Service::start_with(home, &["--config", path.to_str().unwrap()], variables)
}

/// A worker by hand: it does what it is told and nothing else.
pub(super) struct Worker<'a> {
    service: &'a Service,
    pub(super) id: String,
    seq: u64,
}

impl<'a> Worker<'a> {
    pub(super) fn known(service: &'a Service, number: u8) -> Worker<'a> {
        Worker { service, id: format!("{number:032x}"), seq: 0 }
    }

    /// A worker of `models` with four slots.
    pub(super) fn join(service: &'a Service, number: u8) -> Worker<'a> {
        let mut worker = Worker::known(service, number);
        worker.register(&json!({}));
        worker
    }

    /// Registers, with these fields beside the usual ones.
    pub(super) fn register(&mut self, more: &Value) -> Value {
        let mut body = json!({"protocol": 1, "pool": "models", "slots": 4, "lease": "20s"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.seq = 0;
        self.put(&body).expect(200).json()
    }

    pub(super) fn put(&self, body: &Value) -> Answer {
        self.service.ask("PUT", &format!("/v1/workers/{}", self.id), &[], body.to_string().as_bytes())
    }

    pub(super) fn post(&self, verb: &str, body: &Value) -> Answer {
        self.service.post(&format!("/v1/workers/{}/{verb}", self.id), &body.to_string())
    }

    /// Asks the next question.
    pub(super) fn lease(&mut self, slots: u32, wait: &str) -> Value {
        self.seq += 1;
        self.post("lease", &json!({"seq": self.seq, "slots": slots, "wait": wait})).expect(200).json()
    }

    /// The ids of the attempts that it is given now.
    pub(super) fn take(&mut self, slots: u32) -> Vec<String> {
        let leased = self.lease(slots, "10s");
        leased["attempts"].as_array().unwrap().iter().map(|one| one["attempt"].as_str().unwrap().to_owned()).collect()
    }

    pub(super) fn report(&self, body: &Value) -> Value {
        self.post("report", body).expect(200).json()
    }

    #[track_caller]
    pub(super) fn succeed(&self, attempt: &str) {
        let told = self.report(&json!({"outcomes": [{"attempt": attempt, "result": {"by": self.id}}]}));
        assert_eq!((&told["taken"], &told["refused"]), (&json!(1), &json!([])), "{attempt}");
    }

    #[track_caller]
    pub(super) fn is_refused(&self, outcome: &Value) {
        let told = self.report(&json!({"outcomes": [outcome]}));
        assert_eq!((&told["taken"], &told["refused"][0]["reason"]), (&json!(0), &json!("stale-attempt")), "{outcome}");
    }

    pub(super) fn leave(&self) -> Value {
        self.service.ask("DELETE", &format!("/v1/workers/{}", self.id), &[], b"").expect(200).json()
    }
}

pub(super) fn outcome(service: &Service, id: &str) -> Value {
    service.get(&format!("/v1/tasks/{id}?wait=30s")).expect(200).json()["outcome"].clone()
}

/// The names of the events of a task.
pub(super) fn history(service: &Service, id: &str) -> Vec<String> {
    let events = service.get(&format!("/v1/tasks/{id}/history")).expect(200).json();
    events["events"].as_array().unwrap().iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect()
}

/// Ends the service in order, and decides its whole log again.
pub(super) fn end(service: Service, home: &Path) {
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
    verify(&home.join("data"));
}

#[test]
fn work_goes_to_a_worker_that_asks_and_its_report_ends_the_task() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let id = service.submit(r#"{"type":"resize","payload":{"image":"a.png"},"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}"#);
    let bytes = service.submit(r#"{"type":"resize","payload_base64":"AP8=","content_type":"image/png"}"#);
    let mut worker = Worker::known(&service, 1);
    let told = worker.register(&json!({"name": "by hand", "labels": {"zone": "b"}, "types": ["resize", "crop"]}));
    assert_eq!(told, json!({"protocol": 1, "lease": "20s", "wait_max": "60s", "usage_every": "10s", "stop": [], "drain": false}));
    let leased = worker.lease(4, "10s");
    let [one, two] = &leased["attempts"].as_array().unwrap()[..] else { panic!("{leased}") };
    assert_eq!((&one["attempt"], &one["task"], &one["number"]), (&json!(format!("{id}.1")), &json!(id), &json!(1)));
    assert_eq!((&one["type"], &one["payload"], &one["fence"]), (&json!("resize"), &json!({"image": "a.png"}), &json!("1.1")));
    assert!(one["traceparent"].as_str().unwrap().contains("0af7651916cd43dd8448eb211c80319c"), "{one}");
    assert!(one["timeout_ms"].as_u64().unwrap() > 3_500_000 && one["deadline"].as_str().unwrap().ends_with('Z'), "{one}");
    assert_eq!((&two["payload_base64"], two.get("payload")), (&json!("AP8="), None));
    worker.succeed(&format!("{id}.1"));
    let told =
        worker.report(&json!({"outcomes": [{"attempt": format!("{bytes}.1"), "result_base64": "/w==", "outcome": "PARTIAL"}]}));
    assert_eq!(told["taken"], 1);
    assert_eq!(service.get(&format!("/v1/tasks/{id}/result")).expect(200).json(), json!({"by": worker.id}));
    assert_eq!(service.get(&format!("/v1/tasks/{bytes}/result")).expect(200).body, [0xff]);
    assert_eq!(outcome(&service, &bytes), "PARTIAL");
    let shown = service.get(&format!("/v1/workers/{}", worker.id)).expect(200).json();
    assert_eq!((&shown["name"], &shown["labels"], &shown["slots"]), (&json!("by hand"), &json!({"zone": "b"}), &json!(4)));
    assert_eq!(service.get("/v1/workers").expect(200).json()["workers"][0]["id"], shown["id"]);
    end(service, home.path());
    let log = run(&["log", "export", "--data", home.path().join("data").to_str().unwrap()]).expect(0).json_lines();
    let joined = log.iter().find(|event| event["event"] == "worker_joined").unwrap();
    assert_eq!((&joined["worker"]["name"], &joined["worker"]["id"]), (&json!("by hand"), &json!(shown["id"])));
    assert_eq!(log.iter().filter(|event| event["event"] == "work_asked").count(), 1, "only what was given is recorded");
}

#[test]
fn a_question_that_is_repeated_gets_the_same_answer_and_another_one_ends_it() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let mut worker = Worker::join(&service, 1);
    let id = service.submit(r#"{"type":"resize"}"#);
    assert_eq!(worker.take(1), [format!("{id}.1")]);
    let again = worker.post("lease", &json!({"seq": 1, "slots": 4})).expect(200).json();
    assert_eq!((&again["seq"], &again["attempts"][0]["attempt"]), (&json!(1), &json!(format!("{id}.1"))));
    assert_eq!(worker.lease(4, "0s")["attempts"], json!([]));
    for wrong in [1, 0, 2, 99] {
        worker.post("lease", &json!({"seq": wrong, "slots": 1})).problem(409, "out-of-order");
        // Two processes may have its id: it says first what it runs.
        worker.post("lease", &json!({"seq": 3, "slots": 1})).problem(409, "unattached");
        assert_eq!(worker.register(&json!({"running": [format!("{id}.1")]}))["stop"], json!([]));
    }
    std::thread::scope(|scope| {
        let (waits, began) = (Worker::known(&service, 1), Instant::now());
        let first = scope.spawn(move || waits.post("lease", &json!({"seq": 1, "slots": 1, "wait": "30s"})));
        std::thread::sleep(Duration::from_millis(1_500));
        let second = worker.post("lease", &json!({"seq": 1, "slots": 0, "wait": "0s"})).expect(200).json();
        assert_eq!(second["attempts"], json!([]));
        first.join().unwrap().problem(409, "superseded");
        assert!(began.elapsed() < Duration::from_secs(20));
    });
    worker.succeed(&format!("{id}.1"));
    end(service, home.path());
}

#[test]
fn who_waits_is_woken_by_a_request_and_gets_no_more_than_it_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let mut worker = Worker::join(&service, 1);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| worker.take(2));
        std::thread::sleep(Duration::from_millis(200));
        let lines = "{\"type\":\"resize\"}\n".repeat(3);
        service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
        assert_eq!(waits.join().unwrap(), ["0-0.1", "0-1.1"]);
    });
    let began = Instant::now();
    assert_eq!(worker.take(4), ["0-2.1"], "the third waited");
    assert_eq!(worker.lease(1, "300ms")["attempts"], json!([]));
    assert!(began.elapsed() >= Duration::from_millis(300));
    ["0-0.1", "0-1.1", "0-2.1"].into_iter().for_each(|attempt| worker.succeed(attempt));
    end(service, home.path());
}

#[test]
fn only_types_that_a_worker_can_run_are_given_to_it_and_none_to_the_engine_itself() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let [resize, crop] = ["resize", "crop"].map(|name| service.submit(&format!(r#"{{"type":"{name}","priority":9}}"#)));
    let abroad = service.submit(r#"{"type":"abroad"}"#);
    let noop = service.submit(r#"{"type":"noop"}"#);
    assert_eq!(outcome(&service, &noop), "SUCCEEDED", "the engine runs its own types of the same pool");
    let mut crops = Worker::known(&service, 1);
    crops.register(&json!({"types": ["crop"]}));
    assert_eq!(crops.take(4), [format!("{crop}.1")]);
    crops.succeed(&format!("{crop}.1"));
    let mut traveller = Worker::known(&service, 2);
    traveller.register(&json!({"pool": "default", "types": ["abroad"]}));
    assert_eq!(traveller.take(1), [format!("{abroad}.1")]);
    traveller.succeed(&format!("{abroad}.1"));
    assert_eq!(history(&service, &resize), ["requested"]);
    end(service, home.path());
}

#[test]
fn a_large_payload_is_fetched_by_whom_it_was_given_to() {
    let home = tempfile::tempdir().unwrap();
    let service = engine(home.path());
    let text = "x".repeat(300 << 10);
    let id = service.submit(&json!({"type": "resize", "payload": text}).to_string());
    let (mut worker, other) = (Worker::join(&service, 1), Worker::join(&service, 2));
    let leased = worker.lease(1, "10s");
    let url = leased["attempts"][0]["payload_url"].as_str().unwrap();
    assert_eq!(leased["attempts"][0].get("payload"), None);
    assert_eq!(service.get(url).expect(200).json(), json!(text));
    service.get(&url.replace(&worker.id, &other.id)).problem(410, "gone");
    worker.succeed(&format!("{id}.1"));
    service.get(url).problem(410, "gone");
    end(service, home.path());
}
