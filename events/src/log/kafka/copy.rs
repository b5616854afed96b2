//! The copy of a shard's log on this machine: the same blocks with the same hashes, so that a restart does not read the topic again.

use super::reader::KafkaReader;
use crate::log::{EventLog, LogError, LogReader};

/// Appends to a copy what the topic has beyond it; returns how many blocks. A copy whose end is not in the topic is of another history
/// and is refused.
///
/// # Errors
/// [`LogError::Chain`] for a copy that is not the beginning of the topic, [`LogError::Gone`] when the topic no longer has what follows it,
/// whatever reading and writing meets.
pub fn restore_copy(copy: &mut dyn EventLog, topic: &KafkaReader) -> Result<u64, LogError> {
    let head = copy.head();
    let found = topic.hash_before(head.next)?;
    if found != Some(head.hash) {
        return Err(LogError::Chain { at: head.next, expected: head.hash, found: found.unwrap_or_default() });
    }
    let mut followed = topic.received(head.next)?;
    let mut blocks = 0;
    while let Some(received) = followed.next()? {
        let sealed = received.block.seal_again().map_err(|error| super::failed("copy a block", "events", error))?;
        copy.append(&sealed)?;
        blocks += 1;
    }
    copy.publish()?;
    Ok(blocks)
}
