//! Parameters of a kernel as texts, and the builder that Rust programs use.
//!
//! ```text
//! in x: f32[n]            an array of the payload, which the kernel only reads
//! out y: f32[n, m + 1]    an array of the result, zeroed before the launch
//! inout z: i64[4]         both
//! in x: f32[n] finite     NaN and infinities are refused
//! n: u32 = n              a number by a formula over the dimensions
//! factor: f32 = 2.5       a number that is always the same
//! seed: u64               a number in the payload, at its place among the arrays
//! ```

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::kernel::{Argument, ArgumentKind, Batching, Direction, KernelSpec, ScalarValue};
use crate::{Dtype, Element, Formula, Geometry, GpuError, Scalar};

/// Longest payload and result unless somebody says otherwise, in bytes.
const BYTES_MAX: u64 = 1 << 20;

impl FromStr for Argument {
    type Err = GpuError;

    fn from_str(text: &str) -> Result<Self, GpuError> {
        parse(text.trim()).map_err(|why| {
            let form = "write it as `in x: f32[n]`, `out y: f32[n]`, `inout z: f32[n]`, `n: u32 = n`, `f: f32 = 2.5` or `f: f32`";
            GpuError::refused(format!("parameter `{text}`: {why}; {form}"))
        })
    }
}

fn parse(text: &str) -> Result<Argument, String> {
    let (left, right) = text.split_once(':').ok_or("it has no `:` between name and type")?;
    let (direction, name) = match left.split_whitespace().collect::<Vec<_>>()[..] {
        [name] => (None, name),
        ["in", name] => (Some(Direction::In), name),
        ["out", name] => (Some(Direction::Out), name),
        ["inout", name] => (Some(Direction::InOut), name),
        _ => return Err(format!("`{}` is no name, with `in`, `out` or `inout` before it", left.trim())),
    };
    let kind = match direction {
        Some(direction) => array(direction, right.trim())?,
        None => scalar(right.trim())?,
    };
    Ok(Argument { name: name.to_owned(), kind })
}

fn dtype(name: &str) -> Result<Dtype, String> {
    let names = || Dtype::ALL.map(Dtype::name).join(", ");
    Dtype::from_name(name.trim()).ok_or_else(|| format!("`{}` is no type; there are {}", name.trim(), names()))
}

fn array(direction: Direction, text: &str) -> Result<ArgumentKind, String> {
    let (text, finite) = text.strip_suffix("finite").map_or((text, false), |text| (text.trim_end(), true));
    let (name, shape) = text.split_once('[').ok_or("an array has its dimensions in `[ ]` behind the type")?;
    let shape = shape.strip_suffix(']').ok_or("the `]` behind the dimensions is missing")?;
    let shape: Result<Vec<Formula>, GpuError> = dimensions(shape).into_iter().map(str::parse).collect();
    Ok(ArgumentKind::Buffer { direction, dtype: dtype(name)?, shape: shape.map_err(|error| error.to_string())?, finite })
}

/// Parts between commas that are in no parentheses: `n, min(n, m)` has two.
fn dimensions(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_u32, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn scalar(text: &str) -> Result<ArgumentKind, String> {
    let Some((name, value)) = text.split_once('=') else {
        if text.contains('[') {
            return Err("an array says whether it is `in`, `out` or `inout`".to_owned());
        }
        return Ok(ArgumentKind::Scalar { dtype: dtype(text)?, value: ScalarValue::Payload });
    };
    let (dtype, value) = (dtype(name)?, value.trim());
    let value = match fixed(dtype, value) {
        Some(scalar) => ScalarValue::Fixed(scalar),
        None if dtype.is_float() => return Err(format!("`{value}` is no {} that can be told", dtype.name())),
        None => ScalarValue::Formula(value.parse().map_err(|error: GpuError| error.to_string())?),
    };
    Ok(ArgumentKind::Scalar { dtype, value })
}

/// A number of this type; `None` for what is none, or does not fit.
fn fixed(dtype: Dtype, text: &str) -> Option<Scalar> {
    // A number that is not finite is a slip, also where it comes from one that is too large.
    let float = || text.parse::<f64>().ok().filter(|value| value.is_finite());
    Some(match dtype {
        Dtype::U8 => Scalar::U8(text.parse().ok()?),
        Dtype::I8 => Scalar::I8(text.parse().ok()?),
        Dtype::I16 => Scalar::I16(text.parse().ok()?),
        Dtype::U16 => Scalar::U16(text.parse().ok()?),
        Dtype::I32 => Scalar::I32(text.parse().ok()?),
        Dtype::U32 => Scalar::U32(text.parse().ok()?),
        Dtype::I64 => Scalar::I64(text.parse().ok()?),
        Dtype::U64 => Scalar::U64(text.parse().ok()?),
        Dtype::F16 => Scalar::F16(Some(half::f16::from_f64(float()?)).filter(|value| value.is_finite())?),
        Dtype::Bf16 => Scalar::Bf16(Some(half::bf16::from_f64(float()?)).filter(|value| value.is_finite())?),
        Dtype::F32 => Scalar::F32(text.parse().ok().filter(|value: &f32| value.is_finite())?),
        Dtype::F64 => Scalar::F64(float()?),
    })
}

/// Makes a [`KernelSpec`] from typed parameters.
///
/// ```
/// use ergate_gpu::signature::KernelBuilder;
///
/// let source = r#"extern "C" __global__ void scale(const float* x, float* y, float factor, unsigned n) {
///     unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
///     if (i < n) y[i] = factor * x[i];
/// }"#;
/// let spec = KernelBuilder::new("scale.cu", source, "scale")
///     .input::<f32>("x", "n")
///     .output::<f32>("y", "n")
///     .value("factor", 2.5_f32)
///     .formula::<u32>("n", "n")
///     .threads("n", 256)
///     .concat()
///     .build()?;
/// assert_eq!(spec.arguments.len(), 4);
/// # Ok::<(), ergate_gpu::GpuError>(())
/// ```
pub struct KernelBuilder {
    spec: KernelSpec,
    fault: Option<GpuError>,
}

impl KernelBuilder {
    /// A kernel without parameters, of one thread: the name of its file, its source, and the function that is launched.
    pub fn new(name: &str, source: &str, entry: &str) -> Self {
        let one = || Formula::number(1);
        let geometry = Geometry { grid: [one(), one(), one()], block: [one(), one(), one()], shared_bytes: Formula::number(0) };
        let spec = KernelSpec {
            name: name.to_owned(),
            source: source.to_owned(),
            entry: entry.to_owned(),
            options: Vec::new(),
            arguments: Vec::new(),
            constants: BTreeMap::new(),
            geometry,
            batching: Batching::Each,
            payload_bytes_max: BYTES_MAX,
            result_bytes_max: BYTES_MAX,
        };
        Self { spec, fault: None }
    }

    /// A parameter as a text: see the [module's documentation](self).
    pub fn parameter(self, text: &str) -> Self {
        self.with(text.parse::<Argument>(), |spec, argument| spec.arguments.push(argument))
    }

    /// An array of the payload; its dimensions with commas between them.
    pub fn input<T: Element>(self, name: &str, shape: &str) -> Self {
        self.parameter(&format!("in {name}: {}[{shape}]", T::DTYPE.name()))
    }

    /// An array of the result.
    pub fn output<T: Element>(self, name: &str, shape: &str) -> Self {
        self.parameter(&format!("out {name}: {}[{shape}]", T::DTYPE.name()))
    }

    /// An array of the payload that the kernel changes into one of the result.
    pub fn inout<T: Element>(self, name: &str, shape: &str) -> Self {
        self.parameter(&format!("inout {name}: {}[{shape}]", T::DTYPE.name()))
    }

    /// A number that is always the same.
    pub fn value<T: Element + Into<Scalar>>(mut self, name: &str, value: T) -> Self {
        let kind = ArgumentKind::Scalar { dtype: T::DTYPE, value: ScalarValue::Fixed(value.into()) };
        self.spec.arguments.push(Argument { name: name.to_owned(), kind });
        self
    }

    /// A number by a formula over the dimensions.
    pub fn formula<T: Element>(self, name: &str, formula: &str) -> Self {
        self.with(formula.parse(), |spec, formula| {
            let kind = ArgumentKind::Scalar { dtype: T::DTYPE, value: ScalarValue::Formula(formula) };
            spec.arguments.push(Argument { name: name.to_owned(), kind });
        })
    }

    /// A number in the payload.
    pub fn in_payload<T: Element>(self, name: &str) -> Self {
        self.parameter(&format!("{name}: {}", T::DTYPE.name()))
    }

    /// A thread for each of `threads`, a formula, in blocks of `block`.
    pub fn threads(self, threads: &str, block: u32) -> Self {
        self.with(Geometry::linear(threads, block), |spec, geometry| spec.geometry = geometry)
    }

    /// Any other geometry.
    pub fn geometry(mut self, geometry: Geometry) -> Self {
        self.spec.geometry = geometry;
        self
    }

    /// An option for the compiler.
    pub fn option(mut self, option: &str) -> Self {
        self.spec.options.push(option.to_owned());
        self
    }

    /// A number that is defined in the source and in formulas.
    pub fn constant(mut self, name: &str, value: u64) -> Self {
        self.spec.constants.insert(name.to_owned(), value);
        self
    }

    /// A batch is one launch over all, laid end to end along the first dimension.
    pub fn concat(mut self) -> Self {
        self.spec.batching = Batching::Concat;
        self
    }

    /// A batch is one launch over all of the same shapes, with a first dimension `batch` more.
    pub fn stack(mut self) -> Self {
        self.spec.batching = Batching::Stack;
        self
    }

    /// The longest payload taken and result given, in bytes; 1 MiB each without this.
    pub fn bytes_max(mut self, payload: u64, result: u64) -> Self {
        (self.spec.payload_bytes_max, self.spec.result_bytes_max) = (payload, result);
        self
    }

    fn with<T>(mut self, part: Result<T, GpuError>, put: impl FnOnce(&mut KernelSpec, T)) -> Self {
        match part {
            Ok(part) => put(&mut self.spec, part),
            // The first mistake is told; others may follow from it.
            Err(error) => self.fault = self.fault.or(Some(error)),
        }
        self
    }

    /// The kernel, checked.
    ///
    /// # Errors
    ///
    /// What is wrong with a part of it, or with all of them together.
    pub fn build(self) -> Result<KernelSpec, GpuError> {
        match self.fault {
            Some(fault) => Err(GpuError::refused(format!("kernel {}: {fault}", self.spec.name))),
            None => self.spec.check().map(|()| self.spec),
        }
    }
}

macro_rules! scalars {
    ($($rust:ty => $kind:ident),* $(,)?) => {
        $(impl From<$rust> for Scalar {
            fn from(value: $rust) -> Self {
                Self::$kind(value)
            }
        })*
    };
}

scalars! {
    u8 => U8, i8 => I8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64,
    half::f16 => F16, half::bf16 => Bf16, f32 => F32, f64 => F64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Argument, String> {
        text.parse::<Argument>().map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_are_read_as_the_builder_makes_them() {
        let built = KernelBuilder::new("k.cu", "k", "k")
            .input::<f32>("x", "n, m")
            .output::<u8>("y", "min(n, m), 4")
            .inout::<i64>("z", "8")
            .value("f", 2.5_f32)
            .value("g", -3_i16)
            .formula::<u32>("n", "n * m")
            .in_payload::<u64>("seed")
            .threads("n", 128)
            .build()
            .map(|spec| spec.arguments);
        let texts = [
            "in x: f32[n, m]",
            " out y :u8[ min(n, m), 4 ]",
            "inout z: i64[8]",
            "f: f32 = 2.5",
            "g: i16=-3",
            "n: u32 = n * m",
            "seed: u64",
        ];
        let read: Result<Vec<Argument>, GpuError> = texts.into_iter().map(str::parse).collect();
        assert_eq!(read, built);
        assert!(read.is_ok_and(|read| read.len() == 7));
        assert!(matches!(of("in x: f32[n] finite"), Ok(Argument { kind: ArgumentKind::Buffer { finite: true, .. }, .. })));
    }

    #[test]
    fn what_is_no_parameter_is_refused_by_name_with_what_would_be() {
        for (text, why) in [
            ("", "no `:`"),
            ("x", "no `:`"),
            ("in: f32[n]", "an array says whether"),
            ("const x: f32[n]", "`const x` is no name"),
            ("in x: float[n]", "`float` is no type; there are u8"),
            ("in x: f32", "in `[ ]` behind the type"),
            ("in x: f32[n", "`]`"),
            ("in x: f32[]", "formula ``"),
            ("in x: f32[n,]", "formula ``"),
            ("x: f32[n]", "an array says whether"),
            ("f: f32 = n", "`n` is no f32"),
            ("f: f32 = 1e99", "is no f32"),
            ("f: f16 = 70000", "is no f16"),
            ("f: f64 = inf", "is no f64"),
            ("n: u32 = 2 *", "formula `2 *`"),
        ] {
            let error = of(text).expect_err(text);
            assert!(error.contains(why) && error.contains(&format!("`{text}`")) && error.contains("write it as"), "{error}");
        }
        // What fits no u8 is a formula that is always too large, which the launch says.
        assert!(of("n: u8 = 256").is_ok());
        let error = KernelBuilder::new("k.cu", "k", "k").input::<f32>("x", "").output::<f32>("y", "(").build();
        assert!(error.is_err_and(|error| error.to_string().contains("kernel k.cu: parameter `in x: f32[]`")));
    }
}
