//! What is read of a library that stands in for NVML: every figure, every refusal, and nothing worse than an error whatever the library does.
#![cfg(feature = "nvml")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and says aloud what did not run")]

#[path = "standin/mod.rs"]
mod standin;

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use ergate_gpu::nvml::{DEVICES_MAX, Found, NvmlReader, Readings, Refusal, Watch, visible};

/// What is read with this wrong; none where nothing could be compiled.
fn read(wrong: &[&str]) -> Option<Result<Readings, String>> {
    let folder = tempfile::tempdir().unwrap();
    let library = standin::nvml(folder.path(), wrong)?;
    Some(NvmlReader::open_at(library.as_os_str()).and_then(|reader| reader.read()))
}

fn refusal(figures: &[&'static str], why: &str) -> Refusal {
    Refusal { figures: figures.to_vec(), why: why.to_owned() }
}

#[test]
fn every_figure_is_read_and_every_refusal_has_its_reason_once() {
    let Some(readings) = read(&[]) else { return };
    let readings = readings.unwrap();
    assert!(readings.unreadable.is_empty(), "{readings:#?}");
    let [whole, divided] = &readings.devices[..] else { panic!("{readings:#?}") };

    assert_eq!((whole.index, whole.uuid.as_str()), (0, "GPU-0a0a0a0a-1111-2222-3333-444444444444"));
    assert_eq!((whole.name.as_str(), whole.bus.as_deref()), ("NVIDIA H100 80GB HBM3", Some("00000000:1B:00.0")));
    assert_eq!((whole.utilization_percent, whole.temperature_celsius), (Some(37), Some(41)));
    assert_eq!((whole.memory_used_bytes, whole.memory_total_bytes), (Some(1_610_612_736), Some(85_899_345_920)));
    assert_eq!((whole.power_milliwatts, whole.mig), (Some(123_456), false));
    assert!(whole.parts.is_empty() && whole.refused.is_empty(), "{whole:#?}");

    assert_eq!((divided.index, divided.mig, divided.temperature_celsius), (1, true, Some(55)));
    assert_eq!((divided.utilization_percent, divided.power_milliwatts, divided.memory_used_bytes), (None, None, None));
    let refused = [
        refusal(&["memory"], "the current user does not have permission to perform this operation"),
        refusal(&["utilization", "power"], "the requested operation is not available on the target device"),
    ];
    assert_eq!(divided.refused, refused);
    assert_eq!(refused[1].to_string(), "no utilization, power: the requested operation is not available on the target device");

    let [part] = &divided.parts[..] else { panic!("{divided:#?}") };
    assert_eq!((part.index, part.profile.as_deref(), part.instance), (2, Some("1g.5gb"), Some((9, 0))));
    assert_eq!((part.memory_used_bytes, part.memory_total_bytes), (Some(13_631_488), Some(5_100_273_664)));
    assert_eq!(readings.of("MIG-0c0c0c0c-1111-2222-3333-444444444444"), Some(Found::Part(divided, part)));
    assert!(part.refused.is_empty(), "{part:#?}");

    // A process that names nothing is shown the part alone.
    let shown = visible(&readings.devices, None, None).unwrap();
    assert_eq!(shown.iter().map(|place| (place.device, place.part)).collect::<Vec<_>>(), [(1, Some(0))]);
    assert_eq!(visible(&readings.devices, Some("MIG-GPU-0b0b/9/0"), None), Ok(shown));
}

#[test]
fn a_device_that_may_not_be_opened_hides_no_other() {
    let Some(readings) = read(&["LOCKED"]) else { return };
    let readings = readings.unwrap();
    assert_eq!(readings.devices.len(), 2);
    assert_eq!(readings.unreadable, ["device 2: the current user does not have permission to perform this operation"]);
}

#[test]
fn a_library_without_the_calls_still_names_its_devices() {
    let Some(readings) = read(&["LACKS"]) else { return };
    let readings = readings.unwrap();
    assert_eq!(readings.devices.len(), 2);
    for device in &readings.devices {
        let all = ["memory", "name", "utilization", "power", "temperature"];
        assert_eq!(device.refused, [refusal(&all, "the library lacks the call")]);
        assert!(device.uuid.starts_with("GPU-") && !device.mig, "{device:#?}");
    }
}

#[test]
fn a_library_that_does_not_work_is_a_reason_in_one_line() {
    for (wrong, wanted) in [
        ("LACKS_INIT", "does not start (the library lacks the call)"),
        ("LACKS_SHUTDOWN", "has no nvmlShutdown"),
        ("FAILS_INIT", "does not start (NVIDIA driver is not loaded)"),
        ("FAILS_COUNT", "NVML does not say what devices there are (device fell off the bus"),
    ] {
        let Some(readings) = read(&[wrong]) else { return };
        let why = readings.unwrap_err();
        assert!(why.contains(wanted) && !why.contains('\n'), "{wrong}: {why}");
    }
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no library").unwrap();
    for library in [folder.path().as_os_str(), text.as_os_str(), folder.path().join("none").as_os_str(), OsStr::new("with\0nul")]
    {
        let why = NvmlReader::open_at(library).unwrap_err();
        assert!(why.starts_with("no NVML: ") && why.contains("ERGATE_NVML") && !why.contains('\n'), "{why}");
    }
}

#[test]
fn nonsense_is_told_as_it_is_and_ends() {
    let Some(readings) = read(&["NONSENSE"]) else { return };
    let readings = readings.unwrap();
    assert_eq!(readings.devices.len() + readings.unreadable.len(), DEVICES_MAX as usize);
    let whole = &readings.devices[0];
    assert_eq!((whole.name.as_str(), whole.utilization_percent, whole.memory_total_bytes), ("", Some(4_000_000_000), Some(0)));
    assert_eq!(whole.refused, [refusal(&["name"], "could not interpret string as utf-8")]);
}

#[test]
fn it_is_loaded_read_and_ended_as_often_as_one_likes() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = standin::nvml(folder.path(), &["COUNTS"]) else { return };
    for _ in 0..3 {
        let reader = NvmlReader::open_at(library.as_os_str()).unwrap();
        for count in 1..=3 {
            // It counts from the beginning, for it was unloaded.
            assert_eq!(reader.read().unwrap().devices[0].temperature_celsius, Some(count));
        }
    }
}

#[test]
fn a_library_that_hangs_holds_only_the_thread_of_the_watch() {
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = standin::nvml(folder.path(), &["HANGS"]) else { return };
    let watch = Watch::new(move || NvmlReader::open_at(library.as_os_str())?.read());
    let (wait, begun) = (Duration::from_millis(200), Instant::now());
    for _ in 0..50 {
        assert!(watch.readings(wait).unwrap_err().contains("has not answered within 200 ms"));
    }
    assert!(begun.elapsed() < 10 * wait, "{:?}", begun.elapsed());
}
