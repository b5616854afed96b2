// Entries of gpu.top_k, and the lists in which warps keep their best. Stands before top_k.cu when that is compiled, which says what an
// entry is.

// The emulation of the tests has its own; not every variant uses every function.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#pragma nv_diag_suppress 177
#endif

typedef unsigned long long entry_t;
typedef unsigned long long size_type;

#define WARPS 8
#define ALL_LANES 0xffffffffu
#define LIST (32 * TOP_K_PER_LANE)
#define NO_SCORE 0x7fc00000u

__device__ static inline entry_t entry_of(float score, size_type row) {
  if (score != score) return 0;
  // -0.0 and 0.0 are equal, and the row decides.
  unsigned b = __float_as_uint(score + 0.0f);
  unsigned order = b >> 31 ? ~b : b | 0x80000000u;
  return (entry_t)order << 32 | (entry_t)(0xffffffffu - (unsigned)row);
}
__device__ static inline float score_of(entry_t entry) {
  unsigned order = (unsigned)(entry >> 32);
  return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}
__device__ static inline size_type row_of(entry_t entry) { return 0xffffffffu - (unsigned)entry; }

// The best entries that a warp has seen, best first: entry i is in register i / 32 of lane i % 32. All 32 lanes call together.
struct Best {
  entry_t at[TOP_K_PER_LANE];
  // The entry that a new one must beat: the k-th.
  entry_t last;
  bool changed;

  __device__ Best() : last(0), changed(false) {
#pragma unroll
    for (int r = 0; r < TOP_K_PER_LANE; ++r) at[r] = 0;
  }

  __device__ void insert(entry_t entry, unsigned k) {
    unsigned lane = threadIdx.x & 31;
#pragma unroll
    for (int r = TOP_K_PER_LANE - 1; r >= 0; --r) {
      entry_t before = __shfl_up_sync(ALL_LANES, at[r], 1);
      entry_t carried = r ? __shfl_sync(ALL_LANES, at[r ? r - 1 : 0], 31) : ~0ULL;
      if (lane == 0) before = carried;
      if (at[r] < entry) at[r] = before < entry ? before : entry;
    }
    last = __shfl_sync(ALL_LANES, at[TOP_K_PER_LANE - 1], (int)((k - 1) & 31));
    changed = true;
  }

  // Takes what is better than the k-th and than `bound` among the entries that the lanes offer, 0 for none.
  __device__ void offer(entry_t entry, entry_t bound, unsigned k) {
    unsigned open = __ballot_sync(ALL_LANES, entry > last && entry > bound);
    while (open) {
      entry_t one = __shfl_sync(ALL_LANES, entry, __ffs((int)open) - 1);
      open &= open - 1;
      if (one > last) insert(one, k);
    }
  }
};

// Joins the lists of all warps of the block in the first warp. `lists`: [WARPS, LIST] in shared memory.
__device__ static inline void join_block(Best& best, entry_t (*lists)[LIST], unsigned k) {
  unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
#pragma unroll
  for (int r = 0; r < TOP_K_PER_LANE; ++r) lists[warp][r * 32 + lane] = best.at[r];
  __syncthreads();
  if (warp != 0) return;
  for (int w = 1; w < WARPS; ++w) {
#pragma unroll
    for (int r = 0; r < TOP_K_PER_LANE; ++r) best.offer(lists[w][r * 32 + lane], 0, k);
  }
}

// The first k entries of a warp's list to memory.
__device__ static inline void write_list(const Best& best, entry_t* to, unsigned k) {
  unsigned lane = threadIdx.x & 31;
#pragma unroll
  for (int r = 0; r < TOP_K_PER_LANE; ++r) {
    unsigned i = r * 32 + lane;
    if (i < k) to[i] = best.at[r];
  }
}
