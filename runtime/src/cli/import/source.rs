//! The bytes of manifests: never more than a named limit, and only if they are text.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file: a listing of all objects of a large cluster. It is held in memory, and is read within a second.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 20;
/// What all files together may have.
const TOTAL_BYTES_MAX: usize = 32 << 20;

/// Reads files; `-` is standard input. Each comes with the name that people know it by.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>, String> {
    let mut files: Vec<(String, String)> = Vec::new();
    let mut total = 0;
    for path in paths {
        let is_input = path.as_os_str() == "-";
        let name = if is_input { "standard input".to_owned() } else { path.display().to_string() };
        if is_input && files.iter().any(|(known, _)| *known == name) {
            return Err("standard input can be read only once: give `-` once".to_owned());
        }
        let bytes = if is_input { limited(std::io::stdin().lock()) } else { open(path).and_then(limited) };
        let text = bytes.and_then(text).map_err(|reason| format!("{name} cannot be read: {reason}"))?;
        total += text.len();
        if total > TOTAL_BYTES_MAX {
            return Err(format!("the files have more than {} MiB together: import them in several calls", TOTAL_BYTES_MAX >> 20));
        }
        files.push((name, text));
    }
    Ok(files)
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|error| error.to_string())
}

/// All that there is, unless it is too much: what never ends is not read to its end.
fn limited(from: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {} MiB; split it, or take out what is no autoscaler", FILE_BYTES_MAX >> 20));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> Result<String, String> {
    let line = |upto: &[u8]| upto.iter().filter(|byte| **byte == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let upto = bytes.get(..at).unwrap_or_default();
        return Err(format!("line {} has a NUL byte: it is no text in UTF-8", line(upto)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let upto = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        format!("line {} is no text in UTF-8", line(upto))
    })
}
