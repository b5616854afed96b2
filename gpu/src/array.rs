//! Arrays as bytes: little-endian, row-major, without padding, as numpy's `tobytes()` writes them.

use crate::{Dtype, Element, GpuError};

#[cfg(target_endian = "big")]
compile_error!("arrays are taken over as they lie in memory, which needs a little-endian machine");

/// The bytes of these elements.
pub fn bytes_of<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements have no padding, bytes have no alignment, and the length is that of the same memory.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

/// The elements in these bytes, without copying.
///
/// # Errors
///
/// When the bytes are no whole number of elements or do not lie on a multiple of their size; see [`read`].
pub fn view<T: Element>(bytes: &[u8]) -> Result<&[T], GpuError> {
    whole::<T>(bytes)?;
    if !(bytes.as_ptr() as usize).is_multiple_of(align_of::<T>()) {
        return Err(GpuError::refused(format!(
            "{} bytes do not lie on a multiple of {}, as {} must: copy them",
            bytes.len(),
            T::DTYPE.size(),
            T::DTYPE.name()
        )));
    }
    // SAFETY: length and alignment were checked, every bit pattern is a value, and the lifetime is that of the bytes.
    Ok(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<T>()) })
}

/// The elements in these bytes, copied, wherever they lie.
///
/// # Errors
///
/// When the bytes are no whole number of elements.
pub fn read<T: Element>(bytes: &[u8]) -> Result<Vec<T>, GpuError> {
    whole::<T>(bytes)?;
    let mut elements = vec![T::default(); bytes.len() / size_of::<T>()];
    // SAFETY: both are `bytes.len()` long and do not overlap, and every bit pattern is a value.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), elements.as_mut_ptr().cast(), bytes.len()) };
    Ok(elements)
}

fn whole<T: Element>(bytes: &[u8]) -> Result<(), GpuError> {
    if bytes.len().is_multiple_of(size_of::<T>()) {
        return Ok(());
    }
    Err(GpuError::refused(format!(
        "{} bytes are no whole number of {} of {} bytes",
        bytes.len(),
        T::DTYPE.name(),
        T::DTYPE.size()
    )))
}

/// The index of the first element that is NaN or infinite; integers are always finite.
pub fn first_not_finite(dtype: Dtype, bytes: &[u8]) -> Option<usize> {
    // All exponent bits set is what NaN and the infinities have in common.
    fn first<const N: usize>(bytes: &[u8], infinite: impl Fn([u8; N]) -> bool) -> Option<usize> {
        bytes.as_chunks().0.iter().position(|&element| infinite(element))
    }
    match dtype {
        Dtype::F16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7C00 == 0x7C00),
        Dtype::Bf16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7F80 == 0x7F80),
        Dtype::F32 => first(bytes, |b| u32::from_le_bytes(b) & 0x7F80_0000 == 0x7F80_0000),
        Dtype::F64 => first(bytes, |b| u64::from_le_bytes(b) & 0x7FF0_0000_0000_0000 == 0x7FF0_0000_0000_0000),
        Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16 | Dtype::I32 | Dtype::U32 | Dtype::I64 | Dtype::U64 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_nan_and_infinities_are_not_finite() {
        let halves = [half::f16::MAX, half::f16::MIN_POSITIVE_SUBNORMAL, half::f16::NEG_INFINITY];
        assert_eq!(first_not_finite(Dtype::F16, bytes_of(&halves)), Some(2));
        assert_eq!(first_not_finite(Dtype::Bf16, bytes_of(&[half::bf16::MIN, half::bf16::NAN])), Some(1));
        assert_eq!(first_not_finite(Dtype::F32, bytes_of(&[f32::MAX, -0.0, f32::MIN_POSITIVE])), None);
        assert_eq!(first_not_finite(Dtype::F32, bytes_of(&[f32::NAN])), Some(0));
        assert_eq!(first_not_finite(Dtype::F64, bytes_of(&[1.0, f64::INFINITY, f64::NAN])), Some(1));
        assert_eq!(first_not_finite(Dtype::U32, bytes_of(&[u32::MAX])), None);
    }

    #[test]
    fn what_is_not_aligned_or_not_whole_is_refused() {
        let words = [1u32, 2, 3];
        let bytes = bytes_of(&words);
        assert_eq!(view::<u32>(bytes).unwrap(), words);
        assert!(view::<u32>(&bytes[..7]).is_err());
        assert!(view::<u32>(&bytes[1..9]).is_err());
        assert_eq!(read::<u32>(&bytes[4..]).unwrap(), [2, 3]);
        assert!(read::<u32>(&bytes[1..]).is_err());
    }

    proptest! {
        #[test]
        fn finite_is_what_rust_says(bits in prop::collection::vec(any::<u64>(), 0..20)) {
            let doubles: Vec<f64> = bits.iter().map(|&bits| f64::from_bits(bits)).collect();
            prop_assert_eq!(first_not_finite(Dtype::F64, bytes_of(&doubles)), doubles.iter().position(|x| !x.is_finite()));
            let singles: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits as u32)).collect();
            prop_assert_eq!(first_not_finite(Dtype::F32, bytes_of(&singles)), singles.iter().position(|x| !x.is_finite()));
            let halves: Vec<half::f16> = bits.iter().map(|&bits| half::f16::from_bits(bits as u16)).collect();
            prop_assert_eq!(first_not_finite(Dtype::F16, bytes_of(&halves)), halves.iter().position(|x| !x.is_finite()));
            let brains: Vec<half::bf16> = bits.iter().map(|&bits| half::bf16::from_bits(bits as u16)).collect();
            prop_assert_eq!(first_not_finite(Dtype::Bf16, bytes_of(&brains)), brains.iter().position(|x| !x.is_finite()));
        }

        #[test]
        fn bytes_are_read_back(values in prop::collection::vec(any::<i64>(), 0..20)) {
            prop_assert_eq!(read::<i64>(bytes_of(&values)).unwrap(), values);
        }
    }
}
