// The names the bodies use, in CUDA. Included after MLX's own utilities, which bring the half types.
#define SHARED __shared__
#define DEVICE
#define BARRIER() __syncthreads()
#define UNROLLED _Pragma("unroll")

typedef ELEMENT_TYPE element;

__device__ inline float shuffle_xor(float x, int offset) { return __shfl_xor_sync(0xffffffffu, x, offset); }
__device__ inline float exp2_of(float x) {  // one instruction, within two units in the last place; exp2f takes five
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
__device__ inline float log2_of(float x) { return log2f(x); }
__device__ inline float tanh_of(float x) { return tanhf(x); }
__device__ inline float cos_of(float x) { return cosf(x); }
__device__ inline float sin_of(float x) { return sinf(x); }
__device__ inline float rsqrt_of(float x) { return rsqrtf(x); }
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline int larger(int a, int b) { return a > b ? a : b; }
__device__ inline int smaller(int a, int b) { return a < b ? a : b; }

// Eight neighbouring elements, read and written in accesses of 16 bytes.
struct Eight {
  uint4 words[sizeof(element) / 2];
};

__device__ inline Eight load_eight(const element* from) {
  const uint4* vectors = reinterpret_cast<const uint4*>(from);
  Eight eight;
  UNROLLED
  for (int i = 0; i < int(sizeof(element) / 2); i++) eight.words[i] = vectors[i];
  return eight;
}

__device__ inline void store_eight(element* to, Eight eight) {
  uint4* vectors = reinterpret_cast<uint4*>(to);
  UNROLLED
  for (int i = 0; i < int(sizeof(element) / 2); i++) vectors[i] = eight.words[i];
}

__device__ inline Eight zero_eight() {
  Eight eight;
  UNROLLED
  for (int i = 0; i < int(sizeof(element) / 2); i++) eight.words[i] = make_uint4(0u, 0u, 0u, 0u);
  return eight;
}

__device__ inline float at(const Eight& eight, int i) {
  return static_cast<float>(reinterpret_cast<const element*>(eight.words)[i]);
}
