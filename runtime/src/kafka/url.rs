//! `kafka://HOST:PORT,HOST:PORT/NAMESPACE`: where a log on Kafka is, and the names of everything in it.

use std::fmt;
use std::str::FromStr;

use super::topics::Topic;

/// Where Kafka listens unless a broker's port is given.
pub const PORT_DEFAULT: u16 = 9092;
/// Longest namespace. Kafka's limit for a topic is 249, and consumer groups and transactional ids are named after it too.
pub const NAMESPACE_LEN_MAX: usize = 100;
/// Before every address of a log on Kafka.
const SCHEME: &str = "kafka://";

/// Where a log on Kafka is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaUrl {
    /// Each `HOST:PORT`; any of them leads to all.
    brokers: Vec<String>,
    namespace: Namespace,
}

/// What the names of one log have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Namespace(String);

/// Why an address cannot be used. Nothing of what could be a password is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message names its fields")]
pub enum UrlError {
    /// It begins with something else.
    #[error("the address of a log on Kafka is kafka://HOST:PORT/NAMESPACE")]
    Scheme,
    /// It holds a user or a password.
    #[error("an address holds no user and no password; set \"sasl.username\" and \"sasl.password\" under [kafka.options]")]
    Credentials,
    /// It has more than brokers and a namespace.
    #[error("an address ends with the namespace; options for the client go under [kafka.options]")]
    Query,
    /// There is no namespace.
    #[error("name the namespace of the log behind the brokers, as in kafka://{brokers}/ergate")]
    NoNamespace { brokers: String },
    /// The namespace cannot be part of a topic's name.
    #[error("{found:?} is no namespace: it takes 1 to 100 of the letters a-z and A-Z, digits, `.`, `_` and `-`")]
    Namespace { found: String },
    /// A broker is not `HOST` or `HOST:PORT`.
    #[error("{found:?} is no broker: it takes HOST or HOST:PORT, several with commas between them")]
    Broker { found: String },
}

impl KafkaUrl {
    /// Each `HOST:PORT`, with commas between them.
    pub fn bootstrap(&self) -> String {
        self.brokers.join(",")
    }

    /// What its names have in common.
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

impl Namespace {
    /// The name of a topic: `NAMESPACE.TOPIC`.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{self}.{}", topic.name())
    }

    /// The consumer group of the engines: owning a partition of the requests in it is owning the shard.
    pub fn group(&self) -> String {
        format!("{self}-engines")
    }

    /// The transactional id of a shard: who initialises it fences the former owner.
    pub fn transactional_id(&self, shard: u32) -> String {
        format!("{self}-{shard}")
    }

    /// A transactional id that no shard has, to try whether transactions are allowed.
    pub fn transactional_id_for_doctor(&self) -> String {
        format!("{self}-doctor")
    }
}

impl FromStr for Namespace {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Namespace, UrlError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if (1..=NAMESPACE_LEN_MAX).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Namespace(text.to_owned()))
        } else {
            Err(UrlError::Namespace { found: text.chars().take(NAMESPACE_LEN_MAX).collect() })
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KafkaUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<KafkaUrl, UrlError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UrlError::Scheme)?;
        if rest.contains('@') {
            return Err(UrlError::Credentials);
        }
        if rest.contains(['?', '#']) {
            return Err(UrlError::Query);
        }
        let (brokers, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        let brokers = brokers.split(',').map(broker).collect::<Result<Vec<_>, _>>()?;
        if namespace.is_empty() {
            return Err(UrlError::NoNamespace { brokers: brokers.join(",") });
        }
        Ok(KafkaUrl { brokers, namespace: namespace.parse()? })
    }
}

impl fmt::Display for KafkaUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.bootstrap(), self.namespace)
    }
}

/// `HOST:PORT` of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn broker(text: &str) -> Result<String, UrlError> {
    let wrong = || UrlError::Broker { found: text.chars().take(256).collect() };
    let (host, port) = match text.rfind(']') {
        Some(end) => (&text[..=end], text[end + 1..].strip_prefix(':')),
        None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let behind = if host.ends_with(']') { &text[host.len()..] } else { "" };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok() && (behind.is_empty() || behind.starts_with(':')),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')),
    };
    let port = port.map_or(Some(PORT_DEFAULT), |port| port.parse().ok().filter(|port| *port != 0)).ok_or_else(wrong)?;
    if is_host { Ok(format!("{host}:{port}")) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_brokers_and_a_namespace() {
        let url: KafkaUrl = "kafka://h1:9092,h2:9093,h3,[::1]:9094,[::1]/shop.orders_v2-x".parse().unwrap();
        assert_eq!(url.bootstrap(), "h1:9092,h2:9093,h3:9092,[::1]:9094,[::1]:9092");
        assert_eq!(url.namespace().to_string(), "shop.orders_v2-x");
        assert_eq!(url.namespace().topic(Topic::Requests), "shop.orders_v2-x.requests");
        assert_eq!(url.namespace().transactional_id(7), "shop.orders_v2-x-7");
        assert_eq!(url.to_string().parse(), Ok(url));
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_right() {
        let long = format!("kafka://h/{}", "n".repeat(101));
        let table = [
            ("http://h:9092/ns", "kafka://HOST:PORT/NAMESPACE"),
            ("h:9092/ns", "kafka://HOST:PORT/NAMESPACE"),
            ("kafka://h:9092", "kafka://h:9092/ergate"),
            ("kafka://h/", "kafka://h:9092/ergate"),
            ("kafka://h/a/b", "\"a/b\" is no namespace"),
            ("kafka://h/größe", "is no namespace"),
            ("kafka://h/a b", "is no namespace"),
            (&long, "is no namespace"),
            ("kafka:///ns", "\"\" is no broker"),
            ("kafka://h,,g/ns", "\"\" is no broker"),
            ("kafka://h:port/ns", "\"h:port\" is no broker"),
            ("kafka://h:0/ns", "\"h:0\" is no broker"),
            ("kafka://h:99999/ns", "is no broker"),
            ("kafka://::1/ns", "is no broker"),
            ("kafka://[::1]9092/ns", "is no broker"),
            ("kafka://[h]:1/ns", "is no broker"),
            ("kafka://h/ns?acks=1", "[kafka.options]"),
        ];
        for (text, words) in table {
            let error = text.parse::<KafkaUrl>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        let error = "kafka://me:hunter2@h/ns".parse::<KafkaUrl>().unwrap_err().to_string();
        assert!(error.contains("sasl.password") && !error.contains("hunter2"), "{error}");
    }
}
