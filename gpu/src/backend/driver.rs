//! The CUDA driver as it is loaded: whether it is there, its devices, and what its codes mean.

use std::ffi::c_int;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use crate::device::{DRIVER_MIN, why_none};
use crate::{DeviceInfo, GpuError, Limits, Sticky};

/// Loads the driver and begins to use it, once in a process.
///
/// # Errors
///
/// In one line why there is no device.
pub(crate) fn start() -> Result<(u32, u32), GpuError> {
    static STARTED: OnceLock<Result<(u32, u32), GpuError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // SAFETY: loads libcuda and unloads it again, which does nothing else.
            if !unsafe { sys::is_culib_present() } {
                return Err(why_none(None, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), nodes_refused()));
            }
            let mut version: c_int = 0;
            // SAFETY: the library is there, every driver has this call, and it may be made before any other.
            check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&raw mut version) })?;
            let version = u32::try_from(version).unwrap_or(0);
            let version = (version / 1000, version % 1000 / 10);
            if version < DRIVER_MIN {
                return Err(GpuError::refused(format!(
                    "the NVIDIA driver knows CUDA {}.{}, and at least {}.{} is needed: install a newer driver",
                    version.0, version.1, DRIVER_MIN.0, DRIVER_MIN.1
                )));
            }
            // SAFETY: as above.
            let started = unsafe { sys::cuInit(0) } as u32;
            if started != 0 {
                return Err(why_none(Some(started), std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), nodes_refused()));
            }
            Ok(version)
        })
        .clone()
}

/// Whether a device of the driver is there that this user may not open.
fn nodes_refused() -> bool {
    let open = |path| std::fs::File::options().read(true).write(true).open(path);
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0"]
        .into_iter()
        .any(|path| open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied))
}

/// The devices that this process sees, in CUDA's order.
pub(crate) fn devices() -> Result<Vec<DeviceInfo>, GpuError> {
    let driver = start()?;
    let mut count: c_int = 0;
    // SAFETY: the driver is started.
    check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&raw mut count) })?;
    let devices: Result<Vec<DeviceInfo>, GpuError> = (0..count).map(|ordinal| device(ordinal, driver)).collect();
    match devices {
        Ok(devices) if devices.is_empty() => {
            Err(why_none(Some(100), std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), false))
        }
        devices => devices,
    }
}

fn device(ordinal: c_int, driver: (u32, u32)) -> Result<DeviceInfo, GpuError> {
    let (mut handle, mut name, mut uuid, mut bytes) = (0, [0u8; 256], sys::CUuuid { bytes: [0; 16] }, 0usize);
    // SAFETY: the driver is started, the ordinal is below the count, and every place is valid for writing as much as is told.
    unsafe {
        check("cuDeviceGet", sys::cuDeviceGet(&raw mut handle, ordinal))?;
        check("cuDeviceGetName", sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int - 1, handle))?;
        check("cuDeviceGetUuid", sys::cuDeviceGetUuid_v2(&raw mut uuid, handle))?;
        check("cuDeviceTotalMem", sys::cuDeviceTotalMem_v2(&raw mut bytes, handle))?;
    }
    let attribute = |attribute: Attribute| {
        let mut value: c_int = 0;
        // SAFETY: as above.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, handle) })?;
        Ok::<u32, GpuError>(u32::try_from(value).unwrap_or(0))
    };
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(0);
    let name = String::from_utf8_lossy(&name[..end]).into_owned();
    // A part of a device is named after its profile: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
    let mig = name.contains(" MIG ");
    let digits: String = uuid.bytes.iter().map(|byte| format!("{:02x}", byte.cast_unsigned())).collect();
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
    Ok(DeviceInfo {
        ordinal: ordinal.cast_unsigned(),
        uuid: format!("{}-{parts}", if mig { "MIG" } else { "GPU" }),
        name,
        memory_bytes: bytes as u64,
        driver,
        compute: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        mig,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        limits: Limits {
            threads_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            block: [
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z)?,
            ],
            grid: [
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
                attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
            ],
            shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        },
    })
}

/// What a code of the driver means: nothing wrong, this failed, or the context is dead.
pub(crate) fn check(during: &str, result: CUresult) -> Result<(), GpuError> {
    let code = result as u32;
    match (code, sticky(code)) {
        (0, _) => Ok(()),
        (_, Some(sticky)) => Err(GpuError::Sticky { sticky, during: format!("{during} (CUDA error {code}, {result:?})") }),
        // Whoever asked for memory replaces the numbers.
        (2, None) => Err(GpuError::OutOfMemory { what: during.to_owned(), asked: 0, free: 0, limit: 0 }),
        (_, None) => Err(GpuError::failed(format!("{during}: CUDA error {code}, {result:?}"))),
    }
}

/// Which codes kill a context, after the driver's documentation ("must be terminated and relaunched").
pub(crate) fn sticky(code: u32) -> Option<Sticky> {
    Some(match code {
        700 => Sticky::IllegalAddress,
        710 => Sticky::Assert,
        // Launch timeout, stack, instruction, alignment, address space, program counter, launch failed.
        702 | 714..=719 => Sticky::LaunchFailed,
        // Device unavailable, ECC, NVLink, contained fault, context destroyed, external device, unknown.
        46 | 214 | 220 | 226 | 709 | 911 | 999 => Sticky::Hardware,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        assert_eq!(check("x", CUresult::CUDA_SUCCESS), Ok(()));
        let class = |result| check("x", result).unwrap_err().class();
        assert_eq!(class(CUresult::CUDA_ERROR_OUT_OF_MEMORY), crate::Class::OutOfMemory);
        assert_eq!(class(CUresult::CUDA_ERROR_INVALID_VALUE), crate::Class::Failed);
        assert_eq!(class(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES), crate::Class::Failed);
        for dead in [
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_ASSERT,
            CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
            CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
            CUresult::CUDA_ERROR_INVALID_PC,
            CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
            CUresult::CUDA_ERROR_UNKNOWN,
        ] {
            assert_eq!(class(dead), crate::Class::Sticky, "{dead:?}");
        }
    }
}
