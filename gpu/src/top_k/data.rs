//! Where a matrix comes from, and that it is the one that was named: every reading of it is checked.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::refused;
use crate::array::first_not_finite;
use crate::work::Payload;
use crate::{Digest, Dtype, GpuError};

/// Bytes that are looked at at once where nothing else says how many.
const PART_BYTES: u64 = 1 << 20;

/// The bytes of a matrix: [rows, columns], row-major, little-endian, without anything else.
#[derive(Clone)]
pub enum MatrixSource {
    /// A file, which is read whenever the matrix must be filled: it stays where it is.
    File(PathBuf),
    /// Bytes that are kept.
    Bytes(Payload),
}

impl fmt::Debug for MatrixSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(bytes) => write!(f, "{} bytes", (**bytes).as_ref().len()),
        }
    }
}

/// What is known of a matrix's bytes.
#[derive(Debug, Clone)]
pub(super) struct Data {
    pub(super) source: MatrixSource,
    pub(super) rows: u64,
    pub(super) columns: u32,
    pub(super) dtype: Dtype,
}

/// A matrix being read, from its first row on.
pub(super) struct Reading<'a> {
    data: &'a Data,
    from: From<'a>,
    hasher: blake3::Hasher,
    row: u64,
}

enum From<'a> {
    File(File),
    Bytes(&'a [u8]),
}

impl Data {
    pub(super) fn row_bytes(&self) -> u64 {
        u64::from(self.columns) * self.dtype.size()
    }

    /// Opens it; its length is right.
    pub(super) fn open(&self) -> Result<Reading<'_>, GpuError> {
        let (from, bytes) = match &self.source {
            MatrixSource::File(path) => {
                let failed =
                    |error| refused(format!("matrix {}: {error}; name a file that this process may read", path.display()));
                let file = File::open(path).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                (From::File(file), bytes)
            }
            MatrixSource::Bytes(bytes) => {
                let bytes = (**bytes).as_ref();
                (From::Bytes(bytes), bytes.len() as u64)
            }
        };
        // Rows of 31 bits and columns of 14 fit 64 bits as bytes.
        let wanted = self.rows * self.row_bytes();
        if bytes != wanted {
            let (rows, columns, dtype) = (self.rows, self.columns, self.dtype.name());
            return Err(refused(format!(
                "matrix {:?} has {bytes} bytes; {rows} rows of {columns} {dtype} have {wanted}",
                self.source
            )));
        }
        Ok(Reading { data: self, from, hasher: blake3::Hasher::new(), row: 0 })
    }

    /// Reads all of it, a part after the other; its digest.
    pub(super) fn read(&self, mut each: impl FnMut(&[u8])) -> Result<Digest, GpuError> {
        let mut reading = self.open()?;
        let rows = (PART_BYTES / self.row_bytes()).max(1);
        let mut part = vec![0; (rows.min(self.rows) * self.row_bytes()) as usize];
        while let Some(bytes) = reading.next_bytes(rows) {
            let part = &mut part[..bytes as usize];
            reading.next(part)?;
            each(part);
        }
        Ok(reading.digest())
    }

    /// Says what was read instead of what was named, if anything.
    pub(super) fn check(&self, named: &Digest, found: &Digest) -> Result<(), GpuError> {
        if named == found {
            return Ok(());
        }
        Err(refused(format!(
            "matrix {:?} has the digest {found} where {named} was named; give each matrix a file of its own that nobody writes to",
            self.source
        )))
    }
}

impl Reading<'_> {
    /// The row that comes next.
    pub(super) fn row(&self) -> u64 {
        self.row
    }

    /// The size in bytes of the next rows, at most so many; none at the end.
    pub(super) fn next_bytes(&self, rows_max: u64) -> Option<u64> {
        let rows = rows_max.min(self.data.rows - self.row);
        (rows > 0).then(|| rows * self.data.row_bytes())
    }

    /// Reads the next rows, and refuses NaN and infinities among them.
    pub(super) fn next(&mut self, to: &mut [u8]) -> Result<(), GpuError> {
        let data = self.data;
        match &mut self.from {
            From::File(file) => file.read_exact(to).map_err(|error| {
                refused(format!(
                    "matrix {:?} from row {} on: {error}; it must not change while it is used",
                    data.source, self.row
                ))
            })?,
            From::Bytes(bytes) => {
                let (mine, rest) = bytes.split_at(to.len());
                to.copy_from_slice(mine);
                *bytes = rest;
            }
        }
        if let Some(index) = first_not_finite(data.dtype, to) {
            let (row, column) = (self.row + index as u64 / u64::from(data.columns), index as u64 % u64::from(data.columns));
            return Err(refused(format!(
                "matrix {:?}: row {row}, column {column} (both from 0) is NaN or infinite; leave such rows out",
                data.source
            )));
        }
        self.hasher.update(to);
        self.row += to.len() as u64 / data.row_bytes();
        Ok(())
    }

    /// The digest of what was read.
    pub(super) fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}
