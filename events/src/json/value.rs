//! Values as JSON has them: texts that may have escapes, bytes that may be no text.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};

/// A text, borrowed unless it has escapes.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Bytes: a text, or `{"hex": "…"}` where they are none.
#[derive(Debug)]
pub(super) struct Bytes<'a>(Cow<'a, [u8]>);

impl Bytes<'_> {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Bytes<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct NoText {
            hex: HexBytes,
        }
        let text = |Text(text): Text<'de>| match text {
            Cow::Borrowed(text) => Bytes(Cow::Borrowed(text.as_bytes())),
            Cow::Owned(text) => Bytes(Cow::Owned(text.into_bytes())),
        };
        text_or_object(from, "a text or {\"hex\": \"…\"}", text, |NoText { hex: HexBytes(bytes) }| Bytes(Cow::Owned(bytes)))
    }
}

/// Reads what may be a text or an object, without a copy in between.
pub(super) fn text_or_object<'de, D: Deserializer<'de>, O: Deserialize<'de>, T>(
    from: D,
    expected: &'static str,
    text: impl FnOnce(Text<'de>) -> T,
    object: impl FnOnce(O) -> T,
) -> Result<T, D::Error> {
    struct Either<A, B, O>(&'static str, A, B, PhantomData<O>);
    impl<'de, T, O: Deserialize<'de>, A: FnOnce(Text<'de>) -> T, B: FnOnce(O) -> T> Visitor<'de> for Either<A, B, O> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<T, E> {
            Ok(self.1(Text(Cow::Borrowed(text))))
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            Ok(self.1(Text(Cow::Owned(text.to_owned()))))
        }
        fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
            O::deserialize(de::value::MapAccessDeserializer::new(map)).map(self.2)
        }
    }
    from.deserialize_any(Either(expected, text, object, PhantomData))
}

/// Any bytes, as hexadecimal digits.
struct HexBytes(Vec<u8>);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = unhex(Text::deserialize(from)?.as_str()).map(HexBytes);
        bytes.ok_or_else(|| de::Error::custom("`hex` should be pairs of the digits 0 to 9, a to f"))
    }
}

/// So many bytes, as hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hex<const N: usize>(pub(super) [u8; N]);

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = unhex(Text::deserialize(from)?.as_str()).and_then(|bytes| bytes.try_into().ok()).map(Hex);
        bytes.ok_or_else(|| de::Error::custom(format_args!("it should be {} of the digits 0 to 9, a to f", 2 * N)))
    }
}

/// Lower-case digits only, so that one value has one form.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}
