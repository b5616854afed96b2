//! The programs of `examples/producers/`, each run with its own client library, and what each of them publishes.
//!
//! Needs `support/packages.rs` beside it, as `packages`.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::fs;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "../../examples/producers/producer.rs"]
mod rust;

use super::packages;

/// How long a program may take on a busy machine, the start of its runtime included.
const PATIENCE: Duration = Duration::from_secs(120);
/// Clients for Python, with the versions that were tried.
const PYTHON: [&str; 2] = ["confluent-kafka==2.16.1", "kafka-python==3.0.12"];
/// The trace that every program writes into a header.
pub(crate) const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// How a client chooses the partition of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partitioner {
    /// Java's hash.
    Murmur2,
    /// What librdkafka does by itself.
    Crc32,
}

impl Partitioner {
    /// The name that librdkafka has for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
        }
    }

    /// Where a key belongs, computed without any client.
    pub(crate) fn partition(self, key: &[u8], partitions: u32) -> u32 {
        match self {
            Partitioner::Murmur2 => (murmur2(key) & 0x7fff_ffff) % partitions,
            Partitioner::Crc32 => crc32(key) % partitions,
        }
    }
}

/// The 32-bit MurmurHash2 of Kafka's Java clients (`Utils.murmur2`).
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap();
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    let mut hash = words.fold(0x9747_b28c ^ length, |hash, word| {
        let word = u32::from_le_bytes(word.try_into().unwrap()).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M)
    });
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// CRC-32 as in zlib.
pub(crate) fn crc32(data: &[u8]) -> u32 {
    !data
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())))
}

/// A program of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Kcat,
    ConfluentPython,
    KafkaPython,
    Java,
    KafkaJs,
    ConfluentNode,
    Rust,
}

/// What one record asks for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) record_key: String,
    pub(crate) idempotency_key: String,
    pub(crate) customer: String,
    pub(crate) priority: Option<u8>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) trace: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

impl Program {
    pub(crate) const ALL: [Program; 7] = [
        Program::Kcat,
        Program::ConfluentPython,
        Program::KafkaPython,
        Program::Java,
        Program::KafkaJs,
        Program::ConfluentNode,
        Program::Rust,
    ];

    /// Its file, which is also how it names itself in what it publishes.
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Program::Kcat => "kcat.sh",
            Program::ConfluentPython => "confluent_python.py",
            Program::KafkaPython => "kafka_python.py",
            Program::Java => "Producer.java",
            Program::KafkaJs => "kafkajs.mjs",
            Program::ConfluentNode => "confluent.mjs",
            Program::Rust => "producer.rs",
        }
    }

    /// How it names itself in what it publishes.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Program::Kcat => "kcat",
            Program::ConfluentPython
            | Program::KafkaPython
            | Program::Java
            | Program::KafkaJs
            | Program::ConfluentNode
            | Program::Rust => self.file(),
        }
    }

    /// What it publishes, in order.
    pub(crate) fn published(self) -> Vec<Asked> {
        let name = self.name();
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let plain = |number| Asked {
            record_key: format!("customer-{number}"),
            idempotency_key: format!("{name}/customer-{number}"),
            customer: format!("customer-{number}"),
            priority: Some(7),
            labels: vec![label("client", name)],
            trace: Some(TRACE.to_owned()),
            correlation_id: Some("run-1".to_owned()),
        };
        let event = |number, priority| Asked {
            record_key: format!("customer-{number}"),
            idempotency_key: format!("{name}/event-{number}"),
            customer: format!("customer-{number}"),
            priority,
            labels: vec![label("ce-id", &format!("{name}-{number}")), label("ce-source", &format!("/examples/{name}"))],
            trace: None,
            correlation_id: None,
        };
        let mut all = vec![plain(1), plain(2), plain(3), event(1, Some(7)), event(2, None)];
        all.sort();
        all
    }

    /// Whether it takes the partitioner as an argument.
    pub(crate) const fn takes_partitioner(self) -> bool {
        matches!(self, Program::Kcat | Program::ConfluentPython | Program::ConfluentNode | Program::Rust)
    }

    /// Publishes to a topic.
    ///
    /// # Errors
    /// Why the client is not to be had here; a program that fails is a panic.
    pub(crate) fn publish(self, brokers: &str, topic: &str, partitioner: Partitioner) -> Result<(), String> {
        let file = examples().join(self.file());
        let mut command = match self {
            Program::Rust => {
                rust::publish(brokers, topic, partitioner.name()).unwrap();
                return Ok(());
            }
            Program::Kcat => {
                packages::has("kcat", "-V")?;
                Command::new(file)
            }
            Program::ConfluentPython | Program::KafkaPython => {
                let mut command = Command::new(packages::python(&PYTHON)?);
                command.arg("-B").arg(file);
                command
            }
            Program::Java => {
                packages::has("javac", "-version")?;
                let mut command = Command::new("java");
                command.arg("-cp").arg(classpath()?).arg(file);
                command
            }
            Program::KafkaJs => node("kafkajs@2.2.4", &file, false)?,
            Program::ConfluentNode => node("@confluentinc/kafka-javascript@1.10.1", &file, true)?,
        };
        command.args([brokers, topic]);
        if self.takes_partitioner() {
            command.arg(partitioner.name());
        }
        run(&mut command, self.file());
        Ok(())
    }
}

/// The directory of the programs.
pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/producers")
}

/// The classes of Kafka's own Java clients, which came with the broker.
fn classpath() -> Result<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services/kafka/classpath");
    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Node with a program beside the package that it needs, for packages are looked for there.
fn node(package: &str, file: &Path, is_compiled: bool) -> Result<Command, String> {
    packages::has("node", "--version")?;
    let copy = packages::node(package, is_compiled)?.join(file.file_name().unwrap());
    fs::copy(file, &copy).map_err(|error| error.to_string())?;
    let mut command = Command::new("node");
    command.arg(copy);
    Ok(command)
}

/// Runs a program to its end.
fn run(command: &mut Command, name: &str) {
    let mut output = tempfile::tempfile().unwrap();
    let (to, errors) = (output.try_clone().unwrap(), output.try_clone().unwrap());
    let mut child = command.stdin(Stdio::null()).stdout(to).stderr(errors).spawn().unwrap();
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.to_string(),
            None if started.elapsed() > PATIENCE => {
                child.kill().unwrap();
                child.wait().unwrap();
                break format!("it took more than {PATIENCE:?}");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let mut said = String::new();
    output.rewind().unwrap();
    // What is no text is not worth a failure of its own.
    let _ = output.read_to_string(&mut said);
    assert_eq!(status, "exit status: 0", "{name}:\n{said}");
}
