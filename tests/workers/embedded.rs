//! A worker inside a program of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ergate::events::time::Micros;
use ergate::worker::{Worker, WorkerError};
use ergate::{Context, CudaVersion, KernelDigest, Ran, TaskError};

use crate::command::until;
use crate::ground::Ground;
use crate::process::block_on;

const TYPES: &str = "[task.add]\npool = \"models\"\nexecutor = \"worker\"\n\
                     [task.twice]\npool = \"models\"\nexecutor = \"worker\"\nretry.initial = \"10ms\"\n";

async fn add((a, b): (u32, u32)) -> Result<u32, TaskError> {
    Ok(a + b)
}

/// Fails the first time, and tells the second attempt how far it was.
async fn twice(context: Context, _: ()) -> Result<String, TaskError> {
    context.progress(Some(50), "half", "");
    match context.checkpoint() {
        None => {
            context.keep(b"{\"half\":true}");
            Err(TaskError::new("not_yet", "once more").retry_after(Duration::from_millis(20)))
        }
        Some(kept) => Ok(format!("{} {} {}", context.attempt(), context.fence(), String::from_utf8_lossy(kept))),
    }
}

#[test]
fn functions_of_a_program_run_for_an_engine_elsewhere() {
    let ground = Ground::new(TYPES);
    let ready = Arc::new(AtomicU32::new(0));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (url, told) = (ground.url(), Arc::clone(&ready));
    let worker = std::thread::spawn(move || {
        block_on(Duration::from_secs(60), async move {
            let worker = Worker::builder(&url).pool("models").slots(2).task("add", add).task("twice", twice);
            let worker = worker.on_ready(move || told.store(1, Ordering::Relaxed));
            worker.run(async move { drop(ended.await) }).await
        })
    });
    let sum = ground.submit(r#"{"type":"add","payload":[1,2]}"#);
    let twice = ground.submit(r#"{"type":"twice","payload":null}"#);
    for (id, expected) in [(sum, "3".to_owned()), (twice.clone(), format!(r#""{twice}.2 1.2 {{\"half\":true}}""#))] {
        assert_eq!(ground.outcome(&id), "SUCCEEDED", "{}", ground.task(&id));
        assert_eq!(ground.ask("GET", &format!("/v1/tasks/{id}/result"), "").expect(200).text(), expected);
    }
    drop(end);
    worker.join().unwrap().unwrap();
    assert_eq!(ready.load(Ordering::Relaxed), 1);
    ground.end().all_succeeded(2);
}

fn on(device: &str, batch_size: u32) -> Ran {
    let (driver, kernel) = (Some(CudaVersion { major: 13, minor: 0 }), KernelDigest([0xab; 32]));
    let [queue, copy, compute] = [0, 1_500, 1_000_001].map(Micros);
    Ran { device: device.to_owned(), driver, kernel, batch_size, queue, copy, compute, memory_bytes: 1 << 30 }
}

/// Fails on one device and succeeds on another; what never reached one says so with a batch of nobody.
async fn on_a_device(context: Context, where_to: String) -> Result<u32, TaskError> {
    match (where_to.as_str(), context.attempt().number) {
        ("nowhere", _) => context.ran_on(on("GPU-1", 0)),
        (_, 1) => {
            context.ran_on(on("GPU-1", 32));
            return Err(TaskError::new("oom", "no room").retry_after(Duration::from_millis(10)));
        }
        _ => context.ran_on(on("GPU-2", 1)),
    }
    Ok(1)
}

#[test]
fn where_attempts_ran_reaches_the_log_of_the_engine() {
    let ground = Ground::new("[task.scale]\npool = \"models\"\nexecutor = \"worker\"\nretry.initial = \"10ms\"\n");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let url = ground.url();
    let worker = std::thread::spawn(move || {
        block_on(Duration::from_secs(60), async move {
            let worker = Worker::builder(&url).pool("models").slots(2).task("scale", on_a_device);
            worker.run(async move { drop(ended.await) }).await
        })
    });
    let device = ground.submit(r#"{"type":"scale","payload":"device"}"#);
    let nowhere = ground.submit(r#"{"type":"scale","payload":"nowhere"}"#);
    let events = |id: &str| {
        assert_eq!(ground.outcome(id), "SUCCEEDED", "{}", ground.task(id));
        let history = ground.ask("GET", &format!("/v1/tasks/{id}/history"), "").expect(200).json();
        history["events"].as_array().unwrap().clone()
    };
    let of_device = events(&device);
    let names: Vec<_> = of_device.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let first = ["requested", "started", "attempt_ran", "failed", "retry_scheduled", "ready"];
    assert_eq!(names, [&first[..], &["started", "attempt_ran", "succeeded"]].concat());
    for (index, expected) in [(2, on("GPU-1", 32)), (7, on("GPU-2", 1))] {
        assert_eq!(of_device[index]["ran"], serde_json::to_value(&expected).unwrap());
    }
    let of_nowhere = events(&nowhere);
    assert!(of_nowhere.iter().all(|event| event["event"] != "attempt_ran"), "{of_nowhere:?}");
    drop(end);
    worker.join().unwrap().unwrap();
    let told = ground.end();
    assert_eq!(told.count("attempt_ran"), 2);
    told.all_succeeded(2);
}

#[test]
fn a_worker_that_is_dropped_ends() {
    let ground = Ground::new("");
    let running = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&running);
    let hang = move |_: serde_json::Value| {
        let count = Arc::clone(&count);
        async move {
            struct Leave(Arc<AtomicU32>);
            impl Drop for Leave {
                fn drop(&mut self) {
                    self.0.fetch_sub(1, Ordering::Relaxed);
                }
            }
            count.fetch_add(1, Ordering::Relaxed);
            let _leave = Leave(count);
            std::future::pending::<Result<(), TaskError>>().await
        }
    };
    ground.submit(r#"{"type":"sleep","payload":{"ms":1}}"#);
    block_on(Duration::from_secs(60), async {
        let worker = Worker::builder(&ground.url()).task("sleep", hang).run(std::future::pending());
        let seen = Arc::clone(&running);
        tokio::select! {
            ended = worker => panic!("{ended:?}"),
            () = async { while seen.load(Ordering::Relaxed) == 0 { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
        }
    });
    until("its function is gone", || running.load(Ordering::Relaxed) == 0);
}

#[test]
fn a_worker_that_cannot_be_is_refused_before_anything_is_asked() {
    let refused = |worker: Worker| match block_on(Duration::from_secs(10), worker.run(std::future::pending())) {
        Err(WorkerError::Setup(text)) => text,
        other => panic!("{other:?}"),
    };
    let worker = || Worker::builder("http://127.0.0.1:1").task("add", add);
    assert!(refused(Worker::builder("127.0.0.1").task("add", add)).contains("http://"));
    assert!(refused(Worker::builder("http://127.0.0.1:1")).contains("no task type"));
    assert!(refused(worker().slots(0)).contains("slots"));
    assert!(refused(worker().lease(Duration::from_millis(1))).contains("lease"));
    assert!(refused(worker().task("add", add)).contains("two functions"));
    assert!(refused(worker().token("a\nb")).contains("token"));
}
