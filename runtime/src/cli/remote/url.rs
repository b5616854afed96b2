//! Paths below a service.

use std::fmt;

pub(crate) use ergate::http::client::ServiceUrl;

/// A path below a service with its query; what comes from outside is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path(String);

impl Path {
    /// What the request line asks a service for.
    pub(super) fn at(&self, url: &ServiceUrl) -> String {
        format!("{}{}", url.base, self.0)
    }

    /// A path as it is.
    pub(crate) fn new(path: &str) -> Path {
        Path(path.to_owned())
    }

    /// Adds a segment that comes from outside.
    pub(crate) fn below(mut self, segment: &str) -> Path {
        self.0.push('/');
        escape(&mut self.0, segment);
        self
    }

    /// Adds what follows it.
    pub(crate) fn then(mut self, rest: &str) -> Path {
        self.0.push_str(rest);
        self
    }

    /// Adds a parameter, where it is given.
    pub(crate) fn with(mut self, name: &str, value: Option<impl fmt::Display>) -> Path {
        let Some(value) = value else { return self };
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        escape(&mut self.0, &value.to_string());
        self
    }
}

/// Everything but unreserved characters (RFC 3986 §2.3) as `%` and two digits.
fn escape(into: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let path =
            Path::new("/v1/pools").below("a/b?").with("type", Some("é&=")).with("state", None::<&str>).with("limit", Some(2));
        assert_eq!(path.0, "/v1/pools/a%2Fb%3F?type=%C3%A9%26%3D&limit=2");
    }
}
