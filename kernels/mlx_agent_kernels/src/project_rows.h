// A few rows times a matrix of weights: the features of all rows, of one or two tiles of 16 features a threadgroup.
//
// Weights are what takes the time, and each is read once, into the registers of the lane that multiplies it: a product
// may take the elements of its sum in any order, so a lane's 16 bytes of a weight row meet the same 16 bytes of x. The
// simdgroups share the inputs in slabs of 32 and add up their sums in threadgroup memory. With HAS_NORM the rows are
// normalised on the way (RMS norm), GATED joins a gate's tile with its partner of the other half of the features.
const int rows = x_shape[0];
const int quad = lane / 4;
const int quarter = lane % 4;
const int slabs = IN / 32;
const int rounds = (slabs + WARPS * UNROLL - 1) / (WARPS * UNROLL);
#if GATED
const int tile_stride = OUT;  // from a gate's features to those that it gates
const int features = 16;
#else
const int tile_stride = 16;
const int features = 16 * TILES;
#endif
const int first_feature = group_x * features;

SHARED float shared[WARPS * TILES * ROW_TILES * 128];
float sums[TILES][ROW_TILES][4];
#if HAS_NORM
float normalizer[ROW_TILES];
#endif
UNROLLED
for (int f = 0; f < TILES; f++) {
  UNROLLED
  for (int n = 0; n < ROW_TILES; n++) {
    UNROLLED
    for (int i = 0; i < 4; i++) sums[f][n][i] = 0.0f;
  }
}

for (int round = 0; round < rounds; round++) {
  const int first_slab = (round * WARPS + warp) * UNROLL;
  Eight weights[UNROLL][TILES][2];
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    const int column = (first_slab + u) * 32 + quarter * 8;
    UNROLLED
    for (int f = 0; f < TILES; f++) {
      UNROLLED
      for (int half = 0; half < 2; half++) {
        const int64_t feature = first_feature + f * tile_stride + half * 8 + quad;
        weights[u][f][half] = column < IN ? load_eight(weight + feature * IN + column) : zero_eight();
      }
    }
  }
#if HAS_NORM
  if (round == 0) {  // while the first weights are on their way
    const int own_rows = (ROW_TILES * 8 + WARPS - 1) / WARPS;
    float squares[own_rows];
    UNROLLED
    for (int r = 0; r < own_rows; r++) squares[r] = 0.0f;
    for (int column = lane * 8; column < IN; column += 256) {
      UNROLLED
      for (int r = 0; r < own_rows; r++) {
        const int row = r * WARPS + warp;
        const Eight loaded = row < rows ? load_eight(x + int64_t(row) * IN + column) : zero_eight();
        UNROLLED
        for (int i = 0; i < 8; i++) squares[r] += at(loaded, i) * at(loaded, i);
      }
    }
    UNROLLED
    for (int r = 0; r < own_rows; r++) {
      UNROLLED
      for (int distance = 16; distance > 0; distance /= 2) squares[r] += shuffle_xor(squares[r], distance);
      if (lane == 0 && r * WARPS + warp < ROW_TILES * 8) {
        shared[r * WARPS + warp] = rsqrt_of(squares[r] / float(IN) + EPS);
      }
    }
    BARRIER();
    UNROLLED
    for (int n = 0; n < ROW_TILES; n++) normalizer[n] = shared[n * 8 + quad];
  }
#endif
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    const int column = (first_slab + u) * 32 + quarter * 8;
#if HAS_NORM
    const Eight norm = column < IN ? load_eight(norm_weight + column) : zero_eight();
#endif
    UNROLLED
    for (int n = 0; n < ROW_TILES; n++) {
      const int row = n * 8 + quad;
      Eight inputs = row < rows && column < IN ? load_eight(x + int64_t(row) * IN + column) : zero_eight();
#if HAS_NORM
      UNROLLED
      for (int i = 0; i < 8; i++) put(inputs, i, at(inputs, i) * normalizer[n] * at(norm, i));
#endif
      UNROLLED
      for (int f = 0; f < TILES; f++) multiply_tiles(sums[f][n], weights[u][f][0], weights[u][f][1], inputs);
    }
  }
}

BARRIER();
UNROLLED
for (int f = 0; f < TILES; f++) {
  UNROLLED
  for (int n = 0; n < ROW_TILES; n++) {
    UNROLLED
    for (int i = 0; i < 4; i++) shared[((warp * TILES + f) * ROW_TILES + n) * 128 + lane * 4 + i] = sums[f][n][i];
  }
}
BARRIER();

for (int i = index_in_group; i < ROW_TILES * 8 * features; i += 32 * WARPS) {
  const int feature = i % features;
  const int row = i / features;
  if (row >= rows) continue;
  // Where multiply_tiles leaves the sum of a feature and a row: which lane's, and which of its four.
  const int place = row / 8 * 128 + (feature % 8 * 4 + row % 8 / 2) * 4 + feature % 16 / 8 * 2 + row % 2;
  float total[GATED ? 2 : 1];
  UNROLLED
  for (int part = 0; part < (GATED ? 2 : 1); part++) {
    const int tile = GATED ? part : feature / 16;
    total[part] = 0.0f;
    for (int w = 0; w < WARPS; w++) total[part] += shared[(w * TILES + tile) * ROW_TILES * 128 + place];
#if HAS_BIAS
    total[part] += static_cast<float>(bias[first_feature + part * OUT + feature]);
#endif
  }
#if GATED
  float result = total[0] / (1.0f + exp2_of(total[0] * -1.4426950408889634f)) * total[1];
#else
  float result = total[0];
#endif
  const int64_t target = int64_t(row) * OUT + first_feature + feature;
#if HAS_RESIDUAL
  result += static_cast<float>(residual[target]);
#endif
  out[target] = static_cast<element>(result);
}
