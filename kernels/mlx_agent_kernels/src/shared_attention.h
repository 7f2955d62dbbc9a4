// Attention of a group's queries over the tokens that its rows have in common, on tensor cores, block by block of the pool.
//
// A simdgroup has 16 queries of one KV head and takes 16 tokens at a time: scores as a product of queries and keys, an
// online softmax in log2 units, and the sums as a product of weights and values (as in FlashAttention: Dao et al., 2022).
// Keys and values go from the pool to the registers that multiply them. A product may take dimensions and tokens in any
// order, so a lane reads 16 bytes of a key where it brings eight dimensions, and 16 bytes of a value where the eight are
// columns of eight products.
const int kv_head = group_x % KV_HEADS;
const int split = group_y;
const int num_splits = groups_y;
const int64_t group = group_z;
const int num_members = members_shape[1];
const int num_blocks = block_tables_shape[1];
const int num_queries = num_members * GROUP;
const int first_query = (group_x / KV_HEADS * WARPS + warp) * 16;
if (first_query >= num_queries) return;  // all lanes of the simdgroup together, which meet no others
const int quad = lane / 4;
const int quarter = lane % 4;
const int slabs = HEAD_DIM / 32;
const int sets = HEAD_DIM / 64;
const float lowest = -1e30f;
const float scale = SCALE * 1.4426950408889634f;

const int seq_len = seq_lens[group];
const int share = ((seq_len + num_splits - 1) / num_splits + 15) / 16 * 16;
const int begin = split * share;
const int end = smaller(begin + share, seq_len);
const int64_t first_place = (group * KV_HEADS + kv_head) * num_queries;

Eight query[2][slabs];
UNROLLED
for (int half = 0; half < 2; half++) {
  const int own = smaller(first_query + half * 8 + quad, num_queries - 1);
  const int64_t row = members[group * num_members + own / GROUP];
  const int64_t from = ((row * KV_HEADS + kv_head) * GROUP + own % GROUP) * HEAD_DIM;
  UNROLLED
  for (int s = 0; s < slabs; s++) query[half][s] = load_eight(queries + from + s * 32 + quarter * 8);
}

float sums[sets][8][4];
float highest[2];
float mass[2];
UNROLLED
for (int half = 0; half < 2; half++) {
  highest[half] = lowest;
  mass[half] = 0.0f;
}
UNROLLED
for (int s = 0; s < sets; s++) {
  UNROLLED
  for (int i = 0; i < 8; i++) {
    UNROLLED
    for (int c = 0; c < 4; c++) sums[s][i][c] = 0.0f;
  }
}

// Keys and values are read one step ahead, each as soon as its last content was used: the other half of a step is computed
// meanwhile. Behind the end the last token is read again, and its weight is zero.
Eight keys[2][slabs];
Eight values[4][sets];
for (int base = begin < end ? begin - 16 : end; base < end; base += 16) {
  const bool has_content = base >= begin;
  float scores[2][4];
  UNROLLED
  for (int n = 0; n < 2; n++) {
    UNROLLED
    for (int c = 0; c < 4; c++) scores[n][c] = 0.0f;
    if (has_content) {
      UNROLLED
      for (int s = 0; s < slabs; s++) multiply_tiles(scores[n], query[0][s], query[1][s], keys[n][s]);
    }
    const int token = smaller(base + 16 + n * 8 + quad, end - 1);
    const int slot = block_tables[group * num_blocks + token / BLOCK_SIZE] * BLOCK_SIZE + token % BLOCK_SIZE;
    const int64_t from = (int64_t(slot) * KV_HEADS + kv_head) * HEAD_DIM;
    UNROLLED
    for (int s = 0; s < slabs; s++) keys[n][s] = load_eight(k_pool + from + s * 32 + quarter * 8);
    UNROLLED
    for (int c = 0; c < 4; c++) {
      scores[n][c] = base + n * 8 + quarter * 2 + c % 2 < end ? scores[n][c] * scale : lowest;
    }
  }
  if (has_content) {
    UNROLLED
    for (int half = 0; half < 2; half++) {
      float now_highest = highest[half];
      UNROLLED
      for (int n = 0; n < 2; n++) {
        now_highest = larger(now_highest, larger(scores[n][2 * half], scores[n][2 * half + 1]));
      }
      UNROLLED
      for (int distance = 1; distance < 4; distance *= 2) {
        now_highest = larger(now_highest, shuffle_xor(now_highest, distance));
      }
      const float shrink = exp2_of(highest[half] - now_highest);
      highest[half] = now_highest;
      mass[half] *= shrink;
      UNROLLED
      for (int s = 0; s < sets; s++) {
        UNROLLED
        for (int i = 0; i < 8; i++) {
          sums[s][i][2 * half] *= shrink;
          sums[s][i][2 * half + 1] *= shrink;
        }
      }
      UNROLLED
      for (int n = 0; n < 2; n++) {
        UNROLLED
        for (int c = 2 * half; c < 2 * half + 2; c++) {
          scores[n][c] = exp2_of(scores[n][c] - now_highest);
          mass[half] += scores[n][c];
        }
      }
    }
    const unsigned weights[4] = {pack(scores[0][0], scores[0][1]), pack(scores[0][2], scores[0][3]),
                                 pack(scores[1][0], scores[1][1]), pack(scores[1][2], scores[1][3])};
    UNROLLED
    for (int s = 0; s < sets; s++) {
      UNROLLED
      for (int i = 0; i < 8; i++) {
        const unsigned columns[2] = {pair_at(values[0][s], values[1][s], i), pair_at(values[2][s], values[3][s], i)};
        multiply_pairs(sums[s][i], weights, columns, static_cast<const element*>(nullptr));
      }
    }
  }
  UNROLLED
  for (int n = 0; n < 4; n++) {
    const int token = smaller(base + 16 + n / 2 * 8 + quarter * 2 + n % 2, end - 1);
    const int slot = block_tables[group * num_blocks + token / BLOCK_SIZE] * BLOCK_SIZE + token % BLOCK_SIZE;
    const int64_t from = (int64_t(slot) * KV_HEADS + kv_head) * HEAD_DIM;
    UNROLLED
    for (int s = 0; s < sets; s++) values[n][s] = load_eight(v_pool + from + s * 64 + quad * 8);
  }
}

UNROLLED
for (int half = 0; half < 2; half++) {
  UNROLLED
  for (int distance = 1; distance < 4; distance *= 2) mass[half] += shuffle_xor(mass[half], distance);
  const int own = first_query + half * 8 + quad;
  if (own >= num_queries) continue;
  const int64_t place = (first_place + own) * num_splits + split;
  if (quarter == 0) lse[place] = mass[half] > 0.0f ? highest[half] + log2_of(mass[half]) : lowest;
  if (begin >= end) continue;  // what the merge does not read
  const float inverse = 1.0f / mass[half];
  UNROLLED
  for (int s = 0; s < sets; s++) {
    UNROLLED
    for (int i = 0; i < 16; i += 4) {  // eight columns of one product each, and eight of another
      const int c = 2 * half + i / 8;
      float four[4];
      UNROLLED
      for (int j = 0; j < 4; j++) four[j] = sums[s][i % 8 + j][c] * inverse;
      store_four(out + place * HEAD_DIM + s * 64 + quarter * 16 + i, four);
    }
  }
}
