//! Element types of arrays, and the size of an array.

use crate::GpuError;

/// The type of an array's elements, stored little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Dtype {
    U8,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F16,
    Bf16,
    F32,
    F64,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::U8,
        Self::I8,
        Self::I16,
        Self::U16,
        Self::I32,
        Self::U32,
        Self::I64,
        Self::U64,
        Self::F16,
        Self::Bf16,
        Self::F32,
        Self::F64,
    ];

    /// The size of one element in bytes, which is its alignment too.
    pub const fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// The name used in settings: `f32`, `bf16`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
            Self::U64 => "u64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Whether it can hold NaN and infinities.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }
}

/// An array: element type and shape, row-major (the last dimension is contiguous).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ArraySpec {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its dimensions, slowest first; empty for one element.
    pub shape: Vec<u64>,
}

impl ArraySpec {
    /// An array of this type and shape.
    pub fn new(dtype: Dtype, shape: impl Into<Vec<u64>>) -> Self {
        Self { dtype, shape: shape.into() }
    }

    /// The number of elements.
    ///
    /// # Errors
    ///
    /// When the product of the dimensions does not fit 64 bits.
    pub fn elements(&self) -> Result<u64, GpuError> {
        // A dimension of zero makes the array empty, however large the others are.
        if self.shape.contains(&0) {
            return Ok(0);
        }
        let product = self.shape.iter().try_fold(1u64, |product, &dimension| product.checked_mul(dimension));
        product.ok_or_else(|| GpuError::refused(format!("shape {:?} has more elements than 64 bits can count", self.shape)))
    }

    /// Its size in bytes.
    ///
    /// # Errors
    ///
    /// When it does not fit 64 bits.
    pub fn bytes(&self) -> Result<u64, GpuError> {
        let bytes = self.elements()?.checked_mul(self.dtype.size());
        bytes.ok_or_else(|| {
            GpuError::refused(format!(
                "{} array of shape {:?} has more bytes than 64 bits can count",
                self.dtype.name(),
                self.shape
            ))
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type with the layout of a [`Dtype`]: without padding, and every bit pattern is a value.
pub trait Element: Copy + Send + Sync + Default + std::fmt::Debug + PartialEq + 'static + sealed::Sealed {
    /// The element type whose layout it has.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {
        $(
            impl sealed::Sealed for $rust {}
            impl Element for $rust {
                const DTYPE: Dtype = Dtype::$dtype;
            }
        )*
    };
}

elements!(u8 => U8, i8 => I8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, u64 => U64, half::f16 => F16,
    half::bf16 => Bf16, f32 => F32, f64 => F64);
