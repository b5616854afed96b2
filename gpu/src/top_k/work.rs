//! `gpu.top_k` as a kind of work, and the bytes it takes and gives.
//!
//! A payload is one query or several, [queries, columns] f32: raw, little-endian, row-major. Its length tells how many. NaN and infinities are
//! refused, in queries and in the matrix.
//!
//! A result is the rows found, [queries, k] i64, best first and -1 for none, then their scores, [queries, k] f32 and NaN for none.
//!
//! With k = 2 and dot products, the query (1, 2) against the matrix of the rows (1, 0), (0, 1), (2, 2) is
//!
//! ```text
//! payload  00 00 80 3f  00 00 00 40
//! result   02 00 00 00 00 00 00 00  01 00 00 00 00 00 00 00     rows 2, 1
//!          00 00 c0 40  00 00 00 40                             scores 6, 2
//! ```
//!
//! The matrix is resident: it is filled before the first batch, from a file or from bytes, and stays until something else needs its memory.
//! Kinds of work that name the same matrix share it. What is filled must have the digest that was named, so a file that changed is told.
//!
//! All queries of a batch are one search. A score is the same whoever shares the batch; which rows are found among those whose scores differ
//! by less than twice [`super::product_error`] may not be, for a query that is alone on the device is searched for without a matrix product.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::data::{Data, MatrixSource};
use super::search::{self, On};
use super::{Found, Matrix, Metric, Search, Shape, Variant, program, refused, scratch_bytes_max, top_k};
use crate::array::{bytes_of, first_not_finite, read};
use crate::filling::Filling;
use crate::memory::aligned;
use crate::work::{Admitted, HostTwin, Layout, Next, Piece, Resident, Run, Work};
use crate::workspace::Workspace;
use crate::{DeviceInfo, Digest, Dtype, GpuError, Limits, Program};

/// What parts of scratch memory lose by alignment, at most.
const SCRATCH_MARGIN_BYTES: u64 = 4096;
const LOAD: [&str; 1] = ["top_k_load"];
const ONE: [&str; 4] = ["top_k_queries", "top_k_one", "top_k_merge", "top_k_results"];
const MANY: [&str; 5] = ["top_k_queries", "top_k_select", "top_k_merge", "top_k_rescore", "top_k_results"];

/// What is searched, and for what.
#[derive(Debug, Clone)]
pub struct TopKSettings {
    /// The matrix.
    pub matrix: MatrixSource,
    /// The digest that its bytes must have (BLAKE3, as `b3sum` prints it); without, all of it is read at once to know it.
    pub digest: Option<Digest>,
    /// Rows of the matrix.
    pub rows: u64,
    /// Values of a row, and of a query.
    pub columns: u32,
    /// The type of the matrix's values as they come: f32 or bf16.
    pub dtype: Dtype,
    /// The type as which they are kept on the device: f32 or bf16.
    pub kept: Dtype,
    /// What makes a row similar.
    pub metric: Metric,
    /// Rows found for each query.
    pub k: u32,
    /// The most queries of one payload.
    pub queries_max: u32,
    /// Bytes of scores at once, where not left to the device's cache.
    pub tile_bytes: Option<u64>,
}

/// A checked search.
#[derive(Debug)]
pub struct TopKWork {
    name: String,
    settings: TopKSettings,
    shape: Shape,
    data: Data,
    matrix_digest: Digest,
    resident: Resident,
    programs: BTreeMap<Variant, Digest>,
    digest: Digest,
    /// The matrix of the twin, once it was needed.
    host: Mutex<Option<Arc<Vec<f32>>>>,
}

impl TopKWork {
    /// Checks the settings, and reads the matrix where its digest is not given; `name` is what errors call it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn new(name: &str, settings: TopKSettings) -> Result<Self, GpuError> {
        let TopKSettings { rows, columns, dtype, kept, metric, .. } = settings;
        let shape = Shape::new(rows, columns, kept, metric)?;
        Search::new(settings.queries_max, settings.k)?;
        if !matches!(dtype, Dtype::F32 | Dtype::Bf16) {
            return Err(refused(format!("a matrix of {}; give f32 or bf16", dtype.name())));
        }
        let data = Data { source: settings.matrix.clone(), rows, columns, dtype };
        let matrix_digest = match settings.digest {
            Some(digest) => data.open().map(|_| digest)?,
            None => data.read(|_| ())?,
        };
        let form = format!("{rows} x {columns} {} kept in {} for {metric:?}", dtype.name(), kept.name());
        let resident =
            Resident { digest: Digest::of_parts([&matrix_digest.0[..], form.as_bytes()]), bytes: Matrix::bytes(&shape).max(1) };
        let variants = [Variant::load(&shape, dtype), one(&shape, settings.k), many(&shape, settings.k)];
        let programs: BTreeMap<Variant, Digest> =
            variants.into_iter().map(|variant| (variant, program(&variant).digest())).collect();
        let digest = Digest::of_parts(std::iter::once(&b"gpu.top_k"[..]).chain(programs.values().map(|digest| &digest.0[..])));
        let host = Mutex::new(None);
        Ok(Self { name: name.to_owned(), settings, shape, data, matrix_digest, resident, programs, digest, host })
    }

    /// The settings.
    pub fn settings(&self) -> &TopKSettings {
        &self.settings
    }

    /// The digest of the matrix's bytes.
    pub fn matrix_digest(&self) -> Digest {
        self.matrix_digest
    }

    /// How many queries a payload has.
    fn queries(&self, payload: &[u8]) -> Result<u32, GpuError> {
        let named = |why: String| refused(format!("payload of {}: {why}", self.name));
        let (columns, most) = (self.shape.dimension, self.settings.queries_max);
        let (bytes, query) = (payload.len(), columns as usize * 4);
        if !bytes.is_multiple_of(query) {
            return Err(named(format!(
                "{bytes} bytes are no whole number of queries of {columns} f32, which have {query} bytes"
            )));
        }
        let queries = u32::try_from(bytes / query).ok().filter(|queries| (1..=most).contains(queries));
        let queries = queries.ok_or_else(|| named(format!("{} queries; give 1 to {most}", bytes / query)))?;
        if let Some(index) = first_not_finite(Dtype::F32, payload) {
            let (query, value) = (index / columns as usize, index % columns as usize);
            return Err(named(format!("query {query}, value {value} (both from 0) is NaN or infinite, which it does not take")));
        }
        Ok(queries)
    }

    /// Where everything of so many queries lies in the region: scores, and the end; rows follow what is copied in.
    fn region(&self, queries: u64) -> Option<Places> {
        let k = u64::from(self.settings.k);
        let rows_at = aligned(queries * u64::from(self.shape.dimension) * 4)?;
        let scores_at = aligned(rows_at + queries * k * 8)?;
        Some(Places { rows_at, scores_at, end: scores_at + queries * k * 4 })
    }

    /// The matrix in f32 on the host; read once.
    fn host(&self) -> Result<Arc<Vec<f32>>, GpuError> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = &*host {
            return Ok(Arc::clone(matrix));
        }
        let mut matrix = Vec::with_capacity((self.shape.rows * u64::from(self.shape.dimension)) as usize);
        let found = self.data.read(|part| {
            if self.data.dtype == Dtype::Bf16 {
                matrix.extend(part.as_chunks().0.iter().map(|&value| half::bf16::from_le_bytes(value).to_f32()));
            } else {
                matrix.extend(part.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)));
            }
        })?;
        self.data.check(&self.matrix_digest, &found)?;
        Ok(Arc::clone(host.insert(Arc::new(matrix))))
    }
}

/// Offsets in the region of a batch.
struct Places {
    rows_at: u64,
    scores_at: u64,
    end: u64,
}

/// The variant for a batch of one query, and for one of several.
fn one(shape: &Shape, k: u32) -> Variant {
    Variant::search(shape, &Search { queries: 1, k })
}

fn many(shape: &Shape, k: u32) -> Variant {
    Variant::search(shape, &Search { queries: 2, k })
}

impl Work for TopKWork {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn admit(&self, payload: &[u8], _: &Limits) -> Result<Admitted, GpuError> {
        let queries = self.queries(payload)?;
        // Without the scores of a tile, of which a batch has one however many share it.
        let entries = u64::from(Search { queries: 2, k: self.settings.k }.kept()) * 8;
        let ready = u64::from(self.shape.pitch()) * (4 + self.shape.kept.size());
        let bytes = self.region(u64::from(queries)).map(|places| places.end + u64::from(queries) * (ready + 2 * entries));
        Ok(Admitted { class: 0, bytes: bytes.unwrap_or(u64::MAX), state: Arc::new(queries) })
    }

    fn programs(&self) -> Vec<(Program, String)> {
        let (shape, k) = (&self.shape, self.settings.k);
        let used = [(Variant::load(shape, self.data.dtype), &LOAD[..]), (one(shape, k), &ONE), (many(shape, k), &MANY)];
        let used: BTreeSet<(Variant, &str)> =
            used.iter().flat_map(|(variant, entries)| entries.iter().map(|entry| (*variant, *entry))).collect();
        used.into_iter().map(|(variant, entry)| (program(&variant), entry.to_owned())).collect()
    }

    fn resident(&self) -> Option<Resident> {
        Some(self.resident)
    }

    fn fill(&self, filling: &mut Filling<'_>) -> Result<(), GpuError> {
        let matrix = Matrix::over(self.shape, filling.memory)?;
        matrix.fill_up(filling.backend)?;
        let variant = Variant::load(&self.shape, self.data.dtype);
        let load = filling.kernel(&self.programs[&variant], LOAD[0])?;
        let rows_at_once = filling.bytes_max() / self.data.row_bytes();
        let mut reading = self.data.open()?;
        while let Some(bytes) = reading.next_bytes(rows_at_once) {
            let first = reading.row();
            let source = filling.send(bytes, |to| reading.next(to))?;
            search::keep(filling.backend, &|_, _| Ok(load), &matrix, first, source, self.data.dtype)?;
        }
        self.data.check(&self.matrix_digest, &reading.digest())
    }

    fn lay(&self, members: &[&Admitted], device: &DeviceInfo) -> Result<Layout, GpuError> {
        let queries: Option<Vec<u64>> =
            members.iter().map(|member| member.state.downcast_ref::<u32>().copied().map(u64::from)).collect();
        let queries =
            queries.ok_or_else(|| GpuError::failed(format!("{}: a member was admitted by another kind of work", self.name)))?;
        let all = u32::try_from(queries.iter().sum::<u64>()).unwrap_or(u32::MAX);
        let search = Search::new(all, self.settings.k)?;
        let places = self.region(u64::from(all));
        let places = places.ok_or_else(|| GpuError::failed(format!("a batch of {} does not fit 64 bits", self.name)))?;
        let scratch = scratch_bytes_max(&self.shape, &search, device, self.settings.tile_bytes);
        let mut layout = Layout {
            in_to: places.rows_at,
            out_from: places.rows_at,
            region_bytes: places.end,
            scratch_bytes: scratch + SCRATCH_MARGIN_BYTES,
            ..Layout::default()
        };
        let (query_bytes, k, mut first) = (u64::from(self.shape.dimension) * 4, u64::from(self.settings.k), 0);
        for (member, queries) in queries.into_iter().enumerate() {
            let rows = (queries * k * 8) as usize;
            let result = rows + (queries * k * 4) as usize;
            layout.inputs.push(Piece { member, bytes: 0..(queries * query_bytes) as usize, at: first * query_bytes });
            layout.outputs.push(Piece { member, bytes: 0..rows, at: places.rows_at + first * k * 8 });
            layout.outputs.push(Piece { member, bytes: rows..result, at: places.scores_at + first * k * 4 });
            layout.result_bytes.push(result);
            first += queries;
        }
        layout.state = Some(Box::new(search));
        Ok(layout)
    }

    fn enqueue(&self, run: &mut Run<'_>, layout: &mut Layout, _: &[u8]) -> Result<Next, GpuError> {
        let search = layout.state.as_ref().and_then(|state| state.downcast_ref::<Search>());
        let (Some(search), Some(memory), Some(scratch)) = (search, run.resident, run.scratch) else {
            return Err(GpuError::failed(format!("{}: a batch without what was laid out for it", self.name)));
        };
        let places = self.region(u64::from(search.queries));
        let Places { rows_at, scores_at, .. } =
            places.ok_or_else(|| GpuError::failed(format!("a batch of {} does not fit 64 bits", self.name)))?;
        let count = u64::from(search.queries) * u64::from(self.settings.k);
        let queries = run.part(0, u64::from(search.queries) * u64::from(self.shape.dimension) * 4);
        let found = (run.part(rows_at, count * 8), run.part(scores_at, count * 4));
        let modules = run.modules;
        let kernel = |variant: &Variant, entry: &str| modules.kernel(&self.programs[variant], entry);
        let matrix = Matrix::over(self.shape, memory)?;
        let mut workspace = Workspace::within(scratch);
        let tile_bytes = self.settings.tile_bytes;
        let mut on = On { backend: &mut *run.backend, kernel: &kernel, workspace: &mut workspace, tile_bytes };
        on.search(&matrix, search, queries, found)?;
        Ok(Next::Done)
    }
}

impl HostTwin for TopKWork {
    /// The first call reads the matrix into memory, as f32.
    fn twin(&self, payload: &[u8]) -> Result<Vec<u8>, GpuError> {
        let search = Search::new(self.queries(payload)?, self.settings.k)?;
        Ok(top_k(&self.shape, &search, &self.host()?, &read(payload)?)?.to_bytes())
    }
}

impl Found {
    /// What was found as raw bytes: the rows, then the scores.
    pub fn to_bytes(&self) -> Vec<u8> {
        [bytes_of(&self.rows), bytes_of(&self.scores)].concat()
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
pub(crate) mod tests;
