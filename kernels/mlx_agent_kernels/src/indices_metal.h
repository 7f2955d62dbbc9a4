const int lane = int(thread_index_in_simdgroup);
const int warp = int(simdgroup_index_in_threadgroup);
const int index_in_group = 32 * warp + lane;
const int group_x = int(threadgroup_position_in_grid.x);
const int group_y = int(threadgroup_position_in_grid.y);
const int group_z = int(threadgroup_position_in_grid.z);
const int groups_y = int(threadgroups_per_grid.y);
