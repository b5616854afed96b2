//! The files of one attempt, in a private directory that goes with it.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, MemfdFlags, Mode, SeekFrom, memfd_create, mknodat, seek};
use tempfile::TempDir;
use tokio::net::unix::pipe;

use super::environment::Files;

/// A directory that only this user can look into; removed when dropped.
pub(super) struct Scratch {
    _dir: TempDir,
    payload: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    report: PathBuf,
}

impl Scratch {
    /// Writes the files that the attempt is given, and makes the pipe on which it says how far it is.
    pub(super) fn new(payload: Option<&[u8]>, checkpoint: Option<&[u8]>) -> io::Result<Scratch> {
        let dir = private(payload.is_some())?;
        let payload = payload.map(|bytes| write(dir.path(), "payload", bytes)).transpose()?;
        let checkpoint = checkpoint.map(|bytes| write(dir.path(), "checkpoint", bytes)).transpose()?;
        let report = dir.path().join("report");
        mknodat(CWD, &report, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        Ok(Scratch { _dir: dir, payload, checkpoint, report })
    }

    /// The pipe's end for reading. It is open for writing too, so that it never ends while writers come and go, and none of them waits.
    pub(super) fn open_report(&self) -> io::Result<pipe::Receiver> {
        pipe::OpenOptions::new().read_write(true).open_receiver(&self.report)
    }

    pub(super) fn files(&self) -> Files<'_> {
        Files { report: Some(&self.report), payload: self.payload.as_deref(), checkpoint: self.checkpoint.as_deref() }
    }
}

/// Where files in memory are on Linux: a directory is made and removed there in a third of the time that it takes on a busy disk.
const MEMORY: &str = "/dev/shm";

/// A directory for this user only. A payload may be large, and what containers have of memory for files is small: it goes to a disk.
fn private(large: bool) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("ergate-").permissions(Permissions::from_mode(0o700));
    if !large
        && std::env::var_os("TMPDIR").is_none()
        && let Ok(dir) = builder.tempdir_in(MEMORY)
    {
        return Ok(dir);
    }
    builder.tempdir()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let path = dir.join(name);
    std::fs::write(&path, bytes)?;
    Ok(path)
}

/// Bytes as a file in memory, for stdin: nobody has to feed it, and a command that reads nothing is none the wiser.
pub(super) fn in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let file = memfd_create("ergate-payload", MemfdFlags::CLOEXEC)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}
