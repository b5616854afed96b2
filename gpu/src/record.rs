//! The record of what killed processes: a line each, in a file that outlives them, so that the quarantine does too.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::quarantine::{Culprit, Death};
use crate::{GpuError, Sticky};

/// The name of the file.
const FILE: &str = "deaths";
/// Bytes that are read of it, the last ones: some ten thousand deaths.
const BYTES_MAX: usize = 1 << 20;

/// A file of deaths that any number of processes may share.
#[derive(Debug, Clone)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    /// The record in this folder, which is there.
    pub fn of(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// The file: without it nothing is in quarantine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every death that can be read, oldest first; lines that are no death are passed over.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    pub fn read(&self) -> Result<Vec<Death>, GpuError> {
        let failed = |error| GpuError::failed(format!("the record of deaths {} cannot be read: {error}", self.path.display()));
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let from = bytes.len().saturating_sub(BYTES_MAX);
        let text = String::from_utf8_lossy(&bytes[from..]);
        Ok(text.lines().filter_map(parse).collect())
    }

    /// Adds a death, and waits until the disk has it: the process ends next.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn add(&self, death: &Death) -> Result<(), GpuError> {
        let failed = |error| GpuError::failed(format!("a death cannot be added to {}: {error}", self.path.display()));
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path).map_err(failed)?;
        // One write, so that lines of several processes do not mix.
        file.write_all(show(death).as_bytes()).and_then(|()| file.sync_data()).map_err(failed)
    }
}

/// `device kernel what [limit]`, where `-` is no kernel and `?` one of several.
fn show(Death { culprit, device, sticky }: &Death) -> String {
    let kernel = match culprit {
        Culprit::Kernel(digest) => digest.to_string(),
        Culprit::Device => "-".to_owned(),
        Culprit::Unknown => "?".to_owned(),
    };
    let what = match sticky {
        Sticky::IllegalAddress => "illegal_address".to_owned(),
        Sticky::Assert => "assert".to_owned(),
        Sticky::LaunchFailed => "launch_failed".to_owned(),
        Sticky::Hardware => "hardware".to_owned(),
        Sticky::Hung { limit_ms } => format!("hung {limit_ms}"),
    };
    format!("{device} {kernel} {what}\n")
}

fn parse(line: &str) -> Option<Death> {
    let mut words = line.split(' ');
    let (device, kernel, what) = (words.next()?, words.next()?, words.next()?);
    let sticky = match what {
        "illegal_address" => Sticky::IllegalAddress,
        "assert" => Sticky::Assert,
        "launch_failed" => Sticky::LaunchFailed,
        "hardware" => Sticky::Hardware,
        "hung" => Sticky::Hung { limit_ms: words.next()?.parse().ok()? },
        _ => return None,
    };
    let culprit = match kernel {
        "-" => Culprit::Device,
        "?" => Culprit::Unknown,
        digest => Culprit::Kernel(digest.parse().ok()?),
    };
    words.next().is_none().then(|| Death { culprit, device: device.to_owned(), sticky })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::Digest;

    #[test]
    fn deaths_are_read_as_they_were_added_whatever_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let record = Record::of(folder.path());
        assert_eq!(record.read(), Ok(Vec::new()));
        let kinds =
            [Sticky::IllegalAddress, Sticky::Assert, Sticky::LaunchFailed, Sticky::Hardware, Sticky::Hung { limit_ms: 30_000 }];
        let deaths: Vec<Death> = kinds
            .into_iter()
            .enumerate()
            .map(|(at, sticky)| {
                let culprit = [Culprit::Device, Culprit::Unknown, Culprit::Kernel(Digest::of(&[at as u8]))][at.min(2)];
                Death { culprit, device: format!("GPU-{at}"), sticky }
            })
            .collect();
        deaths.iter().for_each(|death| record.add(death).unwrap());
        let mut file = OpenOptions::new().append(true).open(record.path()).unwrap();
        file.write_all(b"\nGPU-1 - exploded\nGPU-1 zz assert\nGPU-1 - hung\nGPU-1 - assert more\n\xff\n").unwrap();
        record.add(&deaths[0]).unwrap();
        assert_eq!(record.read().unwrap(), [&deaths[..], &deaths[..1]].concat());
        std::fs::remove_file(record.path()).unwrap();
        std::fs::create_dir(record.path()).unwrap();
        assert!(record.read().unwrap_err().to_string().contains("deaths"));
        assert!(record.add(&deaths[0]).is_err());
    }
}
