//! The end of a runtime.

use std::sync::Arc;
use std::time::Duration;

use ergate_events::log::LogError;

use super::{Front, Runtime};
use crate::wiring::{self, Parts};

/// Stopping.
impl Runtime {
    /// Lets running attempts finish for at most `drain`, makes everything durable and stops. Tasks that are not done go on at the next start; on
    /// Kafka other engines take the shards over and go on with them at once.
    ///
    /// # Errors
    /// [`LogError`] when the log could not be closed; what was acknowledged is durable all the same.
    pub async fn shutdown_within(&self, drain: Duration) -> Result<(), LogError> {
        #[cfg(feature = "requests")]
        match &self.inner.front {
            // First, for what is on its way wants its answer yet.
            Front::Local(parts) => parts.sources.end().await,
            #[cfg(feature = "kafka")]
            Front::Kafka(_) => {}
        }
        self.inner.room.close();
        self.inner.plugins.stop_generators().await;
        #[cfg(all(feature = "http", feature = "process"))]
        self.end_fleet(drain).await;
        match &self.inner.front {
            Front::Local(parts) => self.shut_down(parts, drain).await,
            #[cfg(feature = "kafka")]
            Front::Kafka(engine) => {
                engine.stop(drain).await;
                self.inner.plugins.finish_observers().await;
                self.end_functions().await;
                Ok(())
            }
        }
    }

    /// Ends the processes of pools, which report what they did as long as they are there.
    #[cfg(all(feature = "http", feature = "process"))]
    async fn end_fleet(&self, drain: Duration) {
        let fleet = self.inner.fleet.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(fleet) = fleet {
            fleet.end(drain).await;
        }
    }

    /// Ends what attempts that are cut off have going outside this process. After the log was closed, for that is no failure of theirs.
    async fn end_functions(&self) {
        let functions = Arc::clone(&self.inner.functions);
        let ended = tokio::task::spawn_blocking(move || functions.iter().for_each(|function| function.close()));
        if ended.await.is_err() {
            tracing::error!("a task function panicked while it was closed");
        }
    }

    /// Ends the one shard of a log that only this process has.
    async fn shut_down(&self, parts: &Parts, drain: Duration) -> Result<(), LogError> {
        let mut thread = self.inner.thread.lock().await;
        if thread.is_none() {
            return Ok(());
        }
        wiring::drain(parts, drain).await;
        let outcome = parts.close().await;
        self.inner.plugins.finish(parts).await;
        self.end_functions().await;
        parts.system.stop();
        if let Some(thread) = thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the shard's thread panicked");
            }
        }
        outcome
    }

    /// As [`Runtime::shutdown_within`] ten seconds.
    ///
    /// # Errors
    /// As [`Runtime::shutdown_within`].
    pub async fn shutdown(&self) -> Result<(), LogError> {
        self.shutdown_within(Duration::from_secs(10)).await
    }
}
