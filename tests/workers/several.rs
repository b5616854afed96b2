//! One worker of several engines.

use std::thread::JoinHandle;
use std::time::Duration;

use ergate::worker::{Worker, WorkerError};
use ergate::{Context, TaskError};
use tokio::sync::{oneshot, watch};

use crate::process::block_on;
use crate::stub::Stub;

/// A worker on a thread, and what ends it and its tasks.
struct Running {
    thread: JoinHandle<Result<(), WorkerError>>,
    end: oneshot::Sender<()>,
    release: watch::Sender<bool>,
}

/// A worker that is told of these engines. Its tasks `hold` end when they are released.
fn start(urls: &[String], slots: u32) -> Running {
    let (end, ended) = oneshot::channel::<()>();
    let release = watch::Sender::new(false);
    let (urls, released) = (urls.to_vec(), release.subscribe());
    let hold = move |_: Context, _: serde_json::Value| {
        let mut released = released.clone();
        async move {
            let _ = released.wait_for(|released| *released).await;
            Ok::<_, TaskError>("done")
        }
    };
    let thread = std::thread::spawn(move || {
        block_on(Duration::from_secs(60), async move {
            let worker = Worker::builder(&urls[0]).slots(slots).lease(Duration::from_millis(900)).task("hold", hold);
            let worker = urls[1..].iter().fold(worker, |worker, url| worker.engine(url));
            worker.run(async move { drop(ended.await) }).await
        })
    });
    Running { thread, end, release }
}

impl Running {
    fn end(self) {
        drop(self.end);
        self.thread.join().unwrap().unwrap();
    }
}

/// Two engines that name each other.
fn two() -> [Stub; 2] {
    let [a, b] = [Stub::start(), Stub::start()];
    a.set(|said| said.engines = vec![a.url(), b.url()]);
    b.set(|said| said.engines = vec![b.url(), a.url()]);
    [a, b]
}

fn gives(stub: &Stub, id: &str) {
    stub.set(|said| said.gives.push((id.to_owned(), "hold")));
}

#[test]
fn the_engines_that_one_names_are_asked_as_well_each_for_a_share() {
    let [a, b] = two();
    let running = start(&[a.url()], 8);
    for stub in [&a, &b] {
        stub.until("it is asked for its share", |said| said.asked == Some(4));
    }
    gives(&b, "1-7.1");
    b.until("it is asked for the rest", |said| said.gives.is_empty() && said.asked == Some(3));
    running.release.send_replace(true);
    b.until("it hears of the end", |said| said.outcomes.len() == 1);
    assert_eq!(b.lock().outcomes[0]["result"], "done");
    running.end();
    for stub in [&a, &b] {
        let said = stub.lock();
        assert_eq!((said.registrations.len(), said.verbs.last()), (1, Some(&"leave")));
    }
}

#[test]
fn an_attempt_too_many_goes_back_at_once() {
    let [a, b] = two();
    [&a, &b].iter().for_each(|stub| stub.set(|said| said.is_shut = true));
    gives(&a, "0-1.1");
    gives(&b, "1-1.1");
    let running = start(&[a.url()], 1);
    for stub in [&a, &b] {
        stub.until("it is asked for one", |said| said.asked == Some(1));
    }
    [&a, &b].iter().for_each(|stub| stub.set(|said| said.is_shut = false));
    let returned = |stub: &Stub| stub.lock().outcomes.iter().filter(|one| one["returned"] == true).count();
    crate::command::until("one of them goes back", || returned(&a) + returned(&b) == 1);
    running.release.send_replace(true);
    let outcomes = |stub: &Stub| stub.lock().outcomes.len();
    crate::command::until("the other one ends", || outcomes(&a) + outcomes(&b) == 2);
    assert_eq!((returned(&a) + returned(&b), outcomes(&a)), (1, 1));
    running.end();
}

#[test]
fn what_is_led_elsewhere_is_told_there_and_keeps_its_slot_until_then() {
    let [a, b] = two();
    [&a, &b].iter().for_each(|stub| stub.set(|said| said.elsewhere = Some(b.url())));
    let running = start(&[a.url()], 1);
    b.until("it is asked", |said| said.asked == Some(1));
    gives(&a, "0-1.1");
    running.release.send_replace(true);
    // Neither takes it, and it is told again and again.
    b.until("it has heard of it twice", |said| said.reports >= 2);
    assert!(a.lock().asked.unwrap_or_default() == 0 && b.lock().asked.unwrap_or_default() == 0, "the slot is not free");
    b.set(|said| said.elsewhere = None);
    b.until("it takes it", |said| said.outcomes.len() == 1);
    assert_eq!((b.lock().outcomes[0]["attempt"].as_str(), a.lock().outcomes.len()), (Some("0-1.1"), 0));
    b.until("the slot is free", |said| said.asked == Some(1));
    running.end();
}

#[test]
fn an_engine_that_dies_is_spoken_for_by_another() {
    let [a, b] = two();
    let running = start(&[a.url()], 4);
    b.until("it is asked", |said| said.asked.is_some());
    gives(&a, "0-1.1");
    a.until("it is taken", |said| said.gives.is_empty());
    // As long as it runs, every engine hears that the worker lives: any of them may lead it next.
    b.until("it has heard of the worker", |said| said.reports >= 2);
    a.kill();
    running.release.send_replace(true);
    b.until("it hears of the end", |said| said.outcomes.len() == 1);
    assert_eq!(b.lock().outcomes[0]["attempt"], "0-1.1");
    gives(&b, "1-1.1");
    b.until("its own work is done", |said| said.outcomes.len() == 2);
    running.end();
}

#[test]
fn what_one_engine_does_not_take_another_one_hears() {
    let [a, b] = two();
    let running = start(&[a.url()], 4);
    b.until("it is asked", |said| said.asked.is_some());
    gives(&a, "0-1.1");
    a.until("it runs", |said| said.gives.is_empty() && said.asked.is_some());
    // It is well until it is told of the end.
    a.set(|said| said.refuses = Some(503));
    running.release.send_replace(true);
    b.until("it hears of the end", |said| said.outcomes.len() == 1);
    running.end();
}

#[test]
fn an_engine_that_is_named_twice_is_one() {
    let a = Stub::start();
    a.set(|said| said.engines = vec![a.url()]);
    let running = start(&[a.url(), format!("http://localhost:{}", a.address.port())], 8);
    a.until("it is asked for everything", |said| said.registrations.len() == 2 && said.asked == Some(8));
    gives(&a, "0-1.1");
    running.release.send_replace(true);
    a.until("its work is done", |said| said.outcomes.len() == 1);
    running.end();
    assert_eq!(a.lock().verbs, ["leave"]);
}

#[test]
fn an_engine_that_comes_later_is_found_and_one_that_refuses_the_worker_is_done_without() {
    let [a, b] = two();
    let c = Stub::start();
    a.set(|said| said.engines = vec![a.url()]);
    c.set(|said| said.refuses = Some(403));
    let running = start(&[a.url()], 4);
    a.until("it is asked for all", |said| said.asked == Some(4));
    a.set(|said| said.news = Some(vec![a.url(), b.url(), c.url()]));
    b.until("it is asked", |said| said.asked.is_some());
    gives(&b, "1-1.1");
    running.release.send_replace(true);
    b.until("its work is done", |said| said.outcomes.len() == 1);
    running.end();
    // The first one's word counts.
    let running = start(&[c.url(), a.url()], 4);
    let ended = running.thread.join().unwrap();
    assert!(matches!(&ended, Err(WorkerError::Refused(refusal)) if refusal.status == 403), "{ended:?}");
}

#[test]
fn one_engine_under_two_names_is_one() {
    let [a, b] = two();
    let running = start(&[format!("http://localhost:{}", a.address.port())], 8);
    b.until("it is asked", |said| said.asked == Some(4));
    a.until("it is asked", |said| said.asked == Some(4));
    gives(&a, "0-1.1");
    running.release.send_replace(true);
    a.until("its work is done", |said| said.outcomes.len() == 1);
    assert_eq!((a.lock().registrations.len(), b.lock().registrations.len()), (1, 1));
    running.end();
    assert_eq!(a.lock().verbs, ["leave"]);
}

#[test]
fn a_worker_that_one_engine_drains_leaves_all() {
    let [a, b] = two();
    let running = start(&[a.url()], 4);
    b.until("it is asked", |said| said.asked.is_some());
    gives(&a, "0-1.1");
    a.until("it runs", |said| said.gives.is_empty() && said.asked.is_some());
    b.set(|said| said.drains = true);
    a.until("it knows that the worker drains", |said| said.verbs == ["drain"]);
    running.release.send_replace(true);
    assert!(running.thread.join().unwrap().is_ok());
    let (a, b) = (a.lock(), b.lock());
    assert_eq!((a.outcomes.len(), a.verbs.last(), b.verbs.last()), (1, Some(&"leave"), Some(&"leave")));
}
