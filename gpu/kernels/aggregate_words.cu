// The operations of an aggregation on accumulator words of 8 bytes, and how values are kept in them. Stands before aggregate.cu and
// aggregate_list.cu when they are compiled.

// The emulation of the tests has its own; not every variant uses every function.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#pragma nv_diag_suppress 177
#endif

typedef unsigned long long word_t;
typedef long long key_type;

static_assert(sizeof(word_t) == 8 && sizeof(key_type) == 8, "words and keys are 8 bytes");

// The key that marks an empty hashed slot. It may be a key of the data too: such rows have a slot of their own.
#define EMPTY_KEY ((word_t)0x8000000000000000ULL)

__device__ static inline word_t bits(double value) { return (word_t)__double_as_longlong(value); }
__device__ static inline double real(word_t word) { return __longlong_as_double((long long)word); }

// Mixes all bits (the finalizer of MurmurHash3, public domain), so that keys in steps do not cluster.
__device__ static inline word_t mixed(word_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

// The operations. `lift` makes a word of a value, `join` of two words one, `merge` joins a word into memory, `empty` changes nothing.

// A sum of floats, in double whatever the column is. Starts at -0.0, which no sum of values other than -0.0 gives when rounding to
// nearest; adding 0.0 makes a -0.0 of the data 0.0. So -0.0 tells that there was no row.
struct SumFloat {
  static __device__ word_t empty() { return 0x8000000000000000ULL; }
  static __device__ word_t lift(double value) { return bits(value + 0.0); }
  static __device__ word_t join(word_t a, word_t b) { return bits(real(a) + real(b)); }
  static __device__ void merge(word_t* at, word_t word) { atomicAdd((double*)at, real(word)); }
};

// A sum of integers is kept as high * 2^32 + low, with low of one value in -2^31 .. 2^31: sums of fewer than 2^32 rows fit both words,
// so an overflow is found at the end, whatever the order. `SumHigh` costs nothing for values that fit 32 bits.
struct SumLow {
  static __device__ word_t empty() { return 0; }
  static __device__ word_t lift(long long value) { return (word_t)(long long)(int)(unsigned)(word_t)value; }
  static __device__ word_t join(word_t a, word_t b) { return a + b; }
  static __device__ void merge(word_t* at, word_t word) { if (word) atomicAdd(at, word); }
};
struct SumHigh {
  static __device__ word_t empty() { return 0; }
  static __device__ word_t lift(long long value) { return (word_t)((value >> 32) + (((word_t)value >> 31) & 1)); }
  static __device__ word_t join(word_t a, word_t b) { return a + b; }
  static __device__ void merge(word_t* at, word_t word) { if (word) atomicAdd(at, word); }
};
struct Count {
  static __device__ word_t empty() { return 0; }
  static __device__ word_t join(word_t a, word_t b) { return a + b; }
  static __device__ void merge(word_t* at, word_t word) { if (word) atomicAdd(at, word); }
};

// Integers in an order that unsigned comparison keeps.
__device__ static inline word_t ordered(long long value) { return (word_t)value ^ 0x8000000000000000ULL; }
__device__ static inline long long from_ordered(word_t word) { return (long long)(word ^ 0x8000000000000000ULL); }
// Floats likewise, -0.0 before 0.0. NaN must be taken out before.
__device__ static inline word_t ordered(double value) {
  word_t b = bits(value);
  return b >> 63 ? ~b : b | 0x8000000000000000ULL;
}
__device__ static inline double from_ordered_float(word_t word) { return real(word >> 63 ? word & 0x7fffffffffffffffULL : ~word); }

// The read before the atomic may be old: a minimum only falls, so what does not better an old one does not better the present one.
__device__ static inline void merge_min(word_t* at, word_t word) { if (word < *at) atomicMin(at, word); }
__device__ static inline void merge_max(word_t* at, word_t word) { if (word > *at) atomicMax(at, word); }

struct MinInt {
  static __device__ word_t empty() { return ~0ULL; }
  static __device__ word_t lift(long long value) { return ordered(value); }
  static __device__ word_t join(word_t a, word_t b) { return a < b ? a : b; }
  static __device__ void merge(word_t* at, word_t word) { merge_min(at, word); }
};
struct MaxInt {
  static __device__ word_t empty() { return 0; }
  static __device__ word_t lift(long long value) { return ordered(value); }
  static __device__ word_t join(word_t a, word_t b) { return a > b ? a : b; }
  static __device__ void merge(word_t* at, word_t word) { merge_max(at, word); }
};
// NaN loses against every number, and a group of nothing but NaN gives NaN: it is the word beside the empty one, which no number has.
struct MinFloat {
  static __device__ word_t empty() { return ~0ULL; }
  static __device__ word_t lift(double value) { return value == value ? ordered(value) : ~1ULL; }
  static __device__ word_t join(word_t a, word_t b) { return a < b ? a : b; }
  static __device__ void merge(word_t* at, word_t word) { merge_min(at, word); }
  static __device__ double value(word_t word) { return word == ~1ULL ? real(0x7ff8000000000000ULL) : from_ordered_float(word); }
};
struct MaxFloat {
  static __device__ word_t empty() { return 0; }
  static __device__ word_t lift(double value) { return value == value ? ordered(value) : 1ULL; }
  static __device__ word_t join(word_t a, word_t b) { return a > b ? a : b; }
  static __device__ void merge(word_t* at, word_t word) { merge_max(at, word); }
  static __device__ double value(word_t word) { return word == 1ULL ? real(0x7ff8000000000000ULL) : from_ordered_float(word); }
};
