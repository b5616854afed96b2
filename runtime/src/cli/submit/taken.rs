//! Prints what a service took, and counts it.

use std::io::{self, BufWriter, Stdout, Write};
use std::time::Instant;

use super::answers::Line;
use crate::cli::output::{self, escape};
use crate::cli::progress::{count, number, rate};
use crate::cli::{Exit, Format, Globals};

/// Refusals printed one by one; the rest is counted.
const REFUSALS_SHOWN: u64 = 20;

/// Counts answers and prints them.
pub(super) struct Taken {
    format: Format,
    quiet: bool,
    out: BufWriter<Stdout>,
    started: Instant,
    accepted: u64,
    duplicates: u64,
    refused: u64,
    last_line: Option<u64>,
}

impl Taken {
    pub(super) fn new(globals: &Globals) -> Taken {
        Taken {
            format: globals.output,
            quiet: globals.quiet,
            out: BufWriter::new(io::stdout()),
            started: Instant::now(),
            accepted: 0,
            duplicates: 0,
            refused: 0,
            last_line: None,
        }
    }

    /// A line became a task, or its task was there before.
    pub(super) fn accept(&mut self, line: u64, id: String, duplicate: bool) -> anyhow::Result<()> {
        self.accepted += u64::from(!duplicate);
        self.duplicates += u64::from(duplicate);
        self.last_line = Some(line);
        self.print(&Line { line: Some(line), id: Some(id), duplicate, ..Line::default() })
    }

    /// A line was refused.
    pub(super) fn refuse(&mut self, line: u64, reason: String) -> anyhow::Result<()> {
        self.refused += 1;
        self.last_line = self.last_line.max(Some(line));
        if self.format == Format::Table && self.refused <= REFUSALS_SHOWN {
            output::error(&escape(&format!("line {line}: {reason}")));
        }
        self.print(&Line { line: Some(line), refused: Some(reason), ..Line::default() })
    }

    fn print(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
        if self.format == Format::Table {
            return Ok(());
        }
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Hands on what was printed.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }

    /// Whether anything was answered.
    pub(super) fn any(&self) -> bool {
        self.last_line.is_some()
    }

    /// How many lines were taken or refused.
    pub(super) fn settled(&self) -> u64 {
        self.accepted + self.duplicates + self.refused
    }

    /// The last line that has an answer; so have all before it.
    pub(super) fn last_line(&self) -> Option<u64> {
        self.last_line
    }

    /// What the verb ends with.
    pub(super) fn exit(&self) -> Exit {
        if self.refused > 0 { Exit::InputRefused } else { Exit::Done }
    }

    /// Prints the summary.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        if self.format == Format::Table && self.refused > REFUSALS_SHOWN {
            output::note(&format!("and {} more like these", number(self.refused - REFUSALS_SHOWN)));
        }
        match self.format {
            Format::Table => output::line(&self.summary()),
            Format::Json if !self.quiet => {
                output::note(&self.summary());
                Ok(())
            }
            Format::Json => Ok(()),
        }
    }

    fn summary(&self) -> String {
        let (all, elapsed) = (self.accepted + self.duplicates, self.started.elapsed());
        let mut text =
            format!("{} taken; {} tasks/s, {elapsed:.1?} in all", count(all, "task", "tasks"), number(rate(all, elapsed)));
        if self.duplicates > 0 {
            text += &format!("; {} of them known before by their key", number(self.duplicates));
        }
        if self.refused > 0 {
            text += &format!("; {} refused", count(self.refused, "line was", "lines were"));
        }
        text
    }
}
