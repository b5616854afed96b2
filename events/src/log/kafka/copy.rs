//! The copy of a shard's log on this machine: the same blocks with the same hashes, so that a restart does not read the topic again.

use super::reader::KafkaReader;
use crate::block::Block;
use crate::log::{EventLog, LogError};

/// Appends to a copy what the topic has beyond it, telling `each` of every block, and answers with the offset behind the last one.
///
/// # Errors
/// As [`KafkaReader::place_after`] for a copy that is not the beginning of the topic; whatever reading, writing and `each` meet.
pub fn restore_copy<E: From<LogError>>(
    copy: &mut dyn EventLog,
    topic: &KafkaReader,
    from: Option<i64>,
    each: &mut dyn FnMut(&Block) -> Result<(), E>,
) -> Result<i64, E> {
    let head = copy.head();
    let mut offset = from.map_or_else(|| topic.place_after(&head), Ok)?;
    let mut followed = topic.follow(offset, &head)?;
    while let Some(received) = followed.next()? {
        each(&received.block)?;
        append(copy, &received.block)?;
        offset = received.offset + 1;
    }
    copy.publish()?;
    Ok(offset)
}

/// Appends a block as it was read to a copy.
///
/// # Errors
/// As [`EventLog::append`].
pub fn append(copy: &mut dyn EventLog, block: &Block) -> Result<(), LogError> {
    let sealed = block.seal_again().map_err(|error| super::failed("copy a block", "events", error))?;
    copy.append(&sealed)
}
