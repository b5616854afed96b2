//! What a process and its descendants use, as it is measured: alone in its process, for whatever else runs there counts.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::time::Duration;

use ergate_actors::usage::{MEASURE_EVERY, Meter, Own};
use ergate_events::time::{Micros, Timestamp};

/// A busy loop. It ends when somebody ends it.
fn busy() -> Child {
    Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap()
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn wait(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Cores that are used over the next so many milliseconds.
fn cores(meter: &mut Meter, millis: u64, apart: &BTreeSet<u32>) -> f64 {
    meter.measure(apart);
    wait(millis);
    meter.measure(apart).unwrap().cpu_cores.unwrap()
}

#[test]
fn descendants_count_while_they_run_and_those_that_tell_by_themselves_neither_then_nor_later() {
    let (mut meter, none) = (Meter::default(), BTreeSet::new());
    assert!(cores(&mut meter, 500, &none) < 0.2, "nothing runs");
    let child = busy();
    let used = cores(&mut meter, 1_000, &none);
    assert!(used > 0.2, "a busy loop used {used} cores; the machine is overloaded, or it was not counted");
    assert!(meter.measure(&none).unwrap().memory_bytes.unwrap() > 1 << 20);
    end(child);
    // What it had used has become this process's, and was counted before.
    let used = cores(&mut meter, 500, &none);
    assert!(used < 0.2, "{used}");

    let worker = busy();
    let workers = BTreeSet::from([worker.id()]);
    let mut meter = Meter::default();
    assert!(cores(&mut meter, 1_000, &workers) < 0.2, "it tells by itself");
    end(worker);
    wait(500);
    // It had used a second of the processor; what is left of that is what it used after the last look.
    let used = meter.measure(&none).unwrap().cpu_cores.unwrap();
    assert!(used < 0.5, "{used}");

    let own = Own::default();
    let first = own.read(Timestamp(5_000_000)).unwrap();
    let again = own.read(Timestamp(5_000_000)).unwrap();
    assert_eq!((first.memory_bytes, first.over), (again.memory_bytes, again.over), "it is measured at most once a second");
    std::thread::sleep(MEASURE_EVERY);
    assert!(own.read(Timestamp(6_000_000)).unwrap().over >= Micros::from_millis(900));
}
