// What sm_90a adds (PTX ISA 8.5): barriers in shared memory, copies of boxes of tensors, products
// of warpgroups. Copies and products run on their own: each reads and writes as soon as it is asked
// for (order 1), as late as it may (order 0), or either.
#pragma once

struct alignas(64) CUtensorMap {  // as emulator.py encodes it
  uint64_t base, sizes[5], strides[4];
  uint32_t box[5], rank, element, swizzle, rounded, padding[3];
};
static_assert(sizeof(CUtensorMap) == 128);

namespace emu {

// Arrivals and bytes that a phase still waits for.
struct Barrier {
  int count, left;
  long bytes;
  unsigned phase;
  size_t owner;
  bool fenced;  // asynchronous copies may use it
};

struct Arrival {  // data on its way, and what a barrier is told then
  unsigned barrier;
  std::vector<Copy> copies;
  long bytes;
  int count;
};

inline std::map<unsigned, Barrier> barriers;
inline std::vector<Arrival> arrivals;

inline uint64_t blocks;  // that have been started

inline void start_block() {
  ++blocks;
  barriers.clear();
  arrivals.clear();
  clock = 0;
  std::fill(std::begin(shared_written), std::end(shared_written), Written{0, kNobody});
}

inline Barrier* barrier_at(unsigned address) {
  auto found = barriers.find(address);
  if (found != barriers.end()) return &found->second;
  fail("there is no barrier at this address");
  return nullptr;
}

inline void settle(Barrier& barrier) {
  if (barrier.left < 0) fail("more arrivals than a barrier expects");
  if (barrier.left || barrier.bytes) return;
  barrier.left = barrier.count;
  ++barrier.phase;
  ++progress;
}

inline void deliver(Arrival& arrival) {
  for (Copy& copy : arrival.copies) arrive(copy);
  if (Barrier* barrier = barrier_at(arrival.barrier)) {
    barrier->bytes -= arrival.bytes;
    barrier->left -= arrival.count;
    settle(*barrier);
  }
}

inline void send(Arrival arrival) {
  if (soon()) deliver(arrival);
  else arrivals.push_back(std::move(arrival));
}

inline bool try_wait(unsigned address, unsigned parity) {
  Barrier* barrier = barrier_at(address);
  if (!barrier) return true;
  if ((barrier->phase & 1) != parity) return true;
  for (size_t i = 0; i < arrivals.size();) {
    if (arrivals[i].barrier != address) { ++i; continue; }
    ++progress;
    if (turn > 1 && random() % 2) { ++i; continue; }
    Arrival arrival = std::move(arrivals[i]);
    arrivals.erase(arrivals.begin() + i);
    deliver(arrival);
  }
  if ((barrier->phase & 1) == parity) yield();
  return (barrier->phase & 1) != parity;
}

// The address that a swizzle over `width` bytes gives: bits 4.. exclusive or bits 7..
inline unsigned swizzled(unsigned address, unsigned width) {
  return address ^ (address >> 7 & (width / 16 - 1)) << 4;
}

inline void copy_box(unsigned target, const CUtensorMap& map, unsigned address,
                     std::array<int, 5> at) {
  Barrier* barrier = barrier_at(address);
  if (!barrier) return;
  if (!barrier->fenced) fail("copies have not been told of a barrier: a proxy fence is missing");
  if (target % 128) fail("a box that is not at a multiple of 128 bytes");
  const uint32_t* box = map.box;
  Arrival arrival{address, {}, 0, 0};
  size_t total = 1;
  for (unsigned i = 0; i < map.rank; ++i) total *= box[i];
  unsigned per_chunk = 16 / map.element;
  for (size_t flat = 0; flat < total; flat += per_chunk) {
    Copy copy{nullptr, 16, {}, kNobody};
    for (unsigned e = 0; e < per_chunk; ++e) {
      size_t rest = flat + e, from = map.base;
      bool inside = true;
      for (unsigned i = 0; i < map.rank; ++i) {
        int64_t place = at[i] + int64_t(rest % box[i]);
        rest /= box[i];
        inside &= place >= 0 && place < int64_t(map.sizes[i]);
        from += place * (i ? map.strides[i - 1] : map.element);
      }
      char* here = copy.data + e * map.element;
      if (inside) std::memcpy(here, reinterpret_cast<void*>(from), map.element);
      if (inside && map.rounded) cvt_rna_tf32_f32(*(unsigned*)here, *(float*)here);
    }
    unsigned to = swizzled(target + unsigned(flat * map.element), unsigned(map.swizzle));
    copy.target = at_shared(to, 16);
    arrival.copies.push_back(copy);
    arrival.bytes += 16;
  }
  send(std::move(arrival));
}

inline void arrive_with_copies(unsigned address) {
  Arrival arrival{address, {}, 0, 1};
  for (auto& group : current->groups)
    arrival.copies.insert(arrival.copies.end(), group.begin(), group.end());
  current->groups.assign(1, {});
  send(std::move(arrival));
}

inline void fence_proxy() {
  current->fenced = ++clock;
  for (auto& [_, barrier] : barriers)
    if (barrier.owner == size_t(current - threads.data())) barrier.fenced = true;
}

// An operand in shared memory as its descriptor says (PTX ISA, Matrix Descriptor Format).
struct Operand {
  unsigned start, leading, stride, width;
  bool turned;
  Operand(uint64_t word, bool turned)
      : start(unsigned(word & 0x3FFF) << 4), leading(unsigned(word >> 16 & 0x3FFF) << 4),
        stride(unsigned(word >> 32 & 0x3FFF) << 4), turned(turned) {
    unsigned layout = unsigned(word >> 62);
    width = layout == 1 ? 128 : layout == 2 ? 64 : layout == 3 ? 32 : 16;
    if (!layout) fail("a matrix without a swizzle");
    if (word >> 49 & 7) fail("a matrix with a base offset");
  }
  const char* at(unsigned own, unsigned k, unsigned bytes) const {
    unsigned address = start;
    if (turned) {
      unsigned row = width / bytes;
      address += own / row * leading + own % row * bytes + k / 8 * stride + k % 8 * width;
    } else {
      address += own / 8 * stride + own % 8 * width + k * bytes;
    }
    return at_shared(swizzled(address, width), bytes);
  }
};

template <class Sum>
struct Pending {  // a register that products write
  Sum value;
  int products = 0;
};

template <class T, class Sum>
Sum number(const char* place) {
  const Written& written = shared_written[(place - shared_memory) / 16];
  bool told = !written.time || current->told > written.time ||
              (written.by != kNobody && threads[written.by].fenced > written.time);
  if (!told) fail("a product reads what it has not been told of: a proxy fence is missing");
  uint32_t bits = 0;
  std::memcpy(&bits, place, Decode<T>::bytes);
  return Sum(Decode<T>::value(bits));
}

// By thread; what a block leaves that has failed is not the next one's, of another library even.
template <class Sum>
std::map<Sum*, Pending<Sum>>& pending() {
  static std::vector<std::map<Sum*, Pending<Sum>>> all;
  static uint64_t block = 0;
  if (block != blocks) all.assign(1024, {});
  block = blocks;
  return all[current - threads.data()];
}

template <class A, class B, class Sum>
void multiply(const std::vector<Sum*>& d, const Operand& a, const Operand& b) {
  constexpr int bytes = Decode<A>::bytes, depth = 32 / bytes;
  int first = current->warp % 4 * 16 + current->lane / 4;
  Sum left[2][depth];
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < depth; ++k)
      left[half][k] = number<A, Sum>(a.at(first + half * 8, k, bytes));
  for (size_t j = 0; j < d.size() / 4; ++j)
    for (int e = 0; e < 2; ++e) {
      Sum sums[2] = {0, 0};
      for (int k = 0; k < depth; ++k) {
        Sum right = number<B, Sum>(b.at(int(j) * 8 + current->lane % 4 * 2 + e, k, bytes));
        for (int half = 0; half < 2; ++half) sums[half] += left[half][k] * right;
      }
      for (int half = 0; half < 2; ++half)
        pending<Sum>()[d[j * 4 + half * 2 + e]].value += sums[half];
    }
}

// Registers hold rubbish until the products are waited for.
template <class A, class B, class Sum>
void wgmma(std::vector<Sum*> d, uint64_t a, uint64_t b, bool a_turned, bool b_turned) {
  auto given = exchange(std::array<uint64_t, 2>{a, b});
  for (int lane = 0; lane < kWarp; ++lane)
    if (given[lane][0] != a || given[lane][1] != b) fail("threads give different matrices");
  if (!current->settled) fail("wgmma before its registers are settled: a fence is missing");
  for (Sum* reg : d) {
    auto& own = pending<Sum>()[reg];
    if (!own.products++) own.value = *reg;
    std::memset((void*)reg, 0xFF, sizeof(Sum));
  }
  Operand left(a, a_turned), right(b, b_turned);
  uint64_t told = current->fenced;
  auto work = [=] {
    current->told = told;
    multiply<A, B, Sum>(d, left, right);
  };
  bool done = soon();
  if (done) work();
  current->products.back().push_back([=] {
    if (!done) work();
    for (Sum* reg : d) {
      auto found = pending<Sum>().find(reg);
      if (--found->second.products) continue;
      *reg = found->second.value;
      pending<Sum>().erase(found);
    }
  });
}

inline void wait_products(size_t left) {
  auto& groups = current->products;
  while (groups.size() > left + 1) {
    for (auto& finish : groups.front()) finish();
    groups.erase(groups.begin());
  }
  current->settled = left > 0;
  sync_warp();
}

}  // namespace emu

inline void mbarrier_init_shared_cta_b64(unsigned address, int count) {
  if (address % 8) emu::fail("a barrier that is not at a multiple of 8 bytes");
  size_t owner = emu::current - emu::threads.data();
  emu::barriers[address] = {count, count, 0, 0, owner, false};
}
inline void mbarrier_arrive_shared_cta_b64(unsigned address) {
  if (auto* barrier = emu::barrier_at(address)) {
    --barrier->left;
    emu::settle(*barrier);
  }
}
inline void mbarrier_arrive_expect_tx_shared_cta_b64(unsigned address, int bytes) {
  if (auto* barrier = emu::barrier_at(address)) barrier->bytes += bytes;
  mbarrier_arrive_shared_cta_b64(address);
}
inline void mbarrier_try_wait_parity_shared_cta_b64(unsigned& done, unsigned address,
                                                    unsigned parity) {
  done = emu::try_wait(address, parity);
}
inline void cp_async_mbarrier_arrive_noinc_shared_cta_b64(unsigned address) {
  emu::arrive_with_copies(address);
}
inline void st_shared_v4_b32(unsigned address, unsigned a, unsigned b, unsigned c, unsigned d) {
  unsigned words[] = {a, b, c, d};
  char* to = emu::at_shared(address, 16);
  std::memcpy(to, words, 16);
  size_t by = emu::current - emu::threads.data();
  emu::shared_written[(to - emu::shared_memory) / 16] = {++emu::clock, by};
}
inline void fence_proxy_async_shared_cta() { emu::fence_proxy(); }
template <class... At>
void cp_async_bulk_tensor(unsigned target, unsigned long long map, unsigned barrier, At... at) {
  const auto& tensor = *reinterpret_cast<const CUtensorMap*>(map);
  if (tensor.rank != sizeof...(at)) emu::fail("a map of another rank");
  else emu::copy_box(target, tensor, barrier, {int(at)...});
}
inline void wgmma_fence_sync_aligned() { emu::current->settled = true; }
inline void wgmma_commit_group_sync_aligned() { emu::current->products.emplace_back(); }
inline void wgmma_wait_group_sync_aligned(int left) { emu::wait_products(left); }
