//! The log on Apache Kafka: where it is, what its topics are, and how its clients are made.
//!
//! [`url`] reads `kafka://HOST:PORT/NAMESPACE` and knows every name in a namespace, [`topics`] says how each topic must be, [`admin`] looks
//! whether it is ([`survey`]) and creates what is missing, [`client`] makes the configuration of every client.

pub mod admin;
pub mod client;
pub mod context;
pub mod survey;
pub mod topics;
pub mod url;

pub use client::Settings;
pub use topics::Topic;
pub use url::{KafkaUrl, Namespace};
