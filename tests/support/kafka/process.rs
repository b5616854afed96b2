//! Processes and directories that do not outlive the test process, not even one that got SIGKILL.
//!
//! Each has a small shell beside it that waits on a pipe of which the test process holds the other end. However that process ends, the
//! kernel closes its end, and the shell cleans up. A broker is known by its process id alone, which stays its own as long as its shell
//! has not collected it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// `$1` is where the output goes, the rest is the command. Says its process id, and ends as it ends.
const SUPERVISE: &str = r#"
log=$1; shift
exec 3<&0
"$@" 3<&- </dev/null >"$log" 2>&1 &
process=$!
echo "$process"
exec >/dev/null
{ read -r _ <&3; kill -9 "$process"; } &
watcher=$!
wait "$process"; code=$?
kill -9 "$watcher"
exit "$code"
"#;

/// Removes the directory `$1`; what its brokers still write while they are being killed, seconds on a busy machine, is removed in a later round.
const SWEEP: &str = r#"
read -r _
round=0
while [ "$round" -lt 150 ]; do
  rm -rf "$1"
  [ -e "$1" ] || exit 0
  sleep 0.2
  round=$((round + 1))
done
"#;

/// A shell in a session of its own: what kills the test and its whole process group must not kill those who clean up behind it.
fn shell(script: &str) -> Command {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", script, "sh"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A process that ends with this one at the latest.
pub(crate) struct Supervised {
    /// Its shell, which ends when it does.
    shell: Child,
    pid: Pid,
}

impl Supervised {
    /// Starts a command whose output goes to a file.
    pub(crate) fn start(command: &[String], log: &Path) -> Supervised {
        let mut shell = shell(SUPERVISE).arg(log).args(command).stdout(Stdio::piped()).spawn().expect("there is a shell");
        let mut line = String::new();
        BufReader::new(shell.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("the shell says one line");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("the shell says a process id");
        Supervised { shell, pid }
    }

    /// Sends it a signal; one that is gone already gets none.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.shell.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until it has ended; false when it has not.
    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        let started = Instant::now();
        while !self.has_ended() && started.elapsed() < limit {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.has_ended()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.signal(Signal::KILL);
            // The shell collects it and ends.
            let _ = self.shell.wait();
        }
    }
}

/// A directory that goes when it is dropped, or when the process ends.
pub(crate) struct Keeper {
    shell: Child,
    dir: tempfile::TempDir,
}

impl Keeper {
    /// Makes an empty one.
    pub(crate) fn new() -> Keeper {
        let dir = tempfile::Builder::new().prefix("ergate-kafka-").tempdir().expect("a temporary directory can be made");
        let shell = shell(SWEEP).arg(dir.path()).spawn().expect("there is a shell");
        Keeper { shell, dir }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
