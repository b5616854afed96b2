//! Blocks as JSON, for readers that have no bincode: how a log on Kafka is written unless its operator chooses block bytes.
//!
//! One object a block: what the header says, then the events, each as `ergate log export` prints it, byte for byte. Nothing is lost: the
//! canonical bytes follow from the JSON, so it carries the hash of the block, and reading it checks that hash.
//! `docs/log-format.md` has the rules for programs that are not ours.

mod full;
mod line;
mod mirror;
mod read;
mod value;
mod write;

pub use full::Full;
pub use line::Line;
pub use read::{JsonError, decode};
pub use write::{EventWriter, encode};
