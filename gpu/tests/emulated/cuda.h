// CUDA on the CPU, for tests of kernels without a device: the kernel's own text is compiled as C++ after this header.
//
// A block is run at a time, its threads as fibers that go on until they wait for each other: at a barrier of the block or an operation
// of the warp. Who goes first is drawn anew for every block, some warps lag behind, and threads make way before an atomic by chance, so
// that what relies on an order shows. Shared memory holds a pattern or
// what the block before left. Lanes that wait for one that has ended, operations that differ among the lanes of a warp, and wide
// accesses at odd addresses end the program with a sentence. It knows nothing of time, caches or races within one statement.
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
// One block runs at a time, so its shared memory is static; a section of its own lets it be poisoned.
#define __shared__ static __attribute__((section("emulated_shared")))
#define DYNAMIC_SHARED(type, name) type* name = (type*)emulated::dynamic_shared

extern "C" char __start_emulated_shared[] __attribute__((weak));
extern "C" char __stop_emulated_shared[] __attribute__((weak));

struct dim3 { unsigned x, y, z; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulated {
constexpr size_t STACK_BYTES = 256 * 1024;
constexpr unsigned LANES = 32;
constexpr unsigned char POISON = 0xa5;

[[noreturn]] inline void stop(const char* what) {
  fprintf(stderr, "emulated CUDA: %s\n", what);
  fflush(stderr);
  abort();
}

struct Fiber {
  dim3 thread;
  unsigned index;
  bool ended, entered;
  jmp_buf at;
  ucontext_t first;
};
// A meeting of threads: of a warp with a value each, or of the block.
struct Meeting {
  unsigned expected, arrived, generation, kind;
  uint64_t in[LANES], out[2][LANES];
};

inline dim3 grid, block, block_index;
inline unsigned char* dynamic_shared;
inline std::vector<Fiber> fibers;
inline std::vector<Meeting> warps;
inline Meeting whole;
inline unsigned whole_or[2], whole_pending;
inline Fiber* current;
inline jmp_buf scheduler;
inline uint64_t progress, random_state;
inline void (*body)(void*);
inline void* body_argument;

inline uint64_t random() {
  random_state += 0x9e3779b97f4a7c15ull;
  uint64_t z = random_state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

__attribute__((noinline)) inline void yield() {
  if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}
// Lets others go first, one time in 8.
inline void make_way() {
  if (random() % 8) return;
  ++progress;
  yield();
}
inline void enter() {
  body(body_argument);
  current->ended = true;
  ++progress;
  _longjmp(scheduler, 1);
}

// Gives `value` to the lanes of the warp and returns what each gave. kind: which operation, the same for all.
__attribute__((noinline)) inline const uint64_t* meet(uint64_t value, unsigned kind, unsigned mask) {
  if (mask != 0xffffffffu) stop("an operation of a warp names less than all lanes");
  Meeting& warp = warps[current->index / LANES];
  unsigned generation = warp.generation;
  if (warp.arrived == 0) warp.kind = kind;
  if (warp.kind != kind) stop("lanes of a warp meet in different operations");
  warp.in[current->index % LANES] = value;
  ++progress;
  if (++warp.arrived == LANES) {
    memcpy(warp.out[generation & 1], warp.in, sizeof warp.in);
    warp.arrived = 0;
    ++warp.generation;
  } else {
    while (warp.generation == generation) yield();
  }
  return warp.out[generation & 1];
}

__attribute__((noinline)) inline unsigned barrier(unsigned value) {
  unsigned generation = whole.generation;
  whole_pending |= value;
  ++whole.arrived;
  ++progress;
  while (whole.generation == generation) yield();
  return whole_or[generation & 1];
}

// Lets a fiber run until it waits or ends.
__attribute__((noinline)) inline void resume(Fiber* fiber) {
  current = fiber;
  if (_setjmp(scheduler)) return;
  if (fiber->entered) _longjmp(fiber->at, 1);
  fiber->entered = true;
  setcontext(&fiber->first);
}

inline void run_block(bool poisoned) {
  unsigned threads = block.x * block.y * block.z;
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.thread = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    fiber.index = i;
    fiber.ended = fiber.entered = false;
  }
  for (Meeting& warp : warps) warp.arrived = warp.generation = 0;
  whole.arrived = whole.generation = 0;
  whole_pending = 0;
  if (__start_emulated_shared && poisoned) memset(__start_emulated_shared, POISON, __stop_emulated_shared - __start_emulated_shared);
  std::vector<unsigned> order(threads);
  for (unsigned i = 0; i < threads; ++i) order[i] = i;
  for (unsigned i = threads; i > 1; --i) std::swap(order[i - 1], order[random() % i]);
  // How many passes of 16 a warp sits out.
  std::vector<unsigned> lag(warps.size());
  for (unsigned& of : lag) of = (const unsigned[]){0, 8, 14}[random() % 3];
  std::vector<bool> out(warps.size());
  unsigned live = threads;
  while (live) {
    uint64_t before = progress;
    bool all = true;
    for (size_t w = 0; w < out.size(); ++w) {
      out[w] = random() % 16 < lag[w];
      all = all && !out[w];
    }
    for (unsigned i : order)
      if (!fibers[i].ended && !out[i / LANES]) resume(&fibers[i]);
    live = 0;
    for (unsigned i = 0; i < threads; ++i) live += !fibers[i].ended;
    if (live && whole.arrived == live) {
      whole_or[whole.generation & 1] = whole_pending;
      whole_pending = 0;
      whole.arrived = 0;
      ++whole.generation;
      ++progress;
    }
    if (live && all && progress == before) stop("threads wait for threads that have ended or wait elsewhere");
  }
}

inline std::mutex one_launch;

// Runs a launch; 0, or 1 when the geometry is none that is emulated.
inline int launch(const unsigned* grid_size, const unsigned* block_size, unsigned shared_bytes, uint64_t seed, void (*run)(void*),
                  void* argument) {
  std::lock_guard<std::mutex> lock(one_launch);
  grid = {grid_size[0], grid_size[1], grid_size[2]};
  block = {block_size[0], block_size[1], block_size[2]};
  unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || threads % LANES) return 1;
  random_state = seed;
  body = run;
  body_argument = argument;
  static std::vector<char> stacks(1024 * STACK_BYTES);
  fibers.resize(threads);
  warps.resize(threads / LANES);
  // Behind the memory asked for lies a strip that nobody may write.
  std::vector<unsigned char> shared(shared_bytes + 64 + 16);
  dynamic_shared = shared.data() + (16 - (uintptr_t)shared.data() % 16) % 16;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        // Else it holds what the block before left, as on a device.
        bool poisoned = x + y + z == 0 || random() % 2;
        if (poisoned) std::fill(shared.begin(), shared.end(), POISON);
        for (unsigned i = 0; i < threads; ++i) {
          getcontext(&fibers[i].first);
          fibers[i].first.uc_stack.ss_sp = stacks.data() + i * STACK_BYTES;
          fibers[i].first.uc_stack.ss_size = STACK_BYTES;
          fibers[i].first.uc_link = nullptr;
          makecontext(&fibers[i].first, enter, 0);
        }
        run_block(poisoned);
        for (unsigned i = 0; i < 64; ++i)
          if (dynamic_shared[shared_bytes + i] != POISON) stop("a block wrote past its dynamic shared memory");
      }
  return 0;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*(std::remove_reference_t<A>*)args[I]...);
}
template <class... A> struct Call {
  void (*kernel)(A...);
  void** args;
};
template <class... A> int start(void (*kernel)(A...), const unsigned* grid, const unsigned* block, unsigned shared, void** args,
                                unsigned count, uint64_t seed) {
  if (count != sizeof...(A)) return 2;
  Call<A...> it{kernel, args};
  auto run = [](void* raw) {
    auto* that = (Call<A...>*)raw;
    call(that->kernel, that->args, std::index_sequence_for<A...>{});
  };
  return launch(grid, block, shared, seed, run, &it);
}

template <class T> uint64_t packed(T value) {
  static_assert(sizeof(T) <= 8, "values of lanes have 8 bytes at most");
  uint64_t raw = 0;
  memcpy(&raw, &value, sizeof value);
  return raw;
}
template <class T> T unpacked(uint64_t raw) {
  T value;
  memcpy(&value, &raw, sizeof value);
  return value;
}
template <class T> void check_aligned(const T* at) {
  if ((uintptr_t)at % sizeof(T)) stop("an access is not aligned to its size");
}
} // namespace emulated

// What a test calls, one function a kernel: grid, block, dynamic shared memory, pointers to arguments and their count, seed.
#define EMULATED_KERNEL(kernel)                                                                                          \
  extern "C" int emulated_##kernel(const unsigned* grid, const unsigned* block, unsigned shared, void** args,            \
                                   unsigned count, uint64_t seed) {                                                      \
    return emulated::start(kernel, grid, block, shared, args, count, seed);                                              \
  }

#define threadIdx (emulated::current->thread)
#define blockIdx (emulated::block_index)
#define blockDim (emulated::block)
#define gridDim (emulated::grid)

inline void __syncthreads() { emulated::barrier(0); }
inline int __syncthreads_or(int value) { return emulated::barrier(value != 0) != 0; }

template <class T> T __shfl_sync(unsigned mask, T value, int from) {
  return emulated::unpacked<T>(emulated::meet(emulated::packed(value), 1, mask)[from & 31]);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int with) {
  unsigned lane = emulated::current->index % 32;
  return emulated::unpacked<T>(emulated::meet(emulated::packed(value), 2, mask)[lane ^ with]);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  unsigned lane = emulated::current->index % 32;
  return emulated::unpacked<T>(emulated::meet(emulated::packed(value), 3, mask)[lane >= by ? lane - by : lane]);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* all = emulated::meet(predicate != 0, 4, mask);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) votes |= (unsigned)all[lane] << lane;
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

template <class T, class F> T emulated_atomic(T* at, F change) {
  emulated::check_aligned(at);
  emulated::make_way();
  T before = *at;
  *at = change(before);
  return before;
}
template <class T> T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T before) {
    if constexpr (std::is_integral_v<T>) return (T)((std::make_unsigned_t<T>)before + (std::make_unsigned_t<T>)value);
    else return before + value;
  });
}
template <class T> T atomicMin(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T before) { return value < before ? value : before; });
}
template <class T> T atomicMax(T* at, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T before) { return value > before ? value : before; });
}
template <class T> T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return emulated_atomic(at, [=](T before) { return before == expected ? value : before; });
}

template <class T> T __ldcs(const T* at) {
  emulated::check_aligned(at);
  return *at;
}
template <class T> T __ldcg(const T* at) { return __ldcs(at); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline long long __double_as_longlong(double value) { return emulated::unpacked<long long>(emulated::packed(value)); }
inline double __longlong_as_double(long long value) { return emulated::unpacked<double>(emulated::packed(value)); }
inline unsigned __float_as_uint(float value) { return emulated::unpacked<unsigned>(emulated::packed(value)); }
inline float __uint_as_float(unsigned value) { return emulated::unpacked<float>(emulated::packed(value)); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
