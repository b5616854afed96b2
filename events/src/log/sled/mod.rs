//! A log in sled databases: blocks cut into chunks under ordered keys, in a row of databases of which only the newest stays open.
//!
//! ```text
//! DIR/log/00000000000000000000.sled/   a database; the name is the position of its first block
//!   first                              header of the first block and its CRC-32C, so that joins and searches open nothing
//!   db, conf, blobs/, snap.*           sled's own
//! DIR/ballast                          space to give back when a full disk would not let sled open
//! tree "blocks": position u64, chunk u16 (both big-endian) → at most 7,000 bytes of the block
//! ```
//! sled 0.34.7 promises less than a log needs, and each gap is closed here (docs/decisions/0007-sled.md):
//! - its flush does not reach the disk: `db` is synced through a second handle after every flush, and the folders when it is created;
//! - a kill can leave `snap.*.generating`, after which it never opens again: they are removed first, under our own lock;
//! - damaged files make it panic: it opens on a thread of its own, with a time limit, and every later call is guarded;
//! - or it opens shorter, and says nothing: the chain is verified by every reader, and the head anchor says where it must end;
//! - values over 7 KB go to files that are never synced: no chunk is longer;
//! - it gives no space back and loads what it opens: the log is a row of databases, and retention drops whole ones;
//! - it does not open on a full disk: the ballast is given back then;
//! - it follows links: nothing but plain files and folders is accepted.
//!
//! sled locks its files, so a log has one process at a time, be it for writing or reading; within it, any number of readers.

mod active;
mod ballast;
mod chunks;
mod database;
mod databases;
mod first;
mod guard;
mod reader;
mod recover;
#[cfg(test)]
mod tests;

use super::LogError;
use super::directory::DirectoryLog;
use super::directory::engine::Survey;
use super::directory::layout::Layout;

pub(super) use self::active::Active;
pub use self::guard::is_inside;
pub use self::reader::SledReader;

/// The one writer of a log of sled databases.
#[expect(private_interfaces, reason = "engines are ours alone, so what they are made of is too")]
pub type SledLog = DirectoryLog<Active>;

/// Looks at a log of databases as a reader would.
pub(super) fn look_at_databases(layout: &Layout) -> Result<Survey, LogError> {
    databases::Databases::share(layout).map(|(_, survey)| survey)
}
