//! `gpu.aggregate` as a kind of work, and the bytes it takes and gives.
//!
//! A payload is the keys (i64), then each value column in the order of the settings: raw little-endian arrays of n rows each, one after the
//! other without padding. Its length tells n. No rows are no groups.
//!
//! A result is the number of groups g (u64), the keys (i64) in ascending order, then for each operation, column by column, its g values, of
//! the type that [`super`] tells; without padding as well.
//!
//! With one column `price` of f32 and the operations sum and count, three rows with the keys 7, -1, 7 and the prices 1.5, 2, 0.25 are
//!
//! ```text
//! payload  07 00 00 00 00 00 00 00  ff ff ff ff ff ff ff ff  07 00 00 00 00 00 00 00
//!          00 00 c0 3f  00 00 00 40  00 00 80 3e
//! result   02 00 00 00 00 00 00 00
//!          ff ff ff ff ff ff ff ff  07 00 00 00 00 00 00 00
//!          00 00 00 00 00 00 00 40  00 00 00 00 00 00 fc 3f     sums, f64: 2, 1.75
//!          01 00 00 00 00 00 00 00  02 00 00 00 00 00 00 00     counts, u64: 1, 2
//! ```
//!
//! What must be known on the way (a sample of the keys, how many groups there are) is read between steps of a flight, not waited for: the
//! device works at other batches meanwhile, and the watchdog sees every step. Members of a batch go step by step together, so that a batch
//! reads as often as its slowest member. All memory is reserved before, for the worst keys there can be: 8.7 GB beside 100 million rows of a key and an f64
//! (1.6 GB), and 0.1 GB where `groups_max` says that they have no more than a million groups.

use std::sync::Arc;

use super::choice::scratch_bytes;
use super::course::{Course, On, STATUS_BYTES, STATUS_WORDS, Stop, too_many};
use super::plan::read_words;
use super::{AggregateSettings, AggregateSpec, Column, ENTRIES, Groups, Input, Table, aggregate, program, refused};
use crate::array::read;
use crate::memory::aligned;
use crate::work::{Admitted, HostTwin, Layout, Next, Parts, Piece, Run, Work};
use crate::workspace::{Workspace, within};
use crate::{DeviceInfo, Digest, GpuError, Limits, Program, Slice};

/// A checked aggregation.
#[derive(Debug)]
pub struct AggregateWork {
    name: String,
    settings: AggregateSettings,
    spec: AggregateSpec,
    program: Program,
    program_digest: Digest,
    digest: Digest,
}

/// How far a batch has come: its members, and memory for what kernels leave for the host, [members, 8] u64.
struct Batch {
    members: Vec<Member>,
    status: Option<Slice>,
}

/// Where one member lies: offsets in the region and in the scratch memory.
struct Member {
    rows: u64,
    columns: Vec<(u64, u64)>,
    scratch: (u64, u64),
    way: Option<(Course, Workspace)>,
    groups: Option<Groups>,
}

impl AggregateWork {
    /// Checks the settings; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn new(name: &str, settings: AggregateSettings) -> Result<Self, GpuError> {
        let spec = settings.spec()?;
        let program = program(&spec);
        let program_digest = program.digest();
        let digest = Digest::of_parts([&b"gpu.aggregate"[..], &program_digest.0]);
        Ok(Self { name: name.to_owned(), settings, spec, program, program_digest, digest })
    }

    /// The settings.
    pub fn settings(&self) -> &AggregateSettings {
        &self.settings
    }

    /// What the kernels are compiled for.
    pub fn spec(&self) -> &AggregateSpec {
        &self.spec
    }

    fn groups_max(&self) -> u64 {
        self.settings.groups_max.unwrap_or(u64::MAX)
    }

    /// The sizes of a row's key and values.
    fn sizes(&self) -> impl Iterator<Item = u64> + use<'_> {
        std::iter::once(8).chain(self.spec.columns().iter().map(|dtype| dtype.size()))
    }

    /// How many rows a payload of so many bytes has.
    fn rows(&self, bytes: u64) -> Result<u64, GpuError> {
        let row: u64 = self.sizes().sum();
        let named = |why: String| refused(format!("payload of {}: {why}", self.name));
        if !bytes.is_multiple_of(row) {
            let values = self.settings.values.iter().map(|column| format!(", {} {}", column.name, column.dtype.name()));
            let columns: String = values.collect();
            return Err(named(format!("{bytes} bytes are no whole number of rows of {row} bytes (key i64{columns})")));
        }
        let (rows, most) = (bytes / row, self.settings.rows_max);
        if rows > most {
            return Err(named(format!("{rows} rows, of which it takes at most {most}")));
        }
        Ok(rows)
    }

    /// Device memory for members of so many rows: the region, then what is beside it. None beyond 64 bits.
    fn bytes(&self, rows: u64) -> Option<(u64, u64)> {
        let region = self.sizes().try_fold(0u64, |sum, size| sum.checked_add(aligned(rows.checked_mul(size)?)?))?;
        let scratch = if rows == 0 { 0 } else { aligned(scratch_bytes(&self.spec, rows, self.groups_max()))? };
        Some((region, scratch))
    }

    fn too_large(&self) -> GpuError {
        GpuError::failed(format!("a batch of {} does not fit 64 bits", self.name))
    }

    /// What the first step needs to know: where everything lies on the device.
    fn start(&self, run: &Run<'_>, batch: &mut Batch) -> Result<(), GpuError> {
        let Some(scratch) = run.scratch else { return Ok(()) };
        batch.status = Some(within(scratch, 0, batch.members.len() as u64 * STATUS_BYTES));
        for (index, member) in batch.members.iter_mut().enumerate() {
            let mut parts = member.columns.iter().map(|&(at, bytes)| run.part(at, bytes));
            let keys = parts.next().ok_or_else(|| GpuError::failed("an aggregation has keys"))?;
            let input = Input { keys, columns: parts.collect(), rows: member.rows };
            let status = within(scratch, index as u64 * STATUS_BYTES, STATUS_BYTES);
            let workspace = Workspace::within(within(scratch, member.scratch.0, member.scratch.1));
            member.way = Some((Course::new(input, self.settings.hints, status, self.groups_max()), workspace));
        }
        Ok(())
    }

    /// Queues the next step of every member that has not come to its end; whether something is to be read before the next.
    fn step(&self, run: &mut Run<'_>, batch: &mut Batch, read: &[u8]) -> Result<bool, GpuError> {
        let (modules, program) = (run.modules, self.program_digest);
        let kernel = |entry: &'static str| modules.kernel(&program, entry);
        let mut goes_on = false;
        for (index, member) in batch.members.iter_mut().enumerate() {
            let Some((course, workspace)) = member.way.as_mut().filter(|_| member.groups.is_none()) else { continue };
            let from = index * STATUS_BYTES as usize;
            let words = read.get(from..from + STATUS_BYTES as usize).map_or([0; STATUS_WORDS], read_words);
            let mut on = On { backend: &mut *run.backend, kernel: &kernel, workspace };
            match course.next(&self.spec, &mut on, &words)? {
                Stop::Read => goes_on = true,
                Stop::Done(groups) => member.groups = Some(groups),
            }
        }
        Ok(goes_on)
    }

    /// A result: the number of groups, then the columns without what lies between them.
    fn parts(&self, groups: Option<Groups>) -> Parts {
        let count = groups.map_or(0, |groups| groups.count);
        let head = count.to_le_bytes().to_vec();
        let Some(memory) = groups.and_then(|groups| groups.memory) else { return Parts { head, parts: Vec::new() } };
        let outputs = (0..self.spec.aggregates().len()).map(|output| self.spec.output(output).size());
        let columns = std::iter::once(8).chain(outputs).zip(0..);
        let parts = columns.map(|(size, index)| within(memory, index * count * 8, count * size)).collect();
        Parts { head, parts }
    }
}

impl Work for AggregateWork {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn admit(&self, payload: &[u8], _: &Limits) -> Result<Admitted, GpuError> {
        let rows = self.rows(payload.len() as u64)?;
        let bytes = self.bytes(rows).and_then(|(region, scratch)| region.checked_add(scratch)?.checked_add(STATUS_BYTES));
        Ok(Admitted { class: 0, bytes: bytes.unwrap_or(u64::MAX), state: Arc::new(rows) })
    }

    fn programs(&self) -> Vec<(Program, String)> {
        ENTRIES.iter().map(|entry| (self.program.clone(), (*entry).to_owned())).collect()
    }

    fn lay(&self, members: &[&Admitted], _: &DeviceInfo) -> Result<Layout, GpuError> {
        let status_bytes = aligned(members.len() as u64 * STATUS_BYTES).ok_or_else(|| self.too_large())?;
        let mut layout = Layout { scratch_bytes: status_bytes, ..Layout::default() };
        let mut batch = Batch { members: Vec::with_capacity(members.len()), status: None };
        for (member, admitted) in members.iter().enumerate() {
            let rows = *admitted
                .state
                .downcast_ref::<u64>()
                .ok_or_else(|| GpuError::failed(format!("{}: a member was admitted by another kind of work", self.name)))?;
            let (region, scratch) = self.bytes(rows).ok_or_else(|| self.too_large())?;
            let (mut at, mut from, mut columns) = (layout.region_bytes, 0, Vec::new());
            for size in self.sizes() {
                let bytes = rows * size;
                layout.inputs.push(Piece { member, bytes: from as usize..(from + bytes) as usize, at });
                columns.push((at, bytes));
                (at, from) = (at + aligned(bytes).ok_or_else(|| self.too_large())?, from + bytes);
            }
            batch.members.push(Member { rows, columns, scratch: (layout.scratch_bytes, scratch), way: None, groups: None });
            layout.region_bytes = layout.region_bytes.checked_add(region).ok_or_else(|| self.too_large())?;
            layout.scratch_bytes = layout.scratch_bytes.checked_add(scratch).ok_or_else(|| self.too_large())?;
        }
        (layout.in_to, layout.out_from) = (layout.region_bytes, layout.region_bytes);
        layout.state = Some(Box::new(batch));
        Ok(layout)
    }

    fn enqueue(&self, run: &mut Run<'_>, layout: &mut Layout, read: &[u8]) -> Result<Next, GpuError> {
        let batch = layout.state.as_mut().and_then(|state| state.downcast_mut::<Batch>());
        let batch =
            batch.ok_or_else(|| GpuError::failed(format!("{}: a batch was laid out by another kind of work", self.name)))?;
        if batch.status.is_none() {
            self.start(run, batch)?;
        }
        match (self.step(run, batch, read)?, batch.status) {
            (true, Some(status)) => Ok(Next::Read(status)),
            _ => Ok(Next::Results(batch.members.iter().map(|member| self.parts(member.groups)).collect())),
        }
    }
}

impl HostTwin for AggregateWork {
    fn twin(&self, payload: &[u8]) -> Result<Vec<u8>, GpuError> {
        let rows = self.rows(payload.len() as u64)? as usize;
        let (keys, mut rest) = payload.split_at(rows * 8);
        let columns = self.spec.columns().iter().map(|&dtype| {
            let (mine, others) = rest.split_at(rows * dtype.size() as usize);
            rest = others;
            Column::from_bytes(dtype, mine)
        });
        let columns: Vec<Column> = columns.collect::<Result<_, _>>()?;
        let table = aggregate(&self.spec, &read(keys)?, &columns)?;
        if table.keys.len() as u64 > self.groups_max() {
            return Err(too_many(self.groups_max()));
        }
        Ok(table.to_bytes())
    }
}

impl Table {
    /// The result as raw bytes: the number of groups, the keys, the columns.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = (self.keys.len() as u64).to_le_bytes().to_vec();
        bytes.extend(self.keys.iter().flat_map(|key| key.to_le_bytes()));
        self.columns.iter().for_each(|column| bytes.extend(column.to_bytes()));
        bytes
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
pub(crate) mod tests;
