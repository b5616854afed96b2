//! Where Kafka lies on this machine, and what is said where it does not.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Identifies the cluster; every one of ours has the same, since none meets another.
const CLUSTER_ID: &str = "4rCBPrHaTiuxpFmoNVrRpw";
/// Skips what needs a broker, on the word of whoever runs the tests.
const SKIP: &str = "ERGATE_SKIP_KAFKA";

/// What runs Kafka.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    classpath: String,
}

/// Kafka, fetched when it is not there yet; `None`, said aloud, where `ERGATE_SKIP_KAFKA=1` says that it need not be.
///
/// # Panics
/// Where it is neither to be had nor skipped.
pub(crate) fn required() -> Option<&'static Home> {
    if std::env::var_os(SKIP).is_some_and(|value| value == "1") {
        say("SKIPPED: this test needs Apache Kafka, and ERGATE_SKIP_KAFKA=1 says to go without");
        return None;
    }
    match home() {
        Ok(home) => Some(home),
        Err(error) => {
            say(&format!("NOT RUN: this test needs Apache Kafka, which is not to be had here: {error}"));
            panic!("no Apache Kafka; ./check installs what it needs, ERGATE_SKIP_KAFKA=1 goes without: {error}");
        }
    }
}

fn home() -> Result<&'static Home, &'static str> {
    static HOME: OnceLock<Result<Home, String>> = OnceLock::new();
    HOME.get_or_init(Home::find).as_ref().map_err(String::as_str)
}

/// Past the capture of the test harness, which keeps what a passing test prints to itself.
fn say(text: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Where standard error is closed nobody listens.
    let _ = writeln!(std::io::stderr(), "{text} ({test})");
}

/// Runs a tool to its end.
fn run(arguments: &[String]) -> Result<(), String> {
    let ran = Command::new(&arguments[0]).args(&arguments[1..]).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("java cannot be run: {error}"))?;
    let said = || String::from_utf8_lossy(&[ran.stdout.clone(), ran.stderr.clone()].concat()).trim().to_owned();
    if ran.status.success() { Ok(()) } else { Err(said()) }
}

impl Home {
    fn find() -> Result<Home, String> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = package.join("tests/services/kafka/resolve.sh");
        let ran =
            Command::new(&script).stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", script.display()))?;
        if !ran.status.success() {
            let said = [ran.stdout, ran.stderr].concat();
            return Err(String::from_utf8_lossy(&said).trim().to_owned());
        }
        let dir = package.join("target/services/kafka");
        let path = dir.join("classpath");
        let classpath = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Home { dir, classpath })
    }

    /// The arguments before a class's name. Starting fast counts for more here than running fast.
    fn java(&self, archive: &str, more: &[&str]) -> Vec<String> {
        let archive = format!("-XX:SharedArchiveFile={}", self.dir.join(archive).display());
        // A missing or foreign archive is a slower start and no warning.
        let ours = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:disable", &archive];
        let class = ["-cp", &self.classpath];
        ours.iter().chain(more).chain(&class).map(|argument| (*argument).to_owned()).collect()
    }

    /// Prepares a broker's directory for its first start.
    pub(crate) fn format(&self, dir: &Path, users: &[String]) -> Result<(), String> {
        let mut arguments = self.java("format.jsa", &["-Xmx128m"]);
        arguments.extend(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"].map(str::to_owned));
        arguments.push(dir.join("properties").display().to_string());
        arguments.extend(users.iter().flat_map(|user| ["--add-scram".to_owned(), user.clone()]));
        run(&arguments).map_err(|error| format!("the storage of {} cannot be formatted: {error}", dir.display()))
    }

    /// Changes rights, with the arguments of `kafka-acls`.
    pub(crate) fn acls(&self, bootstrap: &str, rights: &[&str]) -> Result<(), String> {
        let mut arguments = self.java("acls.jsa", &["-Xmx128m"]);
        let class = ["org.apache.kafka.tools.AclCommand", "--bootstrap-server", bootstrap];
        arguments.extend(class.iter().chain(rights).map(|argument| (*argument).to_owned()));
        run(&arguments)
    }

    /// What starts the broker of a directory. Warnings and worse go to its standard error, and the one line that says it is ready.
    pub(crate) fn broker(&self, dir: &Path, heap: &str, more: &[&str]) -> Vec<String> {
        const LOG: &str = "-Dorg.slf4j.simpleLogger";
        let level = format!("{LOG}.defaultLogLevel=warn");
        let ready = format!("{LOG}.log.kafka.server.KafkaRaftServer=info");
        let time = format!("{LOG}.showDateTime=true");
        let format = format!("{LOG}.dateTimeFormat=HH:mm:ss.SSS");
        let flags = [&["-Xms64m", heap, &level, &ready, &time, &format], more].concat();
        let mut arguments = self.java("broker.jsa", &flags);
        arguments.extend(["kafka.Kafka".to_owned(), dir.join("properties").display().to_string()]);
        arguments
    }
}
