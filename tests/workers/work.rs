//! What workers do while nothing goes wrong.

use std::time::Duration;

use crate::command::until;
use crate::ground::Ground;

const TYPES: &str = r#"
[task.shout]
pool = "models"
executor = "worker"
[task.call]
pool = "models"
executor = "worker"
timeout = "20s"
[task.alive]
pool = "models"
executor = "worker"
heartbeat = "4s"
retry.attempts = 1
[task.dead]
pool = "models"
executor = "worker"
heartbeat = "300ms"
retry.attempts = 1
"#;

/// One of them as a command, for the worker.
const SHOUT: &str = r#"
[task.shout]
pool = "models"
executor = { process = ["tr", "a-z", "A-Z"] }
"#;

#[test]
fn many_tasks_are_done_exactly_once() {
    let ground = Ground::new("");
    let worker = ground.worker(&["--slots", "500", "--label", "zone=b"]);
    ground.submit_many(5_000, r#"{"type":"noop","payload":{"a":[1]}}"#);
    ground.until_done();
    let known = ground.ask("GET", "/v1/workers", "").expect(200).json();
    assert_eq!(known["workers"][0]["labels"]["zone"], "b", "{known}");
    worker.end();
    let told = ground.end();
    told.all_succeeded(5_000);
    assert_eq!((told.count("started"), told.count("lost"), told.count("attempt_returned")), (5_000, 0, 0), "{told:?}");
    assert_eq!(told.count("worker_joined"), 1);
}

#[test]
fn several_workers_share_the_work() {
    let ground = Ground::new("");
    let workers: Vec<_> = (0..3).map(|_| ground.worker(&["--slots", "20"])).collect();
    ground.submit_many(300, r#"{"type":"sleep","payload":{"ms":20}}"#);
    ground.until_done();
    workers.into_iter().for_each(crate::ground::Worker::end);
    let told = ground.end();
    told.all_succeeded(300);
    assert_eq!((told.count("worker_joined"), told.count("lost")), (3, 0));
}

#[test]
fn commands_run_in_a_worker_with_small_and_large_payloads() {
    let ground = Ground::new(TYPES);
    let worker = ground.worker_with(SHOUT, &["--pool", "models", "--slots", "4"]);
    let small = ground.submit(r#"{"type":"shout","payload":"hello"}"#);
    // Too large to come with its attempt.
    let large = "x".repeat(400 << 10);
    let large = ground.submit(&format!(r#"{{"type":"shout","payload":"{large}"}}"#));
    for (id, expected) in [(small, "HELLO".to_owned()), (large, "X".repeat(400 << 10))] {
        assert_eq!(ground.outcome(&id), "SUCCEEDED", "{}", ground.task(&id));
        let result = ground.ask("GET", &format!("/v1/tasks/{id}/result"), "").expect(200);
        assert!(result.text().contains(&expected), "{id}: {:.200}", result.text());
    }
    worker.end();
    ground.end().all_succeeded(2);
}

#[test]
fn calls_to_a_service_run_in_a_worker() {
    let ground = Ground::new(TYPES);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[task.call]\npool = \"models\"\nexecutor = {{ http = \"http://{}/do\", allow_networks = [\"127.0.0.0/8\"] }}\n",
        listener.local_addr().unwrap()
    );
    let service = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains("\"image\"") {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).unwrap();
            request.extend_from_slice(&piece[..count]);
        }
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\nconnection: close\r\n\r\n{\"ok\":true}";
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8_lossy(&request).into_owned()
    });
    let worker = ground.worker_with(&config, &["--pool", "models"]);
    let id = ground.submit(r#"{"type":"call","payload":{"image":"a"}}"#);
    assert_eq!(ground.outcome(&id), "SUCCEEDED", "{}", ground.task(&id));
    assert!(service.join().unwrap().contains("POST /do"));
    worker.end();
    ground.end().all_succeeded(1);
}

#[test]
fn signs_of_life_of_an_attempt_reach_the_engine() {
    let ground = Ground::new(TYPES);
    // The first says something often enough, the second never.
    let config = "[task.alive]\npool = \"models\"\nheartbeat = \"4s\"\nexecutor = { process = [\"sh\", \"-c\", \"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.6; echo '{\\\"heartbeat\\\":true}' > $ERGATE_REPORT; done\"] }\n\
                  [task.dead]\npool = \"models\"\nheartbeat = \"300ms\"\nexecutor = { process = [\"sleep\", \"30\"] }\n";
    let worker = ground.worker_with(config, &["--pool", "models", "--slots", "2"]);
    let (alive, dead) = (ground.submit(r#"{"type":"alive"}"#), ground.submit(r#"{"type":"dead"}"#));
    assert_eq!(ground.outcome(&dead), "FAILED");
    assert_eq!(ground.outcome(&alive), "SUCCEEDED", "{}", ground.task(&alive));
    // What was told to stop has ended, and its slot is free.
    until("the worker has both slots free", || ground.live("live") == 0);
    let again = [ground.submit(r#"{"type":"dead"}"#), ground.submit(r#"{"type":"dead"}"#)];
    until("both run", || ground.live("running") == 2);
    again.iter().for_each(|id| assert_eq!(ground.outcome(id), "FAILED"));
    worker.end();
    assert_eq!(ground.end().count("heartbeat_missed"), 3);
}

#[test]
fn a_cancelled_task_is_stopped_where_it_runs() {
    let ground = Ground::new("");
    let worker = ground.worker(&["--slots", "1"]);
    let id = ground.submit(r#"{"type":"sleep","payload":{"ms":600000}}"#);
    until("it runs", || ground.live("running") == 1);
    let began = std::time::Instant::now();
    ground.ask("POST", &format!("/v1/tasks/{id}/kill"), "").expect(200);
    assert_eq!(ground.outcome(&id), "CANCELLED", "{}", ground.task(&id));
    // A function that waits in vain has to make room for the next.
    let next = ground.submit(r#"{"type":"noop"}"#);
    assert_eq!(ground.outcome(&next), "SUCCEEDED");
    assert!(began.elapsed() < Duration::from_secs(30));
    worker.end();
    ground.end();
}
