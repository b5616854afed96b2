// From the table of aggregate.cu to columns: which slots have a group, in the order of the keys, and their words made values.
//
// Layout. The slots are looked at in runs of LIST_SLOTS, dense slots first (their last run may be short), then hashed slots with the
// slot of the empty key; a block a run. The list has an entry (key in unsigned order, slot) for every group: those of dense slots come
// out sorted, those of hashed slots are sorted as a bitonic network over a power of two of entries, the rest filled with ones.
//
// Cost. Two reads of the table and one of its words: in L2 for a million groups. The network makes log2(n) * (log2(n) + 1) / 2 steps,
// those within SORT_BLOCK entries in shared memory; a dense table needs none.

// Slots that a block of 256 threads looks at.
#define LIST_SLOTS 2048
#define LIST_PER_THREAD (LIST_SLOTS / 256)
// Entries that a block of 1,024 threads sorts in shared memory.
#define SORT_BLOCK 2048

// Indices into `status`; those below 2 are those of aggregate.cu.
#define STATUS_SEEN_EMPTY_KEY 1
#define STATUS_DENSE_GROUPS 2    // groups in dense slots
#define STATUS_GROUPS 3          // all groups
#define STATUS_OVERFLOW 4        // not 0: an integer sum left 64 bits
#define STATUS_OVERFLOW_KEY 5    // the key of one such group
#define STATUS_OVERFLOW_OUTPUT 6 // and the output column

// The slots of this block's run: from `first` to before `past`.
struct Run {
  word_t first, past;
  __device__ Run(word_t span, word_t capacity) {
    word_t dense_runs = (span + LIST_SLOTS - 1) / LIST_SLOTS;
    bool dense = blockIdx.x < dense_runs;
    first = dense ? (word_t)blockIdx.x * LIST_SLOTS : span + (blockIdx.x - dense_runs) * LIST_SLOTS;
    word_t end = dense ? span : span + capacity + 1;
    past = first + LIST_SLOTS < end ? first + LIST_SLOTS : end;
  }
};

__device__ static inline bool has_group(word_t slot, const word_t* accumulators, const word_t* table, word_t span, word_t capacity,
                                        const word_t* status) {
  if (slot < span) return accumulators[slot * AGGREGATE_WORDS + AGGREGATE_MARK] != AGGREGATE_MARK_EMPTY;
  if (slot < span + capacity) return table[slot - span] != EMPTY_KEY;
  return status[STATUS_SEEN_EMPTY_KEY] != 0;
}

// The sum of `mine` over the threads before this one, and over all of the block in `total`. Blocks of whole warps.
__device__ static inline unsigned before(unsigned mine, unsigned* total) {
  __shared__ unsigned sums[33];
  unsigned lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  unsigned running = mine;
  for (unsigned step = 1; step < 32; step <<= 1) {
    unsigned other = __shfl_up_sync(0xffffffffu, running, step);
    if (lane >= step) running += other;
  }
  if (lane == 31) sums[warp] = running;
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned sum = 0;
    for (unsigned w = 0; w < warps; ++w) {
      unsigned one = sums[w];
      sums[w] = sum;
      sum += one;
    }
    sums[32] = sum;
  }
  __syncthreads();
  *total = sums[32];
  unsigned result = sums[warp] + running - mine;
  // Nobody writes the sums of the next call before all have read these.
  __syncthreads();
  return result;
}

// Counts the groups of every run. counts: [runs] u32. A block of 256 a run.
extern "C" __global__ void __launch_bounds__(256)
    aggregate_count(const word_t* __restrict__ accumulators, const word_t* __restrict__ table, word_t capacity, word_t span,
                    const word_t* __restrict__ status, unsigned* counts) {
  Run run(span, capacity);
  unsigned mine = 0, total;
  for (int i = 0; i < LIST_PER_THREAD; ++i) {
    word_t slot = run.first + threadIdx.x * LIST_PER_THREAD + i;
    if (slot < run.past && has_group(slot, accumulators, table, span, capacity, status)) ++mine;
  }
  before(mine, &total);
  if (threadIdx.x == 0) counts[blockIdx.x] = total;
}

// Makes of every run's count the place of its first entry, and tells how many groups there are. One block of 1,024.
extern "C" __global__ void __launch_bounds__(1024)
    aggregate_places(unsigned* counts, unsigned runs, unsigned dense_runs, word_t* status) {
  unsigned place = 0, total;
  if (threadIdx.x == 0) status[STATUS_DENSE_GROUPS] = 0;
  for (unsigned base = 0; base < runs; base += blockDim.x) {
    unsigned run = base + threadIdx.x;
    unsigned mine = run < runs ? counts[run] : 0;
    unsigned at = place + before(mine, &total);
    if (run < runs) counts[run] = at;
    if (run + 1 == dense_runs) status[STATUS_DENSE_GROUPS] = at + mine;
    place += total;
  }
  if (threadIdx.x == 0) status[STATUS_GROUPS] = place;
}

// Lists the groups. places: [runs] u32 from `aggregate_places`; list_keys: [groups] u64; list_slots: [groups] u32. A block of 256 a run.
extern "C" __global__ void __launch_bounds__(256)
    aggregate_list(const word_t* __restrict__ accumulators, const word_t* __restrict__ table, word_t capacity, word_t lo, word_t span,
                   const word_t* __restrict__ status, const unsigned* __restrict__ places, word_t* list_keys, unsigned* list_slots) {
  Run run(span, capacity);
  unsigned there = 0, mine = 0, total;
  for (int i = 0; i < LIST_PER_THREAD; ++i) {
    word_t slot = run.first + threadIdx.x * LIST_PER_THREAD + i;
    if (slot < run.past && has_group(slot, accumulators, table, span, capacity, status)) {
      there |= 1u << i;
      ++mine;
    }
  }
  word_t place = (word_t)places[blockIdx.x] + before(mine, &total);
  for (int i = 0; i < LIST_PER_THREAD; ++i) {
    if (!(there >> i & 1)) continue;
    word_t slot = run.first + threadIdx.x * LIST_PER_THREAD + i;
    word_t key = slot < span ? lo + slot : slot < span + capacity ? table[slot - span] : EMPTY_KEY;
    list_keys[place] = ordered((long long)key);
    list_slots[place] = (unsigned)slot;
    ++place;
  }
}

__device__ static inline void exchange(word_t& key_a, unsigned& slot_a, word_t& key_b, unsigned& slot_b, bool rising) {
  // The entries that fill up are ones throughout and must stay behind a true key of ones: the slot decides.
  bool above = key_a > key_b || (key_a == key_b && slot_a > slot_b);
  if (above != rising) return;
  word_t key = key_a;
  key_a = key_b;
  key_b = key;
  unsigned slot = slot_a;
  slot_a = slot_b;
  slot_b = slot;
}

// The steps of a bitonic network that stay within SORT_BLOCK entries. `size` 0: all stages up to SORT_BLOCK; else the last steps of the
// stage of that size. A block of 1,024 for every SORT_BLOCK entries.
extern "C" __global__ void __launch_bounds__(1024) aggregate_sort_block(word_t* list_keys, unsigned* list_slots, word_t size) {
  __shared__ word_t keys[SORT_BLOCK];
  __shared__ unsigned slots[SORT_BLOCK];
  word_t first = (word_t)blockIdx.x * SORT_BLOCK;
  for (unsigned i = threadIdx.x; i < SORT_BLOCK; i += blockDim.x) {
    keys[i] = list_keys[first + i];
    slots[i] = list_slots[first + i];
  }
  for (word_t stage = size ? size : 2; stage <= (size ? size : SORT_BLOCK); stage <<= 1) {
    for (unsigned step = stage > SORT_BLOCK ? SORT_BLOCK / 2 : (unsigned)stage / 2; step; step >>= 1) {
      __syncthreads();
      for (unsigned pair = threadIdx.x; pair < SORT_BLOCK / 2; pair += blockDim.x) {
        unsigned a = 2 * pair - (pair & (step - 1));
        exchange(keys[a], slots[a], keys[a + step], slots[a + step], ((first + a) & stage) == 0);
      }
    }
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < SORT_BLOCK; i += blockDim.x) {
    list_keys[first + i] = keys[i];
    list_slots[first + i] = slots[i];
  }
}

// One step of the stage of `size`, over entries `step` apart. A thread a pair: entries / 2 threads.
extern "C" __global__ void __launch_bounds__(256)
    aggregate_sort_step(word_t* list_keys, unsigned* list_slots, word_t entries, word_t size, word_t step) {
  word_t pair = (word_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (pair >= entries / 2) return;
  word_t a = 2 * pair - (pair & (step - 1)), b = a + step;
  word_t key_a = list_keys[a], key_b = list_keys[b];
  unsigned slot_a = list_slots[a], slot_b = list_slots[b];
  exchange(key_a, slot_a, key_b, slot_b, (a & size) == 0);
  list_keys[a] = key_a;
  list_keys[b] = key_b;
  list_slots[a] = slot_a;
  list_slots[b] = slot_b;
}

// high * 2^32 + low; what does not fit 64 bits is told in `status`, where any one such group stays.
__device__ static inline long long wide_sum(word_t low, word_t high, word_t key, unsigned output, word_t* status) {
  long long upper = (long long)high + ((long long)low >> 32);
  if (upper < -2147483648LL || upper > 2147483647LL) {
    if (atomicCAS(&status[STATUS_OVERFLOW], 0ULL, 1ULL) == 0) {
      status[STATUS_OVERFLOW_KEY] = key;
      status[STATUS_OVERFLOW_OUTPUT] = output;
    }
  }
  return (long long)(((word_t)upper << 32) | (low & 0xffffffffULL));
}

// Writes the columns of the result, sorted by key. The entries of hashed slots that come before all dense keys go before those.
// columns: the keys, [groups] i64, then every output, each at a multiple of groups * 8 bytes, [groups] of its type. A thread a group.
extern "C" __global__ void __launch_bounds__(256)
    aggregate_gather(const word_t* __restrict__ accumulators, const word_t* __restrict__ list_keys,
                     const unsigned* __restrict__ list_slots, word_t lo, word_t* status, word_t groups, word_t dense_groups,
                     unsigned char* columns) {
  word_t entry = (word_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (entry >= groups) return;
  // How many entries of hashed slots come before the first dense key.
  const word_t* hashed = list_keys + dense_groups;
  word_t below = 0, above = groups - dense_groups, first = ordered((long long)lo);
  while (below < above) {
    word_t middle = below + (above - below) / 2;
    if (hashed[middle] < first) below = middle + 1; else above = middle;
  }
  word_t place = entry < dense_groups ? entry + below : entry - dense_groups < below ? entry - dense_groups : entry;
  word_t key = (word_t)from_ordered(list_keys[entry]);
  const word_t* word = accumulators + (word_t)list_slots[entry] * AGGREGATE_WORDS;
  ((word_t*)columns)[place] = key;
#define OUTPUT(output, type, expression) ((type*)(columns + (output + 1) * groups * 8))[place] = (type)(expression);
  AGGREGATE_OUTPUTS(OUTPUT)
#undef OUTPUT
}
