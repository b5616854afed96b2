//! One command from its start to its end.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ergate_events::task::PAYLOAD_BYTES_MAX;
use rustix::process::Signal;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::environment::of_attempt;
use super::group::Group;
use super::kept::Kept;
use super::lines::{Line, Lines};
use super::scratch::{Scratch, in_memory};
use super::{Parts, PayloadBy, exit};
use crate::executor::bytes::Hurry;
use crate::executor::context::Context;
use crate::executor::function::TaskError;
use crate::executor::gate;
use crate::executor::word::{Word, WordError};

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;
/// Reads from one pipe before anything else has its turn, and after the command has ended: twice what a pipe holds at most.
const READS_MAX: usize = (2 << 20) / READ_BYTES;

/// Runs a command for an attempt; its result is what it wrote to stdout.
pub(super) async fn run(parts: Arc<Parts>, context: Context, payload: Vec<u8>, hurry: Hurry) -> Result<Vec<u8>, TaskError> {
    let _room = gate::enter(&parts.gate, &context).await?;
    let (group, mut running) = start(&parts, &context, payload).await.map_err(|error| not_started(&parts, &error))?;
    running.attend(&group, &context, &hurry, parts.settings.kill_after).await;
    // This also kills what is left of the group; what was said before lies in the pipes.
    let status = group.finish();
    running.read_all(&context);
    running.end(&parts, &context, status)
}

/// Starts a command on a thread that may wait: until the new process has begun its program, whoever starts it stands still. What is started for an
/// attempt that was dropped in the meantime is killed when it is dropped too.
async fn start(parts: &Arc<Parts>, context: &Context, payload: Vec<u8>) -> io::Result<(Group, Running)> {
    let (parts, context) = (Arc::clone(parts), context.clone());
    let started = tokio::task::spawn_blocking(move || Running::start(&parts, &context, payload));
    started.await.map_err(io::Error::other)?
}

/// What is known of a command that could not be started: most of it passes, but no other attempt finds a missing interpreter.
fn not_started(parts: &Parts, error: &io::Error) -> TaskError {
    let message = format!("failed to start {}: {error}", parts.program.display());
    let no_exec = error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error());
    if no_exec || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) {
        return TaskError::permanent("spawn", message);
    }
    TaskError::new("spawn", message)
}

/// What a command said so far.
struct Running {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    report: Option<pipe::Receiver>,
    result: Vec<u8>,
    log: Kept,
    lines: Lines,
    /// Why it was asked to end.
    stopped: Option<Stopped>,
    /// Removed last of all.
    _scratch: Scratch,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    Cancelled,
    ResultTooLarge,
}

impl Running {
    fn start(parts: &Parts, context: &Context, payload: Vec<u8>) -> io::Result<(Group, Running)> {
        let file = (parts.settings.payload == PayloadBy::File).then_some(payload.as_slice());
        let scratch = Scratch::new(file, context.checkpoint())?;
        let report = scratch.open_report()?;
        let stdin = if file.is_none() { Stdio::from(in_memory(&payload)?) } else { Stdio::null() };
        let mut child = command(parts, context, &scratch).stdin(stdin).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let group = Group::new(&parts.groups, child)?;
        let running = Running {
            stdout: stdout.map(|pipe| pipe::Receiver::from_owned_fd(pipe.into())).transpose()?,
            stderr: stderr.map(|pipe| pipe::Receiver::from_owned_fd(pipe.into())).transpose()?,
            report: Some(report),
            result: Vec::new(),
            log: Kept::default(),
            lines: Lines::default(),
            stopped: None,
            _scratch: scratch,
        };
        Ok((group, running))
    }

    /// Reads what the command says until it has ended, and ends it when it must.
    async fn attend(&mut self, group: &Group, context: &Context, hurry: &Hurry, kill_after: Duration) {
        let mut kill_at = None;
        loop {
            tokio::select! {
                () = group.exited() => return,
                () = readable(self.stdout.as_ref()) => self.read_result(),
                () = readable(self.stderr.as_ref()) => self.read_log(),
                () = readable(self.report.as_ref()) => self.read_words(context),
                () = context.cancelled(), if self.stopped.is_none() => self.stopped = Some(Stopped::Cancelled),
                () = hurry.notified(), if kill_at.is_some() => group.signal(Signal::KILL),
                () = tokio::time::sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                    group.signal(Signal::KILL);
                    kill_at = Some(Instant::now() + kill_after.max(Duration::from_secs(1)));
                }
            }
            if self.stopped.is_some() && kill_at.is_none() {
                group.signal(Signal::TERM);
                kill_at = Some(Instant::now() + kill_after);
                forget(hurry).await;
            }
        }
    }

    fn read_result(&mut self) {
        let (result, mut over) = (&mut self.result, false);
        drain(&mut self.stdout, |bytes| {
            over |= result.len() + bytes.len() > PAYLOAD_BYTES_MAX;
            if !over {
                result.extend_from_slice(bytes);
            }
        });
        if over {
            // Whatever else it writes meets a closed pipe.
            self.stdout = None;
            self.stopped = Some(Stopped::ResultTooLarge);
        }
    }

    fn read_log(&mut self) {
        drain(&mut self.stderr, |bytes| self.log.push(bytes));
    }

    fn read_words(&mut self, context: &Context) {
        let (lines, log) = (&mut self.lines, &mut self.log);
        drain(&mut self.report, |bytes| lines.push(bytes, |number, line| hear(context, log, number, line)));
    }

    /// Reads what is left in the pipes of a command that has ended.
    fn read_all(&mut self, context: &Context) {
        self.read_result();
        self.read_log();
        self.read_words(context);
        let log = &mut self.log;
        self.lines.finish(|number, line| hear(context, log, number, line));
    }

    /// How the attempt ended.
    fn end(self, parts: &Parts, context: &Context, status: io::Result<ExitStatus>) -> Result<Vec<u8>, TaskError> {
        let Running { result, log, stopped, .. } = self;
        tell(parts, context, &log, status.as_ref().ok());
        if stopped == Some(Stopped::ResultTooLarge) {
            return Err(too_large(&log));
        }
        let status =
            status.map_err(|error| TaskError::new("spawn", format!("failed to learn how the command ended: {error}")))?;
        match exit::outcome(status, &parts.settings.non_retryable, &log) {
            Err(_) if stopped == Some(Stopped::Cancelled) => Err(gate::cancelled("and ended")),
            outcome => outcome.map(|()| result),
        }
    }
}

fn command(parts: &Parts, context: &Context, scratch: &Scratch) -> Command {
    let mut command = Command::new(&parts.program);
    command.args(&parts.settings.arguments).process_group(0);
    command.env_clear().envs(&parts.environment);
    command.envs(of_attempt(&parts.settings.task_type, context, scratch.files()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(directory) = &parts.settings.directory {
        command.current_dir(directory);
    }
    command
}

/// Waits until a pipe has something to read, or has ended.
async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // An error is found by the read.
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

/// Reads what a pipe has; it is `None` once it has ended.
fn drain(pipe: &mut Option<pipe::Receiver>, mut take: impl FnMut(&[u8])) {
    let mut buffer = [0; READ_BYTES];
    for _ in 0..READS_MAX {
        let Some(open) = pipe else { return };
        let read = match open.try_read(&mut buffer) {
            // That nobody has been told of something to read does not say that there is nothing: the command may have ended before anybody looked.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => read_now(open, &mut buffer),
            read => read,
        };
        match read {
            Ok(read) if read > 0 => take(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => *pipe = None,
        }
    }
}

/// Reads what a pipe has at this moment, whatever is known of it.
fn read_now(pipe: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    rustix::io::read(pipe, buffer).map_err(Into::into)
}

/// Takes one line of the report; what is none is noted in the attempt's log and harms nobody.
fn hear(context: &Context, log: &mut Kept, number: u64, line: Line<'_>) {
    match line.map_or(Err(WordError::Long), Word::parse) {
        Ok(word) => word.tell(context),
        Err(error) => log.note(&format!("line {number} of the report was passed over: {error}")),
    }
}

/// Forgets that somebody was in a hurry when the command was not yet asked to end.
async fn forget(hurry: &Hurry) {
    tokio::select! {
        biased;
        () = hurry.notified() => {}
        () = std::future::ready(()) => {}
    }
}

/// Tells the attempt's log to whoever follows ours.
fn tell(parts: &Parts, context: &Context, log: &Kept, status: Option<&ExitStatus>) {
    let attempt = context.attempt();
    let (task, attempt, task_type) = (attempt.task, attempt.number, parts.settings.task_type.as_str());
    if status.is_some_and(ExitStatus::success) {
        if !log.is_empty() {
            tracing::debug!(%task, attempt, task_type, stderr = log.text(), "a command succeeded and said this");
        }
    } else {
        let status = status.map(ToString::to_string);
        tracing::info!(%task, attempt, task_type, status, stderr = log.text(), "a command did not succeed");
    }
}

fn too_large(log: &Kept) -> TaskError {
    let sentence = format!(
        "the command wrote more than {PAYLOAD_BYTES_MAX} bytes to stdout, the limit of a result; store it elsewhere and print where"
    );
    TaskError::permanent("result", exit::with_log(&sentence, log))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_wrote_is_read_although_nobody_was_told_of_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _inside = runtime.enter();
        let (from, to) = std::io::pipe().unwrap();
        let mut pipe = Some(pipe::Receiver::from_owned_fd(from.into()).unwrap());
        // The runtime never looks for events here.
        io::Write::write_all(&mut &to, b"2\n").unwrap();
        let mut found = Vec::new();
        drain(&mut pipe, |bytes| found.extend_from_slice(bytes));
        assert_eq!((found.as_slice(), pipe.is_some()), (&b"2\n"[..], true), "more may come");
        drop(to);
        drain(&mut pipe, |_| panic!("nothing more came"));
        assert!(pipe.is_none());
    }
}
