//! Limits of the brokers beside what the engines are going to ask of them.

use std::time::Duration;

use ergate::kafka::topics::{EVENT_BYTES_MAX, RETENTION_MS_MIN};

use super::Patient;
use crate::cli::doctor::{Check, bytes};

/// Kafka takes a request of this size by default; several of our longest records fit into one.
const REQUEST_BYTES_MIN: i64 = 4 * EVENT_BYTES_MAX;

/// Looks at everything that the brokers tell of their limits; what they do not tell is left out.
pub(super) fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let checks =
        [session(patient), transaction(patient), sizes(patient), Some(messages(patient)), offsets(patient), creation(patient)];
    checks.into_iter().flatten().collect()
}

/// What clients are really told, options included.
fn set(patient: &Patient<'_>, name: &str, ours: Duration) -> i64 {
    let ours = i64::try_from(ours.as_millis()).unwrap_or(i64::MAX);
    patient.settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(ours)
}

fn session(patient: &Patient<'_>) -> Option<Check> {
    let ours = set(patient, "session.timeout.ms", patient.settings.session_timeout);
    let (least, most) = (patient.most("group.min.session.timeout.ms")?, patient.least("group.max.session.timeout.ms")?);
    let found = format!("{ours} ms, and the brokers allow {least} to {most} ms");
    Some(match (least..=most).contains(&ours) {
        true => Check::ok("session timeout", found),
        false => {
            Check::fail("session timeout", found, "set kafka.session_timeout within that, or group.min.session.timeout.ms lower")
        }
    })
}

fn transaction(patient: &Patient<'_>) -> Option<Check> {
    let ours = set(patient, "transaction.timeout.ms", patient.settings.transaction_timeout);
    let most = patient.least("transaction.max.timeout.ms")?;
    let found = format!("{ours} ms, and the brokers allow {most} ms");
    Some(match ours <= most {
        true => Check::ok("transaction timeout", found),
        false => {
            Check::fail("transaction timeout", found, "set kafka.transaction_timeout lower, or transaction.max.timeout.ms higher")
        }
    })
}

/// The brokers' limit for a whole request; those of topics are checked with the topics.
fn sizes(patient: &Patient<'_>) -> Option<Check> {
    let most = patient.least("socket.request.max.bytes")?;
    let found = format!("requests of {}, and records of {} are written", size(most), size(EVENT_BYTES_MAX));
    Some(match most < REQUEST_BYTES_MIN {
        true => {
            let advice = format!("set socket.request.max.bytes to at least {REQUEST_BYTES_MIN}");
            Check::fail("request size", found, advice)
        }
        false => Check::ok("request size", found),
    })
}

/// This client's own limits, which options may have changed.
fn messages(patient: &Patient<'_>) -> Check {
    let set = |name: &str, ours: i64| patient.settings.get(name).and_then(|value| value.parse().ok()).unwrap_or(ours);
    // librdkafka's default for answers.
    let (written, read) = (set("message.max.bytes", EVENT_BYTES_MAX), set("receive.message.max.bytes", 100_000_000));
    let found = format!("this client writes records of {} and takes answers of {}", size(written), size(read));
    match written < EVENT_BYTES_MAX || read < REQUEST_BYTES_MIN {
        true => Check::fail("message size", found, "take message.max.bytes and receive.message.max.bytes out of [kafka.options]"),
        false => Check::ok("message size", found),
    }
}

fn offsets(patient: &Patient<'_>) -> Option<Check> {
    let minutes = patient.least("offsets.retention.minutes")?;
    let days = minutes / (24 * 60);
    let found = format!("{days} days after the last engine has gone");
    Some(match minutes.saturating_mul(60_000) < RETENTION_MS_MIN {
        true => Check::warn(
            "offsets kept",
            found,
            "set offsets.retention.minutes to at least 10080: after a longer outage all requests would be read again",
        ),
        false => Check::ok("offsets kept", found),
    })
}

fn creation(patient: &Patient<'_>) -> Option<Check> {
    let on = patient.values("auto.create.topics.enable").any(|value| value == "true");
    patient.values("auto.create.topics.enable").next()?;
    Some(match on {
        true => Check::warn(
            "topic creation",
            "brokers create a topic for whoever misspells one",
            "set auto.create.topics.enable to false: a producer with a wrong namespace is then told so",
        ),
        false => Check::ok("topic creation", "only on purpose"),
    })
}

/// A size in a unit that people read.
fn size(count: i64) -> String {
    bytes(count.try_into().unwrap_or(0))
}
