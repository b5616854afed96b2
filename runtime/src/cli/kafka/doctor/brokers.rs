//! The brokers: whether each can be reached, and what it is.

use std::collections::BTreeMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use ergate::kafka::KafkaUrl;
use ergate::kafka::admin::Admin;
use rdkafka::metadata::{Metadata, MetadataBroker};

use super::Patient;
use crate::cli::doctor::Check;
use crate::cli::progress::count;

/// A broker in the next room answers in a millisecond, one on another continent within this.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// Above this every commit costs more than a batch waits.
const ANSWER_SLOW: Duration = Duration::from_millis(100);

/// Asks for the brokers and topics; without an answer the check says why, in the words of the connection.
pub(super) fn connect(admin: &Admin, url: &KafkaUrl) -> (Vec<Check>, Option<Metadata>) {
    match admin.metadata() {
        Ok(metadata) => (vec![answering(admin, url, &metadata)], Some(metadata)),
        Err(error) => {
            let advice = "check the address, security.protocol, the certificate (ssl.ca.location), user and password";
            (vec![Check::fail("connection", error.to_string(), advice)], None)
        }
    }
}

fn answering(admin: &Admin, url: &KafkaUrl, metadata: &Metadata) -> Check {
    // The second answer, without connecting and signing on.
    let started = Instant::now();
    let again = admin.metadata().map(|_| started.elapsed());
    let brokers = count(metadata.brokers().len() as u64, "broker", "brokers");
    match again {
        Ok(took) if took > ANSWER_SLOW => Check::warn(
            "connection",
            format!("{} leads to {brokers}, and an answer takes {took:.1?}", url.bootstrap()),
            "run the engines near the brokers: every commit waits for some answers",
        ),
        Ok(took) => Check::ok("connection", format!("{} leads to {brokers}; an answer takes {took:.1?}", url.bootstrap())),
        Err(error) => Check::fail("connection", error.to_string(), "the connection comes and goes; look at the network"),
    }
}

/// Connects to each broker where it says that it is.
pub(super) fn reachable(metadata: &Metadata) -> Check {
    let failed: Vec<String> = metadata.brokers().iter().filter_map(|broker| unreachable(broker).err()).collect();
    let named = metadata.brokers().iter().map(|broker| format!("{}: {}:{}", broker.id(), broker.host(), broker.port()));
    match failed.is_empty() {
        true => Check::ok("brokers", named.collect::<Vec<_>>().join(", ")),
        false => Check::fail(
            "brokers",
            failed.join("; "),
            "start them, or correct advertised.listeners: clients go where it sends them, whatever the address of the log is",
        ),
    }
}

fn unreachable(broker: &MetadataBroker) -> Result<(), String> {
    let name = format!("{} at {}:{}", broker.id(), broker.host(), broker.port());
    let port = u16::try_from(broker.port()).map_err(|_| format!("{name}: no port"))?;
    let addresses = (broker.host(), port).to_socket_addrs().map_err(|error| format!("{name}: {error}"))?;
    let mut last = format!("{name}: no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{name}: {error}"),
        }
    }
    Err(last)
}

/// Asks each broker for its settings.
pub(super) fn describe(admin: &Admin, metadata: &Metadata) -> (Check, BTreeMap<i32, BTreeMap<String, String>>) {
    let mut known = BTreeMap::new();
    let mut silent = Vec::new();
    for id in metadata.brokers().iter().map(MetadataBroker::id) {
        match admin.describe_broker(id) {
            Ok(settings) if settings.is_empty() => silent.push(format!("{id}: not allowed")),
            Ok(settings) => drop(known.insert(id, settings)),
            Err(error) => silent.push(format!("{id}: {error}")),
        }
    }
    let check = match silent.is_empty() {
        true => Check::ok("broker settings", "every broker tells its own"),
        false => Check::warn(
            "broker settings",
            format!("{} of {} brokers tell theirs; {}", known.len(), metadata.brokers().len(), silent.join(", ")),
            "grant DescribeConfigs on the cluster to have its limits checked; engines do not need it",
        ),
    };
    (check, known)
}

/// What is known of the versions: the protocol tells this client more than it passes on, so the names of settings must do.
pub(super) fn versions(patient: &Patient<'_>) -> Check {
    let (_, client) = rdkafka::util::get_rdkafka_version();
    let has = |name: &str| patient.brokers.values().any(|settings| settings.contains_key(name));
    if patient.brokers.is_empty() {
        return Check::ok("versions", format!("librdkafka {client}; the brokers do not tell theirs"));
    }
    if has("zookeeper.connect") || has("inter.broker.protocol.version") {
        return Check::warn(
            "versions",
            format!("librdkafka {client}; brokers older than Kafka 4.0"),
            "it works with 2.5 and later; tested is 4.x, whose transactions do not hang",
        );
    }
    Check::ok("versions", format!("librdkafka {client}; brokers of Kafka 4.0 or later, without ZooKeeper"))
}
