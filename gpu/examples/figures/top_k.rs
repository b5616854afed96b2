//! `gpu.top_k`: one query and many, over a matrix kept in f32 and in bf16.

use ergate_gpu::top_k::{Matrix, Metric, Search, Shape, TopK};
use ergate_gpu::{Backend, Dtype, GpuError, Slice};

use crate::{Sizes, Upload, buffer, data, median_ms};

const K: u32 = 10;

pub(crate) fn figures(backend: &mut dyn Backend, sizes: &Sizes) -> Result<(), GpuError> {
    let upload = Upload::new(backend)?;
    let bytes = u64::from(sizes.queries * sizes.dimension) * 4;
    let queries = buffer(backend, bytes)?;
    upload.fill(backend, queries, |index| data::component(index, 4).to_le_bytes())?;
    for kept in [Dtype::F32, Dtype::Bf16] {
        let mut kernels = TopK::default();
        let matrix = resident(backend, &mut kernels, &upload, sizes, kept)?;
        let one = Slice { bytes: u64::from(sizes.dimension) * 4, ..queries };
        for (count, queries, tile_bytes) in
            [(1, one, None), (sizes.queries, queries, None), (sizes.queries, queries, Some(12 << 20))]
        {
            kernels.tile_bytes = tile_bytes;
            figure(backend, &mut kernels, &matrix, &Search::new(count, K)?, queries, sizes)?;
        }
        matrix.release(backend)?;
        kernels.release(backend)?;
    }
    backend.free(queries.buffer)?;
    upload.release(backend)
}

/// The matrix, made resident a piece at a time.
fn resident(
    backend: &mut dyn Backend,
    kernels: &mut TopK,
    upload: &Upload,
    sizes: &Sizes,
    kept: Dtype,
) -> Result<Matrix, GpuError> {
    let matrix = Matrix::alloc(backend, Shape::new(sizes.matrix_rows, sizes.dimension, kept, Metric::Dot)?)?;
    let piece = sizes.matrix_rows.min(262_144);
    let row_bytes = u64::from(sizes.dimension) * 4;
    let source = buffer(backend, piece * row_bytes)?;
    let mut first = 0;
    while first < sizes.matrix_rows {
        let rows = piece.min(sizes.matrix_rows - first);
        let part = Slice { bytes: rows * row_bytes, ..source };
        let start = first * u64::from(sizes.dimension);
        upload.fill(backend, part, |index| data::component(start + index, 3).to_le_bytes())?;
        kernels.keep(backend, &matrix, first, part, Dtype::F32)?;
        backend.synchronize()?;
        first += rows;
    }
    backend.free(source.buffer)?;
    Ok(matrix)
}

fn figure(
    backend: &mut dyn Backend,
    kernels: &mut TopK,
    matrix: &Matrix,
    search: &Search,
    queries: Slice,
    sizes: &Sizes,
) -> Result<(), GpuError> {
    let ms = median_ms(backend, sizes.repeats, |backend| kernels.search(backend, matrix, search, queries).map(drop))?;
    let results = kernels.search(backend, matrix, search, queries)?;
    let found = kernels.read(backend, &results)?;
    println!(
        "{{\"figure\": \"top_k, {} queries, {}{}\", \"ms\": {ms}, \"rows\": {}, \"dimension\": {}, \"queries\": {}, \"kept\": {:?}, \
         \"found\": {:?}, \"scratch_bytes\": {}}}",
        search.queries,
        matrix.shape().kept.name(),
        kernels.tile_bytes.map_or(String::new(), |bytes| format!(", tiles of {} MiB", bytes >> 20)),
        sizes.matrix_rows,
        sizes.dimension,
        search.queries,
        matrix.shape().kept.name(),
        &found.rows[..(search.queries.min(4) * K) as usize],
        kernels.scratch_bytes(),
    );
    Ok(())
}
