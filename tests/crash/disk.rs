//! File systems of our own, in images that are mounted through loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// An image with a file system, mounted until it is dropped.
pub(crate) struct Disk {
    image: PathBuf,
    pub(crate) mount: PathBuf,
}

impl Disk {
    /// Makes an empty one; the reason when this user cannot.
    pub(crate) fn new(home: &Path, name: &str, mib: u64) -> Result<Disk, String> {
        let image = home.join(format!("{name}.img"));
        std::fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).map_err(|error| error.to_string())?;
        command(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        Disk::mount(home, name)
    }

    fn mount(home: &Path, name: &str) -> Result<Disk, String> {
        let disk = Disk { image: home.join(format!("{name}.img")), mount: home.join(name) };
        std::fs::create_dir_all(&disk.mount).map_err(|error| error.to_string())?;
        command(Command::new("mount").args(["-o", "loop"]).args([&disk.image, &disk.mount]))?;
        Ok(disk)
    }

    /// What would be left of it if the power failed now.
    pub(crate) fn copy(&self, home: &Path, name: &str) -> Result<Disk, String> {
        command(Command::new("cp").arg("--sparse=always").args([&self.image, &home.join(format!("{name}.img"))]))?;
        Disk::mount(home, name)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever is just closing a file there is done in a moment.
        for _ in 0..50 {
            if command(Command::new("umount").arg(&self.mount)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = std::fs::remove_file(&self.image);
    }
}

pub(crate) fn command(command: &mut Command) -> Result<(), String> {
    let ran = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if ran.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&ran.stderr).trim())) }
}

/// Whether this user cannot have one; said aloud.
pub(crate) fn is_missing(home: &Path) -> bool {
    let reason = Disk::new(home, "try", 16).err();
    if let Some(reason) = &reason {
        eprintln!("SKIPPED: no file system can be mounted here: {reason}");
    }
    reason.is_some()
}
