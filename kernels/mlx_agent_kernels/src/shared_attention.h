// Attention of a group's queries over the tokens that its rows have in common, on tensor cores, block by block of the pool.
//
// A simdgroup has 16 queries of one KV head: scores as a product of queries and keys, an online softmax in log2 units, and
// the sums as a product of weights and values (as in FlashAttention: Dao et al., 2022). A threadgroup's simdgroups take
// the same TILE tokens, whose keys and values are copied to threadgroup memory two tiles before they are used. A product
// may take dimensions and tokens in any order, so a lane reads 16 bytes of a key where it brings eight dimensions, and 16
// bytes of a value where the eight are columns of eight products. Where these stand in a token's row depends on the
// token, so that the lanes that read at once meet in no bank.
#define TILE 32
#define BUFFERS 3
const int kv_head = group_x % KV_HEADS;
const int split = group_y;
const int num_splits = groups_y;
const int64_t group = group_z;
const int num_members = members_shape[1];
const int num_blocks = block_tables_shape[1];
const int num_queries = num_members * GROUP;
const int warps = simdgroups_in_group();
const int first_query = (group_x / KV_HEADS * warps + warp) * 16;
const bool has_queries = first_query < num_queries;  // the others only copy
const int quad = lane / 4;
const int quarter = lane % 4;
const int eights = HEAD_DIM / 8;
const int slabs = HEAD_DIM / 32;
const int sets = HEAD_DIM / 64;
const float lowest = -1e30f;
const float log2_e = 1.4426950408889634f;
#if HAS_SOFTCAP
#define SCORE(raw) (tanh_of((raw) * (SCALE / SOFTCAP)) * (SOFTCAP * log2_e))
#else
#define SCORE(raw) ((raw) * (SCALE * log2_e))
#endif

const int seq_len = seq_lens[group];
#if HAS_WINDOW
int group_first = seq_len;  // of the tokens that any member sees
for (int m = 0; m < num_members; m++) group_first = smaller(group_first, firsts[group * num_members + m]);
#else
const int group_first = 0;
#endif
const int share = ((seq_len - group_first + num_splits - 1) / num_splits + 15) / 16 * 16;
const int begin = group_first + split * share;
const int end = smaller(begin + share, seq_len);
const int64_t first_place = (group * KV_HEADS + kv_head) * num_queries;

Eight query[2][slabs];
int first[2];  // that the query sees
UNROLLED
for (int half = 0; half < 2; half++) {
  const int own = smaller(first_query + half * 8 + quad, num_queries - 1);
#if HAS_WINDOW
  first[half] = firsts[group * num_members + own / GROUP];
#else
  first[half] = 0;
#endif
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

SHARED Eight keys[BUFFERS][TILE * eights];
SHARED Eight values[BUFFERS][TILE * eights];
const int num_tiles = (larger(end - begin, 0) + TILE - 1) / TILE;
for (int tile = 1 - BUFFERS; tile < num_tiles; tile++) {
  if (tile >= 0) {
    await_copies_but_last<BUFFERS - 2>();
    BARRIER();  // the copies of all lanes have come, and nobody reads what the next ones replace
  }
  const int coming = tile + BUFFERS - 1;
  if (coming < num_tiles) {
    for (int i = index_in_group; i < TILE * eights; i += 32 * warps) {
      const int place = i / eights;
      const int eight = i % eights;
      // After the end the last token is copied again, and its weight is zero.
      const int token = smaller(begin + coming * TILE + place, end - 1);
      const int slot = block_tables[group * num_blocks + token / BLOCK_SIZE] * BLOCK_SIZE + token % BLOCK_SIZE;
      const int64_t from = (int64_t(slot) * KV_HEADS + kv_head) * HEAD_DIM + eight * 8;
      copy_eight(&keys[coming % BUFFERS][place * eights + (eight ^ place % 2 * 4)], k_pool + from);
      copy_eight(&values[coming % BUFFERS][place * eights + (eight ^ place % 8 / 2 * 2)], v_pool + from);
    }
  }
  end_of_copies();
  if (tile < 0 || !has_queries) continue;

  const int base = begin + tile * TILE;
  float scores[TILE / 8][4];
  UNROLLED
  for (int n = 0; n < TILE / 8; n++) {
    UNROLLED
    for (int c = 0; c < 4; c++) scores[n][c] = 0.0f;
    UNROLLED
    for (int s = 0; s < slabs; s++) {
      const int eight = (s * 4 + quarter) ^ quad % 2 * 4;
      multiply_tiles(scores[n], query[0][s], query[1][s], keys[tile % BUFFERS][(n * 8 + quad) * eights + eight]);
    }
    UNROLLED
    for (int c = 0; c < 4; c++) {
      const int token = base + n * 8 + quarter * 2 + c % 2;
      scores[n][c] = token >= first[c / 2] && token < end ? SCORE(scores[n][c]) : lowest;
    }
  }
  UNROLLED
  for (int half = 0; half < 2; half++) {
    float now_highest = highest[half];
    UNROLLED
    for (int n = 0; n < TILE / 8; n++) {
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
    for (int n = 0; n < TILE / 8; n++) {
      UNROLLED
      for (int c = 2 * half; c < 2 * half + 2; c++) {
        // A query may see nothing of a tile, and then its highest score is one of those that do not count.
        scores[n][c] = scores[n][c] > lowest ? exp2_of(scores[n][c] - now_highest) : 0.0f;
        mass[half] += scores[n][c];
      }
    }
  }
  UNROLLED
  for (int n = 0; n < TILE / 8; n += 2) {
    const unsigned weights[4] = {pack(scores[n][0], scores[n][1]), pack(scores[n][2], scores[n][3]),
                                 pack(scores[n + 1][0], scores[n + 1][1]), pack(scores[n + 1][2], scores[n + 1][3])};
    UNROLLED
    for (int s = 0; s < sets; s++) {
      Eight four[4];  // of tokens 2 * quarter, the next one, and both 8 further on
      UNROLLED
      for (int i = 0; i < 4; i++) {
        const int place = n * 8 + i / 2 * 8 + quarter * 2 + i % 2;
        four[i] = values[tile % BUFFERS][place * eights + ((s * 8 + quad) ^ quarter * 2)];
      }
      UNROLLED
      for (int i = 0; i < 8; i++) {
        const unsigned columns[2] = {pair_at(four[0], four[1], i), pair_at(four[2], four[3], i)};
        multiply_pairs(sums[s][i], weights, columns, static_cast<const element*>(nullptr));
      }
    }
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
  if (!(mass[half] > 0.0f)) continue;  // what the merge does not read
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
