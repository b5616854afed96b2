//! A process that this one keeps: it leads a group of its own, what it says is handed on line by line, and nothing of the group outlives it.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// Longest line that is handed on in one piece, in bytes.
const LINE_BYTES_MAX: u64 = 4_000;
/// Longest line that is kept for whoever asks how the process ended, in bytes.
const LAST_BYTES_MAX: usize = 1_000;
/// How long it is waited for the last words of a process that has ended; somebody else may hold its pipes.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A process that runs, or has ended and nobody has looked yet.
pub(crate) struct Child {
    group: Arc<Group>,
    /// Closed with this value: whoever reads it knows then that nobody keeps the process any more. One that cannot know is ended.
    stdin: Option<ChildStdin>,
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.stdin.is_none() {
            self.kill();
        }
    }
}

/// How a process ended, and what it said last.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) last_line: String,
}

impl Exit {
    /// Its code, or the signal that ended it.
    pub(crate) fn code_or_signal(&self) -> (Option<u8>, Option<u8>) {
        let small = |number: i32| u8::try_from(number).ok();
        (self.status.code().and_then(small), self.status.signal().and_then(small))
    }
}

/// A group as long as its number is ours.
struct Group {
    pid: Pid,
    is_over: Mutex<bool>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        let is_over = lock(&self.is_over);
        if !*is_over {
            // A group that is gone is what is wanted.
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Ends what the process left behind, and gives its number back.
    fn finish(&self, child: &mut std::process::Child) -> io::Result<ExitStatus> {
        let mut is_over = lock(&self.is_over);
        let _ = kill_process_group(self.pid, Signal::KILL);
        *is_over = true;
        child.wait()
    }
}

impl Child {
    /// Starts a process; its stdin is empty unless `has_stdin`, and what it writes comes line by line to `said`. `exited` is called with its end. Both
    /// are called on threads of their own.
    ///
    /// # Errors
    /// What the system says where it cannot be started.
    pub(crate) fn start(
        mut command: Command,
        has_stdin: bool,
        said: impl Fn(&[u8]) + Clone + Send + 'static,
        exited: impl FnOnce(Exit) + Send + 'static,
    ) -> io::Result<Child> {
        let stdin = if has_stdin { Stdio::piped() } else { Stdio::null() };
        let mut child = command.process_group(0).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let group = Arc::new(Group { pid: Pid::from_child(&child), is_over: Mutex::new(false) });
        let stdin = child.stdin.take();
        let last: Arc<Mutex<String>> = Arc::default();
        let stdout = child.stdout.take().map(|pipe| follow(pipe, said.clone(), Arc::clone(&last)));
        let stderr = child.stderr.take().map(|pipe| follow(pipe, said, Arc::clone(&last)));
        let own = Arc::clone(&group);
        std::thread::spawn(move || {
            // Not fetched yet, so that the number stays its own while the rest of the group is ended.
            let _ = waitid(WaitId::Pid(own.pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let Ok(status) = own.finish(&mut child) else { return };
            let waited = Instant::now();
            let pipes: Vec<_> = [stdout, stderr].into_iter().flatten().collect();
            while pipes.iter().any(|pipe| !pipe.is_finished()) && waited.elapsed() < LAST_WORDS {
                std::thread::sleep(Duration::from_millis(1));
            }
            let last_line = lock(&last).clone();
            exited(Exit { status, last_line });
        });
        Ok(Child { group, stdin })
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.group.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Asks everybody in the group to end.
    pub(crate) fn terminate(&self) {
        self.group.signal(Signal::TERM);
    }

    /// Ends everybody in the group.
    pub(crate) fn kill(&self) {
        self.group.signal(Signal::KILL);
    }
}

/// Hands on what is written to a pipe, and remembers the last line.
fn follow(
    pipe: impl Read + Send + 'static,
    said: impl Fn(&[u8]) + Send + 'static,
    last: Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut pipe, mut line) = (BufReader::new(pipe), Vec::new());
        while let Ok(1..) = (&mut pipe).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            said(&line);
            let text = line.trim_ascii();
            if !text.is_empty() {
                *lock(&last) = String::from_utf8_lossy(&text[..text.len().min(LAST_BYTES_MAX)]).into_owned();
            }
            line.clear();
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn start(script: &str) -> (Child, mpsc::Receiver<Vec<u8>>, mpsc::Receiver<Exit>) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let ((said, lines), (exited, exit)) = (mpsc::channel(), mpsc::channel());
        let child = Child::start(command, true, move |line| drop(said.send(line.to_vec())), move |end| drop(exited.send(end)));
        (child.unwrap(), lines, exit)
    }

    #[test]
    fn its_end_is_told_with_what_it_said_last() {
        let (_child, lines, exit) = start("echo one; echo two >&2; exit 3");
        let exit = exit.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(exit.code_or_signal(), (Some(3), None));
        assert!(["one", "two"].contains(&exit.last_line.as_str()), "{exit:?}");
        let mut all: Vec<_> = lines.try_iter().collect();
        all.sort();
        assert_eq!(all, [b"one\n", b"two\n"]);
    }

    #[test]
    fn nothing_of_its_group_outlives_it() {
        let (_child, lines, exit) = start("sleep 1000 & echo $!");
        let exit = exit.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(exit.code_or_signal(), (Some(0), None));
        let left: i32 = String::from_utf8(lines.recv().unwrap()).unwrap().trim().parse().unwrap();
        let is_there = || {
            // One that was killed and that nobody has fetched yet is no process any more.
            let stat = std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
        };
        let begun = Instant::now();
        while is_there() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it lives");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn it_is_asked_to_end_and_hears_when_nobody_keeps_it() {
        let (child, _, exit) = start("trap 'exit 7' TERM; while :; do sleep 0.01; done");
        std::thread::sleep(Duration::from_millis(200));
        child.terminate();
        assert_eq!(exit.recv_timeout(Duration::from_secs(20)).unwrap().code_or_signal(), (Some(7), None));
        let (child, _, exit) = start("cat; exit 5");
        drop(child);
        assert_eq!(exit.recv_timeout(Duration::from_secs(20)).unwrap().code_or_signal(), (Some(5), None));
        let (child, _, exit) = start("trap '' TERM; while :; do sleep 0.01; done");
        child.kill();
        assert_eq!(exit.recv_timeout(Duration::from_secs(20)).unwrap().code_or_signal(), (None, Some(9)));
        // Its number may be somebody else's by now.
        child.kill();
    }
}
