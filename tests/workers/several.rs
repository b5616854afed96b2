//! One worker of several engines.

use std::thread::JoinHandle;
use std::time::Duration;

use ergate::worker::{Concurrency, Worker, WorkerError};
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

/// A worker that is told of these engines. Its tasks `hold` end when they are released, `nap` after 20 ms.
fn start(urls: &[String], slots: u32) -> Running {
    start_with(urls, move |worker| worker.slots(slots))
}

fn start_with(urls: &[String], with: impl FnOnce(Worker) -> Worker + Send + 'static) -> Running {
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
    let nap = |_: serde_json::Value| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok::<_, TaskError>("rested")
    };
    let thread = std::thread::spawn(move || {
        block_on(Duration::from_secs(60), async move {
            let worker = with(Worker::builder(&urls[0])).lease(Duration::from_millis(900)).task("hold", hold).task("nap", nap);
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
fn room_is_one_for_all_engines_and_less_of_it_is_asked_for_at_once() {
    let [a, b] = two();
    let (room, of_room) = watch::channel(4);
    let running = start_with(&[a.url()], |worker| worker.slots(8).room(of_room));
    let asked = |count: u64| {
        for stub in [&a, &b] {
            stub.until("it is asked for its share", |said| said.asked == Some(count));
        }
    };
    asked(2);
    room.send_replace(0);
    asked(0);
    // Nothing is taken of this.
    [&a, &b].iter().for_each(|stub| gives(stub, &format!("{}-1.1", stub.address.port())));
    room.send_replace(2);
    for stub in [&a, &b] {
        stub.until("it gives what it has", |said| said.gives.is_empty());
    }
    // There are slots, and no room.
    asked(0);
    room.send_replace(8);
    asked(3);
    running.release.send_replace(true);
    for stub in [&a, &b] {
        stub.until("its work is done", |said| said.outcomes.len() == 1 && said.outcomes[0]["result"] == "done");
    }
    running.end();
}

#[test]
fn what_was_asked_for_before_the_limit_fell_is_done_whenever_it_comes() {
    let stub = Stub::start();
    let running = start_with(&[stub.url()], |worker| worker.slots(8).concurrency(Concurrency::Adaptive { min: 1, max: 8 }));
    stub.until("it is asked for one", |said| said.asked == Some(1));
    gives(&stub, "0-1.1");
    stub.until("one runs, and the limit is one", |said| said.asked == Some(0));
    stub.set(|said| said.on_their_way = vec![("0-3.1".to_owned(), "hold"), ("0-2.1".to_owned(), "hold")]);
    stub.until("both have come", |said| said.on_their_way.is_empty() && said.asked.is_some());
    running.release.send_replace(true);
    stub.until("all are reported", |said| said.outcomes.len() == 3);
    assert!(stub.lock().outcomes.iter().all(|one| one["result"] == "done"), "{:?}", stub.lock().outcomes);
    running.end();
}

#[test]
fn every_engine_is_told_how_many_attempts_at_a_time_do_best_and_the_limit_is_one_for_all() {
    let [a, b] = two();
    let running = start_with(&[a.url()], |worker| worker.slots(8).concurrency(Concurrency::Adaptive { min: 2, max: 8 }));
    for stub in [&a, &b] {
        stub.until("it is asked for its share", |said| said.asked == Some(1));
        stub.until("it is told", |said| said.limits.len() == 1);
        let limits = stub.lock().limits.clone();
        assert_eq!((&limits[0]["limit"], &limits[0]["was"]), (&2.into(), &2.into()));
    }
    for number in 1..=2 {
        gives(&a, &format!("0-{number}.1"));
        gives(&b, &format!("1-{number}.1"));
    }
    // Two run, of eight slots.
    for stub in [&a, &b] {
        stub.until("it is asked for orders alone", |said| said.asked == Some(0));
    }
    assert_eq!(a.lock().gives.len() + b.lock().gives.len(), 2);
    running.release.send_replace(true);
    let done = || a.lock().outcomes.len() + b.lock().outcomes.len();
    crate::command::until("everything is done", || done() == 4);
    // Now there is enough work, whoever has it, and more at a time do no worse.
    for number in 0..400 {
        let stub = if number % 3 == 0 { &a } else { &b };
        stub.set(|said| said.gives.push((format!("7-{number}.1"), "nap")));
    }
    for stub in [&a, &b] {
        stub.until("it is told of the change", |said| said.limits.len() > 1);
        let limits = stub.lock().limits.clone();
        assert!(limits[1]["limit"].as_u64() > Some(2) && limits[1]["was"] == 2, "{limits:?}");
    }
    // One that comes later has to hear of it as well.
    let c = Stub::start();
    a.set(|said| said.news = Some(vec![a.url(), b.url(), c.url()]));
    c.until("it is told", |said| said.limits.first().is_some_and(|told| told["limit"] == told["was"]));
    crate::command::until("everything is done", || done() == 404);
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
fn what_an_engine_gave_before_another_one_drained_the_worker_is_done() {
    let [a, b] = two();
    let running = start(&[a.url()], 4);
    b.until("it is asked", |said| said.asked.is_some());
    gives(&a, "0-1.1");
    a.until("it runs, and more is asked for", |said| said.gives.is_empty() && said.asked > Some(0));
    // In the answer to the question that waits, which says that it is the last one.
    a.set(|said| said.gives_when_told = vec![("0-2.1".to_owned(), "hold")]);
    b.set(|said| said.drains = true);
    a.until("it knows that the worker drains", |said| said.verbs == ["drain"]);
    a.until("its last question is answered", |said| said.gives.is_empty());
    // Also where it takes a while.
    std::thread::sleep(Duration::from_millis(50));
    running.release.send_replace(true);
    assert!(running.thread.join().unwrap().is_ok());
    let said = a.lock();
    assert!(said.outcomes.len() == 2 && said.outcomes.iter().all(|one| one["result"] == "done"), "{:?}", said.outcomes);
}

#[test]
fn what_is_on_its_way_when_a_worker_is_drained_is_done_and_only_then_does_it_leave() {
    let stub = Stub::start();
    let running = start(&[stub.url()], 4);
    gives(&stub, "0-4.1");
    stub.until("it runs, and more is asked for", |said| said.gives.is_empty() && said.asked == Some(3));
    stub.set(|said| {
        said.on_their_way = vec![("0-3.1".to_owned(), "nap"), ("0-2.1".to_owned(), "nap"), ("0-1.1".to_owned(), "nap")];
        said.drains = true;
    });
    // With the answer to its report it knows that it drains, and has nothing.
    running.release.send_replace(true);
    assert!(running.thread.join().unwrap().is_ok());
    let said = stub.lock();
    let mut results: Vec<_> = said.outcomes.iter().map(|one| format!("{} {}", one["attempt"], one["result"])).collect();
    results.sort_unstable();
    let expected = [("0-1.1", "rested"), ("0-2.1", "rested"), ("0-3.1", "rested"), ("0-4.1", "done")];
    assert_eq!(results, expected.map(|(id, result)| format!("\"{id}\" \"{result}\"")));
    assert_eq!(said.verbs, ["leave"]);
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
