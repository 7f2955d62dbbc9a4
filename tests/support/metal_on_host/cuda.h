// The names of CUDA that the kernels use, and no others: a name that is missing here does not compile.
#pragma once
#include <math.h>
#include <string.h>

#include <deque>
#include <utility>
#include <vector>

#include "lanes.h"

const size_t max_shared_bytes = 48 * 1024;  // without asking for more

#define TEXT_OF(x) #x
#define SECTION_OF(kernel) "shared_" TEXT_OF(kernel)

#define __global__
#define __device__
#define __grid_constant__
#define __shared__ static __attribute__((section(SECTION_OF(KERNEL))))

#define threadIdx (position().lane)
#define blockIdx (position().group)
#define blockDim (position().lanes)
#define gridDim (position().groups)

typedef _Float16 __half;
typedef __bf16 __nv_bfloat16;

template <typename T>
struct alignas(4) Two {
  T x, y;
};
typedef Two<__half> __half2;
typedef Two<__nv_bfloat16> __nv_bfloat162;

template <typename T>
inline Two<T> __hmul2(Two<T> a, Two<T> b) {
  return {T(float(a.x) * float(b.x)), T(float(a.y) * float(b.y))};
}

template <typename T>
inline Two<T> __hsub2(Two<T> a, Two<T> b) {
  return {T(float(a.x) - float(b.x)), T(float(a.y) - float(b.y))};
}

template <typename T>
inline Two<T> __hfma2(Two<T> a, Two<T> b, Two<T> c) {
  return {T(fmaf(float(a.x), float(b.x), float(c.x))), T(fmaf(float(a.y), float(b.y), float(c.y)))};
}

struct Shape {  // as MLX passes one: by value
  int32_t dims[8];
  int32_t operator[](int i) const { return dims[i]; }
};

struct alignas(8) uint2 {
  unsigned x, y;
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
struct alignas(16) float4 {
  float x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline void __syncthreads() { barrier(); }
inline float __shfl_xor_sync(unsigned, float value, int mask) { return exchange_xor(value, uint32_t(mask)); }

inline size_t __cvta_generic_to_shared(const void* place) { return reinterpret_cast<size_t>(place); }

namespace ptx {
typedef __half f16;
typedef __nv_bfloat16 bf16;
}  // namespace ptx

// mma.sync.aligned.m16n8k16.row.col, as PTX's manual lays out its fragments: every lane sees all lanes' registers.
template <typename T>
inline void multiply_on_the_host(float* sums, const unsigned* a, const unsigned* b) {
  const uint32_t own = position().index % simd_width;
  uint32_t all_a[4][simd_width];
  uint32_t all_b[2][simd_width];
  for (int i = 0; i < 4; i++) exchange_all(a[i], all_a[i]);
  for (int i = 0; i < 2; i++) exchange_all(b[i], all_b[i]);
  for (uint32_t c = 0; c < 4; c++) {
    const uint32_t row = own / 4 + c / 2 * 8;
    const uint32_t column = own % 4 * 2 + c % 2;
    for (uint32_t k = 0; k < 16; k++) {
      const uint32_t pair = k % 8 / 2;
      const T* left = reinterpret_cast<const T*>(&all_a[k / 8 * 2 + row / 8][row % 8 * 4 + pair]);
      const T* right = reinterpret_cast<const T*>(&all_b[k / 8][column * 4 + pair]);
      sums[c] += float(left[k % 2]) * float(right[k % 2]);
    }
  }
}

// cp.async as late as may be: a copy happens when its lane awaits it.
typedef std::vector<std::pair<void*, const void*>> Copies;

inline std::deque<Copies>& own_copies() {  // group by group, the open one last
  static std::vector<std::deque<Copies>> all(1024, std::deque<Copies>(1));
  return all[position().index];
}

inline void copy_on_the_host(void* to, const void* from) { own_copies().back().emplace_back(to, from); }

inline void commit_on_the_host() { own_copies().emplace_back(); }

inline void wait_on_the_host(size_t num_pending) {
  std::deque<Copies>& copies = own_copies();
  for (; copies.size() > num_pending + 1; copies.pop_front()) {
    for (const std::pair<void*, const void*>& copy : copies.front()) memcpy(copy.first, copy.second, 16);
  }
}
