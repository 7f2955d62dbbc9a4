// Copies the keys and values of a table's blocks into one matrix a KV head, eight elements a lane.
//
// With HAS_QUERIES the threadgroups behind the last block do the same to the queries, so that the queries of all rows
// that share a KV head lie side by side.
const int eights = HEAD_DIM / 8;
const int index = group_x * GATHER_THREADS + index_in_group;
const int num_blocks = block_table_shape[0];
if (index >= BLOCK_SIZE * KV_HEADS * eights) return;
const int column = index % eights * 8;
#if HAS_QUERIES
if (group_y >= num_blocks) {
  const int64_t head = int64_t(group_y - num_blocks) * (BLOCK_SIZE * KV_HEADS) + index / eights;  // over all rows
  const int64_t rows = queries_shape[0];
  if (head >= rows * (KV_HEADS * GROUP)) return;
  const int64_t query_row = head / (KV_HEADS * GROUP);
  const int64_t query_head = head % (KV_HEADS * GROUP);
  const int64_t grouped_head = (query_head / GROUP * rows + query_row) * GROUP + query_head % GROUP;
  store_eight(grouped + grouped_head * HEAD_DIM + column, load_eight(queries + head * HEAD_DIM + column));
  return;
}
#endif
const int64_t block = block_table[group_y];
const int64_t kv_head = index / eights % KV_HEADS;
const int offset = index / eights / KV_HEADS;
const int64_t from = ((block * BLOCK_SIZE + offset) * KV_HEADS + kv_head) * HEAD_DIM + column;
const int64_t to = ((kv_head * num_blocks + group_y) * BLOCK_SIZE + offset) * HEAD_DIM + column;
store_eight(keys + to, load_eight(k_pool + from));
store_eight(values + to, load_eight(v_pool + from));
