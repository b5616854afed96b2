//! An aggregation over any backend that waits for what it must know, with memory of its own.

use std::collections::BTreeMap;

use super::choice::{Choice, Hints};
use super::course::{Course, On, STATUS_BYTES, STATUS_WORDS, Stop};
use super::{AggregateSpec, Column, ENTRIES, ROWS_MAX, Table, program, refused};
use crate::workspace::Workspace;
use crate::{Backend, GpuError, Kernel, Module, Slice};

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
        let status = self.workspace.part(backend, "status", STATUS_BYTES)?;
        let kernels = &self.kernels;
        let kernel = |entry: &'static str| Ok(kernels[entry]);
        let mut course = Course::new(input.clone(), *hints, status, input.rows);
        let mut words = [0; STATUS_WORDS];
        loop {
            let mut on = On { backend, kernel: &kernel, workspace: &mut self.workspace };
            match course.next(&self.spec, &mut on, &words)? {
                Stop::Read => words = read_words(&self.workspace.read(backend, status)?),
                Stop::Done(groups) => return backend.synchronize().map(|()| groups),
            }
        }
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
}

/// The words in bytes that were read from `status`.
pub(super) fn read_words(bytes: &[u8]) -> [u64; STATUS_WORDS] {
    let mut words = [0; STATUS_WORDS];
    words.iter_mut().zip(bytes.as_chunks().0).for_each(|(word, &bytes)| *word = u64::from_le_bytes(bytes));
    words
}
