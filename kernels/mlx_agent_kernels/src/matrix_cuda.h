// Products of small matrices on tensor cores, for the half types. There is no matrix_metal.h: on Metal, MLX multiplies.

// Of the threadgroup, where their number changes from step to step.
__device__ inline int simdgroups_in_group() { return int(blockDim.x) / 32; }

// Adds to a 16 x 8 tile of sums the product of 16 x 16 and 16 x 8 elements of which a lane holds four and two pairs.
__device__ inline void multiply_pairs(float* sums, const unsigned* a, const unsigned* b, const __half*) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_pairs(float* sums, const unsigned* a, const unsigned* b, const __nv_bfloat16*) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Lane 4 * i + j brings eight inputs of features i and i + 8, and the same eight of row i; its sums are those of feature i
// and rows 2 * j and 2 * j + 1, and of feature i + 8 and these rows. All lanes of the simdgroup; half types only.
__device__ inline void multiply_tiles(float* sums, const Eight& low, const Eight& high, const Eight& inputs) {
  const uint4 l = low.words[0];
  const uint4 h = high.words[0];
  const uint4 x = inputs.words[0];
  const unsigned a[2][4] = {{l.x, h.x, l.y, h.y}, {l.z, h.z, l.w, h.w}};
  const unsigned b[2][2] = {{x.x, x.y}, {x.z, x.w}};
  multiply_pairs(sums, a[0], b[0], static_cast<const element*>(nullptr));
  multiply_pairs(sums, a[1], b[1], static_cast<const element*>(nullptr));
}

// Two elements each, side by side.
__device__ inline unsigned multiply_two(unsigned a, unsigned b, const __half*) {
  const __half2 product = __hmul2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const unsigned*>(&product);
}

__device__ inline unsigned multiply_two(unsigned a, unsigned b, const __nv_bfloat16*) {
  const __nv_bfloat162 product =
      __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const unsigned*>(&product);
}

// Element by element.
__device__ inline Eight multiply_eight(const Eight& left, const Eight& right) {
  const uint4 l = left.words[0];
  const uint4 r = right.words[0];
  const element* kind = nullptr;
  Eight product;
  product.words[0] = make_uint4(multiply_two(l.x, r.x, kind), multiply_two(l.y, r.y, kind), multiply_two(l.z, r.z, kind),
                                multiply_two(l.w, r.w, kind));
  return product;
}

// Eight elements to threadgroup memory, while the lane goes on. What a lane asked for between two ends belongs together.
__device__ inline void copy_eight(Eight* to, const element* from) {
  const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" : : "r"(place), "l"(from) : "memory");
}

__device__ inline void end_of_copies() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits for all that the lane asked for but what lies between its last ends of copies, so many times.
template <int PENDING>
__device__ inline void await_copies_but_last() {
  asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
}

__device__ inline void store_four(float* to, const float* values) {  // in one access
  *reinterpret_cast<float4*>(to) = make_float4(values[0], values[1], values[2], values[3]);
}

__device__ inline unsigned pack(float low, float high) {
  struct alignas(4) {
    element elements[2];
  } pair = {{static_cast<element>(low), static_cast<element>(high)}};
  return *reinterpret_cast<const unsigned*>(&pair);
}

// The i-th elements of two eights side by side.
__device__ inline unsigned pair_at(const Eight& low, const Eight& high, int i) {
  const unsigned l = reinterpret_cast<const unsigned*>(low.words)[i / 2];
  const unsigned h = reinterpret_cast<const unsigned*>(high.words)[i / 2];
  return i % 2 == 0 ? (l & 0xffffu) | h << 16 : l >> 16 | (h & 0xffff0000u);
}
