// Weights of BITS bits, 4 or 8, as MLX packs them (affine: integer * scale + bias), and how they become elements of the
// half types. A lane reads 16 neighbours of one group at once.
#define WORDS (BITS / 2)

struct Packed {
  unsigned words[WORDS];
  element scale;
  element bias;
};

__device__ inline Packed zero_packed() {
  Packed packed;
  UNROLLED
  for (int i = 0; i < WORDS; i++) packed.words[i] = 0u;
  packed.scale = static_cast<element>(0.0f);
  packed.bias = static_cast<element>(0.0f);
  return packed;
}

__device__ inline Packed load_packed(const uint32_t* from, element scale, element bias) {
  Packed packed;
#if WORDS == 4
  const uint4 vector = *reinterpret_cast<const uint4*>(from);
  packed.words[0] = vector.x;
  packed.words[1] = vector.y;
  packed.words[2] = vector.z;
  packed.words[3] = vector.w;
#else
  const uint2 vector = *reinterpret_cast<const uint2*>(from);
  packed.words[0] = vector.x;
  packed.words[1] = vector.y;
#endif
  packed.scale = scale;
  packed.bias = bias;
  return packed;
}

// Two small integers, in the low bits of the halves of a word, times scale plus bias. A half that begins with these bits
// is a whole number whose last bits are the integer's, so that taking the number away leaves it exactly.
__device__ inline unsigned scale_two(unsigned pair, __half scale, __half bias) {
  const unsigned whole = 0x64006400u;  // twice 1024
  const unsigned sum = pair | whole;
  const __half2 integers = __hsub2(*reinterpret_cast<const __half2*>(&sum), *reinterpret_cast<const __half2*>(&whole));
  const __half2 scaled = __hfma2(integers, __half2{scale, scale}, __half2{bias, bias});
  return *reinterpret_cast<const unsigned*>(&scaled);
}

__device__ inline unsigned scale_two(unsigned pair, __nv_bfloat16 scale, __nv_bfloat16 bias) {
  const unsigned whole = 0x43004300u;  // twice 128
  const unsigned sum = pair | whole;
  const __nv_bfloat162 integers =
      __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&sum), *reinterpret_cast<const __nv_bfloat162*>(&whole));
  const __nv_bfloat162 scaled = __hfma2(integers, __nv_bfloat162{scale, scale}, __nv_bfloat162{bias, bias});
  return *reinterpret_cast<const unsigned*>(&scaled);
}

__device__ inline float byte_of(unsigned word, int i) {  // without a conversion, which takes four times as long
  const unsigned sum = 0x4b000000u | (word >> (8 * i) & 0xffu);
  return *reinterpret_cast<const float*>(&sum) - 8388608.0f;
}

// The e-th eight weights of what a lane has read.
__device__ inline Eight unpack_eight(const Packed& packed, int e) {
  unsigned pairs[4];
#if BITS == 4
  UNROLLED
  for (int i = 0; i < 4; i++) {
    const unsigned byte = packed.words[e] >> (8 * i) & 0xffu;
    pairs[i] = scale_two((byte | byte << 12) & 0x000f000fu, packed.scale, packed.bias);
  }
#else
  const float scale = static_cast<float>(packed.scale);
  const float bias = static_cast<float>(packed.bias);
  UNROLLED
  for (int i = 0; i < 4; i++) {
    const unsigned word = packed.words[2 * e + i / 2];
    pairs[i] = pack(fmaf(byte_of(word, i % 2 * 2), scale, bias), fmaf(byte_of(word, i % 2 * 2 + 1), scale, bias));
  }
#endif
  Eight eight;
  eight.words[0] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  return eight;
}
