// Keys, and values where a token has any, into their slots of the pools: one simdgroup a head of a token.
//
// The pools are inputs to MLX and written all the same; `written` is there for those who read them to wait for.
const int64_t index = int64_t(group_x) * HEAD_WARPS + warp;
const int64_t token = index / KV_HEADS;
if (index == 0 && lane == 0) written[0] = static_cast<element>(0.0f);
if (token >= slot_mapping_shape[0]) return;
const int64_t place = int64_t(slot_mapping[token]) * KV_HEADS + index % KV_HEADS;
DEVICE element* own_keys = const_cast<DEVICE element*>(k_pool) + place * KEY_DIM;
for (int dim = lane; dim < KEY_DIM; dim += 32) own_keys[dim] = keys[index * KEY_DIM + dim];
#if VALUE_DIM
DEVICE element* own_values = const_cast<DEVICE element*>(v_pool) + place * VALUE_DIM;
for (int dim = lane; dim < VALUE_DIM; dim += 32) own_values[dim] = values[index * VALUE_DIM + dim];
#endif
