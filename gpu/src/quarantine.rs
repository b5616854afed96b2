//! Which kernels and devices are not used any more, after errors that killed a context: pure, told by whoever saw them.
//!
//! A context dies with its process, so the counts live with the caller: each [`Sticky`] error is one entry of its record, and a new process
//! is given the record again.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Digest, GpuError, Sticky};

/// One error that killed a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// Whose doing it is.
    pub culprit: Culprit,
    /// The device's uuid.
    pub device: String,
    /// What happened.
    pub sticky: Sticky,
}

/// Whose doing a death is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Culprit {
    /// A kernel.
    Kernel(Digest),
    /// The device or its driver: no kernel ran.
    Device,
    /// One of several kernels; each is run alone next, so that it is known the next time.
    Unknown,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the context of device {} died: {}", self.device, self.sticky)?;
        match self.culprit {
            Culprit::Kernel(digest) => write!(f, " of kernel {digest}"),
            Culprit::Device => Ok(()),
            Culprit::Unknown => write!(f, " of one of several kernels"),
        }
    }
}

/// Counts of deaths, with a limit each.
#[derive(Debug, Clone)]
pub struct Quarantine {
    digest_max: u32,
    device_max: u32,
    digests: BTreeMap<Digest, u32>,
    devices: BTreeMap<String, u32>,
}

impl Quarantine {
    /// A kernel is out after `digest_max` deaths, a device after `device_max`; both at least 1.
    pub fn new(digest_max: u32, device_max: u32) -> Self {
        Self { digest_max: digest_max.max(1), device_max: device_max.max(1), digests: BTreeMap::new(), devices: BTreeMap::new() }
    }

    /// With everything that happened before.
    pub fn restore<'a>(mut self, record: impl IntoIterator<Item = &'a Death>) -> Self {
        record.into_iter().for_each(|death| self.record(death));
        self
    }

    /// Counts a death: for the kernel if it is the only one that can have done it, and for the device if the hardware said so or no kernel ran.
    pub fn record(&mut self, death: &Death) {
        let count = match death.culprit {
            _ if death.sticky == Sticky::Hardware => self.devices.entry(death.device.clone()).or_default(),
            Culprit::Kernel(digest) => self.digests.entry(digest).or_default(),
            Culprit::Device => self.devices.entry(death.device.clone()).or_default(),
            Culprit::Unknown => return,
        };
        *count = count.saturating_add(1);
    }

    /// Whether a kernel may run on a device.
    ///
    /// # Errors
    ///
    /// Names what is in quarantine, with the count, and what to do.
    pub fn check(&self, digest: &Digest, device: &str) -> Result<(), GpuError> {
        let kernel = self.digests.get(digest).copied().unwrap_or(0);
        if kernel >= self.digest_max {
            return Err(GpuError::refused(format!(
                "kernel {digest} is in quarantine: it killed the device's context {kernel} times (limit {}); correct it, which makes it another",
                self.digest_max
            )));
        }
        self.check_device(device)
    }

    /// Whether a device may be used.
    ///
    /// # Errors
    ///
    /// That it is in quarantine, with the count, and what to do.
    pub fn check_device(&self, device: &str) -> Result<(), GpuError> {
        let whole = self.devices.get(device).copied().unwrap_or(0);
        if whole >= self.device_max {
            return Err(GpuError::refused(format!(
                "device {device} is in quarantine: it failed {whole} times (limit {}); look at `nvidia-smi -q` and restart the machine",
                self.device_max
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(digest: Option<u8>, sticky: Sticky) -> Death {
        let culprit = match digest {
            Some(0) => Culprit::Unknown,
            Some(number) => Culprit::Kernel(Digest::of(&[number])),
            None => Culprit::Device,
        };
        Death { culprit, device: "GPU-1".to_owned(), sticky }
    }

    #[test]
    fn a_kernel_is_out_after_n_and_a_device_after_m() {
        let (bad, good) = (Digest::of(&[1]), Digest::of(&[2]));
        let mut quarantine = Quarantine::new(2, 3);
        let mut record = Vec::new();
        for (death, bad_runs, good_runs) in [
            (death(Some(1), Sticky::IllegalAddress), true, true),
            // Of one of several, which counts for none.
            (death(Some(0), Sticky::IllegalAddress), true, true),
            (death(Some(1), Sticky::Hung { limit_ms: 5 }), false, true),
            // Of the device, whichever kernel ran; and nobody's in particular.
            (death(Some(2), Sticky::Hardware), false, true),
            (death(Some(2), Sticky::Hardware), false, true),
            (death(None, Sticky::LaunchFailed), false, false),
        ] {
            quarantine.record(&death);
            record.push(death);
            assert_eq!(quarantine.check(&bad, "GPU-1").is_ok(), bad_runs, "{record:?}");
            assert_eq!(quarantine.check(&good, "GPU-1").is_ok(), good_runs, "{record:?}");
            assert!(quarantine.check(&good, "GPU-2").is_ok());
            let restored = Quarantine::new(2, 3).restore(&record);
            assert_eq!(restored.check(&bad, "GPU-1"), quarantine.check(&bad, "GPU-1"));
            assert_eq!(restored.check(&good, "GPU-1"), quarantine.check(&good, "GPU-1"));
        }
    }
}
