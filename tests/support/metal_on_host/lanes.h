// Runs one threadgroup after another, its lanes as fibers: each runs until it meets the others in a barrier or a SIMD
// operation. Nothing here knows Metal or CUDA; the two shims say their names in terms of `position`, `barrier` and
// `exchange_xor`.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint32_t Size3 __attribute__((ext_vector_type(3)));

struct Position {
  Size3 lane;   // in its threadgroup
  Size3 group;  // the threadgroup, in the grid
  Size3 groups;
  Size3 lanes;     // of the threadgroup
  uint32_t index;  // of the lane in its threadgroup
};

constexpr uint32_t simd_width = 32;

const Position& position();
void barrier();
uint32_t exchange_xor(uint32_t bits, uint32_t mask);
void exchange_all(uint32_t bits, uint32_t* all);  // every lane gets those of all lanes of its simdgroup

inline float exchange_xor(float value, uint32_t mask) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  bits = exchange_xor(bits, mask);
  __builtin_memcpy(&value, &bits, sizeof bits);
  return value;
}

struct KernelEntry {
  void (*launch)(void* const* buffers);
  char* shared_begin;  // threadgroup memory, filled with NaN before every threadgroup
  char* shared_end;
};

extern const KernelEntry kernels[];
extern const size_t max_shared_bytes;  // of a threadgroup
