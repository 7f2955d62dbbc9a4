// The weights of one row of scores and their log-sum-exp: one threadgroup a row, which it reads twice.
//
// The rows belong to groups, as many to each, whose scores end at the group's length: after it the weights are zero. With
// HAS_WINDOW they are zero before the first token that the row's member of the group sees, too.
const int num_scores = scores_shape[1];
const int64_t row = group_x;
const int length = seq_lens[row / (scores_shape[0] / seq_lens_shape[0])];
#if HAS_WINDOW
const int group_rows = scores_shape[0] / seq_lens_shape[0];
const int first = firsts[row / group_rows * firsts_shape[1] + row / GROUP % firsts_shape[1]];
#else
const int first = 0;
#endif
const float lowest = -1e30f;
const float log2_e = 1.4426950408889634f;
#if HAS_SOFTCAP
#define SCORE(raw) (tanh_of(static_cast<float>(raw) * (SCALE / SOFTCAP)) * (SOFTCAP * log2_e))
#else
#define SCORE(raw) (static_cast<float>(raw) * (SCALE * log2_e))
#endif

float highest = lowest;
float mass = 0.0f;
for (int i = first + index_in_group; i < length; i += 32 * SOFTMAX_WARPS) {
  const float score = SCORE(scores[row * num_scores + i]);
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
  const bool is_seen = i >= first && i < length;
  const float weight = is_seen ? exp2_of(SCORE(scores[row * num_scores + i]) - log_mass) : 0.0f;
  weights[row * num_scores + i] = static_cast<element>(weight);
}
if (index_in_group == 0) lse[row] = log_mass;
