// One simdgroup joins one head's partial attentions, each a softmax over some tokens with its log-sum-exp.
//
// The shared prefix, where there is one, is one more part, laid out KV head by KV head as its matrix products left it.
const int heads = partial_lse_shape[1];
const int num_splits = partial_lse_shape[2];
const int64_t head = int64_t(group_x) * MERGE_WARPS + warp;  // counted over all rows
if (head >= int64_t(partial_lse_shape[0]) * heads) return;
const float lowest = -1e30f;
const float ln_2 = 0.6931471805599453f;

float top = lowest;
for (int s = 0; s < num_splits; s++) top = larger(top, partial_lse[head * num_splits + s]);
#if HAS_PREFIX
const int64_t row = head / heads;
const int64_t rows = partial_lse_shape[0];
const int64_t kv_head = head % heads / GROUP;
const int64_t prefix_head = (kv_head * rows + row) * GROUP + head % GROUP;
const float prefix_log_mass = prefix_lse[prefix_head] / ln_2;
top = larger(top, prefix_log_mass);
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
#if HAS_PREFIX
const float prefix_weight = exp2_of(prefix_log_mass - top);
mass += prefix_weight;
UNROLLED
for (int i = 0; i < columns; i++) {
  const int dim = 32 * i + lane;
  if (dim < HEAD_DIM) sums[i] += prefix_weight * static_cast<float>(prefix_out[prefix_head * HEAD_DIM + dim]);
}
#endif

UNROLLED
for (int i = 0; i < columns; i++) {
  const int dim = 32 * i + lane;
  if (dim < HEAD_DIM) out[head * HEAD_DIM + dim] = static_cast<element>(mass > 0.0f ? sums[i] / mass : 0.0f);
}
if (lane == 0) lse[head] = mass > 0.0f ? (top + log2_of(mass)) * ln_2 : lowest;
