//! `[gpu]`: how processes use their device.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::value::{Raw, show_duration, show_size};

/// `[gpu]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Bytes of device memory for batches of one process; `None` is what the device has, less a tenth.
    pub memory_max: Option<u64>,
    /// How long a batch may take; then the device counts as hung.
    pub batch_timeout: Duration,
    /// How long compiling and loading a kernel may take.
    pub load_timeout: Duration,
    /// Where compiled kernels and the record of the quarantine are; `None` is below the user's cache directory.
    pub cache: Option<PathBuf>,
    /// Bytes of compiled kernels kept.
    pub cache_max: u64,
    /// A kernel that killed its process so often is not run any more.
    pub kernel_deaths_max: u32,
    /// A device that failed so often is not used any more.
    pub device_deaths_max: u32,
}

impl Default for Gpu {
    fn default() -> Gpu {
        Gpu {
            memory_max: None,
            batch_timeout: Duration::from_secs(30),
            load_timeout: Duration::from_secs(120),
            cache: None,
            cache_max: 1 << 30,
            kernel_deaths_max: 3,
            device_deaths_max: 3,
        }
    }
}

/// The keys of `[gpu]`, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 7] = [
    "gpu.memory_max",
    "gpu.batch_timeout",
    "gpu.load_timeout",
    "gpu.cache",
    "gpu.cache_max",
    "gpu.kernel_deaths_max",
    "gpu.device_deaths_max",
];
/// What is set by itself.
const AUTO: &str = "auto";
/// Least that a device is given: staging a batch takes that.
const MEMORY_MIN: u64 = 1 << 20;

impl Gpu {
    /// Sets a value; the error says what the key takes. `dir` is where relative paths begin.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        const SPAN: &str = "a duration from \"10ms\" to \"1h\"";
        let is_auto = raw.text() == Some(AUTO);
        let span = || raw.duration().filter(|span| (Duration::from_millis(10)..=Duration::from_secs(3_600)).contains(span));
        let deaths = || raw.count(1, 1_000).and_then(|count| u32::try_from(count).ok()).ok_or("a whole number from 1 to 1000");
        let size = || raw.size().filter(|size| *size >= MEMORY_MIN);
        match key {
            "gpu.memory_max" if is_auto => self.memory_max = None,
            "gpu.memory_max" => self.memory_max = Some(size().ok_or("a size of at least \"1MiB\", or \"auto\"")?),
            "gpu.batch_timeout" => self.batch_timeout = span().ok_or(SPAN)?,
            "gpu.load_timeout" => self.load_timeout = span().ok_or(SPAN)?,
            "gpu.cache" if is_auto => self.cache = None,
            "gpu.cache" => {
                self.cache = Some(dir.join(raw.text().filter(|text| !text.is_empty()).ok_or("a directory, or \"auto\"")?));
            }
            "gpu.cache_max" => self.cache_max = size().ok_or("a size of at least \"1MiB\"")?,
            "gpu.kernel_deaths_max" => self.kernel_deaths_max = deaths()?,
            "gpu.device_deaths_max" => self.device_deaths_max = deaths()?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// A value as a file would have it, without quotes.
    pub(crate) fn value(&self, key: &str) -> String {
        match key {
            "gpu.memory_max" => self.memory_max.map_or_else(|| AUTO.to_owned(), show_size),
            "gpu.batch_timeout" => show_duration(self.batch_timeout),
            "gpu.load_timeout" => show_duration(self.load_timeout),
            "gpu.cache" => self.cache.as_ref().map_or_else(|| AUTO.to_owned(), |path| path.display().to_string()),
            "gpu.cache_max" => show_size(self.cache_max),
            "gpu.kernel_deaths_max" => self.kernel_deaths_max.to_string(),
            "gpu.device_deaths_max" => self.device_deaths_max.to_string(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown_alike() {
        let mut gpu = Gpu::default();
        for (key, text) in KEYS.into_iter().zip(["2GiB", "5s", "1m", "/var/cache/ergate", "64MiB", "1", "7"]) {
            let raw = || text.parse::<u64>().map_or(Raw::Word(text.to_owned()), Raw::Number);
            assert_ne!(gpu.value(key), text);
            assert_eq!(gpu.set(key, &raw(), Path::new("/etc")), Ok(()), "{key}");
            assert_eq!(gpu.value(key), text);
            assert!(gpu.set(key, &Raw::Word(String::new()), Path::new("")).is_err(), "{key}");
        }
        for key in ["gpu.memory_max", "gpu.cache"] {
            assert_eq!((gpu.set(key, &Raw::Word(AUTO.to_owned()), Path::new("")), gpu.value(key).as_str()), (Ok(()), AUTO));
        }
    }
}
