// SPDX-License-Identifier: Apache-2.0
//
// What the compiler writes, as the runtime's own reader sees it.
#include "program_writer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "onnx_models.h"
#include "pack.h"
#include "program_reader.h"

namespace hrnn::test {
namespace {

using onnx::TensorProto;
using ::testing::ElementsAre;

class Lowered {
 public:
  explicit Lowered(const ModelBuilder &builder) : model(write_program(builder.import(), "m")) {
    hrnn_error error{};
    status = read_program(model.program.data(), model.program.size(), model.weights.size(), &program, &error);
    EXPECT_EQ(status, HRNN_OK) << error.message;
  }
  const OpRecord &op(size_t index) const { return program.ops[index]; }
  std::vector<int64_t> ints(size_t index, size_t count) const { return {op(index).ints, op(index).ints + count}; }

  CompiledModel model;
  Program program;
  hrnn_status status;
};

ModelBuilder gru(bool weights_at_run_time) {
  ModelBuilder builder;
  builder.input("x", {"time", "batch", 3});
  if (weights_at_run_time) {
    builder.input("w", {1, 15, 3}).input("r", {1, 15, 5});
  } else {
    builder.weights("w", {1, 15, 3}).weights("r", {1, 15, 5});
  }
  builder.weights("b", {1, 30}).output("y");
  builder.node("GRU", {"x", "w", "r", "b"}, {"y"})
      .attr("linear_before_reset", int64_t{1})
      .attr("clip", 2.0f)
      .strings("activations", {"HardSigmoid", "Tanh"});
  return builder;
}

TEST(ProgramWriter, PacksConstantWeights) {
  const Lowered lowered(gru(false));
  const OpRecord &op = lowered.op(0);
  EXPECT_STREQ(lowered.program.string(static_cast<uint32_t>(op.ints[kCellName])), "gru");
  EXPECT_THAT(lowered.ints(0, 6), ElementsAre(op.ints[kCellName], HRNN_FORWARD, 0, 3, 5, 1));
  EXPECT_THAT(std::vector<double>(op.reals, op.reals + 3), ElementsAre(2, 0.2, 0.5));
  for (int slot : {kW, kR, kB}) EXPECT_EQ(op.inputs[slot], kNone);
  CellShape shape;
  ASSERT_TRUE(builtin_cell_shape("gru", &shape));
  EXPECT_EQ(op.ints[kPackedBytes], packed_layer(HRNN_F32, shape, 1, 3, 5).bytes);
  EXPECT_EQ(op.ints[kPackedOffset] % kRowBytes, 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(lowered.model.weights.data()) % kRowBytes, 0u);
  EXPECT_EQ(lowered.program.tensors.size(), 2u);  // x and y: packed weights are no tensors
}

TEST(ProgramWriter, LeavesWeightsThatArriveAtRunTime) {
  const Lowered lowered(gru(true));
  const OpRecord &op = lowered.op(0);
  EXPECT_EQ(op.ints[kPackedOffset], -1);
  EXPECT_EQ(op.inputs[kW], lowered.program.inputs[1]);
  EXPECT_EQ(lowered.program.tensors[op.inputs[kB]].is_constant, 1u);  // the bias is known all the same
}

TEST(ProgramWriter, SymbolsAndDims) {
  const Lowered lowered(gru(false));
  const TensorRecord &x = lowered.program.tensors[lowered.program.inputs[0]];
  EXPECT_THAT(std::vector<int64_t>(x.dims, x.dims + 3), ElementsAre(-1, -2, 3));
  EXPECT_STREQ(lowered.program.symbol_name(0), "time");
  EXPECT_STREQ(lowered.program.symbol_name(1), "batch");
}

TEST(ProgramWriter, ReshapeTargets) {
  ModelBuilder builder;
  builder.input("x", {"time", "batch", 6}).output("y").output("z");
  builder.integers("s", {0, -1, 2, 3}).integers("flat", {-1, 6});
  builder.node("Reshape", {"x", "s"}, {"y"});
  builder.node("Reshape", {"x", "flat"}, {"z"});
  const Lowered lowered(builder);
  EXPECT_THAT(lowered.ints(0, 5), ElementsAre(4, 0, 0, 2, 3));
  EXPECT_THAT(lowered.ints(1, 3), ElementsAre(2, -1, 6));
  // The product of two symbols has a name of its own for those who ask for the output's shape.
  const TensorRecord &z = lowered.program.tensors[lowered.program.outputs[1]];
  EXPECT_STREQ(lowered.program.symbol_name(static_cast<size_t>(-1 - z.dims[0])), "time*batch");
}

TEST(ProgramWriter, ExpandTargets) {
  ModelBuilder builder;
  builder.input("x", {"batch", 1}).output("y").integers("four", {4});
  builder.node("Shape", {"x"}, {"s"});
  builder.node("Concat", {"four", "s"}, {"t"}).attr("axis", int64_t{0});
  builder.node("Expand", {"x", "t"}, {"y"});
  const Lowered lowered(builder);
  EXPECT_THAT(lowered.ints(0, 4), ElementsAre(3, 4, -2, 1));
}

TEST(ProgramWriter, DenseAndConstants) {
  ModelBuilder builder;
  builder.input("x", {"batch", 4}).weights("w", {4, 3}).output("y").output("c2").weights("c", {2}, {7, 8});
  builder.node("MatMul", {"x", "w"}, {"y"});
  builder.weights("d", {3}).output("d2");
  builder.node("Identity", {"c"}, {"c2"});
  builder.node("Identity", {"d"}, {"d2"});
  const Lowered lowered(builder);
  EXPECT_THAT(lowered.ints(0, 2), ElementsAre(4, 3));
  EXPECT_EQ(lowered.op(0).ints[kDensePackedBytes], packed_product(HRNN_F32, 1, 3, 4).bytes);
  const TensorRecord &second = lowered.program.tensors[lowered.op(2).inputs[0]];
  EXPECT_EQ(second.data_offset % kRowBytes, 0u);
  const TensorRecord &constant = lowered.program.tensors[lowered.op(1).inputs[0]];
  const auto *values = reinterpret_cast<const float *>(lowered.model.weights.data() + constant.data_offset);
  EXPECT_EQ(constant.data_bytes, 8u);
  EXPECT_EQ(values[1], 8);
}

TEST(ProgramWriter, EveryOperationIsRead) {
  ModelBuilder builder(17);
  builder.input("x", {"time", "batch", 6}).output("a").output("b").output("c");
  builder.integers("one", {1}).integers("zero", {0}).integers("two", {2}).scalar("last", -1);
  builder.integers("max", {INT64_MAX});
  builder.node("Transpose", {"x"}, {"t"}).ints("perm", {1, 0, 2});
  builder.node("Slice", {"t", "one", "max", "two"}, {"s"});
  builder.node("Gather", {"s", "last"}, {"g"}).attr("axis", int64_t{1});
  builder.node("Unsqueeze", {"g", "zero"}, {"u"});
  builder.node("Squeeze", {"u", "zero"}, {"q"});
  builder.node("LeakyRelu", {"q"}, {"l"});
  builder.node("Concat", {"l", "q"}, {"a"}).attr("axis", int64_t{-1});
  builder.node("Slice", {"x", "one", "max", "zero"}, {"b"});
  builder.node("Identity", {"b"}, {"c"});
  const Lowered lowered(builder);
  EXPECT_EQ(lowered.program.outputs.size(), 3u);
}

TEST(ProgramWriter, EqualModelsGiveEqualBytes) {
  const Lowered a(gru(false)), b(gru(false));
  EXPECT_EQ(a.model.program, b.model.program);
  EXPECT_EQ(a.model.weights, b.model.weights);
}

}  // namespace
}  // namespace hrnn::test
