// What the instructions of PTX do that kernels use by way of assembly (PTX ISA 8.5): ldmatrix, mma,
// cp.async. `asm("a.b.c {%0, %1}, [%2];" : ...)` is called as a_b_c(operands in their order).
#pragma once

inline size_t __cvta_generic_to_shared(const void* pointer) {
  return reinterpret_cast<const char*>(pointer) - emu::shared_memory;
}

namespace emu {

// Where a shared address is; `bytes` of it have to be there, aligned.
inline char* at_shared(unsigned address, unsigned bytes) {
  if (address % bytes) fail("a shared address that is not a multiple of " + std::to_string(bytes));
  if (address + bytes > shared_used) fail("a shared address that is out of bounds");
  return shared_memory + std::min<size_t>(address, kSharedBytes - bytes);
}

template <bool transposed>
void ldmatrix(unsigned* d[4], unsigned address) {
  auto rows = exchange(address);
  int lane = current->lane;
  for (int m = 0; m < 4; ++m) {
    unsigned banks = 0;
    for (int r = 0; r < 8; ++r) banks |= 1u << (unsigned(rows[m * 8 + r][0]) / 16 % 8);
    if (banks != 0xFF) fail("ldmatrix reads two rows from the same banks");
    uint16_t pair[2];
    for (int e = 0; e < 2; ++e) {
      int row = transposed ? lane % 4 * 2 + e : lane / 4;
      int column = transposed ? lane / 4 : lane % 4 * 2 + e;
      std::memcpy(&pair[e], at_shared(unsigned(rows[m * 8 + row][0]), 16) + column * 2, 2);
    }
    *d[m] = pair[0] | unsigned(pair[1]) << 16;
  }
}

struct tf32 {};

template <class T>
struct Decode {
  static constexpr int bytes = sizeof(T);
  static T value(uint32_t bits) {
    T result;
    std::memcpy(&result, &bits, sizeof(T));
    return result;
  }
};
template <>
struct Decode<tf32> {  // the low bits are not read
  static constexpr int bytes = 4;
  static float value(uint32_t bits) {
    bits &= ~0x1FFFu;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
  }
};

// D[rows, 8] += A[rows, k] * B[k, 8]: `chunks` of 16 bytes of k, rows / 8 registers of A for each.
template <class A, class B, int rows, int chunks, class Sum>
void mma(Sum* d[], std::array<unsigned, 4> a, std::array<unsigned, 2> b) {
  constexpr int bytes = Decode<A>::bytes, per_register = 4 / bytes, per_chunk = 16 / bytes;
  struct {
    std::array<unsigned, 4> a;
    std::array<unsigned, 2> b;
  } own{a, b};
  auto given = exchange(own);
  auto bits = [&](int lane, int number, int k) {
    unsigned word;
    std::memcpy(&word, reinterpret_cast<char*>(given[lane]) + number * 4, 4);
    return word >> (k % per_register * bytes * 8 % 32);
  };
  int lane = current->lane;
  for (int half = 0; half < rows / 8; ++half)
    for (int e = 0; e < 2; ++e) {
      Sum sum = 0;
      int column = lane % 4 * 2 + e;
      for (int k = 0; k < chunks * per_chunk; ++k) {
        int chunk = k / per_chunk, quarter = k % per_chunk / per_register;
        uint32_t left = bits(lane / 4 * 4 + quarter, half + rows / 8 * chunk, k);
        uint32_t right = bits(column * 4 + quarter, 4 + chunk, k);
        sum += Sum(Decode<A>::value(left)) * Sum(Decode<B>::value(right));
      }
      *d[half * 2 + e] += sum;
    }
}

inline void arrive(Copy& copy) {
  std::memcpy(copy.target, copy.data, copy.bytes);
  size_t granule = (static_cast<char*>(copy.target) - shared_memory) / 16;
  shared_written[granule] = {copy.by == kNobody ? 0 : ++clock, copy.by};
}

// Whether what runs on its own does so now.
inline bool soon() { return turn == 1 || (turn > 1 && random() % 2); }

// A copy arrives as soon as it is asked for (order 1), as late as it may (order 0), or either.
inline void cp_async(unsigned target, const void* source, unsigned size, unsigned bytes) {
  Copy copy{at_shared(target, size), size, {}, size_t(current - threads.data())};
  if (bytes && reinterpret_cast<uintptr_t>(source) % size) fail("a copy from an unaligned address");
  std::memcpy(copy.data, source, bytes);
  if (soon()) arrive(copy);
  else current->groups.back().push_back(copy);
}

inline void cp_async_wait(size_t left) {
  auto& groups = current->groups;
  while (groups.size() > left + 1) {
    for (Copy& copy : groups.front()) arrive(copy);
    groups.erase(groups.begin());
  }
}

}  // namespace emu

#define EMU_LDMATRIX(name, transposed)                                                         \
  inline void name(unsigned& d0, unsigned& d1, unsigned& d2, unsigned& d3, unsigned address) { \
    unsigned* d[] = {&d0, &d1, &d2, &d3};                                                      \
    emu::ldmatrix<transposed>(d, address);                                                     \
  }
EMU_LDMATRIX(ldmatrix_sync_aligned_m8n8_x4_shared_b16, false)
EMU_LDMATRIX(ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16, true)

#define EMU_MMA(name, A, B, Sum)                                                               \
  inline void mma_sync_aligned_##name(Sum& d0, Sum& d1, Sum& d2, Sum& d3, unsigned a0,         \
                                      unsigned a1, unsigned a2, unsigned a3, unsigned b0,      \
                                      unsigned b1, Sum, Sum, Sum, Sum) {                       \
    Sum* d[] = {&d0, &d1, &d2, &d3};                                                           \
    emu::mma<A, B, 16, 2>(d, {a0, a1, a2, a3}, {b0, b1});                                      \
  }
EMU_MMA(m16n8k16_row_col_f32_f16_f16_f32, __half, __half, float)
EMU_MMA(m16n8k16_row_col_f32_bf16_bf16_f32, __nv_bfloat16, __nv_bfloat16, float)
EMU_MMA(m16n8k8_row_col_f32_tf32_tf32_f32, emu::tf32, emu::tf32, float)
EMU_MMA(m16n8k32_row_col_s32_s8_s8_s32, int8_t, int8_t, int)
EMU_MMA(m16n8k32_row_col_s32_u8_s8_s32, uint8_t, int8_t, int)
EMU_MMA(m16n8k32_row_col_s32_s8_u8_s32, int8_t, uint8_t, int)
EMU_MMA(m16n8k32_row_col_s32_u8_u8_s32, uint8_t, uint8_t, int)
EMU_MMA(m16n8k32_row_col_f32_e4m3_e4m3_f32, __nv_fp8_e4m3, __nv_fp8_e4m3, float)
EMU_MMA(m16n8k32_row_col_f32_e4m3_e5m2_f32, __nv_fp8_e4m3, __nv_fp8_e5m2, float)
EMU_MMA(m16n8k32_row_col_f32_e5m2_e4m3_f32, __nv_fp8_e5m2, __nv_fp8_e4m3, float)
EMU_MMA(m16n8k32_row_col_f32_e5m2_e5m2_f32, __nv_fp8_e5m2, __nv_fp8_e5m2, float)

// Before sm_80: half of the sum, or a quarter of the products.
inline void mma_sync_aligned_m16n8k8_row_col_f32_f16_f16_f32(float& d0, float& d1, float& d2,
                                                             float& d3, unsigned a0, unsigned a1,
                                                             unsigned b0, float, float, float,
                                                             float) {
  float* d[] = {&d0, &d1, &d2, &d3};
  emu::mma<__half, __half, 16, 1>(d, {a0, a1}, {b0});
}
inline void mma_sync_aligned_m8n8k16_row_col_s32_s8_s8_s32(int& d0, int& d1, unsigned a0,
                                                           unsigned b0, int, int) {
  int* d[] = {&d0, &d1};
  emu::mma<int8_t, int8_t, 8, 1>(d, {a0}, {b0});
}

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float __int_as_float(int bits) { return __uint_as_float(unsigned(bits)); }

inline void cvt_rna_tf32_f32(unsigned& d, float value) {
  std::memcpy(&d, &value, 4);
  if ((d & 0x7F800000u) != 0x7F800000u) d += 0x1000;
  d &= ~0x1FFFu;
}

inline void ex2_approx_ftz_f32(float& d, float x) {
  d = std::exp2(x);
  if (std::abs(d) < 1.17549435e-38f) d = 0;
}

inline void cp_async_ca_shared_global(unsigned target, const void* source, int size,
                                      unsigned bytes) {
  emu::cp_async(target, source, size, bytes);
}
inline void cp_async_cg_shared_global(unsigned target, const void* source, int size,
                                      unsigned bytes) {
  if (size != 16) emu::fail("cp.async.cg copies 16 bytes");
  emu::cp_async(target, source, size, bytes);
}
inline void cp_async_commit_group() { emu::current->groups.emplace_back(); }
inline void cp_async_wait_group(int left) { emu::cp_async_wait(left); }
