//! A user's kernel: source, entry, typed arguments, geometry; checked as a whole before anything is compiled.

use std::collections::{BTreeMap, BTreeSet};

use crate::formula::Formula;
use crate::geometry::Geometry;
use crate::{Dtype, GpuError, Program, Scalar};

/// A kernel as its author describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelSpec {
    /// What errors call the source: its file name.
    pub name: String,
    /// CUDA C++; the entry is `extern "C" __global__`.
    pub source: String,
    /// The function launched.
    pub entry: String,
    /// Options of NVRTC: `--use_fast_math`, `-DNAME=value`, `--std=c++20`. The architecture is ours to say.
    pub options: Vec<String>,
    /// The function's parameters, in order.
    pub arguments: Vec<Argument>,
    /// Numbers that are `#define`d in the source and usable in formulas.
    pub constants: BTreeMap<String, u64>,
    /// How many threads.
    pub geometry: Geometry,
    /// What a batch of attempts is to this kernel.
    pub batching: Batching,
    /// The longest payload taken, in bytes.
    pub payload_bytes_max: u64,
    /// The longest result given, in bytes.
    pub result_bytes_max: u64,
}

/// A parameter of the kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Argument {
    /// What errors call it.
    pub name: String,
    /// What it is.
    pub kind: ArgumentKind,
}

/// What a parameter is.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgumentKind {
    /// A pointer to an array.
    Buffer {
        /// Whether it is part of the payload, of the result, or of both.
        direction: Direction,
        /// The type of its elements.
        dtype: Dtype,
        /// Its dimensions. Of an input each is a number, a constant or a name that the payload binds; of an output any formula of those.
        shape: Vec<Formula>,
        /// Whether NaN and infinities in the payload are refused.
        finite: bool,
    },
    /// A value.
    Scalar {
        /// Its type.
        dtype: Dtype,
        /// Where it comes from.
        value: ScalarValue,
    },
}

/// Which way an array goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the payload; the kernel only reads it.
    In,
    /// To the result; zeroed before the launch.
    Out,
    /// From the payload and, changed by the kernel, to the result.
    InOut,
}

/// Where a scalar comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarValue {
    /// Always this value.
    Fixed(Scalar),
    /// A formula over the dimensions: `n`.
    Formula(Formula),
    /// One element in the payload, at its place among the inputs.
    Payload,
}

/// What a batch of attempts is to a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Batching {
    /// One launch for each; only the copies are shared.
    Each,
    /// One launch over all, laid end to end along the first dimension, which is one name that all arrays share: for elementwise kernels.
    Concat,
    /// One launch over all of the same shapes: every array gets a first dimension named `batch`.
    Stack,
}

/// The name that [`Batching::Stack`] binds.
pub const BATCH: &str = "batch";

/// Options that are set by us or would read or write files.
const OPTIONS_REFUSED: [&str; 12] = [
    "--gpu-architecture",
    "-arch",
    "--include-path",
    "-I",
    "--pre-include",
    "-include",
    "--time",
    "--create-pch",
    "--use-pch",
    "--pch",
    "--fdevice-time-trace",
    "--dlink",
];

impl KernelSpec {
    /// Checks all that can be known without a payload or a device.
    ///
    /// # Errors
    ///
    /// Names everything that is wrong.
    pub fn check(&self) -> Result<(), GpuError> {
        let mut wrong = Vec::new();
        self.check_source(&mut wrong);
        self.check_names(&mut wrong);
        self.check_arguments(&mut wrong);
        self.check_formulas(&mut wrong);
        self.check_batching(&mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(GpuError::refused(format!("kernel {}: {}", self.name, wrong.join("; ")))) }
    }

    /// What is compiled.
    pub fn program(&self) -> Program {
        let constants = self.constants.iter().map(|(name, value)| format!("-D{name}={value}"));
        Program {
            name: self.name.clone(),
            source: self.source.clone(),
            options: self.options.iter().cloned().chain(constants).collect(),
        }
    }

    /// The names that the payload binds, in order of their first appearance in the shapes of inputs.
    pub fn dimensions(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.inputs().flat_map(|(_, shape)| shape.iter()).filter_map(Formula::as_name) {
            if !self.constants.contains_key(name) && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn inputs(&self) -> impl Iterator<Item = (&str, &Vec<Formula>)> {
        self.arguments.iter().filter_map(|argument| match &argument.kind {
            ArgumentKind::Buffer { direction: Direction::In | Direction::InOut, shape, .. } => {
                Some((argument.name.as_str(), shape))
            }
            ArgumentKind::Buffer { direction: Direction::Out, .. } | ArgumentKind::Scalar { .. } => None,
        })
    }

    fn buffers(&self) -> impl Iterator<Item = (&str, Direction, &Vec<Formula>)> {
        self.arguments.iter().filter_map(|argument| match &argument.kind {
            ArgumentKind::Buffer { direction, shape, .. } => Some((argument.name.as_str(), *direction, shape)),
            ArgumentKind::Scalar { .. } => None,
        })
    }

    fn check_source(&self, wrong: &mut Vec<String>) {
        if self.source.trim().is_empty() {
            wrong.push("the source is empty".to_owned());
        } else if self.source.contains('\0') {
            wrong.push("the source has a zero byte in it".to_owned());
        } else if !is_identifier(&self.entry) {
            wrong.push(format!("entry `{}` is no name of a function", self.entry));
        } else if !self.source.contains(&self.entry) {
            wrong.push(format!("entry `{}` does not occur in the source", self.entry));
        }
        for option in &self.options {
            if let Some(refused) = OPTIONS_REFUSED.iter().find(|refused| option.starts_with(**refused)) {
                wrong.push(format!("option `{option}`: {refused} is not taken"));
            } else if !option.starts_with('-') || option.contains('\0') {
                wrong.push(format!("option `{option}` is none: options begin with `-`"));
            }
        }
    }

    fn check_names(&self, wrong: &mut Vec<String>) {
        let mut seen = BTreeSet::new();
        for argument in &self.arguments {
            if !seen.insert(&argument.name) {
                wrong.push(format!("two arguments are called `{}`", argument.name));
            }
        }
        for name in self.constants.keys() {
            if !is_identifier(name) || name == BATCH {
                wrong.push(format!("constant `{name}` cannot be called so"));
            }
        }
        if self.dimensions().contains(&BATCH) {
            wrong.push(format!("a dimension cannot be called `{BATCH}`: that is the size of the batch"));
        }
    }

    fn check_arguments(&self, wrong: &mut Vec<String>) {
        if !self.buffers().any(|(_, direction, _)| direction != Direction::In) {
            wrong.push("no argument is an output, so there would be no result: mark one `out` or `inout`".to_owned());
        }
        for (name, shape) in self.inputs() {
            for dimension in shape.iter().filter(|dimension| dimension.as_name().is_none() && dimension.as_number().is_none()) {
                wrong.push(format!("input {name}: dimension `{dimension}` is neither a number nor a name"));
            }
        }
        for (name, _, shape) in self.buffers() {
            if shape.is_empty() {
                wrong.push(format!("{name} has no dimension: give it one, or make it a scalar"));
            }
            if shape.iter().any(|dimension| dimension.as_number() == Some(0)) {
                wrong.push(format!("{name} has a dimension of 0"));
            }
        }
        for argument in &self.arguments {
            match &argument.kind {
                ArgumentKind::Scalar { dtype, value: ScalarValue::Fixed(scalar) } if scalar.dtype() != *dtype => {
                    let (have, want) = (scalar.dtype().name(), dtype.name());
                    wrong.push(format!("scalar {} is {want}, and its value {have}", argument.name));
                }
                ArgumentKind::Scalar { dtype, value: ScalarValue::Formula(_) } if dtype.is_float() => {
                    wrong.push(format!("scalar {} is {}, and a formula is a whole number", argument.name, dtype.name()));
                }
                ArgumentKind::Scalar { .. } | ArgumentKind::Buffer { .. } => {}
            }
        }
    }

    fn check_formulas(&self, wrong: &mut Vec<String>) {
        let mut known: BTreeSet<&str> = self.dimensions().into_iter().chain(self.constants.keys().map(String::as_str)).collect();
        if self.batching == Batching::Stack {
            known.insert(BATCH);
        }
        let mut ask = |what: &str, formula: &Formula| {
            for name in formula.names().difference(&known) {
                wrong.push(format!("{what} = `{formula}`: nothing binds `{name}`"));
            }
        };
        for (what, formula) in self.geometry.formulas() {
            ask(what, formula);
        }
        for argument in &self.arguments {
            match &argument.kind {
                ArgumentKind::Buffer { shape, .. } => shape.iter().for_each(|dimension| ask(&argument.name, dimension)),
                ArgumentKind::Scalar { value: ScalarValue::Formula(formula), .. } => ask(&argument.name, formula),
                ArgumentKind::Scalar { .. } => {}
            }
        }
    }

    fn check_batching(&self, wrong: &mut Vec<String>) {
        if self.batching == Batching::Stack {
            let uses = |shape: &Vec<Formula>| shape.iter().any(|dimension| dimension.names().contains(BATCH));
            for (name, ..) in self.buffers().filter(|(_, _, shape)| uses(shape)) {
                wrong.push(format!("{name}: `{BATCH}` is put before every shape by itself"));
            }
        }
        if self.batching != Batching::Concat {
            return;
        }
        let firsts: BTreeSet<Option<&str>> =
            self.buffers().map(|(_, _, shape)| shape.first().and_then(Formula::as_name)).collect();
        let Some(Some(first)) = firsts.first().filter(|first| firsts.len() == 1 && first.is_some()) else {
            wrong.push("batching `concat` needs one name that is the first dimension of every array".to_owned());
            return;
        };
        if self.constants.contains_key(*first) {
            wrong.push(format!("batching `concat`: `{first}` is a constant, and must be bound by the payload"));
        }
        for (name, _, shape) in self.buffers() {
            if shape.iter().skip(1).any(|dimension| dimension.names().contains(first)) {
                wrong.push(format!("batching `concat`: {name} has `{first}` in more than its first dimension"));
            }
        }
    }
}

fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
pub(crate) mod tests;
