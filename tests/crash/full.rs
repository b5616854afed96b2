//! Fills the disk under a process. What it acknowledged is kept, and the log opens although the disk is full: sled writes before it
//! opens, for which space is kept back.

use std::path::Path;
use std::time::Duration;

use crate::disk::{self, Disk};
use crate::ledger::Ledger;
use crate::process::{self, Chance, facts, tell};
use crate::{FILE, SLED, start};

const IMAGE_MIB: u64 = 32;
/// What is freed when the disk was full.
const RESERVE_MIB: u32 = 8;

/// A child that works until it is refused.
pub(crate) async fn fill(dir: &Path) {
    let ergate = start(dir).await;
    let mut chance = Chance(1);
    for turn in 0.. {
        // Digits by chance, so that lz4 finds nothing to shorten.
        let digits: String = (0..1_000).map(|_| format!("{:016x}", chance.next())).collect();
        let payload = format!("{turn}.{digits}");
        tell(&format!("S - {payload}"));
        match ergate.submit("quick", &payload).await {
            Ok(task) => tell(&format!("A {} - {payload}", task.id.ordinal.0)),
            Err(_) => break,
        }
    }
    tell("FINISHED");
}

fn fills(engine: &str) {
    let home = tempfile::tempdir().expect("a folder");
    if disk::is_missing(home.path()) {
        return;
    }
    let disk = Disk::new(home.path(), "full", IMAGE_MIB).expect("it worked before");
    let data = disk.mount.join(engine);
    let reserve = disk.mount.join("reserve");
    zeros(&reserve, Some(RESERVE_MIB));
    let mut ledger = Ledger::default();
    let ran = process::run(process::child("fill", &data, ""), Duration::from_secs(60));
    ran.told.iter().for_each(|line| ledger.note(line));
    assert!(ran.told.last().is_some_and(|line| line == "FINISHED"), "{}", ran.stderr);
    // What the child could not use goes too.
    zeros(&disk.mount.join("rest"), None);
    let found = facts(&data, &std::collections::BTreeSet::new()).expect("the log is whole and opens");
    ledger.check(&found);
    assert!(ledger.acknowledgements > 20, "the disk was full too soon to prove anything");
    std::fs::remove_file(reserve).expect("it can go");
    // ext4 has the space when its journal says so.
    disk::command(std::process::Command::new("sync").arg("-f").arg(&disk.mount)).expect("it can be synced");
    let ran = process::run(process::child("finish", &data, ""), Duration::from_secs(90));
    assert_eq!(ran.code, Some(0), "with space again it goes on: {:?}\n{}", ran.told, ran.stderr);
    eprintln!("full: {engine}, {} acknowledged before the disk was full, all kept", ledger.acknowledgements);
}

/// Writes a file of so many MiB, or until the disk is full.
fn zeros(path: &Path, mib: Option<u32>) {
    let mut dd = std::process::Command::new("dd");
    dd.args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", path.display()));
    let written = disk::command(dd.args(mib.map(|mib| format!("count={}", mib * 16))));
    assert_eq!(written.is_ok(), mib.is_some(), "{written:?}");
}

#[test]
fn a_full_disk_takes_nothing_that_was_acknowledged_on_files() {
    fills(FILE);
}

#[test]
fn a_full_disk_takes_nothing_that_was_acknowledged_on_sled() {
    fills(SLED);
}
