//! What `ergate doctor` and `/metrics` tell of GPUs, with a library that stands in for NVML, and that neither waits for one that hangs.
#![cfg(all(target_os = "linux", feature = "gpu"))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "a test may panic, says aloud what did not run, and uses a part of its helpers"
)]

#[path = "support/command.rs"]
mod command;
#[path = "http/service.rs"]
mod service;
#[path = "../gpu/tests/standin/mod.rs"]
mod standin;

use std::path::Path;
use std::time::{Duration, Instant};

use command::{Ended, ergate};
use service::Service;

/// How old a figure may be (`ergate_gpu::nvml::AGE_MAX`).
const AGE_MAX: Duration = Duration::from_secs(1);
/// How long a scrape waits for figures of GPUs (`runtime/src/metrics/gpu.rs`).
const READ_WITHIN: Duration = Duration::from_millis(250);

/// `ergate doctor` with this library; it finds no data directory, which is its own matter.
fn doctor(home: &Path, library: &Path) -> Ended {
    let data = home.join("data");
    let mut command = ergate(&["doctor", "--data", data.to_str().unwrap()]);
    Ended::of(&command.env("ERGATE_NVML", library).output().unwrap())
}

/// An engine with this library.
fn engine(home: &Path, library: &Path, variables: &[(&str, &str)]) -> Service {
    let variables = [&[("ERGATE_NVML", library.to_str().unwrap())], variables].concat();
    Service::start_with(home, &[], &variables)
}

/// The lines about GPUs of a scrape.
fn scrape(service: &Service) -> Vec<String> {
    let text = service.get("/metrics").expect(200).text();
    assert!(text.contains("ergate_build_info"), "{text}");
    text.lines().filter(|line| line.starts_with("ergate_gpu_")).map(str::to_owned).collect()
}

#[test]
fn doctor_shows_what_devices_do_and_what_they_refuse() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = standin::nvml(home.path(), &["LOCKED"]) else { return };
    let told = doctor(home.path(), &library);
    for wanted in [
        "NVML has 0: NVIDIA H100 80GB HBM3, GPU-0a0a0a0a-1111-2222-3333-444444444444; 37 % busy, 1.5 GiB of 80.0 GiB used, 123 W, 41 °C",
        "NVML has 1: NVIDIA A100-SXM4-40GB, GPU-0b0b0b0b-1111-2222-3333-444444444444; in 1 part (MIG), 55 °C",
        "(no utilization, power: the requested operation is not available on the target device)",
        "NVML has part 2 of 1: 1g.5gb, MIG-0c0c0c0c-1111-2222-3333-444444444444; 13.0 MiB of 4.8 GiB used, all parts together 55 °C",
        "NVML does not tell of device 2: the current user does not have permission to perform this operation",
    ] {
        assert!(told.out.contains(wanted), "{wanted}\n{told:#?}");
    }
}

#[test]
fn doctor_says_why_there_are_no_figures_and_waits_for_none_that_hang() {
    let home = tempfile::tempdir().unwrap();
    for (wrong, wanted) in [
        ("HANGS", "NVML has not answered within 5000 ms"),
        ("FAILS_INIT", "does not start (NVIDIA driver is not loaded)"),
        ("FAILS_COUNT", "NVML does not say what devices there are"),
        ("LACKS_INIT", "does not start"),
        ("LACKS_SHUTDOWN", "has no nvmlShutdown"),
    ] {
        let Some(library) = standin::nvml(home.path(), &[wrong]) else { return };
        let begun = Instant::now();
        let told = doctor(home.path(), &library);
        assert!(begun.elapsed() < Duration::from_secs(30), "{wrong}: {:?}", begun.elapsed());
        assert!(told.out.contains(wanted) && told.out.contains("figures of GPUs are missing"), "{wrong}: {told:#?}");
        assert!(!told.err.contains("panicked"), "{wrong}: {told:#?}");
    }
    let told = doctor(home.path(), &home.path().join("nothing"));
    assert!(told.out.contains("nothing cannot be loaded"), "{told:#?}");
}

#[test]
fn metrics_have_what_devices_do() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = standin::nvml(home.path(), &["COUNTS"]) else { return };
    let service = engine(home.path(), &library, &[]);
    let begun = Instant::now();
    let (first, second) = (scrape(&service), scrape(&service));
    assert!(first == second || begun.elapsed() >= AGE_MAX, "{first:#?} {second:#?}");
    let [whole, divided, part] = [
        "{gpu=\"0\",uuid=\"GPU-0a0a0a0a-1111-2222-3333-444444444444\",name=\"NVIDIA H100 80GB HBM3\"}",
        "{gpu=\"1\",uuid=\"GPU-0b0b0b0b-1111-2222-3333-444444444444\",name=\"NVIDIA A100-SXM4-40GB\"}",
        "{gpu=\"1\",uuid=\"MIG-0c0c0c0c-1111-2222-3333-444444444444\",name=\"NVIDIA A100-SXM4-40GB MIG 1g.5gb\"}",
    ];
    let wanted = |read: u32| {
        vec![
            format!("ergate_gpu_utilization_ratio{whole} 0.37"),
            format!("ergate_gpu_memory_used_bytes{whole} 1610612736"),
            format!("ergate_gpu_memory_used_bytes{part} 13631488"),
            format!("ergate_gpu_memory_total_bytes{whole} 85899345920"),
            format!("ergate_gpu_memory_total_bytes{part} 5100273664"),
            format!("ergate_gpu_power_watts{whole} 123.456"),
            format!("ergate_gpu_temperature_celsius{whole} {read}"),
            format!("ergate_gpu_temperature_celsius{divided} {read}"),
        ]
    };
    assert_eq!(first, wanted(1));
    // However often it is scraped, devices are asked once a second.
    let begun = Instant::now();
    let mut last = first;
    while begun.elapsed() < 2 * AGE_MAX {
        last = scrape(&service);
    }
    let most = 2 + u32::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((2..=most).any(|read| last == wanted(read)), "{last:#?}");
}

#[test]
fn metrics_have_the_devices_that_are_named_for_cuda() {
    for (value, wanted) in [("GPU-0a", 5), ("MIG-0c0c", 3), ("-1", 0), ("GPU-0a,GPU-ff,GPU-0b", 5)] {
        let home = tempfile::tempdir().unwrap();
        let Some(library) = standin::nvml(home.path(), &[]) else { return };
        let lines = scrape(&engine(home.path(), &library, &[("CUDA_VISIBLE_DEVICES", value)]));
        assert_eq!(lines.len(), wanted, "{value}: {lines:#?}");
    }
}

#[test]
fn a_driver_that_hangs_holds_up_one_scrape_for_a_moment() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = standin::nvml(home.path(), &["HANGS"]) else { return };
    let service = engine(home.path(), &library, &[]);
    const SCRAPES: u32 = 20;
    let begun = Instant::now();
    assert_eq!(scrape(&service), [""; 0]);
    assert!((READ_WITHIN..SCRAPES * READ_WITHIN).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    let begun = Instant::now();
    for _ in 0..SCRAPES {
        assert_eq!(scrape(&service), [""; 0]);
    }
    assert!(begun.elapsed() < SCRAPES * READ_WITHIN / 2, "{:?}", begun.elapsed());
    // Nor does it keep the engine from ending.
    service.signal("TERM");
    assert_eq!(service.end(), Some(0));
}

#[test]
fn without_nvml_there_are_no_metrics_of_gpus() {
    let home = tempfile::tempdir().unwrap();
    let library = home.path().join("nothing");
    let service = engine(home.path(), &library, &[]);
    let text = service.get("/metrics").expect(200).text();
    assert!(!text.contains("ergate_gpu_"), "{text}");
}
