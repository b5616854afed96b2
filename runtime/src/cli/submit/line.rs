//! What one request asks for: the object on a line of NDJSON, or the flags of the command, over what its task type promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use ergate::events::time::Timestamp;
use ergate::request::{self, Record, Request};
use ergate::{Extras, TypeSettings, tasks};
use ergate_config::Config;

/// The task types that can be asked for, with what they promise.
#[derive(Clone)]
pub(super) struct Types(Arc<BTreeMap<String, TypeSettings>>);

impl Types {
    /// Those that are built in and those of the configuration.
    pub(super) fn of(config: &Config) -> Types {
        let built_in = tasks::all().into_iter().map(|known| (known.name.to_owned(), known.settings));
        let configured = config.tasks.iter().map(|(name, task)| (name.clone(), task.settings.clone()));
        Types(Arc::new(built_in.chain(configured).collect()))
    }

    /// What a request asks for beyond its type's settings.
    ///
    /// # Errors
    /// That the type is not known, for a person.
    pub(super) fn take_extras(&self, request: &mut Request<'_>) -> Result<Option<Box<Extras>>, String> {
        let known = || self.0.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let settings = self.0.get(&*request.task_type);
        let settings =
            settings.ok_or_else(|| format!("task type {:?} is not known; known are: {}", start(&request.task_type), known()))?;
        Ok(request.take_extras(settings))
    }
}

/// The first characters of a text that may be long.
fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Reads a line.
///
/// # Errors
/// What is wrong with it, for a person.
pub(super) fn parse(line: &[u8]) -> Result<Request<'_>, String> {
    request::parse(&Record { value: Some(line), ..Record::default() }, now()).map_err(|refusal| refusal.to_string())
}

/// The moment from which on a delay counts.
pub(super) fn now() -> Timestamp {
    Timestamp(u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or(0))
}

/// Reads a moment in RFC 3339 form.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    request::parse_moment(text).ok_or_else(|| "use a moment such as `2030-01-31T12:00:00Z`".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use ergate::events::time::Micros;

    #[test]
    fn a_line_with_everything_is_read() {
        let text = r#"{"type":"fail","payload":{"a":[1, 2]},"key":"k","key_window":"1h","priority":9,"delay":"2s",
            "retry":{"attempts":3,"initial":"10ms","coefficient":1.5},"timeouts":{"start_to_close":"1m"},"labels":{"a":"b"}}"#;
        let mut request = parse(text.as_bytes()).unwrap();
        assert_eq!(*request.payload, *br#"{"a":[1, 2]}"#);
        let extras = Types::of(&Config::default()).take_extras(&mut request).unwrap().unwrap();
        assert_eq!((extras.key.as_deref(), extras.priority), (Some("k"), Some(9)));
        let retry = extras.retry.unwrap();
        assert_eq!((retry.attempts, retry.initial, retry.coefficient_milli), (3, Micros::from_millis(10), 1_500));
        assert_eq!(extras.timeouts.unwrap().start_to_close, Micros::from_secs(60));
        assert_eq!(extras.labels, [("a".to_owned(), "b".to_owned())]);
        assert!(extras.not_before.is_some());
    }

    #[test]
    fn a_plain_line_asks_for_nothing() {
        let mut request = parse(br#"{"type":"noop"}"#).unwrap();
        assert_eq!(*request.payload, *b"null");
        assert!(Types::of(&Config::default()).take_extras(&mut request).unwrap().is_none());
    }

    #[test]
    fn an_unknown_type_is_named_with_those_that_are_known() {
        let mut request = parse(br#"{"type":"nope"}"#).unwrap();
        assert!(Types::of(&Config::default()).take_extras(&mut request).unwrap_err().contains("file.digest"));
    }
}
