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

    /// The type of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_rust_types() {
        fn size<T: Element>() -> bool {
            T::DTYPE.size() == size_of::<T>() as u64 && align_of::<T>() == size_of::<T>()
        }
        assert!(size::<u8>() && size::<i8>() && size::<i16>() && size::<u16>() && size::<i32>() && size::<u32>());
        assert!(size::<i64>() && size::<u64>() && size::<half::f16>() && size::<half::bf16>() && size::<f32>() && size::<f64>());
    }

    #[test]
    fn names_are_read_back() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        assert_eq!(Dtype::from_name("float"), None);
    }

    #[test]
    fn products_that_do_not_fit_are_refused() {
        let bytes = |shape: &[u64]| ArraySpec::new(Dtype::F64, shape).bytes();
        assert_eq!(bytes(&[]), Ok(8));
        assert_eq!(bytes(&[3, 5]), Ok(120));
        assert_eq!(bytes(&[1 << 40, 0, 1 << 40]), Ok(0));
        assert_eq!(bytes(&[1 << 60]), Ok(1 << 63));
        assert!(bytes(&[1 << 61]).is_err());
        assert!(bytes(&[1 << 40, 1 << 40]).is_err());
        assert!(ArraySpec::new(Dtype::U8, [1 << 32, 1 << 32]).bytes().is_err());
    }
}
