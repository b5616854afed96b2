//! Cuts the power under a process: its data lies on a file system in an image; the process is stopped in the middle of its work, and a
//! copy of the image, which has what reached the "disk" and nothing that only the system had, is mounted and opened.
//!
//! Plain sled under the same cuts loses what it acknowledged, which shows that the cuts cut. Needs root and loop devices; without them the
//! tests say that they were skipped. `ERGATE_POWER_CUTS` sets the number of cuts for each engine.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::disk::{self, Disk};
use crate::ledger::Ledger;
use crate::process::{self, Chance, facts, recovered, tell};
use crate::{FILE, SLED};

/// Room for some seconds of work and for the ballast.
const IMAGE_MIB: u64 = 192;
/// How long a child may take to its first acknowledgement.
const START_MAX: Duration = Duration::from_secs(30);

/// After so long without a line nothing is on its way any more, whatever else the machine does.
const QUIET: Duration = Duration::from_millis(300);

/// A child at work, and what it tells.
struct Worker {
    child: std::process::Child,
    told: Receiver<String>,
}

impl Worker {
    fn start(role: &str, data: &Path, seed: u64) -> Worker {
        let mut command = process::child(role, data, &seed.to_string());
        let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("the child starts");
        let out = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let told = line.find('@').map(|at| line[at + 1..].to_owned());
                let _ = told.map(|line| sender.send(line));
            }
        });
        Worker { child, told }
    }

    /// Lets it work for so long from its first acknowledgement on, stops it, and gives what it told until then.
    fn stop_after(&self, life: Duration) -> Vec<String> {
        let started = Instant::now();
        let mut told = Vec::new();
        while started.elapsed() < START_MAX && !told.iter().any(|line: &String| line.starts_with("A ")) {
            told.extend(self.told.recv_timeout(Duration::from_millis(10)));
        }
        std::thread::sleep(life);
        self.signal("STOP");
        // What it wrote into the pipe before it stopped counts; what comes of it now is only on its way.
        while let Ok(line) = self.told.recv_timeout(QUIET) {
            told.push(line);
        }
        told
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        disk::command(std::process::Command::new("kill").args([format!("-{name}"), id])).expect("a child can be signalled");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn cuts_wanted() -> u32 {
    std::env::var("ERGATE_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn cuts(engine: &str) {
    let home = tempfile::tempdir().expect("a folder");
    if disk::is_missing(home.path()) {
        return;
    }
    let mut chance = Chance::seeded();
    eprintln!("power: {engine}, seed {}, {} cuts", chance.0, cuts_wanted());
    let (mut acknowledged, mut events) = (0, 0);
    for cut in 0..cuts_wanted() {
        let disk = Disk::new(home.path(), &format!("{cut}"), IMAGE_MIB).expect("it worked before");
        let worker = Worker::start("load", &disk.mount.join(engine), chance.next());
        let mut ledger = Ledger::default();
        worker.stop_after(Duration::from_millis(chance.below(1_200))).iter().for_each(|line| ledger.note(line));
        let left = disk.copy(home.path(), &format!("{cut}-left")).expect("it can be copied");
        drop(worker);
        let data = left.mount.join(engine);
        // The states that were shown are compared by the kills; here some of their positions may not be durable yet.
        let found = facts(&data, &std::collections::BTreeSet::new()).expect("the log is whole");
        ledger.check(&found);
        let (state, ..) = recovered(&data, &found).expect("the log recovers");
        assert_eq!(state.digest(), found.state.digest(), "snapshot and tail are not the fold from the beginning");
        let ran = process::run(process::child("finish", &data, ""), Duration::from_secs(90));
        assert_eq!(ran.code, Some(0), "the next run did not finish: {:?}\n{}", ran.told, ran.stderr);
        acknowledged += ledger.acknowledgements;
        events += found.events;
    }
    eprintln!("power: {engine}, {} cuts, {acknowledged} acknowledgements, {events} events, 0 lost", cuts_wanted());
    assert!(acknowledged > 0, "no child acknowledged anything, so nothing was proved");
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_on_files() {
    cuts(FILE);
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_on_sled() {
    cuts(SLED);
}

/// A child that keeps numbers in plain sled and tells each one after sled's own flush.
pub(crate) fn plain(dir: &Path) -> ! {
    let db = sled::Config::new().path(dir).flush_every_ms(None).open().expect("it opens");
    for number in 0_u64.. {
        db.insert(number.to_be_bytes(), &number.to_be_bytes()[..]).expect("it is taken");
        db.flush().expect("it says that it is durable");
        tell(&format!("A {number}"));
    }
    unreachable!("numbers do not end")
}

#[test]
fn plain_sled_loses_what_it_acknowledged_to_a_power_cut() {
    let home = tempfile::tempdir().expect("a folder");
    if disk::is_missing(home.path()) {
        return;
    }
    let (mut acknowledged, mut kept) = (0, 0);
    for cut in 0..3 {
        let disk = Disk::new(home.path(), &format!("{cut}"), IMAGE_MIB).expect("it worked before");
        let worker = Worker::start("plain", &disk.mount.join("plain"), cut);
        let told = worker.stop_after(Duration::from_millis(700));
        let left = disk.copy(home.path(), &format!("{cut}-left")).expect("it can be copied");
        drop(worker);
        let count = || sled::Config::new().path(left.mount.join("plain")).flush_every_ms(None).open().map(|db| db.len());
        acknowledged += told.len();
        kept += std::panic::catch_unwind(count).ok().and_then(Result::ok).unwrap_or(0).min(told.len());
    }
    eprintln!("power: plain sled acknowledged {acknowledged} numbers and kept {kept}");
    assert!(kept < acknowledged, "these cuts would prove nothing");
}
