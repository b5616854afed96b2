//! The address of a service.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Its port; the usual one where none is given.
    pub port: u16,
    /// The `Host` header.
    pub authority: String,
    /// What every path begins with: empty, or the scope below which an application has the routes.
    pub base: String,
    /// The socket of this machine on which it is, where it has no port.
    pub socket: Option<PathBuf>,
}

impl FromStr for ServiceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<ServiceUrl, String> {
        if let Some(path) = text.trim().strip_prefix(UNIX) {
            return of_socket(path);
        }
        let expected = "write it as http://127.0.0.1:7420 or https://tasks.example.org";
        let uri: Uri = text.trim().parse().map_err(|error| format!("it is no URL ({error}); {expected}"))?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return Err(format!("it begins neither with http:// nor with https://; {expected}")),
        };
        let authority = uri.authority().ok_or_else(|| format!("it names no host; {expected}"))?;
        // A URL is shown in messages and in the list of processes, where no secret belongs.
        if authority.as_str().contains('@') {
            return Err("it has a user or a password in it; a token goes into a file, see --token-file".to_owned());
        }
        // A port that is too large is no port to the parser, and must not become the usual one.
        if authority.port_u16().is_none_or(|port| port == 0) && authority.as_str() != authority.host() {
            return Err("its port is none from 1 to 65535".to_owned());
        }
        if uri.query().is_some() {
            return Err(format!("it has a query; {expected}"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let (authority, base) = (authority.to_string(), uri.path().trim_end_matches('/').to_owned());
        Ok(ServiceUrl { tls, host, port, authority, base, socket: None })
    }
}

/// What the address of a socket of this machine begins with.
const UNIX: &str = "unix:";

fn of_socket(path: &str) -> Result<ServiceUrl, String> {
    if !path.starts_with('/') {
        return Err("the path of its socket is not absolute; write it as unix:/var/lib/ergate/workers.sock".to_owned());
    }
    let name = "localhost".to_owned();
    Ok(ServiceUrl { tls: false, host: name.clone(), port: 0, authority: name, base: String::new(), socket: Some(path.into()) })
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(socket) = &self.socket {
            return write!(f, "{UNIX}{}", socket.display());
        }
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.base)
    }
}

impl ServiceUrl {
    /// Whether only this machine hears what is sent there.
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_printed_alike() {
        for (text, printed, host, port) in [
            ("http://127.0.0.1:7420", "http://127.0.0.1:7420", "127.0.0.1", 7420),
            ("http://localhost:7420/", "http://localhost:7420", "localhost", 7420),
            ("https://tasks.example.org/ergate/", "https://tasks.example.org/ergate", "tasks.example.org", 443),
            (" http://[::1] ", "http://[::1]", "::1", 80),
            ("unix:/run/a.sock", "unix:/run/a.sock", "localhost", 0),
        ] {
            let url: ServiceUrl = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.host.as_str(), url.port), (printed, host, port), "{text}");
        }
        let url: ServiceUrl = "http://localhost:1/a".parse().unwrap();
        assert!(url.is_local() && !"http://10.0.0.1".parse::<ServiceUrl>().unwrap().is_local());
    }

    #[test]
    fn what_is_no_url_of_a_service_is_refused_with_what_to_write() {
        for (text, words) in [
            ("localhost:7420", "neither with http:// nor"),
            ("ftp://x", "neither with http:// nor"),
            ("http://", "no URL"),
            ("http://me:secret@x", "--token-file"),
            ("http://x:99999", "port"),
            ("http://x/?a=b", "query"),
            ("", "no URL"),
            ("unix:a.sock", "not absolute"),
        ] {
            let error = text.parse::<ServiceUrl>().unwrap_err();
            assert!(error.contains(words) && !error.contains("secret"), "{text}: {error}");
        }
    }
}
