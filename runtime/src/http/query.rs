//! Parameters of an address: known names, each once.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Query;

use super::problem::{INVALID, MALFORMED, Problem};
use crate::request::parse_span;

/// Longest time that a request may wait for something.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// The parameters of a request.
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes them apart. One that is not among these names, or is there twice, is refused.
    pub(super) fn read(request: &HttpRequest, known: &[&str]) -> Result<Parameters, Problem> {
        Parameters::with_repeated(request, known, None)
    }

    /// The same, where one of them may be there several times.
    pub(super) fn with_repeated(request: &HttpRequest, known: &[&str], repeated: Option<&str>) -> Result<Parameters, Problem> {
        let Parameters(pairs) = Parameters::any(request)?;
        for (index, (name, _)) in pairs.iter().enumerate() {
            let name = name.chars().take(64).collect::<String>();
            if !known.contains(&name.as_str()) {
                let names =
                    if known.is_empty() { "none is known here".to_owned() } else { format!("known are {}", known.join(", ")) };
                return Err(
                    Problem::new(INVALID, format!("`{}` is not a known parameter; {names}", name.escape_debug())).field(name)
                );
            }
            if repeated != Some(&*name) && pairs[..index].iter().any(|(before, _)| *before == name) {
                return Err(Problem::new(INVALID, format!("`{name}` is given twice; it is expected once")).field(name));
            }
        }
        Ok(Parameters(pairs))
    }

    /// Takes them apart, whatever they are called.
    pub(super) fn any(request: &HttpRequest) -> Result<Parameters, Problem> {
        let pairs = Query::<Vec<(String, String)>>::from_query(request.query_string());
        let pairs = pairs.map_err(|error| Problem::new(MALFORMED, format!("the query cannot be read: {error}")))?;
        Ok(Parameters(pairs.into_inner()))
    }

    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that stands for something.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| parse(text).ok_or_else(|| unexpected(name, text, expected))).transpose()
    }

    /// A parameter that may be there several times, and stands for something each time.
    pub(super) fn all<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
        max: usize,
        expected: &str,
    ) -> Result<Vec<T>, Problem> {
        let texts: Vec<_> = self.0.iter().filter(|(known, _)| known == name).map(|(_, text)| text).collect();
        if texts.len() > max {
            let detail = format!("`{name}` is given {} times; it is expected at most {max} times", texts.len());
            return Err(Problem::new(INVALID, detail).field(name));
        }
        texts.into_iter().map(|text| parse(text).ok_or_else(|| unexpected(name, text, expected))).collect()
    }

    /// How many are wanted.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Problem> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        let within = |text: &str| number(text).filter(|limit| (1..=max).contains(limit));
        Ok(self.parsed("limit", within, &format!("a whole number from 1 to {max}"))?.unwrap_or(default))
    }

    /// How long to wait for something; not at all without it.
    pub(super) fn wait(&self) -> Result<Duration, Problem> {
        let span = |text: &str| parse_span(text).map(|span| span.to_std()).filter(|span| *span <= WAIT_MAX);
        Ok(self.parsed("wait", span, "a span of at most 60s such as 10s")?.unwrap_or_default())
    }
}

fn unexpected(name: &str, text: &str, expected: &str) -> Problem {
    let shown: String = text.chars().take(64).collect();
    Problem::new(INVALID, format!("`{name}` is {shown:?} where {expected} is expected")).field(name)
}
