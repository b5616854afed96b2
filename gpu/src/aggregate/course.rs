//! The launches of an aggregation, step by step: between two steps the host reads what it must know to go on.
//!
//! The steps are: a sample of the keys, from which the table is chosen; the filling of the table, again with a larger one where it was too
//! small; the listing of its groups, sorted. Nothing here waits, so that whoever shares the device goes on between two steps.

use super::choice::{Choice, Hints, SAMPLES, Sample};
use super::{Aggregate, AggregateSpec, Groups, Input, overflow, refused};
use crate::workspace::{Workspace, within};
use crate::{Arg, Backend, Dtype, GpuError, Kernel, Launch, Scalar, Slice, Stream};

/// Threads of a block, but for the kernels that use one of 1,024.
const BLOCK: u32 = 256;
/// Blocks of a multiprocessor that read rows; two rounds of what fits at once, so that the last ones wait for little.
const BLOCKS_EACH: u32 = 8;
/// Slots of a run, as in the kernel.
const LIST_SLOTS: u64 = 2048;
/// Entries that a block sorts, as in the kernel.
const SORT_BLOCK: u64 = 2048;
/// Words that kernels leave for the host, as in the kernels.
pub(super) const STATUS_WORDS: usize = 8;
/// Their size in bytes.
pub(super) const STATUS_BYTES: u64 = 8 * STATUS_WORDS as u64;

/// Where launches go, and the memory that they use.
pub(super) struct On<'a> {
    pub(super) backend: &'a mut dyn Backend,
    pub(super) kernel: &'a dyn Fn(&'static str) -> Result<Kernel, GpuError>,
    pub(super) workspace: &'a mut Workspace,
}

/// What follows a step.
pub(super) enum Stop {
    /// The status is read when everything queued is done, and given to the next step.
    Read,
    /// Nothing: this is the result once everything queued is done.
    Done(Groups),
}

/// One aggregation on its way.
pub(super) struct Course {
    input: Input,
    hints: Hints,
    /// Memory for the words that kernels leave for the host.
    status: Slice,
    groups_max: u64,
    at: At,
    grown: u32,
}

/// What was queued last.
#[derive(Clone, Copy)]
enum At {
    Start,
    Sampled,
    Filled(Choice),
    Gathered(Groups),
}

impl Course {
    /// An aggregation of rows that were checked, with no more groups than so many.
    pub(super) fn new(input: Input, hints: Hints, status: Slice, groups_max: u64) -> Self {
        let groups_max = groups_max.min(input.rows);
        Self { input, hints, status, groups_max, at: At::Start, grown: 0 }
    }

    /// Queues the next step; `words` are what was read after the one before.
    pub(super) fn next(&mut self, spec: &AggregateSpec, on: &mut On<'_>, words: &[u64; STATUS_WORDS]) -> Result<Stop, GpuError> {
        let rows = self.input.rows;
        match self.at {
            At::Start if rows == 0 => Ok(Stop::Done(Groups { count: 0, memory: None, choice: None, grown: 0 })),
            At::Start => match (self.hints.groups, self.hints.keys) {
                (Some(groups), Some((smallest, largest))) => {
                    let sample = Sample { smallest, largest, cells_hit: groups.min(SAMPLES), fullest: 0 };
                    self.fill(spec, on, Choice::of(spec, rows, &sample, &self.hints).at_most(self.groups_max))
                }
                _ => self.sample(on),
            },
            At::Sampled => {
                let [smallest, largest, cells_hit, fullest, ..] = *words;
                let sample = Sample { smallest: smallest as i64, largest: largest as i64, cells_hit, fullest };
                self.fill(spec, on, Choice::of(spec, rows, &sample, &self.hints).at_most(self.groups_max))
            }
            At::Filled(choice) if words[0] != 0 => {
                let larger = choice.grown(self.groups_max).ok_or_else(|| match self.groups_max < rows {
                    true => too_many(self.groups_max),
                    false => refused(format!(
                        "more groups than a table of {} slots takes; aggregate parts of the rows",
                        choice.capacity
                    )),
                })?;
                self.grown += 1;
                self.fill(spec, on, larger)
            }
            At::Filled(_) if words[3] > self.groups_max => Err(too_many(self.groups_max)),
            At::Filled(choice) => self.list(spec, on, &choice, (words[2], words[3])),
            At::Gathered(groups) if words[4] == 0 => Ok(Stop::Done(groups)),
            At::Gathered(_) => Err(overflow(spec, words[6] as usize, words[5] as i64)),
        }
    }

    fn sample(&mut self, on: &mut On<'_>) -> Result<Stop, GpuError> {
        let launch = Launch { grid: [1, 1, 1], block: [1024, 1, 1], shared_bytes: 0 };
        let args = [Arg::Slice(self.input.keys), u64_arg(self.input.rows), Arg::Slice(within(self.status, 0, 32))];
        on.launch("aggregate_sample", launch, &args)?;
        self.at = At::Sampled;
        Ok(Stop::Read)
    }

    /// Fills a table with the rows and counts its groups.
    fn fill(&mut self, spec: &AggregateSpec, on: &mut On<'_>, choice: Choice) -> Result<Stop, GpuError> {
        let (input, status) = (&self.input, self.status);
        on.workspace.restart();
        let Table { accumulators, table, counts } = Table::of(spec, on, &choice)?;
        let [dense_runs, runs] = runs(&choice);
        let blocks = u64::from(on.backend.device().multiprocessors.max(1) * BLOCKS_EACH);

        let slots = choice.slots();
        let reset = Launch::linear(slots.div_ceil(u64::from(BLOCK)).min(blocks) * u64::from(BLOCK), BLOCK)?;
        let args = [Arg::Slice(accumulators), u64_arg(slots), Arg::Slice(table), u64_arg(choice.capacity), Arg::Slice(status)];
        on.launch("aggregate_reset", reset, &args)?;

        let mut args = vec![Arg::Slice(input.keys), u64_arg(input.rows), Arg::Slice(accumulators), Arg::Slice(table)];
        args.extend([u64_arg(choice.capacity), u64_arg(choice.lo as u64), u64_arg(choice.span), Arg::Slice(status)]);
        let (entry, unroll, shared) = match choice.private_capacity {
            Some(private) => {
                args.push(Arg::Scalar(Scalar::U32(private)));
                ("aggregate_private", 4, u64::from(private) * 8 + u64::from(private) * 8 * super::source::words(spec))
            }
            None => ("aggregate_direct", 8, 0),
        };
        args.extend(input.columns.iter().map(|column| Arg::Slice(*column)));
        let tiles = input.rows.div_ceil(unroll * u64::from(BLOCK));
        let rows = Launch::linear(tiles.min(blocks) * u64::from(BLOCK), BLOCK)?.shared(shared as u32);
        on.launch(entry, rows, &args)?;

        let by_run = Launch::linear(runs * u64::from(BLOCK), BLOCK)?;
        let args = [Arg::Slice(accumulators), Arg::Slice(table), u64_arg(choice.capacity), u64_arg(choice.span)];
        on.launch("aggregate_count", by_run, &[&args[..], &[Arg::Slice(status), Arg::Slice(counts)]].concat())?;
        let one = Launch { grid: [1, 1, 1], block: [1024, 1, 1], shared_bytes: 0 };
        let args = [Arg::Slice(counts), u32_arg(runs)?, u32_arg(dense_runs)?, Arg::Slice(status)];
        on.launch("aggregate_places", one, &args)?;
        self.at = At::Filled(choice);
        Ok(Stop::Read)
    }

    /// Lists the groups of a filled table, sorts them, and writes the result.
    fn list(
        &mut self,
        spec: &AggregateSpec,
        on: &mut On<'_>,
        choice: &Choice,
        (dense_groups, groups): (u64, u64),
    ) -> Result<Stop, GpuError> {
        let hashed = groups - dense_groups;
        let entries = if hashed < 2 { hashed } else { hashed.next_power_of_two().max(SORT_BLOCK) };
        let listed = dense_groups + entries;
        let Table { accumulators, table, counts } = Table::of(spec, on, choice)?;
        let status = self.status;
        let keys = on.workspace.part(on.backend, "list_keys", listed * 8)?;
        let slots = on.workspace.part(on.backend, "list_slots", listed * 4)?;
        let by_run = Launch::linear(runs(choice)[1] * u64::from(BLOCK), BLOCK)?;
        let mut args = vec![Arg::Slice(accumulators), Arg::Slice(table), u64_arg(choice.capacity), u64_arg(choice.lo as u64)];
        args.extend([u64_arg(choice.span), Arg::Slice(status), Arg::Slice(counts), Arg::Slice(keys), Arg::Slice(slots)]);
        on.launch("aggregate_list", by_run, &args)?;
        if entries > 1 {
            let tail = entries - hashed;
            if tail > 0 {
                on.backend.fill(Stream::Compute, within(keys, groups * 8, tail * 8), 0xff)?;
                on.backend.fill(Stream::Compute, within(slots, groups * 4, tail * 4), 0xff)?;
            }
            let keys = within(keys, dense_groups * 8, entries * 8);
            let slots = within(slots, dense_groups * 4, entries * 4);
            on.sort(keys, slots, entries)?;
        }
        let bytes = groups * 8 * (1 + spec.aggregates().len() as u64);
        let result = on.workspace.part(on.backend, "result", bytes)?;
        let by_group = Launch::linear(groups, BLOCK)?;
        let mut args = vec![Arg::Slice(accumulators), Arg::Slice(keys), Arg::Slice(slots), u64_arg(choice.lo as u64)];
        args.extend([Arg::Slice(status), u64_arg(groups), u64_arg(dense_groups), Arg::Slice(result)]);
        on.launch("aggregate_gather", by_group, &args)?;
        let groups = Groups { count: groups, memory: Some(result), choice: Some(*choice), grown: self.grown };
        // Only sums of i64 may leave 64 bits, and then the result is none.
        let wide = |one: &Aggregate| matches!(one, Aggregate::Sum(column) if spec.columns()[*column] == Dtype::I64);
        if !spec.aggregates().iter().any(wide) {
            return Ok(Stop::Done(groups));
        }
        self.at = At::Gathered(groups);
        Ok(Stop::Read)
    }
}

/// The memory of a table.
struct Table {
    accumulators: Slice,
    table: Slice,
    counts: Slice,
}

impl Table {
    fn of(spec: &AggregateSpec, on: &mut On<'_>, choice: &Choice) -> Result<Self, GpuError> {
        let (accumulator_bytes, table_bytes) = choice.table_bytes(spec);
        Ok(Self {
            accumulators: on.workspace.part(on.backend, "accumulators", accumulator_bytes)?,
            table: on.workspace.part(on.backend, "table", table_bytes)?,
            counts: on.workspace.part(on.backend, "counts", runs(choice)[1] * 4)?,
        })
    }
}

impl On<'_> {
    /// A bitonic network over a power of two of entries.
    fn sort(&mut self, keys: Slice, slots: Slice, entries: u64) -> Result<(), GpuError> {
        let within_blocks = Launch::linear(entries / SORT_BLOCK * 1024, 1024)?;
        let by_pair = Launch::linear(entries / 2, BLOCK)?;
        self.launch("aggregate_sort_block", within_blocks, &[Arg::Slice(keys), Arg::Slice(slots), u64_arg(0)])?;
        let mut size = SORT_BLOCK * 2;
        while size <= entries {
            let mut step = size / 2;
            while step >= SORT_BLOCK {
                let args = [Arg::Slice(keys), Arg::Slice(slots), u64_arg(entries), u64_arg(size), u64_arg(step)];
                self.launch("aggregate_sort_step", by_pair, &args)?;
                step /= 2;
            }
            self.launch("aggregate_sort_block", within_blocks, &[Arg::Slice(keys), Arg::Slice(slots), u64_arg(size)])?;
            size *= 2;
        }
        Ok(())
    }

    fn launch(&mut self, entry: &'static str, launch: Launch, args: &[Arg]) -> Result<(), GpuError> {
        self.backend.launch(Stream::Compute, (self.kernel)(entry)?, &launch, args)
    }
}

/// The error where there are more groups than were said to be at most.
pub(super) fn too_many(groups_max: u64) -> GpuError {
    GpuError::failed(format!(
        "gpu.aggregate: more than {groups_max} groups, its groups_max; raise that, or aggregate parts of the rows"
    ))
}

/// Runs of dense slots, and of all slots.
fn runs(choice: &Choice) -> [u64; 2] {
    let dense = choice.span.div_ceil(LIST_SLOTS);
    [dense, dense + (choice.capacity + 1).div_ceil(LIST_SLOTS)]
}

fn u64_arg(value: u64) -> Arg {
    Arg::Scalar(Scalar::U64(value))
}

fn u32_arg(value: u64) -> Result<Arg, GpuError> {
    let value = u32::try_from(value).map_err(|_| refused(format!("{value} runs of slots; aggregate parts of the rows")))?;
    Ok(Arg::Scalar(Scalar::U32(value)))
}
