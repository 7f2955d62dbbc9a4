// One simdgroup joins one head's partial attentions, each a softmax over some tokens with its log-sum-exp.
//
// What the row shares with others are more parts, a few a level, laid out by group, KV head and query of the group; a
// place is the row's among groups and members, and -1 that of a row which shares nothing at that level. The lanes find
// the parts' weights side by side and leave them in threadgroup memory, so that many parts are read at once.
#define MAX_PARTS (32 * (1 + LEVELS))
#define IN_FLIGHT 4
const int heads = partial_lse_shape[1];
const int64_t num_heads = int64_t(partial_lse_shape[0]) * heads;  // of all rows
const int64_t own_head = int64_t(group_x) * MERGE_WARPS + warp;
const int64_t head = own_head < num_heads ? own_head : num_heads - 1;  // computed again, and not written
const float lowest = -1e30f;
const float ln_2 = 0.6931471805599453f;

const int num_own = partial_lse_shape[2];
const int64_t first_own = head * num_own;
#if LEVELS > 0
const int64_t row = head / heads;
const int kv_head = int(head % heads) / GROUP;
const int num_members_0 = prefix_out_0_shape[2] / GROUP;
const int num_shared_0 = places_0[row] < 0 ? 0 : prefix_out_0_shape[3];
const int place_0 = larger(places_0[row], 0);
const int64_t kv_place_0 = int64_t(place_0 / num_members_0) * KV_HEADS + kv_head;
const int64_t grouped_head_0 = (kv_place_0 * num_members_0 + place_0 % num_members_0) * GROUP + head % GROUP;
const int64_t first_0 = grouped_head_0 * prefix_out_0_shape[3];
#endif
#if LEVELS > 1
const int num_members_1 = prefix_out_1_shape[2] / GROUP;
const int num_shared_1 = places_1[row] < 0 ? 0 : prefix_out_1_shape[3];
const int place_1 = larger(places_1[row], 0);
const int64_t kv_place_1 = int64_t(place_1 / num_members_1) * KV_HEADS + kv_head;
const int64_t grouped_head_1 = (kv_place_1 * num_members_1 + place_1 % num_members_1) * GROUP + head % GROUP;
const int64_t first_1 = grouped_head_1 * prefix_out_1_shape[3];
#endif

SHARED float weights[MERGE_WARPS][MAX_PARTS];
#define KEEP_LOG_MASSES(from, log_masses, first, count) \
  for (int s = lane; s < count; s += 32) {              \
    weights[warp][from + s] = log_masses[first + s];    \
    top = larger(top, log_masses[first + s]);           \
  }
float top = lowest;
int num_parts = num_own;
KEEP_LOG_MASSES(0, partial_lse, first_own, num_own)
#if LEVELS > 0
KEEP_LOG_MASSES(num_parts, prefix_lse_0, first_0, num_shared_0)
num_parts += num_shared_0;
#endif
#if LEVELS > 1
KEEP_LOG_MASSES(num_parts, prefix_lse_1, first_1, num_shared_1)
num_parts += num_shared_1;
#endif
UNROLLED
for (int distance = 1; distance < 32; distance *= 2) top = larger(top, shuffle_xor(top, distance));
BARRIER();
float mass = 0.0f;
for (int s = lane; s < num_parts; s += 32) {
  const float log_mass = weights[warp][s];
  weights[warp][s] = log_mass > lowest ? exp2_of(log_mass - top) : 0.0f;
  mass += weights[warp][s];
}
UNROLLED
for (int distance = 1; distance < 32; distance *= 2) mass += shuffle_xor(mass, distance);
BARRIER();

const int columns = (HEAD_DIM + 31) / 32;  // of each lane
float sums[columns];
UNROLLED
for (int i = 0; i < columns; i++) sums[i] = 0.0f;
// A part without weight is not read: an empty split wrote none.
#define ADD_PARTS(from, outputs, first, count)                                                                   \
  for (int s = 0; s < count; s += IN_FLIGHT) {                                                                   \
    float parts[IN_FLIGHT][columns];                                                                             \
    float part_weights[IN_FLIGHT];                                                                               \
    UNROLLED                                                                                                     \
    for (int u = 0; u < IN_FLIGHT; u++) {                                                                        \
      part_weights[u] = s + u < count ? weights[warp][from + s + u] : 0.0f;                                      \
      UNROLLED                                                                                                   \
      for (int i = 0; i < columns; i++) {                                                                        \
        const int dim = 32 * i + lane;                                                                           \
        const bool is_read = part_weights[u] > 0.0f && dim < HEAD_DIM;                                           \
        parts[u][i] = is_read ? static_cast<float>(outputs[(first + s + u) * HEAD_DIM + dim]) : 0.0f;            \
      }                                                                                                          \
    }                                                                                                            \
    UNROLLED                                                                                                     \
    for (int u = 0; u < IN_FLIGHT; u++) {                                                                        \
      UNROLLED                                                                                                   \
      for (int i = 0; i < columns; i++) sums[i] += part_weights[u] * parts[u][i];                                \
    }                                                                                                            \
  }
ADD_PARTS(0, partials, first_own, num_own)
#if LEVELS > 0
ADD_PARTS(num_own, prefix_out_0, first_0, num_shared_0)
#endif
#if LEVELS > 1
ADD_PARTS(num_own + num_shared_0, prefix_out_1, first_1, num_shared_1)
#endif

if (own_head < num_heads) {
  UNROLLED
  for (int i = 0; i < columns; i++) {
    const int dim = 32 * i + lane;
    if (dim < HEAD_DIM) out[head * HEAD_DIM + dim] = static_cast<element>(mass > 0.0f ? sums[i] / mass : 0.0f);
  }
  if (lane == 0) lse[head] = mass > 0.0f ? (top + log2_of(mass)) * ln_2 : lowest;
}
