// The scheduler of the fibers, and a main that reads one launch from a file and writes its outputs to another.
#include "lanes.h"

#include <sanitizer/common_interface_defs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <vector>

// Saves the registers that a call keeps, and goes on where `to` was left. swapcontext would do, with two system calls.
extern "C" void switch_stack(void** from, void* to);
__asm__(
    ".text\n.type switch_stack, @function\nswitch_stack:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");

namespace {

enum class State { ready, at_barrier, at_exchange, done };

constexpr size_t stack_bytes = 256 * 1024;
constexpr size_t max_lanes = 1024;
constexpr char poison = char(0xff);  // four of them are not a number, nor are two

struct Fiber {
  char* stack = nullptr;
  void* stack_pointer = nullptr;
  Position position;
  State state = State::done;
  uint32_t bits = 0;
  uint32_t mask = 0;
  uint32_t* all = nullptr;  // where the bits of all lanes are wanted, instead of those of another lane
};

struct Launch {
  const KernelEntry* kernel;
  Size3 grid;
  Size3 threadgroup;
  bool is_reversed;
  std::vector<void*> buffers;
};

std::vector<Fiber> fibers;
Fiber* current = nullptr;
void* scheduler_stack_pointer = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_stack_bytes = 0;
const Launch* launch = nullptr;

[[noreturn]] void fail(const std::string& message) {
  fprintf(stderr, "FAULT: %s\n", message.c_str());
  exit(3);
}

void leave(bool is_done) {
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(is_done ? nullptr : &fake_stack, scheduler_stack, scheduler_stack_bytes);
  switch_stack(&current->stack_pointer, scheduler_stack_pointer);
  __sanitizer_finish_switch_fiber(fake_stack, &scheduler_stack, &scheduler_stack_bytes);
}

void run_lane() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
  launch->kernel->launch(launch->buffers.data());
  current->state = State::done;
  leave(true);
}

void enter(Fiber& fiber) {
  current = &fiber;
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, stack_bytes);
  switch_stack(&scheduler_stack_pointer, fiber.stack_pointer);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

void start(Fiber& fiber, const Position& at) {
  if (fiber.stack == nullptr) {
    void* stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED) fail("no memory for a lane's stack");
    fiber.stack = static_cast<char*>(stack);
  }
  // As switch_stack leaves one: six registers and where to return to, then run_lane's own return address, never used.
  void** top = reinterpret_cast<void**>(fiber.stack + stack_bytes) - 8;
  std::fill(top, top + 8, nullptr);
  top[6] = reinterpret_cast<void*>(run_lane);
  fiber.stack_pointer = top;
  fiber.position = at;
  fiber.state = State::ready;
}

// Completes the SIMD operation of one simdgroup, whose lanes must all be in it; says whether there was one.
bool complete_exchange(uint32_t begin, uint32_t end) {
  uint32_t arrived = 0;
  for (uint32_t i = begin; i < end; i++) arrived += fibers[i].state == State::at_exchange;
  if (arrived == 0) return false;
  if (arrived != end - begin) {
    fail("a SIMD operation that " + std::to_string(arrived) + " of " + std::to_string(end - begin) + " lanes reach");
  }
  std::vector<uint32_t> bits;
  for (uint32_t i = begin; i < end; i++) bits.push_back(fibers[i].bits);
  for (uint32_t i = begin; i < end; i++) {
    fibers[i].state = State::ready;
    const uint32_t source = (i - begin) ^ fibers[i].mask;
    if ((fibers[i].all == nullptr) != (fibers[begin].all == nullptr)) fail("lanes of a simdgroup in different operations");
    if (fibers[i].all != nullptr) {
      std::copy(bits.begin(), bits.end(), fibers[i].all);
      continue;
    }
    if (fibers[i].mask != fibers[begin].mask) fail("lanes of a simdgroup shuffle by different distances");
    if (source >= end - begin) fail("a shuffle from a lane that is not there");
    fibers[i].bits = bits[source];
  }
  return true;
}

// Opens the barrier, where all lanes of the threadgroup must be; says whether any lane is left.
bool complete_barrier(uint32_t num_lanes) {
  uint32_t arrived = 0;
  for (uint32_t i = 0; i < num_lanes; i++) arrived += fibers[i].state == State::at_barrier;
  if (arrived == 0) return false;
  if (arrived != num_lanes) {
    fail("a barrier that " + std::to_string(arrived) + " of " + std::to_string(num_lanes) + " lanes reach");
  }
  for (uint32_t i = 0; i < num_lanes; i++) fibers[i].state = State::ready;
  return true;
}

bool meet(uint32_t num_lanes) {
  bool has_exchanged = false;
  for (uint32_t begin = 0; begin < num_lanes; begin += simd_width) {
    has_exchanged |= complete_exchange(begin, std::min(begin + simd_width, num_lanes));
  }
  return has_exchanged || complete_barrier(num_lanes);
}

void run_threadgroup(Size3 at) {
  std::fill(launch->kernel->shared_begin, launch->kernel->shared_end, poison);
  const Size3 size = launch->threadgroup;  // at the grid's edge Metal makes it smaller
  const Size3 here = {std::min(size.x, launch->grid.x - at.x * size.x), std::min(size.y, launch->grid.y - at.y * size.y),
                      std::min(size.z, launch->grid.z - at.z * size.z)};
  const Size3 groups = (launch->grid + size - 1u) / size;
  const uint32_t num_lanes = here.x * here.y * here.z;
  for (uint32_t i = 0; i < num_lanes; i++) {
    start(fibers[i], {Size3{i % here.x, i / here.x % here.y, i / here.x / here.y}, at, groups, here, i});
  }
  do {
    for (uint32_t i = 0; i < num_lanes; i++) {
      Fiber& fiber = fibers[launch->is_reversed ? num_lanes - 1 - i : i];
      if (fiber.state == State::ready) enter(fiber);
    }
  } while (meet(num_lanes));
}

void run_grid() {
  const Size3 groups = (launch->grid + launch->threadgroup - 1u) / launch->threadgroup;
  for (uint32_t z = 0; z < groups.z; z++) {
    for (uint32_t y = 0; y < groups.y; y++) {
      for (uint32_t x = 0; x < groups.x; x++) run_threadgroup(Size3{x, y, z});
    }
  }
}

void prepare_lanes() {
  const size_t shared_bytes = size_t(launch->kernel->shared_end - launch->kernel->shared_begin);
  if (shared_bytes > max_shared_bytes) fail(std::to_string(shared_bytes) + " bytes of threadgroup memory");
  fibers.resize(launch->threadgroup.x * launch->threadgroup.y * launch->threadgroup.z);
  if (fibers.size() > max_lanes) fail("a threadgroup of " + std::to_string(fibers.size()) + " lanes");
}

std::vector<int64_t> read_numbers(FILE* file, size_t count) {
  std::vector<int64_t> numbers(count);
  if (fread(numbers.data(), sizeof(int64_t), count, file) != count) fail("the launch's file is too short");
  return numbers;
}

}  // namespace

// Leaks are searched by ptrace, which a container may refuse, and nothing here lives long.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

const Position& position() { return current->position; }

void barrier() {
  current->state = State::at_barrier;
  leave(false);
}

uint32_t exchange_xor(uint32_t bits, uint32_t mask) {
  current->bits = bits;
  current->mask = mask;
  current->all = nullptr;
  current->state = State::at_exchange;
  leave(false);
  return current->bits;
}

void exchange_all(uint32_t bits, uint32_t* all) {
  current->bits = bits;
  current->all = all;
  current->state = State::at_exchange;
  leave(false);
}

// The launch: kernel, grid, threadgroup, number of buffers; then each buffer's bytes, role and content. It runs twice, with
// the lanes in either order, and what both runs leave in outputs and in inputs that are written is the result.
int main(int, char** arguments) {
  FILE* file = fopen(arguments[1], "rb");
  if (file == nullptr) fail("no launch to read");
  const std::vector<int64_t> head = read_numbers(file, 8);
  Launch here = {&kernels[head[0]],
                 Size3{uint32_t(head[1]), uint32_t(head[2]), uint32_t(head[3])},
                 Size3{uint32_t(head[4]), uint32_t(head[5]), uint32_t(head[6])},
                 false,
                 {}};
  enum { input, output_only, written };
  std::vector<std::pair<char*, std::string>> outputs;  // and what is in them before a run
  for (int64_t i = 0; i < head[7]; i++) {
    const std::vector<int64_t> about = read_numbers(file, 2);
    const size_t bytes = size_t(about[0]);
    char* buffer = static_cast<char*>(malloc(bytes));  // of the exact size: one byte beside it is a fault
    if (about[1] != output_only && fread(buffer, 1, bytes, file) != bytes) fail("the launch's file is too short");
    if (about[1] == output_only) outputs.emplace_back(buffer, std::string(bytes, poison));
    if (about[1] == written) outputs.emplace_back(buffer, std::string(buffer, bytes));
    here.buffers.push_back(buffer);
  }
  fclose(file);
  launch = &here;
  prepare_lanes();
  FILE* results = fopen(arguments[2], "wb");
  if (results == nullptr) fail("no place for the outputs");
  for (const bool is_reversed : {false, true}) {
    here.is_reversed = is_reversed;
    for (const auto& output : outputs) output.second.copy(output.first, output.second.size());
    run_grid();
    for (const auto& output : outputs) fwrite(output.first, 1, output.second.size(), results);
  }
  return fclose(results);
}
