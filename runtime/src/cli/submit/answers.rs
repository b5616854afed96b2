//! Prints what became of requests, and counts it.

use std::io::{self, BufWriter, Stdout, Write};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ergate::events::event::Cause;
use ergate::{Outcome, TaskEnd};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::Exit;
use crate::cli::output::{self, escape};
use crate::cli::progress::{count, number, rate};
use crate::cli::pump::{Answer, Sink};

/// Troubles printed one by one; the rest is counted.
const TROUBLES_SHOWN: u64 = 20;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The result of the only task, as it is.
    Result,
    /// One JSON object for each request.
    Lines,
    /// A summary at the end, and the first troubles.
    Summary,
}

/// Counts answers and prints them.
pub(super) struct Answers {
    shape: Shape,
    numbered: bool,
    quiet: bool,
    out: BufWriter<Stdout>,
    started: Instant,
    ended: [u64; 5],
    refused: u64,
    duplicates: u64,
    unsuccessful: u64,
    troubles: u64,
    last_line: u64,
}

/// What became of a request, for programs.
#[derive(Default, Serialize)]
pub(super) struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<&'a RawValue>,
    /// A result that is no JSON, such as what a command printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result_text: Option<&'a str>,
    /// One that is no text either.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<Failure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Failure<'a> {
    cause: Cause,
    class: &'a str,
    message: &'a str,
}

impl Answers {
    /// Prints answers in this shape; `numbered` names the line of each.
    pub(super) fn new(shape: Shape, numbered: bool, quiet: bool) -> Answers {
        Answers {
            shape,
            numbered,
            quiet,
            out: BufWriter::new(io::stdout()),
            started: Instant::now(),
            ended: [0; 5],
            refused: 0,
            duplicates: 0,
            unsuccessful: 0,
            troubles: 0,
            last_line: 0,
        }
    }

    /// The last line whose request is kept.
    pub(super) fn last_line(&self) -> u64 {
        self.last_line
    }

    /// What the verb ends with: refused input counts before tasks that did not succeed.
    pub(super) fn exit(&self) -> Exit {
        match (self.refused, self.unsuccessful) {
            (0, 0) => Exit::Done,
            (0, _) => Exit::Unsuccessful,
            (_, _) => Exit::InputRefused,
        }
    }

    /// Prints the summary, where there is one.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.out.flush()?;
        if self.troubles > TROUBLES_SHOWN {
            output::note(&format!("and {} more like these", number(self.troubles - TROUBLES_SHOWN)));
        }
        match self.shape {
            Shape::Summary => output::line(&self.summary()),
            Shape::Lines if self.numbered && !self.quiet => {
                output::note(&self.summary());
                Ok(())
            }
            Shape::Lines | Shape::Result => Ok(()),
        }
    }

    fn summary(&self) -> String {
        let done: u64 = self.ended.iter().sum();
        let outcomes = Outcome::ALL.iter().zip(self.ended).filter(|(_, count)| *count > 0);
        let outcomes: Vec<_> = outcomes.map(|(outcome, count)| format!("{} {}", outcome.name(), number(count))).collect();
        let elapsed = self.started.elapsed();
        let mut text = count(done, "task", "tasks");
        if done > 0 {
            text += &format!(": {}", outcomes.join(", "));
        }
        text += &format!("; {} tasks/s, {elapsed:.1?} in all", number(rate(done, elapsed)));
        if self.duplicates > 0 {
            text += &format!("; {} of them known before by their key", number(self.duplicates));
        }
        if self.refused > 0 {
            text += &format!("; {} refused", count(self.refused, "line was", "lines were"));
        }
        text
    }

    fn refuse(&mut self, line: u64, reason: String) -> anyhow::Result<()> {
        self.refused += 1;
        match self.shape {
            Shape::Lines => self.print(&Line { line: self.line(line), refused: Some(reason), ..Line::default() }),
            Shape::Result | Shape::Summary => {
                self.trouble(&if self.numbered { format!("line {line}: {reason}") } else { reason });
                Ok(())
            }
        }
    }

    fn end(&mut self, line: u64, id: String, duplicate: bool, end: &TaskEnd) -> anyhow::Result<()> {
        self.ended.iter_mut().zip(Outcome::ALL).filter(|(_, known)| *known == end.outcome).for_each(|(count, _)| *count += 1);
        self.duplicates += u64::from(duplicate);
        self.unsuccessful += u64::from(end.failure.is_some());
        let failure = end.failure.as_deref();
        match (self.shape, failure) {
            (Shape::Lines, _) => {
                let result: Option<&RawValue> = if failure.is_none() { serde_json::from_slice(&end.result).ok() } else { None };
                let other = (failure.is_none() && result.is_none()).then_some(&end.result[..]);
                let result_text = other.and_then(|bytes| std::str::from_utf8(bytes).ok());
                let result_base64 = other.filter(|_| result_text.is_none()).map(|bytes| STANDARD.encode(bytes));
                let failure =
                    failure.map(|failure| Failure { cause: failure.cause, class: &failure.class, message: &failure.message });
                let outcome = Some(end.outcome);
                let (line, id) = (self.line(line), Some(id));
                self.print(&Line { line, id, duplicate, outcome, result, result_text, result_base64, failure, refused: None })
            }
            (Shape::Result | Shape::Summary, Some(failure)) => {
                let place = if self.numbered { format!("line {line}: ") } else { String::new() };
                let why = match failure.class.is_empty() {
                    true => format!("{:?}", failure.cause),
                    false => format!("{}: {} ({:?})", failure.class, failure.message, failure.cause),
                };
                self.trouble(&format!("{place}task {id} {}: {why}", end.outcome.name()));
                Ok(())
            }
            (Shape::Result, None) if output::is_raw(&end.result) => Ok(self.out.write_all(&end.result)?),
            (Shape::Result, None) => {
                let text = escape(&String::from_utf8_lossy(&end.result));
                // Commands end their lines themselves.
                Ok(writeln!(self.out, "{}", text.strip_suffix('\n').unwrap_or(&text))?)
            }
            (Shape::Summary, None) => Ok(()),
        }
    }

    fn line(&self, line: u64) -> Option<u64> {
        self.numbered.then_some(line)
    }

    fn print(&mut self, line: &Line<'_>) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.out, line).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    fn trouble(&mut self, text: &str) {
        self.troubles += 1;
        if self.troubles <= TROUBLES_SHOWN {
            output::error(&escape(text));
        }
    }
}

impl Sink<u64> for Answers {
    fn taken(&mut self, tags: &[u64], refused: Vec<(u64, String)>) -> anyhow::Result<()> {
        let last = tags.last().copied().max(refused.last().map(|(line, _)| *line));
        self.last_line = last.unwrap_or(self.last_line);
        refused.into_iter().try_for_each(|(line, reason)| self.refuse(line, reason))
    }

    fn answered(&mut self, line: u64, answer: Answer) -> anyhow::Result<()> {
        match answer {
            Answer::Refused(rejection) => self.refuse(line, rejection.to_string()),
            Answer::Ended { id, duplicate, end } => self.end(line, id.to_string(), duplicate, &end?),
        }
    }

    fn progress(&mut self) -> anyhow::Result<(u64, Option<u64>)> {
        self.out.flush()?;
        Ok((self.ended.iter().sum::<u64>() + self.refused, None))
    }
}
