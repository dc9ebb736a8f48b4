// SPDX-License-Identifier: Apache-2.0
//
// Operators around the recurrent ones: what folds, what becomes an operation of the program, what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "onnx_models.h"

namespace hrnn::test {
namespace {

using onnx::TensorProto;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string out_dims(const Graph &graph) { return graph.dims_text(graph.outputs.at(0)); }

// The values the graph's only output is a copy of.
std::vector<double> folded(const ModelBuilder &builder) {
  const Graph graph = builder.import();
  EXPECT_EQ(graph.nodes.size(), 1u);
  const Constant *constant = graph.tensor(graph.nodes.at(0).inputs.at(0)).constant.get();
  EXPECT_NE(constant, nullptr);
  std::vector<double> values;
  for (int64_t i = 0; constant && i < constant->elements(); ++i) values.push_back(constant->real(i));
  return values;
}

// A model of one node with run-time input x [batch, time, 6] and output y.
ModelBuilder unary(const std::string &type, const std::function<void(NodeBuilder &)> &attributes = nullptr,
                   const std::vector<Ints> &lists = {}, int64_t opset = 17) {
  ModelBuilder builder(opset);
  builder.input("x", {"batch", "time", 6}).output("y");
  std::vector<std::string> inputs = {"x"};
  for (size_t i = 0; i < lists.size(); ++i) {
    inputs.push_back("list" + std::to_string(i));
    builder.integers(inputs.back(), lists[i]);
  }
  NodeBuilder node = builder.node(type, inputs, {"y"}).name("n");
  if (attributes) attributes(node);
  return builder;
}

// ---- Moving elements at run time ----

TEST(Views, Transpose) {
  const Graph graph = unary("Transpose", [](NodeBuilder &n) { n.ints("perm", {1, 0, 2}); }).import();
  EXPECT_THAT(operations(graph), ElementsAre("Transpose permutation [1, 0, 2]"));
  EXPECT_EQ(out_dims(graph), "[time, batch, 6]");
  EXPECT_EQ(out_dims(unary("Transpose").import()), "[6, time, batch]");
  EXPECT_THAT(unary("Transpose",
                    [](NodeBuilder &n) {
                      n.ints("perm", {0, 1});
                    })
                  .error(),
              AllOf(HasSubstr("'perm' is [0, 1]"), HasSubstr("3 axes")));
  EXPECT_THAT(unary("Transpose", [](NodeBuilder &n) { n.ints("perm", {0, 1, 1}); }).error(), HasSubstr("permutation"));
}

TEST(Views, SliceInputs) {
  const Graph graph = unary("Slice", nullptr, {{1, -2}, {INT64_MAX, 100}, {1, 2}}).import();
  EXPECT_THAT(operations(graph),
              ElementsAre(HasSubstr("axis 1, start 1, stop"), "Slice axis 2, start 4, stop 6, step 1"));
  EXPECT_EQ(out_dims(graph), "[batch, time - 1, 2]");
}

TEST(Views, SliceAttributesBeforeOpset10) {
  const auto attributes = [](NodeBuilder &n) { n.ints("starts", {0}).ints("ends", {-1}).ints("axes", {1}); };
  EXPECT_EQ(out_dims(unary("Slice", attributes, {}, 9).import()), "[batch, time - 1, 6]");
  EXPECT_THAT(unary("Slice", attributes, {{0}, {1}}, 11).error(), AllOf(HasSubstr("opset 11"), HasSubstr("attribute")));
}

TEST(Views, SliceReversesAndSteps) {
  const Graph reversed = unary("Slice", nullptr, {{-1}, {INT64_MIN}, {1}, {-1}}).import();
  EXPECT_EQ(out_dims(reversed), "[batch, time, 6]");
  EXPECT_EQ(std::get<op::Slice>(reversed.nodes[0].op).step, -1);
  EXPECT_EQ(out_dims(unary("Slice", nullptr, {{5}, {-100}, {2}, {-2}}).import()), "[batch, time, 3]");
  EXPECT_EQ(out_dims(unary("Slice", nullptr, {{0}, {100}, {2}, {4}}).import()), "[batch, time, 2]");
  EXPECT_EQ(out_dims(unary("Slice", nullptr, {{0}, {5}, {1}}).import()), "[batch, len(time[0:5:1]), 6]");
  EXPECT_THAT(unary("Slice", nullptr, {{0}, {1}, {1}, {0}}).error(), HasSubstr("must not be zero"));
  EXPECT_THAT(unary("Slice", nullptr, {{0}, {1}, {3}}).error(), AllOf(HasSubstr("axis 3"), HasSubstr("3 dimensions")));
  EXPECT_THAT(unary("Slice", nullptr, {{0, 0}, {1, 1}, {1, -2}}).error(), HasSubstr("twice"));
  EXPECT_THAT(unary("Slice", nullptr, {{0}, {1, 2}}).error(), AllOf(HasSubstr("1 starts"), HasSubstr("2 ends")));
}

TEST(Views, SliceOfEverythingIsNothing) {
  const Graph graph = unary("Slice", nullptr, {{0}, {INT64_MAX}, {1}}).import();
  EXPECT_THAT(operations(graph), ElementsAre("Transpose permutation [0, 1, 2]"));  // the copy to the output
}

ModelBuilder gather(const std::function<void(ModelBuilder &)> &indices, int64_t axis) {
  ModelBuilder builder;
  builder.input("x", {"batch", "time", 6}).output("y");
  indices(builder);
  builder.node("Gather", {"x", "i"}, {"y"}).name("n").attr("axis", axis);
  return builder;
}

TEST(Views, GatherOfOneIndexIsASelect) {
  const Graph graph = gather([](ModelBuilder &b) { b.scalar("i", -1); }, 1).import();
  EXPECT_THAT(operations(graph), ElementsAre("Select axis 1, index -1"));
  EXPECT_EQ(out_dims(graph), "[batch, 6]");
}

TEST(Views, GatherOfEquallySpacedIndicesIsASlice) {
  const auto list = [](const Ints &values) { return [=](ModelBuilder &b) { b.integers("i", values); }; };
  EXPECT_THAT(operations(gather(list({1, 2, 3}), 2).import()), ElementsAre("Slice axis 2, start 1, stop 4, step 1"));
  EXPECT_THAT(operations(gather(list({5, 3, 1}), 2).import()), ElementsAre("Slice axis 2, start 5, stop 0, step -2"));
  EXPECT_EQ(out_dims(gather(list({-2, -1}), 1).import()), "[batch, 2, 6]");
  EXPECT_THAT(operations(gather(list({0, 1, 3}), 2).import()), ElementsAre("Gather axis 2 of [batch, time, 6]"));
  // Of a dynamic dimension: what is out of range must be noticed when the model runs.
  EXPECT_THAT(operations(gather(list({0}), 1).import()), ElementsAre("Select axis 1, index 0", "Unsqueeze axis 1"));
  EXPECT_THAT(operations(gather(list({0, 1}), 1).import()), ElementsAre("Gather axis 1 of [batch, time, 6]"));
  EXPECT_THAT(gather(list({6}), 2).error(), AllOf(HasSubstr("index 6"), HasSubstr("dimension of 6")));
  EXPECT_THAT(gather(list({0}), 3).error(), HasSubstr("axis 3"));
  for (const Ints &absurd : {Ints{INT64_MAX}, Ints{INT64_MIN, INT64_MAX}}) {
    EXPECT_THAT(gather(list(absurd), 1).error(), AllOf(HasSubstr("out of range"), HasSubstr("time")));
  }
}

TEST(Views, GatherByRunTimeIndices) {
  ModelBuilder builder;
  builder.weights("table", {10, 6}).input("i", {"batch", "time"}, TensorProto::INT64).output("y");
  builder.node("Gather", {"table", "i"}, {"y"});
  const Graph graph = builder.import();
  EXPECT_THAT(operations(graph), ElementsAre("Gather axis 0 of [10, 6]"));
  EXPECT_EQ(out_dims(graph), "[batch, time, 6]");
  ModelBuilder real;
  real.weights("table", {10, 6}).input("i", {"batch"}).output("y");
  real.node("Gather", {"table", "i"}, {"y"});
  EXPECT_THAT(real.error(), AllOf(HasSubstr("indices ('i')"), HasSubstr("float32")));
}

TEST(Views, GatherOfNumbersThatCountADynamicDimension) {
  ModelBuilder builder;
  builder.input("x", {"time"}).scalar("zero", 0).scalar("one", 1).integers("i", {0, -1}).output("y");
  builder.node("Shape", {"x"}, {"shape"});
  builder.node("Squeeze", {"shape"}, {"count"});
  builder.node("Range", {"zero", "count", "one"}, {"numbers"});
  builder.node("Gather", {"numbers", "i"}, {"y"});
  EXPECT_THAT(operations(builder.import()), ElementsAre("Range from 0 in steps of 1", "Gather axis 0 of [time]"));
}

TEST(Views, UnsqueezeAndSqueeze) {
  const Graph graph = unary("Unsqueeze", nullptr, {{-1, 0}}).import();
  EXPECT_THAT(operations(graph), ElementsAre("Unsqueeze axis 0", "Unsqueeze axis 4"));
  EXPECT_EQ(out_dims(graph), "[1, batch, time, 6, 1]");
  const auto axes = [](NodeBuilder &n) { n.ints("axes", {1}); };
  EXPECT_EQ(out_dims(unary("Unsqueeze", axes, {}, 11).import()), "[batch, 1, time, 6]");
  EXPECT_THAT(unary("Unsqueeze", axes, {}, 13).error(), HasSubstr("axes is missing"));
  EXPECT_THAT(unary("Squeeze", nullptr, {{2}}).error(), AllOf(HasSubstr("axis 2"), HasSubstr("size 6")));
  EXPECT_THAT(operations(unary("Squeeze", nullptr, {{1}}).import()), ElementsAre("Squeeze axis 1"));  // time may be 1
  EXPECT_THAT(unary("Squeeze").error(), AllOf(HasSubstr("axes is absent"), HasSubstr("'batch'")));
}

TEST(Views, SqueezeWithoutAxes) {
  ModelBuilder builder;
  builder.input("x", {1, 4, 1}).output("y");
  builder.node("Squeeze", {"x"}, {"y"});
  EXPECT_EQ(out_dims(builder.import()), "[4]");
}

TEST(Views, Reshape) {
  EXPECT_EQ(out_dims(unary("Reshape", nullptr, {{0, 0, 2, 3}}).import()), "[batch, time, 2, 3]");
  EXPECT_EQ(out_dims(unary("Reshape", nullptr, {{0, 0, 3, -1}}).import()), "[batch, time, 3, 2]");
  EXPECT_EQ(out_dims(unary("Reshape", nullptr, {{-1, 6}}).import()), "[batch*time, 6]");
  EXPECT_EQ(out_dims(unary("Reshape", nullptr, {{-1, 12}}).import()), "[(6*batch*time)/(12), 12]");
  EXPECT_THAT(unary("Reshape", nullptr, {{-1, -1}}).error(), AllOf(HasSubstr("-1 at 0 and 1")));
  EXPECT_THAT(unary("Reshape", nullptr, {{-2}}).error(), HasSubstr("-2 at 0"));
  EXPECT_THAT(unary("Reshape", nullptr, {{1, 1, 1, 0}}).error(), HasSubstr("0 (copy) at 3"));
  EXPECT_THAT(unary("Reshape", nullptr, {{1, 1, 1, 1, 1, 1, 1, 1, 1}}).error(), HasSubstr("9 dimensions"));
}

TEST(Views, ReshapeChecksElements) {
  ModelBuilder builder;
  builder.input("x", {2, 3}).integers("s", {4, 2}).output("y");
  builder.node("Reshape", {"x", "s"}, {"y"}).name("n");
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("[2, 3] (6 elements)"), HasSubstr("[4, 2] (8 elements)")));
  ModelBuilder inferred;
  inferred.input("x", {2, 3}).integers("s", {4, -1}).output("y");
  inferred.node("Reshape", {"x", "s"}, {"y"});
  EXPECT_THAT(inferred.error(), AllOf(HasSubstr("6 elements"), HasSubstr("4")));
  ModelBuilder overflow;
  overflow.input("x", {2, 3}).integers("s", {INT64_MAX, 2}).output("y");
  overflow.node("Reshape", {"x", "s"}, {"y"});
  EXPECT_NE(overflow.error(), "");
}

TEST(Views, ReshapeToAShapeComputedInTheGraph) {
  // torch: y.reshape(y.shape[0], y.shape[1], y.shape[2] * y.shape[3]), as its exporters write it.
  ModelBuilder builder(20);
  builder.input("x", {"time", "batch", 2, 5}).output("y");
  builder.integers("zero", {0}).integers("one", {1}).integers("two", {2}).integers("three", {3}).integers("four", {4});
  builder.node("Shape", {"x"}, {"s"}).attr("start", int64_t{0});
  builder.node("Slice", {"s", "zero", "two"}, {"lead"});
  builder.node("Slice", {"s", "two", "three"}, {"d"});
  builder.node("Slice", {"s", "three", "four"}, {"h"});
  builder.node("Mul", {"d", "h"}, {"dh"});
  builder.node("Concat", {"lead", "dh"}, {"target"}).attr("axis", int64_t{0});
  builder.node("Reshape", {"x", "target"}, {"y"}).attr("allowzero", int64_t{0});
  EXPECT_THAT(operations(builder.import()), ElementsAre("Reshape to [time, batch, 10]"));
}

TEST(Views, Flatten) {
  EXPECT_EQ(out_dims(unary("Flatten").import()), "[batch, 6*time]");
  EXPECT_EQ(out_dims(unary("Flatten", [](NodeBuilder &n) { n.attr("axis", int64_t{-1}); }).import()),
            "[batch*time, 6]");
  EXPECT_THAT(unary("Flatten", [](NodeBuilder &n) { n.attr("axis", int64_t{4}); }).error(), HasSubstr("'axis' is 4"));
}

TEST(Views, Expand) {
  ModelBuilder builder;
  builder.input("x", {"batch", 1, 6}).integers("s", {2, 1, 4, 1}).output("y");
  builder.node("Expand", {"x", "s"}, {"y"});
  EXPECT_THAT(operations(builder.import()), ElementsAre("Expand to [2, batch, 4, 6]"));
  ModelBuilder wrong;
  wrong.input("x", {2, 3}).integers("s", {2, 4}).output("y");
  wrong.node("Expand", {"x", "s"}, {"y"});
  EXPECT_THAT(wrong.error(), AllOf(HasSubstr("dimension of 3"), HasSubstr("to 4")));
}

ModelBuilder concat(const std::vector<OnnxDims> &shapes, int64_t axis) {
  ModelBuilder builder;
  std::vector<std::string> names;
  for (const OnnxDims &shape : shapes) {
    names.push_back("x" + std::to_string(names.size()));
    builder.input(names.back(), shape);
  }
  builder.output("y").node("Concat", names, {"y"}).name("n").attr("axis", axis);
  return builder;
}

TEST(Views, Concat) {
  const Graph graph = concat({{"batch", 2}, {"batch", 3}}, -1).import();
  EXPECT_THAT(operations(graph), ElementsAre("Concat axis 1"));
  EXPECT_EQ(out_dims(graph), "[batch, 5]");
  EXPECT_EQ(out_dims(concat({{"a", 2}, {"b", 2}}, 0).import()), "[b + a, 2]");
  EXPECT_THAT(concat({{2, 2}, {3, 3}}, 0).error(),
              AllOf(HasSubstr("[2, 2]"), HasSubstr("[3, 3]"), HasSubstr("axis 0")));
  EXPECT_THAT(concat({{2}, {2, 1}}, 0).error(), HasSubstr("[2, 1]"));
  EXPECT_THAT(concat({{2}}, 1).error(), HasSubstr("axis 1"));
}

TEST(Views, ConcatOfManyIsSplit) {
  const Graph graph = concat(std::vector<OnnxDims>(17, OnnxDims{3}), 0).import();
  EXPECT_EQ(out_dims(graph), "[51]");
  ASSERT_EQ(graph.nodes.size(), 3u);
  for (const Node &node : graph.nodes) EXPECT_LE(node.inputs.size(), 8u);
}

// ---- Constants are computed when the model is compiled ----

ModelBuilder over_constant(const std::string &type, const std::vector<Ints> &lists,
                           const std::function<void(NodeBuilder &)> &attributes = nullptr) {
  ModelBuilder builder;
  builder.weights("c", {2, 3}, {0, 1, 2, 3, 4, 5}).output("y");
  std::vector<std::string> inputs = {"c"};
  for (size_t i = 0; i < lists.size(); ++i) {
    inputs.push_back("list" + std::to_string(i));
    builder.integers(inputs.back(), lists[i]);
  }
  NodeBuilder node = builder.node(type, inputs, {"y"});
  if (attributes) attributes(node);
  return builder;
}

TEST(Folding, MovesElements) {
  EXPECT_THAT(folded(over_constant("Transpose", {})), ElementsAre(0, 3, 1, 4, 2, 5));
  EXPECT_THAT(folded(over_constant("Slice", {{1}, {3}, {1}})), ElementsAre(1, 2, 4, 5));
  EXPECT_THAT(folded(over_constant("Slice", {{-1}, {INT64_MIN}, {1}, {-2}})), ElementsAre(2, 0, 5, 3));
  EXPECT_THAT(folded(over_constant("Slice", {{2}, {1}, {1}})), IsEmpty());
  EXPECT_THAT(folded(over_constant("Gather", {{2, 0}}, [](NodeBuilder &n) { n.attr("axis", int64_t{1}); })),
              ElementsAre(2, 0, 5, 3));
  EXPECT_THAT(folded(over_constant("Gather", {{-1}})), ElementsAre(3, 4, 5));
  EXPECT_THAT(folded(over_constant("Reshape", {{3, -1}})), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(folded(over_constant("Unsqueeze", {{0}})), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(folded(over_constant("Expand", {{2, 1, 1}})), ElementsAre(0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5));
}

TEST(Folding, JoinsConstants) {
  ModelBuilder builder;
  builder.weights("a", {2, 1}, {0, 1}).weights("b", {2, 2}, {2, 3, 4, 5}).output("y");
  builder.node("Concat", {"a", "b"}, {"y"}).attr("axis", int64_t{1});
  EXPECT_THAT(folded(builder), ElementsAre(0, 2, 3, 1, 4, 5));
}

TEST(Folding, Arithmetic) {
  for (const auto &[type, expected] :
       {std::pair{"Add", std::vector<double>{11, 22}}, {"Sub", {9, 18}}, {"Mul", {10, 40}}, {"Div", {10, 10}}}) {
    ModelBuilder builder;
    builder.weights("a", {2}, {10, 20}).weights("b", {2}, {1, 2}).output("y");
    builder.node(type, {"a", "b"}, {"y"});
    EXPECT_EQ(folded(builder), expected) << type;
  }
  ModelBuilder broadcast;
  broadcast.weights("a", {2, 1}, {1, 2}).weights("b", {2}, {10, 20}).output("y");
  broadcast.node("Add", {"a", "b"}, {"y"});
  EXPECT_THAT(folded(broadcast), ElementsAre(11, 21, 12, 22));
  ModelBuilder integers;
  integers.integers("a", {7, -7}).integers("b", {2}).output("y");
  integers.node("Div", {"a", "b"}, {"y"});
  EXPECT_THAT(folded(integers), ElementsAre(3, -3));
}

TEST(Folding, ArithmeticErrors) {
  ModelBuilder zero;
  zero.integers("a", {1}).integers("b", {0}).output("y");
  zero.node("Div", {"a", "b"}, {"y"}).name("n");
  EXPECT_THAT(zero.error(), AllOf(HasSubstr("node 'n' (Div)"), HasSubstr("zero")));
  ModelBuilder shapes;
  shapes.weights("a", {2}).weights("b", {3}).output("y");
  shapes.node("Add", {"a", "b"}, {"y"});
  EXPECT_THAT(shapes.error(), AllOf(HasSubstr("[2]"), HasSubstr("[3]")));
  ModelBuilder overflow;
  overflow.integers("a", {INT64_MAX}).integers("b", {2}).output("y");
  overflow.node("Mul", {"a", "b"}, {"y"});
  EXPECT_NE(overflow.error(), "");
  ModelBuilder types;
  types.weights("a", {1}).integers("b", {1}).output("y");
  types.node("Add", {"a", "b"}, {"y"});
  EXPECT_THAT(types.error(), AllOf(HasSubstr("float32"), HasSubstr("int64")));
}

TEST(Folding, SizesAreChecked) {
  EXPECT_EQ(try_element_count({3, 0, 5}), 0);
  EXPECT_EQ(try_element_count({}), 1);
  for (const Ints &dims : {Ints{INT64_MAX, 2}, Ints{0, INT64_MAX, 2}, Ints{int64_t{1} << 57}, Ints{-1}}) {
    EXPECT_EQ(try_element_count(dims), std::nullopt);
    EXPECT_THROW(make_constant(DataType::Float64, dims), ModelError);
  }
}

TEST(Folding, Cast) {
  ModelBuilder builder;
  builder.weights("a", {3}, {1.9f, -1.9f, 0}).output("y");
  builder.node("Cast", {"a"}, {"y"}).attr("to", int64_t{TensorProto::INT64});
  EXPECT_THAT(folded(builder), ElementsAre(1, -1, 0));
  ModelBuilder run_time = unary("Cast", [](NodeBuilder &n) { n.attr("to", int64_t{TensorProto::DOUBLE}); });
  EXPECT_THAT(operations(run_time.import()), ElementsAre("Elementwise Cast to float64"));
  EXPECT_EQ(unary("Cast", [](NodeBuilder &n) { n.attr("to", int64_t{TensorProto::FLOAT}); }).error(), "");
  EXPECT_THAT(unary("Cast", [](NodeBuilder &n) { n.attr("to", int64_t{77}); }).error(), HasSubstr("type 77"));
}

TEST(Folding, ConstantNodes) {
  const auto constant = [](const std::function<void(NodeBuilder &)> &attributes) {
    ModelBuilder builder;
    builder.output("y");
    NodeBuilder node = builder.node("Constant", {}, {"y"}).name("n");
    attributes(node);
    return builder;
  };
  EXPECT_THAT(folded(constant([](NodeBuilder &n) { n.attr("value_float", 2.5f); })), ElementsAre(2.5));
  EXPECT_THAT(folded(constant([](NodeBuilder &n) { n.floats("value_floats", {1, 2}); })), ElementsAre(1, 2));
  EXPECT_THAT(folded(constant([](NodeBuilder &n) { n.attr("value_int", int64_t{-3}); })), ElementsAre(-3));
  EXPECT_THAT(folded(constant([](NodeBuilder &n) { n.ints("value_ints", {4, 5}); })), ElementsAre(4, 5));
  const auto tensor = [](NodeBuilder &n) {
    auto *value = n.add("value", onnx::AttributeProto::TENSOR)->mutable_t();
    value->set_data_type(TensorProto::FLOAT);
    value->add_dims(1);
    value->add_float_data(6);
  };
  EXPECT_THAT(folded(constant(tensor)), ElementsAre(6));
  EXPECT_THAT(constant([](NodeBuilder &) {}).error(), HasSubstr("has no value"));
  EXPECT_THAT(constant([](NodeBuilder &n) { n.attr("value_int", int64_t{1}).attr("value_float", 1.0f); }).error(),
              AllOf(HasSubstr("value_float"), HasSubstr("value_int")));
  EXPECT_THAT(constant([](NodeBuilder &n) { n.attr("value_string", "s"); }).error(), HasSubstr("value_string"));
  EXPECT_THAT(constant([](NodeBuilder &n) { n.add("value", onnx::AttributeProto::TENSOR); }).error(),
              HasSubstr("no tensor value"));
}

TEST(Folding, HasABudget) {
  // 4 KiB expanded 4096-fold, again and again: each step alone is within reason.
  ModelBuilder builder;
  builder.weights("c0", {1024, 1}).integers("s", {1024, 1 << 20}).output("c1");
  builder.node("Expand", {"c0", "s"}, {"c1"});
  EXPECT_THAT(builder.error(), HasSubstr("memory"));
}

// ---- Shapes and initial states ----

// torch: h0 = zeros(1, batch, 5), in the ways its exporters write it.
void finish_gru(ModelBuilder &builder) {
  builder.weights("w", {1, 15, 6}).weights("r", {1, 15, 5}).output("y");
  builder.node("GRU", {"x", "w", "r", "", "", "h0"}, {"y"});
}

ModelBuilder dynamic_batch() {
  ModelBuilder builder;
  builder.input("x", {"time", "batch", 6});
  builder.integers("one", {1}).integers("five", {5}).integers("zero", {0}).scalar("i1", 1);
  builder.node("Shape", {"x"}, {"s"});
  builder.node("Gather", {"s", "i1"}, {"n"});
  builder.node("Unsqueeze", {"n", "zero"}, {"n1"});
  builder.node("Concat", {"one", "n1", "five"}, {"target"}).attr("axis", int64_t{0});
  return builder;
}

TEST(InitialState, ZerosOfADynamicBatchAreLeftOut) {
  ModelBuilder constant_of_shape = dynamic_batch();
  constant_of_shape.node("ConstantOfShape", {"target"}, {"h0"});
  finish_gru(constant_of_shape);
  EXPECT_EQ(constant_of_shape.import().nodes.at(0).inputs[5], kNoTensor);

  ModelBuilder expand = dynamic_batch();
  expand.tensor("z", {}, TensorProto::FLOAT)->add_float_data(0);
  expand.node("Expand", {"z", "target"}, {"all"});
  expand.node("Slice", {"all", "zero", "one", "zero"}, {"h0"});
  finish_gru(expand);
  EXPECT_EQ(expand.import().nodes.at(0).inputs[5], kNoTensor);
}

TEST(InitialState, OtherValuesAreKept) {
  ModelBuilder builder = dynamic_batch();
  builder.tensor("v", {}, TensorProto::FLOAT)->add_float_data(0.5);
  builder.node("Expand", {"v", "target"}, {"h0"});
  finish_gru(builder);
  const Graph graph = builder.import();
  EXPECT_THAT(operations(graph), ElementsAre("Expand to [1, batch, 5]", HasSubstr("gru")));
  EXPECT_EQ(graph.nodes[1].inputs[5], graph.nodes[0].outputs[0]);
}

TEST(InitialState, ExpandedByWhereAndEqual) {
  // torch: parameter.expand(-1, batch, -1), where -1 keeps a dimension.
  ModelBuilder builder = dynamic_batch();
  builder.integers("minus", {-1}).integers("ones", {1, 1, 1}).weights("p", {1, 1, 5}, Floats(5, 0.0f));
  builder.node("Concat", {"minus", "n1", "minus"}, {"wanted"}).attr("axis", int64_t{0});
  builder.node("Equal", {"wanted", "minus"}, {"keep"});
  builder.node("Where", {"keep", "ones", "wanted"}, {"dims"});
  builder.node("Expand", {"p", "dims"}, {"h0"});
  finish_gru(builder);
  const Graph graph = builder.import();
  EXPECT_THAT(operations(graph), ElementsAre("Expand to [1, batch, 5]", HasSubstr("gru")));
}

TEST(Shapes, ArithmeticWithDynamicDimensions) {
  ModelBuilder builder = dynamic_batch();
  builder.integers("two", {2});
  builder.node("Mul", {"n1", "two"}, {"n2"});
  builder.node("Div", {"n2", "n1"}, {"q"});  // 2
  builder.node("Add", {"q", "one"}, {"three"});
  builder.node("ConstantOfShape", {"three"}, {"y"});
  builder.output("y");
  EXPECT_THAT(folded(builder), ElementsAre(0, 0, 0));
  ModelBuilder inexact = dynamic_batch();
  inexact.integers("two", {2});
  inexact.node("Div", {"n1", "two"}, {"half"}).name("n");
  inexact.node("ConstantOfShape", {"half"}, {"y"});
  inexact.output("y");
  EXPECT_THAT(inexact.error(), AllOf(HasSubstr("node 'n' (Div)"), HasSubstr("batch by 2")));
}

TEST(Shapes, StartAndEndOfShape) {
  const auto shape = [](int64_t opset) {
    ModelBuilder builder(opset);
    builder.input("x", {4, 5, 6}).output("y");
    builder.node("Shape", {"x"}, {"y"}).attr("start", int64_t{-2}).attr("end", int64_t{-1});
    return builder;
  };
  EXPECT_THAT(folded(shape(15)), ElementsAre(5));
  EXPECT_THAT(shape(13).error(), AllOf(HasSubstr("opset 13"), HasSubstr("attribute")));
}

TEST(Shapes, AbsurdOnesAreRefused) {
  ModelBuilder builder;
  builder.integers("s", {INT64_MAX, INT64_MAX}).output("y");
  builder.node("ConstantOfShape", {"s"}, {"y"});
  EXPECT_NE(builder.error(), "");
  ModelBuilder negative;
  negative.integers("s", {-3}).output("y");
  negative.node("ConstantOfShape", {"s"}, {"y"});
  EXPECT_THAT(negative.error(), HasSubstr("-3"));
  // Large but representable: nothing is allocated for it.
  ModelBuilder large;
  large.integers("s", {int64_t{1} << 40}).output("y");
  large.node("ConstantOfShape", {"s"}, {"y"});
  EXPECT_THAT(operations(large.import()), ElementsAre("Expand to [1099511627776]", HasSubstr("Transpose")));
}

// ---- Products ----

ModelBuilder product(const std::string &type, const Ints &w, const std::function<void(NodeBuilder &)> &attributes,
                     const std::optional<Ints> &c = std::nullopt) {
  ModelBuilder builder;
  builder.input("x", {"batch", 4}).weights("w", w).output("y");
  if (c) builder.weights("c", *c);
  NodeBuilder node =
      builder.node(type, c ? std::vector<std::string>{"x", "w", "c"} : std::vector<std::string>{"x", "w"}, {"y"})
          .name("n");
  if (attributes) attributes(node);
  return builder;
}

TEST(Products, Gemm) {
  const auto trans_b = [](NodeBuilder &n) { n.attr("transB", int64_t{1}); };
  const Graph graph = product("Gemm", {3, 4}, trans_b, Ints{3}).import();
  EXPECT_THAT(operations(graph), ElementsAre("Dense 4 -> 3, bias"));
  EXPECT_FALSE(std::get<op::Dense>(graph.nodes[0].op).transposed);
  EXPECT_EQ(out_dims(graph), "[batch, 3]");
  EXPECT_TRUE(std::get<op::Dense>(product("Gemm", {4, 3}, nullptr).import().nodes[0].op).transposed);
  for (const Ints &c : {Ints{}, Ints{1}, Ints{3}, Ints{1, 3}, Ints{1, 1}}) {
    EXPECT_EQ(product("Gemm", {4, 3}, nullptr, c).error(), "");
  }
}

TEST(Products, GemmScales) {
  const auto scales = [](NodeBuilder &n) { n.attr("alpha", 2.0f).attr("beta", 3.0f); };
  const Graph graph = product("Gemm", {4, 3}, scales, Ints{3}).import();
  const Node &node = graph.nodes.at(0);
  EXPECT_FLOAT_EQ(graph.tensor(node.inputs[1]).constant->at<float>(0), 2 * 0.01f);
  EXPECT_FLOAT_EQ(graph.tensor(node.inputs[2]).constant->at<float>(2), 3 * 0.03f);
}

TEST(Products, ScalarBiasesAreRepeated) {
  const Graph graph = product("Gemm", {4, 3}, nullptr, Ints{}).import();
  const Constant &bias = *graph.tensor(graph.nodes.at(0).inputs[2]).constant;
  EXPECT_THAT(bias.dims, ElementsAre(3));
  for (int64_t i = 0; i < 3; ++i) EXPECT_FLOAT_EQ(bias.at<float>(i), 0.01f);
}

TEST(Products, GemmErrors) {
  EXPECT_THAT(product("Gemm", {3, 4}, nullptr).error(),
              AllOf(HasSubstr("node 'n' (Gemm)"), HasSubstr("sizes 4 and 3")));
  EXPECT_THAT(product("Gemm", {4, 3}, [](NodeBuilder &n) { n.attr("transA", int64_t{1}); }).error(), "");
  EXPECT_THAT(product("Gemm", {4, 3}, [](NodeBuilder &n) { n.attr("broadcast", int64_t{1}); }).error(),
              HasSubstr("'broadcast'"));
  EXPECT_THAT(product("Gemm", {4, 3}, nullptr, Ints{2, 3}).error(), AllOf(HasSubstr("[2, 3]"), HasSubstr("[batch, 3]")));
  EXPECT_THAT(product("Gemm", {1, 4, 3}, nullptr).error(), HasSubstr("2 dimensions"));
}

TEST(Products, MatMulAndItsBias) {
  ModelBuilder builder;
  builder.input("x", {"time", "batch", 4}).weights("w", {4, 3}).weights("b", {3}).output("z");
  builder.node("MatMul", {"x", "w"}, {"y"});
  builder.node("Add", {"b", "y"}, {"z"});
  const Graph graph = builder.import();
  EXPECT_THAT(operations(graph), ElementsAre("Dense 4 -> 3, bias"));
  EXPECT_EQ(out_dims(graph), "[time, batch, 3]");
  EXPECT_EQ(graph.tensor(graph.outputs[0]).name, "z");
}

TEST(Products, BiasesThatCannotBeFused) {
  ModelBuilder shared;  // y itself is wanted too
  shared.input("x", {2, 4}).weights("w", {4, 3}).weights("b", {3}).output("z").output("y");
  shared.node("MatMul", {"x", "w"}, {"y"});
  shared.node("Add", {"y", "b"}, {"z"}).name("n");
  EXPECT_THAT(operations(shared.import()), ElementsAre("Dense 4 -> 3", "Elementwise Add"));
  ModelBuilder aliased;  // y is wanted under another name
  aliased.input("x", {2, 4}).weights("w", {4, 3}).weights("b", {3}).output("z").output("y2");
  aliased.node("MatMul", {"x", "w"}, {"y"});
  aliased.node("Identity", {"y"}, {"y2"});
  aliased.node("Add", {"y2", "b"}, {"z"}).name("n");
  EXPECT_THAT(operations(aliased.import()), ElementsAre("Dense 4 -> 3", "Elementwise Add"));
  ModelBuilder other_name;  // y is wanted, and its bias is added under another name
  other_name.input("x", {2, 4}).weights("w", {4, 3}).weights("b", {3}).output("z").output("t");
  other_name.node("MatMul", {"x", "w"}, {"y"});
  other_name.node("Identity", {"y"}, {"y2"});
  other_name.node("Tanh", {"y"}, {"t"});
  other_name.node("Add", {"y2", "b"}, {"z"}).name("n");
  EXPECT_THAT(operations(other_name.import()), ElementsAre("Dense 4 -> 3", "Elementwise Tanh", "Elementwise Add"));
  ModelBuilder rows;  // a value per row is no bias
  rows.input("x", {2, 4}).weights("w", {4, 3}).weights("b", {2, 1}).output("z");
  rows.node("MatMul", {"x", "w"}, {"y"});
  rows.node("Add", {"y", "b"}, {"z"}).name("n");
  EXPECT_THAT(operations(rows.import()), ElementsAre("Dense 4 -> 3", "Elementwise Add"));
}

TEST(Products, MatMulForms) {
  EXPECT_EQ(out_dims(product("MatMul", {4}, nullptr).import()), "[batch]");
  EXPECT_EQ(out_dims(product("MatMul", {1, 4, 3}, nullptr).import()), "[1, batch, 3]");
  EXPECT_THAT(operations(product("MatMul", {5, 4, 3}, nullptr).import()), ElementsAre("MatMul [batch, 4] by [5, 4, 3]"));
  EXPECT_THAT(product("MatMul", {5, 3, 3}, nullptr).error(), HasSubstr("sizes 4 and 3"));
  ModelBuilder batched;
  batched.input("x", {2, 2, 4}).weights("w", {1, 4, 3}).output("y");
  batched.node("MatMul", {"x", "w"}, {"y"});
  EXPECT_EQ(out_dims(batched.import()), "[2, 2, 3]");
  ModelBuilder run_time;
  run_time.input("x", {2, 4}).input("w", {4, 3}).output("y");
  run_time.node("MatMul", {"x", "w"}, {"y"});
  EXPECT_THAT(operations(run_time.import()), ElementsAre("Dense 4 -> 3"));
  ModelBuilder dynamic;
  dynamic.input("x", {2, 4}).input("w", {4, "n"}).output("y");
  dynamic.node("MatMul", {"x", "w"}, {"y"});
  EXPECT_THAT(operations(dynamic.import()), ElementsAre("MatMul [2, 4] by [4, n]"));
}

// ---- Elementwise ----

TEST(Elementwise, Activations) {
  for (const auto &[type, expected] : {std::pair{"Relu", "Relu"},
                                       {"Tanh", "Tanh"},
                                       {"Sigmoid", "Sigmoid"},
                                       {"Softsign", "Softsign"},
                                       {"Softplus", "Softplus"},
                                       {"Elu", "Elu(alpha=1)"},
                                       {"ThresholdedRelu", "ThresholdedRelu(alpha=1)"}}) {
    EXPECT_THAT(operations(unary(type).import()), ElementsAre(std::string("Elementwise ") + expected));
  }
  const Graph graph = unary("HardSigmoid", [](NodeBuilder &n) { n.attr("alpha", 0.25f).attr("beta", 0.75f); }).import();
  EXPECT_THAT(operations(graph), ElementsAre("Elementwise HardSigmoid(alpha=0.25, beta=0.75)"));
  EXPECT_THAT(unary("Tanh", [](NodeBuilder &n) { n.attr("alpha", 1.0f); }).error(), HasSubstr("'alpha'"));
  EXPECT_THAT(unary("LeakyRelu", [](NodeBuilder &n) { n.attr("alpha", INFINITY); }).error(), HasSubstr("inf"));
}

TEST(Elementwise, DropoutPassesItsInputOn) {
  EXPECT_EQ(unary(
                "Dropout", [](NodeBuilder &n) { n.attr("ratio", 0.5f); }, {}, 10)
                .error(),
            "");
  EXPECT_THAT(unary(
                  "Dropout", [](NodeBuilder &n) { n.attr("ratio", 0.5f); }, {}, 12)
                  .error(),
              HasSubstr("'ratio'"));
  ModelBuilder training;
  training.input("x", {2}).weights("ratio", {}).output("y");
  training.tensor("train", {}, TensorProto::BOOL)->add_int32_data(1);
  training.node("Dropout", {"x", "ratio", "train"}, {"y"});
  EXPECT_THAT(training.error(), HasSubstr("training_mode is true"));
  ModelBuilder mask;
  mask.input("x", {2}).output("y").output("m");
  mask.node("Dropout", {"x"}, {"y", "m"});
  EXPECT_EQ(mask.import().tensor(mask.import().outputs[1]).type, DataType::Bool);  // nothing is dropped
}

TEST(Elementwise, ArithmeticAtRunTime) {
  ModelBuilder builder;
  builder.input("x", {"n", 2}).weights("a", {1, 1}).output("y");
  builder.node("Mul", {"x", "a"}, {"y"}).name("n");
  EXPECT_THAT(operations(builder.import()), ElementsAre("Elementwise Mul"));
  EXPECT_EQ(out_dims(builder.import()), "[n, 2]");
}

}  // namespace
}  // namespace hrnn::test
