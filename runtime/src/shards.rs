//! What shards are called.
#![cfg_attr(not(feature = "kafka"), allow(unreachable_pub, reason = "it is part of what is told of Kafka"))]

use ergate_events::id::ShardId;

/// The shard number under which the log of pools and their sizes is kept.
pub const CAPACITY: ShardId = ShardId(u16::MAX);

/// The name of a shard: its number, or `capacity` for the log of pools.
pub fn shard_name(shard: ShardId) -> String {
    if shard == CAPACITY { "capacity".to_owned() } else { shard.to_string() }
}

/// The shard of a name, as [`shard_name`] prints it.
pub fn shard_named(name: &str) -> Option<ShardId> {
    if name == "capacity" { Some(CAPACITY) } else { name.parse().ok() }
}
