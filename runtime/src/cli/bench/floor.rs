//! The floor: a bare append-only file with length and CRC-32C before each record, the same records, the same number of fdatasyncs.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use ergate::events::codec::v1;
use ergate::events::id::Position;
use ergate::events::log::LogReader;

/// Records taken from the log as samples; they are written again and again.
const SAMPLES: usize = 100_000;

/// Bytes that are written together where no sync says how many.
const WRITE_BYTES: usize = 1 << 20;

/// Writes `events` records with `fsyncs` syncs, which may be none, and returns records a second.
pub(super) fn run(reader: &dyn LogReader, from: Position, events: u64, fsyncs: u64, path: &Path) -> anyhow::Result<f64> {
    let samples = samples(reader, from)?;
    anyhow::ensure!(!samples.is_empty() && events > 0, "no events were written, so there is nothing to compare with");
    let per_sync = (fsyncs > 0).then(|| events.div_ceil(fsyncs));
    let mut file = File::create(path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut buffer = Vec::new();
    let began = Instant::now();
    for (index, record) in (1..=events).zip(samples.iter().cycle()) {
        buffer.extend_from_slice(&(record.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&crc32c::crc32c(record).to_le_bytes());
        buffer.extend_from_slice(record);
        let sync = per_sync.is_some_and(|per_sync| index % per_sync == 0 || index == events);
        if sync || index == events || (per_sync.is_none() && buffer.len() >= WRITE_BYTES) {
            file.write_all(&buffer).with_context(|| format!("failed to write {}", path.display()))?;
            buffer.clear();
        }
        if sync {
            file.sync_data().with_context(|| format!("failed to sync {}", path.display()))?;
        }
    }
    Ok(events as f64 / began.elapsed().as_secs_f64())
}

/// The first records of the run, encoded and uncompressed as they stand in a block.
fn samples(reader: &dyn LogReader, from: Position) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut samples = Vec::new();
    let mut cursor = reader.cursor(from)?;
    while let Some(block) = cursor.next_block()?.filter(|_| samples.len() < SAMPLES) {
        for envelope in block.records() {
            let mut record = Vec::new();
            v1::encode(0, &envelope?.event, &mut record);
            samples.push(record);
        }
    }
    Ok(samples)
}
