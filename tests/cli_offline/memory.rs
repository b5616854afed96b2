//! Verbs that read a whole log hold a small part of it: a log many times larger than what they may use is no trouble to them.

use std::path::Path;
use std::process::{Command, Stdio};

use ergate::events::log::directory::Options;
use ergate::{RequestBatch, Runtime, TaskError};

use crate::support::{command, small_files, with_runtime};

/// What a verb may allocate, in KiB: blocks of a megabyte, a few times over and what the allocator keeps.
const DATA_KIB: u32 = 12 << 10;
const PAYLOAD_BYTES: usize = 100_000;
/// Twice as large as what may be allocated, with requests alone.
const TASKS: usize = 260;

async fn swallow(_: String) -> Result<(), TaskError> {
    Ok(())
}

/// A text of hexadecimal digits, which lz4 shortens by half at most.
fn payload(seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let digits = (0..PAYLOAD_BYTES).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b"0123456789abcdef"[state as usize % 16]
    });
    [b"\"", digits.collect::<Vec<u8>>().as_slice(), b"\""].concat()
}

fn large_log(dir: &Path) {
    let options = Options { segment_bytes: 4 << 20, prealloc_bytes: 1 << 20, ..small_files() };
    let builder = Runtime::builder().file(dir).log_options(options).pool("default", 1, 4).task("swallow", swallow);
    with_runtime(builder, async |runtime| {
        let task_type = runtime.task_type("swallow").unwrap();
        for first in (0..TASKS).step_by(20) {
            let mut batch = RequestBatch::new();
            (first..first + 20).for_each(|index| batch.push(task_type, &payload(index), None));
            runtime.submit_batch(batch).await.unwrap().wait().await.unwrap();
        }
    });
}

/// The command, with no more memory of its own than this.
fn bounded(dir: &Path, args: &[&str], data_kib: u32) -> Command {
    let ergate = command(dir, args);
    let mut bounded = Command::new("sh");
    bounded.arg("-c").arg(format!("ulimit -d {data_kib} && exec \"$@\"")).arg("sh").arg(ergate.get_program());
    bounded.args(ergate.get_args()).current_dir("/").stdin(Stdio::null());
    bounded
}

#[test]
fn a_log_larger_than_memory_is_verified_and_exported() {
    let holder = tempfile::tempdir().unwrap();
    let dir = holder.path().join("data");
    large_log(&dir);
    let starved = bounded(&dir, &["log", "verify"], 1_024).output().unwrap();
    assert!(!starved.status.success(), "the bound does not hold here: {starved:?}");
    for args in [&["log", "verify"][..], &["log", "verify", "--decisions"], &["replay"]] {
        let output = bounded(&dir, args, DATA_KIB).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    for format in ["ndjson", "cloudevents"] {
        let file = holder.path().join(format);
        let output =
            bounded(&dir, &["log", "export", "--format", format, "--to", file.to_str().unwrap()], DATA_KIB).output().unwrap();
        assert!(output.status.success(), "{format}: {output:?}");
        let written = file.metadata().unwrap().len();
        assert!(written > u64::from(DATA_KIB) * 2_000, "{written} bytes prove nothing");
    }
}
