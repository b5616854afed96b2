//! One batch on its way through the device: staged, copied in, computed in one step or several, copied out, read.

use std::sync::Arc;
use std::time::Instant;

use crate::means::Means;
use crate::memory::{Block, aligned};
use crate::pinned::Stage;
use crate::work::{Admitted, Layout, Next, Parts, Payload, Run, Work};
use crate::{Backend, Digest, Event, GpuError, Slice, Stream};

/// Who is on board, with what.
pub(crate) type Passengers = [(u64, Payload, Admitted)];

/// A batch whose work is queued.
pub(crate) struct Flight {
    pub(crate) ids: Vec<u64>,
    pub(crate) batch: u64,
    pub(crate) begun: Instant,
    /// Whether it was to be alone on the device.
    pub(crate) lone: bool,
    /// The turn of its kernels among those of others, until they are known to be done: then it is not they who killed the context.
    pub(crate) kernels: Option<u64>,
    work: Arc<dyn Work>,
    layout: Layout,
    stage: Stage,
    block: Block,
    region: Slice,
    scratch: Option<Slice>,
    resident: Option<(Digest, Slice)>,
    spans: Vec<Span>,
    then: Then,
    took: Took,
}

/// A piece of work in a stream, between two marks.
struct Span {
    copy: bool,
    from: Event,
    to: Option<Event>,
}

/// What is to be done when everything queued is done.
enum Then {
    /// The results lie in the batch's staging memory.
    Staged,
    /// So many bytes in this staging memory are given to the kind of work, which goes on.
    Step(Stage, usize),
    /// The results are these: what each begins with, then so many bytes of this staging memory.
    Results(Option<Stage>, Vec<(Vec<u8>, usize)>),
}

/// What a batch took, on the device.
#[derive(Default)]
pub(crate) struct Took {
    pub(crate) copy_us: u64,
    pub(crate) compute_us: u64,
    pub(crate) memory_bytes: u64,
}

/// How far a batch has come.
pub(crate) enum Progress {
    /// What was queued is not done.
    Waits,
    /// It was, and more was queued.
    Goes,
    /// All of it is done.
    Landed,
}

impl Flight {
    /// Stages a batch and queues its first step; on an error everything is given back, but not what is resident, which stays pinned.
    pub(crate) fn begin(
        backend: &mut dyn Backend,
        means: &mut Means,
        (batch, lone, evict): (u64, bool, bool),
        work: Arc<dyn Work>,
        resident: Option<(Digest, Slice)>,
        members: &Passengers,
    ) -> Result<Self, GpuError> {
        let admitted: Vec<&Admitted> = members.iter().map(|(_, _, admitted)| admitted).collect();
        let layout = work.lay(&admitted, backend.device())?;
        let what = format!("a batch of {} of {}", members.len(), work.name());
        let scratch = aligned(layout.scratch_bytes).and_then(|scratch| aligned(layout.region_bytes)?.checked_add(scratch));
        let bytes = scratch.ok_or_else(|| GpuError::failed(format!("{what} does not fit 64 bits")))?;
        let mut block = means.take(backend, &what, bytes, evict)?;
        let parts = block.part(layout.region_bytes).and_then(|region| {
            let scratch = (layout.scratch_bytes > 0).then(|| block.part(layout.scratch_bytes)).transpose()?;
            Ok((region, scratch))
        });
        let staged = parts.and_then(|parts| Ok((parts, means.stages.take(backend, layout.region_bytes)?)));
        let ((region, scratch), stage) = match staged {
            Ok(staged) => staged,
            Err(error) => {
                means.pool.give(block);
                return Err(error);
            }
        };
        let ids = members.iter().map(|(id, ..)| *id).collect();
        let took = Took { memory_bytes: block.bytes(), ..Took::default() };
        let (spans, kernels, then, begun) = (Vec::with_capacity(3), None, Then::Staged, Instant::now());
        let mut flight = Self {
            ids,
            batch,
            begun,
            lone,
            kernels,
            work,
            layout,
            stage,
            block,
            region,
            scratch,
            resident: None,
            spans,
            then,
            took,
        };
        match flight.queue(backend, means, resident, members) {
            Ok(()) => Ok(flight),
            Err(error) => Err(flight.give_up(backend, means, error)),
        }
    }

    fn queue(
        &mut self,
        backend: &mut dyn Backend,
        means: &mut Means,
        resident: Option<(Digest, Slice)>,
        members: &Passengers,
    ) -> Result<(), GpuError> {
        let staged = backend.staged(self.stage.staging)?;
        for piece in &self.layout.inputs {
            let payload = (*members[piece.member].1).as_ref();
            let at = piece.at as usize;
            staged[at..at + piece.bytes.len()].copy_from_slice(&payload[piece.bytes.clone()]);
        }
        let (in_to, end) = (self.layout.in_to, self.layout.region_bytes);
        let (input, rest) = (self.part(0, in_to), self.part(in_to, end));
        self.from(backend, Stream::In)?;
        if in_to > 0 {
            backend.copy_in(Stream::In, self.stage.staging, 0, input)?;
        }
        let copied = self.to(backend, Stream::In)?;
        backend.wait(Stream::Compute, copied)?;
        let zeroed = Some(rest).filter(|rest| rest.bytes > 0);
        self.step(backend, means, resident, (zeroed, &[]))?;
        // Only now, so that an error leaves the pin with whoever made it.
        self.resident = resident;
        Ok(())
    }

    /// Queues what the kind of work does next, and the copy of what comes of it.
    fn step(
        &mut self,
        backend: &mut dyn Backend,
        means: &mut Means,
        resident: Option<(Digest, Slice)>,
        (zeroed, read): (Option<Slice>, &[u8]),
    ) -> Result<(), GpuError> {
        self.kernels = Some(means.turn());
        self.from(backend, Stream::Compute)?;
        if let Some(zeroed) = zeroed {
            backend.fill(Stream::Compute, zeroed, 0)?;
        }
        let resident = resident.map(|(_, memory)| memory);
        let mut run = Run { backend, region: self.region, scratch: self.scratch, resident, modules: &means.modules };
        let next = self.work.enqueue(&mut run, &mut self.layout, read)?;
        let computed = self.to(backend, Stream::Compute)?;
        backend.wait(Stream::Out, computed)?;
        self.from(backend, Stream::Out)?;
        match next {
            Next::Done => {
                let (out_from, end) = (self.layout.out_from, self.layout.region_bytes);
                if end > out_from {
                    backend.copy_out(Stream::Out, self.part(out_from, end), self.stage.staging, out_from)?;
                }
            }
            Next::Read(from) => {
                let stage = means.stages.take(backend, from.bytes)?;
                let staging = stage.staging;
                self.then = Then::Step(stage, from.bytes as usize);
                backend.copy_out(Stream::Out, from, staging, 0)?;
            }
            Next::Results(results) => self.bring(backend, means, results)?,
        }
        self.to(backend, Stream::Out).map(|_| ())
    }

    /// Queues the copies of results to staging memory that is as long as they are.
    fn bring(&mut self, backend: &mut dyn Backend, means: &mut Means, results: Vec<Parts>) -> Result<(), GpuError> {
        if results.len() != self.ids.len() {
            let (name, results, members) = (self.work.name(), results.len(), self.ids.len());
            return Err(GpuError::failed(format!("{name}: {results} results for a batch of {members}")));
        }
        let length = |parts: &Parts| parts.parts.iter().map(|part| part.bytes).sum::<u64>();
        let bytes: u64 = results.iter().map(length).sum();
        let stage = if bytes > 0 { Some(means.stages.take(backend, bytes)?) } else { None };
        let staging = stage.as_ref().map(|stage| stage.staging);
        let lengths: Vec<usize> = results.iter().map(|parts| length(parts) as usize).collect();
        let (heads, parts): (Vec<_>, Vec<_>) = results.into_iter().map(|result| (result.head, result.parts)).unzip();
        self.then = Then::Results(stage, heads.into_iter().zip(lengths).collect());
        let mut at = 0;
        for part in parts.into_iter().flatten().filter(|part| part.bytes > 0) {
            if let Some(staging) = staging {
                backend.copy_out(Stream::Out, part, staging, at)?;
            }
            at += part.bytes;
        }
        Ok(())
    }

    fn part(&self, from: u64, to: u64) -> Slice {
        Slice { offset: self.region.offset + from, bytes: to - from, ..self.region }
    }

    fn from(&mut self, backend: &mut dyn Backend, stream: Stream) -> Result<(), GpuError> {
        let from = backend.record(stream)?;
        self.spans.push(Span { copy: stream != Stream::Compute, from, to: None });
        Ok(())
    }

    fn to(&mut self, backend: &mut dyn Backend, stream: Stream) -> Result<Event, GpuError> {
        let to = backend.record(stream)?;
        if let Some(span) = self.spans.last_mut() {
            span.to = Some(to);
        }
        Ok(to)
    }

    /// Goes on if everything queued is done.
    pub(crate) fn advance(&mut self, backend: &mut dyn Backend, means: &mut Means) -> Result<Progress, GpuError> {
        // Each stream in turn, for staging memory is free again only when the marks of all its streams were seen.
        for span in &self.spans {
            if let Some(to) = span.to
                && !backend.done(to)?
            {
                return Ok(Progress::Waits);
            }
            if !span.copy {
                self.kernels = None;
            }
        }
        self.settle(backend)?;
        match std::mem::replace(&mut self.then, Then::Staged) {
            Then::Step(stage, bytes) => {
                let read = backend.staged(stage.staging).map(|staged| staged[..bytes].to_vec());
                means.stages.give(backend, stage)?;
                self.step(backend, means, self.resident, (None, &read?))?;
                Ok(Progress::Goes)
            }
            then @ (Then::Staged | Then::Results(..)) => {
                self.then = then;
                Ok(Progress::Landed)
            }
        }
    }

    /// Adds up what the steps that are done took, and gives their marks back.
    fn settle(&mut self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        for span in std::mem::take(&mut self.spans) {
            if let Some(to) = span.to {
                let us = backend.elapsed_us(span.from, to)? as u64;
                *(if span.copy { &mut self.took.copy_us } else { &mut self.took.compute_us }) += us;
                backend.forget(to)?;
            }
            backend.forget(span.from)?;
        }
        Ok(())
    }

    /// Reads the results of what has landed, one for each member in order, and gives the memory back.
    pub(crate) fn finish(mut self, backend: &mut dyn Backend, means: &mut Means) -> Result<(Vec<Vec<u8>>, Took), GpuError> {
        let results = match &mut self.then {
            Then::Staged | Then::Step(..) => {
                let mut results: Vec<Vec<u8>> = self.layout.result_bytes.iter().map(|&bytes| vec![0; bytes]).collect();
                let staged = backend.staged(self.stage.staging)?;
                for piece in &self.layout.outputs {
                    let at = piece.at as usize;
                    results[piece.member][piece.bytes.clone()].copy_from_slice(&staged[at..at + piece.bytes.len()]);
                }
                results
            }
            Then::Results(stage, results) => {
                let mut staged: &[u8] = match stage {
                    Some(stage) => backend.staged(stage.staging)?,
                    None => &[],
                };
                let whole = std::mem::take(results).into_iter().map(|(mut result, bytes)| {
                    let (mine, others) = staged.split_at(bytes);
                    staged = others;
                    result.extend_from_slice(mine);
                    result
                });
                whole.collect()
            }
        };
        let took = std::mem::take(&mut self.took);
        self.give_back(backend, means)?;
        Ok((results, took))
    }

    /// Waits for what was queued and gives everything back; what to say of it.
    pub(crate) fn give_up(self, backend: &mut dyn Backend, means: &mut Means, error: GpuError) -> GpuError {
        // Some of it may be queued already and use the memory. A dead context says so here, which counts more.
        backend.synchronize().and_then(|()| self.give_back(backend, means)).err().unwrap_or(error)
    }

    fn give_back(self, backend: &mut dyn Backend, means: &mut Means) -> Result<(), GpuError> {
        for span in self.spans {
            backend.forget(span.from)?;
            span.to.map_or(Ok(()), |to| backend.forget(to))?;
        }
        means.pool.give(self.block);
        means.unpin(self.resident);
        if let Then::Step(stage, _) | Then::Results(Some(stage), _) = self.then {
            means.stages.give(backend, stage)?;
        }
        means.stages.give(backend, self.stage)
    }
}
