// The k rows of a matrix that are most similar to a query, by dot product or cosine; best first, the lower row first among equals.
//
// Layout. matrix: [rows, pitch] f32 or bf16, row-major, resident. pitch is the dimension rounded up to whole 16 bytes, filled with
// zeros, and rows are filled up with rows of zeros to a multiple of 8, so that every row and every tile begins at 16 bytes.
// inverse_norms: [rows] f32, 1 / |row|, 0 for a row of zeros; made once when the matrix becomes resident.
//
// An entry is 64 bits: the score in an order that unsigned comparison keeps, then the complement of the row. The larger entry is the
// better one, whatever the order in which entries come, so results do not depend on geometry. 0 is no entry; NaN gives none.
//
// Cost. One query: `top_k_one` reads the matrix once and is bound by memory. Many: a matrix product of cuBLAS into a tile of scores that
// stays in L2, which `top_k_select` reads once; nearly all scores are turned away by one comparison in four.
//
// The plan writes before this text (top_k/source.rs):
//   TOP_K_PER_LANE      entries that a lane keeps: a warp keeps 32 times as many, at least k
//   TOP_K_BF16          1 when the matrix is kept in bf16, else 0
//   TOP_K_SOURCE_BF16   1 when it comes in bf16
//   TOP_K_COSINE        1 for cosine, else 0

// Blocks of `top_k_one` that a multiprocessor has registers for; the plan starts no more, so that all begin at once.
#define ONE_BLOCKS (TOP_K_PER_LANE > 2 ? 3 : 4)

#if TOP_K_BF16
typedef unsigned short kept_t;
typedef uint4 piece_t;
#define PIECE_VALUES 8
#else
typedef float kept_t;
typedef float4 piece_t;
#define PIECE_VALUES 4
#endif
#if TOP_K_SOURCE_BF16
typedef unsigned short source_t;
#else
typedef float source_t;
#endif

__device__ static inline float number(float value) { return value; }
__device__ static inline float number(unsigned short bf16) { return __uint_as_float((unsigned)bf16 << 16); }
// Rounds to the nearest, to even among two; NaN stays NaN.
__device__ static inline unsigned short to_bf16(float value) {
  unsigned b = __float_as_uint(value);
  if (value != value) return (unsigned short)(b >> 16 | 0x40u);
  return (unsigned short)((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
}
__device__ static inline void keep(float* at, float value) { *at = value; }
__device__ static inline void keep(unsigned short* at, float value) { *at = to_bf16(value); }

// The part of a dot product in one piece of 16 bytes. Two sums, so that neither waits for the other.
__device__ static inline void add_piece(float4 m, const float4* query, unsigned piece, float& a, float& b) {
  float4 q = query[piece];
  a = fmaf(m.x, q.x, a);
  b = fmaf(m.y, q.y, b);
  a = fmaf(m.z, q.z, a);
  b = fmaf(m.w, q.w, b);
}
__device__ static inline void add_piece(uint4 m, const float4* query, unsigned piece, float& a, float& b) {
  float4 q = query[2 * piece], p = query[2 * piece + 1];
  a = fmaf(__uint_as_float(m.x << 16), q.x, a);
  b = fmaf(__uint_as_float(m.x & 0xffff0000u), q.y, b);
  a = fmaf(__uint_as_float(m.y << 16), q.z, a);
  b = fmaf(__uint_as_float(m.y & 0xffff0000u), q.w, b);
  a = fmaf(__uint_as_float(m.z << 16), p.x, a);
  b = fmaf(__uint_as_float(m.z & 0xffff0000u), p.y, b);
  a = fmaf(__uint_as_float(m.w << 16), p.z, a);
  b = fmaf(__uint_as_float(m.w & 0xffff0000u), p.w, b);
}

// The score of `row` against a query in shared memory, in all 8 lanes that work on it; lane part takes every 8th piece. Always summed
// in the same order. Four loads are on their way before the first is used.
__device__ static inline float score_row(const kept_t* matrix, size_type row, unsigned pieces, const float4* query,
                                         const float* inverse_norms) {
  const piece_t* from = (const piece_t*)matrix + row * pieces;
  float a = 0.0f, b = 0.0f;
  unsigned piece = threadIdx.x & 7;
#if TOP_K_COSINE
  float inverse = inverse_norms[row];
#endif
  for (; piece + 24 < pieces; piece += 32) {
    piece_t m0 = __ldcs(from + piece), m1 = __ldcs(from + piece + 8), m2 = __ldcs(from + piece + 16), m3 = __ldcs(from + piece + 24);
    add_piece(m0, query, piece, a, b);
    add_piece(m1, query, piece + 8, a, b);
    add_piece(m2, query, piece + 16, a, b);
    add_piece(m3, query, piece + 24, a, b);
  }
  for (; piece < pieces; piece += 8) add_piece(__ldcs(from + piece), query, piece, a, b);
  float score = a + b;
  score += __shfl_xor_sync(ALL_LANES, score, 1);
  score += __shfl_xor_sync(ALL_LANES, score, 2);
  score += __shfl_xor_sync(ALL_LANES, score, 4);
#if TOP_K_COSINE
  score *= inverse;
#endif
  return score;
}

__device__ static inline void fetch_query(const float* query, unsigned pieces, float4* shared) {
  for (unsigned i = threadIdx.x; i < pieces * (PIECE_VALUES / 4); i += blockDim.x) shared[i] = ((const float4*)query)[i];
  __syncthreads();
}

// Keeps rows as they become resident, and their norms. source: [rows, dimension]; matrix: [rows, pitch]; a warp a row.
extern "C" __global__ void __launch_bounds__(256)
    top_k_load(const source_t* __restrict__ source, size_type rows, unsigned dimension, unsigned pitch, kept_t* matrix,
               float* inverse_norms) {
  unsigned lane = threadIdx.x & 31;
  size_type warps = (size_type)gridDim.x * WARPS;
  for (size_type row = (size_type)blockIdx.x * WARPS + (threadIdx.x >> 5); row < rows; row += warps) {
    double sum = 0.0;
    for (unsigned i = lane; i < pitch; i += 32) {
      kept_t kept;
      keep(&kept, i < dimension ? number(source[row * dimension + i]) : 0.0f);
      matrix[row * pitch + i] = kept;
      double value = (double)number(kept);
      sum += value * value;
    }
    for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, step);
    if (lane == 0) inverse_norms[row] = sum == 0.0 ? 0.0f : (float)(1.0 / sqrt(sum));
  }
}

// Makes queries ready: filled up to the pitch, and of length 1 for cosine; a query of zeros stays one. queries: [count, dimension] f32;
// ready: [count, pitch] f32; operand: the same in the matrix's type, for the matrix product. A warp a query.
extern "C" __global__ void __launch_bounds__(256)
    top_k_queries(const float* __restrict__ queries, unsigned count, unsigned dimension, unsigned pitch, float* ready, kept_t* operand) {
  unsigned lane = threadIdx.x & 31;
  size_type query = (size_type)blockIdx.x * WARPS + (threadIdx.x >> 5);
  if (query >= count) return;
  double factor = 1.0;
#if TOP_K_COSINE
  double sum = 0.0;
  for (unsigned i = lane; i < dimension; i += 32) {
    double value = (double)queries[query * dimension + i];
    sum += value * value;
  }
  for (int step = 16; step; step >>= 1) sum += __shfl_xor_sync(ALL_LANES, sum, step);
  factor = sum == 0.0 ? 0.0 : 1.0 / sqrt(sum);
#endif
  for (unsigned i = lane; i < pitch; i += 32) {
    float value = i < dimension ? (float)((double)queries[query * dimension + i] * factor) : 0.0f;
    ready[query * pitch + i] = value;
    keep(operand + query * pitch + i, value);
  }
}

// One query against all rows: four rows a warp at a time, 8 lanes a row. candidates: [blocks, k].
// Dynamic shared memory: the query, pitch * 4 bytes.
extern "C" __global__ void __launch_bounds__(256, ONE_BLOCKS)
    top_k_one(const kept_t* __restrict__ matrix, const float* __restrict__ inverse_norms, size_type rows, unsigned pieces,
              const float* __restrict__ query, unsigned k, entry_t* candidates) {
  DYNAMIC_SHARED(float4, shared_query);
  __shared__ entry_t lists[WARPS][LIST];
  // The best k-th entry of any warp of the block: what does not beat it is among nobody's k best.
  __shared__ entry_t bound;
  if (threadIdx.x == 0) bound = 0;
  fetch_query(query, pieces, shared_query);
  unsigned lane = threadIdx.x & 31;
  Best best;
  size_type stride = (size_type)gridDim.x * WARPS * 4;
  for (size_type base = ((size_type)blockIdx.x * WARPS + (threadIdx.x >> 5)) * 4; base < rows; base += stride) {
    size_type row = base + (lane >> 3);
    // Lanes past the end read the last row, for nothing, and stay with their warp.
    float score = score_row(matrix, row < rows ? row : rows - 1, pieces, shared_query, inverse_norms);
    entry_t entry = (lane & 7) == 0 && row < rows ? entry_of(score, row) : 0;
    if (!__any_sync(ALL_LANES, entry > best.last)) continue;
    entry_t known = lane == 0 ? atomicMax(&bound, best.last) : 0;
    best.offer(entry, __shfl_sync(ALL_LANES, known, 0), k);
  }
  join_block(best, lists, k);
  if (threadIdx.x < 32) write_list(best, candidates + (size_type)blockIdx.x * k, k);
}

// A tile of scores into the running lists. scores: [queries, tile_rows] f32, of the rows from first_row on; lists: [queries, runs, k],
// where a block keeps the list of its query (y) and its run (x) of run_rows columns from tile to tile; `first` when it has none yet.
// tile_rows and run_rows are multiples of 4; what is past `rows` fills up.
extern "C" __global__ void __launch_bounds__(256)
    top_k_select(const float* __restrict__ scores, size_type tile_rows, size_type first_row, size_type rows, unsigned run_rows,
                 const float* __restrict__ inverse_norms, unsigned k, unsigned first, entry_t* kept) {
  __shared__ entry_t lists[WARPS][LIST];
  entry_t* list = kept + ((size_type)blockIdx.y * gridDim.x + blockIdx.x) * k;
  const float* mine = scores + blockIdx.y * tile_rows;
  unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  entry_t bound = first ? 0 : list[k - 1];
  size_type from = (size_type)blockIdx.x * run_rows, to = from + run_rows < tile_rows ? from + run_rows : tile_rows;
  Best best;
  for (size_type base = from; base < to; base += 4 * 256 * 4) {
    float4 value[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      size_type at = base + (i * 256 + threadIdx.x) * 4;
      value[i] = make_float4(__uint_as_float(NO_SCORE), __uint_as_float(NO_SCORE), __uint_as_float(NO_SCORE), __uint_as_float(NO_SCORE));
      if (at < to) {
        // Kept in L2: the next tile is written over it, and lines that were put out before would go to memory for nothing.
        value[i] = __ldcg((const float4*)(mine + at));
#if TOP_K_COSINE
        // The tile fills up to whole tiles of 8 rows, of which those past the end have no norm.
        if (first_row + at + 3 < rows) {
          float4 inverse = *(const float4*)(inverse_norms + first_row + at);
          value[i].x *= inverse.x;
          value[i].y *= inverse.y;
          value[i].z *= inverse.z;
          value[i].w *= inverse.w;
        } else {
          if (first_row + at < rows) value[i].x *= inverse_norms[first_row + at];
          if (first_row + at + 1 < rows) value[i].y *= inverse_norms[first_row + at + 1];
          if (first_row + at + 2 < rows) value[i].z *= inverse_norms[first_row + at + 2];
        }
#endif
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      entry_t barrier = best.last > bound ? best.last : bound;
      // Without a k-th entry everything but NaN is welcome.
      float least = barrier ? score_of(barrier) : __uint_as_float(0xff800000u);
      float4 v = value[i];
      if (!__any_sync(ALL_LANES, fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w)) >= least)) continue;
      size_type row = first_row + base + (i * 256 + threadIdx.x) * 4;
      best.offer(row < rows ? entry_of(v.x, row) : 0, bound, k);
      best.offer(row + 1 < rows ? entry_of(v.y, row + 1) : 0, bound, k);
      best.offer(row + 2 < rows ? entry_of(v.z, row + 2) : 0, bound, k);
      best.offer(row + 3 < rows ? entry_of(v.w, row + 3) : 0, bound, k);
    }
  }
  if (!__syncthreads_or(best.changed) && !first) return;
  join_block(best, lists, k);
  if (warp != 0) return;
  if (!first) {
    for (unsigned i = 0; i < k; i += 32) best.offer(i + lane < k ? list[i + lane] : 0, 0, k);
  }
  write_list(best, list, k);
}

// The best `k` of every query's candidates. candidates: [queries, count]; merged: [queries, k]. A block a query.
extern "C" __global__ void __launch_bounds__(256)
    top_k_merge(const entry_t* __restrict__ candidates, size_type count, unsigned k, entry_t* merged) {
  __shared__ entry_t lists[WARPS][LIST];
  const entry_t* mine = candidates + blockIdx.x * count;
  Best best;
  for (size_type base = 0; base < count; base += 256) {
    size_type at = base + threadIdx.x;
    best.offer(at < count ? mine[at] : 0, 0, k);
  }
  join_block(best, lists, k);
  if (threadIdx.x < 32) write_list(best, merged + (size_type)blockIdx.x * k, k);
}

// Scores candidates again in f32: those of a matrix product are rounded to tf32 or bf16. entries: [queries, count], changed in place;
// queries: [queries, pitch] f32. A block a query. Dynamic shared memory: the query, pitch * 4 bytes.
extern "C" __global__ void __launch_bounds__(256)
    top_k_rescore(const kept_t* __restrict__ matrix, const float* __restrict__ inverse_norms, unsigned pieces,
                  const float* __restrict__ queries, unsigned count, entry_t* entries) {
  DYNAMIC_SHARED(float4, shared_query);
  fetch_query(queries + (size_type)blockIdx.x * pieces * PIECE_VALUES, pieces, shared_query);
  entry_t* mine = entries + (size_type)blockIdx.x * count;
  for (unsigned base = 0; base < count; base += WARPS * 4) {
    unsigned at = base + threadIdx.x / 8;
    entry_t entry = at < count ? mine[at] : 0;
    // Lanes without an entry score row 0, for nothing, and stay with their warp.
    float score = score_row(matrix, entry ? row_of(entry) : 0, pieces, shared_query, inverse_norms);
    if (entry && (threadIdx.x & 7) == 0) mine[at] = entry_of(score, row_of(entry));
  }
}

// Entries as arrays: rows: [count] i64, -1 for none; scores: [count] f32, NaN for none. A thread an entry.
extern "C" __global__ void __launch_bounds__(256)
    top_k_results(const entry_t* __restrict__ entries, size_type count, long long* rows, float* scores) {
  size_type i = (size_type)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  entry_t entry = entries[i];
  rows[i] = entry ? (long long)row_of(entry) : -1;
  scores[i] = entry ? score_of(entry) : __uint_as_float(NO_SCORE);
}
