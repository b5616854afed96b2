//! Which engine leads a shard, and where it serves HTTP.
//!
//! The brokers know the members of the group, what each was given, and what each calls itself. An engine with HTTP calls itself
//! `NAME@ADDRESS`, so nothing has to be kept or agreed on anywhere else. Whoever may join the group can thus have requests sent to them.

#![cfg_attr(not(feature = "http"), allow(dead_code, reason = "only the service over HTTP asks who leads what"))]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ergate_events::id::ShardId;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};

use super::settings::KafkaSettings;
use super::status::Engine;

/// How long an answer of the brokers is used.
const KEPT: Duration = Duration::from_secs(1);
/// How long the brokers may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Longest address of an engine, in bytes: a name of 253 with its scheme and port.
const ADDRESS_BYTES_MAX: usize = 270;

/// Who leads a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leader {
    /// An engine that serves HTTP here.
    At(String),
    /// An engine that serves none.
    Silent,
}

/// The leaders of the shards that have one.
pub(crate) type Leaders = BTreeMap<ShardId, Leader>;

/// What the brokers tell of the engines.
#[derive(Clone)]
struct Known {
    leaders: Arc<Leaders>,
    /// The addresses of those that have one, in order, each once.
    addresses: Arc<[String]>,
}

/// What the brokers said last.
struct Told {
    at: Instant,
    known: Result<Known, String>,
}

/// A directory of the engines, asked for only when somebody wants to know.
pub(crate) struct Peers {
    settings: Arc<KafkaSettings>,
    /// Held while the brokers are asked, so that all who want to know wait for one answer.
    told: tokio::sync::Mutex<Option<Told>>,
    client: Arc<Mutex<Option<BaseProducer>>>,
}

impl Peers {
    pub(crate) fn new(settings: Arc<KafkaSettings>) -> Peers {
        Peers { settings, told: tokio::sync::Mutex::default(), client: Arc::default() }
    }

    /// Where this engine is reached itself, if it is.
    pub(crate) fn own(&self) -> Option<&str> {
        self.settings.advertise.as_deref()
    }

    /// Who leads the shards, as the brokers told a moment ago; but not before this moment, at which what they had told was wrong.
    ///
    /// # Errors
    /// Why the brokers do not tell.
    pub(crate) async fn leaders(&self, wrong_at: Option<Instant>) -> Result<Arc<Leaders>, String> {
        Ok(self.known(wrong_at).await?.leaders)
    }

    /// Where the engines are reached that are in the group, whatever they lead, as the brokers told a moment ago.
    ///
    /// # Errors
    /// Why the brokers do not tell.
    pub(crate) async fn addresses(&self) -> Result<Arc<[String]>, String> {
        Ok(self.known(None).await?.addresses)
    }

    async fn known(&self, wrong_at: Option<Instant>) -> Result<Known, String> {
        let mut told = self.told.lock().await;
        let is_fresh = |told: &Told| told.at.elapsed() < KEPT && wrong_at.is_none_or(|wrong| told.at > wrong);
        if let Some(told) = told.as_ref().filter(|told| is_fresh(told)) {
            return told.known.clone();
        }
        let (settings, client) = (Arc::clone(&self.settings), Arc::clone(&self.client));
        let before = told.as_ref().and_then(|told| told.known.clone().ok());
        let before = before.map(|known| known.leaders);
        let asked = tokio::task::spawn_blocking(move || ask(&settings, &client, before.as_deref())).await;
        let known = asked.unwrap_or_else(|_| Err("asking them panicked".to_owned()));
        *told = Some(Told { at: Instant::now(), known: known.clone() });
        known
    }
}

/// Who leads the shards, asked now with this client, which is made where there is none. Blocks.
///
/// # Errors
/// Why the brokers do not tell.
pub(super) fn ask_leaders(
    settings: &KafkaSettings,
    client: &Mutex<Option<BaseProducer>>,
    before: Option<&Leaders>,
) -> Result<Leaders, String> {
    Ok(Arc::unwrap_or_clone(ask(settings, client, before)?.leaders))
}

/// Asks the brokers. While shards move they tell of no member what it has, and what was known before is likelier right than nothing. Blocks.
fn ask(settings: &KafkaSettings, client: &Mutex<Option<BaseProducer>>, before: Option<&Leaders>) -> Result<Known, String> {
    let mut client = client.lock().unwrap_or_else(PoisonError::into_inner);
    let (told, engines) = look(settings, &mut client).map_err(|error| {
        // The next one is asked with a client of its own.
        *client = None;
        error.to_string()
    })?;
    let leaders = leaders(&engines);
    let leaders = if told == STABLE || leaders.len() > before.map_or(0, BTreeMap::len) {
        leaders
    } else {
        before.into_iter().flatten().map(|(shard, leader)| (*shard, leader.clone())).chain(leaders).collect()
    };
    Ok(Known { leaders: Arc::new(leaders), addresses: addresses(&engines).into() })
}

/// The state of a group whose members have what they were given.
const STABLE: &str = "Stable";

/// What state the group is in, and who its members are.
fn look(settings: &KafkaSettings, client: &mut Option<BaseProducer>) -> Result<(String, Vec<Engine>), KafkaError> {
    let client = match client {
        Some(client) => client,
        None => client.insert(settings.client("peers").create()?),
    };
    // What it has to say is nothing that anybody waits for, and is not to be kept for ever.
    client.poll(Duration::ZERO);
    let list = client.client().fetch_group_list(Some(&settings.group()), ASK_WITHIN)?;
    let Some(group) = list.groups().first() else { return Ok((STABLE.to_owned(), Vec::new())) };
    let topics = settings.topics();
    let engines = group.members().iter().map(|member| Engine::of(member, &topics)).collect();
    Ok((group.state().to_owned(), engines))
}

fn leaders(engines: &[Engine]) -> Leaders {
    let each = |engine: &Engine| {
        let leader = address_in(&engine.client).map_or(Leader::Silent, |address| Leader::At(address.to_owned()));
        engine.shards.iter().map(move |shard| (*shard, leader.clone())).collect::<Vec<_>>()
    };
    engines.iter().flat_map(each).collect()
}

/// Where these are reached, as far as they are: in order, so that the same engines are the same list.
fn addresses(engines: &[Engine]) -> Vec<String> {
    let each: BTreeSet<&str> = engines.iter().filter_map(|engine| address_in(&engine.client)).collect();
    each.into_iter().map(str::to_owned).collect()
}

/// What an engine calls itself that is reached at this address.
pub(crate) fn client_id(name: &str, address: &str) -> String {
    format!("{name}@{address}")
}

/// The address in what an engine calls itself; `None` where there is none.
fn address_in(client: &str) -> Option<&str> {
    let (_, address) = client.rsplit_once('@')?;
    let is_http = address.starts_with("http://") || address.starts_with("https://");
    let is_plain = address.len() <= ADDRESS_BYTES_MAX && address.bytes().all(|byte| byte.is_ascii_graphic());
    (is_http && is_plain).then_some(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::logs::CAPACITY;
    use super::*;

    fn engine(client: &str, shards: &[ShardId]) -> Engine {
        Engine { id: "m".to_owned(), client: client.to_owned(), host: "/127.0.0.1".to_owned(), shards: shards.to_vec() }
    }

    #[test]
    fn an_engine_is_reached_at_the_address_that_it_calls_itself_by() {
        let here = client_id("ergate", "http://10.0.0.7:7420");
        let engines = [engine(&here, &[ShardId(0), CAPACITY]), engine("ergate", &[ShardId(1)]), engine("rdkafka", &[])];
        let at = Leader::At("http://10.0.0.7:7420".to_owned());
        let expected = [(ShardId(0), at.clone()), (ShardId(1), Leader::Silent), (CAPACITY, at)];
        assert_eq!(leaders(&engines), expected.into());
        // One that leads nothing yet is one, too.
        let idle = engine(&client_id("ergate", "http://10.0.0.6:7420"), &[]);
        assert_eq!(addresses(&[&engines[..], &[idle]].concat()), ["http://10.0.0.6:7420", "http://10.0.0.7:7420"]);
        assert_eq!(address_in("mine@home@https://[::1]:1"), Some("https://[::1]:1"));
    }

    #[test]
    fn names_that_are_no_address_are_none() {
        let long = format!("ergate@http://{}", "x".repeat(ADDRESS_BYTES_MAX));
        for client in ["", "ergate", "@", "a@b", "a@ftp://b", "a@http://b c", "a@http://b\r\nx: y", "http://b", &long] {
            assert_eq!(address_in(client), None, "{client:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_read_without_a_panic(client in ".{0,400}") {
            if let Some(address) = address_in(&client) {
                prop_assert!(address.is_ascii() && client.ends_with(address));
            }
        }

        #[test]
        fn what_a_member_was_given_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let read = super::super::assignment::read(&bytes);
            prop_assert!(read.iter().map(|(_, partitions)| 4 * partitions.len()).sum::<usize>() <= bytes.len());
        }
    }
}
