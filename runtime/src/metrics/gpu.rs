//! What the GPUs of this machine do, as NVML tells it; nothing where there is none.

use std::sync::Arc;
use std::time::Duration;

use ergate_gpu::nvml::{self, DeviceReading, Readings};

use super::family::{Family, Form, number};
use super::table;

/// How long a scrape waits for figures of GPUs. They take milliseconds, but for the first: beginning wakes devices that sleep, and the next scrape has them.
const READ_WITHIN: Duration = Duration::from_millis(250);

/// The figures, at most a second old; none where there is no NVML or it does not answer in time. Whoever must not wait asks elsewhere before.
pub(crate) fn read() -> Option<Arc<Readings>> {
    nvml::watch().readings(READ_WITHIN).ok()
}

/// The families of the devices that this process is shown.
pub(super) fn families(form: Form) -> Vec<Family> {
    let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (value, order) = (variable("CUDA_VISIBLE_DEVICES"), variable("CUDA_DEVICE_ORDER"));
    read().map_or_else(Vec::new, |readings| shown(&readings, value.as_deref(), order.as_deref(), form))
}

/// The families of the devices that these values of `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` name; of all where only CUDA can say which.
fn shown(readings: &Readings, value: Option<&str>, order: Option<&str>, form: Form) -> Vec<Family> {
    let devices = &readings.devices;
    let named = nvml::named(devices, value, order).or_else(|_| nvml::named(devices, None, None)).unwrap_or_default();
    let [mut utilization, mut used, mut total, mut power, mut temperature] =
        [&table::GPU_UTILIZATION, &table::GPU_MEMORY_USED, &table::GPU_MEMORY_TOTAL, &table::GPU_POWER, &table::GPU_TEMPERATURE]
            .map(|metric| Family::new(metric, form));
    for (at, device) in devices.iter().enumerate() {
        let parts: Vec<Option<usize>> = named.iter().filter(|place| place.device == at).map(|place| place.part).collect();
        if parts.is_empty() {
            continue;
        }
        let index = device.index.to_string();
        let labels = [index.as_str(), &device.uuid, &device.name];
        add(&mut utilization, &labels, device.utilization_percent.map(|percent| f64::from(percent) / 100.0));
        add(&mut power, &labels, device.power_milliwatts.map(|power| f64::from(power) / 1000.0));
        add(&mut temperature, &labels, device.temperature_celsius.map(f64::from));
        for (uuid, name, memory_used, memory_total) in memories(device, &parts) {
            add(&mut used, &[&index, uuid, name], memory_used.map(number));
            add(&mut total, &[&index, uuid, name], memory_total.map(number));
        }
    }
    vec![utilization, used, total, power, temperature]
}

type Memory<'a> = (&'a str, &'a str, Option<u64>, Option<u64>);

/// The memory of a device, or of its parts where it is divided: each byte once, so that sums are right.
fn memories<'a>(device: &'a DeviceReading, named: &[Option<usize>]) -> Vec<Memory<'a>> {
    if !device.mig {
        return vec![(&device.uuid, &device.name, device.memory_used_bytes, device.memory_total_bytes)];
    }
    let is_named = |at: &usize| named.contains(&None) || named.contains(&Some(*at));
    let parts = device.parts.iter().enumerate().filter(|(at, _)| is_named(at));
    parts.map(|(_, part)| (part.uuid.as_str(), part.name.as_str(), part.memory_used_bytes, part.memory_total_bytes)).collect()
}

fn add(family: &mut Family, labels: &[&str], value: Option<f64>) {
    value.into_iter().for_each(|value| family.add(labels, value));
}

#[cfg(test)]
mod tests {
    use ergate_gpu::nvml::PartReading;

    use super::*;

    fn part(uuid: &str, used: u64) -> PartReading {
        let (name, used) = ("A100 MIG 1g.5gb".to_owned(), Some(used));
        PartReading {
            uuid: uuid.to_owned(),
            name,
            memory_used_bytes: used,
            memory_total_bytes: Some(100),
            ..PartReading::default()
        }
    }

    /// One that is whole, one in two parts, one that tells nothing.
    fn readings() -> Readings {
        let device = |index, uuid: &str, name: &str| DeviceReading {
            index,
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            ..DeviceReading::default()
        };
        let whole = DeviceReading {
            utilization_percent: Some(37),
            memory_used_bytes: Some(5),
            memory_total_bytes: Some(80 << 30),
            power_milliwatts: Some(123_456),
            temperature_celsius: Some(41),
            ..device(0, "GPU-a", "H100")
        };
        // What it tells as a whole is in its parts already.
        let (parts, memory_used_bytes) = (vec![part("MIG-b1", 7), part("MIG-b2", 8)], Some(1000));
        let divided =
            DeviceReading { mig: true, parts, memory_used_bytes, temperature_celsius: Some(55), ..device(1, "GPU-b", "A100") };
        Readings { devices: vec![whole, divided, device(2, "GPU-c", "T4")], unreadable: Vec::new() }
    }

    fn lines(value: Option<&str>) -> Vec<String> {
        let mut text = String::new();
        shown(&readings(), value, None, Form::Text).into_iter().for_each(|family| family.write(&mut text));
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.replace("ergate_gpu_", "")).collect()
    }

    const WHOLE: [&str; 5] = [
        "utilization_ratio{gpu=\"0\",uuid=\"GPU-a\",name=\"H100\"} 0.37",
        "memory_used_bytes{gpu=\"0\",uuid=\"GPU-a\",name=\"H100\"} 5",
        "memory_total_bytes{gpu=\"0\",uuid=\"GPU-a\",name=\"H100\"} 85899345920",
        "power_watts{gpu=\"0\",uuid=\"GPU-a\",name=\"H100\"} 123.456",
        "temperature_celsius{gpu=\"0\",uuid=\"GPU-a\",name=\"H100\"} 41",
    ];
    const FIRST: [&str; 2] = [
        "memory_used_bytes{gpu=\"1\",uuid=\"MIG-b1\",name=\"A100 MIG 1g.5gb\"} 7",
        "memory_total_bytes{gpu=\"1\",uuid=\"MIG-b1\",name=\"A100 MIG 1g.5gb\"} 100",
    ];
    const SECOND: [&str; 2] = [
        "memory_used_bytes{gpu=\"1\",uuid=\"MIG-b2\",name=\"A100 MIG 1g.5gb\"} 8",
        "memory_total_bytes{gpu=\"1\",uuid=\"MIG-b2\",name=\"A100 MIG 1g.5gb\"} 100",
    ];
    const BOARD: [&str; 1] = ["temperature_celsius{gpu=\"1\",uuid=\"GPU-b\",name=\"A100\"} 55"];

    #[test]
    fn what_is_named_is_shown_and_each_byte_once() {
        for (value, wanted) in [
            (None, vec![&WHOLE[..], &FIRST, &SECOND, &BOARD]),
            // They are not alike, and nobody but CUDA knows which is its first.
            (Some("0"), vec![&WHOLE[..], &FIRST, &SECOND, &BOARD]),
            (Some("GPU-a"), vec![&WHOLE[..]]),
            (Some("GPU-b"), vec![&FIRST[..], &SECOND, &BOARD]),
            (Some("MIG-b2"), vec![&SECOND[..], &BOARD]),
            (Some("GPU-c"), vec![]),
            (Some(""), vec![]),
            (Some("-1"), vec![]),
        ] {
            let mut wanted: Vec<&str> = wanted.concat();
            let mut lines = lines(value);
            wanted.sort_unstable();
            lines.sort_unstable();
            assert_eq!(lines, wanted, "{value:?}");
        }
    }
}
