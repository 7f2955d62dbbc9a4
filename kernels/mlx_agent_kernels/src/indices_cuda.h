const int index_in_group = int(threadIdx.x);
const int lane = index_in_group % 32;
const int warp = index_in_group / 32;
const int group_x = int(blockIdx.x);
const int group_y = int(blockIdx.y);
const int group_z = int(blockIdx.z);
const int groups_y = int(gridDim.y);
