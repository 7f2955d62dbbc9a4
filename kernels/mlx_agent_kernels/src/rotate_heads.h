// The projections of a token as attention wants them: one simdgroup a head, of queries, keys or values.
//
// Queries and keys are normalised head by head (HAS_NORM) and turned by their position (RoPE: Su et al., 2021). Keys and
// values go to their slots of the pools, which are inputs to MLX and written all the same.
const int pairs = ROTARY_DIMS / 2;
const int pair_steps = (pairs + 31) / 32;  // pairs of each lane
const int all_heads = (GROUP + 2) * KV_HEADS;
const int heads = GROUP * KV_HEADS;
const int64_t index = int64_t(group_x) * HEAD_WARPS + warp;
const int64_t token = index / all_heads;
const int head = int(index % all_heads);
if (token >= positions_shape[0]) return;
const bool is_query = head < heads;
const bool is_value = head >= heads + KV_HEADS;
const int kv_head = (head - heads) % KV_HEADS;
const int64_t from = index * HEAD_DIM;
const int64_t query_place = (token * heads + head) * HEAD_DIM;
const int64_t kv_place = (int64_t(slot_mapping[token]) * KV_HEADS + kv_head) * HEAD_DIM;

if (is_value) {
  DEVICE element* values = const_cast<DEVICE element*>(v_pool);
  for (int dim = lane; dim < HEAD_DIM; dim += 32) values[kv_place + dim] = projected[from + dim];
  return;  // all lanes of the simdgroup together
}

float first[pair_steps];
float second[pair_steps];
UNROLLED
for (int i = 0; i < pair_steps; i++) {
  const int pair = 32 * i + lane;
  const int dim = TRADITIONAL ? 2 * pair : pair;
  first[i] = pair < pairs ? static_cast<float>(projected[from + dim]) : 0.0f;
  second[i] = pair < pairs ? static_cast<float>(projected[from + dim + (TRADITIONAL ? 1 : pairs)]) : 0.0f;
}

#if HAS_NORM
float squares = 0.0f;
UNROLLED
for (int i = 0; i < pair_steps; i++) squares += first[i] * first[i] + second[i] * second[i];
for (int dim = ROTARY_DIMS + lane; dim < HEAD_DIM; dim += 32) {
  const float rest = static_cast<float>(projected[from + dim]);
  squares += rest * rest;
}
UNROLLED
for (int distance = 16; distance > 0; distance /= 2) squares += shuffle_xor(squares, distance);
const float normalizer = rsqrt_of(squares / float(HEAD_DIM) + EPS);
#endif

DEVICE element* keys = const_cast<DEVICE element*>(k_pool);
DEVICE element* target = is_query ? queries + query_place : keys + kv_place;
const float position = float(positions[token]);
UNROLLED
for (int i = 0; i < pair_steps; i++) {
  const int pair = 32 * i + lane;
  if (pair >= pairs) continue;
  const int first_dim = TRADITIONAL ? 2 * pair : pair;
  const int second_dim = first_dim + (TRADITIONAL ? 1 : pairs);
#if HAS_NORM
  first[i] *= normalizer * static_cast<float>(is_query ? q_norm[first_dim] : k_norm[first_dim]);
  second[i] *= normalizer * static_cast<float>(is_query ? q_norm[second_dim] : k_norm[second_dim]);
#endif
  const float angle = position * frequencies[pair];
  const float cosine = cos_of(angle);
  const float sine = sin_of(angle);
  target[first_dim] = static_cast<element>(first[i] * cosine - second[i] * sine);
  target[second_dim] = static_cast<element>(first[i] * sine + second[i] * cosine);
}
for (int dim = ROTARY_DIMS + lane; dim < HEAD_DIM; dim += 32) {
#if HAS_NORM
  const float scale = normalizer * static_cast<float>(is_query ? q_norm[dim] : k_norm[dim]);
  target[dim] = static_cast<element>(static_cast<float>(projected[from + dim]) * scale);
#else
  target[dim] = projected[from + dim];
#endif
}
