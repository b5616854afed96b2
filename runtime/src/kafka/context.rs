//! What librdkafka says besides its answers: log lines and errors of a connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

/// Reasons that are kept; what went wrong first and what goes wrong now are among them.
const REASONS_KEPT: usize = 16;
/// What the reasons have in them that tell more than that nobody answered.
const TELLING: [&str; 4] = ["authentication", "ssl", "resolve", "certificate"];

/// Listens to a client: passes its log lines on, and keeps why connections fail, which answers do not tell ("timed out").
#[derive(Clone, Debug, Default)]
pub struct Listener {
    reasons: Arc<Mutex<VecDeque<String>>>,
}

impl Listener {
    /// Why connections failed lately: a refusal of this user or of a certificate before anything else. It holds no secret.
    pub fn reason(&self) -> Option<String> {
        // Every change is one call, so a panic leaves nothing halfway.
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let tells = |reason: &&String| TELLING.iter().any(|word| reason.to_lowercase().contains(word));
        reasons.iter().rev().find(tells).or_else(|| reasons.back()).cloned()
    }

    fn keep(&self, reason: &str) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
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
