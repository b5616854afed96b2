//! `ergate kafka doctor`: whether these brokers are fit for a log, and what to do where they are not.
//!
//! It writes no record to any topic. What it leaves is the transactional id `NAMESPACE-doctor`, which Kafka forgets after a week.

mod brokers;
mod clock;
mod limits;
mod rights;
mod topics;

use std::collections::BTreeMap;

use ergate::kafka::admin::Admin;
use ergate::kafka::survey::Expected;
use ergate::kafka::{KafkaUrl, Settings};
use rdkafka::metadata::Metadata;

use super::{client_settings, parse_url};
use crate::cli::doctor::{Check, report};
use crate::cli::{Exit, Globals, config};

/// Where.
#[derive(clap::Args)]
pub(crate) struct DoctorArgs {
    /// The log: kafka://HOST:PORT,HOST:PORT/NAMESPACE
    #[arg(long, value_name = "URL")]
    log: String,
}

/// What the checks look at.
struct Patient<'a> {
    url: &'a KafkaUrl,
    settings: &'a Settings,
    metadata: &'a Metadata,
    /// The settings of each broker that tells them.
    brokers: BTreeMap<i32, BTreeMap<String, String>>,
}

pub(crate) fn run(args: &DoctorArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let (url, config) = (parse_url(&args.log)?, config::settings(globals)?);
    let settings = client_settings(&config)?;
    report(&checks(&url, &settings)?, globals)
}

fn checks(url: &KafkaUrl, settings: &Settings) -> anyhow::Result<Vec<Check>> {
    let admin = Admin::new(url, settings)?;
    let (mut checks, metadata) = brokers::connect(&admin, url);
    // Without an answer there is nothing more to look at.
    let Some(metadata) = metadata else { return Ok(checks) };
    checks.push(brokers::reachable(&metadata));
    let (described, brokers) = brokers::describe(&admin, &metadata);
    checks.push(described);
    let patient = Patient { url, settings, metadata: &metadata, brokers };
    checks.push(brokers::versions(&patient));
    let surveys = match admin.survey(Expected::default()) {
        Ok(surveys) => surveys,
        Err(error) => {
            let advice = "look at the brokers above, and again in a moment: one of them may be going or coming";
            checks.push(Check::fail("topics", format!("{:#}", anyhow::Error::from(error)), advice));
            return Ok(checks);
        }
    };
    checks.extend(topics::checks(&surveys));
    checks.push(topics::internal(&patient));
    let (transactions, clock) = clock::check(&patient);
    checks.push(transactions);
    checks.extend(rights::checks(&patient, &surveys));
    checks.extend(limits::checks(&patient));
    checks.push(clock);
    Ok(checks)
}

impl Patient<'_> {
    /// A setting of the brokers that tell it, as a number; the least of them.
    fn least(&self, name: &str) -> Option<i64> {
        self.values(name).filter_map(|value| value.parse().ok()).min()
    }

    /// A setting of the brokers that tell it, as a number; the greatest of them.
    fn most(&self, name: &str) -> Option<i64> {
        self.values(name).filter_map(|value| value.parse().ok()).max()
    }

    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.brokers.values().filter_map(move |settings| settings.get(name).map(String::as_str))
    }
}
