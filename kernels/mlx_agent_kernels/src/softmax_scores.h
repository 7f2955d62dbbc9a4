// The weights of one row of scores and their log-sum-exp: one threadgroup a row, which it reads twice.
//
// The rows belong to groups, as many to each, whose scores end at the group's length: after it the weights are zero.
const int num_scores = scores_shape[1];
const int64_t row = group_x;
const int length = seq_lens[row / (scores_shape[0] / seq_lens_shape[0])];
const float lowest = -1e30f;
const float scale = SCALE * 1.4426950408889634f;

float highest = lowest;
float mass = 0.0f;
for (int i = index_in_group; i < length; i += 32 * SOFTMAX_WARPS) {
  const float score = static_cast<float>(scores[row * num_scores + i]) * scale;
  const float now_highest = larger(highest, score);
  mass = mass * exp2_of(highest - now_highest) + exp2_of(score - now_highest);
  highest = now_highest;
}

SHARED float shared_highest[SOFTMAX_WARPS];
SHARED float shared_mass[SOFTMAX_WARPS];
UNROLLED
for (int distance = 16; distance > 0; distance /= 2) {
  const float now_highest = larger(highest, shuffle_xor(highest, distance));
  mass *= exp2_of(highest - now_highest);
  highest = now_highest;
  mass += shuffle_xor(mass, distance);
}
if (lane == 0) {
  shared_highest[warp] = highest;
  shared_mass[warp] = mass;
}
BARRIER();
for (int w = 0; w < SOFTMAX_WARPS; w++) highest = larger(highest, shared_highest[w]);
mass = 0.0f;
for (int w = 0; w < SOFTMAX_WARPS; w++) mass += shared_mass[w] * exp2_of(shared_highest[w] - highest);

const float log_mass = mass > 0.0f ? highest + log2_of(mass) : lowest;
for (int i = index_in_group; i < num_scores; i += 32 * SOFTMAX_WARPS) {
  const float score = static_cast<float>(scores[row * num_scores + i]) * scale;
  weights[row * num_scores + i] = static_cast<element>(i < length ? exp2_of(score - log_mass) : 0.0f);
}
if (index_in_group == 0) lse[row] = log_mass;
