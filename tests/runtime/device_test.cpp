// SPDX-License-Identifier: Apache-2.0
//
// How layers are run on a device, without one: its memory is the host's, and its kernels are plain C++ (plain_kernels.cpp).
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "hrnn/device.h"
#include "layer_run.h"
#include "session_kernels.h"

struct hrnn_device_memory {
  std::vector<uint8_t> bytes;
};

namespace hrnn_test {
namespace {

// What the driver would say of the caller's arrays, and what was asked of it.
bool arrays_are_pinned;
int direct_pieces;
std::vector<const hrnn_device_memory *> alive;

void *place(hrnn_device_memory *memory, uint64_t offset, uint64_t bytes) {
  EXPECT_LE(offset + bytes, memory->bytes.size());
  return memory->bytes.data() + offset;
}

int allocate(uint64_t bytes, hrnn_device_memory **memory) {
  *memory = new hrnn_device_memory{std::vector<uint8_t>(bytes, 0xff)};  // NaN
  alive.push_back(*memory);
  return 0;
}

void release(hrnn_device_memory *memory) {
  alive.erase(std::find(alive.begin(), alive.end(), memory));
  delete memory;
}

int view(hrnn_device_memory *memory, uint64_t offset, uint64_t *handle) {
  EXPECT_EQ(offset % 512, 0u);
  *handle = reinterpret_cast<uintptr_t>(place(memory, offset, 0));
  return 0;
}

int upload(hrnn_device_memory *memory, uint64_t offset, const void *from, uint64_t bytes) {
  memcpy(place(memory, offset, bytes), from, bytes);
  return 0;
}

int download(hrnn_device_memory *memory, uint64_t offset, void *to, uint64_t bytes) {
  memcpy(to, place(memory, offset, bytes), bytes);
  return 0;
}

int download_pieces(hrnn_device_memory *memory, uint64_t offset, uint64_t apart, void *to, uint64_t to_apart, uint64_t bytes,
                    uint64_t count) {
  EXPECT_GE(apart, bytes);
  EXPECT_GE(to_apart, bytes);
  for (uint64_t i = 0; i < count; i++) download(memory, offset + i * apart, static_cast<uint8_t *>(to) + i * to_apart, bytes);
  direct_pieces += int(count);
  return 0;
}

const hrnn_device kDevice = {
    HRNN_ABI_VERSION,
    HRNN_FEATURE_CUDA,
    "plain",
    [](char *, size_t) { return 1; },
    []() -> const void * { return &kDevice; },
    allocate,
    release,
    view,
    [](hrnn_device_memory *, uint64_t) {},
    upload,
    download,
    download_pieces,
    [](void *, uint64_t) { return 1; },
    [](void *) {},
    [](const void *, uint64_t) { return int(arrays_are_pinned); },
    []() -> const char * { return ""; },
};

const hrnn_kernel_table *device_kernels() {
  static const hrnn_target target = {"plain_device", uint64_t(1) << HRNN_FEATURE_CUDA, 1, HRNN_USE_GPU};
  static const std::vector<hrnn_kernel> rows = [] {
    const hrnn_kernel_table *table = session_kernels();
    std::vector<hrnn_kernel> all(table->kernels, table->kernels + table->count);
    for (hrnn_kernel &row : all) row.target = &target;
    return all;
  }();
  static const hrnn_kernel_table table = {HRNN_ABI_VERSION, uint32_t(rows.size()), rows.data(), &kDevice};
  return &table;
}

// The states that went straight to y: of two runs, of which the first leaves data behind that the second must not find.
int check(LayerRun run, const Shape &shape, const RandomParts &parts, const std::vector<int> &stream_calls = {}) {
  std::mt19937 random(7);
  run.default_activations = false;  // plain kernels take any
  run.layer.activations = run.layer.default_activations();
  for (double gain = 0.5; gain > 0.05; gain *= 0.8) {
    randomize(&run, shape, parts, gain, &random);
    Judge judge(run);
    if (judge.ill_conditioned()) continue;
    const KernelChoice kernels = {{device_kernels()}, "plain_device"};
    direct_pieces = 0;
    const LayerResult result = stream_calls.empty() ? run_layer(run, kernels) : stream_layer(run, kernels, stream_calls);
    EXPECT_EQ(judge.compare(run, result), "") << run.describe();
    EXPECT_TRUE(alive.empty());
    return direct_pieces;
  }
  ADD_FAILURE() << run.describe() << ": found no data that are well conditioned";
  return 0;
}

struct Case {
  const char *cell, *direction;
  bool pinned;
};

class Device : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { arrays_are_pinned = GetParam().pinned; }
  LayerRun layer() const {
    LayerRun run;
    run.layer.cell = GetParam().cell;
    run.layer.direction = GetParam().direction;
    return run;
  }
  int directions() const { return layer().layer.directions(); }
};

// A stretch takes 3 steps of so large an input, and the ring of states as many more as a stretch without copies on the host may have.
constexpr Shape kSeveralStretches = {1024, 16, 5, 256};

TEST_P(Device, RunsSequencesOfSeveralStretches) {
  LayerRun run = layer();
  EXPECT_EQ(check(run, kSeveralStretches, {}), GetParam().pinned ? 2 * 5 * directions() : 0);
  run.want_y = false;
  EXPECT_EQ(check(run, kSeveralStretches, {}), 0);
}

// Small ones, of sizes that leave parts of panels, and rows that lie apart or end early, go through the staging memory.
TEST_P(Device, StagesWhatDoesNotLieAsTheDeviceHasIt) {
  EXPECT_EQ(check(layer(), {3, 5, 4, 2}, {}), 0);
  EXPECT_EQ(check(layer(), {33, 17, 20, 70}, {}), 0);
  LayerRun apart = layer();
  apart.batch_major = true;
  EXPECT_EQ(check(apart, {64, 64, 9, 40}, {}), 0);
  // Only the first of the two runs has sequences of one length.
  EXPECT_EQ(check(layer(), {64, 64, 9, 40}, {true, true, true}), GetParam().pinned ? 9 * directions() : 0);
}

// Rows of one sequence are as long as they are, padding and all.
TEST_P(Device, CopiesSingleSequencesDirectly) {
  EXPECT_EQ(check(layer(), {16, 1025, 20, 1}, {}), GetParam().pinned ? 2 * 20 * directions() : 0);
  LayerRun spare = layer();
  spare.spare_batch = 2;
  EXPECT_EQ(check(spare, {512, 64, 17, 16}, {}), GetParam().pinned ? 2 * 17 * directions() : 0);
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char *cell : {"rnn", "gru_reset_before"})
    for (const char *direction : {"forward", "reverse", "bidirectional"})
      for (bool pinned : {false, true}) all.push_back({cell, direction, pinned});
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, Device, testing::ValuesIn(cases()), [](const testing::TestParamInfo<Case> &info) {
  return std::string(info.param.cell) + "_" + info.param.direction + (info.param.pinned ? "_pinned" : "_pageable");
});

// 3 steps a stretch, one place more in the ring, so that the second stretch goes on at its beginning.
TEST(DeviceMemory, HasARingOfStates) {
  arrays_are_pinned = true;
  for (const char *direction : {"forward", "reverse", "bidirectional"}) {
    LayerRun run;
    run.layer.cell = "rnn";
    run.layer.direction = direction;
    EXPECT_EQ(check(run, {4096, 16, 5, 256}, {}), 2 * 5 * run.layer.directions());
  }
}

TEST(DeviceMemory, KeepsTheStateBetweenCalls) {
  for (const char *cell : {"rnn", "gru", "gru_reset_before"}) {
    for (bool pinned : {false, true}) {
      LayerRun run;
      run.layer.cell = cell;
      run.layer.direction = "forward";
      arrays_are_pinned = pinned;
      EXPECT_GE(check(run, {512, 64, 36, 16}, {}, {1, 18, 17}), pinned ? 35 : 0);
    }
  }
}

}  // namespace
}  // namespace hrnn_test
