//! Many machines: requests from a topic, the record on a topic, shards shared out over engines by a consumer group.
//!
//! ```text
//!            group.rs (one thread)                        lead.rs (the engine's system)
//!   topic ── poll ── feed.rs ── lane ──────────────────▶ log writer of the shard ── log thread ── transaction ── topic
//!              └─ rebalance ── assigned / revoked ─────▶ open.rs: fence, restore, start │ give back, stop
//! ```
//! A request that this engine submits goes the same way as everybody's: `requests.rs` publishes it, and `answers/` reads from the record what
//! became of it, whichever engine it was that led its shard.
//!
//! Owning partition p of the requests *is* leadership of shard p: there is no other election. An engine that gets a partition fences its
//! former owner with the shard's transactional id, brings its copy of the log up to what is committed, folds it, and only then
//! reads requests, from the offset that the log itself names.
//!
//! [`url`] reads `kafka://HOST:PORT/NAMESPACE` and knows every name in a namespace, [`topics`] says how each topic must be, [`admin`] looks
//! whether it is ([`survey`]) and creates what is missing, [`client`] makes the configuration of every client.

pub mod admin;
mod answers;
mod assignment;
mod beside;
mod capacity;
pub mod client;
mod cluster;
pub mod context;
mod copy;
mod ends;
mod engine;
mod feed;
mod front;
mod group;
mod lead;
pub mod logs;
mod mended;
mod messages;
mod open;
mod partition;
mod peers;
pub mod refused;
mod requests;
mod settings;
mod shard;
mod share;
mod snapshots;
mod standby;
pub mod status;
mod stuck;
pub mod survey;
pub mod topics;
pub mod url;
mod whole;

pub use client::Settings;
#[cfg(feature = "metrics")]
pub(crate) use ends::End;
pub(crate) use engine::Engine;
pub use engine::Standing;
pub use logs::{CAPACITY, Logs};
pub use mended::is_mended;
pub use partition::home;
#[cfg(feature = "http")]
pub(crate) use peers::Leader;
pub use settings::{KafkaSettings, Topics};
pub use topics::Topic;
pub use url::{KafkaUrl, Namespace};

/// An error with everything that caused it, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
