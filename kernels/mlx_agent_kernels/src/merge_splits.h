// One simdgroup joins one head's partial attentions, each a softmax over some tokens with its log-sum-exp.
//
// What the row shares with others are more parts, a few a level, laid out by group, KV head and query of the group; a
// place is the row's among groups and members, and -1 that of a row which shares nothing at that level.
const int heads = partial_lse_shape[1];
const int num_splits = partial_lse_shape[2];
const int64_t head = int64_t(group_x) * MERGE_WARPS + warp;  // counted over all rows
if (head >= int64_t(partial_lse_shape[0]) * heads) return;
const float lowest = -1e30f;
const float ln_2 = 0.6931471805599453f;

float top = lowest;
for (int s = 0; s < num_splits; s++) top = larger(top, partial_lse[head * num_splits + s]);
#if LEVELS > 0
const int64_t row = head / heads;
const int kv_head = int(head % heads) / GROUP;
const int num_members_0 = prefix_out_0_shape[2] / GROUP;
const int prefix_splits_0 = places_0[row] < 0 ? 0 : prefix_out_0_shape[3];
const int place_0 = larger(places_0[row], 0);
const int64_t kv_place_0 = int64_t(place_0 / num_members_0) * KV_HEADS + kv_head;
const int64_t grouped_head_0 = (kv_place_0 * num_members_0 + place_0 % num_members_0) * GROUP + head % GROUP;
const int64_t first_0 = grouped_head_0 * prefix_out_0_shape[3];
for (int s = 0; s < prefix_splits_0; s++) top = larger(top, prefix_lse_0[first_0 + s]);
#endif
#if LEVELS > 1
const int num_members_1 = prefix_out_1_shape[2] / GROUP;
const int prefix_splits_1 = places_1[row] < 0 ? 0 : prefix_out_1_shape[3];
const int place_1 = larger(places_1[row], 0);
const int64_t kv_place_1 = int64_t(place_1 / num_members_1) * KV_HEADS + kv_head;
const int64_t grouped_head_1 = (kv_place_1 * num_members_1 + place_1 % num_members_1) * GROUP + head % GROUP;
const int64_t first_1 = grouped_head_1 * prefix_out_1_shape[3];
for (int s = 0; s < prefix_splits_1; s++) top = larger(top, prefix_lse_1[first_1 + s]);
#endif

const int columns = (HEAD_DIM + 31) / 32;  // of each lane
float sums[columns];
float mass = 0.0f;
UNROLLED
for (int i = 0; i < columns; i++) sums[i] = 0.0f;
for (int s = 0; s < num_splits; s++) {
  const float log_mass = partial_lse[head * num_splits + s];
  if (log_mass <= lowest) continue;  // an empty split wrote no output
  const float weight = exp2_of(log_mass - top);
  mass += weight;
  UNROLLED
  for (int i = 0; i < columns; i++) {
    const int dim = 32 * i + lane;
    if (dim < HEAD_DIM) sums[i] += weight * partials[(head * num_splits + s) * HEAD_DIM + dim];
  }
}
#if LEVELS > 0
for (int s = 0; s < prefix_splits_0; s++) {
  const float log_mass = prefix_lse_0[first_0 + s];
  if (log_mass <= lowest) continue;
  const float weight = exp2_of(log_mass - top);
  mass += weight;
  UNROLLED
  for (int i = 0; i < columns; i++) {
    const int dim = 32 * i + lane;
    if (dim < HEAD_DIM) sums[i] += weight * static_cast<float>(prefix_out_0[(first_0 + s) * HEAD_DIM + dim]);
  }
}
#endif
#if LEVELS > 1
for (int s = 0; s < prefix_splits_1; s++) {
  const float log_mass = prefix_lse_1[first_1 + s];
  if (log_mass <= lowest) continue;
  const float weight = exp2_of(log_mass - top);
  mass += weight;
  UNROLLED
  for (int i = 0; i < columns; i++) {
    const int dim = 32 * i + lane;
    if (dim < HEAD_DIM) sums[i] += weight * static_cast<float>(prefix_out_1[(first_1 + s) * HEAD_DIM + dim]);
  }
}
#endif

UNROLLED
for (int i = 0; i < columns; i++) {
  const int dim = 32 * i + lane;
  if (dim < HEAD_DIM) out[head * HEAD_DIM + dim] = static_cast<element>(mass > 0.0f ? sums[i] / mass : 0.0f);
}
if (lane == 0) lse[head] = mass > 0.0f ? (top + log2_of(mass)) * ln_2 : lowest;
