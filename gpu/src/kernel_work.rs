//! A user's kernel as a kind of work: how a batch of its attempts lies in memory, and which launches it is.

use std::sync::Arc;

use crate::bind::{self, Bound, whole};
use crate::formula::Names;
use crate::kernel::{ArgumentKind, BATCH, Batching, Direction, KernelSpec, ScalarValue};
use crate::memory::aligned;
use crate::work::{Admitted, Layout, Next, Piece, Run, Work};
use crate::{Arg, DeviceInfo, Digest, GpuError, Limits, Program, Scalar, Stream};

/// A checked kernel.
#[derive(Debug)]
pub struct KernelWork {
    spec: KernelSpec,
    program: Program,
    program_digest: Digest,
    digest: Digest,
}

/// One launch of a batch.
struct Planned {
    names: Names,
    args: Vec<Placed>,
}

/// One argument of a launch.
enum Placed {
    At { from: u64, bytes: u64 },
    Scalar(Scalar),
}

impl KernelWork {
    /// Checks a kernel.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn new(spec: KernelSpec) -> Result<Self, GpuError> {
        spec.check()?;
        let program = spec.program();
        let program_digest = program.digest();
        let digest = Digest::of_parts([&program_digest.0[..], spec.entry.as_bytes()]);
        Ok(Self { spec, program, program_digest, digest })
    }

    /// The kernel.
    pub fn spec(&self) -> &KernelSpec {
        &self.spec
    }

    /// What members of one batch must have in common.
    fn common(&self, bound: &Bound) -> Vec<u8> {
        let mut common = Vec::new();
        if self.spec.batching == Batching::Each {
            return common;
        }
        let free = if self.spec.batching == Batching::Concat { self.first() } else { None };
        for (name, value) in bound.names.iter().filter(|(name, _)| Some(name.as_str()) != free) {
            common.extend(format!("{name}={value};").bytes());
        }
        for (argument, piece) in self.spec.arguments.iter().zip(&bound.pieces) {
            if let (ArgumentKind::Scalar { value: ScalarValue::Payload, .. }, bind::Piece::Scalar(scalar)) =
                (&argument.kind, piece)
            {
                // By its bits: NaN is not equal to itself, but the same argument.
                common.extend(format!("{scalar:?};").bytes());
            }
        }
        common
    }

    /// The name along which a batch is laid end to end.
    fn first(&self) -> Option<&str> {
        self.spec.arguments.iter().find_map(|argument| match &argument.kind {
            ArgumentKind::Buffer { shape, .. } => shape.first().and_then(crate::Formula::as_name),
            ArgumentKind::Scalar { .. } => None,
        })
    }

    /// The dimensions of the one launch over all members.
    fn joined(&self, members: &[&Bound]) -> Result<Names, GpuError> {
        let mut names = members.first().map(|member| member.names.clone()).unwrap_or_default();
        if self.spec.batching == Batching::Stack {
            names.insert(BATCH.to_owned(), members.len() as u64);
        } else if let Some(first) = self.first() {
            let sum = members.iter().try_fold(0u64, |sum, member| sum.checked_add(member.names.get(first).copied().unwrap_or(0)));
            let sum = sum
                .ok_or_else(|| GpuError::failed(format!("batch of kernel {}: `{first}` does not fit 64 bits", self.spec.name)))?;
            names.insert(first.to_owned(), sum);
        }
        Ok(names)
    }

    /// Puts every array of a direction at its place, and notes which launch's argument it is.
    fn place(
        &self,
        members: &[&Bound],
        direction: Direction,
        at: &mut u64,
        layout: &mut Layout,
        launches: &mut [Planned],
    ) -> Result<(), GpuError> {
        let short = || GpuError::failed(format!("batch of kernel {} does not fit 64 bits", self.spec.name));
        let each = self.spec.batching == Batching::Each;
        for (index, argument) in self.spec.arguments.iter().enumerate() {
            if !matches!(&argument.kind, ArgumentKind::Buffer { direction: its, .. } if *its == direction) {
                continue;
            }
            let begin = *at;
            for (member, bound) in members.iter().enumerate() {
                let Some(bind::Piece::Array { bytes, from, to, .. }) = bound.pieces.get(index) else { continue };
                layout.inputs.extend(from.clone().map(|bytes| Piece { member, bytes, at: *at }));
                layout.outputs.extend(to.clone().map(|bytes| Piece { member, bytes, at: *at }));
                if each {
                    launches[member].args[index] = Placed::At { from: *at, bytes: *bytes };
                }
                *at = at.checked_add(*bytes).ok_or_else(short)?;
                if each {
                    *at = aligned(*at).ok_or_else(short)?;
                }
            }
            if !each {
                launches[0].args[index] = Placed::At { from: begin, bytes: *at - begin };
            }
            *at = aligned(*at).ok_or_else(short)?;
        }
        Ok(())
    }

    /// The launches with their scalars; arrays are placed after.
    fn launches(&self, members: &[&Bound]) -> Result<Vec<Planned>, GpuError> {
        let groups: Vec<(Names, &Bound)> = match (self.spec.batching, members.first()) {
            (Batching::Each, _) => members.iter().map(|member| (member.names.clone(), *member)).collect(),
            (Batching::Concat | Batching::Stack, Some(first)) => vec![(self.joined(members)?, first)],
            (Batching::Concat | Batching::Stack, None) => Vec::new(),
        };
        groups.into_iter().map(|(names, member)| self.scalars(names, member)).collect()
    }

    fn scalars(&self, names: Names, member: &Bound) -> Result<Planned, GpuError> {
        let mut args = Vec::with_capacity(self.spec.arguments.len());
        for (argument, piece) in self.spec.arguments.iter().zip(&member.pieces) {
            args.push(match (&argument.kind, piece) {
                (ArgumentKind::Scalar { dtype, value: ScalarValue::Formula(formula) }, _) => {
                    let wrong =
                        |why| GpuError::failed(format!("batch of kernel {}: argument {}: {why}", self.spec.name, argument.name));
                    Placed::Scalar(whole(*dtype, formula.value(&names)?).map_err(wrong)?)
                }
                (_, bind::Piece::Scalar(scalar)) => Placed::Scalar(*scalar),
                (_, bind::Piece::Array { .. }) => Placed::At { from: 0, bytes: 0 },
            });
        }
        Ok(Planned { names, args })
    }
}

impl Work for KernelWork {
    fn name(&self) -> &str {
        &self.spec.name
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn admit(&self, payload: &[u8], limits: &Limits) -> Result<Admitted, GpuError> {
        let bound = self.spec.bind(payload)?;
        self.spec.geometry.launch(&self.joined(&[&bound])?, limits)?;
        let bytes = bound.pieces.iter().map(|piece| match piece {
            bind::Piece::Array { bytes, .. } => aligned(*bytes).unwrap_or(u64::MAX),
            bind::Piece::Scalar(_) => 0,
        });
        let bytes = bytes.fold(0, u64::saturating_add);
        let digest = Digest::of(&self.common(&bound)).0;
        let class = digest.first_chunk().copied().map_or(0, u64::from_le_bytes);
        Ok(Admitted { class, bytes, state: Arc::new(bound) })
    }

    fn programs(&self) -> Vec<(Program, String)> {
        vec![(self.program.clone(), self.spec.entry.clone())]
    }

    fn lay(&self, members: &[&Admitted], _: &DeviceInfo) -> Result<Layout, GpuError> {
        let bounds: Option<Vec<&Bound>> = members.iter().map(|member| member.state.downcast_ref::<Bound>()).collect();
        let bounds = bounds.ok_or_else(|| {
            GpuError::failed(format!("kernel {}: a member was admitted by another kind of work", self.spec.name))
        })?;
        if bounds.iter().any(|bound| self.common(bound) != self.common(bounds[0])) {
            return Err(GpuError::failed(format!("kernel {}: members of different shapes in one batch", self.spec.name)));
        }
        let mut layout =
            Layout { result_bytes: bounds.iter().map(|bound| bound.result_bytes as usize).collect(), ..Layout::default() };
        let (mut launches, mut at) = (self.launches(&bounds)?, 0);
        self.place(&bounds, Direction::In, &mut at, &mut layout, &mut launches)?;
        layout.out_from = at;
        self.place(&bounds, Direction::InOut, &mut at, &mut layout, &mut launches)?;
        layout.in_to = at;
        self.place(&bounds, Direction::Out, &mut at, &mut layout, &mut launches)?;
        layout.region_bytes = at;
        layout.state = Some(Box::new(launches));
        Ok(layout)
    }

    fn enqueue(&self, run: &mut Run<'_>, layout: &mut Layout, _: &[u8]) -> Result<Next, GpuError> {
        let kernel = run.kernel(&self.program_digest, &self.spec.entry)?;
        let launches = layout.state.as_ref().and_then(|state| state.downcast_ref::<Vec<Planned>>());
        for planned in launches.into_iter().flatten() {
            let launch = self.spec.geometry.launch(&planned.names, &run.backend.device().limits)?;
            let args = planned.args.iter().map(|placed| match placed {
                Placed::At { from, bytes } => Arg::Slice(run.part(*from, *bytes)),
                Placed::Scalar(scalar) => Arg::Scalar(*scalar),
            });
            let args: Vec<Arg> = args.collect();
            run.backend.launch(Stream::Compute, kernel, &launch, &args)?;
        }
        Ok(Next::Done)
    }
}
