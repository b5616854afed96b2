//! The library itself: every call returns an error where the symbol or the figure is missing, and none of them ends the process.

use std::ffi::OsStr;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{DEVICES_MAX, DeviceReading, PARTS_MAX, PartReading, Readings, Refusal, VARIABLE, library, profile};

/// NVML, loaded and begun.
#[derive(Debug)]
pub struct NvmlReader(Nvml);

impl NvmlReader {
    /// Loads the library that [`library`] names.
    ///
    /// # Errors
    ///
    /// In one line why there are no figures.
    pub fn open() -> Result<Self, String> {
        Self::open_at(&library())
    }

    /// Loads this library: a path, or a name that the loader finds.
    ///
    /// # Errors
    ///
    /// In one line why there are no figures.
    pub fn open_at(library: &OsStr) -> Result<Self, String> {
        let place = library.display();
        let nvml = Nvml::builder().lib_path(library).init().map_err(|error| {
            if let NvmlError::LibloadingError(error) = error {
                one_line(&format!(
                    "no NVML: {place} cannot be loaded ({error}): install the driver, or name the library with {VARIABLE}"
                ))
            } else {
                one_line(&format!("no NVML: {place} does not start ({}): look at `nvidia-smi`", reason(&error)))
            }
        })?;
        // Dropping it calls this one, and panics where it is missing.
        if nvml.lib().nvmlShutdown.is_err() {
            std::mem::forget(nvml);
            return Err(one_line(&format!("no NVML: {place} has no nvmlShutdown: name NVIDIA's own library with {VARIABLE}")));
        }
        Ok(Self(nvml))
    }

    /// Reads all devices of the machine. Takes milliseconds; on a broken device it may hang.
    ///
    /// # Errors
    ///
    /// In one line why nothing at all is told. What is told of some devices only, or in part, is no error.
    pub fn read(&self) -> Result<Readings, String> {
        let told = self.0.device_count();
        let count =
            told.map_err(|error| format!("NVML does not say what devices there are ({}): look at `nvidia-smi`", reason(&error)))?;
        let mut readings = Readings::default();
        for index in 0..count.min(DEVICES_MAX) {
            let found = self.0.device_by_index(index).and_then(|device| Ok((device.uuid()?, device)));
            match found {
                Ok((uuid, device)) => {
                    let told = self.device(index, uuid, &device, &mut readings.unreadable);
                    readings.devices.push(told);
                }
                Err(error) => readings.unreadable.push(format!("device {index}: {}", reason(&error))),
            }
        }
        Ok(readings)
    }

    fn device(&self, index: u32, uuid: String, device: &Device<'_>, unreadable: &mut Vec<String>) -> DeviceReading {
        let mut refused = Vec::new();
        let memory = told(&mut refused, "memory", device.memory_info());
        let mig = device.mig_mode().is_ok_and(|mode| mode.current == 1);
        DeviceReading {
            index,
            uuid,
            name: told(&mut refused, "name", device.name()).unwrap_or_default(),
            // Told where devices have an order, and nowhere else.
            bus: device.pci_info().ok().map(|pci| pci.bus_id),
            utilization_percent: told(&mut refused, "utilization", device.utilization_rates()).map(|rates| rates.gpu),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            power_milliwatts: told(&mut refused, "power", device.power_usage()),
            temperature_celsius: told(&mut refused, "temperature", device.temperature(TemperatureSensor::Gpu)),
            mig,
            parts: if mig { self.parts(index, device, unreadable) } else { Vec::new() },
            refused,
        }
    }

    /// The parts of a device. Places without a part are not told of.
    fn parts(&self, whole: u32, device: &Device<'_>, unreadable: &mut Vec<String>) -> Vec<PartReading> {
        let places = 0..device.mig_device_count().unwrap_or(0).min(PARTS_MAX);
        let mut parts = Vec::new();
        for index in places {
            let found = match device.mig_device_by_index(index) {
                Err(NvmlError::NotFound) => continue,
                found => found.and_then(|part| Ok((part.uuid()?, part))),
            };
            match found {
                Ok((uuid, part)) => parts.push(self.part(index, uuid, &part)),
                Err(error) => unreadable.push(format!("part {index} of device {whole}: {}", reason(&error))),
            }
        }
        parts
    }

    fn part(&self, index: u32, uuid: String, part: &Device<'_>) -> PartReading {
        let mut refused = Vec::new();
        let name = told(&mut refused, "name", part.name()).unwrap_or_default();
        let memory = told(&mut refused, "memory", part.memory_info());
        PartReading {
            index,
            uuid,
            profile: profile(&name),
            name,
            instance: self.instance(part),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used),
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            refused,
        }
    }

    /// The ids of a part's GPU instance and compute instance, which the crate does not ask for.
    fn instance(&self, part: &Device<'_>) -> Option<(u32, u32)> {
        let library = self.0.lib();
        let gpu_id = library.nvmlDeviceGetGpuInstanceId.as_ref().ok()?;
        let compute_id = library.nvmlDeviceGetComputeInstanceId.as_ref().ok()?;
        let (mut gpu, mut compute) = (0, 0);
        // SAFETY: the handle is of this library, which is loaded as long as `self` lives, and each place is valid for writing one number.
        let codes = unsafe { [gpu_id(part.handle(), &raw mut gpu), compute_id(part.handle(), &raw mut compute)] };
        (codes == [0, 0]).then_some((gpu, compute))
    }
}

/// What was told, or nothing and the reason among the others.
fn told<T>(refused: &mut Vec<Refusal>, figure: &'static str, answer: Result<T, NvmlError>) -> Option<T> {
    let why = match answer {
        Ok(value) => return Some(value),
        Err(error) => reason(&error),
    };
    match refused.iter_mut().find(|refusal| refusal.why == why) {
        Some(refusal) => refusal.figures.push(figure),
        None => refused.push(Refusal { figures: vec![figure], why }),
    }
    None
}

/// Why, in one line; the same for all calls that a library does not have.
fn reason(error: &NvmlError) -> String {
    if let NvmlError::FailedToLoadSymbol(_) = error {
        "the library lacks the call".to_owned()
    } else {
        one_line(&error.to_string())
    }
}

/// A loader's reasons may have several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
