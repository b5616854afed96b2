//! SIGINT and SIGTERM: the first asks a verb to end well, the second to end now.

use std::future::Future;
use std::time::Duration;

use ergate::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output;

/// How long closing may take after the second signal. Nothing depends on it: a log survives the end of its process at any moment.
const CLOSE_NOW: Duration = Duration::from_secs(2);

/// The signals of this process. While this exists they no longer end it by themselves.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// SIGHUP, by which an operator asks a service to read its files again.
pub(crate) struct Hangup(Signal);

impl Hangup {
    /// Begins to listen. While this exists the signal no longer ends the process.
    pub(crate) fn listen() -> std::io::Result<Hangup> {
        signal(SignalKind::hangup()).map(Hangup)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Runs the async part of a verb. What still blocks at its end, such as a read of a silent input, is left behind.
pub(crate) fn block_on<T>(verb: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(verb);
    runtime.shutdown_background();
    outcome
}

/// Lets running attempts end for at most `drain` and closes the log; a signal in the meantime closes it at once.
pub(crate) async fn close(runtime: &Runtime, signals: &mut Signals, drain: Duration) -> anyhow::Result<()> {
    let closed = tokio::select! {
        closed = runtime.shutdown_within(drain) => Some(closed),
        () = signals.next() => None,
    };
    if let Some(closed) = closed {
        return closed.map_err(Into::into);
    }
    output::note("stopping now; attempts that still run are repeated at the next start");
    match tokio::time::timeout(CLOSE_NOW, runtime.shutdown_within(Duration::ZERO)).await {
        Ok(closed) => closed.map_err(Into::into),
        Err(_) => Ok(()),
    }
}
