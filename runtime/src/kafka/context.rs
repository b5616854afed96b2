//! What librdkafka says besides its answers: log lines and errors of a connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

/// Reasons that are kept; what went wrong first and what goes wrong now are among them.
const REASONS_KEPT: usize = 16;
/// What the reasons have in them that another try will not change.
const FINAL: [&str; 4] = ["authentication", "ssl", "resolve", "certificate"];

/// Listens to a client: passes its log lines on, and keeps why connections fail, which answers do not tell ("timed out").
#[derive(Clone, Debug, Default)]
pub struct Listener {
    reasons: Arc<Mutex<VecDeque<String>>>,
}

impl Listener {
    /// Why connections failed, where another try will fail too: a wrong password, certificate or name. It holds no secret.
    pub fn refusal(&self) -> Option<String> {
        let is_final = |reason: &&String| FINAL.iter().any(|word| reason.to_lowercase().contains(word));
        self.reasons().iter().rev().find(is_final).cloned()
    }

    /// Why a connection failed last. It holds no secret.
    pub fn reason(&self) -> Option<String> {
        self.reasons().back().cloned()
    }

    fn reasons(&self) -> MutexGuard<'_, VecDeque<String>> {
        // Every change is one call, so a panic leaves nothing halfway.
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, reason: &str) {
        let mut reasons = self.reasons();
        if reasons.len() == REASONS_KEPT {
            reasons.pop_front();
        }
        reasons.push_back(reason.to_owned());
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, text: &str) {
        // Some failures come as log lines alone.
        if fac == "FAIL" {
            // Before it stands the name of a thread.
            self.keep(text.split_once("]: ").map_or(text, |(_, reason)| reason));
        }
        match level {
            // Options reach every client, and each says of those of the other kinds that it ignores them.
            _ if fac == "CONFWARN" => tracing::debug!(target: "librdkafka", fac, text, "client"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::info!(target: "librdkafka", fac, text, "client");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", fac, text, "client");
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::info!(target: "librdkafka", %error, reason, "connection");
        // "All brokers are down" says nothing that the others do not.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.keep(reason);
        }
    }
}

impl ConsumerContext for Listener {}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.error(error.clone(), &error.to_string());
        }
    }
}
