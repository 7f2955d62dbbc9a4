// The names the bodies use, in Metal. Included after MLX's own utilities, which bring metal_stdlib and bfloat16_t.
#define SHARED threadgroup
#define DEVICE device
#define BARRIER() metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup)
#define UNROLLED _Pragma("clang loop unroll(full)")

typedef ELEMENT_TYPE element;

inline float shuffle_xor(float x, int offset) { return metal::simd_shuffle_xor(x, ushort(offset)); }
inline float exp2_of(float x) { return metal::fast::exp2(x); }
inline float log2_of(float x) { return metal::log2(x); }
inline float tanh_of(float x) { return metal::precise::tanh(x); }
inline float cos_of(float x) { return metal::precise::cos(x); }
inline float sin_of(float x) { return metal::precise::sin(x); }
inline float rsqrt_of(float x) { return metal::precise::rsqrt(x); }
inline float larger(float a, float b) { return metal::max(a, b); }
inline int larger(int a, int b) { return metal::max(a, b); }
inline int smaller(int a, int b) { return metal::min(a, b); }

// Eight neighbouring elements, read and written in two vector accesses.
struct Eight {
  metal::vec<element, 4> low;
  metal::vec<element, 4> high;
};

inline Eight load_eight(const device element* from) {
  const device metal::vec<element, 4>* vectors = reinterpret_cast<const device metal::vec<element, 4>*>(from);
  Eight eight;
  eight.low = vectors[0];
  eight.high = vectors[1];
  return eight;
}

inline void store_eight(device element* to, Eight eight) {
  device metal::vec<element, 4>* vectors = reinterpret_cast<device metal::vec<element, 4>*>(to);
  vectors[0] = eight.low;
  vectors[1] = eight.high;
}

inline Eight zero_eight() {
  Eight eight;
  eight.low = metal::vec<element, 4>(element(0.0f));
  eight.high = metal::vec<element, 4>(element(0.0f));
  return eight;
}

inline float at(Eight eight, int i) { return i < 4 ? float(eight.low[i]) : float(eight.high[i - 4]); }
