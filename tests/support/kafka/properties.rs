//! What each broker is told, as a `server.properties`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::Options;
use super::ports::free;
use super::secure::Certificate;

/// Partitions of the offsets and transactions topics: enough to be spread over three brokers, few enough to be made in a moment.
const INTERNAL_PARTITIONS: u32 = 5;

/// Who listens where, and what all brokers have in common.
pub(crate) struct Plan {
    ports: Vec<Ports>,
    common: String,
}

/// The addresses of one broker.
struct Ports {
    client: SocketAddr,
    controller: SocketAddr,
    secure: Option<SocketAddr>,
    /// What stands behind the proxies.
    routes: Vec<SocketAddr>,
}

impl Plan {
    pub(crate) fn new(options: &Options, certificate: Option<&Certificate>) -> Plan {
        let ports = |_| Ports {
            client: free(),
            controller: free(),
            secure: certificate.map(|_| free()),
            routes: (0..options.routes).map(|_| free()).collect(),
        };
        let ports: Vec<Ports> = (0..options.brokers).map(ports).collect();
        let voters = ports.iter().enumerate().map(|(id, ports)| format!("{id}@{}", ports.controller)).collect::<Vec<_>>();
        let mut common = String::new();
        let mut set = |key: &str, value: &str| writeln!(common, "{key}={value}").expect("a text takes everything");
        set("controller.quorum.voters", &voters.join(","));
        ours(options.brokers).iter().for_each(|(key, value)| set(key, value));
        certificate.map(Certificate::properties).unwrap_or_default().iter().for_each(|(key, value)| set(key, value));
        // Of a key that comes twice the last counts.
        options.properties.iter().for_each(|(key, value)| set(key, value));
        Plan { ports, common }
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.ports.iter().map(|ports| ports.client.to_string()).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn secure_bootstrap(&self) -> String {
        self.ports.iter().filter_map(|ports| ports.secure).map(|address| address.to_string()).collect::<Vec<_>>().join(",")
    }

    /// The addresses behind each route, by broker.
    pub(crate) fn routes(&self) -> Vec<Vec<SocketAddr>> {
        let count = self.ports.first().map_or(0, |ports| ports.routes.len());
        (0..count).map(|route| self.ports.iter().map(|ports| ports.routes[route]).collect()).collect()
    }

    /// The properties of one broker; `proxies` are the addresses that it advertises to each route.
    pub(crate) fn properties(&self, id: u32, dir: &Path, proxies: &[SocketAddr]) -> String {
        let ports = &self.ports[id as usize];
        // Name, where it listens, what it advertises, protocol.
        let mut listeners = vec![
            ("CLIENT".to_owned(), ports.client, Some(ports.client), "PLAINTEXT"),
            ("CONTROLLER".to_owned(), ports.controller, None, "PLAINTEXT"),
        ];
        listeners.extend(ports.secure.map(|address| ("SECURE".to_owned(), address, Some(address), "SASL_SSL")));
        let routes = ports.routes.iter().zip(proxies).enumerate();
        listeners.extend(routes.map(|(index, (at, proxy))| (format!("ROUTE{index}"), *at, Some(*proxy), "PLAINTEXT")));
        let joined = |texts: Vec<String>| texts.join(",");
        let listen = joined(listeners.iter().map(|(name, at, ..)| format!("{name}://{at}")).collect());
        let advertise = listeners.iter().filter_map(|(name, _, at, _)| Some(format!("{name}://{}", (*at)?)));
        let protocols = joined(listeners.iter().map(|(name, .., protocol)| format!("{name}:{protocol}")).collect());
        format!(
            "node.id={id}\nlog.dirs={}\nlisteners={listen}\nadvertised.listeners={}\nlistener.security.protocol.map={protocols}\n{}",
            dir.join("data").display(),
            joined(advertise.collect()),
            self.common
        )
    }
}

fn ours(brokers: u32) -> Vec<(&'static str, String)> {
    let (replicas, in_sync) = (brokers.min(3).to_string(), brokers.min(2).to_string());
    let internal = INTERNAL_PARTITIONS.to_string();
    // A killed broker loses its leaderships after this, not after 9 s, and may not come back before. One alone has none to lose.
    let session = if brokers == 1 { "1500" } else { "6000" };
    let mut all = vec![
        ("offsets.topic.replication.factor", replicas.clone()),
        ("offsets.topic.num.partitions", internal.clone()),
        ("transaction.state.log.replication.factor", replicas),
        ("transaction.state.log.min.isr", in_sync),
        ("transaction.state.log.num.partitions", internal),
        ("broker.session.timeout.ms", session.to_owned()),
    ];
    let plain = [
        ("process.roles", "broker,controller"),
        ("inter.broker.listener.name", "CLIENT"),
        ("controller.listener.names", "CONTROLLER"),
        // Topics are made on purpose.
        ("auto.create.topics.enable", "false"),
        // A group of one test waits for nobody.
        ("group.initial.rebalance.delay.ms", "0"),
        // A transaction that timed out is aborted when it has, not up to 10 s later.
        ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "200"),
        // A broker serves once a heartbeat has told it that it may: at 2 s, the default, that is most of a start.
        ("broker.heartbeat.interval.ms", "200"),
        // Little to do, so few threads and little memory: the cleaner alone takes 128 MiB by default.
        ("num.io.threads", "4"),
        ("num.network.threads", "2"),
        ("background.threads", "2"),
        ("group.coordinator.threads", "1"),
        ("log.cleaner.dedupe.buffer.size", "4194304"),
    ];
    all.extend(plain.map(|(key, value)| (key, value.to_owned())));
    all
}
