//! Searches over any backend, with memory of their own.

use std::collections::BTreeMap;

use super::search::{On, keep};
use super::{ENTRIES, Found, Matrix, Search, Variant, program};
use crate::workspace::Workspace;
use crate::{Backend, Dtype, GpuError, Kernel, Module, Slice};

/// What a search found, on the device, valid until the next search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Results {
    /// What was searched for.
    pub search: Search,
    /// Rows: [queries, k] i64, -1 for none.
    pub rows: Slice,
    /// Scores: [queries, k] f32, NaN for none.
    pub scores: Slice,
}

struct Loaded {
    module: Module,
    kernels: BTreeMap<&'static str, Kernel>,
}

/// The kernels of searches on a device, with scratch memory that is kept from search to search.
#[derive(Default)]
pub struct TopK {
    variants: BTreeMap<Variant, Loaded>,
    workspace: Workspace,
    /// Bytes of scores at once, where not left to the device's cache.
    pub tile_bytes: Option<u64>,
}

impl TopK {
    /// Bytes on the device that it keeps between searches.
    pub fn scratch_bytes(&self) -> u64 {
        self.workspace.bytes()
    }

    /// Compiles and loads what a search needs; a search does so itself where it was not done.
    ///
    /// # Errors
    ///
    /// What the compiler or the driver said.
    pub fn prepare(&mut self, backend: &mut dyn Backend, variant: Variant) -> Result<(), GpuError> {
        if self.variants.contains_key(&variant) {
            return Ok(());
        }
        let module = backend.load(&program(&variant))?;
        let mut kernels = BTreeMap::new();
        for entry in ENTRIES {
            kernels.insert(entry, backend.kernel(module, entry)?);
        }
        self.variants.insert(variant, Loaded { module, kernels });
        Ok(())
    }

    /// Queues the keeping of rows that have come. source: [rows, dimension] of type `dtype` (f32 or bf16), row-major: rows `first` on.
    ///
    /// # Errors
    ///
    /// When the rows do not fit the matrix, or the type is another.
    pub fn keep(
        &mut self,
        backend: &mut dyn Backend,
        matrix: &Matrix,
        first: u64,
        source: Slice,
        dtype: Dtype,
    ) -> Result<(), GpuError> {
        if matches!(dtype, Dtype::F32 | Dtype::Bf16) {
            self.prepare(backend, Variant::load(&matrix.shape, dtype))?;
        }
        keep(backend, &loaded(&self.variants), matrix, first, source, dtype)
    }

    /// Queues a search. queries: [queries, dimension] f32.
    ///
    /// # Errors
    ///
    /// When the queries do not fit the matrix, or memory does not suffice.
    pub fn search(
        &mut self,
        backend: &mut dyn Backend,
        matrix: &Matrix,
        search: &Search,
        queries: Slice,
    ) -> Result<Results, GpuError> {
        self.prepare(backend, Variant::search(&matrix.shape, search))?;
        let count = u64::from(search.queries) * u64::from(search.k);
        let rows = self.workspace.part(backend, "rows", count * 8)?;
        let scores = self.workspace.part(backend, "result_scores", count * 4)?;
        let kernel = loaded(&self.variants);
        let mut on = On { backend, kernel: &kernel, workspace: &mut self.workspace, tile_bytes: self.tile_bytes };
        on.search(matrix, search, queries, (rows, scores))?;
        Ok(Results { search: *search, rows, scores })
    }

    /// Waits for a search and copies what it found to the host.
    ///
    /// # Errors
    ///
    /// What the work met.
    pub fn read(&mut self, backend: &mut dyn Backend, results: &Results) -> Result<Found, GpuError> {
        let rows = self.workspace.read(backend, results.rows)?;
        let scores = self.workspace.read(backend, results.scores)?;
        Ok(Found {
            rows: rows.as_chunks().0.iter().map(|&row| i64::from_le_bytes(row)).collect(),
            scores: scores.as_chunks().0.iter().map(|&score| f32::from_le_bytes(score)).collect(),
        })
    }

    /// Gives memory and kernels back.
    ///
    /// # Errors
    ///
    /// What earlier work met.
    pub fn release(mut self, backend: &mut dyn Backend) -> Result<(), GpuError> {
        self.workspace.release(backend)?;
        self.variants.into_values().try_for_each(|loaded| backend.unload(loaded.module))
    }
}

/// The kernels of variants that were prepared.
fn loaded(variants: &BTreeMap<Variant, Loaded>) -> impl Fn(&Variant, &str) -> Result<Kernel, GpuError> + '_ {
    |variant, entry| {
        let kernel = variants.get(variant).and_then(|loaded| loaded.kernels.get(entry)).copied();
        kernel.ok_or_else(|| GpuError::failed(format!("kernel {entry} was not prepared for {variant:?}")))
    }
}
