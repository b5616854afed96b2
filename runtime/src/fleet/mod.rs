//! Pools whose replicas are processes: a worker for each, started here, which speaks to this engine through a socket that only its own user may use.
//!
//! ```text
//!  LogWriter ─▶ Dispatcher ──ProcessOrder──▶ Keeper ──starts, ends──▶ processes
//!      ▲                                        │                        │
//!      ├──ProcessUp, ProcessDown────────────────┘                        │
//!      └──── hub ◀──── Socket ◀──── register, lease, report ─────────────┘
//! ```
//! What a process does is a worker's business ([`crate::worker`]); here it is started when the log asks for a replica, drained when the log wants it no
//! more, and its end is recorded: what it had goes to others at once. A process that ends by itself is replaced after a wait that grows.

mod child;
mod keeper;
mod socket;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use ergate_actors::dispatcher::ProcessOrder;
use tokio::sync::{mpsc, oneshot};

use self::keeper::Keeper;
use self::socket::Socket;
use crate::Runtime;
use crate::runtime::StartError;

/// How long processes may take beyond their time before they are killed.
const KILL_AFTER: Duration = Duration::from_secs(2);

/// How the processes of a pool are started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerCommand {
    /// The program: one that asks the engine for work, as `ergate worker` does.
    pub program: PathBuf,
    /// Its arguments; `{engine}`, `{pool}`, `{slots}`, `{id}`, `{name}` and `{gpu}` in them are replaced.
    pub arguments: Vec<OsString>,
    /// GPUs by index or uuid, one of which each process gets in place of `{gpu}` and as `CUDA_VISIBLE_DEVICES`; none where this is empty.
    pub gpus: Vec<String>,
    /// How long a process may take until the engine knows it.
    pub ready_within: Duration,
}

/// The processes of a runtime.
pub(crate) struct Fleet {
    ends: mpsc::UnboundedSender<End>,
    thread: Option<JoinHandle<()>>,
    socket: Option<Socket>,
}

/// All processes are to end within this time.
struct End {
    limit: Duration,
    done: oneshot::Sender<()>,
}

impl Fleet {
    /// Serves workers on a socket of this machine, and starts what the log asks for.
    pub(crate) fn start(
        runtime: &Runtime,
        pools: BTreeMap<String, WorkerCommand>,
        orders: mpsc::UnboundedReceiver<ProcessOrder>,
        directory: Option<PathBuf>,
    ) -> Result<Fleet, StartError> {
        let socket = Socket::open(directory, runtime.clone())?;
        let (ends, end) = mpsc::unbounded_channel();
        let keeper = Keeper::new(runtime, pools, socket.url());
        let thread = std::thread::Builder::new().name("ergate-fleet".to_owned());
        let thread = thread.spawn(move || keeper.run(orders, end)).map_err(StartError::Thread)?;
        Ok(Fleet { ends, thread: Some(thread), socket: Some(socket) })
    }

    /// Lets the processes end what they do for at most so long.
    pub(crate) async fn end(mut self, limit: Duration) {
        let (done, ended) = oneshot::channel();
        if self.ends.send(End { limit, done }).is_ok() {
            let _ = ended.await;
        }
        let (thread, socket) = (self.thread.take(), self.socket.take());
        let joined = tokio::task::spawn_blocking(move || {
            let joined = thread.is_none_or(|thread| thread.join().is_ok());
            drop(socket);
            joined
        });
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("the thread that keeps the processes panicked");
        }
    }
}
