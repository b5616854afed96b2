//! `ergate kafka`: the topics of a log on Apache Kafka, and whether the brokers are fit for it.

mod doctor;
mod init;
mod status;

use ergate::events::log::kafka::Form;
use ergate::kafka::url::UrlError;
use ergate::kafka::{KafkaSettings, KafkaUrl, Settings, client};
use ergate_config::{Config, ConfigError, Format};

use super::exit::Trouble;
use super::{Exit, Globals};

/// What to do about Kafka.
#[derive(clap::Subcommand)]
pub(crate) enum KafkaVerb {
    /// Create the topics of a log, and name everything about existing ones that is not as it must be
    Init(init::InitArgs),
    /// Say whether these brokers are fit for a log, and what to do where they are not; writes to no topic
    Doctor(doctor::DoctorArgs),
    /// Show which engine has which shard, what waits, and how far readers lag behind
    Status(status::StatusArgs),
}

pub(crate) fn run(verb: KafkaVerb, globals: &Globals) -> anyhow::Result<Exit> {
    match verb {
        KafkaVerb::Init(args) => init::run(&args, globals),
        KafkaVerb::Doctor(args) => doctor::run(&args, globals),
        KafkaVerb::Status(args) => status::run(&args, globals),
    }
}

/// Reads the address of a log on Kafka. The parser of arguments would show what it refuses, and that may hold a password.
fn parse_url(text: &str) -> Result<KafkaUrl, Trouble> {
    text.parse().map_err(|error: UrlError| Trouble::Usage(format!("--log: {error}")))
}

/// Refuses options that are not for users to set, naming where each was set.
///
/// # Errors
/// [`ConfigError::Refused`].
pub(crate) fn check_options(config: &Config) -> Result<(), ConfigError> {
    let refused = config.kafka.options.keys().find_map(|name| Some((name, client::refusal(name)?)));
    let Some((name, reason)) = refused else { return Ok(()) };
    let key = format!("kafka.options.{name}");
    Err(ConfigError::Refused { origin: config.origin(&key), key, reason: reason.to_owned() })
}

/// The settings of the clients, secrets read from where they are.
pub(crate) fn client_settings(config: &Config) -> anyhow::Result<Settings> {
    let timeouts = &config.kafka;
    let mut settings = Settings::new(timeouts.session_timeout, timeouts.heartbeat_interval, timeouts.transaction_timeout);
    for (name, value) in &config.kafka.options {
        settings = settings.option(name, &value.resolve(name)?)?;
    }
    Ok(settings)
}

/// How an engine uses the log at this address.
///
/// # Errors
/// For an address that is none, and for options that cannot be used.
pub(crate) fn engine_settings(log: &str, config: &Config) -> anyhow::Result<KafkaSettings> {
    let kafka = &config.kafka;
    let form = match kafka.format {
        Format::Json => Form::Json,
        Format::Block => Form::Block,
    };
    let (batch_time, batch_bytes) = (kafka.batch_time, usize::try_from(kafka.batch_size).unwrap_or(usize::MAX));
    let (snapshot_every, results, standby) = (kafka.snapshot_interval, kafka.results, kafka.standby);
    let clients = client_settings(config)?;
    let place = KafkaSettings::from(parse_url(log)?);
    Ok(KafkaSettings { clients, batch_time, batch_bytes, form, snapshot_every, results, standby, ..place })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_file_are_those_of_the_library() {
        assert_eq!(client_settings(&Config::default()).unwrap(), Settings::default());
    }
}
