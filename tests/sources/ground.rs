//! A place with an inbox that a service follows, and what its log says afterwards.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ergate::events::event::Event;
use ergate::events::id::Position;
use ergate::events::log::directory;
use ergate::events::task::Ask;

use crate::command::until;
use crate::service::Service;

/// A directory with a configuration that follows `inbox` in it, or what else it is told.
pub(crate) struct Ground {
    home: tempfile::TempDir,
}

impl Ground {
    pub(crate) fn new(config: &str) -> Ground {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("my.toml"), config).unwrap();
        Ground { home }
    }

    /// One that follows the directory `inbox`.
    pub(crate) fn with_inbox() -> Ground {
        let ground = Ground::new("[source.orders]\npath = \"inbox\"\npoll = \"50ms\"\n");
        std::fs::create_dir(ground.inbox("")).unwrap();
        ground
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn inbox(&self, name: &str) -> PathBuf {
        self.home.path().join("inbox").join(name)
    }

    pub(crate) fn start(&self) -> Service {
        let config = self.path("my.toml");
        Service::start_with(self.home.path(), &["--config", config.to_str().unwrap()], &[("ERGATE_LOG", "info")])
    }

    /// Stops a service in an orderly way.
    pub(crate) fn stop(&self, service: Service) -> String {
        service.signal("TERM");
        let said = self.path("said");
        assert_eq!(service.end(), Some(0));
        std::fs::read_to_string(said).unwrap()
    }

    /// The payload of every task in the log with the value of its label, in the order of the log.
    pub(crate) fn tasks(&self) -> Vec<(String, String)> {
        let reader = directory::read(&self.path("data")).unwrap();
        let mut cursor = reader.cursor(Position(0)).unwrap();
        let mut tasks = Vec::new();
        while let Some(block) = cursor.next_block().unwrap() {
            for envelope in block.records() {
                if let Event::Requested { payload, asks, .. } = envelope.unwrap().event {
                    let label = asks
                        .iter()
                        .find_map(|ask| if let Ask::Label("ergate.source", value) = ask { Some(*value) } else { None });
                    tasks.push((String::from_utf8(payload.to_vec()).unwrap(), label.unwrap_or_default().to_owned()));
                }
            }
        }
        tasks
    }

    /// The payloads in the order of the log.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.tasks().into_iter().map(|(payload, _)| payload).collect()
    }

    /// Waits until a file is read to its end and the registry says so.
    #[track_caller]
    pub(crate) fn until_read(&self, path: &Path) {
        let (name, size) = (path.file_name().unwrap().to_str().unwrap(), path.metadata().unwrap().len());
        until("the file is read", || {
            let text = std::fs::read_to_string(self.path("data/sources/orders.json")).unwrap_or_default();
            let registry: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let mut files = registry["files"].as_array().into_iter().flatten();
            files.any(|entry| entry["file"] == name && entry["offset"] == size)
        });
    }

    /// The lines of the file of refused lines.
    pub(crate) fn refused(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("data/sources/orders.refused.ndjson")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Requests with these payloads, a line each.
pub(crate) fn lines(payloads: impl IntoIterator<Item = u64>) -> String {
    payloads.into_iter().map(|payload| format!("{{\"type\":\"noop\",\"payload\":{payload}}}\n")).collect()
}

/// Payloads as they stand in the log.
pub(crate) fn numbers(payloads: impl IntoIterator<Item = u64>) -> Vec<String> {
    payloads.into_iter().map(|payload| payload.to_string()).collect()
}

/// Appends to a file, which is made where it is not there.
pub(crate) fn append(path: &Path, text: &str) {
    let mut file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// What a service has counted of the source: by outcome, and the bytes that are not read as `unread`.
pub(crate) fn counted(service: &Service) -> BTreeMap<String, u64> {
    let text = service.get("/metrics").expect(200).text();
    let of_source = text.lines().filter_map(|line| line.strip_prefix("ergate_source_"));
    let figure = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let outcome = name.split_once("outcome=\"").map_or("unread", |(_, rest)| rest.split('"').next().unwrap());
        (outcome.to_owned(), value.parse::<f64>().unwrap() as u64)
    };
    of_source.map(figure).collect()
}

/// Waits until so many lines of the source were taken since the service started.
#[track_caller]
pub(crate) fn until_taken(service: &Service, count: u64) {
    until("the lines are taken", || counted(service)["taken"] >= count);
    assert_eq!(counted(service)["taken"], count);
}
