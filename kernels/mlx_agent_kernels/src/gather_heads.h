// Copies the keys and values of tables' blocks into one matrix a table and KV head, eight elements a lane.
//
// With HAS_MEMBERS the tables are those of groups of rows: what lies after a group's end, and with HAS_WINDOW what none of
// its members sees, becomes zero, and the threadgroups after the last block put the queries of its members that share a KV head side by side.
const int eights = HEAD_DIM / 8;
const int index = group_x * GATHER_THREADS + index_in_group;
const int num_blocks = block_tables_shape[1];
const int64_t group = group_z;
if (index >= BLOCK_SIZE * KV_HEADS * eights) return;
const int column = index % eights * 8;
#if HAS_MEMBERS
if (group_y >= num_blocks) {
  const int head = (group_y - num_blocks) * (BLOCK_SIZE * KV_HEADS) + index / eights;  // over all members
  const int num_members = members_shape[1];
  const int member = head / (KV_HEADS * GROUP);
  if (member >= num_members) return;
  const int query_head = head % (KV_HEADS * GROUP);
  const int64_t from = int64_t(members[group * num_members + member]) * (KV_HEADS * GROUP) + query_head;
  const int64_t to = ((group * KV_HEADS + query_head / GROUP) * num_members + member) * GROUP + query_head % GROUP;
  store_eight(grouped + to * HEAD_DIM + column, load_eight(queries + from * HEAD_DIM + column));
  return;
}
#endif
const int64_t block = block_tables[group * num_blocks + group_y];
const int64_t kv_head = index / eights % KV_HEADS;
const int offset = index / eights / KV_HEADS;
const int64_t from = ((block * BLOCK_SIZE + offset) * KV_HEADS + kv_head) * HEAD_DIM + column;
const int64_t to = (((group * KV_HEADS + kv_head) * num_blocks + group_y) * BLOCK_SIZE + offset) * HEAD_DIM + column;
#if HAS_MEMBERS
const int token = group_y * BLOCK_SIZE + offset;
#if HAS_WINDOW
const bool is_seen = token >= group_firsts[group] && token < seq_lens[group];
#else
const bool is_seen = token < seq_lens[group];
#endif
#else
const bool is_seen = true;
#endif
store_eight(keys + to, is_seen ? load_eight(k_pool + from) : zero_eight());
store_eight(values + to, is_seen ? load_eight(v_pool + from) : zero_eight());
