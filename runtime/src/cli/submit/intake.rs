//! Turns lines into batches of requests on a thread of its own, which may wait for its input without holding up the rest.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;
use ergate::Runtime;
use ergate::request::Request;
use tokio::sync::{mpsc, oneshot};

use super::line::{self, Types};
use super::lines::{Found, LINE_BYTES_MAX, Lines};
use crate::cli::pump::Work;

/// Batches that wait for the pump; reading waits while there are so many.
const BATCHES_AHEAD: usize = 2;

/// What the thread leaves behind when it ends early.
pub(super) type Ending = oneshot::Receiver<anyhow::Error>;

/// Starts to read NDJSON; every request is tagged with the number of its line.
pub(super) fn start(path: &Path, types: Types, runtime: &Runtime) -> anyhow::Result<(mpsc::Receiver<Work<u64>>, Ending)> {
    let input = open(path)?;
    let name = path.display().to_string();
    let (batches, source) = mpsc::channel(BATCHES_AHEAD);
    let (failed, ending) = oneshot::channel();
    let intake = Intake { types, runtime: runtime.clone(), work: Work::new() };
    std::thread::Builder::new().name("ergate-intake".to_owned()).spawn(move || {
        if let Err(error) = intake.read(Lines::new(input), &batches) {
            // Told before the source ends, so that whoever sees the end finds the reason.
            let _ = failed.send(anyhow::Error::from(error).context(format!("failed to read {name}")));
        }
    })?;
    Ok((source, ending))
}

/// Opens a file, or standard input for `-`.
pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn Read + Send>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(path).with_context(|| format!("failed to open {}", path.display()))?))
}

/// One request as a source of its own.
pub(super) fn one(request: Request<'_>, types: Types, runtime: &Runtime) -> mpsc::Receiver<Work<u64>> {
    let (batches, source) = mpsc::channel(1);
    let mut intake = Intake { types, runtime: runtime.clone(), work: Work::new() };
    intake.push(1, Ok(request));
    // An empty channel has room for one.
    let _ = batches.try_send(intake.work);
    source
}

struct Intake {
    types: Types,
    runtime: Runtime,
    work: Work<u64>,
}

impl Intake {
    fn read(mut self, mut lines: Lines<impl Read>, batches: &mpsc::Sender<Work<u64>>) -> io::Result<()> {
        let outcome = loop {
            match lines.next_line() {
                Ok(Some((number, Found::Text(text)))) => self.push(number, line::parse(text)),
                Ok(Some((number, Found::TooLong))) => {
                    self.refuse(number, format!("it is longer than {LINE_BYTES_MAX} bytes"));
                }
                Ok(Some((_, Found::Blank))) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            // What is here goes on its way before the thread waits for more.
            if !self.work.is_empty() && (self.work.is_full() || !lines.is_ready()) {
                let full = std::mem::replace(&mut self.work, Work::new());
                if batches.blocking_send(full).is_err() {
                    return Ok(());
                }
            }
        };
        if !self.work.is_empty() {
            // Without a receiver the run is over.
            let _ = batches.blocking_send(self.work);
        }
        outcome
    }

    fn push(&mut self, number: u64, request: Result<Request<'_>, String>) {
        if let Err(reason) = request.and_then(|request| self.add(number, request)) {
            self.refuse(number, reason);
        }
    }

    fn add(&mut self, number: u64, mut request: Request<'_>) -> Result<(), String> {
        let extras = self.types.take_extras(&mut request)?;
        let task_type = self.runtime.task_type(&request.task_type).map_err(|error| error.to_string())?;
        self.work.requests.push(task_type, &request.payload, extras);
        self.work.tags.push(number);
        Ok(())
    }

    fn refuse(&mut self, number: u64, reason: String) {
        self.work.refused.push((number, reason));
    }
}
