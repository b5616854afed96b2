//! Sources of a program that embeds the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ergate::{Runtime, SourceSettings, TaskError};

use crate::command::until;
use crate::ground::append;

/// Threads of this process that follow sources.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "ergate-source").count()
}

#[tokio::test]
async fn a_builder_follows_a_file_until_its_runtime_ends_or_is_dropped() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("numbers.ndjson");
    let sum = Arc::new(AtomicU64::new(0));
    let start = || {
        let sum = Arc::clone(&sum);
        let add = move |number: u64| {
            sum.fetch_add(number, Ordering::Relaxed);
            async { Ok::<_, TaskError>(()) }
        };
        let settings = SourceSettings { poll: Duration::from_millis(10), ..SourceSettings::new(&path) };
        Runtime::builder().file(home.path().join("data")).task("add", add).source("numbers", settings).start()
    };
    let line = |number: u64| format!("{{\"type\":\"add\",\"payload\":{number}}}\n");
    let runtime = start().await.unwrap();
    append(&path, &[1, 2, 3].map(line).concat());
    until("the numbers are added", || sum.load(Ordering::Relaxed) == 6);
    runtime.shutdown().await.unwrap();
    assert_eq!(threads(), 0, "its thread has ended with it");
    let runtime = start().await.unwrap();
    append(&path, &line(4));
    until("the next one is, and no other", || sum.load(Ordering::Relaxed) == 10);
    drop(runtime);
    until("the thread ends without a shutdown", || threads() == 0);
}

#[tokio::test]
async fn what_cannot_be_a_source_is_refused_before_anything_is_opened() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let refused = async |builder: ergate::Builder| match builder.start().await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    };
    let settings = || SourceSettings::new("inbox");
    let in_memory = refused(Runtime::builder().memory().source("orders", settings())).await;
    assert!(in_memory.contains("\"orders\"") && in_memory.contains("a log in memory has no directory"), "{in_memory}");
    let named = refused(Runtime::builder().data(&data).source("a/b", settings())).await;
    assert!(named.contains("letters, digits"), "{named}");
    let none = refused(Runtime::builder().data(&data).source("orders", SourceSettings { files_max: 0, ..settings() })).await;
    assert!(none.contains("from 1 to 4096 files"), "{none}");
    let many = (0..65).fold(Runtime::builder().data(&data), |builder, n| builder.source(&format!("s{n}"), settings()));
    let many = refused(many).await;
    assert!(many.contains("at most 64 sources"), "{many}");
    assert!(!data.exists());
}
