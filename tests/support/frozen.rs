//! The frozen log with every kind of event, as blocks and as a directory.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::path::{Path, PathBuf};

use ergate::events::block::{Block, OpenBlock, SealedBlock};
use ergate::events::log::EventLog;
use ergate::events::log::directory::{Options, StoreId};
use ergate::events::log::file::FileLog;

/// Where something frozen lies.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The blocks of format 1, sealed again; they come out the same.
pub(crate) fn blocks() -> Vec<SealedBlock> {
    blocks_of(1)
}

/// The blocks of a format, sealed again.
pub(crate) fn blocks_of(format: u16) -> Vec<SealedBlock> {
    let bytes = std::fs::read(path(&format!("v{format}/log.blocks"))).unwrap();
    let (mut rest, mut sealed) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let block = Block::parse(rest).unwrap();
        let header = block.header;
        let mut open = OpenBlock::new(header.shard, header.epoch, header.first_position, header.first_ordinal);
        block.records().map(Result::unwrap).for_each(|record| open.push(record.recorded_at, &record.event));
        sealed.push(open.seal(header.previous));
        rest = &rest[header.block_len()..];
    }
    sealed
}

/// Writes a log of these blocks into a new directory, always under the same identity.
pub(crate) fn write(dir: &Path, blocks: &[SealedBlock]) {
    let options = Options { create: true, store_id: Some(StoreId([0xe7; 16])), low_water_bytes: 0, ..Options::default() };
    let (mut log, _) = FileLog::open(dir, options).unwrap();
    blocks.iter().for_each(|block| log.append(block).unwrap());
    log.sync().unwrap();
    Box::new(log).close().unwrap();
}
