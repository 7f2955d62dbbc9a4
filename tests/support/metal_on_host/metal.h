// The names of Metal that the kernels use, and no others: a name that is missing here does not compile.
//
// Without ADDRESS_SPACES all memory is plain, so that the sanitizers see every access. With it, device, constant and
// threadgroup are address spaces of clang's, and a pointer that loses or changes its own is an error, as on a Mac.
#pragma once
#include <math.h>

#include "lanes.h"

const size_t max_shared_bytes = 32 * 1024;

#define TEXT_OF(x) #x
#define SECTION_OF(kernel) "shared_" TEXT_OF(kernel)

#ifdef ADDRESS_SPACES
#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup static __attribute__((address_space(3)))
#else
#define device
#define constant
#define threadgroup static __attribute__((section(SECTION_OF(KERNEL))))
#endif
// Keywords there: as a name they are an error here too.
#define thread
#define vertex
#define fragment

typedef _Float16 half;
typedef __bf16 bfloat;
typedef bfloat bfloat16_t;  // as MLX says it
typedef half float16_t;
typedef uint16_t ushort;
typedef uint32_t uint;
typedef Size3 uint3;

namespace metal {

template <typename T, int N>
using vec = T __attribute__((ext_vector_type(N)));

enum class mem_flags { mem_none, mem_device, mem_threadgroup };

inline void threadgroup_barrier(mem_flags) { barrier(); }
inline float simd_shuffle_xor(float value, ushort mask) { return exchange_xor(value, mask); }

template <typename T>
inline T max(T a, T b) {
  return a < b ? b : a;
}

template <typename T>
inline T min(T a, T b) {
  return b < a ? b : a;
}

inline float log2(float x) { return log2f(x); }

namespace fast {
inline float exp2(float x) { return exp2f(x); }
}  // namespace fast

namespace precise {
inline float tanh(float x) { return tanhf(x); }
inline float cos(float x) { return cosf(x); }
inline float sin(float x) { return sinf(x); }
inline float rsqrt(float x) { return 1.0f / sqrtf(x); }
}  // namespace precise

}  // namespace metal

using namespace metal;

// What MLX passes for the attributes that a body mentions.
#define POSITION_thread_index_in_simdgroup (position().index % simd_width)
#define POSITION_simdgroup_index_in_threadgroup (position().index / simd_width)
#define POSITION_thread_position_in_threadgroup (position().lane)
#define POSITION_threadgroup_position_in_grid (position().group)
#define POSITION_threadgroups_per_grid (position().groups)
