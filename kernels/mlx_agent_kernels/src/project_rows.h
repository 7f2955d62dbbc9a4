// Rows times a matrix of weights: a threadgroup has 16 features of up to ROW_TILES * 8 rows.
//
// Its simdgroups share the inputs in slabs and add up their sums in threadgroup memory. Each element goes straight to
// the register of the lane that multiplies it: a product may take the elements of its sum in any order, so a lane's
// EIGHTS eights of a weight row meet the same eights of x. With BITS the weights are packed, and become elements in
// the lane's registers: integer * scale + bias, rounded once. With HAS_NORM the rows are normalised (RMS norm): inputs
// are scaled by the norm's weight on their way, and the sums by the size of their row, which is added up meanwhile.
// GATED has two parts: the features of gates, and their partners of the other half of the weights.
#if GATED
#define PARTS 2
#else
#define PARTS 1
#endif
#if BITS
#define EIGHTS 2  // of a lane in a slab
#else
#define EIGHTS 1
#endif
const int rows = x_shape[0];
const int quad = lane / 4;
const int quarter = lane % 4;
const int slab_width = 32 * EIGHTS;
const int slabs = (IN + slab_width - 1) / slab_width;
const int rounds = (slabs + WARPS * UNROLL - 1) / (WARPS * UNROLL);
const int first_feature = group_x * 16;
const int first_row = group_y * ROW_TILES * 8;

float sums[PARTS][ROW_TILES][4];
UNROLLED
for (int part = 0; part < PARTS; part++) {
  UNROLLED
  for (int n = 0; n < ROW_TILES; n++) {
    UNROLLED
    for (int i = 0; i < 4; i++) sums[part][n][i] = 0.0f;
  }
}
#if HAS_NORM
float squares[ROW_TILES][4];  // products of rows with each other, of which a row's with itself is looked at
UNROLLED
for (int n = 0; n < ROW_TILES; n++) {
  UNROLLED
  for (int i = 0; i < 4; i++) squares[n][i] = 0.0f;
}
#endif

for (int round = 0; round < rounds; round++) {
  const int first_slab = (round * WARPS + warp) * UNROLL;
#if BITS
  Packed weights[UNROLL][PARTS][2];
#else
  Eight weights[UNROLL][PARTS][2];
#endif
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    const int column = (first_slab + u) * slab_width + quarter * 8 * EIGHTS;
    UNROLLED
    for (int part = 0; part < PARTS; part++) {
      UNROLLED
      for (int half = 0; half < 2; half++) {
        const int64_t feature = first_feature + part * OUT + half * 8 + quad;
#if BITS
        const int64_t index = feature * IN + column;
        const int64_t group = index / GROUP_SIZE;
        weights[u][part][half] =
            column < IN ? load_packed(weight + index / (32 / BITS), scales[group], biases[group]) : zero_packed();
#else
        weights[u][part][half] = column < IN ? load_eight(weight + feature * IN + column) : zero_eight();
#endif
      }
    }
  }
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    UNROLLED
    for (int e = 0; e < EIGHTS; e++) {
      const int column = (first_slab + u) * slab_width + quarter * 8 * EIGHTS + e * 8;
#if HAS_NORM
      const Eight norm = column < IN ? load_eight(norm_weight + column) : zero_eight();
#endif
      Eight inputs[ROW_TILES];
      UNROLLED
      for (int n = 0; n < ROW_TILES; n++) {
        const int row = first_row + n * 8 + quad;
        inputs[n] = row < rows && column < IN ? load_eight(x + int64_t(row) * IN + column) : zero_eight();
#if HAS_NORM
        multiply_tiles(squares[n], inputs[n], zero_eight(), inputs[n]);
        inputs[n] = multiply_eight(inputs[n], norm);
#endif
      }
      UNROLLED
      for (int part = 0; part < PARTS; part++) {
#if BITS
        const Eight low = unpack_eight(weights[u][part][0], e);
        const Eight high = unpack_eight(weights[u][part][1], e);
#else
        const Eight low = weights[u][part][0];
        const Eight high = weights[u][part][1];
#endif
        UNROLLED
        for (int n = 0; n < ROW_TILES; n++) multiply_tiles(sums[part][n], low, high, inputs[n]);
      }
    }
  }
}

#if HAS_NORM
SHARED float squares_of[WARPS * ROW_TILES * 8];
UNROLLED
for (int n = 0; n < ROW_TILES; n++) {
  if (quad / 2 == quarter) squares_of[(warp * ROW_TILES + n) * 8 + quad] = quad % 2 == 0 ? squares[n][0] : squares[n][1];
}
#endif
SHARED float shared[WARPS * ROW_TILES * 128];
const int places = (ROW_TILES * 4 + WARPS - 1) / WARPS;  // of a row and a feature each, a lane
float totals[PARTS][places];
UNROLLED
for (int part = 0; part < PARTS; part++) {
  if (part > 0) BARRIER();  // the first part's sums have been read
  UNROLLED
  for (int n = 0; n < ROW_TILES; n++) store_four(shared + ((warp * ROW_TILES + n) * 32 + lane) * 4, sums[part][n]);
  BARRIER();
  UNROLLED
  for (int p = 0; p < places; p++) {
    const int index = p * 32 * WARPS + index_in_group;
    const int feature = index % 16;
    const int row = index / 16;
    if (row >= ROW_TILES * 8) continue;
    // Where multiply_tiles leaves the sum of a feature and a row: which lane's, and which of its four.
    const int place = row / 8 * 128 + (feature % 8 * 4 + row % 8 / 2) * 4 + feature / 8 * 2 + row % 2;
    totals[part][p] = 0.0f;
    UNROLLED
    for (int w = 0; w < WARPS; w++) totals[part][p] += shared[w * ROW_TILES * 128 + place];
  }
}

UNROLLED
for (int p = 0; p < places; p++) {
  const int index = p * 32 * WARPS + index_in_group;
  const int feature = first_feature + index % 16;
  const int row = index / 16;
  if (row >= ROW_TILES * 8 || first_row + row >= rows) continue;
#if HAS_NORM
  float size = 0.0f;
  UNROLLED
  for (int w = 0; w < WARPS; w++) size += squares_of[w * ROW_TILES * 8 + row];
  size = rsqrt_of(size / float(IN) + EPS);
  UNROLLED
  for (int part = 0; part < PARTS; part++) totals[part][p] *= size;
#endif
#if HAS_BIAS
  UNROLLED
  for (int part = 0; part < PARTS; part++) totals[part][p] += static_cast<float>(bias[part * OUT + feature]);
#endif
#if GATED
  float result = totals[0][p] / (1.0f + exp2_of(totals[0][p] * -1.4426950408889634f)) * totals[1][p];
#else
  float result = totals[0][p];
#endif
  const int64_t target = int64_t(first_row + row) * OUT + feature;
#if HAS_RESIDUAL
  result += static_cast<float>(residual[target]);
#endif
  out[target] = static_cast<element>(result);
}
