// Attention of one decode row's query heads of one KV head over one split of the row's tokens.
//
// LANES lanes hold a token's HEAD_DIM elements, eight each, so a simdgroup works on 32 / LANES tokens at once, UNROLL
// times over; every such set of lanes keeps an online softmax of its own (Milakov and Gimelshein, 2018) in log2 units.
// They are merged in the end: within the simdgroup by shuffles, across simdgroups through threadgroup memory. A
// simdgroup serves TILE_HEADS heads; the simdgroups of other tiles read the same keys from the cache.
const int kv_head = group_x;
const int split = group_y;
const int num_splits = groups_y;
const int64_t row = group_z;
const int tile = warp % HEAD_TILES;
const int stream = warp / HEAD_TILES;
const int part = lane / LANES;
const int column = (lane % LANES) * 8;
const bool has_columns = column < HEAD_DIM;
const int64_t table = row * block_tables_shape[1];
const int own_columns = kv_head * HEAD_DIM + column;  // within a slot
const int parts = 32 / LANES;
const int step = parts * UNROLL;
const int heads = KV_HEADS * GROUP;
const float lowest = -1e30f;
const float log2_e = 1.4426950408889634f;
#if HAS_SOFTCAP
const float score_scale = SCALE / SOFTCAP;
#else
const float score_scale = SCALE * log2_e;
#endif

const int seq_len = seq_lens[row];
#if HAS_WINDOW
const int first = larger(seq_len - WINDOW, 0);
#else
const int first = 0;
#endif
const int share = (seq_len - first + num_splits - 1) / num_splits;
const int split_len = larger((share + step * STREAMS - 1) / (step * STREAMS) * (step * STREAMS), MIN_SPLIT);
const int begin = first + split * split_len;
const int end = smaller(begin + split_len, seq_len);

#if PARTIAL
if (begin >= end && split > 0) {
  for (int i = index_in_group; i < GROUP; i += 32 * HEAD_TILES * STREAMS) {
    lse[(row * heads + kv_head * GROUP + i) * num_splits + split] = lowest;
  }
  return;  // all lanes of the threadgroup together
}
#endif

float query[TILE_HEADS][8];
float highest[TILE_HEADS];
float mass[TILE_HEADS];
float sums[TILE_HEADS][8];
UNROLLED
for (int g = 0; g < TILE_HEADS; g++) {
  // The last tile may have lanes without a head: they compute the last head again and write nothing.
  const int head = kv_head * GROUP + smaller(tile * TILE_HEADS + g, GROUP - 1);
  const Eight loaded = has_columns ? load_eight(queries + (row * heads + head) * HEAD_DIM + column) : zero_eight();
  UNROLLED
  for (int i = 0; i < 8; i++) {
    query[g][i] = at(loaded, i) * score_scale;
    sums[g][i] = 0.0f;
  }
  highest[g] = lowest;
  mass[g] = 0.0f;
#if HAS_SINKS
  if (split == 0 && stream == 0 && part == 0) {  // a sink is a token without a value, counted once
    highest[g] = static_cast<float>(sinks[head]) * log2_e;
    mass[g] = 1.0f;
  }
#endif
}

for (int base = begin + stream * step; base < end; base += STREAMS * step) {
  Eight keys[UNROLL];
  Eight values[UNROLL];
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    // After the end the last token is read again, and its weight is zero: a slot of nobody may hold anything.
    const int token = smaller(base + u * parts + part, end - 1);
    const int slot = block_tables[table + token / BLOCK_SIZE] * BLOCK_SIZE + token % BLOCK_SIZE;
    const int64_t offset = int64_t(slot) * (KV_HEADS * HEAD_DIM) + own_columns;
    keys[u] = has_columns ? load_eight(k_pool + offset) : zero_eight();
    values[u] = has_columns ? load_eight(v_pool + offset) : zero_eight();
  }
  float scores[TILE_HEADS][UNROLL];
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    float key[8];
    UNROLLED
    for (int i = 0; i < 8; i++) key[i] = at(keys[u], i);
    UNROLLED
    for (int g = 0; g < TILE_HEADS; g++) {
      float score = query[g][0] * key[0];
      UNROLLED
      for (int i = 1; i < 8; i++) score += query[g][i] * key[i];
      scores[g][u] = score;
    }
  }
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    UNROLLED
    for (int g = 0; g < TILE_HEADS; g++) {
      UNROLLED
      for (int distance = LANES / 2; distance > 0; distance /= 2) {
        scores[g][u] += shuffle_xor(scores[g][u], distance);
      }
#if HAS_SOFTCAP
      scores[g][u] = tanh_of(scores[g][u]) * (SOFTCAP * log2_e);
#endif
    }
  }
  UNROLLED
  for (int g = 0; g < TILE_HEADS; g++) {
    float now_highest = highest[g];
    UNROLLED
    for (int u = 0; u < UNROLL; u++) now_highest = larger(now_highest, scores[g][u]);
    const float shrink = exp2_of(highest[g] - now_highest);
    highest[g] = now_highest;
    mass[g] *= shrink;
    UNROLLED
    for (int i = 0; i < 8; i++) sums[g][i] *= shrink;
    UNROLLED
    for (int u = 0; u < UNROLL; u++) {
      const bool is_seen = base + u * parts + part < end;
      scores[g][u] = is_seen ? exp2_of(scores[g][u] - now_highest) : 0.0f;
      mass[g] += scores[g][u];
    }
  }
  UNROLLED
  for (int u = 0; u < UNROLL; u++) {
    float value[8];
    UNROLLED
    for (int i = 0; i < 8; i++) value[i] = at(values[u], i);
    UNROLLED
    for (int g = 0; g < TILE_HEADS; g++) {
      UNROLLED
      for (int i = 0; i < 8; i++) sums[g][i] += scores[g][u] * value[i];
    }
  }
}

SHARED float shared_sums[HEAD_TILES * STREAMS][TILE_HEADS][HEAD_DIM];
SHARED float shared_highest[HEAD_TILES * STREAMS][TILE_HEADS];
SHARED float shared_mass[HEAD_TILES * STREAMS][TILE_HEADS];
UNROLLED
for (int g = 0; g < TILE_HEADS; g++) {
  UNROLLED
  for (int distance = LANES; distance < 32; distance *= 2) {
    const float now_highest = larger(highest[g], shuffle_xor(highest[g], distance));
    const float shrink = exp2_of(highest[g] - now_highest);
    highest[g] = now_highest;
    mass[g] *= shrink;
    mass[g] += shuffle_xor(mass[g], distance);
    UNROLLED
    for (int i = 0; i < 8; i++) {
      sums[g][i] *= shrink;
      sums[g][i] += shuffle_xor(sums[g][i], distance);
    }
  }
  if (lane == 0) {
    shared_highest[warp][g] = highest[g];
    shared_mass[warp][g] = mass[g];
  }
  if (part == 0 && has_columns) {
    UNROLLED
    for (int i = 0; i < 8; i++) shared_sums[warp][g][column + i] = sums[g][i];
  }
}
BARRIER();

for (int i = index_in_group; i < GROUP * HEAD_DIM; i += 32 * HEAD_TILES * STREAMS) {
  const int index = i / HEAD_DIM;
  const int dim = i % HEAD_DIM;
  const int g = index % TILE_HEADS;
  const int from = index / TILE_HEADS;  // the first stream's simdgroup of that tile
  float top = shared_highest[from][g];
  for (int s = 1; s < STREAMS; s++) top = larger(top, shared_highest[from + s * HEAD_TILES][g]);
  float all_mass = 0.0f;
  float sum = 0.0f;
  for (int s = 0; s < STREAMS; s++) {
    const float weight = exp2_of(shared_highest[from + s * HEAD_TILES][g] - top);
    all_mass += weight * shared_mass[from + s * HEAD_TILES][g];
    sum += weight * shared_sums[from + s * HEAD_TILES][g][dim];
  }
  const float result = all_mass > 0.0f ? sum / all_mass : 0.0f;
  const float log_mass = all_mass > 0.0f ? top + log2_of(all_mass) : lowest;
  const int64_t head = row * heads + kv_head * GROUP + index;
#if PARTIAL
  out[(head * num_splits + split) * HEAD_DIM + dim] = result;
  if (dim == 0) lse[head * num_splits + split] = log_mass;
#else
  out[head * HEAD_DIM + dim] = static_cast<element>(result);
  if (dim == 0) lse[head] = log_mass * 0.6931471805599453f;
#endif
}
