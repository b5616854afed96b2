//! The executor `process`: real scripts, their ends, and that nothing of them is left behind.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/process.rs"]
mod process;
#[path = "support/tasks.rs"]
mod tasks;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ergate::events::event::{Cause, Timeout};
use ergate::events::time::Micros;
use ergate::executor::process::{PayloadBy, ProcessFactory, ProcessSettings};
use ergate::{Outcome, Runtime, StartError, TaskEnd, Timeouts, TypeSettings};
use process::block_on;
use tasks::{LIMIT, TRACE, attempts, end, end_traced, lives, script, start, until};

/// One script as the task type `script`.
fn factory(settings: TypeSettings, program: PathBuf) -> ProcessFactory {
    ProcessFactory { settings, process: ProcessSettings::new("script", program) }
}

/// The end of one task whose script this is.
fn once(text: &str, payload: impl serde::Serialize) -> TaskEnd {
    of(text, payload, attempts(1), |_, _| {})
}

fn of(
    text: &str,
    payload: impl serde::Serialize,
    settings: TypeSettings,
    with: impl FnOnce(&mut ProcessSettings, &Path),
) -> TaskEnd {
    let dir = tempfile::tempdir().unwrap();
    let mut factory = factory(settings, script(dir.path(), "task.sh", text));
    with(&mut factory.process, dir.path());
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        let end = end(&ergate, "script", payload).await;
        ergate.shutdown().await.unwrap();
        end
    })
}

fn failure(end: &TaskEnd) -> (&str, &str) {
    let failure = end.failure.as_ref().unwrap_or_else(|| panic!("it succeeded with {:?}", String::from_utf8_lossy(&end.result)));
    (&failure.class, &failure.message)
}

fn text(end: &TaskEnd) -> String {
    assert_eq!(end.outcome, Outcome::Succeeded, "{:?}", end.failure);
    String::from_utf8(end.result.to_vec()).unwrap()
}

#[test]
fn the_payload_goes_in_and_the_result_comes_out() {
    assert_eq!(text(&once("cat; echo noise >&2", "häl'lo $(id)")), "\"häl'lo $(id)\"");
    // A payload as large as they may be, to a script that reads nothing of it, and back from one that does.
    let large = "x".repeat((1 << 20) - 2);
    assert_eq!(text(&once("echo done", &large)), "done\n");
    assert_eq!(text(&once("cat", &large)).len(), 1 << 20);
    let by_file = |settings: &mut ProcessSettings, _: &Path| settings.payload = PayloadBy::File;
    let end =
        of("cat; cat \"$ERGATE_PAYLOAD_FILE\"; stat -c ' %a' \"$(dirname \"$ERGATE_PAYLOAD_FILE\")\"", 7, attempts(1), by_file);
    assert_eq!(text(&end), "7 700\n");
}

#[test]
fn arguments_are_words_and_no_shell_reads_them() {
    let with = |settings: &mut ProcessSettings, _: &Path| {
        settings.arguments = ["a b", "$HOME", "; touch /tmp/never", "*"].map(Into::into).to_vec();
    };
    assert_eq!(text(&of("printf '[%s]' \"$@\"", (), attempts(1), with)), "[a b][$HOME][; touch /tmp/never][*]");
    let with = |settings: &mut ProcessSettings, dir: &Path| settings.directory = Some(dir.to_owned());
    assert!(text(&of("ls", (), attempts(1), with)).contains("task.sh"));
}

#[test]
fn exit_codes_decide_whether_it_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let tries = |code: &str, attempts_max: u32| {
        let log = dir.path().join(code);
        let end =
            of(&format!("echo x >> {}; echo reason >&2; exit {code}", log.display()), (), attempts(attempts_max), |_, _| {});
        let (class, message) = failure(&end);
        assert_eq!(class, format!("exit-{code}"));
        assert_eq!(message, format!("the command ended with exit code {code}; stderr: reason"));
        std::fs::read_to_string(log).unwrap().lines().count()
    };
    assert_eq!(tries("1", 3), 3);
    assert_eq!(tries("75", 2), 2);
    assert_eq!(tries("64", 3), 1);
    assert_eq!(tries("127", 3), 1);
    let end = once("kill -9 $$", ());
    assert_eq!(failure(&end).0, "signal");
    assert!(failure(&end).1.contains("signal 9 (KILL)"), "{}", failure(&end).1);
}

#[test]
fn a_flood_on_stderr_and_too_much_on_stdout_are_bounded() {
    let end = once("echo first >&2; head -c 5000000 /dev/zero | tr '\\0' x >&2; echo last >&2; exit 3", ());
    let (_, message) = failure(&end);
    assert!(message.len() <= 4_096 && message.contains("first") && message.ends_with("last"), "{message}");
    let end = once("echo why >&2; yes", ());
    assert_eq!(failure(&end).0, "result");
    assert!(failure(&end).1.contains("more than 1048576 bytes") && failure(&end).1.contains("why"), "{}", failure(&end).1);
}

#[test]
fn nothing_of_the_environment_comes_through_unasked() {
    let with = |settings: &mut ProcessSettings, _: &Path| {
        settings.env_set = vec![("MODE".to_owned(), "fast".to_owned()), ("ERGATE_TASK".to_owned(), "forged".to_owned())];
    };
    let end = of("env | sort", (), attempts(1), with);
    // The environment of this test has CARGO_MANIFEST_DIR and much more.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let text = text(&end);
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let ours =
        ["ERGATE_ATTEMPT", "ERGATE_DEADLINE", "ERGATE_FENCE", "ERGATE_REPORT", "ERGATE_TASK", "ERGATE_TYPE", "MODE", "PATH"];
    // The shell itself sets PWD, and some SHLVL, OLDPWD and _.
    let found: Vec<&str> = names.into_iter().filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name)).collect();
    assert_eq!(found, ours);
    assert!(
        text.contains("ERGATE_TASK=0-0\n") && text.contains("ERGATE_ATTEMPT=1\n") && text.contains("ERGATE_FENCE=1.1\n"),
        "{text}"
    );
    assert!(text.contains("ERGATE_TYPE=script\n") && text.contains("ERGATE_DEADLINE=20"), "{text}");
}

#[test]
fn the_trace_of_the_request_goes_with_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let factory = factory(attempts(1), script(dir.path(), "task.sh", "printf %s \"${TRACEPARENT-none}\""));
    let (untraced, traced) = block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        let ends = (end(&ergate, "script", ()).await, end_traced(&ergate, "script", ()).await);
        ergate.shutdown().await.unwrap();
        ends
    });
    assert_eq!((text(&untraced), text(&traced)), ("none".to_owned(), TRACE.to_owned()));
}

/// A script that ignores TERM and has a child that does so too; both tell their numbers.
fn stubborn(dir: &Path) -> PathBuf {
    let text = format!(
        "trap '' TERM\nsh -c 'trap \"\" TERM; echo $$ > {0}/child; while :; do sleep 0.1; done' &\necho $$ > {0}/leader.new; mv {0}/leader.new {0}/leader\n\
         while :; do sleep 0.1; done",
        dir.display()
    );
    script(dir, "stubborn.sh", &text)
}

fn pids(dir: &Path) -> Vec<String> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default().trim().to_owned();
    until("the script and its child run", || !read("leader").is_empty() && !read("child").is_empty());
    vec![read("leader"), read("child")]
}

#[test]
fn a_cancelled_command_that_ignores_term_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let mut factory = factory(TypeSettings { cancel_grace: Micros::from_secs(30), ..attempts(1) }, stubborn(dir.path()));
    factory.process.kill_after = Duration::from_millis(300);
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        let task = ergate.submit("script", &()).await.unwrap();
        let pids = pids(dir.path());
        let asked = Instant::now();
        ergate.cancel(task.id, "test", "enough").await.unwrap();
        let end = task.end().await.unwrap();
        assert_eq!(end.outcome, Outcome::Cancelled);
        assert!(asked.elapsed() >= Duration::from_millis(300), "it was not given its time");
        assert!(pids.iter().all(|pid| !lives(pid)), "{pids:?}");
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn a_command_that_hears_term_may_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let text =
        format!("trap 'echo clean > {0}/clean; exit 1' TERM\ntouch {0}/up\nwhile :; do sleep 0.05; done", dir.path().display());
    let factory = factory(attempts(1), script(dir.path(), "task.sh", &text));
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        let task = ergate.submit("script", &()).await.unwrap();
        until("it runs", || dir.path().join("up").exists());
        ergate.cancel(task.id, "test", "enough").await.unwrap();
        assert_eq!(task.end().await.unwrap().outcome, Outcome::Cancelled);
        assert!(dir.path().join("clean").exists());
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn a_command_over_its_time_is_ended_with_its_group_and_its_slot_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let timeouts = Timeouts { start_to_close: Micros::from_millis(700), ..Timeouts::default() };
    let mut factory = factory(TypeSettings { timeouts, ..attempts(1) }, stubborn(dir.path()));
    factory.process.kill_after = Duration::from_millis(200);
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory).pool("default", 1, 1)).await;
        let task = ergate.submit("script", &()).await.unwrap();
        let pids = pids(dir.path());
        let failure = task.end().await.unwrap().failure.unwrap();
        assert!(matches!(failure.cause, Cause::TimedOut(Timeout::StartToClose) | Cause::AttemptsExhausted), "{failure:?}");
        until("the group is gone", || pids.iter().all(|pid| !lives(pid)));
        // With one slot another attempt runs only when the first one has given it back.
        std::fs::remove_file(dir.path().join("leader")).unwrap();
        let again = ergate.submit("script", &()).await.unwrap();
        tasks::until("the slot came back", || dir.path().join("leader").exists());
        ergate.kill(again.id, "test", "enough").await.unwrap();
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn what_a_command_left_running_ends_with_it_and_so_does_everything_at_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let end = once(&format!("sleep 1000 & echo $! > {}/left; echo done", dir.path().display()), ());
    assert_eq!(text(&end), "done\n");
    assert!(!lives(&std::fs::read_to_string(dir.path().join("left")).unwrap()));
    let mut factory = factory(attempts(1), stubborn(dir.path()));
    factory.process.kill_after = Duration::from_millis(100);
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        ergate.submit("script", &()).await.unwrap();
        let pids = pids(dir.path());
        ergate.shutdown_within(Duration::from_millis(100)).await.unwrap();
        until("the group is gone", || pids.iter().all(|pid| !lives(pid)));
    });
}

#[test]
fn words_on_the_pipe_keep_it_alive_and_hand_a_checkpoint_on() {
    let dir = tempfile::tempdir().unwrap();
    let text_of = "if [ -n \"$ERGATE_CHECKPOINT_FILE\" ]; then cat \"$ERGATE_CHECKPOINT_FILE\"; exit 0; fi\n\
        for i in 1 2 3 4 5 6 7 8; do echo '{\"heartbeat\":true}' > \"$ERGATE_REPORT\"; sleep 0.15; done\n\
        echo nonsense > \"$ERGATE_REPORT\"\n\
        echo '{\"percent\":50,\"stage\":\"resize\"}' > \"$ERGATE_REPORT\"\n\
        echo '{\"checkpoint\":\"page 7\"}' > \"$ERGATE_REPORT\"\nexit 1";
    let timeouts = Timeouts { heartbeat: Some(Micros::from_millis(800)), ..Timeouts::default() };
    let end = of(text_of, (), TypeSettings { timeouts, ..attempts(2) }, |_, _| {});
    assert_eq!(text(&end), "page 7");
    // Without a second attempt the failure says that a line was no word.
    let end = of(text_of, (), TypeSettings { timeouts, ..attempts(1) }, |_, _| {});
    assert!(failure(&end).1.contains("line 9 of the report was passed over"), "{}", failure(&end).1);
    // Whoever is silent is given up.
    let silent = of(
        &format!("echo $$ > {}/pid; sleep 1000", dir.path().display()),
        (),
        TypeSettings { timeouts, ..attempts(1) },
        |_, _| {},
    );
    assert_eq!(silent.outcome, Outcome::Failed);
    assert!(!lives(&std::fs::read_to_string(dir.path().join("pid")).unwrap()));
}

#[test]
fn no_more_run_at_one_time_than_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let text_of = format!("d={}/run; mkdir -p $d; touch $d/$$; ls $d | wc -l; sleep 0.05; rm $d/$$", dir.path().display());
    let mut factory = factory(attempts(1), script(dir.path(), "task.sh", &text_of));
    factory.process.concurrency = 2;
    block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory)).await;
        let mut tasks = Vec::new();
        for _ in 0..12 {
            tasks.push(ergate.submit("script", &()).await.unwrap());
        }
        let mut most = 0;
        for task in tasks {
            most = most.max(text(&task.end().await.unwrap()).trim().parse::<u32>().unwrap());
        }
        assert_eq!(most, 2);
        ergate.shutdown().await.unwrap();
    });
}

#[test]
fn what_cannot_run_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |factory: ProcessFactory| {
        let started = block_on(LIMIT, async { Runtime::builder().memory().executor(factory).start().await.err() });
        let Some(StartError::Executor { task_type, source }) = started else { panic!("{started:?}") };
        assert_eq!(task_type, "script");
        source.to_string()
    };
    assert!(refused(factory(attempts(1), dir.path().join("gone.sh"))).contains("gone.sh"));
    std::fs::write(dir.path().join("plain"), "").unwrap();
    assert!(refused(factory(attempts(1), dir.path().join("plain"))).contains("not executable"));
    assert!(refused(factory(attempts(1), "ergate-no-such-program".into())).contains("in no directory of PATH"));
    // A script whose interpreter is missing is found by its first attempt, and by no other.
    std::fs::write(script(dir.path(), "odd.sh", ""), "#!/no/such/interpreter\n").unwrap();
    let end = block_on(LIMIT, async {
        let ergate = start(|builder| builder.executor(factory(attempts(3), dir.path().join("odd.sh")))).await;
        end(&ergate, "script", ()).await
    });
    assert_eq!(failure(&end).0, "spawn");
}

#[test]
fn one_name_has_one_definition() {
    let twice = |first: bool| {
        let builder = Runtime::builder().memory().executor(factory(attempts(1), "/bin/true".into()));
        let builder =
            if first { builder.executor(factory(attempts(1), "/bin/false".into())) } else { builder.task("script", nothing) };
        block_on(LIMIT, builder.start()).err()
    };
    for error in [twice(true), twice(false)] {
        assert!(matches!(&error, Some(StartError::TypeTwice { name }) if name == "script"), "{error:?}");
    }
}

async fn nothing(_: ()) -> Result<(), ergate::TaskError> {
    Ok(())
}

/// `cargo test --release --features kafka-ssl --test process_executor -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "a measurement is printed")]
fn commands_a_second() {
    const TASKS: u32 = 2_000;
    let floor = |threads: u32| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    (0..TASKS / threads)
                        .for_each(|_| assert!(std::process::Command::new("/bin/true").status().unwrap().success()))
                });
            }
        });
        f64::from(TASKS) / started.elapsed().as_secs_f64()
    };
    let runtime = |replicas: u32| {
        let mut factory = factory(attempts(1), "/bin/true".into());
        factory.process.env_allow.clear();
        block_on(LIMIT, async {
            let ergate = start(|builder| builder.executor(factory).pool("default", replicas, 16)).await;
            let mut tasks = Vec::new();
            let started = Instant::now();
            for _ in 0..TASKS {
                tasks.push(ergate.submit("script", &()).await.unwrap());
            }
            for task in tasks {
                assert_eq!(task.end().await.unwrap().outcome, Outcome::Succeeded);
            }
            let rate = f64::from(TASKS) / started.elapsed().as_secs_f64();
            ergate.shutdown().await.unwrap();
            rate
        })
    };
    println!("/bin/true: floor, 1 thread {:.0}/s, 2 threads {:.0}/s", floor(1), floor(2));
    println!("/bin/true: tasks, 1 replica {:.0}/s, 2 replicas {:.0}/s", runtime(1), runtime(2));
}
