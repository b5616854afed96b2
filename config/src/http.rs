//! `[http]`: where the service listens, whom it lets in, and what it takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::value::{Raw, show_duration, show_size};

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where it listens; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// The file with the tokens of those who may come in; `None` lets everybody on this machine in.
    pub tokens: Option<PathBuf>,
    /// The certificate and those that lead to it, in PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM.
    pub tls_key: Option<PathBuf>,
    /// Names under which the service may be asked for beside those of this machine.
    pub hosts: Vec<String>,
    /// Where other engines reach this one, as a URL without a path; `None` is where it listens.
    pub advertise: Option<String>,
    /// The certificates by which other engines are trusted, in PEM; `None` is those that the machine trusts.
    pub peer_ca: Option<PathBuf>,
    /// Bytes of the body of one request; a stream of lines may be longer.
    pub body_max: u64,
    /// Connections at one time.
    pub connections_max: u64,
    /// Clients that follow the log at one time.
    pub streams_max: u64,
    /// How long the head of a request may take.
    pub head_timeout: Duration,
    /// How long nothing of a body may come.
    pub body_timeout: Duration,
    /// How long a silent connection stays open.
    pub keep_alive: Duration,
    /// Threads that serve.
    pub threads: u64,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 7420))),
            tokens: None,
            tls_cert: None,
            tls_key: None,
            hosts: Vec::new(),
            advertise: None,
            peer_ca: None,
            body_max: 2 << 20,
            connections_max: 1_024,
            streams_max: 64,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            threads: 2,
        }
    }
}

/// Keys of `[http]`, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 14] = [
    "http.listen",
    "http.tokens",
    "http.tls_cert",
    "http.tls_key",
    "http.hosts",
    "http.advertise",
    "http.peer_ca",
    "http.body_max",
    "http.connections_max",
    "http.streams_max",
    "http.head_timeout",
    "http.body_timeout",
    "http.keep_alive",
    "http.threads",
];

impl Http {
    /// Sets a value; the error says what the key takes.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        let span = || raw.duration().filter(|span| (Duration::from_millis(100)..=Duration::from_secs(3_600)).contains(span));
        const SPAN: &str = "a duration from \"100ms\" to \"1h\"";
        const PATH: &str = "the path of a file, or \"none\"";
        match key {
            "http.listen" => {
                self.listen = listen(raw).ok_or("an address with its port such as \"127.0.0.1:7420\", or \"none\"")?
            }
            "http.tokens" => self.tokens = path(raw).ok_or(PATH)?,
            "http.tls_cert" => self.tls_cert = path(raw).ok_or(PATH)?,
            "http.tls_key" => self.tls_key = path(raw).ok_or(PATH)?,
            "http.hosts" => self.hosts = hosts(raw).ok_or("names with commas between them such as \"tasks.example.org\"")?,
            "http.advertise" => {
                self.advertise = advertise(raw).ok_or("a URL such as \"https://10.0.0.7:7420\", or \"none\"")?;
            }
            "http.peer_ca" => self.peer_ca = path(raw).ok_or(PATH)?,
            "http.body_max" => {
                let fits = |size: &u64| (1 << 10..=64 << 20).contains(size);
                self.body_max = raw.size().filter(fits).ok_or("a size from \"1KiB\" to \"64MiB\"")?;
            }
            "http.connections_max" => self.connections_max = raw.count(1, 65_536).ok_or("a whole number from 1 to 65536")?,
            "http.streams_max" => self.streams_max = raw.count(0, 65_536).ok_or("a whole number from 0 to 65536")?,
            "http.head_timeout" => self.head_timeout = span().ok_or(SPAN)?,
            "http.body_timeout" => self.body_timeout = span().ok_or(SPAN)?,
            "http.keep_alive" => self.keep_alive = span().ok_or(SPAN)?,
            "http.threads" => self.threads = raw.count(1, 64).ok_or("a whole number from 1 to 64")?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// A value as a file would have it, without quotes.
    pub(crate) fn value(&self, key: &str) -> String {
        let file = |path: &Option<PathBuf>| path.as_ref().map_or_else(|| NONE.to_owned(), |path| path.display().to_string());
        match key {
            "http.listen" => self.listen.map_or_else(|| NONE.to_owned(), |address| address.to_string()),
            "http.tokens" => file(&self.tokens),
            "http.tls_cert" => file(&self.tls_cert),
            "http.tls_key" => file(&self.tls_key),
            "http.hosts" => self.hosts.join(","),
            "http.advertise" => self.advertise.clone().unwrap_or_else(|| NONE.to_owned()),
            "http.peer_ca" => file(&self.peer_ca),
            "http.body_max" => show_size(self.body_max),
            "http.connections_max" => self.connections_max.to_string(),
            "http.streams_max" => self.streams_max.to_string(),
            "http.head_timeout" => show_duration(self.head_timeout),
            "http.body_timeout" => show_duration(self.body_timeout),
            "http.keep_alive" => show_duration(self.keep_alive),
            "http.threads" => self.threads.to_string(),
            _ => String::new(),
        }
    }

    /// What cannot be together: the key at fault and why.
    pub(crate) fn conflict(&self) -> Option<(&'static str, &'static str)> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Some(("http.tls_cert", "it needs `http.tls_key`, the private key of the certificate")),
            (None, Some(_)) => Some(("http.tls_key", "it needs `http.tls_cert`, the certificate of the key")),
            _ => None,
        }
    }
}

const NONE: &str = "none";
/// Longest address: a name of 253 bytes with its scheme and port.
const ADVERTISE_BYTES_MAX: usize = 270;

fn listen(raw: &Raw) -> Option<Option<SocketAddr>> {
    match raw.text()? {
        NONE => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// A URL that is a scheme, a name and a port, and nothing else.
fn advertise(raw: &Raw) -> Option<Option<String>> {
    let text = raw.text()?;
    if text == NONE {
        return Some(None);
    }
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let (host, port) = authority.rsplit_once(':')?;
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    let is_address = host.starts_with('[') || !host.contains(':');
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    (is_host && is_address && is_port && text.len() <= ADVERTISE_BYTES_MAX).then(|| Some(text.to_owned()))
}

fn path(raw: &Raw) -> Option<Option<PathBuf>> {
    match raw.text()? {
        "" => None,
        NONE => Some(None),
        text => Some(Some(text.into())),
    }
}

/// Names without a port, in small letters.
fn hosts(raw: &Raw) -> Option<Vec<String>> {
    let plain =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte));
    let names = raw.text()?.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| plain(name).then(|| name.to_ascii_lowercase())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown_alike() {
        let mut http = Http::default();
        for (key, text) in [
            ("http.listen", "[::1]:80"),
            ("http.listen", "none"),
            ("http.tokens", "/etc/ergate/tokens"),
            ("http.hosts", "a.example.org,b"),
            ("http.advertise", "https://a.example.org:7420"),
            ("http.advertise", "http://[::1]:80"),
            ("http.advertise", "none"),
            ("http.peer_ca", "/etc/ergate/ca.pem"),
            ("http.body_max", "1MiB"),
            ("http.head_timeout", "500ms"),
        ] {
            assert_eq!(http.set(key, &Raw::Word(text.to_owned())), Ok(()), "{key}");
            assert_eq!(http.value(key), text);
        }
        for text in
            ["", "a:1", "http://a", "http://a:0", "http://a:1/x", "http://u@a:1", "http://:1", "ftp://a:1", "http://a:1:2"]
        {
            assert!(http.set("http.advertise", &Raw::Word(text.to_owned())).is_err(), "{text}");
        }
        for (key, text) in [("http.listen", "7420"), ("http.listen", "localhost"), ("http.body_max", "1B"), ("http.hosts", "a b")]
        {
            assert!(http.set(key, &Raw::Word(text.to_owned())).is_err(), "{key} {text}");
        }
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let http = Http { tls_cert: Some("cert.pem".into()), ..Http::default() };
        assert_eq!(http.conflict().map(|(key, _)| key), Some("http.tls_cert"));
    }
}
