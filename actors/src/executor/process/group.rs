//! Process groups of running commands: asked to stop, killed, and never left behind.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The groups of one task type that may have a process in them.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    groups: HashSet<Pid>,
    closed: bool,
}

impl Groups {
    fn with<T>(&self, act: impl FnOnce(&mut Live) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends all groups: TERM, and KILL for those that are still there `grace` later. What is started from here on is killed at once.
    pub(super) fn close(&self, grace: Duration) {
        let all = self.with(|live| {
            live.closed = true;
            live.groups.clone()
        });
        if all.is_empty() {
            return;
        }
        self.signal(&all, Signal::TERM);
        let until = Instant::now() + grace;
        while Instant::now() < until && all.iter().any(|group| test_kill_process_group(*group).is_ok()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.signal(&all, Signal::KILL);
    }

    /// Signals those of the groups that are still ours; a number that was given back may be somebody else's by now.
    fn signal(&self, all: &HashSet<Pid>, signal: Signal) {
        self.with(|live| {
            for group in all.intersection(&live.groups) {
                // A group that is gone is what is wanted.
                let _ = kill_process_group(*group, signal);
            }
        });
    }
}

/// A command and the group that it leads.
pub(super) struct Group {
    groups: Arc<Groups>,
    /// `None` once its status was fetched.
    child: Option<Child>,
    pid: Pid,
    exited: AsyncFd<OwnedFd>,
}

impl Group {
    /// Takes charge of a command that leads a group of its own.
    pub(super) fn new(groups: &Arc<Groups>, child: Child) -> io::Result<Group> {
        let pid = Pid::from_child(&child);
        match watch(pid) {
            Ok(exited) => {
                let closed = groups.with(|live| {
                    live.groups.insert(pid);
                    live.closed
                });
                let group = Group { groups: Arc::clone(groups), child: Some(child), pid, exited };
                if closed {
                    group.signal(Signal::KILL);
                }
                Ok(group)
            }
            Err(error) => {
                let _ = kill_process_group(pid, Signal::KILL);
                reap(child);
                Err(error)
            }
        }
    }

    /// Waits until the command has ended; its status is not fetched yet, so that its number stays its own.
    pub(super) async fn exited(&self) {
        // The descriptor of a process cannot fail to be waited for; if it did, the attempt's time limit would end it.
        if self.exited.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Signals everybody in the group.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.pid, signal);
    }

    /// Kills what the command left behind in its group, and fetches its status. Waits, not for long, if it has not ended yet.
    pub(super) fn finish(mut self) -> io::Result<ExitStatus> {
        self.end();
        self.child.take().map_or_else(|| Err(io::ErrorKind::NotFound.into()), |mut child| child.wait())
    }

    fn end(&self) {
        self.groups.with(|live| {
            // While the number is ours: the leader is not fetched yet.
            let _ = kill_process_group(self.pid, Signal::KILL);
            live.groups.remove(&self.pid);
        });
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Dropped with its replica's thread: nobody is there to wait any more.
        if let Some(child) = self.child.take() {
            self.end();
            reap(child);
        }
    }
}

/// A descriptor that can be read once the process has ended.
#[expect(
    deprecated,
    reason = "what is to replace it is unsafe, for descriptors that somebody else may close; nobody closes an OwnedFd"
)]
fn watch(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::NONBLOCK)?, Interest::READABLE)
}

/// Fetches the status of a command that was killed, on a thread of its own: in the worst case a disk keeps it for a while.
fn reap(mut child: Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let reaper = std::thread::Builder::new().name("ergate-reaper".to_owned());
    if let Err(error) = reaper.spawn(move || drop(child.wait())) {
        tracing::warn!(%error, "a command that was killed stays in the table of processes until this process ends");
    }
}
