//! The two small files that say whose directory it is: `store` (format and identity) and `lock` (the process that writes).

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::LogError;
use super::Engine;
use super::disk::Disk;
use super::layout::{Layout, failed, foreign, open_file, open_or_create};
use crate::event::hex;

/// The version of this directory layout.
pub(in crate::log) const LAYOUT_FORMAT: u16 = 1;
/// No store file of any format is longer; what is longer is not one.
const STORE_BYTES_MAX: u64 = 4096;
/// Name of the store file.
pub(in crate::log) const STORE: &str = "store";

/// What tells one log from every other; drawn by chance when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

impl StoreId {
    /// The identity that follows from what a log is a copy of.
    pub fn derived(from: &str) -> StoreId {
        StoreId(crate::event::Digest::of(from.as_bytes()).0)
    }

    /// Draws an identity from the system's randomness.
    ///
    /// # Errors
    /// [`LogError::Io`] when there is none.
    pub fn draw() -> Result<StoreId, LogError> {
        let path = Path::new("/dev/urandom");
        let mut id = [0; 16];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut id));
        read.map_err(failed("read", path))?;
        Ok(StoreId(id))
    }
}

impl std::fmt::Display for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// Whose directory it is, and what keeps its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// What tells the log from every other.
    pub id: StoreId,
    /// What keeps its blocks.
    pub engine: Engine,
}

/// Reads the store file; `None` when there is none.
///
/// # Errors
/// [`LogError::Foreign`] for bytes that are not one, [`LogError::FormatTooNew`], [`LogError::Io`].
pub(in crate::log) fn read(dir: &Path) -> Result<Option<Identity>, LogError> {
    let path = dir.join(STORE);
    let Some(file) = open_file(&path, false)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(STORE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", &path))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| foreign(&path, "it is not a store file"))?;
    let (format, identity) = parse(text).map_err(|reason| foreign(&path, reason))?;
    if format > LAYOUT_FORMAT {
        return Err(LogError::FormatTooNew { path, found: format, known: LAYOUT_FORMAT });
    }
    identity.map(Some).ok_or_else(|| foreign(&path, "it names no store or no engine that this build knows"))
}

/// The format and, where the format is known, the identity.
fn parse(text: &str) -> Result<(u16, Option<Identity>), &'static str> {
    let (content, sum) = text.split_once("crc ").ok_or("it is empty or cut off")?;
    if sum.trim_end() != format!("{:08x}", crc32c::crc32c(content.as_bytes())) {
        return Err("its checksum does not match");
    }
    let mut lines = content.lines();
    if lines.next() != Some("ergate store") {
        return Err("it is not a store file");
    }
    let format = lines.next().and_then(|line| line.strip_prefix("format ")?.parse().ok()).ok_or("it names no format")?;
    let id = lines.next().and_then(|line| parse_id(line.strip_prefix("id ")?));
    let engine = lines.next().and_then(|line| Engine::named(line.strip_prefix("engine ")?));
    Ok((format, id.zip(engine).map(|(id, engine)| Identity { id, engine })))
}

fn parse_id(text: &str) -> Option<StoreId> {
    u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32).map(|id| StoreId(id.to_be_bytes()))
}

/// Writes the store file under another name and then gives it its own, so that it is there as a whole or not at all.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Full`].
pub(in crate::log) fn write(layout: &Layout, disk: &dyn Disk, identity: Identity) -> Result<(), LogError> {
    let Identity { id, engine } = identity;
    let content = format!("ergate store\nformat {LAYOUT_FORMAT}\nid {id}\nengine {engine}\n");
    let text = format!("{content}crc {:08x}\n", crc32c::crc32c(content.as_bytes()));
    write_whole(layout, disk, &layout.store(), text.as_bytes())
}

/// Writes a whole file durably: under another name, synced, renamed, its folder synced.
///
/// # Errors
/// [`LogError::Io`], [`LogError::Full`].
pub(in crate::log) fn write_whole(layout: &Layout, disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let draft = path.with_extension("tmp");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("replace", &draft)(error)),
        Ok(()) | Err(_) => {}
    }
    let file = disk.create(&draft).map_err(failed("create", &draft))?;
    disk.write_at(&file, bytes, 0).map_err(failed("write", &draft))?;
    disk.sync_all(&file).map_err(failed("sync", &draft))?;
    disk.rename(&draft, path).map_err(failed("replace", path))?;
    disk.sync_dir(&layout.dir).map_err(failed("sync", &layout.dir))
}

/// Takes the lock for as long as the returned file is open, and leaves this process's id in it for others to name.
///
/// # Errors
/// [`LogError::Locked`] when another process has it, [`LogError::Foreign`], [`LogError::Io`].
pub(in crate::log) fn lock(layout: &Layout) -> Result<File, LogError> {
    let path = layout.lock();
    let mut file = open_or_create(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Err(LogError::Locked { path: layout.dir.clone(), pid: owner(&file) }),
        Err(std::fs::TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    // The text only helps people; on a full disk the lock holds without it.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

pub(in crate::log) fn owner(file: &File) -> String {
    let mut text = [0; 20];
    let len = file.read_at(&mut text, 0).unwrap_or(0);
    let digits: String = text[..len].iter().take_while(|byte| byte.is_ascii_digit()).map(|byte| char::from(*byte)).collect();
    if digits.is_empty() { "(unknown)".to_owned() } else { digits }
}
