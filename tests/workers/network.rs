//! Workers behind a network that cuts, holds, resets, trickles and delays; two that say they are one; and one whose clock is wrong.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::until;
use crate::ground::{Ground, LEASE, Worker};
use crate::proxy::Proxy;

/// A lease that bad networks and two busy cores do not use up.
const LONG: &str = "20s";

/// What a worker says of a report that came too late.
const REFUSED: &str = "stale-attempt";

impl Ground {
    /// A worker behind a proxy, which says what became of its reports.
    fn worker_behind(&self, proxy: &Proxy, config: &str, args: &[&str]) -> Worker {
        self.spawn_at(proxy.address(), &[("ERGATE_LOG", "info")], config, args).ready()
    }

    /// How many events of this name the service shows of a task.
    fn history(&self, id: &str, event: &str) -> usize {
        self.ask("GET", &format!("/v1/tasks/{id}/history"), "")
            .expect(200)
            .text()
            .matches(&format!("\"event\":\"{event}\""))
            .count()
    }
}

/// The two ways in which a network is gone: it says so, or it says nothing.
const GONE: [fn(&Proxy); 2] = [Proxy::cut, Proxy::black_hole];

#[test]
fn a_worker_that_is_cut_off_for_less_than_its_lease_keeps_what_it_has() {
    for gone in GONE {
        let ground = Ground::new("");
        let proxy = Proxy::start(ground.address());
        let worker = ground.worker_behind(&proxy, "", &["--slots", "20", "--lease", LONG]);
        ground.submit_many(20, r#"{"type":"sleep","payload":{"ms":1000}}"#);
        until("they run", || ground.live("running") == 20);
        // Somebody who would do it.
        let other = ground.worker(&["--slots", "20"]);
        gone(&proxy);
        std::thread::sleep(Duration::from_millis(2_500));
        // All have ended, and nobody has heard of it.
        assert_eq!(ground.live("running"), 20);
        proxy.restore();
        ground.until_done();
        [worker, other].into_iter().for_each(Worker::end);
        let told = ground.end();
        told.all_succeeded(20);
        let unwanted = ["lost", "left", "worker_missed", "attempt_returned"].map(|name| told.count(name));
        assert_eq!((unwanted, told.count("started")), ([0; 4], 20), "{told:?}");
    }
}

#[test]
fn what_a_worker_had_that_is_cut_off_for_longer_is_done_by_others_and_its_reports_are_refused() {
    for gone in GONE {
        let ground = Ground::new("");
        let proxy = Proxy::start(ground.address());
        let worker = ground.worker_behind(&proxy, "", &["--slots", "20"]);
        ground.submit_many(20, r#"{"type":"sleep","payload":{"ms":1000}}"#);
        until("they run", || ground.live("running") == 20);
        gone(&proxy);
        let other = ground.worker(&["--slots", "20"]);
        ground.until_done();
        proxy.restore();
        until("all its reports are refused", || worker.said().matches(REFUSED).count() >= 20);
        other.end();
        // It goes on, as the only one.
        ground.submit_many(10, r#"{"type":"noop"}"#);
        ground.until_done();
        worker.end();
        let told = ground.end();
        told.all_succeeded(30);
        assert_eq!((told.count("lost"), told.count("worker_missed"), told.count("started")), (20, 1, 50), "{told:?}");
    }
}

/// Ends at once, and in its second attempt when the file `go` is there; says which attempt it was.
const SLOW: &str = r#"
[task.slow]
pool = "models"
timeout = "10m"
executor = { process = ["sh", "-c", "if [ $ERGATE_ATTEMPT != 1 ]; then while [ ! -e GO ]; do sleep 0.1; done; fi; echo $ERGATE_ATTEMPT"] }
"#;

#[test]
fn a_late_report_does_not_end_what_another_worker_is_doing() {
    let ground = Ground::new("[task.slow]\npool = \"models\"\nexecutor = \"worker\"\ntimeout = \"10m\"\n");
    let go = ground.home().join("go");
    let config = SLOW.replace("GO", go.to_str().unwrap());
    let proxy = Proxy::start(ground.address());
    let late = ground.worker_behind(&proxy, &config, &["--pool", "models"]);
    proxy.hold_reports();
    let id = ground.submit(r#"{"type":"slow"}"#);
    until("it runs", || ground.history(&id, "started") == 1);
    let other = ground.worker_with(&config, &["--pool", "models"]);
    // Whoever is late asks for work again, too, and would be given it.
    until("it is lost", || ground.history(&id, "lost") == 1);
    until("it runs again", || ground.history(&id, "started") == 2);
    proxy.restore();
    until("the late report is refused, or taken", || late.said().contains(REFUSED) || ground.live("running") == 0);
    assert_eq!(ground.live("running"), 1, "it was ended by a late report: {}", ground.task(&id));
    std::fs::write(&go, "").unwrap();
    assert_eq!(ground.outcome(&id), "SUCCEEDED", "{}", ground.task(&id));
    assert_eq!(ground.result(&id), 2);
    [late, other].into_iter().for_each(Worker::end);
    let told = ground.end();
    told.all_succeeded(1);
    assert_eq!((told.count("started"), told.count("lost")), (2, 1), "{told:?}");
}

#[test]
fn a_late_report_does_not_end_what_the_same_worker_is_doing_again() {
    let ground = Ground::new("[task.slow]\npool = \"models\"\nexecutor = \"worker\"\ntimeout = \"10m\"\n");
    let go = ground.home().join("go");
    let proxy = Proxy::start(ground.address());
    let worker = ground.worker_behind(&proxy, &SLOW.replace("GO", go.to_str().unwrap()), &["--pool", "models"]);
    proxy.hold_reports();
    let id = ground.submit(r#"{"type":"slow"}"#);
    // It is taken for dead, registers, and is given what it has done and could not report.
    until("it runs again", || ground.history(&id, "started") == 2);
    proxy.restore();
    until("the late report is refused, or taken", || worker.said().contains(REFUSED) || ground.live("running") == 0);
    assert_eq!(ground.live("running"), 1, "it was ended by a late report: {}", ground.task(&id));
    std::fs::write(&go, "").unwrap();
    assert_eq!(ground.outcome(&id), "SUCCEEDED", "{}", ground.task(&id));
    assert_eq!(ground.result(&id), 2);
    worker.end();
    let told = ground.end();
    told.all_succeeded(1);
    assert_eq!((told.count("started"), told.count("lost"), told.count("worker_joined")), (2, 1, 2), "{told:?}");
}

#[test]
fn connections_that_are_reset_again_and_again_under_load_lose_nothing_and_repeat_nothing() {
    let ground = Ground::new("");
    let proxy = Proxy::start(ground.address());
    let args = ["--slots", "50", "--lease", LONG];
    let workers = [(); 2].map(|()| ground.worker_behind(&proxy, "", &args));
    proxy.reset_within(12 << 10);
    proxy.drop_connections();
    ground.submit_many(2_000, r#"{"type":"sleep","payload":{"ms":20}}"#);
    ground.until_done();
    let resets = proxy.resets();
    assert!(resets > 50, "there were {resets}");
    proxy.restore();
    workers.into_iter().for_each(Worker::end);
    let told = ground.end();
    told.all_succeeded(2_000);
    let unwanted = ["lost", "left", "worker_missed", "attempt_returned"].map(|name| told.count(name));
    assert_eq!((unwanted, told.count("started")), ([0; 4], 2_000), "{told:?}");
}

#[test]
fn a_network_that_trickles_slows_a_worker_and_does_nothing_else() {
    let ground = Ground::new("");
    let proxy = Proxy::start(ground.address());
    let worker = ground.worker_behind(&proxy, "", &["--slots", "10", "--lease", LONG]);
    // Three thousand bytes a second, each way.
    proxy.trickle(30, Duration::from_millis(10));
    ground.submit_many(40, &format!(r#"{{"type":"noop","payload":"{}"}}"#, "x".repeat(200)));
    let began = Instant::now();
    ground.until_done();
    assert!(began.elapsed() > Duration::from_secs(3), "it was no trickle: {:?}", began.elapsed());
    worker.end();
    let told = ground.end();
    told.all_succeeded(40);
    let unwanted = ["lost", "left", "worker_missed", "attempt_returned"].map(|name| told.count(name));
    assert_eq!((unwanted, told.count("started")), ([0; 4], 40), "{told:?}");
}

#[test]
fn reports_that_are_always_later_than_the_lease_are_refused_and_others_do_the_work() {
    let nap = "[task.nap]\npool = \"models\"\nlosses_max = 100\n";
    let ground = Ground::new(&format!("{nap}executor = \"worker\"\n"));
    let config = format!("{nap}executor = {{ process = [\"sleep\", \"0.3\"] }}\n");
    let proxy = Proxy::start(ground.address());
    let late = ground.worker_behind(&proxy, &config, &["--pool", "models", "--slots", "10"]);
    proxy.delay_reports(LEASE * 3 / 2);
    ground.submit_many(10, r#"{"type":"nap"}"#);
    until("they run", || ground.live("running") == 10);
    ground.submit_many(30, r#"{"type":"nap"}"#);
    let other = ground.worker_with(&config, &["--pool", "models", "--slots", "4"]);
    ground.until_done();
    until("its reports are refused", || late.said().matches(REFUSED).count() >= 10);
    proxy.restore();
    [late, other].into_iter().for_each(Worker::end);
    let told = ground.end();
    told.all_succeeded(40);
    assert!(told.count("lost") >= 10 && told.count("worker_missed") >= 1, "{told:?}");
    assert_eq!(told.count("started"), 40 + told.count("lost") + told.count("attempt_returned"), "{told:?}");
}

/// The id of two.
const ID: &str = "00000000000000000000000000abcdef";

#[test]
fn of_two_workers_with_one_id_one_is_refused_by_name_and_the_other_does_everything() {
    let ground = Ground::new("");
    // Also the same name, which is of the process without this: that alone tells them apart.
    let args = ["--slots", "5", "--id", ID, "--name", "twin"];
    let mut twins = vec![ground.worker(&args)];
    ground.submit_many(200, r#"{"type":"sleep","payload":{"ms":100}}"#);
    until("the first works", || ground.live("running") == 5);
    twins.push(ground.spawn("", &args));
    until("one of them ends", || twins.iter_mut().any(|twin| twin.child.try_wait().unwrap().is_some()));
    let which = twins.iter_mut().position(|twin| twin.child.try_wait().unwrap().is_some()).unwrap();
    let (mut ended, mut left) = (twins.remove(which), twins.remove(0));
    let said = ended.said();
    assert_eq!(ended.code(), Some(2), "{said}");
    assert!(said.contains("refused the worker") && said.contains("two processes have this id, give each its own"), "{said}");
    // Also what the other one had, long before anybody misses it: nobody knows it any more.
    ground.until_done();
    assert!(left.child.try_wait().unwrap().is_none(), "none is left: {}", left.said());
    left.end();
    let told = ground.end();
    told.all_succeeded(200);
    assert_eq!(told.count("lost"), 0, "{told:?}");
}

#[test]
fn what_the_refused_one_of_two_with_one_id_has_goes_to_others_at_once() {
    let ground = Ground::new("");
    ground.submit_many(2, r#"{"type":"sleep","payload":{"ms":1}}"#);
    let join = |running: &str| {
        let body = format!(r#"{{"protocol":1,"slots":2,"types":["sleep"],"lease":"1m","running":{running}}}"#);
        ground.ask("PUT", &format!("/v1/workers/{ID}"), &body).expect(200).json()
    };
    let call = |path: &str, body: &str| ground.ask("POST", &format!("/v1/workers/{ID}/{path}"), body);
    let given = |seq: u32| {
        let answer = call("lease", &format!(r#"{{"seq":{seq},"slots":1,"wait":"10s"}}"#)).expect(200).json();
        answer["attempts"][0]["attempt"].as_str().unwrap().to_owned()
    };
    // One of them has an attempt, and the other one does not know it.
    join("[]");
    let had = given(1);
    join("[]");
    given(1);
    // The first goes on as if it were alone, and the other one is found out.
    let kept = given(2);
    call("lease", r#"{"seq":3,"slots":0,"wait":"0s"}"#).expect(200);
    call("lease", r#"{"seq":2,"slots":1}"#).problem(409, "out-of-order");
    // It has to say what it runs, and does not name what the other one had.
    call("report", "{}").problem(409, "unattached");
    assert_eq!(join(&format!("[{kept:?},{had:?}]"))["stop"][0]["attempt"], had);
    let again = given(1);
    assert!(again != kept && again != had, "{kept} {had} {again}");
    let outcomes = [&kept, &again].map(|attempt| format!(r#"{{"attempt":"{attempt}","result":1}}"#)).join(",");
    assert_eq!(call("report", &format!(r#"{{"outcomes":[{outcomes}]}}"#)).expect(200).json()["taken"], 2);
    let told = ground.end();
    told.all_succeeded(2);
    assert_eq!((told.count("lost"), told.count("worker_missed")), (0, 0), "{told:?}");
}

#[test]
fn a_worker_with_the_id_of_another_and_other_flags_is_refused_and_disturbs_nobody() {
    let ground = Ground::new("[task.shout]\npool = \"models\"\nexecutor = \"worker\"\n");
    let worker = ground.worker(&["--slots", "5", "--id", ID, "--name", "a"]);
    ground.submit_many(5, r#"{"type":"sleep","payload":{"ms":1000}}"#);
    until("it works", || ground.live("running") == 5);
    for args in [
        &["--slots", "6"][..],
        &["--pool", "models"],
        &["--label", "zone=b"],
        &["--lease", "7s"],
        &["--type", "noop"],
        &["--name", "b"],
    ] {
        let slots: &[&str] = if args[0] == "--slots" { &[] } else { &["--slots", "5"] };
        let name: &[&str] = if args[0] == "--name" { &[] } else { &["--name", "a"] };
        let all = [&["--id", ID], args, slots, name].concat();
        let config = "[task.shout]\npool = \"models\"\nexecutor = { process = [\"cat\"] }\n";
        let mut other = ground.spawn(config, &all);
        until("it is refused", || other.child.try_wait().unwrap().is_some());
        assert_eq!(other.code(), Some(2), "{args:?}: {}", other.said());
        assert!(other.said().contains("a worker of this id is known with another"), "{args:?}: {}", other.said());
    }
    ground.until_done();
    worker.end();
    let told = ground.end();
    told.all_succeeded(5);
    assert_eq!((told.count("started"), told.count("attempt_returned"), told.count("worker_joined")), (5, 0, 1), "{told:?}");
}

/// Where `faketime` has what shifts the clock of a process.
fn shifting_clocks() -> Option<String> {
    let script = "printf %s \"$LD_PRELOAD\"";
    let asked = Command::new("faketime").args(["-f", "+1d", "sh", "-c", script]).stderr(Stdio::null()).output().ok()?;
    let path = String::from_utf8(asked.stdout).ok().filter(|path| asked.status.success() && !path.is_empty());
    if path.is_none() {
        eprintln!("SKIPPED the clock that is wrong: faketime does not work here (Debian: faketime)");
    }
    path
}

fn seconds() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap()
}

#[test]
fn a_worker_whose_clock_is_wrong_by_a_day_changes_nothing() {
    let Some(library) = shifting_clocks() else { return };
    for (shift, days) in [("+1d", 1), ("-1d", -1)] {
        let types = "[task.when]\npool = \"default\"\ntimeout = \"30s\"\n[task.hang]\npool = \"default\"\ntimeout = \"1s\"\nretry.attempts = 1\n";
        let ground = Ground::new(&types.replace("\ntimeout", "\nexecutor = \"worker\"\ntimeout"));
        // Says what time it is, and how many seconds it has left.
        let when = r#"echo "[$(date +%s),$(($(date -d $ERGATE_DEADLINE +%s)-$(date +%s)))]""#;
        let when =
            format!("executor = {{ process = [\"sh\", \"-c\", '{when}'], env = [\"PATH\", \"LD_PRELOAD\", \"FAKETIME\"] }}");
        let config = types.replacen("timeout", &format!("{when}\ntimeout"), 1);
        let config = config.replace("\"1s\"", "\"1s\"\nexecutor = { process = [\"sleep\", \"600\"] }");
        // Not the clock that counts from the start of the machine, which nobody sets.
        let clock = [("LD_PRELOAD", library.as_str()), ("FAKETIME", shift), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let worker = ground.spawn_at(ground.address(), &clock, &config, &["--slots", "50"]).ready();
        let when = ground.submit(r#"{"type":"when"}"#);
        assert_eq!(ground.outcome(&when), "SUCCEEDED", "{}", ground.task(&when));
        let [wrong, left] = [0, 1].map(|index| ground.result(&when)[index].as_i64().unwrap());
        assert!((wrong - seconds() - days * 86_400).abs() < 600, "the clock is not wrong: {wrong}");
        assert!((1..=30).contains(&left), "what runs is told of another time: {left}");
        // Times that are told, limits, leases and signs of life are all as with a clock that is right.
        let hang = ground.submit(r#"{"type":"hang"}"#);
        let ms = LEASE.as_millis() * 3 / 2;
        ground.submit_many(20, &format!(r#"{{"type":"sleep","payload":{{"ms":{ms}}}}}"#));
        ground.submit_many(200, r#"{"type":"sleep","payload":{"ms":10}}"#);
        assert_eq!(ground.outcome(&hang), "FAILED", "{}", ground.task(&hang));
        assert_eq!(ground.task(&hang)["attempts"][0]["how"], "timed out: start_to_close", "{}", ground.task(&hang));
        ground.until_done();
        worker.end();
        let told = ground.end();
        assert_eq!((told.tasks, told.live, told.outcomes.get("SUCCEEDED")), (222, 0, Some(&221)), "{told:?}");
        let unwanted = ["lost", "left", "worker_missed", "attempt_returned"].map(|name| told.count(name));
        assert_eq!((unwanted, told.count("started")), ([0; 4], 222), "{told:?}");
    }
}
