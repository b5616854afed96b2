// Group-by: sums, minima, maxima and counts of columns by a 64-bit key.
//
// Layout. A table has `span` dense slots for the keys lo .. lo + span, then `capacity` (a power of two) hashed slots, then one slot for
// the key that marks an empty hashed slot. Slot s has AGGREGATE_WORDS accumulator words of 8 bytes at accumulators[s * AGGREGATE_WORDS];
// hashed slot h has its key at table[h]. Keys and accumulators lie apart, for the dense slots need no keys.
//
// Cost. Keys and values are read once, past the caches (`__ldcs`), so that the table stays in L2. A row costs one atomic a word; in a
// hashed slot one read of its key more. Atomics without a result are done in L2; they, not memory, bound this for many groups. For few
// groups or a hot key they would queue up at one address: `aggregate_private` adds up in shared memory first.
//
// Which columns and aggregates there are stands in macros that the plan writes before this text (aggregate/source.rs):
//   AGGREGATE_WORDS        accumulator words of a slot
//   AGGREGATE_COLUMNS(X)   X(column, type) for every value column
//   AGGREGATE_STEPS(X)     X(word, column, operation) for every word fed by a column
//   AGGREGATE_COUNTS(X)    X(word) for every word that counts rows
//   AGGREGATE_INITIAL(X)   X(word, operation) for every word
//   AGGREGATE_OUTPUTS(X)   X(output, type, expression) for every output column, over `word`, the words of a slot
//   AGGREGATE_MARK         the word that is never what it was reset to once a row was added
//   AGGREGATE_MARK_EMPTY   what it was reset to

#define NO_SLOT (~0ULL)
// Slots looked at before the table counts as too small: the longest search in a table of a hundred million keys that is half full is
// about 95 slots (linear probing, ln(n) / (a - 1 - ln(a))), and one that is 0.7 full has searches of 256.
#define PROBES_MAX 256
// Slots of the shared table looked at before a row goes to the table in memory.
#define PRIVATE_PROBES_MAX 8
// Rows that a thread loads before it uses the first.
#define UNROLL 8
#define PRIVATE_UNROLL 4
// Keys looked at to choose the plan, and the cells they are counted in.
#define SAMPLES 4096
#define SAMPLE_CELLS 8192

// Indices into `status`, which the host reads; aggregate_list.cu has the rest.
#define STATUS_TABLE_FULL 0   // not 0: a row found no slot, nothing written counts
#define STATUS_EMPTY_KEY 1    // not 0: a row had the key EMPTY_KEY

// The slot of a key, claimed if need be, or NO_SLOT when the table is too small.
__device__ static inline word_t slot_of(word_t key, word_t lo, word_t span, word_t* table, word_t capacity, word_t* status) {
  word_t dense = key - lo;
  if (dense < span) return dense;
  if (key == EMPTY_KEY) {
    status[STATUS_EMPTY_KEY] = 1;
    return span + capacity;
  }
  word_t start = mixed(key);
#pragma unroll 1
  for (int probe = 0; probe < PROBES_MAX; ++probe) {
    word_t h = (start + probe) & (capacity - 1);
    // A slot that has a key keeps it, so an old value is either right or empty, and then the exchange tells the present one.
    word_t found = table[h];
    if (found == EMPTY_KEY) {
      found = atomicCAS(&table[h], EMPTY_KEY, key);
      if (found == EMPTY_KEY) found = key;
    }
    if (found == key) return span + h;
  }
  status[STATUS_TABLE_FULL] = 1;
  return NO_SLOT;
}

#define PARAMETER(column, type) , const type* __restrict__ c##column
#define VALUES(column, type) type v##column[ROWS];
#define LOAD(column, type) v##column[i] = __ldcs(c##column + row);
#define SINGLE(column, type) v##column[i] = (type)0;

// Sets every word of a table to what changes nothing, every hashed slot to empty, and `status` to 0.
// accumulators: [slots, AGGREGATE_WORDS] u64; table: [capacity] u64.
extern "C" __global__ void __launch_bounds__(256) aggregate_reset(word_t* accumulators, word_t slots, word_t* table, word_t capacity,
                                                                  word_t* status) {
  word_t threads = (word_t)gridDim.x * blockDim.x;
  word_t first = (word_t)blockIdx.x * blockDim.x + threadIdx.x;
  for (word_t s = first; s < slots; s += threads) {
    word_t* at = accumulators + s * AGGREGATE_WORDS;
#define RESET(word, Op) at[word] = Op::empty();
    AGGREGATE_INITIAL(RESET)
#undef RESET
  }
  for (word_t h = first; h < capacity; h += threads) table[h] = EMPTY_KEY;
  if (first < 8) status[first] = 0;
}

// Looks at SAMPLES keys at places that a hash chooses, and tells what the plan is chosen by.
// out: [4] i64: smallest and largest key seen, cells hit, keys in the fullest cell. One block of 1,024 threads.
extern "C" __global__ void __launch_bounds__(1024) aggregate_sample(const key_type* __restrict__ keys, word_t rows, key_type* out) {
  __shared__ unsigned cells[SAMPLE_CELLS];
  __shared__ key_type smallest, largest;
  __shared__ unsigned hit, fullest;
  for (unsigned c = threadIdx.x; c < SAMPLE_CELLS; c += blockDim.x) cells[c] = 0;
  if (threadIdx.x == 0) {
    smallest = 0x7fffffffffffffffLL;
    largest = -0x7fffffffffffffffLL - 1;
    hit = fullest = 0;
  }
  __syncthreads();
  for (unsigned s = threadIdx.x; s < SAMPLES; s += blockDim.x) {
    // Few rows are all looked at, each at least once.
    word_t row = rows <= SAMPLES ? s % rows : __umul64hi(mixed(s + 1), rows);
    key_type key = keys[row];
    atomicMin(&smallest, key);
    atomicMax(&largest, key);
    unsigned before = atomicAdd(&cells[mixed((word_t)key) % SAMPLE_CELLS], 1u);
    if (before == 0) atomicAdd(&hit, 1u);
    atomicMax(&fullest, before + 1);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    out[0] = smallest;
    out[1] = largest;
    out[2] = hit;
    out[3] = fullest;
  }
}

// Adds every row to the table in memory: for many groups of which none is hot.
// keys: [rows] i64; columns: [rows] each. Any grid of blocks of 256.
extern "C" __global__ void __launch_bounds__(256)
    aggregate_direct(const key_type* __restrict__ keys, word_t rows, word_t* accumulators, word_t* table, word_t capacity, word_t lo,
                     word_t span, word_t* status AGGREGATE_COLUMNS(PARAMETER)) {
  enum { ROWS = UNROLL };
  word_t tile = (word_t)blockDim.x * ROWS;
  for (word_t base = blockIdx.x * tile; base < rows; base += gridDim.x * tile) {
    // What is added once the table is full is thrown away: leave early.
    if (*(volatile word_t*)(status + STATUS_TABLE_FULL)) return;
    key_type key[ROWS];
    AGGREGATE_COLUMNS(VALUES)
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      word_t row = base + (word_t)i * blockDim.x + threadIdx.x;
      if (row < rows) {
        key[i] = __ldcs(keys + row);
        AGGREGATE_COLUMNS(LOAD)
      } else {
        key[i] = 0;
        AGGREGATE_COLUMNS(SINGLE)
      }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      word_t row = base + (word_t)i * blockDim.x + threadIdx.x;
      if (row >= rows) break;
      word_t slot = slot_of((word_t)key[i], lo, span, table, capacity, status);
      if (slot == NO_SLOT) break;
      word_t* at = accumulators + slot * AGGREGATE_WORDS;
#define ADD(word, column, Op) Op::merge(at + word, Op::lift(v##column[i]));
#define ADD_ONE(word) Count::merge(at + word, 1);
      AGGREGATE_STEPS(ADD)
      AGGREGATE_COUNTS(ADD_ONE)
#undef ADD
#undef ADD_ONE
    }
  }
}

// Joins the words of the lanes in `same` (all 32 lanes take part); every lane gets the result.
template <class Op> __device__ static inline word_t joined(word_t word, unsigned same) {
  unsigned lane = threadIdx.x & 31;
  if (!(same >> lane & 1)) word = Op::empty();
  for (int step = 16; step; step >>= 1) word = Op::join(word, __shfl_xor_sync(0xffffffffu, word, step));
  return word;
}

// The slot of a key in the shared table, claimed if need be, or -1.
__device__ static inline int private_slot_of(word_t key, word_t* table, unsigned capacity) {
  if (key == EMPTY_KEY) return -1;
  unsigned start = (unsigned)mixed(key);
#pragma unroll 1
  for (int probe = 0; probe < PRIVATE_PROBES_MAX; ++probe) {
    unsigned h = (start + probe) & (capacity - 1);
    word_t found = ((volatile word_t*)table)[h];
    if (found == EMPTY_KEY) {
      found = atomicCAS(&table[h], EMPTY_KEY, key);
      if (found == EMPTY_KEY) found = key;
    }
    if (found == key) return (int)h;
  }
  return -1;
}

// As `aggregate_direct`, but adds up in shared memory first: for few groups, or hot keys among many groups.
// A warp whose lanes share a key joins them by shuffles first, twice at most: 64-bit sums in shared memory are loops of exchanges,
// which lanes of one address go through one after the other. What finds no place in the shared table goes to memory.
// Dynamic shared memory: private_capacity * (1 + AGGREGATE_WORDS) * 8 bytes; private_capacity is a power of two.
extern "C" __global__ void __launch_bounds__(256)
    aggregate_private(const key_type* __restrict__ keys, word_t rows, word_t* accumulators, word_t* table, word_t capacity, word_t lo,
                      word_t span, word_t* status, unsigned private_capacity AGGREGATE_COLUMNS(PARAMETER)) {
  enum { ROWS = PRIVATE_UNROLL };
  DYNAMIC_SHARED(word_t, shared);
  word_t* private_table = shared;
  word_t* private_words = shared + private_capacity;
  for (unsigned h = threadIdx.x; h < private_capacity; h += blockDim.x) {
    private_table[h] = EMPTY_KEY;
    word_t* at = private_words + h * AGGREGATE_WORDS;
#define RESET(word, Op) at[word] = Op::empty();
    AGGREGATE_INITIAL(RESET)
#undef RESET
  }
  __syncthreads();
  unsigned lane = threadIdx.x & 31;
  word_t tile = (word_t)blockDim.x * ROWS;
  for (word_t base = blockIdx.x * tile; base < rows; base += gridDim.x * tile) {
    key_type key[ROWS];
    AGGREGATE_COLUMNS(VALUES)
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      word_t row = base + (word_t)i * blockDim.x + threadIdx.x;
      if (row < rows) {
        key[i] = __ldcs(keys + row);
        AGGREGATE_COLUMNS(LOAD)
      } else {
        key[i] = 0;
        AGGREGATE_COLUMNS(SINGLE)
      }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      word_t row = base + (word_t)i * blockDim.x + threadIdx.x;
      bool mine = row < rows;
      // The words of this row, which become those of all lanes of its key in the lane that leads them.
      word_t word[AGGREGATE_WORDS];
#define LIFT(w, column, Op) word[w] = Op::lift(v##column[i]);
#define LIFT_ONE(w) word[w] = 1;
      AGGREGATE_STEPS(LIFT)
      AGGREGATE_COUNTS(LIFT_ONE)
#undef LIFT
#undef LIFT_ONE
      unsigned open = __ballot_sync(0xffffffffu, mine);
#pragma unroll
      for (int round = 0; round < 2; ++round) {
        if (!open) break;
        int leader = __ffs((int)open) - 1;
        key_type leading = __shfl_sync(0xffffffffu, key[i], leader);
        unsigned same = __ballot_sync(0xffffffffu, (open >> lane & 1) && key[i] == leading);
        open &= ~same;
        if (__popc(same) < 3) continue;
#define JOIN(w, Op) { word_t all = joined<Op>(word[w], same); if ((int)lane == leader) word[w] = all; }
        AGGREGATE_INITIAL(JOIN)
#undef JOIN
        if ((same >> lane & 1) && (int)lane != leader) mine = false;
      }
      if (!mine) continue;
      // The merges stand twice, so that each is compiled for its kind of memory.
#define MERGE(w, Op) Op::merge(at + w, word[w]);
      int place = private_slot_of((word_t)key[i], private_table, private_capacity);
      if (place >= 0) {
        word_t* at = private_words + place * AGGREGATE_WORDS;
        AGGREGATE_INITIAL(MERGE)
      } else {
        word_t slot = slot_of((word_t)key[i], lo, span, table, capacity, status);
        if (slot == NO_SLOT) continue;
        word_t* at = accumulators + slot * AGGREGATE_WORDS;
        AGGREGATE_INITIAL(MERGE)
      }
#undef MERGE
    }
  }
  __syncthreads();
  for (unsigned h = threadIdx.x; h < private_capacity; h += blockDim.x) {
    if (private_table[h] == EMPTY_KEY) continue;
    word_t slot = slot_of(private_table[h], lo, span, table, capacity, status);
    if (slot == NO_SLOT) continue;
    word_t* from = private_words + h * AGGREGATE_WORDS;
    word_t* at = accumulators + slot * AGGREGATE_WORDS;
#define FLUSH(w, Op) Op::merge(at + w, from[w]);
    AGGREGATE_INITIAL(FLUSH)
#undef FLUSH
  }
}
