//! Counts what the tasks of a run found, keeping the first few failures and none of the results.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use ergate::Outcome;
use ergate::tasks::file_digest::{FileDigest, shown};
use serde::Serialize;

use super::walk::Seen;
use crate::cli::pump::{Answer, Sink};

/// Failures shown; the log has all.
const FAILURES_SHOWN: usize = 5;

/// What was found so far.
pub(super) struct Tally {
    pub(super) seen: Arc<Seen>,
    /// Ended tasks in the order of [`Outcome::ALL`].
    pub(super) ended: [u64; 5],
    pub(super) refused: u64,
    pub(super) bytes: u64,
    pub(super) lines: u64,
    pub(super) failures: Vec<FailedFile>,
    pub(super) started: Instant,
    digests: Option<BufWriter<File>>,
}

/// A file that was not digested.
#[derive(Serialize)]
pub(super) struct FailedFile {
    /// The task; none when its request was refused.
    pub(super) id: Option<String>,
    pub(super) path: String,
    pub(super) reason: String,
}

impl Tally {
    pub(super) fn new(seen: Arc<Seen>, digests: Option<File>) -> Tally {
        Tally {
            seen,
            ended: [0; 5],
            refused: 0,
            bytes: 0,
            lines: 0,
            failures: Vec::new(),
            started: Instant::now(),
            digests: digests.map(BufWriter::new),
        }
    }

    /// Requests that have their answer.
    pub(super) fn answered_count(&self) -> u64 {
        self.ended.iter().sum::<u64>() + self.refused
    }

    /// Tasks that ended so.
    pub(super) fn count(&self, outcome: Outcome) -> u64 {
        Outcome::ALL.iter().zip(self.ended).filter(|(known, _)| **known == outcome).map(|(_, count)| count).sum()
    }

    /// Whether every file was digested.
    pub(super) fn is_clean(&self) -> bool {
        self.count(Outcome::Succeeded) == self.answered_count()
    }

    /// Finishes the file of digests.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.digests.as_mut().map_or(Ok(()), BufWriter::flush).context("failed to write the file of --digests")
    }

    fn succeed(&mut self, path: &Path, result: &[u8]) -> anyhow::Result<()> {
        let found: FileDigest = serde_json::from_slice(result).context("a result of file.digest is not one")?;
        self.bytes += found.bytes;
        self.lines += found.lines;
        let Some(out) = &mut self.digests else { return Ok(()) };
        writeln!(out, "{}", checksum_line(&found.blake3, path)).context("failed to write the file of --digests")
    }

    fn fail(&mut self, id: Option<String>, path: &Path, reason: String) {
        if self.failures.len() < FAILURES_SHOWN {
            self.failures.push(FailedFile { id, path: shown(path.as_os_str()), reason });
        }
    }
}

impl Sink<PathBuf> for Tally {
    fn taken(&mut self, _: &[PathBuf], _: Vec<(PathBuf, String)>) -> anyhow::Result<()> {
        Ok(())
    }

    fn answered(&mut self, path: PathBuf, answer: Answer) -> anyhow::Result<()> {
        match answer {
            Answer::Refused(rejection) => {
                self.refused += 1;
                self.fail(None, &path, rejection.to_string());
            }
            Answer::Ended { id, end, .. } => {
                let end = end?;
                self.ended.iter_mut().zip(Outcome::ALL).filter(|(_, known)| *known == end.outcome).for_each(|(n, _)| *n += 1);
                match end.failure {
                    None => self.succeed(&path, &end.result)?,
                    Some(failure) => self.fail(Some(id.to_string()), &path, format!("{}: {}", failure.class, failure.message)),
                }
            }
        }
        Ok(())
    }

    fn progress(&mut self) -> anyhow::Result<(u64, Option<u64>)> {
        Ok((self.answered_count(), self.seen.total()))
    }
}

/// A line as `b3sum` prints it and `b3sum --check` reads it: a name with a backslash or a newline is escaped and the line says so.
fn checksum_line(hash: &str, path: &Path) -> String {
    let name = path.to_string_lossy();
    if name.contains(['\\', '\n', '\r']) {
        let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        return format!("\\{hash}  {name}");
    }
    format!("{hash}  {name}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn lines_of_digests_are_those_of_b3sum() {
        assert_eq!(checksum_line("af", Path::new("a b")), "af  a b");
        assert_eq!(checksum_line("af", Path::new("a\\b\nc")), "\\af  a\\\\b\\nc");
    }
}
