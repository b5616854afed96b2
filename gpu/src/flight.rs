//! One batch on its way through the device: staged, copied in, computed, copied out, read.

use std::time::Instant;

use crate::memory::{Block, Pool, aligned};
use crate::pinned::{Stage, Stages};
use crate::work::{Admitted, Layout, Modules, Payload, Run, Work};
use crate::{Backend, Event, GpuError, Slice, Stream};

/// The place of the end of the kernels among the marks.
const COMPUTED: usize = 3;

/// A batch whose work is queued.
pub(crate) struct Flight {
    pub(crate) ids: Vec<u64>,
    pub(crate) batch: u64,
    pub(crate) begun: Instant,
    layout: Layout,
    stage: Stage,
    block: Block,
    /// Begin and end of: copies in, kernels, copies out.
    marks: Vec<Event>,
    /// Whether its kernels are known to be done: then it is not they who killed the context.
    pub(crate) computed: bool,
}

/// What a batch took, on the device.
#[derive(Default)]
pub(crate) struct Took {
    pub(crate) copy_us: u64,
    pub(crate) compute_us: u64,
    pub(crate) memory_bytes: u64,
}

/// The memory of the owner.
pub(crate) struct Means {
    pub(crate) pool: Pool,
    pub(crate) stages: Stages,
    pub(crate) modules: Modules,
}

impl Flight {
    /// Stages a batch and queues all of it; on an error everything is given back.
    pub(crate) fn begin(
        backend: &mut dyn Backend,
        means: &mut Means,
        batch: u64,
        work: &dyn Work,
        members: &[(u64, Payload, Admitted)],
    ) -> Result<Self, GpuError> {
        let admitted: Vec<&Admitted> = members.iter().map(|(_, _, admitted)| admitted).collect();
        let layout = work.lay(&admitted)?;
        let what = format!("a batch of {} of {}", members.len(), work.name());
        let scratch = aligned(layout.scratch_bytes).and_then(|scratch| aligned(layout.region_bytes)?.checked_add(scratch));
        let bytes = scratch.ok_or_else(|| GpuError::failed(format!("{what} does not fit 64 bits")))?;
        let block = means.pool.take(backend, &what, bytes)?;
        let stage = match means.stages.take(backend, layout.region_bytes) {
            Ok(stage) => stage,
            Err(error) => {
                means.pool.give(block);
                return Err(error);
            }
        };
        let ids = members.iter().map(|(id, ..)| *id).collect();
        let mut flight =
            Self { ids, batch, begun: Instant::now(), layout, stage, block, marks: Vec::with_capacity(6), computed: false };
        match flight.queue(backend, &means.modules, work, members) {
            Ok(()) => Ok(flight),
            Err(error) => {
                // Some of it may be queued already and use the memory. A dead context says so here, which counts more.
                backend.synchronize()?;
                flight.give_back(backend, means)?;
                Err(error)
            }
        }
    }

    fn queue(
        &mut self,
        backend: &mut dyn Backend,
        modules: &Modules,
        work: &dyn Work,
        members: &[(u64, Payload, Admitted)],
    ) -> Result<(), GpuError> {
        let staged = backend.staged(self.stage.staging)?;
        for piece in &self.layout.inputs {
            let payload = (*members[piece.member].1).as_ref();
            let at = piece.at as usize;
            staged[at..at + piece.bytes.len()].copy_from_slice(&payload[piece.bytes.clone()]);
        }
        let region = self.block.part(self.layout.region_bytes)?;
        let scratch = if self.layout.scratch_bytes > 0 { Some(self.block.part(self.layout.scratch_bytes)?) } else { None };
        let part = |from: u64, to: u64| Slice { offset: region.offset + from, bytes: to - from, ..region };
        let (in_to, out_from, end) = (self.layout.in_to, self.layout.out_from, self.layout.region_bytes);

        self.mark(backend, Stream::In)?;
        if in_to > 0 {
            backend.copy_in(Stream::In, self.stage.staging, 0, part(0, in_to))?;
        }
        let copied = self.mark(backend, Stream::In)?;

        backend.wait(Stream::Compute, copied)?;
        self.mark(backend, Stream::Compute)?;
        if end > in_to {
            backend.fill(Stream::Compute, part(in_to, end), 0)?;
        }
        work.enqueue(&mut Run { backend, region, scratch, modules }, &self.layout)?;
        let computed = self.mark(backend, Stream::Compute)?;

        backend.wait(Stream::Out, computed)?;
        self.mark(backend, Stream::Out)?;
        if end > out_from {
            backend.copy_out(Stream::Out, part(out_from, end), self.stage.staging, out_from)?;
        }
        self.mark(backend, Stream::Out).map(|_| ())
    }

    fn mark(&mut self, backend: &mut dyn Backend, stream: Stream) -> Result<Event, GpuError> {
        let event = backend.record(stream)?;
        self.marks.push(event);
        Ok(event)
    }

    /// Whether all of it is done.
    pub(crate) fn done(&mut self, backend: &mut dyn Backend) -> Result<bool, GpuError> {
        // Each stream in turn, for staging memory is free again only when the marks of all its streams were seen.
        for (index, &event) in self.marks.iter().enumerate() {
            if !backend.done(event)? {
                return Ok(false);
            }
            self.computed |= index == COMPUTED;
        }
        Ok(true)
    }

    /// Reads the results of what is done, one for each member in order, and gives the memory back.
    pub(crate) fn finish(self, backend: &mut dyn Backend, means: &mut Means) -> Result<(Vec<Vec<u8>>, Took), GpuError> {
        let mut results: Vec<Vec<u8>> = self.layout.result_bytes.iter().map(|&bytes| vec![0; bytes]).collect();
        let staged = backend.staged(self.stage.staging)?;
        for piece in &self.layout.outputs {
            let at = piece.at as usize;
            results[piece.member][piece.bytes.clone()].copy_from_slice(&staged[at..at + piece.bytes.len()]);
        }
        let mut took = Took { memory_bytes: self.block.bytes(), ..Took::default() };
        if let [in_from, in_to, from, to, out_from, out_to] = self.marks[..] {
            took.copy_us = (backend.elapsed_us(in_from, in_to)? + backend.elapsed_us(out_from, out_to)?) as u64;
            took.compute_us = backend.elapsed_us(from, to)? as u64;
        }
        self.give_back(backend, means)?;
        Ok((results, took))
    }

    fn give_back(self, backend: &mut dyn Backend, means: &mut Means) -> Result<(), GpuError> {
        for event in self.marks {
            backend.forget(event)?;
        }
        means.pool.give(self.block);
        means.stages.give(backend, self.stage)
    }
}
