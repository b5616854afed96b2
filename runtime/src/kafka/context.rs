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
/// What the reasons have in them where brokers were reached and do not let a client in.
const DENIED: [&str; 2] = ["authentication", "certificate"];
/// What they have in them where another try will hardly help either; a broker that ends in the middle of a handshake leaves such a reason, too.
const FINAL: [&str; 2] = ["ssl", "resolve"];

/// Listens to a client: passes its log lines on, and keeps why connections fail, which answers do not tell ("timed out").
#[derive(Clone, Debug, Default)]
pub struct Listener {
    reasons: Arc<Mutex<VecDeque<String>>>,
}

impl Listener {
    /// Why connections failed, where another try will fail too: a wrong password, certificate or name. It holds no secret.
    pub fn refusal(&self) -> Option<String> {
        self.reasons().iter().rev().find(|reason| has(reason, &DENIED) || has(reason, &FINAL)).cloned()
    }

    /// Why brokers that were reached do not let this client in. It holds no secret.
    pub fn denial(&self) -> Option<String> {
        self.reasons().iter().rev().find(|reason| has(reason, &DENIED)).cloned()
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

/// Whether a reason has one of these words. The address before it does not count: it names the protocol, which may be TLS whatever the reason is.
fn has(reason: &str, words: &[&str]) -> bool {
    let reason = reason.split_once(": ").map_or(reason, |(_, reason)| reason).to_lowercase();
    words.iter().any(|word| reason.contains(word))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker behind TLS that was away for a moment was taken for one that refuses, and nobody waited for it.
    #[test]
    fn a_broker_that_is_away_denies_nothing_whatever_its_protocol() {
        let place = "sasl_ssl://127.0.0.1:9093/bootstrap";
        for (reason, denied, final_) in [
            ("Connect to ipv4#127.0.0.1:9093 failed: Connection refused (after 0ms in state CONNECT)", false, false),
            ("Failed to resolve 'nowhere:9093': Name or service not known", false, true),
            ("SASL authentication error: Authentication failed during authentication due to invalid credentials", true, true),
            ("SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", false, true),
            ("SSL handshake failed: certificate verify failed: broker certificate could not be verified", true, true),
        ] {
            let listener = Listener::default();
            listener.keep(&format!("{place}: {reason}"));
            assert_eq!((listener.denial().is_some(), listener.refusal().is_some()), (denied, final_), "{reason}");
        }
    }
}
