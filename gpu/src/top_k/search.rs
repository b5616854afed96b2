//! The launches of a search and of making a matrix resident. Nothing here waits.

use super::{Matrix, Search, Shape, Tiles, Variant, refused};
use crate::backend::GemmKind;
use crate::workspace::{Workspace, within};
use crate::{Arg, Backend, DeviceInfo, Dtype, Gemm, GpuError, Kernel, Launch, Scalar, Slice, Stream};

/// Threads of a block.
const BLOCK: u32 = 256;
/// Rows that a block loads at once: a warp each.
const WARPS: u64 = 8;
/// Rows that a block scores at once: four a warp.
const ROWS_AT_ONCE: u64 = 32;

/// The most memory on `device`, in bytes, that a search takes beside the matrix and the queries: what is to be reserved before it is run.
/// `tile_bytes` as in [`TopKSettings`](super::TopKSettings).
pub fn scratch_bytes_max(shape: &Shape, search: &Search, device: &DeviceInfo, tile_bytes: Option<u64>) -> u64 {
    let (queries, k, kept) = (u64::from(search.queries), u64::from(search.k), u64::from(search.kept()));
    let ready = queries * u64::from(shape.pitch()) * (4 + shape.kept.size());
    let found = queries * k * (8 + 8 + 4);
    if shape.rows == 0 {
        return found;
    }
    if search.queries == 1 {
        let most = u64::from(device.multiprocessors.max(1) * blocks_each(search.k.div_ceil(32)));
        let blocks = shape.rows.div_ceil(ROWS_AT_ONCE).min(most);
        return ready + found + blocks * k * 8;
    }
    let tiles = Tiles::of(shape, search, device.l2_bytes, tile_bytes);
    ready + found + queries * (tiles.tile_rows * 4 + (u64::from(tiles.runs) + 1) * kept * 8)
}

/// Blocks of `top_k_one` that a multiprocessor runs at once, as in the kernel: its registers allow so many.
fn blocks_each(per_lane: u32) -> u32 {
    if per_lane > 2 { 3 } else { 4 }
}

/// Where launches go, and the memory that they use.
pub(super) struct On<'a> {
    pub(super) backend: &'a mut dyn Backend,
    pub(super) kernel: &'a dyn Fn(&Variant, &str) -> Result<Kernel, GpuError>,
    pub(super) workspace: &'a mut Workspace,
    pub(super) tile_bytes: Option<u64>,
}

/// Memory for what a search finds: rows, [queries, k] i64, and scores, [queries, k] f32.
pub(super) type Places = (Slice, Slice);

/// Queues the keeping of rows that have come to `source`, [rows, dimension] of type `dtype`, as rows `first` on of the matrix.
pub(super) fn keep(
    backend: &mut dyn Backend,
    kernel: &dyn Fn(&Variant, &str) -> Result<Kernel, GpuError>,
    matrix: &Matrix,
    first: u64,
    source: Slice,
    dtype: Dtype,
) -> Result<(), GpuError> {
    let shape = &matrix.shape;
    if !matches!(dtype, Dtype::F32 | Dtype::Bf16) {
        return Err(refused(format!("rows of {}; give f32 or bf16", dtype.name())));
    }
    let row_bytes = u64::from(shape.dimension) * dtype.size();
    let rows = source.bytes / row_bytes;
    if !source.bytes.is_multiple_of(row_bytes) || first.checked_add(rows).is_none_or(|past| past > shape.rows) {
        return Err(refused(format!(
            "{} bytes from row {first} on; a row has {row_bytes} bytes and the matrix {} rows",
            source.bytes, shape.rows
        )));
    }
    if rows == 0 {
        return Ok(());
    }
    let kernel = kernel(&Variant::load(shape, dtype), "top_k_load")?;
    let pitch_bytes = u64::from(shape.pitch()) * shape.kept.size();
    let values = within(matrix.values, first * pitch_bytes, rows * pitch_bytes);
    let norms = within(matrix.inverse_norms, first * 4, rows * 4);
    let most = u64::from(backend.device().multiprocessors.max(1) * 8);
    let launch = Launch::linear(rows.div_ceil(WARPS).min(most) * u64::from(BLOCK), BLOCK)?;
    let args = [
        Arg::Slice(source),
        u64_arg(rows),
        u32_arg(shape.dimension),
        u32_arg(shape.pitch()),
        Arg::Slice(values),
        Arg::Slice(norms),
    ];
    backend.launch(Stream::Compute, kernel, &launch, &args)
}

impl On<'_> {
    /// Queues a search. queries: [queries, dimension] f32.
    pub(super) fn search(
        &mut self,
        matrix: &Matrix,
        search: &Search,
        queries: Slice,
        (rows, scores): Places,
    ) -> Result<(), GpuError> {
        let shape = &matrix.shape;
        let wanted = u64::from(search.queries) * u64::from(shape.dimension) * 4;
        if queries.bytes != wanted || !queries.offset.is_multiple_of(4) {
            return Err(refused(format!(
                "queries of {} bytes at {}; {} of {} values have {wanted}, aligned to 4",
                queries.bytes, queries.offset, search.queries, shape.dimension
            )));
        }
        let variant = Variant::search(shape, search);
        let count = u64::from(search.queries) * u64::from(search.k);
        let entries = self.part("entries", count * 8)?;
        if shape.rows == 0 {
            self.backend.fill(Stream::Compute, entries, 0)?;
        } else {
            let (ready, operand) = self.ready(matrix, search, variant, queries)?;
            if search.queries == 1 {
                self.one(matrix, search, variant, ready, entries)?;
            } else {
                self.many(matrix, search, variant, [ready, operand, entries])?;
            }
        }
        let args = [Arg::Slice(entries), u64_arg(count), Arg::Slice(rows), Arg::Slice(scores)];
        self.launch(variant, "top_k_results", Launch::linear(count, BLOCK)?, &args)
    }

    /// Queries filled up to the pitch, in f32 and in the matrix's type.
    fn ready(&mut self, matrix: &Matrix, search: &Search, variant: Variant, queries: Slice) -> Result<(Slice, Slice), GpuError> {
        let shape = &matrix.shape;
        let count = u64::from(search.queries);
        let values = count * u64::from(shape.pitch());
        let ready = self.part("ready", values * 4)?;
        let operand = self.part("operand", values * shape.kept.size())?;
        let launch = Launch::linear(count * 32, BLOCK)?;
        let args = [
            Arg::Slice(queries),
            u32_arg(search.queries),
            u32_arg(shape.dimension),
            u32_arg(shape.pitch()),
            Arg::Slice(ready),
            Arg::Slice(operand),
        ];
        self.launch(variant, "top_k_queries", launch, &args)?;
        Ok((ready, operand))
    }

    fn one(&mut self, matrix: &Matrix, search: &Search, variant: Variant, query: Slice, entries: Slice) -> Result<(), GpuError> {
        let shape = &matrix.shape;
        let most = u64::from(self.backend.device().multiprocessors.max(1) * blocks_each(variant.per_lane));
        let blocks = shape.rows.div_ceil(ROWS_AT_ONCE).min(most);
        let candidates = self.part("candidates", blocks * u64::from(search.k) * 8)?;
        let launch = Launch::linear(blocks * u64::from(BLOCK), BLOCK)?.shared(shape.pitch() * 4);
        let args = [
            Arg::Slice(matrix.values),
            Arg::Slice(matrix.inverse_norms),
            u64_arg(shape.rows),
            u32_arg(shape.pieces()),
            Arg::Slice(query),
            u32_arg(search.k),
            Arg::Slice(candidates),
        ];
        self.launch(variant, "top_k_one", launch, &args)?;
        self.merge(variant, [candidates, entries], 1, blocks * u64::from(search.k), search.k)
    }

    fn many(
        &mut self,
        matrix: &Matrix,
        search: &Search,
        variant: Variant,
        [ready, operand, entries]: [Slice; 3],
    ) -> Result<(), GpuError> {
        let shape = &matrix.shape;
        let tiles = Tiles::of(shape, search, self.backend.device().l2_bytes, self.tile_bytes);
        let (queries, kept) = (u64::from(search.queries), search.kept());
        let scores = self.part("scores", queries * tiles.tile_rows * 4)?;
        let lists = self.part("lists", queries * u64::from(tiles.runs) * u64::from(kept) * 8)?;
        let select = Launch { grid: [tiles.runs, search.queries, 1], block: [BLOCK, 1, 1], shared_bytes: 0 };
        let row_bytes = u64::from(shape.pitch()) * shape.kept.size();
        for tile in tiles.each() {
            let tile_scores = within(scores, 0, queries * tile.rows * 4);
            self.backend.gemm(
                Stream::Compute,
                &Gemm {
                    a: operand,
                    b: within(matrix.values, tile.first * row_bytes, tile.rows * row_bytes),
                    c: tile_scores,
                    m: search.queries,
                    n: tile.rows as u32,
                    k: shape.pitch(),
                    transpose_a: false,
                    transpose_b: true,
                    kind: if shape.kept == Dtype::Bf16 { GemmKind::Bf16 } else { GemmKind::Tf32 },
                    alpha: 1.0,
                    beta: 0.0,
                },
            )?;
            let args = [
                Arg::Slice(tile_scores),
                u64_arg(tile.rows),
                u64_arg(tile.first),
                u64_arg(shape.rows),
                u32_arg(tiles.run_rows),
                Arg::Slice(matrix.inverse_norms),
                u32_arg(kept),
                u32_arg(u32::from(tile.first == 0)),
                Arg::Slice(lists),
            ];
            self.launch(variant, "top_k_select", select, &args)?;
        }
        let best = self.part("best", queries * u64::from(kept) * 8)?;
        self.merge(variant, [lists, best], search.queries, u64::from(tiles.runs) * u64::from(kept), kept)?;
        let launch = Launch { grid: [search.queries, 1, 1], block: [BLOCK, 1, 1], shared_bytes: shape.pitch() * 4 };
        let args = [
            Arg::Slice(matrix.values),
            Arg::Slice(matrix.inverse_norms),
            u32_arg(shape.pieces()),
            Arg::Slice(ready),
            u32_arg(kept),
            Arg::Slice(best),
        ];
        self.launch(variant, "top_k_rescore", launch, &args)?;
        self.merge(variant, [best, entries], search.queries, u64::from(kept), search.k)
    }

    fn merge(&mut self, variant: Variant, [from, to]: [Slice; 2], queries: u32, count: u64, k: u32) -> Result<(), GpuError> {
        let launch = Launch { grid: [queries, 1, 1], block: [BLOCK, 1, 1], shared_bytes: 0 };
        self.launch(variant, "top_k_merge", launch, &[Arg::Slice(from), u64_arg(count), u32_arg(k), Arg::Slice(to)])
    }

    fn launch(&mut self, variant: Variant, entry: &str, launch: Launch, args: &[Arg]) -> Result<(), GpuError> {
        let kernel = (self.kernel)(&variant, entry)?;
        self.backend.launch(Stream::Compute, kernel, &launch, args)
    }

    fn part(&mut self, name: &'static str, bytes: u64) -> Result<Slice, GpuError> {
        self.workspace.part(self.backend, name, bytes)
    }
}

fn u64_arg(value: u64) -> Arg {
    Arg::Scalar(Scalar::U64(value))
}

fn u32_arg(value: u32) -> Arg {
    Arg::Scalar(Scalar::U32(value))
}
