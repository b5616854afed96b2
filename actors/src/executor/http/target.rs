//! Where calls of a task type go: read from the configuration once, and never from a payload or a response.

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;

/// A service.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// Name or address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What the request line asks for.
    pub(super) path: Uri,
    /// The `Host` header.
    pub(super) authority: HeaderValue,
}

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub(super) fn parse(url: &str) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|error| format!("it is no URL: {error}"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return Err("it begins neither with http:// nor with https://".to_owned()),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user or a password in it; put them in a header".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err("it names no host".to_owned());
        }
        // A port that is too large is no port to the parser, and must not become the usual one.
        if authority.port_u16().is_none_or(|port| port == 0) && authority.as_str() != authority.host() {
            return Err("its port is none from 1 to 65535".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = path.parse().map_err(|error| format!("its path cannot be asked for: {error}"))?;
        let authority = HeaderValue::from_str(authority.as_str()).map_err(|error| format!("its host is no host: {error}"))?;
        Ok(Target { tls, host, port, path, authority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, tls, host, port, path, authority) in [
            ("http://127.0.0.1:9000/embed", false, "127.0.0.1", 9000, "/embed", "127.0.0.1:9000"),
            ("https://models.example", true, "models.example", 443, "/", "models.example"),
            ("http://[::1]:80/a?b=c", false, "::1", 80, "/a?b=c", "[::1]:80"),
        ] {
            let target = Target::parse(url).expect(url);
            let found = (target.tls, target.host.as_str(), target.port, target.path.to_string(), target.authority.as_bytes());
            assert_eq!(found, (tls, host, port, path.to_owned(), authority.as_bytes()), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_service_is_refused() {
        for (url, word) in [
            ("ftp://x/", "neither"),
            ("/embed", "neither"),
            ("http://me:secret@x/", "a user or a password"),
            ("http://", "no URL"),
            ("http://x:99999/", "its port is none"),
            ("http://x:0/", "its port is none"),
            ("http://x:/", "its port is none"),
        ] {
            let error = Target::parse(url).expect_err(url);
            assert!(error.contains(word) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
