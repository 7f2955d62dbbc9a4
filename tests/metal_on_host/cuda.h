// The names of CUDA that the kernels use, and no others: a name that is missing here does not compile.
#pragma once
#include <math.h>

#include "lanes.h"

#define TEXT_OF(x) #x
#define SECTION_OF(kernel) "shared_" TEXT_OF(kernel)

#define __global__
#define __device__
#define __grid_constant__
#define __shared__ static __attribute__((section(SECTION_OF(KERNEL))))

#define threadIdx (position().lane)
#define blockIdx (position().group)
#define gridDim (position().groups)

typedef _Float16 __half;
typedef __bf16 __nv_bfloat16;

struct Shape {  // as MLX passes one: by value
  int32_t dims[8];
  int32_t operator[](int i) const { return dims[i]; }
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline void __syncthreads() { barrier(); }
inline float __shfl_xor_sync(unsigned, float value, int mask) { return exchange_xor(value, uint32_t(mask)); }
