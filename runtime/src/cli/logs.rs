//! Which log a verb looks at: one in a directory, or the shards of a namespace on Kafka. The one place that turns `--log` into readers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ergate::events::id::{ShardId, TaskId};
use ergate::events::log::directory::{self, StoreId, identity};
use ergate::events::log::kafka::Patience;
use ergate::events::log::{Cursor, LogError};
use ergate::kafka::logs::{CAPACITY, shard_name, shard_named};
use ergate::kafka::{KafkaSettings, Logs, home};

use super::choice::{self, Side};
use super::exit::Trouble;
use super::log::copy::copy;
use super::offline::{self, Place, Topic};
use super::remote::Remote;
use super::{Globals, config, output};

/// How long the brokers may be away while a verb reads: a broker starts again within it.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// What a log on Kafka is named by.
const SCHEME: &str = "kafka://";

/// Which log, and which part of it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// Where the log is, instead of --data: `kafka://HOST:PORT,…/NAMESPACE`, `sled:DIR`, `file:DIR` or a directory
    #[arg(long, value_name = "LOG")]
    log: Option<String>,
    /// Of a log on Kafka only this shard: its number, or `capacity` for the log of pools
    #[arg(long, value_name = "SHARD", value_parser = parse_shard)]
    pub(crate) shard: Option<ShardId>,
}

pub(crate) fn parse_shard(text: &str) -> Result<ShardId, String> {
    shard_named(text).ok_or_else(|| "write the number of a shard, or `capacity`".to_owned())
}

/// Where a log is.
pub(crate) enum Where {
    /// In this directory.
    Directory(PathBuf),
    /// On topics.
    Topics(Box<KafkaSettings>),
    /// With a service: in a copy that is made for this look.
    Service(Copy),
}

/// A copy of a service's log for one look, gone with it.
pub(crate) struct Copy(PathBuf);

impl Copy {
    fn make(remote: &Remote, shard: Option<ShardId>, globals: &Globals) -> anyhow::Result<Copy> {
        let kept = Copy(std::env::temp_dir().join(format!("ergate-look-{}", StoreId::draw()?)));
        copy(remote, shard, kept.path(), globals)?;
        Ok(kept)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // What cannot be removed lies where systems clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The settings for a log on Kafka; `None` for another log.
pub(crate) fn kafka(log: &str, globals: &Globals) -> anyhow::Result<Option<KafkaSettings>> {
    if !log.starts_with(SCHEME) {
        return Ok(None);
    }
    super::kafka::engine_settings(log, &config::settings(globals)?).map(Some)
}

/// The settings for a log that must be on Kafka.
pub(crate) fn only_kafka(log: &str, globals: &Globals) -> anyhow::Result<KafkaSettings> {
    let settings = kafka(log, globals)?;
    settings.ok_or_else(|| Trouble::Usage(format!("{log:?} is not on Kafka; write `kafka://HOST:PORT/NAMESPACE`")).into())
}

/// Waits for brokers that are away, and says so on standard error.
pub(crate) fn patience() -> Patience {
    let say = |waited: Duration, reason: &str| {
        output::note(&output::escape(&format!("waiting for the brokers for {} s: {reason}", waited.as_secs())));
    };
    Patience { answer_within: ANSWER_WITHIN, listener: Some(Arc::new(say)) }
}

impl LogArgs {
    /// The flag that names a log, where it is given.
    pub(crate) fn flag(&self) -> Option<&'static str> {
        self.log.is_some().then_some("--log")
    }

    /// Where the log is that flags and configuration name.
    pub(crate) fn find(&self, globals: &Globals) -> anyhow::Result<Where> {
        let Some(log) = self.log.as_deref() else {
            return match choice::side(globals, None)? {
                Side::Service(remote) => Ok(Where::Service(Copy::make(&remote, self.shard, globals)?)),
                Side::Directory => Ok(Where::Directory(offline::data_dir(globals)?)),
            };
        };
        if let Some(settings) = kafka(log, globals)? {
            return Ok(Where::Topics(Box::new(settings)));
        }
        let store: ergate::Store = log.parse().map_err(Trouble::Usage)?;
        let dir =
            store.dir().ok_or_else(|| Trouble::Usage("a log in memory ends with its process; name a directory".to_owned()))?;
        offline::require_folder(dir)?;
        let (found, asked) = (identity(dir)?.engine, log.split_once(':').and_then(|(name, _)| directory::Engine::named(name)));
        match asked.filter(|asked| *asked != found) {
            Some(asked) => Err(LogError::OtherEngine { path: dir.to_owned(), found, asked }.into()),
            None => Ok(Where::Directory(dir.to_owned())),
        }
    }

    /// Opens every log that is asked for, by shard, the log of pools last.
    pub(crate) fn open(&self, globals: &Globals) -> anyhow::Result<Vec<Place>> {
        match self.find(globals)? {
            Where::Directory(dir) => Ok(vec![self.directory(&dir)?]),
            Where::Service(copy) => {
                let place = Place::directory(copy.path())?;
                Ok(vec![Place { copy: Some(copy), ..place }])
            }
            Where::Topics(settings) => self.topics(&settings, globals),
        }
    }

    /// The same log, and of its shards the task's.
    #[must_use]
    pub(crate) fn of_task(&self, task: TaskId) -> LogArgs {
        let on_kafka = self.log.as_ref().is_some_and(|log| log.starts_with(SCHEME));
        LogArgs { log: self.log.clone(), shard: self.shard.or_else(|| on_kafka.then_some(task.shard)) }
    }

    /// Opens the one log that is asked for.
    pub(crate) fn open_one(&self, globals: &Globals) -> anyhow::Result<Place> {
        only(self.open(globals)?)
    }

    /// Opens the log where the sizes of pools are decided: on Kafka the log of pools, unless another one is asked for.
    pub(crate) fn open_sizes(&self, globals: &Globals) -> anyhow::Result<Place> {
        let on_kafka = self.log.as_ref().is_some_and(|log| log.starts_with(SCHEME));
        LogArgs { log: self.log.clone(), shard: self.shard.or_else(|| on_kafka.then_some(CAPACITY)) }.open_one(globals)
    }

    /// Opens the log that has a schedule of this name.
    pub(crate) fn open_home(&self, name: &str, globals: &Globals) -> anyhow::Result<Place> {
        let mut places = self.open(globals)?;
        let shards = u16::try_from(places.iter().filter(|place| place.shard != CAPACITY).count()).unwrap_or(CAPACITY.0);
        if self.shard.is_none() {
            places.retain(|place| place.shard == home(name, shards));
        }
        only(places)
    }

    /// Opens the log in a directory, if it is of the shard that is asked for.
    pub(crate) fn directory(&self, dir: &Path) -> anyhow::Result<Place> {
        let place = Place::directory(dir)?;
        match self.shard.filter(|shard| *shard != place.shard) {
            Some(shard) => Err(no_shard(shard, &[place])),
            None => Ok(place),
        }
    }

    /// The log of pools is measured first: what it says of shards is there when these are measured.
    fn topics(&self, settings: &KafkaSettings, globals: &Globals) -> anyhow::Result<Vec<Place>> {
        let copies = config::settings(globals)?.log.data.join(settings.url.namespace().to_string());
        let logs = Logs::find(settings, patience())?;
        let mut places = Vec::with_capacity(logs.readers.len());
        for reader in logs.readers.iter().rev().filter(|reader| self.shard.is_none_or(|shard| shard == reader.shard())) {
            let (extent, store, shard) = (reader.extent()?, logs.store(reader), reader.shard());
            let reader = reader.clone().fixed(extent.span);
            let topic = Some(Topic { reader: reader.clone(), extent });
            places.push(Place { dir: copies.join(shard_name(shard)), store, shard, reader: Arc::new(reader), topic, copy: None });
        }
        places.reverse();
        match self.shard.filter(|_| places.is_empty()) {
            Some(shard) => {
                let there = logs.readers.len() - 1;
                Err(Trouble::NotFound(format!("there is no shard {}; the log has {there}, from 0 on", shard_name(shard))).into())
            }
            None => Ok(places),
        }
    }
}

fn no_shard(shard: ShardId, places: &[Place]) -> anyhow::Error {
    let there: Vec<_> = places.iter().map(|place| shard_name(place.shard)).collect();
    Trouble::NotFound(format!("there is no shard {}; the log has {}", shard_name(shard), there.join(", "))).into()
}

/// The only one of these logs.
///
/// # Errors
/// When there are several: then the user has to choose.
pub(crate) fn only(mut places: Vec<Place>) -> anyhow::Result<Place> {
    match (places.pop(), places.len()) {
        (Some(place), 0) => Ok(place),
        (_, more) => Err(Trouble::Usage(format!(
            "the log has {more} shards and a log of pools, each with its own positions; choose one with --shard"
        ))
        .into()),
    }
}

/// Everything that is added to these logs from now on.
pub(crate) fn follow(places: &[Place]) -> Result<Box<dyn Cursor>, LogError> {
    let topics: Vec<_> = places.iter().filter_map(|place| place.topic.as_ref()).collect();
    if let Some(place) = places.first().filter(|_| topics.is_empty()) {
        return place.reader.cursor(place.span().next);
    }
    let ends: Vec<_> = topics.iter().map(|topic| (topic.reader.clone(), topic.extent)).collect();
    Ok(Box::new(ergate::events::log::kafka::KafkaTail::new(&ends)?))
}
