//! Names for contents: what is equal has the same, what differs has another.

use std::fmt;

use crate::Program;

/// A BLAKE3 hash, printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of several parts; their borders count.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = crate::GpuError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Option<Vec<u8>> = text.bytes().map(|digit| char::from(digit).to_digit(16).map(|digit| digit as u8)).collect();
        let bytes: Option<[u8; 32]> = digits.filter(|digits| digits.len() == 64).and_then(|digits| {
            let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
            bytes.try_into().ok()
        });
        bytes.map(Self).ok_or_else(|| crate::GpuError::refused(format!("`{text}` is no digest: 64 hexadecimal digits")))
    }
}

impl Program {
    /// The digest of source and options: who the program is, whatever it is compiled for. Its name does not count.
    pub fn digest(&self) -> Digest {
        Digest::of_parts(std::iter::once(self.source.as_bytes()).chain(self.options.iter().map(String::as_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_count_and_text_is_read_back() {
        let digest = Digest::of_parts([&b"ab"[..], b"c"]);
        assert_ne!(digest, Digest::of_parts([&b"a"[..], b"bc"]));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "ab", &"g".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
