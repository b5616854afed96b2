//! Where an attempt ran: on which device, with which kernel, with how many others, and what that took.
//!
//! It is an observation that an attempt makes of itself, recorded right before its outcome: nothing is decided by it.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::command::Rejection;
use crate::decide::current;
use crate::event::{Event, hex};
use crate::id::{Ordinal, ParseIdError, from_printed};
use crate::resources::RESOURCE_MAX;
use crate::state::Work;
use crate::time::Micros;

/// Most bytes of a device's name: `GPU-` or `MIG-` and a UUID are 40, and older drivers name parts of devices by up to 50.
pub const DEVICE_BYTES_MAX: usize = 64;

/// Where an attempt ran and what it took there.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ran {
    /// The device by its UUID, as the driver prints it (`GPU-…`, or `MIG-…` for a part of one), or another name that tells it from others: 1 to
    /// [`DEVICE_BYTES_MAX`] bytes without control characters.
    pub device: String,
    /// The newest CUDA that the device's driver knows; `None` where no driver was needed, as for the CPU twin of a kernel.
    pub driver: Option<CudaVersion>,
    /// The kernel.
    pub kernel: KernelDigest,
    /// How many attempts shared the batch, this one among them: at least 1.
    pub batch_size: u32,
    /// How long the attempt waited for its batch to begin.
    pub queue: Micros,
    /// How long copies to and from the device took, those of the whole batch.
    pub copy: Micros,
    /// How long kernels took, those of the whole batch.
    pub compute: Micros,
    /// The most memory of the device, in bytes, that the batch had at a time: at most [`RESOURCE_MAX`].
    pub memory_bytes: u64,
}

impl Ran {
    /// What is wrong with it, if anything: what, and the rule that it breaks.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let Ran { device, batch_size, memory_bytes, .. } = self;
        if device.is_empty() || device.len() > DEVICE_BYTES_MAX || device.chars().any(char::is_control) {
            Some(("the device that the attempt ran on", "1 to 64 bytes without control characters"))
        } else if *batch_size == 0 {
            Some(("the size of the batch that the attempt ran in", "at least 1"))
        } else if *memory_bytes > RESOURCE_MAX {
            Some(("the memory that the attempt's batch had", "at most 2^50 bytes"))
        } else {
            None
        }
    }
}

/// As people are told in a line: `on GPU-… with 31 others, 200µs queued, 100µs copies, 50µs kernel`.
impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ran { device, driver: _, kernel: _, batch_size, queue, copy, compute, memory_bytes: _ } = self;
        write!(f, "on {device} ")?;
        match batch_size.saturating_sub(1) {
            0 => f.write_str("alone")?,
            1 => f.write_str("with 1 other")?,
            others => write!(f, "with {others} others")?,
        }
        write!(f, ", {queue} queued, {copy} copies, {compute} kernel")
    }
}

/// A version of CUDA; prints as `13.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct CudaVersion {
    /// What it may break with.
    pub major: u32,
    /// What it adds to.
    pub minor: u32,
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for CudaVersion {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parse = || {
            let (major, minor) = text.split_once('.')?;
            let version = CudaVersion { major: major.parse().ok()?, minor: minor.parse().ok()? };
            // One printed form each: neither `+13.0` nor `013.0`.
            (version.to_string() == text).then_some(version)
        };
        parse().ok_or_else(|| ParseIdError::new(text, "a version of CUDA, like 13.0"))
    }
}

/// The BLAKE3 hash of a kernel's source and options: who it is, whatever it is compiled for. Prints as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct KernelDigest(pub [u8; 32]);

impl fmt::Display for KernelDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for KernelDigest {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let parse = || {
            let digits: Vec<u8> = text.as_bytes().iter().map(digit).collect::<Option<_>>()?;
            let (pairs, rest) = digits.as_chunks::<2>();
            let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
            bytes.try_into().ok().filter(|_| rest.is_empty()).map(KernelDigest)
        };
        parse().ok_or_else(|| ParseIdError::new(text, "64 hexadecimal digits, lower case"))
    }
}

/// Both are texts in JSON.
macro_rules! printed {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from_printed(from)
            }
        }
    )* };
}

printed!(CudaVersion, KernelDigest);

/// What an attempt that still counts says of where it ran.
pub(crate) fn record(work: &Work, task: Ordinal, attempt: u32, ran: &Ran, out: &mut Vec<Event<'_>>) -> Result<(), Rejection> {
    if let Some((what, rule)) = ran.fault() {
        return Err(Rejection::OutOfRange { what, rule });
    }
    current(work, task, attempt)?;
    out.push(Event::AttemptRan { task, attempt, ran: Box::new(ran.clone()) });
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn ran() -> Ran {
        Ran {
            device: "GPU-0".to_owned(),
            driver: Some(CudaVersion { major: 13, minor: 0 }),
            kernel: KernelDigest([0xab; 32]),
            batch_size: 32,
            queue: Micros(200),
            copy: Micros(100),
            compute: Micros(1_500),
            memory_bytes: 4_096,
        }
    }

    #[test]
    fn it_is_told_in_one_line() {
        let line = |batch_size| Ran { batch_size, ..ran() }.to_string();
        assert_eq!(line(32), "on GPU-0 with 31 others, 200µs queued, 100µs copies, 1.5ms kernel");
        assert!(line(2).starts_with("on GPU-0 with 1 other, "), "{}", line(2));
        assert!(line(1).starts_with("on GPU-0 alone, "), "{}", line(1));
    }

    #[test]
    fn what_is_over_a_limit_is_a_fault() {
        let device = |device: String| Ran { device, ..ran() };
        let memory = |memory_bytes| Ran { memory_bytes, ..ran() };
        for fine in [ran(), device("x".repeat(64)), memory(RESOURCE_MAX), Ran { driver: None, batch_size: u32::MAX, ..ran() }] {
            assert_eq!(fine.fault(), None, "{fine:?}");
        }
        let wrong = [device(String::new()), device("x".repeat(65)), device("a\nb".to_owned()), memory(RESOURCE_MAX + 1)];
        for wrong in wrong.into_iter().chain([Ran { batch_size: 0, ..ran() }]) {
            assert!(wrong.fault().is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn versions_and_digests_print_and_read_in_one_form_and_no_other() {
        let version = CudaVersion { major: 13, minor: 0 };
        assert_eq!((version.to_string(), "13.0".parse()), ("13.0".to_owned(), Ok(version)));
        for wrong in ["", "13", "13.", ".0", "+13.0", "013.0", "13.00", "13.0.1", "4294967296.0", "13.-1", "13.0 "] {
            assert!(wrong.parse::<CudaVersion>().is_err(), "{wrong:?}");
        }
        let digest = KernelDigest(std::array::from_fn(|index| index as u8 * 8 + 7));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let printed = digest.to_string();
        for wrong in ["", "00", &printed[1..], &format!("{printed}0"), &printed.to_uppercase(), &"g".repeat(64), &"ä".repeat(32)]
        {
            assert!(wrong.parse::<KernelDigest>().is_err(), "{wrong:?}");
        }
    }
}
