//! A real Prometheus: it takes the shipped configuration and rules, scrapes the service, and understands every expression of rules and dashboard.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::command::until;
use crate::packages::{has, say};
use crate::service::{Answer, Service};

/// Metrics that only an engine on Kafka has.
const KAFKA_ONLY: [&str; 3] = ["ergate_kafka_lag", "ergate_kafka_unstable_offsets", "ergate_kafka_rebalances_total"];
/// Says that the test need not be run.
const SKIP: &str = "ERGATE_SKIP_PROMETHEUS";

fn deployed(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Whether there is a Prometheus to test with.
///
/// # Panics
/// Where there is none and nobody said that it is not needed.
fn is_there() -> bool {
    let missing = ["prometheus", "promtool"].iter().find_map(|program| has(program, "--version").err());
    let Some(reason) = missing else { return true };
    assert!(
        std::env::var(SKIP).is_ok_and(|value| value == "1"),
        "no Prometheus; ./check installs it (Debian package prometheus), {SKIP}=1 goes without: {reason}"
    );
    say(&format!("SKIPPED: this test needs Prometheus, and {SKIP}=1 says to go without: {reason}"));
    false
}

/// A Prometheus that ends with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one with the shipped configuration, which scrapes this service every two seconds.
    fn start(home: &Path, service: &Service) -> Prometheus {
        let shipped = std::fs::read_to_string(deployed("prometheus/prometheus.yml")).unwrap();
        let config = shipped.replace("127.0.0.1:7420", &service.address.to_string()).replace("interval: 15s", "interval: 2s");
        assert_ne!(config, shipped);
        let file = home.join("prometheus.yml");
        std::fs::write(&file, config.replace("scrape_timeout: 10s", "scrape_timeout: 2s")).unwrap();
        std::fs::copy(deployed("prometheus/ergate-rules.yml"), home.join("ergate-rules.yml")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let said = std::fs::File::create(home.join("prometheus.log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        let mut prometheus = Prometheus { child, address };
        until("Prometheus is ready", || {
            let ended = prometheus.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", std::fs::read_to_string(home.join("prometheus.log")).unwrap());
            prometheus.get("/-/ready").is_some_and(|answer| answer.status == 200)
        });
        prometheus
    }

    fn get(&self, path: &str) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        Some(Answer::read(&bytes))
    }

    /// What an expression gives now.
    #[track_caller]
    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).unwrap();
        assert_eq!(answer.status, 200, "{expression}: {}", answer.text());
        let answer = answer.json();
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself, and its files go with the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The expressions of the dashboard, as Grafana asks them with everything chosen.
fn dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(deployed("grafana/ergate.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["type"] == "row" || panel["description"].is_string()), "a panel says what it shows");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let chosen = |expression: &str| {
        ["$instance", "$pool", "$type"]
            .iter()
            .fold(expression.replace("$__rate_interval", "1m"), |text, name| text.replace(name, ".*"))
    };
    targets.map(|target| chosen(target["expr"].as_str().unwrap())).collect()
}

/// The names of our metrics in an expression, each once.
fn metrics_of(expression: &str) -> Vec<&str> {
    let words = expression.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    words.filter(|word| word.starts_with("ergate_")).collect()
}

/// What an alert looks at, with a result whether it holds or not.
fn in_any_case(expression: &str) -> String {
    let at = [" > ", " < "].into_iter().filter_map(|sign| expression.rfind(sign)).max().unwrap();
    let (left, right) = (&expression[..at], &expression[at + 3..]);
    assert!(right.parse::<f64>().is_ok(), "an alert ends with what it compares with: {expression}");
    left.to_owned()
}

#[test]
fn promtool_finds_no_fault_in_rules_and_configuration() {
    if !is_there() {
        return;
    }
    for (check, file) in [("rules", "ergate-rules.yml"), ("config", "prometheus.yml")] {
        let output = Command::new("promtool").arg("check").arg(check).arg(deployed("prometheus").join(file)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
    let output =
        Command::new("promtool").args(["test", "rules"]).arg(deployed("prometheus/ergate-rules-test.yml")).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn prometheus_scrapes_the_service_and_understands_every_rule_and_panel() {
    if !is_there() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let service = Service::start(home.path());
    let prometheus = Prometheus::start(home.path(), &service);
    let lines = "{\"type\":\"noop\"}\n{\"type\":\"fail\"}\n".repeat(5);
    until("Prometheus has seen the work", || {
        service.ask("POST", "/v1/tasks", &[("content-type", "application/x-ndjson")], lines.as_bytes()).expect(200);
        std::thread::sleep(Duration::from_millis(500));
        let seen = prometheus.query("min by (type) (rate(ergate_attempts_total{type=~\"noop|fail\"}[1m]))");
        seen.len() == 2 && seen.iter().all(|sample| sample["value"][1] != "0")
    });
    until("the last scrape was good", || prometheus.query("up{job=\"ergate\"}")[0]["value"][1] == "1");
    assert!(
        prometheus.query("scrape_samples_scraped{job=\"ergate\"}")[0]["value"][1].as_str().unwrap().parse::<u32>().unwrap() > 100
    );

    let rules = prometheus.get("/api/v1/rules").unwrap().expect(200).json();
    let rules: Vec<Value> = rules["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .cloned()
        .collect();
    assert!(rules.len() >= 10, "{rules:?}");
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).unwrap();
    for rule in &rules {
        let name = rule["name"].as_str().unwrap();
        assert!(rule["lastError"].is_null() && rule["health"] != "err", "{rule}");
        assert!(["summary", "description"].iter().all(|text| rule["annotations"][text].is_string()), "{rule}");
        assert!(page.contains(&format!("`{name}`")), "docs/operations.md does not say what to do at {name}");
    }
    let alerts = rules.iter().map(|rule| rule["query"].as_str().unwrap().to_owned());
    let (mut asked, mut unknown) = (0, Vec::new());
    for expression in alerts.flat_map(|alert| [in_any_case(&alert), alert]).chain(dashboard()) {
        let names = metrics_of(&expression);
        let is_alert = rules.iter().any(|rule| rule["query"] == expression.as_str());
        let result = prometheus.query(&expression);
        unknown.extend(names.iter().filter(|name| !is_known(name)).map(|name| (*name).to_owned()));
        if !is_alert && !names.iter().any(|name| KAFKA_ONLY.contains(name)) {
            assert!(!result.is_empty(), "nothing comes of {expression}");
        }
        asked += 1;
    }
    assert!(asked > 70, "{asked}");
    assert!(unknown.is_empty(), "these metrics are nowhere: {unknown:?}");
    // The dead letters of this test fire their alert, and nothing is on fire that should not be.
    until("the alert fires", || {
        prometheus.query("ALERTS{alertname=\"ErgateDeadLetters\",alertstate=\"firing\",type=\"fail\"}").len() == 1
    });
    assert!(prometheus.query("ALERTS{severity=\"critical\"}").is_empty());
}

/// Whether a metric is one of ours, or a part of a histogram of ours.
fn is_known(name: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    ergate::metrics::ALL.iter().any(|metric| metric.name == name || metric.name == base)
}
