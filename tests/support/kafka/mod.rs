//! A real Apache Kafka, started by the tests as plain processes on free ports of the loopback interface.
//!
//! Every broker is a controller too (KRaft, combined mode). `tests/services/kafka/resolve.sh` fetches what they need, once. The brokers
//! end, and their directories go, when the process of the test ends, in whatever way: see `process.rs`.
//!
//! ```ignore
//! let Some(kafka) = kafka::shared() else { return }; // one broker for all tests of a binary, each in its own namespace
//! let producer = client(kafka.bootstrap());
//!
//! let Some(kafka) = Cluster::start(Options { brokers: 3, ..Options::default() }) else { return };
//! kafka.kill(0);
//! kafka.start_again(0);
//! ```
#![allow(dead_code, reason = "each test file uses its part of this")]

mod home;
mod ports;
mod process;
mod properties;
#[path = "../proxy.rs"]
pub(crate) mod proxy;
mod secure;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use home::required;
#[allow(unused_imports, reason = "each test file uses its part of this")]
pub(crate) use secure::{PASSWORD, STRANGER, USER};

use home::Home;
use process::{Keeper, Supervised};
use proxy::Proxy;
use rustix::process::Signal;
use secure::Certificate;

/// How long a broker may take to begin or to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a cluster is begun anew because another process took one of its ports.
const TRIES: u32 = 3;
/// Lines of a broker's log in an error message.
const TAIL_LINES: usize = 40;

/// What kind of cluster.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many brokers, 1 or 3; internal topics have as many replicas.
    pub(crate) brokers: u32,
    /// Properties of every broker beside and over ours, as in `server.properties`.
    pub(crate) properties: Vec<(&'static str, String)>,
    /// Arguments of `java` after ours, which aim at a fast start: `-XX:TieredStopAtLevel=4` is for long measurements.
    pub(crate) java: Vec<&'static str>,
    /// Adds a listener with TLS and SASL (SCRAM-SHA-256 and PLAIN) for [`USER`] and [`STRANGER`], both with [`PASSWORD`].
    pub(crate) secure: bool,
    /// How many independent ways lead to the brokers through proxies.
    pub(crate) routes: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { brokers: 1, properties: Vec::new(), java: Vec::new(), secure: false, routes: 0 }
    }
}

/// Brokers that know each other. Dropping it ends them.
pub(crate) struct Cluster {
    brokers: Vec<Mutex<Broker>>,
    routes: Vec<Route>,
    bootstrap: String,
    secure: Option<(String, Certificate)>,
    home: &'static Home,
    options: Options,
    _keeper: Keeper,
}

/// A way to the brokers on which the tests can do what networks do.
///
/// The brokers advertise the addresses of its proxies to whoever comes this way.
pub(crate) struct Route {
    proxies: Vec<Proxy>,
    bootstrap: String,
}

struct Broker {
    id: u32,
    dir: PathBuf,
    starts: u32,
    process: Option<Supervised>,
}

/// The one broker that all tests of this binary share; `None` where Kafka is to be skipped.
///
/// It is left running until the process ends, so a test does nothing to it that the others would feel.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(Options::default())).as_ref()
}

/// A name for topics that no other test has.
pub(crate) fn namespace(test: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{test}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Cluster {
    /// Starts brokers and waits until all of them serve; `None` where Kafka is to be skipped.
    ///
    /// # Panics
    /// Where Kafka cannot be fetched or does not start, with the end of its log.
    pub(crate) fn start(options: Options) -> Option<Cluster> {
        let home = required()?;
        for _ in 1..TRIES {
            match Cluster::try_start(home, options.clone()) {
                Ok(cluster) => return Some(cluster),
                Err(error) if error.contains("Address already in use") => {}
                Err(error) => panic!("{error}"),
            }
        }
        Some(Cluster::try_start(home, options).unwrap_or_else(|error| panic!("{error}")))
    }

    fn try_start(home: &'static Home, options: Options) -> Result<Cluster, String> {
        let keeper = Keeper::new();
        let certificate = options.secure.then(|| Certificate::make(keeper.path()));
        let plan = properties::Plan::new(&options, certificate.as_ref());
        let broker = |id| {
            let dir = keeper.path().join(format!("broker-{id}"));
            Mutex::new(Broker { id, dir, starts: 0, process: None })
        };
        let cluster = Cluster {
            brokers: (0..options.brokers).map(broker).collect(),
            routes: plan.routes().into_iter().map(|route| Route::new(&route)).collect(),
            bootstrap: plan.bootstrap(),
            secure: certificate.map(|certificate| (plan.secure_bootstrap(), certificate)),
            home,
            options,
            _keeper: keeper,
        };
        cluster.format(&plan)?;
        let ids = 0..cluster.options.brokers;
        ids.clone().for_each(|id| cluster.launch(id));
        ids.into_iter().try_for_each(|id| cluster.ready(id))?;
        Ok(cluster)
    }

    /// Writes what each broker must find, all at one time: every one is a run of a Java tool.
    fn format(&self, plan: &properties::Plan) -> Result<(), String> {
        let run = |id: u32| {
            let dir = self.broker(id).dir.clone();
            std::fs::create_dir(&dir).expect("a fresh directory can be made in");
            let routes = self.routes.iter().map(|route| route.proxies[id as usize].address()).collect::<Vec<_>>();
            std::fs::write(dir.join("properties"), plan.properties(id, &dir, &routes))
                .expect("a fresh directory can be written to");
            let users = if self.options.secure { secure::scram() } else { Vec::new() };
            self.home.format(&dir, &users)
        };
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..self.options.brokers).map(|id| scope.spawn(move || run(id))).collect();
            runs.into_iter().try_for_each(|run| run.join().expect("nothing panics there"))
        })
    }

    fn launch(&self, id: u32) {
        let mut broker = self.broker(id);
        broker.starts += 1;
        let heap = if self.options.brokers == 1 { "-Xmx512m" } else { "-Xmx320m" };
        let command = self.home.broker(&broker.dir, heap, &self.options.java);
        broker.process = Some(Supervised::start(&command, &broker.log()));
    }

    fn ready(&self, id: u32) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let mut broker = self.broker(id);
            // Logged when the broker is registered, has caught up, and serves.
            if broker.text().contains("Kafka Server started") {
                return Ok(());
            }
            let ended = broker.process.as_mut().is_none_or(Supervised::has_ended);
            if ended || started.elapsed() > PATIENCE {
                let how = if ended { "ended" } else { "is not ready" };
                return Err(format!("broker {id} {how} after {:?}:\n{}", started.elapsed(), broker.tail()));
            }
            drop(broker);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn broker(&self, id: u32) -> MutexGuard<'_, Broker> {
        // A test that failed holding it has changed nothing halfway.
        self.brokers[id as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where clients find the brokers directly, without any protection.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where clients find them with TLS and SASL.
    pub(crate) fn secure_bootstrap(&self) -> &str {
        &self.secure.as_ref().expect("asked for with Options::secure").0
    }

    /// The file with the certificate that clients must trust.
    pub(crate) fn certificate(&self) -> &Path {
        self.secure.as_ref().expect("asked for with Options::secure").1.path()
    }

    /// Allows a user something, with the arguments of `kafka-acls --add` after the user; needs an authorizer in the properties.
    ///
    /// # Panics
    /// When the tool refuses.
    pub(crate) fn allow(&self, user: &str, rights: &[&str]) {
        let principal = format!("User:{user}");
        let rights = [&["--add", "--allow-principal", &principal], rights].concat();
        self.home.acls(&self.bootstrap, &rights).unwrap_or_else(|error| panic!("{error}"));
    }

    /// One of the ways through proxies.
    pub(crate) fn route(&self, index: usize) -> &Route {
        &self.routes[index]
    }

    /// Ends a broker as a power cut would, files aside (SIGKILL).
    pub(crate) fn kill(&self, id: u32) {
        self.end(id, Signal::KILL);
    }

    /// Asks a broker to end and waits until it has handed over what it leads (SIGTERM).
    pub(crate) fn stop(&self, id: u32) {
        self.end(id, Signal::TERM);
    }

    fn end(&self, id: u32, signal: Signal) {
        let mut broker = self.broker(id);
        let mut process = broker.process.take().expect("the broker runs");
        process.signal(signal);
        assert!(process.wait(PATIENCE), "broker {id} does not end:\n{}", broker.tail());
    }

    /// Whether a broker that nobody ended has ended by itself.
    pub(crate) fn has_ended(&self, id: u32) -> bool {
        self.broker(id).process.as_mut().is_none_or(Supervised::has_ended)
    }

    /// Stops the time of a broker (SIGSTOP).
    pub(crate) fn pause(&self, id: u32) {
        self.broker(id).process.as_ref().expect("the broker runs").signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self, id: u32) {
        self.broker(id).process.as_ref().expect("the broker runs").signal(Signal::CONT);
    }

    /// Starts a broker that has ended, with its files and its ports, and waits until it serves.
    ///
    /// # Panics
    /// When it does not, with the end of its log.
    pub(crate) fn start_again(&self, id: u32) {
        assert!(self.broker(id).process.is_none(), "broker {id} still runs");
        self.launch(id);
        self.wait_ready(id);
    }

    /// Waits until a broker serves.
    ///
    /// # Panics
    /// When it never does, with the end of its log.
    pub(crate) fn wait_ready(&self, id: u32) {
        self.ready(id).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Where a broker keeps its partitions.
    pub(crate) fn data_dir(&self, id: u32) -> PathBuf {
        self.broker(id).dir.join("data")
    }

    /// The last lines that a broker logged since its last start, warnings and worse.
    pub(crate) fn log_tail(&self, id: u32) -> String {
        self.broker(id).tail()
    }

    /// The processes of the brokers that run.
    pub(crate) fn pids(&self) -> Vec<i32> {
        (0..self.options.brokers).filter_map(|id| Some(self.broker(id).process.as_ref()?.pid())).collect()
    }
}

impl Broker {
    fn log(&self) -> PathBuf {
        self.dir.join(format!("log-{}", self.starts))
    }

    fn text(&self) -> String {
        std::fs::read(self.log()).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Route {
    fn new(targets: &[SocketAddr]) -> Route {
        let proxies: Vec<Proxy> = targets.iter().map(|target| Proxy::start(*target)).collect();
        let bootstrap = proxies.iter().map(|proxy| proxy.address().to_string()).collect::<Vec<_>>().join(",");
        Route { proxies, bootstrap }
    }

    /// Where clients begin that come this way.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The proxy before one broker.
    pub(crate) fn proxy(&self, id: u32) -> &Proxy {
        &self.proxies[id as usize]
    }

    /// Does something to the proxies before all brokers.
    pub(crate) fn each(&self, act: impl Fn(&Proxy)) {
        self.proxies.iter().for_each(act);
    }
}
