//! Many machines: requests from a topic, the record on a topic, shards shared out over engines by a consumer group.
//!
//! ```text
//!            group.rs (one thread)                        engine.rs (the engine's system)
//!   topic ── poll ── feed.rs ── lane ──────────────────▶ log writer of the shard ── log thread ── transaction ── topic
//!              └─ rebalance ── assigned / revoked ─────▶ open.rs: fence, restore, start │ give back, stop
//! ```
//! A request that this engine submits goes the same way as everybody's: `requests.rs` publishes it, and `answers/` reads from the record what
//! became of it, whichever engine it was that led its shard.
//!
//! Owning partition p of the requests *is* leadership of shard p: there is no other election. An engine that gets a partition fences its
//! former owner with the shard's transactional id, brings its copy of the log up to what is committed, folds it, and only then
//! reads requests, from the offset that the log itself names.

mod answers;
mod engine;
mod feed;
mod front;
mod group;
mod open;
mod partition;
mod requests;
mod settings;
mod survey;

pub(crate) use engine::Engine;
pub use engine::Standing;
pub use settings::{AddressError, KafkaSettings, Topics};
