//! Which of the two a verb asks: a running service, or a data directory. The one place that decides it.
//!
//! The stronger says: flags, then the environment, then the configuration file; where nobody says anything, the data directory `./ergate-data`.

use std::fmt;
use std::path::PathBuf;

use ergate_config::{Config, Origin};
use serde_json::Value;

use super::exit::Trouble;
use super::remote::{Remote, Way};
use super::{Globals, config, output, record};

/// The variable that names a service.
const URL: &str = "ERGATE_URL";

/// What a verb asks.
pub(crate) enum Side {
    /// A running service.
    Service(Box<Remote>),
    /// A data directory, or the topics that a flag names.
    Directory,
}

/// Who said which of the two it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// A flag.
    Flag(&'static str),
    /// The environment or a file, by this name.
    Setting(String),
    /// Nobody.
    Default,
}

/// What was said about it.
#[derive(Clone, Debug, Default)]
struct Given {
    /// `--url`.
    url: Option<String>,
    /// `--data` or `--log`.
    directory: Option<&'static str>,
    /// `ERGATE_URL`; empty is unset.
    variable: Option<String>,
    /// `client.url` with its origin.
    client_url: Option<(String, Origin)>,
    /// Where `log.data` comes from.
    log_data: Option<Origin>,
}

/// The service that was chosen, or a directory, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    Service(String, Chosen),
    Directory(Chosen),
}

/// Decides between the two.
fn choose(given: &Given) -> Result<Choice, Trouble> {
    let Given { url, directory, variable, client_url, log_data } = given;
    let setting = |origin: &Origin, name: &str| Chosen::Setting(format!("{name} ({origin})"));
    let in_environment = |origin: &&Origin| matches!(origin, Origin::Environment { .. });
    let configured = |of: fn(&&Origin) -> bool| client_url.as_ref().filter(|(_, origin)| of(&origin));
    match (url, directory) {
        (Some(_), Some(flag)) => {
            return Err(Trouble::Usage(format!("--url asks a service and {flag} names a log; give one of the two")));
        }
        (Some(url), None) => return Ok(Choice::Service(url.clone(), Chosen::Flag("--url"))),
        (None, Some(flag)) => return Ok(Choice::Directory(Chosen::Flag(flag))),
        (None, None) => {}
    }
    // ERGATE_LOG__DATA also says where `ergate up` keeps its log, and ERGATE_URL nothing but this.
    if let Some(url) = variable.as_ref().filter(|url| !url.is_empty()) {
        return Ok(Choice::Service(url.clone(), Chosen::Setting(URL.to_owned())));
    }
    if let Some((url, origin)) = configured(|origin| matches!(origin, Origin::Environment { .. })) {
        return Ok(Choice::Service(url.clone(), setting(origin, "client.url")));
    }
    if let Some(origin) = log_data.as_ref().filter(in_environment) {
        return Ok(Choice::Directory(setting(origin, "log.data")));
    }
    if let Some((url, origin)) = configured(|origin| !matches!(origin, Origin::Environment { .. })) {
        return Ok(Choice::Service(url.clone(), setting(origin, "client.url")));
    }
    Ok(Choice::Directory(log_data.as_ref().map_or(Chosen::Default, |origin| setting(origin, "log.data"))))
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chosen::Flag(name) => f.write_str(name),
            Chosen::Setting(name) => f.write_str(name),
            Chosen::Default => write!(f, "default, for there is no --url, {URL} or `client.url`"),
        }
    }
}

/// What flags, environment and configuration choose for a verb that can ask both; `log` is the flag of its own that names a log, where it is given.
pub(crate) fn side(globals: &Globals, log: Option<&'static str>) -> anyhow::Result<Side> {
    let config = config::settings(globals)?;
    match choose(&given(globals, log, &config))? {
        Choice::Service(url, chosen) => Ok(Side::Service(Box::new(open(&url, &chosen, globals, &config)?))),
        Choice::Directory(_) => Ok(Side::Directory),
    }
}

/// The service for a verb that asks nothing else.
pub(crate) fn service(globals: &Globals, verb: &str) -> anyhow::Result<Remote> {
    let config = config::settings(globals)?;
    match choose(&given(globals, None, &config))? {
        Choice::Service(url, chosen) => open(&url, &chosen, globals, &config),
        Choice::Directory(chosen) => Err(Trouble::Usage(format!(
            "`ergate {verb}` asks a running service, and a data directory was chosen ({chosen}); name the service with --url or {URL}"
        ))
        .into()),
    }
}

/// Adds to a log that is not there why it was looked for, and what else could be meant.
pub(crate) fn explain(error: anyhow::Error, globals: &Globals) -> anyhow::Error {
    let Some(ergate::events::log::LogError::NotFound { path }) = error.downcast_ref() else { return error };
    let Ok(config) = config::settings(globals) else { return error };
    match choose(&given(globals, None, &config)) {
        Ok(Choice::Directory(chosen @ (Chosen::Default | Chosen::Setting(_)))) if *path == config.log.data => {
            let text = format!("the data directory {} was chosen ({chosen})", path.display());
            error.context(text)
        }
        Ok(_) | Err(_) => error,
    }
}

fn given(globals: &Globals, log: Option<&'static str>, config: &Config) -> Given {
    let origin = |key: &str| Some(config.origin(key)).filter(|origin| *origin != Origin::Default);
    Given {
        url: globals.url.clone(),
        directory: globals.data.is_some().then_some("--data").or(log),
        variable: std::env::var_os(URL).map(|value| value.to_string_lossy().into_owned()),
        client_url: config.client.url.clone().zip(origin("client.url")),
        log_data: origin("log.data"),
    }
}

fn open(url: &str, chosen: &Chosen, globals: &Globals, config: &Config) -> anyhow::Result<Remote> {
    // What is wrong with a URL is told without it: it may have a password in it.
    let url = url.parse().map_err(|reason| Trouble::Usage(format!("the URL of {chosen} cannot be used: {reason}")))?;
    let file = |path: &Option<PathBuf>| path.clone();
    let way = Way {
        url,
        chosen: chosen.to_string(),
        token_file: (file(&globals.token_file), file(&config.client.token_file)),
        ca: file(&globals.ca).or(variable("ERGATE_CA")).or(file(&config.client.ca)),
        within: globals.answer_within,
    };
    Remote::open(way, globals.quiet)
}

/// Says which shards an answer says nothing of, for they had no leader.
pub(crate) fn say_missing(answer: &Value) {
    let missing = answer["missing_shards"].as_array().filter(|missing| !missing.is_empty());
    if let Some(missing) = missing {
        let names = missing.iter().map(record::plain).collect::<Vec<_>>().join(", ");
        output::note(&output::escape(&format!("nothing is told of shards without a leader at the moment: {names}; ask again")));
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn file() -> Origin {
        Origin::File { path: "ergate.toml".into(), line: 3 }
    }

    fn env(name: &str) -> Origin {
        Origin::Environment { name: name.to_owned() }
    }

    #[test]
    fn the_stronger_says_which_of_the_two_it_is() {
        let some = |text: &str| Some(text.to_owned());
        let all = Given {
            url: None,
            directory: None,
            variable: some("http://variable"),
            client_url: Some(("http://client".to_owned(), file())),
            log_data: Some(file()),
        };
        let table = [
            (Given::default(), "directory: default"),
            (all.clone(), "http://variable: ERGATE_URL"),
            (Given { url: some("http://flag"), ..all.clone() }, "http://flag: --url"),
            (Given { directory: Some("--data"), ..all.clone() }, "directory: --data"),
            (Given { directory: Some("--log"), ..all.clone() }, "directory: --log"),
            (Given { variable: some(""), ..all.clone() }, "http://client: client.url (ergate.toml:3)"),
            (Given { variable: None, client_url: None, ..all.clone() }, "directory: log.data (ergate.toml:3)"),
            (Given { variable: None, log_data: Some(env("ERGATE_LOG__DATA")), ..all.clone() }, "directory: log.data"),
            (Given { log_data: Some(env("ERGATE_LOG__DATA")), ..all.clone() }, "http://variable: ERGATE_URL"),
            (
                Given {
                    variable: None,
                    client_url: Some(("http://e".to_owned(), env("ERGATE_CLIENT__URL"))),
                    log_data: Some(env("ERGATE_LOG__DATA")),
                    ..all.clone()
                },
                "http://e: client.url",
            ),
        ];
        for (given, expected) in table {
            let told = match choose(&given).unwrap() {
                Choice::Service(url, chosen) => format!("{url}: {chosen}"),
                Choice::Directory(chosen) => format!("directory: {chosen}"),
            };
            assert!(told.starts_with(expected), "{given:?}: {told}");
        }
        let both = Given { url: some("http://flag"), directory: Some("--data"), ..Given::default() };
        assert!(choose(&both).unwrap_err().to_string().contains("--data"));
    }
}
