//! Retention gives up old segments once a snapshot leads over them, and nothing that still lives.

use std::time::Duration;

use ergate::events::audit::{Audit, Depth};
use ergate::events::block::Hash;
use ergate::events::id::{Position, TaskId};
use ergate::events::log::directory::Options;
use ergate::events::log::file::FileReader;
use ergate::events::log::{LogError, LogReader};
use ergate::events::time::Micros;
use ergate::{Builder, Extras, RequestBatch, Retention, Runtime, TaskError, WaitError};

async fn echo(text: String) -> Result<String, TaskError> {
    Ok(text)
}

fn builder(dir: &std::path::Path) -> Builder {
    Runtime::builder()
        .file(dir)
        .log_options(Options { segment_bytes: 64 << 10, prealloc_bytes: 16 << 10, low_water_bytes: 0, ..Options::default() })
        .snapshot_every_events(2_000)
        .retention(Retention { keep_events: Some(1_000), keep_for: None })
        .task("echo", echo)
}

async fn run(runtime: &Runtime, batches: u64) {
    let echo = runtime.task_type("echo").expect("it is registered");
    for batch in 0..batches {
        let mut requests = RequestBatch::new();
        (0..200).for_each(|index| requests.push(echo, format!("\"{batch}-{index}\"").as_bytes(), None));
        runtime.submit_batch(requests).await.expect("it is taken").wait().await.expect("it ends");
    }
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not happen within ten seconds");
}

#[tokio::test]
async fn old_segments_go_and_what_lives_stays_with_payload_and_key() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let dir = scratch.path().join("data");
    let runtime = builder(&dir).start().await.expect("a new log");
    let later = Extras {
        key: Some("once".to_owned()),
        not_before: Some(runtime.now().after(Micros::from_secs(3_600))),
        ..Extras::default()
    };
    let waiting = runtime.submit_with("echo", "kept", later.clone()).await.expect("it is taken").id;
    run(&runtime, 60).await;
    let reader = runtime.reader();
    wait_until("retention", || reader.span().first > Position(10_000)).await;
    let first = TaskId { ordinal: ergate::events::id::Ordinal(1), ..waiting };
    assert!(matches!(runtime.wait(first).await, Err(WaitError::NoSuchTask(_))), "the first task's end is given up");
    runtime.shutdown().await.expect("the log closes");

    let runtime = builder(&dir).start().await.expect("a log that begins with a snapshot");
    let state = runtime.state().await.expect("it runs");
    assert_eq!(state.work.tasks.payload(waiting.ordinal), Some(&b"\"kept\""[..]));
    let again = runtime.submit_with("echo", "kept", later).await.expect("a duplicate is answered");
    assert!(again.duplicate && again.id == waiting);
    run(&runtime, 5).await;
    runtime.shutdown().await.expect("the log closes");

    let reader = FileReader::open(&dir).expect("the log is whole");
    assert!(matches!(reader.cursor(Position(0)), Err(LogError::Gone { .. })));
}

#[tokio::test]
async fn what_is_left_verifies_from_its_base_snapshot_and_without_one_the_start_is_refused() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let dir = scratch.path().join("data");
    let runtime = builder(&dir).start().await.expect("a new log");
    run(&runtime, 60).await;
    let reader = runtime.reader();
    wait_until("retention", || reader.span().first > Position(10_000)).await;
    let state = runtime.state().await.expect("it runs");
    let live = (state.work.ended, state.next_ordinal());
    runtime.shutdown().await.expect("the log closes");

    let reader = FileReader::open(&dir).expect("the log is whole");
    let store = std::fs::read_dir(dir.join("snapshots")).expect("there are snapshots").count();
    assert_eq!(store, 2, "two snapshots are kept");
    let (state, from) = base(&dir, &reader);
    let mut audit = Audit::new(Depth::Decisions, state, Some(from));
    let mut cursor = reader.cursor(audit.state().position).expect("the log goes on there");
    while let Some(block) = cursor.next_block().expect("it can be read") {
        audit.follow(&block).expect("the rules give the same");
    }
    // Shutting down drains the replicas after the copy was taken; the work is the same.
    assert_eq!((audit.state().work.ended, audit.state().next_ordinal()), live);
    assert_eq!(live.0[0], 12_000);

    std::fs::remove_dir_all(dir.join("snapshots")).expect("they can be removed");
    let error = builder(&dir).start().await.err().expect("there is no base").to_string();
    assert!(error.contains("no usable snapshot"), "{error}");
}

/// The oldest snapshot that is kept, which is the base of what is left.
fn base(dir: &std::path::Path, reader: &FileReader) -> (ergate::events::state::State, Hash) {
    use ergate::events::log::snapshot::SnapshotStore;
    let id = ergate::events::log::file::FileLog::open(dir, Options::default()).expect("nobody else has it").1.store;
    let store = SnapshotStore::open(dir, id.0);
    let oldest = store.list().expect("the folder can be read").pop().expect("there is one");
    assert!(oldest.position >= reader.span().first);
    let snapshot = store.load(&oldest).expect("it is whole");
    (ergate::events::state::State::decode(&snapshot.body).expect("it is a state"), snapshot.head.hash)
}
