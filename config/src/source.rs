//! `[source.NAME]`: files of requests that an engine follows as they grow.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::value::{Raw, show_duration, show_size};

/// Keys of a source, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 4] = ["path", "poll", "files_max", "refused_max"];
/// Shortest and longest time between two looks.
const POLL: std::ops::RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);
/// Most files of a source: each is open, and a process often has 1,024.
const FILES_MAX: u64 = 4_096;

/// A source as the configuration has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A file, or a directory whose `*.ndjson` are followed; `None` where nobody has said it.
    pub path: Option<PathBuf>,
    /// Time between two looks.
    pub poll: Duration,
    /// Most files that are followed at one time.
    pub files_max: usize,
    /// Bytes of the file of refused lines.
    pub refused_max: u64,
}

impl Default for Source {
    fn default() -> Source {
        Source { path: None, poll: Duration::from_millis(200), files_max: 256, refused_max: 16 << 20 }
    }
}

impl Source {
    /// Sets a value; a path is relative to `dir`. The error says what the key takes.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw, dir: &Path) -> Result<(), &'static str> {
        match key {
            "path" => {
                let text = raw.text().filter(|text| !text.is_empty());
                self.path = Some(dir.join(text.ok_or("a file or a directory as a text")?));
            }
            "poll" => {
                self.poll = raw.duration().filter(|span| POLL.contains(span)).ok_or("a duration from \"10ms\" to \"1h\"")?;
            }
            "files_max" => {
                let count = raw.count(1, FILES_MAX).and_then(|count| usize::try_from(count).ok());
                self.files_max = count.ok_or("a whole number from 1 to 4096")?;
            }
            "refused_max" => self.refused_max = raw.size().ok_or("a size such as \"16MiB\"")?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// A value as a file would have it; empty for one that is not there.
    pub(crate) fn value(&self, key: &str) -> String {
        match key {
            "path" => self.path.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            "poll" => show_duration(self.poll),
            "files_max" => self.files_max.to_string(),
            "refused_max" => show_size(self.refused_max),
            _ => String::new(),
        }
    }
}
