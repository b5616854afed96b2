//! The launches of an aggregation, over any backend.

use std::collections::BTreeMap;

use super::choice::{Choice, Hints, SAMPLES, Sample};
use super::{AggregateSpec, Column, ENTRIES, ROWS_MAX, Table, overflow, program, refused};
use crate::workspace::{Workspace, within};
use crate::{Arg, Backend, GpuError, Kernel, Launch, Module, Scalar, Slice, Stream};

/// Threads of a block, but for the kernels that use one of 1,024.
const BLOCK: u32 = 256;
/// Blocks of a multiprocessor that read rows; two rounds of what fits at once, so that the last ones wait for little.
const BLOCKS_EACH: u32 = 8;
/// Slots of a run, as in the kernel.
const LIST_SLOTS: u64 = 2048;
/// Entries that a block sorts, as in the kernel.
const SORT_BLOCK: u64 = 2048;
/// Words of `status`, as in the kernels.
const STATUS_WORDS: usize = 8;

/// The rows of one run, on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Keys: `[rows]` i64.
    pub keys: Slice,
    /// Value columns: `[rows]` each, of the spec's types.
    pub columns: Vec<Slice>,
    /// How many rows.
    pub rows: u64,
}

/// A result on the device, valid until the next run: keys, then the columns, each from a multiple of `count` * 8 bytes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// How many groups.
    pub count: u64,
    /// The memory; none when there is no group.
    pub memory: Option<Slice>,
    /// How it was run the last time, for the record.
    pub choice: Option<Choice>,
    /// How often the table was too small.
    pub grown: u32,
}

/// A spec's kernels on a device, with scratch memory that is kept from run to run.
pub struct Aggregation {
    spec: AggregateSpec,
    module: Module,
    kernels: BTreeMap<&'static str, Kernel>,
    workspace: Workspace,
}

/// The words that kernels leave for the host.
struct Status {
    table_full: bool,
    dense_groups: u64,
    groups: u64,
    overflow: Option<(usize, i64)>,
}

impl Aggregation {
    /// Compiles and loads the kernels for a spec.
    ///
    /// # Errors
    ///
    /// What the compiler or the driver said.
    pub fn load(backend: &mut dyn Backend, spec: AggregateSpec) -> Result<Self, GpuError> {
        let module = backend.load(&program(&spec))?;
        let mut kernels = BTreeMap::new();
        for entry in ENTRIES {
            kernels.insert(entry, backend.kernel(module, entry)?);
        }
        Ok(Self { spec, module, kernels, workspace: Workspace::default() })
    }

    /// What it was loaded for.
    pub fn spec(&self) -> &AggregateSpec {
        &self.spec
    }

    /// Bytes on the device that it keeps between runs.
    pub fn scratch_bytes(&self) -> u64 {
        self.workspace.bytes()
    }

    /// Groups the rows. The result is done when this returns.
    ///
    /// # Errors
    ///
    /// When the input does not fit the spec, an integer sum does not fit 64 bits, or memory does not suffice.
    pub fn run(&mut self, backend: &mut dyn Backend, input: &Input, hints: &Hints) -> Result<Groups, GpuError> {
        self.check(input)?;
        if input.rows == 0 {
            return Ok(Groups { count: 0, memory: None, choice: None, grown: 0 });
        }
        let sample = self.sample(backend, input, hints)?;
        let mut choice = Choice::of(&self.spec, input.rows, &sample, hints);
        let mut grown = 0;
        let status = loop {
            let status = self.fill(backend, input, &choice)?;
            if !status.table_full {
                break status;
            }
            choice = choice.grown(input.rows).ok_or_else(|| {
                refused(format!("more groups than a table of {} slots takes; aggregate parts of the rows", choice.capacity))
            })?;
            grown += 1;
        };
        let memory = self.list(backend, &choice, &status)?;
        Ok(Groups { count: status.groups, memory: Some(memory), choice: Some(choice), grown })
    }

    /// Copies a result to the host.
    ///
    /// # Errors
    ///
    /// When staging memory does not suffice.
    pub fn read(&mut self, backend: &mut dyn Backend, groups: &Groups) -> Result<Table, GpuError> {
        let bytes = match groups.memory {
            Some(memory) => self.workspace.read(backend, memory)?,
            None => Vec::new(),
        };
        let stride = groups.count as usize * 8;
        let keys = bytes[..stride].as_chunks().0.iter().map(|&key| i64::from_le_bytes(key)).collect();
        let columns = (0..self.spec.aggregates().len()).map(|output| {
            let dtype = self.spec.output(output);
            let from = (output + 1) * stride;
            Column::from_bytes(dtype, &bytes[from..from + groups.count as usize * dtype.size() as usize])
        });
        Ok(Table { keys, columns: columns.collect::<Result<_, _>>()? })
    }

    /// Gives memory and kernels back.
    ///
    /// # Errors
    ///
    /// What earlier work met.
    pub fn release(mut self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        self.workspace.release(backend)?;
        backend.unload(self.module)
    }

    fn check(&self, input: &Input) -> Result<(), GpuError> {
        if input.rows > ROWS_MAX {
            return Err(refused(format!("{} rows; at most {ROWS_MAX} are taken at once", input.rows)));
        }
        if input.columns.len() != self.spec.columns().len() {
            return Err(refused(format!("{} columns where {} were named", input.columns.len(), self.spec.columns().len())));
        }
        let sizes = self.spec.columns().iter().map(|dtype| dtype.size());
        let names = (0..).map(|index| format!("column {index}"));
        let columns = names.zip(input.columns.iter().zip(sizes));
        for (name, (slice, size)) in [("the keys".to_owned(), (&input.keys, 8))].into_iter().chain(columns) {
            if slice.bytes != input.rows * size {
                return Err(refused(format!(
                    "{name} have {} bytes; {} rows have {}",
                    slice.bytes,
                    input.rows,
                    input.rows * size
                )));
            }
            if !slice.offset.is_multiple_of(size) {
                return Err(refused(format!("{name} begin at byte {}, which is no multiple of {size}", slice.offset)));
            }
        }
        Ok(())
    }

    fn sample(&mut self, backend: &mut dyn Backend, input: &Input, hints: &Hints) -> Result<Sample, GpuError> {
        if let (Some(groups), Some((smallest, largest))) = (hints.groups, hints.keys) {
            return Ok(Sample { smallest, largest, cells_hit: groups.min(SAMPLES), fullest: 0 });
        }
        let out = self.workspace.part(backend, "sample", 32)?;
        let launch = Launch { grid: [1, 1, 1], block: [1024, 1, 1], shared_bytes: 0 };
        self.launch(backend, "aggregate_sample", launch, &[Arg::Slice(input.keys), u64_arg(input.rows), Arg::Slice(out)])?;
        let words = read_words(&mut self.workspace, backend, out)?;
        Ok(Sample { smallest: words[0] as i64, largest: words[1] as i64, cells_hit: words[2], fullest: words[3] })
    }

    /// Fills a table with the rows and counts its groups.
    fn fill(&mut self, backend: &mut dyn Backend, input: &Input, choice: &Choice) -> Result<Status, GpuError> {
        let (accumulator_bytes, table_bytes) = choice.table_bytes(&self.spec);
        let accumulators = self.workspace.part(backend, "accumulators", accumulator_bytes)?;
        let table = self.workspace.part(backend, "table", table_bytes)?;
        let status = self.workspace.part(backend, "status", 8 * STATUS_WORDS as u64)?;
        let [dense_runs, runs] = runs(choice);
        let counts = self.workspace.part(backend, "counts", runs * 4)?;
        let blocks = u64::from(backend.device().multiprocessors.max(1) * BLOCKS_EACH);

        let slots = choice.slots();
        let reset = Launch::linear(slots.div_ceil(u64::from(BLOCK)).min(blocks) * u64::from(BLOCK), BLOCK)?;
        let args = [Arg::Slice(accumulators), u64_arg(slots), Arg::Slice(table), u64_arg(choice.capacity), Arg::Slice(status)];
        self.launch(backend, "aggregate_reset", reset, &args)?;

        let mut args = vec![Arg::Slice(input.keys), u64_arg(input.rows), Arg::Slice(accumulators), Arg::Slice(table)];
        args.extend([u64_arg(choice.capacity), u64_arg(choice.lo as u64), u64_arg(choice.span), Arg::Slice(status)]);
        let (entry, unroll, shared) = match choice.private_capacity {
            Some(private) => {
                args.push(Arg::Scalar(Scalar::U32(private)));
                ("aggregate_private", 4, u64::from(private) * 8 + u64::from(private) * 8 * super::source::words(&self.spec))
            }
            None => ("aggregate_direct", 8, 0),
        };
        args.extend(input.columns.iter().map(|column| Arg::Slice(*column)));
        let tiles = input.rows.div_ceil(unroll * u64::from(BLOCK));
        let rows = Launch::linear(tiles.min(blocks) * u64::from(BLOCK), BLOCK)?.shared(shared as u32);
        self.launch(backend, entry, rows, &args)?;

        let by_run = Launch::linear(runs * u64::from(BLOCK), BLOCK)?;
        let args = [Arg::Slice(accumulators), Arg::Slice(table), u64_arg(choice.capacity), u64_arg(choice.span)];
        self.launch(backend, "aggregate_count", by_run, &[&args[..], &[Arg::Slice(status), Arg::Slice(counts)]].concat())?;
        let one = Launch { grid: [1, 1, 1], block: [1024, 1, 1], shared_bytes: 0 };
        self.launch(
            backend,
            "aggregate_places",
            one,
            &[Arg::Slice(counts), u32_arg(runs)?, u32_arg(dense_runs)?, Arg::Slice(status)],
        )?;
        self.status(backend, status)
    }

    /// Lists the groups of a filled table, sorts them, and writes the result.
    fn list(&mut self, backend: &mut dyn Backend, choice: &Choice, found: &Status) -> Result<Slice, GpuError> {
        let (accumulator_bytes, table_bytes) = choice.table_bytes(&self.spec);
        let hashed = found.groups - found.dense_groups;
        let entries = if hashed < 2 { hashed } else { hashed.next_power_of_two().max(SORT_BLOCK) };
        let listed = found.dense_groups + entries;
        let accumulators = self.workspace.part(backend, "accumulators", accumulator_bytes)?;
        let table = self.workspace.part(backend, "table", table_bytes)?;
        let status = self.workspace.part(backend, "status", 8 * STATUS_WORDS as u64)?;
        let [_, runs] = runs(choice);
        let counts = self.workspace.part(backend, "counts", runs * 4)?;
        let keys = self.workspace.part(backend, "list_keys", listed * 8)?;
        let slots = self.workspace.part(backend, "list_slots", listed * 4)?;
        let by_run = Launch::linear(runs * u64::from(BLOCK), BLOCK)?;
        let mut args = vec![Arg::Slice(accumulators), Arg::Slice(table), u64_arg(choice.capacity), u64_arg(choice.lo as u64)];
        args.extend([u64_arg(choice.span), Arg::Slice(status), Arg::Slice(counts), Arg::Slice(keys), Arg::Slice(slots)]);
        self.launch(backend, "aggregate_list", by_run, &args)?;
        if entries > 1 {
            let tail = entries - hashed;
            if tail > 0 {
                backend.fill(Stream::Compute, within(keys, found.groups * 8, tail * 8), 0xff)?;
                backend.fill(Stream::Compute, within(slots, found.groups * 4, tail * 4), 0xff)?;
            }
            let keys = within(keys, found.dense_groups * 8, entries * 8);
            let slots = within(slots, found.dense_groups * 4, entries * 4);
            self.sort(backend, keys, slots, entries)?;
        }
        let bytes = found.groups * 8 * (1 + self.spec.aggregates().len() as u64);
        let result = self.workspace.part(backend, "result", bytes)?;
        let by_group = Launch::linear(found.groups, BLOCK)?;
        let mut args = vec![Arg::Slice(accumulators), Arg::Slice(keys), Arg::Slice(slots), u64_arg(choice.lo as u64)];
        args.extend([Arg::Slice(status), u64_arg(found.groups), u64_arg(found.dense_groups), Arg::Slice(result)]);
        self.launch(backend, "aggregate_gather", by_group, &args)?;
        match self.status(backend, status)?.overflow {
            Some((output, key)) => Err(overflow(&self.spec, output, key)),
            None => Ok(result),
        }
    }

    /// A bitonic network over a power of two of entries.
    fn sort(&self, backend: &mut dyn Backend, keys: Slice, slots: Slice, entries: u64) -> Result<(), GpuError> {
        let within_blocks = Launch::linear(entries / SORT_BLOCK * 1024, 1024)?;
        let by_pair = Launch::linear(entries / 2, BLOCK)?;
        self.launch(backend, "aggregate_sort_block", within_blocks, &[Arg::Slice(keys), Arg::Slice(slots), u64_arg(0)])?;
        let mut size = SORT_BLOCK * 2;
        while size <= entries {
            let mut step = size / 2;
            while step >= SORT_BLOCK {
                let args = [Arg::Slice(keys), Arg::Slice(slots), u64_arg(entries), u64_arg(size), u64_arg(step)];
                self.launch(backend, "aggregate_sort_step", by_pair, &args)?;
                step /= 2;
            }
            self.launch(backend, "aggregate_sort_block", within_blocks, &[Arg::Slice(keys), Arg::Slice(slots), u64_arg(size)])?;
            size *= 2;
        }
        Ok(())
    }

    fn launch(&self, backend: &mut dyn Backend, entry: &str, launch: Launch, args: &[Arg]) -> Result<(), GpuError> {
        backend.launch(Stream::Compute, self.kernels[entry], &launch, args)
    }

    fn status(&mut self, backend: &mut dyn Backend, status: Slice) -> Result<Status, GpuError> {
        let words = read_words(&mut self.workspace, backend, status)?;
        Ok(Status {
            table_full: words[0] != 0,
            dense_groups: words[2],
            groups: words[3],
            overflow: (words[4] != 0).then_some((words[6] as usize, words[5] as i64)),
        })
    }
}

/// Runs of dense slots, and of all slots.
fn runs(choice: &Choice) -> [u64; 2] {
    let dense = choice.span.div_ceil(LIST_SLOTS);
    [dense, dense + (choice.capacity + 1).div_ceil(LIST_SLOTS)]
}

fn read_words(workspace: &mut Workspace, backend: &mut dyn Backend, from: Slice) -> Result<Vec<u64>, GpuError> {
    Ok(workspace.read(backend, from)?.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect())
}

fn u64_arg(value: u64) -> Arg {
    Arg::Scalar(Scalar::U64(value))
}

fn u32_arg(value: u64) -> Result<Arg, GpuError> {
    let value = u32::try_from(value).map_err(|_| refused(format!("{value} runs of slots; aggregate parts of the rows")))?;
    Ok(Arg::Scalar(Scalar::U32(value)))
}
