//! The GPUs that this process sees and what they do, or why there are none.

use std::path::Path;
use std::time::Duration;

use ergate_gpu::DeviceInfo;
use ergate_gpu::nvml::{self, DeviceReading, Found, PartReading, Readings, Refusal};

use super::{Check, bytes};

/// What the driver puts there where a machine has a GPU, whether it can be used or not.
const CONTROL: &str = "/dev/nvidiactl";
/// How long NVML may take: beginning wakes devices that sleep, which takes seconds; a broken one is waited for no longer.
const NVML_WITHIN: Duration = Duration::from_secs(5);

/// A line for each device, and one for what keeps figures from being told.
pub(super) fn checks() -> Vec<Check> {
    let devices = ergate_gpu::device::list().map_err(|error| error.to_string());
    let readings = nvml::watch().readings(NVML_WITHIN);
    let has_driver = Path::new(CONTROL).exists();
    // Most machines have neither, and one line about that is enough.
    let is_expected = has_driver || devices.is_ok() || std::env::var_os(nvml::VARIABLE).is_some();
    let (readings, missing) = match &readings {
        Ok(readings) => (readings.as_ref(), None),
        Err(why) => (&Readings::default(), Some(why).filter(|_| is_expected)),
    };
    let mut checks = match &devices {
        Ok(devices) => devices.iter().map(|device| Check::ok("gpu", told(device, readings))).collect(),
        Err(error) if has_driver => vec![Check::warn("gpu", error, "tasks for GPUs run on the CPU or not at all until then")],
        Err(error) => vec![Check::ok("gpu", error)],
    };
    if devices.is_err() {
        checks.extend(readings.devices.iter().flat_map(of_nvml).map(|told| Check::ok("gpu", told)));
    }
    let unreadable = readings.unreadable.iter().map(|told| format!("NVML does not tell of {told}"));
    let missing = missing.cloned().into_iter().chain(unreadable);
    checks.extend(missing.map(|why| Check::warn("gpu", why, "figures of GPUs are missing here and in /metrics")));
    checks
}

/// A device as CUDA has it, with what NVML says that it does.
fn told(device: &DeviceInfo, readings: &Readings) -> String {
    let ((cuda, cuda_minor), (compute, compute_minor)) = (device.driver, device.compute);
    let figures = match readings.of(&device.uuid) {
        Some(Found::Whole(reading)) => of_whole(reading),
        Some(Found::Part(whole, part)) => of_part(whole, part),
        None => String::new(),
    };
    format!(
        "{}: {}, {}, driver for CUDA {cuda}.{cuda_minor}, compute capability {compute}.{compute_minor}, {}{figures}",
        device.ordinal,
        device.name,
        bytes(device.memory_bytes),
        device.uuid
    )
}

/// Lines for a device that only NVML tells of, and for its parts.
fn of_nvml(device: &DeviceReading) -> Vec<String> {
    let whole = format!("NVML has {}: {}, {}{}", device.index, device.name, device.uuid, of_whole(device));
    let parts = device.parts.iter().map(|part| {
        let profile = part.profile.as_deref().unwrap_or("of unknown size");
        format!("NVML has part {} of {}: {profile}, {}{}", part.index, device.index, part.uuid, of_part(device, part))
    });
    std::iter::once(whole).chain(parts).collect()
}

fn of_whole(device: &DeviceReading) -> String {
    let divided = match device.parts.len() {
        _ if !device.mig => None,
        1 => Some("in 1 part (MIG)".to_owned()),
        count => Some(format!("in {count} parts (MIG)")),
    };
    let busy = device.utilization_percent.map(|percent| format!("{percent} % busy"));
    let figures = [divided, busy, memory(device.memory_used_bytes, device.memory_total_bytes)];
    sentence(figures.into_iter().flatten().chain(board(device)), &device.refused)
}

fn of_part(whole: &DeviceReading, part: &PartReading) -> String {
    let board: Vec<String> = board(whole).collect();
    let board = if board.is_empty() { None } else { Some(format!("all parts together {}", board.join(", "))) };
    sentence(memory(part.memory_used_bytes, part.memory_total_bytes).into_iter().chain(board), &part.refused)
}

/// What is told of a device only as a whole.
fn board(device: &DeviceReading) -> impl Iterator<Item = String> {
    let power = device.power_milliwatts.map(|power| format!("{:.0} W", f64::from(power) / 1000.0));
    power.into_iter().chain(device.temperature_celsius.map(|degrees| format!("{degrees} °C")))
}

fn memory(used: Option<u64>, total: Option<u64>) -> Option<String> {
    used.zip(total).map(|(used, total)| format!("{} of {} used", bytes(used), bytes(total)))
}

/// What follows a device's name: nothing where nothing is told.
fn sentence(figures: impl Iterator<Item = String>, refused: &[Refusal]) -> String {
    let all: Vec<String> = figures.chain(refused.iter().map(|refusal| format!("({refusal})"))).collect();
    if all.is_empty() { String::new() } else { format!("; {}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(uuid: &str) -> DeviceInfo {
        DeviceInfo {
            ordinal: 1,
            uuid: uuid.to_owned(),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_bytes: 85_045_411_840,
            driver: (13, 0),
            compute: (9, 0),
            mig: false,
            multiprocessors: 132,
            l2_bytes: 50 << 20,
            limits: ergate_gpu::Limits::COMMON,
        }
    }

    /// One that is whole, and one in parts that refuses most.
    fn readings() -> Readings {
        let whole = DeviceReading {
            uuid: "GPU-0".to_owned(),
            utilization_percent: Some(37),
            memory_used_bytes: Some(3 << 29),
            memory_total_bytes: Some(80 << 30),
            power_milliwatts: Some(123_456),
            temperature_celsius: Some(41),
            ..DeviceReading::default()
        };
        let part = PartReading {
            uuid: "MIG-0".to_owned(),
            memory_used_bytes: Some(13 << 20),
            memory_total_bytes: Some(4 << 30),
            ..PartReading::default()
        };
        let refused = vec![Refusal { figures: vec!["utilization", "power"], why: "not available".to_owned() }];
        let divided =
            DeviceReading { uuid: "GPU-1".to_owned(), temperature_celsius: Some(55), mig: true, ..DeviceReading::default() };
        Readings { devices: vec![whole, DeviceReading { refused, parts: vec![part], ..divided }], unreadable: Vec::new() }
    }

    #[test]
    fn a_device_is_told_on_a_line() {
        const HEAD: &str = "1: NVIDIA H100 80GB HBM3, 79.2 GiB, driver for CUDA 13.0, compute capability 9.0";
        for (uuid, figures) in [
            ("GPU-0", "; 37 % busy, 1.5 GiB of 80.0 GiB used, 123 W, 41 °C"),
            ("GPU-1", "; in 1 part (MIG), 55 °C, (no utilization, power: not available)"),
            ("MIG-0", "; 13.0 MiB of 4.0 GiB used, all parts together 55 °C"),
            ("GPU-2", ""),
        ] {
            assert_eq!(told(&device(uuid), &readings()), format!("{HEAD}, {uuid}{figures}"));
        }
    }
}
