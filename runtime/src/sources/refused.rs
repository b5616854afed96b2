//! Lines that are no requests: said, counted, and kept with their reason in a file of bounded size.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

/// Bytes of a refused line that are kept.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lines of a batch that are said one by one; the rest is counted.
const SAID_MAX: usize = 8;

/// A line that is no request.
pub(super) struct Refused {
    /// The name of its file.
    pub(super) file: String,
    /// Where in its file it begins.
    pub(super) offset: u64,
    /// What stands there; nothing of a line that is too long.
    pub(super) line: Vec<u8>,
    /// The field that is wrong, where it is one.
    pub(super) field: Option<String>,
    /// What is wrong.
    pub(super) reason: String,
}

impl Refused {
    fn json(&self) -> String {
        let Refused { file, offset, line, field, reason } = self;
        let kept = String::from_utf8_lossy(&line[..line.len().min(LINE_BYTES_MAX)]);
        let mut value = json!({ "file": file, "offset": offset, "field": field, "reason": reason, "line": kept });
        if line.len() > LINE_BYTES_MAX {
            value["line_bytes"] = line.len().into();
        }
        format!("{value}\n")
    }
}

/// The file of refused lines of a source.
pub(super) struct RefusedFile {
    pub(super) path: PathBuf,
    pub(super) bytes_max: u64,
}

impl RefusedFile {
    /// Says lines and keeps those for which the file has room; gives the number of those for which it has none.
    ///
    /// # Errors
    /// Why the file cannot be written; the lines are said all the same.
    pub(super) fn add(&self, source: &str, refused: &[Refused]) -> io::Result<usize> {
        for Refused { file, offset, field, reason, .. } in refused.iter().take(SAID_MAX) {
            let field = field.as_deref().unwrap_or_default();
            tracing::warn!(source, file, offset, field, reason, "a line of a source is no request that can be taken");
        }
        if refused.len() > SAID_MAX {
            tracing::warn!(source, lines = refused.len() - SAID_MAX, "so many more lines of a source are none either");
        }
        self.write(refused)
    }

    fn write(&self, refused: &[Refused]) -> io::Result<usize> {
        std::fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let mut left = self.bytes_max.saturating_sub(file.metadata()?.len());
        let (mut text, mut dropped) = (String::new(), 0);
        for line in refused.iter().map(Refused::json) {
            if line.len() as u64 <= left {
                left -= line.len() as u64;
                text.push_str(&line);
            } else {
                dropped += 1;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        Ok(dropped)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn refused(offset: u64, line: &[u8]) -> Refused {
        let (file, field) = ("a.ndjson".to_owned(), Some("type".to_owned()));
        Refused { file, offset, line: line.to_vec(), field, reason: "is missing".to_owned() }
    }

    #[test]
    fn lines_are_kept_with_their_reason_as_long_as_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sources").join("orders.refused.ndjson");
        let file = RefusedFile { path: path.clone(), bytes_max: 200 };
        assert_eq!(file.add("orders", &[refused(0, b"{\xff}"), refused(4, &[b'x'; 150]), refused(155, b"")]).unwrap(), 1);
        let kept = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = |offset: u64, line: &str| json!({ "file": "a.ndjson", "offset": offset, "field": "type", "reason": "is missing", "line": line });
        assert_eq!(lines, [expected(0, "{\u{fffd}}"), expected(155, "")]);
        let long = refused(0, &vec![b'x'; LINE_BYTES_MAX + 1]).json();
        assert!(long.len() < LINE_BYTES_MAX + 200 && long.contains("\"line_bytes\":65537"));
    }
}
