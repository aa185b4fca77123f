// The generated CUDA C++ of one module, run on a CPU: a thread is a fiber, a block is run to its end
// before the next. Threads switch at barriers and shuffles only, in an order that the test chooses.
// Shared memory starts as NaN. A barrier that some thread never reaches is an error, and so is a
// block that ends with threads waiting.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#undef __global__
#undef __device__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace emu {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 128 << 10;

struct Warp {
  int live = 0, arrived = 0;
  unsigned generation = 0;
  uint64_t slots[2][kWarp][4];
};

constexpr size_t kNobody = ~size_t(0);

// An asynchronous copy that has not arrived; `by` is the thread, kNobody for a copy engine.
struct Copy {
  void* target;
  size_t bytes;
  char data[16];
  size_t by;
};

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  uint3 index;
  int warp, lane;
  bool done;
  std::vector<std::vector<Copy>> groups;
  std::vector<std::vector<std::function<void()>>> products;
  uint64_t fenced, told;
  bool settled;
};

inline std::vector<Thread> threads;
inline std::vector<Warp> warps;
inline Thread* current;
inline ucontext_t scheduler;
inline int turn;
inline std::mt19937 random;
inline uint3 block_index;
inline int live, arrived;
inline unsigned generation;
inline long progress;
inline void (*entry)(void*);
inline void* arguments;
inline uint64_t clock;
inline std::string failure;
inline bool fail(const std::string& what) {
  if (failure.empty()) failure = what;
  return false;
}

// Where several neighbours are read or written at once: a multiple of what they take.
template <class T>
T* aligned(const void* address) {
  auto place = reinterpret_cast<uintptr_t>(address);
  if (place % alignof(T)) fail(std::to_string(sizeof(T)) + " bytes at once that are not aligned");
  return reinterpret_cast<T*>(place / alignof(T) * alignof(T));
}

inline void yield() { swapcontext(&current->context, &scheduler); }

inline void pass(int& arrived, int live, unsigned& generation) {
  if (arrived && arrived == live) {
    arrived = 0;
    ++generation;
    ++progress;
  }
}

inline void wait(int& arrived, int live, unsigned& generation) {
  unsigned mine = generation;
  ++arrived;
  ++progress;
  pass(arrived, live, generation);
  while (generation == mine) yield();
}

inline void thread_main() {
  entry(arguments);
  current->done = true;
  --live;
  ++progress;
  Warp& warp = warps[current->warp];
  --warp.live;
  pass(arrived, live, generation);
  pass(warp.arrived, warp.live, warp.generation);
}

inline void sync_block() { wait(arrived, live, generation); }

inline void sync_warp() {
  Warp& warp = warps[current->warp];
  wait(warp.arrived, warp.live, warp.generation);
}

// What every thread of this warp gives; two sets of slots, so that one barrier is enough.
template <class T>
uint64_t (*exchange(const T& value))[4] {
  static_assert(sizeof(T) <= sizeof(uint64_t[4]));
  Warp& warp = warps[current->warp];
  unsigned set = warp.generation & 1;
  std::memcpy(&warp.slots[set][current->lane], &value, sizeof(T));
  sync_warp();
  return warp.slots[set];
}

template <class T>
T shuffle(T value, int source) {
  std::memcpy(&value, exchange(value)[source & (kWarp - 1)], sizeof(T));
  return value;
}

// Shared memory of a block, which starts as NaN: arrays one after another, by number; the dynamic
// one is number 0.
constexpr size_t kSharedBytes = 512 << 10;
alignas(1024) inline char shared_memory[kSharedBytes];
inline std::map<int, size_t> shared_arrays;
inline size_t shared_used;
inline size_t dynamic_bytes;  // what the launch asks for

// At a multiple of `align` that is no multiple of twice as much.
inline void* shared(int id, size_t bytes, size_t align) {
  auto found = shared_arrays.find(id);
  if (found == shared_arrays.end()) {
    size_t start = (shared_used / align | 1) * align;
    if (start < shared_used) start += 2 * align;
    found = shared_arrays.emplace(id, start).first;
    shared_used = start + bytes;
    std::memset(shared_memory + start, 0xFF, bytes);
  }
  return shared_memory + found->second;
}

// What ordinary instructions and copies of threads wrote, for each 16 bytes of shared memory: when,
// and by which thread.
struct Written {
  uint64_t time;
  size_t by;
};
inline Written shared_written[kSharedBytes / 16];
void start_block();

// Lets a warp run until every thread of it waits for another warp.
inline void race(size_t first, size_t count) {
  long before;
  do {
    before = progress;
    for (size_t i = first; i < first + kWarp && i < count; ++i) {
      if (threads[i].done) continue;
      current = &threads[i];
      swapcontext(&scheduler, &current->context);
    }
  } while (progress != before);
}

// Runs a grid. `order`: 0 ascending, 1 descending, more: a pseudo-random order at every turn; -1 and
// -2: one warp after another, the first or the last of them first, each as far as it comes.
inline std::string run(dim3 grid, dim3 block, int order, void (*kernel)(void*), void* args) {
  size_t count = size_t(block.x) * block.y * block.z;
  if (count < 1 || count > 1024) return "a block of " + std::to_string(count) + " threads";
  if (!grid.x || !grid.y || !grid.z) return "an empty grid";
  if (grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) return "a grid that is too large";
  entry = kernel;
  arguments = args;
  failure.clear();
  turn = order;
  random.seed(order);
  if (threads.size() < count) threads.resize(count);
  std::vector<size_t> turns(count);
  for (size_t i = 0; i < count; ++i) turns[i] = order == 1 ? count - 1 - i : i;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = {x, y, z};
        shared_arrays.clear();
        shared_used = 0;
        start_block();
        warps.assign((count + kWarp - 1) / kWarp, Warp());
        live = int(count);
        arrived = 0;
        for (size_t i = 0; i < count; ++i) {
          Thread& t = threads[i];
          if (!t.stack) t.stack.reset(new char[kStackBytes]);
          t.index = {unsigned(i % block.x), unsigned(i / block.x % block.y),
                     unsigned(i / (block.x * block.y))};
          t.warp = int(i / kWarp);
          t.lane = int(i % kWarp);
          t.done = false;
          t.groups.assign(1, {});
          t.products.assign(1, {});
          t.fenced = t.told = 0;
          t.settled = false;
          ++warps[t.warp].live;
          getcontext(&t.context);
          t.context.uc_stack.ss_sp = t.stack.get();
          t.context.uc_stack.ss_size = kStackBytes;
          t.context.uc_link = &scheduler;
          makecontext(&t.context, thread_main, 0);
        }
        while (live > 0) {
          long before = progress;
          if (order > 1) std::shuffle(turns.begin(), turns.end(), random);
          for (size_t w = 0; order < 0 && w < warps.size(); ++w)
            race(kWarp * (order == -1 ? w : warps.size() - 1 - w), count);
          for (size_t i : turns) {
            if (order < 0 || threads[i].done) continue;
            current = &threads[i];
            swapcontext(&scheduler, &current->context);
          }
          if (progress == before)
            return "deadlock in block (" + std::to_string(x) + ", " + std::to_string(y) + "): " +
                   std::to_string(arrived) + " of " + std::to_string(live) +
                   " threads wait at a barrier of the block";
          if (!failure.empty()) return failure;
        }
      }
  return "";
}

struct Any {  // TVMFFIAny
  int32_t type;
  uint32_t padding;
  union {
    int64_t i;
    double f;
    void* p;
  };
};

}  // namespace emu

#define threadIdx (emu::current->index)
#define blockIdx (emu::block_index)
#define __syncthreads() emu::sync_block()
#define __syncwarp(...) emu::sync_warp()
#define __activemask() 0xffffffffu

template <class T>
T __shfl_xor_sync(unsigned, T value, int bits, int = 32) {
  return emu::shuffle(value, emu::current->lane ^ bits);
}
template <class T>
T __shfl_down_sync(unsigned, T value, int offset, int = 32) {
  int source = emu::current->lane + offset;
  return emu::shuffle(value, source < emu::kWarp ? source : emu::current->lane);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int offset, int = 32) {
  int source = emu::current->lane - offset;
  return emu::shuffle(value, source >= 0 ? source : emu::current->lane);
}
template <class T>
T __shfl_sync(unsigned, T value, int source, int = 32) {
  return emu::shuffle(value, source);
}

inline int __any_sync(unsigned, int flag) {
  auto given = emu::exchange(flag);
  int some = 0;
  for (int lane = 0; lane < emu::kWarp; ++lane) some |= int(given[lane][0]);
  return some != 0;
}
inline unsigned atomicOr(unsigned* word, unsigned bits) {
  unsigned old = *word;
  *word |= bits;
  return old;
}
inline int __ffs(unsigned word) { return __builtin_ffs(int(word)); }
inline int __popc(unsigned word) { return __builtin_popcount(word); }

#include "emulator_ptx.h"
#include "emulator_hopper.h"

using std::max;
using std::min;
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
#define EMU_HALF(name, function) \
  inline __half name(__half x) { return __float2half(function(__half2float(x))); }
EMU_HALF(hexp, std::exp)
EMU_HALF(hlog, std::log)
EMU_HALF(hsqrt, std::sqrt)
EMU_HALF(hrsqrt, rsqrtf)
EMU_HALF(htanh, std::tanh)
EMU_HALF(hsin, std::sin)
EMU_HALF(hcos, std::cos)
