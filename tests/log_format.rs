//! Somebody else's verifier: `tests/format/verify.py`, written from docs/log-format.md alone, reads what the real binary wrote.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says what it skips")]

#[path = "support/command.rs"]
mod command;
#[path = "support/frozen.rs"]
mod frozen;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use command::run;

/// Runs the verifier; `None` without Python, which is said aloud.
fn stranger(data: &Path) -> Option<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/verify.py");
    match Command::new("python3").arg("-B").arg(script).arg(data).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: python3 cannot be run ({error}); install it to verify a log without our code");
            None
        }
    }
}

/// A log of a demo over so many files, in segments of 64 KiB.
fn demo_log(dir: &Path, files: u32) -> PathBuf {
    let (tree, data) = (dir.join("tree"), dir.join("data"));
    std::fs::create_dir(&tree).unwrap();
    (0..files).for_each(|file| std::fs::write(tree.join(format!("some-file-{file}")), format!("{file}")).unwrap());
    let config = dir.join("ergate.toml");
    std::fs::write(&config, "[log]\nsegment_size = \"64KiB\"\n").unwrap();
    let log = format!("file:{}", data.display());
    run(&["--quiet", "--config", config.to_str().unwrap(), "demo", "--dir", tree.to_str().unwrap(), "--log", &log]).expect(0);
    data
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn a_verifier_written_from_the_page_alone_reads_every_kind_of_event() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let blocks = frozen::blocks();
    frozen::write(&data, &blocks);
    let Some(read) = stranger(&data) else { return };
    let said = String::from_utf8_lossy(&read.stdout);
    assert!(said.ends_with(&format!("head hash {}\n", blocks.last().unwrap().hash)), "{read:?}");
}

#[test]
fn a_verifier_written_from_the_page_alone_agrees_and_refuses_a_flipped_byte() {
    let dir = tempfile::tempdir().unwrap();
    let data = demo_log(dir.path(), 1_500);
    let ours = run(&["-o", "json", "log", "verify", "--data", data.to_str().unwrap()]).expect(0).json();
    let Some(theirs) = stranger(&data) else { return };
    let said = String::from_utf8_lossy(&theirs.stdout);
    assert!(theirs.status.success(), "{theirs:?}");
    let expected = format!(
        "events {}\nblocks {}\nhead position {}\nhead hash {}\n",
        ours["events"],
        ours["blocks"],
        ours["head"],
        ours["head_hash"].as_str().unwrap()
    );
    assert_eq!(said, expected);
    let segments = segments(&data);
    assert!(segments.len() > 1, "one segment joins nothing");
    let bytes = std::fs::read(&segments[0]).unwrap();
    assert!(bytes.windows(4).enumerate().any(|(at, magic)| magic == b"ERGB" && bytes[at + 40] == 1), "no block has lz4");
    // In the first header, in the middle, and in the very last byte of the log.
    for (segment, at) in [(0, 20), (0, bytes.len() / 2), (segments.len() - 1, usize::MAX)] {
        let whole = std::fs::read(&segments[segment]).unwrap();
        let mut flipped = whole.clone();
        let at = at.min(whole.len() - 1);
        flipped[at] ^= 1;
        std::fs::write(&segments[segment], flipped).unwrap();
        let refused = stranger(&data).unwrap();
        assert!(!refused.status.success() && refused.stdout.is_empty(), "byte {at} of segment {segment}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("verify.py: "), "{refused:?}");
        std::fs::write(&segments[segment], whole).unwrap();
    }
    // A log that ends earlier, between two blocks, is a valid log; only the anchor tells.
    std::fs::remove_file(segments.last().unwrap()).unwrap();
    let refused = stranger(&data).unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("acknowledged"), "{refused:?}");
}
