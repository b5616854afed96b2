//! Somebody else's verifier, written in Python from docs/log-format.md alone, on the topic itself.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::packages;

/// What the verifier needs for Kafka.
const NEEDED: [&str; 3] = ["blake3", "lz4", "confluent-kafka"];

/// Position and hash of the end of a shard's log.
pub(crate) type Heads = BTreeMap<u16, (u64, String)>;

/// What the verifier finds in a namespace; `None`, said aloud, where it cannot be run.
///
/// # Panics
/// When it refuses the log.
pub(crate) fn heads(bootstrap: &str, namespace: &str) -> Option<Heads> {
    let python = packages::python(&NEEDED)
        .inspect_err(|reason| packages::say(&format!("SKIPPED: the verifier in Python on Kafka ({reason})")))
        .ok()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verifier/verify.py");
    let log = format!("kafka://{bootstrap}/{namespace}");
    let ran = Command::new(python).args(["-B", script, "--json", &log]).output().unwrap();
    assert!(ran.status.success(), "the verifier in Python refuses the log: {}", String::from_utf8_lossy(&ran.stderr));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let head = |shard: &Value| {
        let number = |name: &str| shard[name].as_u64().unwrap();
        (number("shard") as u16, (number("head"), shard["head_hash"].as_str().unwrap().to_owned()))
    };
    Some(report["shards"].as_array().unwrap().iter().map(head).collect())
}
