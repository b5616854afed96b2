//! Devices: what there is, or in one line why there is none.

use crate::GpuError;

/// A device as it is, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its place among the devices that this process sees, from 0.
    pub ordinal: u32,
    /// Its name for good: `GPU-…`, or `MIG-…` for a part of one.
    pub uuid: String,
    /// What the driver calls it: `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// All of its memory in bytes.
    pub memory_bytes: u64,
    /// The newest CUDA that the driver knows: (13, 0).
    pub driver: (u32, u32),
    /// Compute capability: (9, 0).
    pub compute: (u32, u32),
    /// Whether it is a part of a device (MIG).
    pub mig: bool,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of the level-2 cache.
    pub l2_bytes: u64,
    /// Limits of a launch.
    pub limits: Limits,
}

/// What a launch must stay within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads in a block, all three dimensions multiplied.
    pub threads_per_block: u32,
    /// Threads in a block, by dimension.
    pub block: [u32; 3],
    /// Blocks in a grid, by dimension.
    pub grid: [u32; 3],
    /// Shared memory of a block in bytes, the most that a kernel may opt in to.
    pub shared_bytes: u32,
}

impl Limits {
    /// Those of every device of compute capability 5.0 to 12.0, with the shared memory that none goes below without asking.
    pub const COMMON: Self =
        Self { threads_per_block: 1024, block: [1024, 1024, 64], grid: [2_147_483_647, 65_535, 65_535], shared_bytes: 48 * 1024 };
}

/// The oldest driver that is used, by the CUDA it knows: kernels' parameters can be asked for since then, and are checked before a launch.
pub const DRIVER_MIN: (u32, u32) = (12, 4);

/// The devices that this process sees; `CUDA_VISIBLE_DEVICES` is respected, parts (MIG) are listed as devices.
///
/// # Errors
///
/// In one line why there is none.
#[cfg(feature = "cuda")]
pub fn list() -> Result<Vec<DeviceInfo>, GpuError> {
    crate::backend::driver::devices()
}

/// Says that there is none, for this was built without CUDA.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "cuda"))]
pub fn list() -> Result<Vec<DeviceInfo>, GpuError> {
    Err(GpuError::refused("no GPU: this was built without the feature `cuda`"))
}

/// Why there is no device: `code` is what the driver answered, or none if it is not there.
#[cfg_attr(not(any(feature = "cuda", test)), expect(dead_code, reason = "asked where there is a driver"))]
pub(crate) fn why_none(code: Option<u32>, visible: Option<&str>, refused: bool) -> GpuError {
    let why = match (code, visible) {
        (None, _) => {
            "no NVIDIA driver: libcuda.so.1 cannot be loaded; install the driver, or give the container the GPU".to_owned()
        }
        (Some(_), _) if refused => "/dev/nvidia* may not be opened by this user: add it to the group they belong to".to_owned(),
        (Some(100), Some(visible)) => {
            format!("CUDA_VISIBLE_DEVICES is \"{visible}\", which hides every device: unset or correct it")
        }
        (Some(100), None) => "the driver sees no device: look at `nvidia-smi`".to_owned(),
        (Some(code @ (802 | 803)), _) => {
            format!("the driver is not ready or does not fit its libraries (CUDA error {code}): restart the machine")
        }
        (Some(code), _) => format!("the driver does not start (CUDA error {code}): look at `nvidia-smi` and the kernel's log"),
    };
    GpuError::refused(format!("no GPU: {why}"))
}

/// The devices that `wanted` means: an ordinal, the beginning of a uuid, or a part of the name (`"H100"`).
///
/// # Errors
///
/// When it means none; the message names those there are.
pub fn choose<'a>(devices: &'a [DeviceInfo], wanted: &str) -> Result<Vec<&'a DeviceInfo>, GpuError> {
    let (wanted, lower) = (wanted.trim(), wanted.trim().to_lowercase());
    let fits = |device: &&DeviceInfo| {
        if let Ok(ordinal) = wanted.parse::<u32>() {
            device.ordinal == ordinal
        } else if lower.starts_with("gpu-") || lower.starts_with("mig-") {
            device.uuid.to_lowercase().starts_with(&lower)
        } else {
            !lower.is_empty() && device.name.to_lowercase().contains(&lower)
        }
    };
    let chosen: Vec<&DeviceInfo> = devices.iter().filter(fits).collect();
    if chosen.is_empty() {
        let there: Vec<String> = devices.iter().map(|d| format!("{} {} ({})", d.ordinal, d.name, d.uuid)).collect();
        let there = if there.is_empty() { "there is none".to_owned() } else { there.join(", ") };
        return Err(GpuError::refused(format!("no device is `{wanted}` (ordinal, uuid or part of the name): {there}")));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ordinal: u32, name: &str, uuid: &str) -> DeviceInfo {
        let (name, uuid, mig) = (name.to_owned(), uuid.to_owned(), uuid.starts_with("MIG"));
        let (driver, compute, limits) = ((13, 0), (9, 0), Limits::COMMON);
        DeviceInfo { ordinal, uuid, name, memory_bytes: 1, driver, compute, mig, multiprocessors: 1, l2_bytes: 0, limits }
    }

    #[test]
    fn devices_are_chosen_by_ordinal_uuid_or_kind() {
        let devices = [
            device(0, "NVIDIA H100 80GB HBM3", "GPU-aa11"),
            device(1, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG-bb22"),
            device(2, "NVIDIA H100 80GB HBM3", "GPU-aa33"),
        ];
        let chosen = |wanted| choose(&devices, wanted).map(|found| found.iter().map(|d| d.ordinal).collect::<Vec<_>>());
        for (wanted, ordinals) in [
            ("1", vec![1]),
            ("H100", vec![0, 2]),
            (" h100 ", vec![0, 2]),
            ("GPU-aa", vec![0, 2]),
            ("gpu-AA33", vec![2]),
            ("MIG-bb22", vec![1]),
            ("MIG", vec![1]),
        ] {
            assert_eq!(chosen(wanted), Ok(ordinals), "{wanted}");
        }
        for wanted in ["3", "H200", "", "GPU-bb"] {
            let error = chosen(wanted).unwrap_err().to_string();
            assert!(error.contains("0 NVIDIA H100 80GB HBM3 (GPU-aa11)"), "{error}");
        }
    }

    #[test]
    fn the_reason_why_there_is_none_is_one_line() {
        for (code, visible, refused, wanted) in [
            (None, None, false, "libcuda.so.1"),
            (Some(100), Some(""), false, "CUDA_VISIBLE_DEVICES is \"\""),
            (Some(100), None, false, "sees no device"),
            (Some(100), None, true, "may not be opened"),
            (Some(802), None, false, "not ready"),
            (Some(999), Some("0"), false, "CUDA error 999"),
        ] {
            let error = why_none(code, visible, refused).to_string();
            assert!(error.starts_with("no GPU: ") && error.contains(wanted) && !error.contains('\n'), "{error}");
        }
    }

    /// Runs on any machine: with a device it is listed, without one there is a reason, and never a panic.
    #[test]
    fn listing_answers_everywhere() {
        match list() {
            Ok(devices) => assert!(!devices.is_empty()),
            Err(why) => assert!(!why.to_string().contains('\n') && why.class() == crate::Class::Refused, "{why}"),
        }
    }
}
