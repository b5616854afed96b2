//! What a payload means to a kernel: the dimensions that it binds, and where each array lies in it and in the result.
//!
//! A payload is its inputs (arrays and scalars of the payload) in the order of the kernel's parameters, one after the other without padding.
//! With one name among the dimensions, the length tells its value. With two or more the payload begins with their values, each a u64, in order
//! of first appearance. A result is the outputs in the order of the parameters, without anything else.

use std::ops::Range;

use crate::array::first_not_finite;
use crate::formula::{Formula, Names};
use crate::kernel::{ArgumentKind, Direction, KernelSpec, ScalarValue};
use crate::{ArraySpec, Dtype, GpuError, Scalar};

/// A payload, understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// Dimensions and constants with their values.
    pub names: Names,
    /// One for each parameter, in order.
    pub pieces: Vec<Piece>,
    /// The length of the result in bytes.
    pub result_bytes: u64,
}

/// One parameter of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// An array.
    Array {
        /// Its type and shape.
        spec: ArraySpec,
        /// Its size in bytes.
        bytes: u64,
        /// Where it lies in the payload, if it is an input.
        from: Option<Range<usize>>,
        /// Where it goes in the result, if it is an output.
        to: Option<Range<usize>>,
    },
    /// A value.
    Scalar(Scalar),
}

impl KernelSpec {
    /// Understands a payload; what it returns is fit to be launched but for the limits of a device.
    ///
    /// # Errors
    ///
    /// Names the argument that does not fit, with the numbers.
    pub fn bind(&self, payload: &[u8]) -> Result<Bound, GpuError> {
        self.understand(payload).map_err(|why| GpuError::refused(format!("payload of kernel {}: {why}", self.name)))
    }

    fn understand(&self, payload: &[u8]) -> Result<Bound, GpuError> {
        let length = payload.len() as u64;
        if length > self.payload_bytes_max {
            return Err(GpuError::refused(format!("{length} bytes, of which it takes at most {}", self.payload_bytes_max)));
        }
        let (names, mut at) = self.measure(payload)?;
        let mut bound = Bound { names, pieces: Vec::with_capacity(self.arguments.len()), result_bytes: 0 };
        for argument in &self.arguments {
            let named = |why: String| GpuError::refused(format!("argument {}: {why}", argument.name));
            let piece = match &argument.kind {
                ArgumentKind::Buffer { direction, dtype, shape, finite } => {
                    let spec = array(*dtype, shape, &bound.names)?;
                    let bytes = spec.bytes()?;
                    if bytes == 0 {
                        return Err(named(format!(
                            "{} of shape {:?} is empty: a kernel needs an element",
                            dtype.name(),
                            spec.shape
                        )));
                    }
                    let from =
                        if *direction == Direction::Out { None } else { Some(take(&mut at, bytes, payload).map_err(&named)?) };
                    if let Some(index) =
                        from.clone().filter(|_| *finite).and_then(|from| first_not_finite(*dtype, &payload[from]))
                    {
                        return Err(named(format!("element {index} is NaN or infinite, which it does not take")));
                    }
                    let to = if *direction == Direction::In { None } else { Some(self.give(&mut bound.result_bytes, bytes)?) };
                    Piece::Array { spec, bytes, from, to }
                }
                ArgumentKind::Scalar { dtype, value } => Piece::Scalar(match value {
                    ScalarValue::Fixed(scalar) => *scalar,
                    ScalarValue::Formula(formula) => whole(*dtype, formula.value(&bound.names)?).map_err(named)?,
                    ScalarValue::Payload => decode(*dtype, &payload[take(&mut at, dtype.size(), payload).map_err(named)?]),
                }),
            };
            bound.pieces.push(piece);
        }
        Ok(bound)
    }

    /// The dimensions, and where the inputs begin. The length of the payload fits them.
    fn measure(&self, payload: &[u8]) -> Result<(Names, usize), GpuError> {
        let dimensions = self.dimensions();
        let mut names: Names = self.constants.clone();
        let length = payload.len() as u64;
        let header = if dimensions.len() > 1 { dimensions.len() * 8 } else { 0 };
        if let [one] = dimensions[..] {
            names.insert(one.to_owned(), self.solve(one, &names, length)?);
        } else {
            if payload.len() < header {
                let list = dimensions.join(", ");
                return Err(GpuError::refused(format!(
                    "{length} bytes; it begins with {list}, each as 8 bytes, which are {header}"
                )));
            }
            for (name, value) in dimensions.iter().zip(payload.as_chunks::<8>().0) {
                names.insert((*name).to_owned(), u64::from_le_bytes(*value));
            }
        }
        let wanted = self.inputs_bytes(&names)?.saturating_add(header as u64);
        if wanted != length {
            let values: Vec<String> = dimensions.iter().map(|name| format!("{name} = {}", names[*name])).collect();
            let given = if values.is_empty() { String::new() } else { format!(" with {}", values.join(", ")) };
            return Err(GpuError::refused(format!("{length} bytes, where its inputs{given} are {wanted}: {}", self.signature())));
        }
        Ok((names, header))
    }

    /// The value of the only dimension, by bisection: more of it never needs fewer bytes.
    fn solve(&self, name: &str, names: &Names, length: u64) -> Result<u64, GpuError> {
        let mut names = names.clone();
        let mut bytes = |value: u64| {
            names.insert(name.to_owned(), value);
            self.inputs_bytes(&names).unwrap_or(u64::MAX)
        };
        // Nearly always the length is a straight line in the dimension, and three looks suffice.
        let (none, one) = (bytes(0), bytes(1));
        let straight = length.checked_sub(none).and_then(|rest| rest.checked_div(one - none)).unwrap_or(0);
        if straight > 0 && bytes(straight) == length {
            return Ok(straight);
        }
        // No element is smaller than a byte, so no dimension is larger than the payload.
        let (mut low, mut high) = (0, length);
        while low < high {
            let middle = low + (high - low) / 2;
            if bytes(middle) < length { low = middle + 1 } else { high = middle }
        }
        if low > 0 && bytes(low) == length {
            return Ok(low);
        }
        let below = if low > 1 { format!("{name} = {} needs {} and ", low - 1, bytes(low - 1)) } else { String::new() };
        let above = format!("{name} = {} needs {}", low.max(1), bytes(low.max(1)));
        Err(GpuError::refused(format!("{length} bytes fit no {name}: {below}{above}: {}", self.signature())))
    }

    fn inputs_bytes(&self, names: &Names) -> Result<u64, GpuError> {
        let mut sum = 0u64;
        for argument in &self.arguments {
            let bytes = match &argument.kind {
                ArgumentKind::Buffer { direction: Direction::In | Direction::InOut, dtype, shape, .. } => {
                    array(*dtype, shape, names)?.bytes()?
                }
                ArgumentKind::Scalar { dtype, value: ScalarValue::Payload } => dtype.size(),
                ArgumentKind::Buffer { .. } | ArgumentKind::Scalar { .. } => 0,
            };
            sum = sum.checked_add(bytes).ok_or_else(|| GpuError::refused("the inputs have more bytes than 64 bits can count"))?;
        }
        Ok(sum)
    }

    /// The inputs in words: `x: f32[n], factor: f32`.
    fn signature(&self) -> String {
        let inputs = self.arguments.iter().filter_map(|argument| match &argument.kind {
            ArgumentKind::Buffer { direction: Direction::In | Direction::InOut, dtype, shape, .. } => {
                let shape: Vec<&str> = shape.iter().map(Formula::text).collect();
                Some(format!("{}: {}[{}]", argument.name, dtype.name(), shape.join(", ")))
            }
            ArgumentKind::Scalar { dtype, value: ScalarValue::Payload } => Some(format!("{}: {}", argument.name, dtype.name())),
            ArgumentKind::Buffer { .. } | ArgumentKind::Scalar { .. } => None,
        });
        inputs.collect::<Vec<_>>().join(", ")
    }

    fn give(&self, result_bytes: &mut u64, bytes: u64) -> Result<Range<usize>, GpuError> {
        let past = result_bytes.checked_add(bytes).filter(|past| *past <= self.result_bytes_max);
        let (from, past) = (
            *result_bytes,
            past.ok_or_else(|| {
                GpuError::refused(format!("its result would be longer than {} bytes, the most it gives", self.result_bytes_max))
            })?,
        );
        *result_bytes = past;
        match (usize::try_from(from), usize::try_from(past)) {
            (Ok(from), Ok(past)) => Ok(from..past),
            _ => Err(GpuError::refused("its result does not fit the address space")),
        }
    }
}

fn take(at: &mut usize, bytes: u64, payload: &[u8]) -> Result<Range<usize>, String> {
    let past = usize::try_from(bytes).ok().and_then(|bytes| at.checked_add(bytes)).filter(|past| *past <= payload.len());
    let past = past.ok_or_else(|| format!("{bytes} bytes from byte {at} on, and the payload has {}", payload.len()))?;
    let range = *at..past;
    *at = past;
    Ok(range)
}

fn array(dtype: Dtype, shape: &[Formula], names: &Names) -> Result<ArraySpec, GpuError> {
    let shape: Result<Vec<u64>, GpuError> = shape.iter().map(|dimension| dimension.value(names)).collect();
    Ok(ArraySpec::new(dtype, shape?))
}

fn decode(dtype: Dtype, bytes: &[u8]) -> Scalar {
    fn of<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().expect("as many bytes were taken as the type has")
    }
    match dtype {
        Dtype::U8 => Scalar::U8(bytes[0]),
        Dtype::I8 => Scalar::I8(i8::from_le_bytes(of(bytes))),
        Dtype::I16 => Scalar::I16(i16::from_le_bytes(of(bytes))),
        Dtype::U16 => Scalar::U16(u16::from_le_bytes(of(bytes))),
        Dtype::I32 => Scalar::I32(i32::from_le_bytes(of(bytes))),
        Dtype::U32 => Scalar::U32(u32::from_le_bytes(of(bytes))),
        Dtype::I64 => Scalar::I64(i64::from_le_bytes(of(bytes))),
        Dtype::U64 => Scalar::U64(u64::from_le_bytes(of(bytes))),
        Dtype::F16 => Scalar::F16(half::f16::from_le_bytes(of(bytes))),
        Dtype::Bf16 => Scalar::Bf16(half::bf16::from_le_bytes(of(bytes))),
        Dtype::F32 => Scalar::F32(f32::from_le_bytes(of(bytes))),
        Dtype::F64 => Scalar::F64(f64::from_le_bytes(of(bytes))),
    }
}

/// A whole number as a scalar of this type.
pub(crate) fn whole(dtype: Dtype, value: u64) -> Result<Scalar, String> {
    let scalar = match dtype {
        Dtype::U8 => value.try_into().map(Scalar::U8).ok(),
        Dtype::I8 => value.try_into().map(Scalar::I8).ok(),
        Dtype::I16 => value.try_into().map(Scalar::I16).ok(),
        Dtype::U16 => value.try_into().map(Scalar::U16).ok(),
        Dtype::I32 => value.try_into().map(Scalar::I32).ok(),
        Dtype::U32 => value.try_into().map(Scalar::U32).ok(),
        Dtype::I64 => value.try_into().map(Scalar::I64).ok(),
        Dtype::U64 => Some(Scalar::U64(value)),
        Dtype::F16 | Dtype::Bf16 | Dtype::F32 | Dtype::F64 => None,
    };
    scalar.ok_or_else(|| format!("{value} does not fit {}", dtype.name()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::array::bytes_of;
    use crate::kernel::Argument;
    use crate::kernel::tests::{buffer, scale};

    fn payload(x: &[f32], factor: f32) -> Vec<u8> {
        [bytes_of(x), &factor.to_le_bytes()].concat()
    }

    /// `c = a · b`: two arrays, three names.
    fn product() -> KernelSpec {
        KernelSpec {
            arguments: vec![
                buffer("a", Direction::In, Dtype::F64, &["m", "k"]),
                buffer("b", Direction::In, Dtype::F64, &["k", "n"]),
                buffer("c", Direction::Out, Dtype::F64, &["m", "n"]),
            ],
            ..scale()
        }
    }

    #[test]
    fn the_length_binds_the_only_name() {
        let bound = scale().bind(&payload(&[1.0, 2.0, 3.0], 0.5)).unwrap();
        assert_eq!(bound.names["n"], 3);
        assert_eq!(bound.result_bytes, 12);
        let x = Piece::Array { spec: ArraySpec::new(Dtype::F32, [3]), bytes: 12, from: Some(0..12), to: None };
        let y = Piece::Array { spec: ArraySpec::new(Dtype::F32, [3]), bytes: 12, from: None, to: Some(0..12) };
        assert_eq!(bound.pieces, [x, y, Piece::Scalar(Scalar::F32(0.5)), Piece::Scalar(Scalar::U32(3))]);
    }

    #[test]
    fn a_name_may_occur_twice() {
        let square = KernelSpec { arguments: vec![buffer("a", Direction::InOut, Dtype::U8, &["n", "n"])], ..scale() };
        assert_eq!(square.bind(&[0; 49]).unwrap().names["n"], 7);
        let error = square.bind(&[0; 50]).unwrap_err().to_string();
        assert!(error.contains("50 bytes fit no n: n = 7 needs 49 and n = 8 needs 64: a: u8[n, n]"), "{error}");
    }

    #[test]
    fn several_names_stand_before_the_inputs() {
        let (m, k, n) = (2u64, 3, 4);
        let header = [m, k, n].map(u64::to_le_bytes).concat();
        let whole = [header.clone(), vec![0; (m * k + k * n) as usize * 8]].concat();
        let bound = product().bind(&whole).unwrap();
        assert_eq!(bound.result_bytes, m * n * 8);
        assert_eq!((bound.names["m"], bound.names["k"], bound.names["n"]), (2, 3, 4));
        for wrong in [&whole[..whole.len() - 1], &whole[..20], &header, &[whole.clone(), vec![0]].concat()] {
            assert!(product().bind(wrong).is_err(), "{}", wrong.len());
        }
        let huge = [[u64::MAX, u64::MAX, 2].map(u64::to_le_bytes).concat(), vec![0; 100]].concat();
        assert!(product().bind(&huge).unwrap_err().to_string().contains("64 bits"));
        let none = [0u64, 0, 0].map(u64::to_le_bytes).concat();
        assert!(product().bind(&none).unwrap_err().to_string().contains("argument a: f64 of shape [0, 0] is empty"));
    }

    #[test]
    fn what_does_not_fit_says_the_numbers() {
        let table: [(&[u8], &str); 4] = [
            (&[], "0 bytes fit no n: n = 1 needs 8: x: f32[n], factor: f32"),
            (&[0; 4], "4 bytes fit no n"),
            (&[0; 9], "9 bytes fit no n: n = 1 needs 8 and n = 2 needs 12"),
            (&[0; (1 << 20) + 4], "1048580 bytes, of which it takes at most 1048576"),
        ];
        for (payload, wanted) in table {
            let error = scale().bind(payload).unwrap_err().to_string();
            assert!(error.starts_with("payload of kernel scale.cu: ") && error.contains(wanted), "{error}");
        }
        let short = KernelSpec { result_bytes_max: 8, ..scale() };
        assert!(short.bind(&payload(&[1.0; 2], 0.0)).is_ok());
        assert!(short.bind(&payload(&[1.0; 3], 0.0)).unwrap_err().to_string().contains("longer than 8 bytes"));
    }

    #[test]
    fn nan_is_refused_where_it_is_forbidden_and_nowhere_else() {
        let bytes = payload(&[1.0, f32::NAN], f32::NAN);
        assert!(scale().bind(&bytes).is_ok());
        let mut strict = scale();
        let shape = vec!["n".parse().unwrap()];
        let kind = ArgumentKind::Buffer { direction: Direction::In, dtype: Dtype::F32, shape, finite: true };
        strict.arguments[0] = Argument { name: "x".to_owned(), kind };
        let error = strict.bind(&bytes).unwrap_err().to_string();
        assert!(error.contains("argument x: element 1 is NaN or infinite"), "{error}");
        assert!(strict.bind(&payload(&[1.0, 2.0], f32::NAN)).is_ok());
    }

    #[test]
    fn a_formula_that_does_not_fit_its_scalar_is_refused() {
        let mut kernel = scale();
        let value = ScalarValue::Formula("n * 100".parse().unwrap());
        kernel.arguments[3].kind = ArgumentKind::Scalar { dtype: Dtype::U8, value };
        assert!(kernel.bind(&payload(&[1.0; 2], 0.0)).is_ok());
        assert!(kernel.bind(&payload(&[1.0; 3], 0.0)).unwrap_err().to_string().contains("argument n: 300 does not fit u8"));
    }

    proptest! {
        #[test]
        fn no_payload_panics_and_what_is_bound_lies_within(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200)) {
            for kernel in [scale(), product()] {
                let Ok(bound) = kernel.bind(&bytes) else { continue };
                for piece in &bound.pieces {
                    if let Piece::Array { spec, bytes: size, from, to } = piece {
                        prop_assert_eq!(spec.bytes().unwrap(), *size);
                        prop_assert!(from.iter().all(|from| from.end <= bytes.len() && from.len() as u64 == *size));
                        prop_assert!(to.iter().all(|to| to.end as u64 <= bound.result_bytes && to.len() as u64 == *size));
                    }
                }
            }
        }

        #[test]
        fn every_length_binds_itself(n in 1usize..2000) {
            prop_assert_eq!(scale().bind(&payload(&vec![0.0; n], 1.0)).unwrap().names["n"], n as u64);
        }
    }
}
