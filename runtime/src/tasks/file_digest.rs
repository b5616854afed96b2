//! `file.digest`: size, lines and BLAKE3 hash of a file.
//!
//! Only regular files are read. A link is not followed, and a pipe or a device is neither waited for nor opened for good, so a hostile
//! tree can make tasks fail and nothing hang.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ergate_events::task::{RetryPolicy, TypeSettings};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::BuiltIn;
use crate::{Context, TaskError, blocking};

/// What requests call it.
pub const NAME: &str = "file.digest";
/// The pool that runs it.
pub const POOL: &str = "files";
/// Bytes of one read: large enough that the hash is the cost, small enough that a cancellation is soon seen.
const READ_BYTES: usize = 256 << 10;

/// Which file: exactly one of the two names.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The path, where it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The bytes of the path in hexadecimal, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
}

/// What was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileDigest {
    /// The path; bytes that are not UTF-8 are written `\xNN`.
    pub path: String,
    /// The bytes of the path in hexadecimal, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// Bytes read.
    pub bytes: u64,
    /// Newline characters, as `wc -l` counts: an unterminated last line is not one.
    pub lines: u64,
    /// BLAKE3 hash of the content in hexadecimal, as `b3sum` prints it.
    pub blake3: String,
}

pub(super) fn built_in() -> BuiltIn {
    let settings = TypeSettings {
        pool: POOL.to_owned(),
        retry: RetryPolicy { attempts: 1, ..RetryPolicy::default() },
        dead_letter: false,
        ..TypeSettings::default()
    };
    BuiltIn { name: NAME, settings, function: blocking(|context: Context, payload: Payload| digest(&context, &payload)) }
}

impl Payload {
    /// The payload that names this path, whatever its bytes.
    pub fn of(path: &Path) -> Payload {
        match path.to_str() {
            Some(path) => Payload { path: Some(path.to_owned()), path_hex: None },
            None => Payload { path: None, path_hex: Some(hex(path.as_os_str().as_bytes())) },
        }
    }

    /// The path that it names.
    ///
    /// # Errors
    /// A permanent [`TaskError`] of class `payload`.
    pub fn to_path(&self) -> Result<PathBuf, TaskError> {
        let refused = |reason: &str| TaskError::permanent("payload", reason);
        let path = match (&self.path, &self.path_hex) {
            (Some(path), None) => PathBuf::from(path),
            (None, Some(hex)) => {
                PathBuf::from(OsString::from_vec(unhex(hex).ok_or_else(|| refused("`path_hex` is not hexadecimal"))?))
            }
            (Some(_), Some(_)) | (None, None) => return Err(refused("give either `path` or `path_hex`")),
        };
        if path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&0) {
            return Err(refused("the path is empty or has a NUL byte in it"));
        }
        Ok(path)
    }
}

fn digest(context: &Context, payload: &Payload) -> Result<FileDigest, TaskError> {
    let path = payload.to_path()?;
    let shown = shown(path.as_os_str());
    let (file, metadata) = open(&path).map_err(|refusal| refusal.into_error(&shown))?;
    let (bytes, lines, hash) = read(context, file, &metadata, &shown)?;
    Ok(FileDigest { path: shown, path_hex: Payload::of(&path).path_hex, bytes, lines, blake3: hash.to_hex().to_string() })
}

/// Why a file is not read.
enum Refusal {
    NotAFile(&'static str),
    Unreadable(std::io::Error),
}

impl Refusal {
    fn into_error(self, shown: &str) -> TaskError {
        match self {
            Refusal::NotAFile(kind) => TaskError::permanent("not_a_file", format!("{shown} is {kind}, not a regular file")),
            Refusal::Unreadable(error) => TaskError::permanent("unreadable", format!("failed to open {shown}: {error}")),
        }
    }
}

/// Opens a regular file. Looking first keeps devices from being opened; the flags and the second look close the gap in between.
fn open(path: &Path) -> Result<(File, Metadata), Refusal> {
    require_file(&std::fs::symlink_metadata(path).map_err(Refusal::Unreadable)?)?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(Refusal::Unreadable)?;
    let metadata = file.metadata().map_err(Refusal::Unreadable)?;
    require_file(&metadata)?;
    Ok((file, metadata))
}

fn require_file(metadata: &Metadata) -> Result<(), Refusal> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(Refusal::NotAFile(match () {
        () if kind.is_symlink() => "a symbolic link",
        () if kind.is_dir() => "a directory",
        () => "a pipe, socket or device",
    }))
}

/// Reads all of a file: bytes, newlines, hash.
fn read(context: &Context, mut file: File, metadata: &Metadata, shown: &str) -> Result<(u64, u64, blake3::Hash), TaskError> {
    // One byte more than the file is said to have, so that a small file ends after one full read and one empty one.
    let room = usize::try_from(metadata.len()).unwrap_or(READ_BYTES).saturating_add(1).clamp(4 << 10, READ_BYTES);
    let mut buffer = vec![0; room];
    let (mut bytes, mut lines, mut hasher) = (0, 0, blake3::Hasher::new());
    loop {
        if context.is_cancelled() {
            return Err(TaskError::new("cancelled", format!("stopped reading {shown} after {bytes} bytes")));
        }
        let count = match file.read(&mut buffer) {
            Ok(0) => return Ok((bytes, lines, hasher.finalize())),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(TaskError::permanent("unreadable", format!("failed to read {shown}: {error}"))),
        };
        hasher.update(&buffer[..count]);
        bytes += count as u64;
        lines += buffer[..count].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

/// A path as a text: bytes that are not UTF-8 are written `\xNN`.
pub fn shown(path: &OsStr) -> String {
    let chunks = path.as_bytes().utf8_chunks();
    chunks.fold(String::new(), |text, chunk| text + chunk.valid() + &chunk.invalid().escape_ascii().to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_survives_the_payload() {
        for bytes in [&b"/a/b"[..], b"/a/\xff\xfe b", "/ü/\n".as_bytes()] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let json = serde_json::to_vec(&Payload::of(&path)).unwrap();
            assert_eq!(serde_json::from_slice::<Payload>(&json).unwrap().to_path().unwrap(), path);
        }
        assert_eq!(shown(OsStr::from_bytes(b"/a/\xff\xfeb")), r"/a/\xff\xfeb");
    }

    #[test]
    fn a_payload_that_names_no_path_is_refused() {
        for payload in [
            r#"{}"#,
            r#"{"path":"a","path_hex":"61"}"#,
            r#"{"path":""}"#,
            r#"{"path":"a\u0000"}"#,
            r#"{"path_hex":"6"}"#,
            r#"{"path_hex":"+1"}"#,
        ] {
            let payload: Payload = serde_json::from_str(payload).unwrap();
            assert_eq!(payload.to_path().unwrap_err().class(), "payload", "{payload:?}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(open(&file).is_ok());
        for path in [&link, dir.path(), Path::new("/dev/null")] {
            assert!(matches!(open(path), Err(Refusal::NotAFile(_))), "{path:?}");
        }
        assert!(matches!(open(&dir.path().join("gone")), Err(Refusal::Unreadable(_))));
    }
}
