//! What the devices of a machine do: utilization, memory, power and temperature, as NVIDIA's management library (NVML) tells them.
//!
//! NVML is loaded when somebody asks (feature `nvml`). It needs no CUDA, opens no context and takes no memory of a device, and it sees every device of the
//! machine; [`visible`] says which of them are this process's. A call may hang on a broken device, so [`Watch`] makes them on a thread of its own and
//! nobody waits longer for it than they say.

#[cfg(feature = "nvml")]
mod reader;
mod visible;
mod watch;

use std::ffi::OsString;

#[cfg(feature = "nvml")]
pub use reader::NvmlReader;
pub use visible::{Place, named, visible};
pub use watch::{AGE_MAX, RETRY_AFTER, Watch, watch};

/// Names the library, where it is not found or is not to be: `ERGATE_NVML=/opt/nvidia/lib/libnvidia-ml.so.1`.
pub const VARIABLE: &str = "ERGATE_NVML";
/// The library as every driver installs it; the name without a number is there only for compilers.
pub const LIBRARY: &str = "libnvidia-ml.so.1";
/// Devices that are read, at most: machines have up to 16, and a library that tells nonsense must end.
pub const DEVICES_MAX: u32 = 64;
/// Parts of a device that are read, at most: there are up to 7.
pub const PARTS_MAX: u32 = 16;

/// What was read of all devices, at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readings {
    /// The devices, in the order of NVML.
    pub devices: Vec<DeviceReading>,
    /// The devices and parts of which not even the uuid is told, each with the reason.
    pub unreadable: Vec<String>,
}

/// What was read of a device. A figure that the driver refuses is absent, and `refused` says why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceReading {
    /// Its number in NVML and `nvidia-smi`, from 0. CUDA may count in another order.
    pub index: u32,
    /// Its name for good, as CUDA has it: `GPU-…`.
    pub uuid: String,
    /// What the driver calls it: `NVIDIA H100 80GB HBM3`; empty where it does not say.
    pub name: String,
    /// Where it is on the PCI bus: `00000000:1B:00.0`.
    pub bus: Option<String>,
    /// In how much of the last sample period (1/6 s to 1 s) a kernel ran, in per cent. Not told of devices in parts.
    pub utilization_percent: Option<u32>,
    /// Memory that is allocated on it, in bytes, by whomever.
    pub memory_used_bytes: Option<u64>,
    /// All of its memory in bytes.
    pub memory_total_bytes: Option<u64>,
    /// What it draws, in mW; a mean of a second on newer devices.
    pub power_milliwatts: Option<u32>,
    /// How warm it is, in °C.
    pub temperature_celsius: Option<u32>,
    /// Whether it is divided into parts (MIG is on): then CUDA runs on a part and never on the whole.
    pub mig: bool,
    /// Its parts.
    pub parts: Vec<PartReading>,
    /// What is absent, by reason.
    pub refused: Vec<Refusal>,
}

/// What was read of a part of a device (a MIG device). Utilization, power and temperature of a part are told by nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartReading {
    /// Its number in its device, from 0.
    pub index: u32,
    /// Its name for good, as CUDA has it: `MIG-…`.
    pub uuid: String,
    /// What the driver calls it: `NVIDIA A100-SXM4-40GB MIG 1g.5gb`; empty where it does not say.
    pub name: String,
    /// Its share of the device: `1g.5gb`.
    pub profile: Option<String>,
    /// The ids of its GPU instance and its compute instance.
    pub instance: Option<(u32, u32)>,
    /// Memory that is allocated on it, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// All of its memory in bytes.
    pub memory_total_bytes: Option<u64>,
    /// What is absent, by reason.
    pub refused: Vec<Refusal>,
}

/// Figures that the driver refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is absent: `utilization`, `memory`, `power`, `temperature`, `name`.
    pub figures: Vec<&'static str>,
    /// Why.
    pub why: String,
}

/// The figures of what CUDA calls a device: a whole one, or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found<'a> {
    /// A device as a whole.
    Whole(&'a DeviceReading),
    /// A part, and the device that it is a part of.
    Part(&'a DeviceReading, &'a PartReading),
}

impl Readings {
    /// The device or part with this uuid.
    pub fn of(&self, uuid: &str) -> Option<Found<'_>> {
        self.devices.iter().find_map(|device| {
            let part = device.parts.iter().find(|part| part.uuid.eq_ignore_ascii_case(uuid));
            let whole = device.uuid.eq_ignore_ascii_case(uuid).then_some(Found::Whole(device));
            whole.or(part.map(|part| Found::Part(device, part)))
        })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no {}: {}", self.figures.join(", "), self.why)
    }
}

/// The library that is loaded: what [`VARIABLE`] names, or [`LIBRARY`].
pub fn library() -> OsString {
    std::env::var_os(VARIABLE).filter(|named| !named.is_empty()).unwrap_or_else(|| LIBRARY.into())
}

/// The share of its device that a part's name tells: `1g.5gb` of `NVIDIA A100-SXM4-40GB MIG 1g.5gb`.
#[cfg_attr(not(any(feature = "nvml", test)), expect(dead_code, reason = "names are read where there is NVML"))]
fn profile(name: &str) -> Option<String> {
    let (_, after) = name.split_once("MIG ")?;
    let word = after.split_whitespace().next()?;
    word.contains('g').then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_a_part_of_the_name() {
        for (name, wanted) in [
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", Some("1g.5gb")),
            ("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", Some("1c.3g.40gb")),
            ("NVIDIA A30 MIG 1g.6gb+me", Some("1g.6gb+me")),
            ("NVIDIA A100-SXM4-40GB", None),
            ("MIG ", None),
            ("", None),
        ] {
            assert_eq!(profile(name).as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn what_cuda_calls_a_device_is_found_by_its_uuid() {
        let part = PartReading { uuid: "MIG-b".to_owned(), ..PartReading::default() };
        let divided =
            DeviceReading { uuid: "GPU-b".to_owned(), mig: true, parts: vec![part.clone()], ..DeviceReading::default() };
        let whole = DeviceReading { uuid: "GPU-a".to_owned(), ..DeviceReading::default() };
        let readings = Readings { devices: vec![whole.clone(), divided.clone()], unreadable: Vec::new() };
        assert_eq!(readings.of("GPU-A"), Some(Found::Whole(&whole)));
        assert_eq!(readings.of("MIG-b"), Some(Found::Part(&divided, &part)));
        assert_eq!(readings.of("GPU-"), None);
    }
}
