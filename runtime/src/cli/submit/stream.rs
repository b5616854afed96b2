//! `ergate submit --ndjson` to a service: any number of lines in a few megabytes of memory, each answered once it is durable.
//!
//! When the connection breaks, lines without an answer are sent again if each has a key, for then nothing is done twice. Where the service itself ends
//! a stream it says what it took, and the rest is sent again with or without keys.

use std::path::Path;
use std::time::Duration;

use ergate::SubmitError;
use hyper::body::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::feed::{self, Batch, Next};
use super::taken::Taken;
use super::window::{Sent, Window};
use crate::cli::remote::lines::Exchange;
use crate::cli::remote::{Problem, Remote, RemoteError};
use crate::cli::signals::Signals;
use crate::cli::{Exit, Globals, output};

/// How often a connection is opened anew without any line being answered in between: about forty seconds, in which a service starts again.
const TRIES_MAX: u32 = 10;
/// Longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Bytes of lines that are sent again together.
const PIECE_BYTES: usize = 64 << 10;

/// What a service says of a line, or at the end of a stream that it does not read on.
#[derive(Deserialize)]
struct Told {
    line: u64,
    id: Option<String>,
    #[serde(default)]
    duplicate: bool,
    refused: Option<String>,
    status: Option<u16>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Submits every line of a file.
pub(super) fn run(remote: &Remote, path: &Path, globals: &Globals) -> anyhow::Result<Exit> {
    remote.block_on(async {
        let source = feed::start(path)?;
        let (window, taken) = (Window::default(), Taken::new(globals));
        let mut stream =
            Stream { remote, source, window, taken, again: Vec::new(), at_end: false, failure: None, answered: 0, unsure: false };
        let ended = stream.run(&mut Signals::listen()?).await;
        stream.finish(ended)
    })
}

struct Stream<'a> {
    remote: &'a Remote,
    source: mpsc::Receiver<Next>,
    window: Window,
    taken: Taken,
    /// Lines that the service had no room for.
    again: Vec<Sent>,
    /// Whether all input was read.
    at_end: bool,
    /// Why it was not read to its end.
    failure: Option<anyhow::Error>,
    /// Lines that were answered on this connection.
    answered: u64,
    /// Whether lines without an answer may be kept all the same.
    unsure: bool,
}

/// How a connection ended.
enum End {
    /// Every line was sent and has its answer.
    Done,
    /// Every line has its answer, and for some there was no room.
    Full,
    /// Somebody interrupted it, and what was sent has its answer.
    Interrupted,
    /// The service reads no further, and every line that it read has its answer.
    Stopped(Problem),
}

impl Stream<'_> {
    /// Sends everything, on as many connections as that takes.
    async fn run(&mut self, signals: &mut Signals) -> anyhow::Result<Exit> {
        let mut tries = 0;
        loop {
            // A service does not wait for the first line, so that comes first.
            if self.window.is_empty() && !self.read_some(signals).await? {
                return Ok(if self.at_end { Exit::Done } else { Exit::Interrupted });
            }
            let before = self.taken.settled();
            self.answered = 0;
            let ended = self.exchange(signals).await;
            // A line that there was no room for has an answer and got no further.
            tries = if self.taken.settled() > before { 1 } else { tries + 1 };
            let again = std::mem::take(&mut self.again);
            self.window.put_back(again);
            self.unsure = match &ended {
                Ok(_) => false,
                Err(error) => {
                    self.unsure || matches!(error.downcast_ref(), Some(RemoteError::Broken { .. } | RemoteError::Late { .. }))
                }
            };
            let asked = match ended {
                Ok(End::Done) => continue,
                Ok(End::Full) if tries < TRIES_MAX => None,
                Ok(End::Full) => {
                    return Err(SubmitError::Busy {
                        reason: "the service has no room for some lines",
                        retry_after: PAUSE_MAX.into(),
                    }
                    .into());
                }
                Ok(End::Interrupted) => return Ok(Exit::Interrupted),
                Ok(End::Stopped(problem)) if tries < TRIES_MAX && is_passing(&problem) => problem.retry_after,
                Ok(End::Stopped(problem)) => return Err(RemoteError::Problem(Box::new(problem)).into()),
                Err(error) if tries < TRIES_MAX && self.may_go_on(&error) => None,
                Err(error) => return Err(error),
            };
            if !self.window.is_empty() {
                let longer = Duration::from_millis(100) * 2_u32.saturating_pow(tries);
                let pause = asked.unwrap_or_default().max(longer).min(PAUSE_MAX);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = signals.next() => return Ok(Exit::Interrupted),
                }
            }
        }
    }

    /// Whether what has no answer may be sent again after this.
    fn may_go_on(&self, error: &anyhow::Error) -> bool {
        let keyed = self.window.unknown().is_none_or(|(_, _, without_key)| without_key == 0);
        match error.downcast_ref::<RemoteError>() {
            // Nobody was there to take anything, but somebody was before.
            Some(RemoteError::Unreachable { .. }) => self.taken.any() && keyed,
            Some(RemoteError::Broken { .. } | RemoteError::Late { .. }) => keyed,
            Some(RemoteError::Problem(problem)) => is_passing(problem),
            Some(RemoteError::Tls { .. } | RemoteError::Foreign { .. } | RemoteError::Credential(_)) | None => false,
        }
    }

    /// Waits until there is a line to send; false when there is none any more.
    async fn read_some(&mut self, signals: &mut Signals) -> anyhow::Result<bool> {
        while self.window.is_empty() {
            let next = tokio::select! {
                next = self.source.recv() => next,
                () = signals.next() => return Ok(false),
            };
            match self.accept(next)? {
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Takes over what was read; gives it as it is sent, or `None` at the end of the input.
    fn accept(&mut self, next: Option<Next>) -> anyhow::Result<Option<Bytes>> {
        let Some(next) = next else {
            self.at_end = true;
            return Ok(None);
        };
        let Batch { lines, refused, .. } = match next {
            Ok(batch) => batch,
            Err(error) => {
                // What was read before goes on its way, and then this is told.
                self.failure = Some(error);
                self.at_end = true;
                return Ok(None);
            }
        };
        refused.into_iter().try_for_each(|(line, reason)| self.taken.refuse(line, reason))?;
        let piece = joined(lines.iter().map(|sent| sent.text.as_slice()));
        lines.into_iter().for_each(|sent| self.window.push(sent));
        Ok(Some(piece))
    }

    /// Sends what has no answer and then what comes, until all has been answered.
    async fn exchange(&mut self, signals: &mut Signals) -> anyhow::Result<End> {
        let mut exchange = Exchange::open(self.remote).await?;
        let mut pieces: std::collections::VecDeque<Bytes> = pieces(self.window.texts()).into();
        let (mut interrupted, mut stopped) = (false, None);
        loop {
            if pieces.is_empty() && (self.at_end || interrupted) {
                exchange.end();
            }
            let sender = exchange.sender();
            let is_open = sender.is_some();
            let wait = self.remote.within();
            tokio::select! {
                answers = exchange.answers(self.remote) => match answers? {
                    None => return self.ended(interrupted, stopped),
                    Some(answers) => stopped = self.take(&answers)?.or(stopped),
                },
                // Nobody reads any more once the service has stopped, and its answers say why.
                Some(permit) = permit(sender), if !pieces.is_empty() => {
                    if let Some(piece) = pieces.pop_front() {
                        permit.send(piece);
                    }
                }
                next = self.source.recv(), if is_open && pieces.is_empty() && !self.at_end && self.window.has_room() => {
                    pieces.extend(self.accept(next)?.filter(|piece| !piece.is_empty()));
                }
                () = signals.next() => {
                    if interrupted {
                        return Ok(End::Interrupted);
                    }
                    (interrupted, pieces) = (true, Default::default());
                }
                () = tokio::time::sleep(wait), if !self.window.is_empty() => return Err(self.remote.late().into()),
            }
        }
    }

    /// The end of the answers: at the end of the lines, or because the service stopped, or nobody knows why.
    fn ended(&self, interrupted: bool, stopped: Option<Problem>) -> anyhow::Result<End> {
        match stopped {
            _ if interrupted => Ok(End::Interrupted),
            Some(problem) => Ok(End::Stopped(problem)),
            None if self.window.is_empty() && self.again.is_empty() => Ok(End::Done),
            None if self.window.is_empty() => Ok(End::Full),
            None => Err(self.remote.broken(&std::io::Error::from(std::io::ErrorKind::UnexpectedEof), "").into()),
        }
    }

    /// Takes answers; gives the problem for which the service reads no further.
    fn take(&mut self, answers: &[Vec<u8>]) -> anyhow::Result<Option<Problem>> {
        for answer in answers {
            let told: Told = self.remote.parse(answer)?;
            if told.kind.is_some() {
                return Ok(serde_json::from_slice(answer).ok().and_then(Problem::read));
            }
            self.answered += 1;
            let Some(sent) = self.window.pop().filter(|_| told.line == self.answered) else {
                return Err(self.remote.foreign(format!("line {} out of turn", told.line)).into());
            };
            self.settle(sent, told)?;
        }
        self.taken.flush()?;
        Ok(None)
    }

    fn settle(&mut self, sent: Sent, told: Told) -> anyhow::Result<()> {
        match (told.id, told.refused) {
            (Some(id), _) => self.taken.accept(sent.line, id, told.duplicate),
            // There was no room for it, and it was not taken.
            (None, _) if told.status == Some(429) => {
                self.again.push(sent);
                Ok(())
            }
            (None, reason) => self.taken.refuse(sent.line, reason.unwrap_or_default()),
        }
    }

    /// Says what became of everything.
    fn finish(mut self, ended: anyhow::Result<Exit>) -> anyhow::Result<Exit> {
        let clean = matches!(ended, Ok(Exit::Done));
        if clean || self.taken.any() {
            self.taken.finish()?;
        }
        if let Some((first, last, without_key)) = self.window.unknown().filter(|_| !clean) {
            let kept = self.taken.last_line().map_or_else(String::new, |line| format!("lines up to {line} have their answer; "));
            output::note(&match (self.unsure, without_key) {
                (false, _) => format!("{kept}line {first} and what follows was not taken"),
                (true, 0) => format!("{kept}lines {first} to {last} may or may not be kept; each has a key, so send them again"),
                (true, _) => format!(
                    "{kept}lines {first} to {last} may or may not be kept; {without_key} of them have no key: look whether they are there before you send them again"
                ),
            });
        }
        match (ended, self.failure) {
            (Ok(_), Some(failure)) => Err(failure),
            (Ok(Exit::Done), None) => Ok(self.taken.exit()),
            (ended, _) => ended,
        }
    }
}

/// Whether a problem goes away by itself: the service is full, stopping, or had nothing to read.
fn is_passing(problem: &Problem) -> bool {
    matches!(problem.status, 408 | 429 | 503)
}

/// Room for a piece; `None` once nobody takes any.
async fn permit(sender: Option<mpsc::Sender<Bytes>>) -> Option<mpsc::OwnedPermit<Bytes>> {
    sender?.reserve_owned().await.ok()
}

/// Lines as one piece of a body.
fn joined<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let mut piece = Vec::new();
    for line in lines {
        piece.extend_from_slice(line);
        piece.push(b'\n');
    }
    piece.into()
}

/// Lines as pieces of a body.
fn pieces<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<Bytes> {
    let (mut all, mut piece) = (Vec::new(), Vec::new());
    for line in lines {
        piece.extend_from_slice(line);
        piece.push(b'\n');
        if piece.len() >= PIECE_BYTES {
            all.push(Bytes::from(std::mem::take(&mut piece)));
        }
    }
    all.extend((!piece.is_empty()).then(|| piece.into()));
    all
}
