//! The GPUs that this process sees, or why there are none.

use super::{Check, bytes};

/// What the driver puts there where a machine has a GPU, whether it can be used or not.
const CONTROL: &str = "/dev/nvidiactl";

/// A line for each device.
pub(super) fn checks() -> Vec<Check> {
    match ergate_gpu::device::list() {
        Ok(devices) => devices.iter().map(|device| Check::ok("gpu", told(device))).collect(),
        // Most machines have none, and are well.
        Err(error) if !std::path::Path::new(CONTROL).exists() => vec![Check::ok("gpu", error.to_string())],
        Err(error) => vec![Check::warn("gpu", error.to_string(), "tasks for GPUs run on the CPU or not at all until then")],
    }
}

fn told(device: &ergate_gpu::DeviceInfo) -> String {
    let ((cuda, cuda_minor), (compute, compute_minor)) = (device.driver, device.compute);
    format!(
        "{}: {}, {}, driver for CUDA {cuda}.{cuda_minor}, compute capability {compute}.{compute_minor}, {}",
        device.ordinal,
        device.name,
        bytes(device.memory_bytes),
        device.uuid
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_on_a_line() {
        let device = ergate_gpu::DeviceInfo {
            ordinal: 1,
            uuid: "GPU-0".to_owned(),
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_bytes: 85_045_411_840,
            driver: (13, 0),
            compute: (9, 0),
            mig: false,
            multiprocessors: 132,
            l2_bytes: 50 << 20,
            limits: ergate_gpu::Limits::COMMON,
        };
        let expected = "1: NVIDIA H100 80GB HBM3, 79.2 GiB, driver for CUDA 13.0, compute capability 9.0, GPU-0";
        assert_eq!(told(&device), expected);
    }
}
