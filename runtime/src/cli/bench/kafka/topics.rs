//! Topics for a run, removed with everything in them at its end.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use ergate::kafka::admin::Admin;
use ergate::kafka::survey::Expected;
use ergate::kafka::topics::Shape;
use ergate::kafka::{KafkaSettings, Topic};

use super::SHARDS;
use crate::cli::output;

/// How long brokers may take until all of them know the topics.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A namespace of the run's own.
pub(super) struct Topics {
    pub(super) settings: KafkaSettings,
    admin: Admin,
}

impl Topics {
    /// Creates the topics of a namespace whose name goes on from the given one.
    pub(super) fn create(settings: KafkaSettings) -> anyhow::Result<Topics> {
        let name = format!("{}-bench-{}", settings.url, std::process::id());
        let url = name.parse().with_context(|| format!("{name} cannot be the address of a bench; use a shorter namespace"))?;
        let settings = KafkaSettings { url, ..settings };
        let admin = Admin::new(&settings.url, &settings.clients)?;
        let replication = admin.metadata()?.brokers().len().clamp(1, 3);
        let shape = Shape { partitions: SHARDS, replication: u32::try_from(replication)? };
        for (topic, answer) in Topic::ALL.iter().zip(admin.create(&Topic::ALL, shape, false)?) {
            answer.map_err(|code| anyhow::anyhow!("{topic} cannot be created: {code}"))?;
        }
        let topics = Topics { settings, admin };
        let until = Instant::now() + KNOWN_WITHIN;
        while !topics.are_known()? {
            anyhow::ensure!(Instant::now() < until, "the brokers do not know the new topics after {KNOWN_WITHIN:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(topics)
    }

    fn are_known(&self) -> anyhow::Result<bool> {
        let surveys = self.admin.survey(Expected { partitions: Some(SHARDS), replication: None })?;
        Ok(surveys.iter().all(|survey| survey.found.is_some()))
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        if let Err(error) = self.admin.delete(&Topic::ALL) {
            output::note(&format!("the topics of {} stay: {error}", self.settings.url));
        }
    }
}
