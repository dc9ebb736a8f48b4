// SPDX-License-Identifier: Apache-2.0
//
// The file, the graph, and the operators RNN and GRU. Operators that move elements: onnx_shapes_test.cpp.
#include "onnx_frontend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "onnx_models.h"

namespace hrnn::test {
namespace {

using onnx::TensorProto;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kTime = 4, kBatch = 2, kInput = 3, kHidden = 5;

// A model of one layer; `directions` sizes the weights. Tests change what they are about.
ModelBuilder layer_model(const std::string &type, int64_t directions = 1, int64_t opset = 17) {
  const int64_t rows = (type == "RNN" ? 1 : 3) * kHidden;
  ModelBuilder builder(opset);
  builder.input("x", {kTime, kBatch, kInput});
  builder.weights("w", {directions, rows, kInput}).weights("r", {directions, rows, kHidden});
  builder.weights("b", {directions, 2 * rows});
  builder.output("y").output("yh");
  return builder;
}

NodeBuilder add_layer(ModelBuilder &builder, const std::string &type,
                      const std::vector<std::string> &inputs = {"x", "w", "r", "b"}) {
  return builder.node(type, inputs, {"y", "yh"}).name("layer");
}

op::Recurrent only_layer(const ModelBuilder &builder) {
  const Graph graph = builder.import();
  EXPECT_EQ(graph.nodes.size(), 1u);
  return std::get<op::Recurrent>(graph.nodes.at(0).op);
}

std::vector<std::string> activation_texts(const op::Recurrent &layer) {
  std::vector<std::string> texts;
  for (const auto &direction : layer.activations) {
    for (const hrnn_activation &activation : direction) texts.push_back(describe(activation));
  }
  return texts;
}

// ---- Layers ----

TEST(Recurrent, GruDefaults) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU");
  const op::Recurrent layer = only_layer(builder);
  EXPECT_EQ(layer.cell, "gru_reset_before");  // linear_before_reset defaults to 0
  EXPECT_EQ(layer.direction, HRNN_FORWARD);
  EXPECT_EQ(layer.layout, 0);
  EXPECT_EQ(layer.input_size, kInput);
  EXPECT_EQ(layer.hidden_size, kHidden);  // from R
  EXPECT_FALSE(layer.clip);
  EXPECT_THAT(activation_texts(layer), ElementsAre("Sigmoid", "Tanh"));
}

TEST(Recurrent, RnnDefaults) {
  ModelBuilder builder = layer_model("RNN", 2);
  add_layer(builder, "RNN").attr("direction", "bidirectional").attr("hidden_size", kHidden);
  const op::Recurrent layer = only_layer(builder);
  EXPECT_EQ(layer.cell, "rnn");
  EXPECT_EQ(layer.direction, HRNN_BIDIRECTIONAL);
  EXPECT_THAT(activation_texts(layer), ElementsAre("Tanh", "Tanh"));
}

TEST(Recurrent, ShapesOfOutputs) {
  ModelBuilder builder = layer_model("GRU", 2);
  add_layer(builder, "GRU").attr("direction", "bidirectional");
  const Graph graph = builder.import();
  EXPECT_EQ(graph.dims_text(graph.outputs[0]), "[4, 2, 2, 5]");
  EXPECT_EQ(graph.dims_text(graph.outputs[1]), "[2, 2, 5]");
}

TEST(Recurrent, BatchMajorLayout) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU").attr("layout", int64_t{1});
  const Graph graph = builder.import();  // x is [batch 4, time 2, input]
  EXPECT_EQ(std::get<op::Recurrent>(graph.nodes[0].op).layout, 1);
  EXPECT_EQ(graph.dims_text(graph.outputs[0]), "[4, 2, 1, 5]");
  EXPECT_EQ(graph.dims_text(graph.outputs[1]), "[4, 1, 5]");
}

TEST(Recurrent, LinearBeforeReset) {
  for (const int64_t value : {0, 1, 2}) {
    ModelBuilder builder = layer_model("GRU");
    add_layer(builder, "GRU").attr("linear_before_reset", value);
    EXPECT_EQ(only_layer(builder).cell, value ? "gru" : "gru_reset_before");
  }
}

TEST(Recurrent, WarnsWhenTorchLostLinearBeforeReset) {
  for (const auto &[producer, value, warnings] : {std::tuple{"pytorch", 0, 1}, {"pytorch", 1, 0}, {"keras", 0, 0}}) {
    ModelBuilder builder = layer_model("GRU");
    builder.model.set_producer_name(producer);
    add_layer(builder, "GRU").attr("linear_before_reset", int64_t{value});
    EXPECT_EQ(builder.import().warnings.size(), static_cast<size_t>(warnings)) << producer << value;
  }
}

TEST(Recurrent, EveryOpsetFromSevenOn) {
  for (int64_t opset = 7; opset <= 28; ++opset) {
    ModelBuilder builder = layer_model("GRU", 1, opset);
    add_layer(builder, "GRU");
    EXPECT_EQ(builder.error(), "") << opset;
  }
}

TEST(Recurrent, DirectionMustBeKnown) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU").attr("direction", "backward");
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("node 'layer' (GRU)"), HasSubstr("'direction' is 'backward'"),
                                     HasSubstr("forward, reverse or bidirectional")));
}

TEST(Recurrent, LayoutMustBeKnownAndOfItsOpset) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU").attr("layout", int64_t{2});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("'layout' is 2"), HasSubstr("0 or 1")));
  ModelBuilder older = layer_model("GRU", 1, 13);
  add_layer(older, "GRU").attr("layout", int64_t{1});
  EXPECT_THAT(older.error(), AllOf(HasSubstr("'layout'"), HasSubstr("GRU"), HasSubstr("opset 13")));
}

TEST(Recurrent, HiddenSizeMustAgreeWithR) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU").attr("hidden_size", int64_t{6});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("'hidden_size' is 6"), HasSubstr("[1, 15, 5]"), HasSubstr("means 5")));
}

TEST(Recurrent, Clip) {
  ModelBuilder builder = layer_model("RNN");
  add_layer(builder, "RNN").attr("clip", 0.5f);
  EXPECT_EQ(only_layer(builder).clip, 0.5);
  for (const float clip : {-1.0f, std::numeric_limits<float>::quiet_NaN()}) {
    ModelBuilder bad = layer_model("RNN");
    add_layer(bad, "RNN").attr("clip", clip);
    EXPECT_THAT(bad.error(), HasSubstr("attribute 'clip' is "));
  }
}

TEST(Recurrent, UnknownAttributesAreErrors) {
  for (const char *attribute : {"output_sequence", "linear_before_reset", "bogus"}) {
    ModelBuilder builder = layer_model("RNN");
    add_layer(builder, "RNN").attr(attribute, int64_t{1});
    EXPECT_THAT(builder.error(), AllOf(HasSubstr("node 'layer' (RNN)"), HasSubstr(attribute), HasSubstr("opset 17")));
  }
}

TEST(Recurrent, AttributesOfTheWrongType) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU").attr("direction", int64_t{1});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("'direction'"), HasSubstr("INT"), HasSubstr("STRING")));
  ModelBuilder twice = layer_model("GRU");
  add_layer(twice, "GRU").attr("clip", 1.0f).attr("clip", 2.0f);
  EXPECT_THAT(twice.error(), AllOf(HasSubstr("'clip'"), HasSubstr("twice")));
}

TEST(Recurrent, NodesWithoutANameAreNamedByTheirOutput) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU").name("").attr("layout", int64_t{2});
  EXPECT_THAT(builder.error(), HasSubstr("the GRU node that makes 'y'"));
}

TEST(Recurrent, EitherOutputMayBeAbsent) {
  for (const int absent : {0, 1}) {
    ModelBuilder builder = layer_model("GRU");
    add_layer(builder, "GRU").proto()->set_output(absent, "");
    builder.graph().mutable_output()->DeleteSubrange(absent, 1);
    const Graph graph = builder.import();
    EXPECT_EQ(graph.nodes[0].outputs[absent], kNoTensor);
    EXPECT_EQ(graph.nodes[0].outputs[1 - absent], graph.outputs[0]);
  }
}

// ---- Activations ----

struct ActivationCase {
  std::string type;
  int64_t directions;
  std::vector<std::string> names;
  Floats alpha, beta;
  std::vector<std::string> expected;
};

class Activations : public ::testing::TestWithParam<ActivationCase> {};

ModelBuilder activation_model(const ActivationCase &test) {
  ModelBuilder builder = layer_model(test.type, test.directions);
  NodeBuilder node = add_layer(builder, test.type).strings("activations", test.names);
  if (test.directions == 2) node.attr("direction", "bidirectional");
  if (!test.alpha.empty()) node.floats("activation_alpha", test.alpha);
  if (!test.beta.empty()) node.floats("activation_beta", test.beta);
  return builder;
}

TEST_P(Activations, AreUnderstood) {
  const op::Recurrent layer = only_layer(activation_model(GetParam()));
  EXPECT_EQ(activation_texts(layer), GetParam().expected);
  EXPECT_EQ(layer.activations.size(), static_cast<size_t>(GetParam().directions));
}

INSTANTIATE_TEST_SUITE_P(
    Lists, Activations,
    ::testing::Values(
        // Every function, its defaults, in any case of letters.
        ActivationCase{"RNN", 2, {"relu", "TANH"}, {}, {}, {"Relu", "Tanh"}},
        ActivationCase{"RNN", 2, {"Affine", "LeakyRelu"}, {}, {}, {"Affine(alpha=1, beta=0)", "LeakyRelu(alpha=0.01)"}},
        ActivationCase{"RNN",
                       2,
                       {"ThresholdedRelu", "HardSigmoid"},
                       {},
                       {},
                       {"ThresholdedRelu(alpha=1)", "HardSigmoid(alpha=0.2, beta=0.5)"}},
        ActivationCase{"RNN", 2, {"Elu", "Softsign"}, {}, {}, {"Elu(alpha=1)", "Softsign"}},
        ActivationCase{"RNN", 2, {"Softplus", "Sigmoid"}, {}, {}, {"Softplus", "Sigmoid"}},
        ActivationCase{"RNN", 1, {"ScaledTanh"}, {2}, {0.5}, {"ScaledTanh(alpha=2, beta=0.5)"}},
        // RNN's default written out, although there is one direction.
        ActivationCase{"RNN", 1, {"Tanh", "Tanh"}, {}, {}, {"Tanh"}},
        // One value for each activation that takes one, in order.
        ActivationCase{"GRU",
                       2,
                       {"Sigmoid", "Elu", "Tanh", "LeakyRelu"},
                       {2, 3},
                       {},
                       {"Sigmoid", "Elu(alpha=2)", "Tanh", "LeakyRelu(alpha=3)"}},
        ActivationCase{"GRU",
                       1,
                       {"HardSigmoid", "Affine"},
                       {2, 3},
                       {4, 5},
                       {"HardSigmoid(alpha=2, beta=4)", "Affine(alpha=3, beta=5)"}},
        ActivationCase{"GRU", 1, {"HardSigmoid", "Elu"}, {2, 3}, {4}, {"HardSigmoid(alpha=2, beta=4)", "Elu(alpha=3)"}},
        // One value for every activation.
        ActivationCase{"GRU",
                       2,
                       {"Sigmoid", "Elu", "Tanh", "LeakyRelu"},
                       {9, 2, 9, 3},
                       {},
                       {"Sigmoid", "Elu(alpha=2)", "Tanh", "LeakyRelu(alpha=3)"}},
        ActivationCase{"GRU", 1, {"Tanh", "HardSigmoid"}, {9, 2}, {9, 3}, {"Tanh", "HardSigmoid(alpha=2, beta=3)"}},
        // Alphas given, betas default.
        ActivationCase{"GRU", 1, {"HardSigmoid", "Tanh"}, {2}, {}, {"HardSigmoid(alpha=2, beta=0.5)", "Tanh"}}));

TEST(ActivationErrors, WrongNumberOfNames) {
  EXPECT_THAT(activation_model({"GRU", 1, {"Sigmoid"}, {}, {}, {}}).error(),
              AllOf(HasSubstr("'activations' has 1 names"), HasSubstr("takes 2")));
  EXPECT_THAT(activation_model({"GRU", 2, {"Sigmoid", "Tanh"}, {}, {}, {}}).error(),
              AllOf(HasSubstr("'activations' has 2 names"), HasSubstr("takes 4")));
  EXPECT_THAT(activation_model({"RNN", 1, {"Tanh", "Relu"}, {}, {}, {}}).error(), HasSubstr("takes 1"));
}

TEST(ActivationErrors, UnknownName) {
  EXPECT_THAT(activation_model({"RNN", 1, {"Swish"}, {}, {}, {}}).error(),
              AllOf(HasSubstr("'activations'"), HasSubstr("'Swish'"), HasSubstr("Softplus")));
}

TEST(ActivationErrors, ListsThatFitNeitherRule) {
  EXPECT_THAT(activation_model({"GRU", 2, {"Sigmoid", "Elu", "Tanh", "Elu"}, {1, 2, 3}, {}, {}}).error(),
              AllOf(HasSubstr("'activation_alpha' has 3 values"), HasSubstr("2 activations"), HasSubstr("all 4")));
  EXPECT_THAT(activation_model({"GRU", 1, {"Sigmoid", "Tanh"}, {}, {1}, {}}).error(),
              AllOf(HasSubstr("'activation_beta' has 1 values"), HasSubstr("0 activations"), HasSubstr("all 2")));
}

TEST(ActivationErrors, ScaledTanhHasNoDefaults) {
  EXPECT_THAT(activation_model({"RNN", 1, {"ScaledTanh"}, {}, {1}, {}}).error(),
              AllOf(HasSubstr("ScaledTanh"), HasSubstr("'activation_alpha'")));
  EXPECT_THAT(activation_model({"RNN", 1, {"ScaledTanh"}, {1}, {}, {}}).error(), HasSubstr("'activation_beta'"));
}

TEST(ActivationErrors, ParametersMustBeFinite) {
  EXPECT_THAT(activation_model({"RNN", 1, {"Elu"}, {INFINITY}, {}, {}}).error(),
              AllOf(HasSubstr("'activation_alpha'"), HasSubstr("inf")));
}

// ---- Operands ----

TEST(Operands, WeightsMayBeGraphInputs) {
  ModelBuilder builder;
  builder.input("x", {"time", "batch", 3}).input("w", {1, 15, 3}).input("r", {1, 15, 5}).output("y");
  builder.node("GRU", {"x", "w", "r"}, {"y"});
  const Graph graph = builder.import();
  EXPECT_EQ(graph.inputs.size(), 3u);
  EXPECT_EQ(graph.nodes[0].inputs[1], graph.inputs[1]);
  EXPECT_EQ(graph.nodes[0].inputs[3], kNoTensor);
  EXPECT_EQ(graph.dims_text(graph.outputs[0]), "[time, 1, batch, 5]");
}

TEST(Operands, SizesOfWeightsMustBeFixed) {
  ModelBuilder builder;
  builder.input("x", {"time", "batch", 3}).input("w", {1, 15, 3}).input("r", {1, 15, "hidden"}).output("y");
  builder.node("GRU", {"x", "w", "r"}, {"y"});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("input R ('r')"), HasSubstr("hidden size"), HasSubstr("'hidden'")));
}

TEST(Operands, AbsurdSizesAreRefused) {
  ModelBuilder builder;
  const int64_t huge = int64_t{1} << 40;
  builder.input("x", {1, 1, huge}).input("w", {1, 3, huge}).input("r", {1, 3, 1}).output("y");
  builder.node("GRU", {"x", "w", "r"}, {"y"});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("1099511627776"), HasSubstr("16777216")));
}

TEST(Operands, ShapesMustFit) {
  const struct {
    const char *name;
    Ints dims;
    const char *says;
  } cases[] = {
      {"w", {1, 15, 4}, "input X ('x') has shape [4, 2, 3]"},
      {"w", {1, 14, 3}, "input W ('w') has shape [1, 14, 3]; it must be [directions, 3 * hidden, input] = [1, 15, 3]"},
      {"w", {2, 15, 3}, "input W ('w') has shape [2, 15, 3]"},
      {"r", {1, 14, 5}, "input R ('r') has shape [1, 14, 5]; it must be [directions, 3 * hidden, hidden] = [1, 15, 5]"},
      {"b", {1, 15}, "input B ('b') has shape [1, 15]; it must be [directions, 6 * hidden] = [1, 30]"},
      {"b", {30}, "input B ('b') has shape [30]"},
  };
  for (const auto &test : cases) {
    ModelBuilder builder = layer_model("GRU");
    for (auto &tensor : *builder.graph().mutable_initializer()) {
      if (tensor.name() == test.name) tensor.set_name("unused");
    }
    builder.weights(test.name, test.dims);
    add_layer(builder, "GRU");
    EXPECT_THAT(builder.error(), AllOf(HasSubstr("node 'layer' (GRU)"), HasSubstr(test.says)));
  }
}

TEST(Operands, RanksMustFit) {
  ModelBuilder builder = layer_model("GRU");
  builder.input("flat", {4, 3});
  add_layer(builder, "GRU", {"flat", "w", "r"});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("input X ('flat')"), HasSubstr("[4, 3]"), HasSubstr("3 dimensions")));
}

TEST(Operands, RequiredOnesMustBeThere) {
  ModelBuilder builder = layer_model("GRU");
  add_layer(builder, "GRU", {"x", "", "r"});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("input 1 (W) is missing"), HasSubstr("GRU")));
  ModelBuilder fewer = layer_model("GRU");
  add_layer(fewer, "GRU", {"x", "w"});
  EXPECT_THAT(fewer.error(), AllOf(HasSubstr("has 2 inputs"), HasSubstr("3 to 6")));
  ModelBuilder more = layer_model("GRU");
  add_layer(more, "GRU", {"x", "w", "r", "", "", "", "b"});
  EXPECT_THAT(more.error(), AllOf(HasSubstr("has 7 inputs"), HasSubstr("3 to 6")));
}

TEST(Operands, TypesMustFit) {
  ModelBuilder builder = layer_model("GRU");
  builder.input("h", {1, kBatch, kHidden}, TensorProto::DOUBLE);
  add_layer(builder, "GRU", {"x", "w", "r", "", "", "h"});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("initial_h ('h') is float64"), HasSubstr("X is float32")));
  ModelBuilder lengths = layer_model("GRU");
  lengths.input("n", {kBatch}, TensorProto::INT64);
  add_layer(lengths, "GRU", {"x", "w", "r", "", "n"});
  EXPECT_THAT(lengths.error(), AllOf(HasSubstr("sequence_lens ('n') is int64"), HasSubstr("int32")));
}

TEST(Operands, LengthsAndInitialStateArriveAtRunTime) {
  ModelBuilder builder = layer_model("GRU");
  builder.input("n", {kBatch}, TensorProto::INT32).input("h", {1, kBatch, kHidden});
  add_layer(builder, "GRU", {"x", "w", "r", "", "n", "h"});
  const Graph graph = builder.import();
  EXPECT_EQ(graph.nodes[0].inputs[4], graph.inputs[1]);
  EXPECT_EQ(graph.nodes[0].inputs[5], graph.inputs[2]);
  ModelBuilder wrong = layer_model("GRU");
  wrong.input("h", {1, 7, kHidden});
  add_layer(wrong, "GRU", {"x", "w", "r", "", "", "h"});
  EXPECT_THAT(wrong.error(), AllOf(HasSubstr("initial_h ('h') has shape [1, 7, 5]"), HasSubstr("[1, 2, 5]")));
}

TEST(Operands, ZeroInitialStatesAreLeftOut) {
  ModelBuilder zeros = layer_model("GRU");
  zeros.weights("h", {1, kBatch, kHidden}, Floats(kBatch * kHidden, -0.0f));
  add_layer(zeros, "GRU", {"x", "w", "r", "", "", "h"});
  const Graph graph = zeros.import();
  EXPECT_EQ(graph.nodes[0].inputs[5], kNoTensor);
  EXPECT_THAT(graph.notes, ElementsAre(HasSubstr("initial_h is zeros")));
  ModelBuilder other = layer_model("GRU");
  other.weights("h", {1, kBatch, kHidden});
  add_layer(other, "GRU", {"x", "w", "r", "", "", "h"});
  EXPECT_NE(other.import().nodes[0].inputs[5], kNoTensor);
}

TEST(Operands, Float64) {
  ModelBuilder builder;
  builder.input("x", {2, 1, 1}, TensorProto::DOUBLE).output("y");
  for (const char *name : {"w", "r"}) builder.tensor(name, {1, 1, 1}, TensorProto::DOUBLE)->add_double_data(0.25);
  builder.node("RNN", {"x", "w", "r"}, {"y"});
  const Graph graph = builder.import();
  EXPECT_EQ(graph.tensor(graph.outputs[0]).type, DataType::Float64);
  EXPECT_EQ(graph.tensor(graph.nodes[0].inputs[1]).constant->at<double>(0), 0.25);
}

// ---- Element types and data ----

TEST(Data, SixteenBitTypesAreConvertedAtTheBorders) {
  for (const auto &[type, expected] :
       {std::pair{TensorProto::FLOAT16, DataType::Float16}, {TensorProto::BFLOAT16, DataType::BFloat16}}) {
    ModelBuilder builder;
    builder.input("x", {1}, type).output("y", {1}, type);
    onnx::TensorProto *one = builder.tensor("one", {1}, type);
    one->add_int32_data(type == TensorProto::FLOAT16 ? 0x3c00 : 0x3f80);
    builder.node("Add", {"x", "one"}, {"y"});
    const Graph graph = builder.import();
    ASSERT_EQ(graph.nodes.size(), 3u);  // in, add, out
    EXPECT_EQ(graph.tensor(graph.inputs[0]).type, expected);
    EXPECT_EQ(graph.tensor(graph.outputs[0]).type, expected);
    EXPECT_EQ(graph.tensor(graph.nodes[1].outputs[0]).type, DataType::Float32);
    EXPECT_EQ(graph.tensor(graph.nodes[1].inputs[1]).constant->at<float>(0), 1);
  }
}

TEST(Data, OtherTypesAreNamed) {
  for (const auto &[type, name] :
       {std::pair<int, const char *>{TensorProto::STRING, "string"}, {TensorProto::UINT8, "uint8"}, {99, "type 99"}}) {
    ModelBuilder builder;
    builder.input("x", {1}, type).output("y");
    builder.node("Identity", {"x"}, {"y"});
    EXPECT_THAT(builder.error(), AllOf(HasSubstr("graph input 'x'"), HasSubstr(name)));
  }
}

Constant only_constant(const ModelBuilder &builder) {
  const Graph graph = builder.import();
  for (const Tensor &tensor : graph.tensors) {
    if (tensor.constant) return *tensor.constant;
  }
  return {};
}

// A model whose output is the initializer "c".
ModelBuilder constant_model(const std::function<void(ModelBuilder &)> &add) {
  ModelBuilder builder;
  builder.output("y");
  add(builder);
  builder.node("Identity", {"c"}, {"y"});
  return builder;
}

TEST(Data, TypedFields) {
  const Constant f4 = only_constant(constant_model([](ModelBuilder &b) {
    auto *tensor = b.tensor("c", {2}, TensorProto::FLOAT);
    tensor->add_float_data(1.5f);
    tensor->add_float_data(-2);
  }));
  EXPECT_EQ(f4.at<float>(1), -2);
  const Constant f8 = only_constant(
      constant_model([](ModelBuilder &b) { b.tensor("c", {}, TensorProto::DOUBLE)->add_double_data(1e300); }));
  EXPECT_EQ(f8.at<double>(0), 1e300);
  const Constant i4 = only_constant(
      constant_model([](ModelBuilder &b) { b.tensor("c", {1}, TensorProto::INT32)->add_int32_data(-7); }));
  EXPECT_EQ(i4.at<int32_t>(0), -7);
  const Constant i8 = only_constant(
      constant_model([](ModelBuilder &b) { b.tensor("c", {1}, TensorProto::INT64)->add_int64_data(INT64_MIN); }));
  EXPECT_EQ(i8.at<int64_t>(0), INT64_MIN);
}

TEST(Data, SizesMustMatchTheShape) {
  EXPECT_THAT(constant_model([](ModelBuilder &b) {
                b.weights("c", {2, 3}, counted(5));
              }).error(),
              AllOf(HasSubstr("initializer 'c'"), HasSubstr("[2, 3]"), HasSubstr("24 bytes"), HasSubstr("has 20")));
  EXPECT_THAT(
      constant_model([](ModelBuilder &b) { b.tensor("c", {2}, TensorProto::INT64)->add_int64_data(1); }).error(),
      AllOf(HasSubstr("needs 2 values"), HasSubstr("int64_data has 1")));
  EXPECT_THAT(constant_model([](ModelBuilder &b) { b.tensor("c", {2}, TensorProto::FLOAT); }).error(),
              AllOf(HasSubstr("needs 2 values"), HasSubstr("float_data has 0")));
}

TEST(Data, AbsurdShapesAreRefused) {
  const Ints shapes[] = {{INT64_MAX}, {int64_t{1} << 40}, {int64_t{1} << 32, int64_t{1} << 32},
                         {-1},        {0, INT64_MAX, 2},  {1, 1, 1, 1, 1, 1, 1, 1, 1}};
  for (const Ints &shape : shapes) {
    const auto model =
        constant_model([&](ModelBuilder &b) { b.tensor("c", shape, TensorProto::FLOAT)->set_raw_data("1234"); });
    EXPECT_THAT(model.error(), HasSubstr("initializer 'c'"));
  }
}

TEST(Data, OneFieldOnly) {
  EXPECT_THAT(constant_model([](ModelBuilder &b) {
                auto *tensor = b.tensor("c", {1}, TensorProto::FLOAT);
                tensor->add_float_data(1);
                tensor->set_raw_data("1234");
              }).error(),
              AllOf(HasSubstr("float_data"), HasSubstr("raw_data")));
  EXPECT_THAT(
      constant_model([](ModelBuilder &b) { b.tensor("c", {1}, TensorProto::FLOAT)->add_int64_data(1); }).error(),
      AllOf(HasSubstr("float32"), HasSubstr("int64_data"), HasSubstr("float_data")));
  EXPECT_THAT(constant_model([](ModelBuilder &b) {
                b.tensor("c", {1}, TensorProto::FLOAT)->mutable_segment()->set_begin(0);
              }).error(),
              HasSubstr("segments"));
}

// ---- External data ----

class External : public ::testing::Test {
 protected:
  std::string error(const std::vector<std::pair<std::string, std::string>> &entries) const {
    return model(entries).error(folder_.path());
  }
  static ModelBuilder model(const std::vector<std::pair<std::string, std::string>> &entries) {
    return constant_model([&](ModelBuilder &b) {
      auto *tensor = b.tensor("c", {2}, TensorProto::FLOAT);
      tensor->set_data_location(TensorProto::EXTERNAL);
      for (const auto &[key, value] : entries) {
        auto *entry = tensor->add_external_data();
        entry->set_key(key);
        entry->set_value(value);
      }
    });
  }

  const Floats values_ = {7, 8, 9};
  const TemporaryFolder folder_;
  const std::string file_ =
      folder_.write("data.bin", std::string(reinterpret_cast<const char *>(values_.data()), sizeof(float) * 3));
};

TEST_F(External, OffsetAndLength) {
  const Graph graph = model({{"location", "data.bin"}, {"offset", "4"}, {"length", "8"}}).import(folder_.path());
  EXPECT_EQ(graph.tensors[0].constant->at<float>(0), 8);
  EXPECT_EQ(graph.tensors[0].constant->at<float>(1), 9);
  EXPECT_EQ(error({{"location", "data.bin"}, {"offset", "4"}}), "");  // to the end of the file
}

TEST_F(External, SizesAreCheckedAgainstTheFile) {
  EXPECT_THAT(error({{"location", "data.bin"}}), AllOf(HasSubstr("needs 8 bytes"), HasSubstr("has 12")));
  EXPECT_THAT(error({{"location", "data.bin"}, {"length", "4"}}),
              AllOf(HasSubstr("needs 8 bytes"), HasSubstr("has 4")));
  EXPECT_THAT(error({{"location", "data.bin"}, {"offset", "8"}, {"length", "8"}}),
              AllOf(HasSubstr("'data.bin'"), HasSubstr("which has 12")));
  EXPECT_THAT(error({{"location", "data.bin"}, {"offset", "13"}}), AllOf(HasSubstr("13"), HasSubstr("12 bytes")));
  EXPECT_NE(error({{"location", "data.bin"}, {"offset", "9223372036854775807"}, {"length", "8"}}), "");
  for (const char *number : {"-1", "", "4x", "0x4", "99999999999999999999"}) {
    EXPECT_THAT(error({{"location", "data.bin"}, {"offset", number}}),
                HasSubstr(std::string("offset is '") + number + "'"));
  }
}

TEST_F(External, PathsStayInsideTheFolder) {
  EXPECT_THAT(error({{"location", file_}, {"length", "8"}}), HasSubstr("inside the model's folder"));
  EXPECT_THAT(error({{"location", "../data.bin"}}), HasSubstr("inside the model's folder"));
  EXPECT_THAT(error({{"location", "a/../../data.bin"}}), HasSubstr("inside the model's folder"));
  EXPECT_THAT(error({{"location", std::string("data.bin\0x", 10)}}), HasSubstr("inside the model's folder"));
  const TemporaryFolder elsewhere;
  elsewhere.write("secret", "12345678");
  std::filesystem::create_symlink(elsewhere.file("secret"), folder_.file("link"));
  std::filesystem::create_symlink(elsewhere.path(), folder_.file("sub"));
  EXPECT_THAT(error({{"location", "link"}}), AllOf(HasSubstr("'link' leads to"), HasSubstr("outside")));
  EXPECT_THAT(error({{"location", "sub/secret"}}), HasSubstr("outside"));
}

TEST_F(External, OtherErrors) {
  EXPECT_THAT(error({}), HasSubstr("without a location"));
  EXPECT_THAT(error({{"location", "gone.bin"}}), HasSubstr("'gone.bin'"));
  EXPECT_THAT(error({{"location", "."}}), HasSubstr("regular file"));
  EXPECT_THAT(error({{"location", "data.bin"}, {"color", "red"}}), HasSubstr("'color'"));
}

// ---- The graph ----

ModelBuilder chain() {
  ModelBuilder builder;
  builder.input("x", {2}).output("z");
  builder.node("Relu", {"x"}, {"y"}).name("first");
  builder.node("Tanh", {"y"}, {"z"}).name("second");
  return builder;
}

TEST(GraphChecks, OrderOfNodes) {
  ModelBuilder builder = chain();
  builder.graph().mutable_node()->SwapElements(0, 1);
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("node 'second' (Tanh)"), HasSubstr("'y'"), HasSubstr("later node")));
}

TEST(GraphChecks, Cycles) {
  ModelBuilder builder = chain();
  builder.graph().mutable_node(0)->set_input(0, "z");
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("node 'first' (Relu)"), HasSubstr("'z'"), HasSubstr("cycle")));
  ModelBuilder self = chain();
  self.graph().mutable_node(0)->set_input(0, "y");
  EXPECT_THAT(self.error(), HasSubstr("cycle"));
}

TEST(GraphChecks, UnknownNames) {
  ModelBuilder builder = chain();
  builder.graph().mutable_node(1)->set_input(0, "nobody");
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("node 'second' (Tanh)"), HasSubstr("'nobody'")));
  ModelBuilder output = chain();
  output.output("nothing");
  EXPECT_THAT(output.error(), HasSubstr("graph output 'nothing'"));
}

TEST(GraphChecks, NamesMadeTwice) {
  ModelBuilder builder = chain();
  builder.graph().mutable_node(1)->set_output(0, "y");
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("'y'"), HasSubstr("twice")));
  ModelBuilder inputs = chain();
  inputs.input("x", {3});
  EXPECT_THAT(inputs.error(), AllOf(HasSubstr("'x'"), HasSubstr("twice")));
  ModelBuilder outputs = chain();
  outputs.output("z");
  EXPECT_THAT(outputs.error(), AllOf(HasSubstr("'z'"), HasSubstr("twice")));
}

TEST(GraphChecks, InitializersListedAsInputsAreConstants) {
  ModelBuilder builder = layer_model("GRU");
  builder.input("w", {1, 15, 3}).input("r", {1, 15, 5}).input("b", {1, 30});  // as before IR version 4
  add_layer(builder, "GRU");
  const Graph graph = builder.import();
  EXPECT_EQ(graph.inputs.size(), 1u);
  EXPECT_TRUE(graph.is_constant(graph.nodes[0].inputs[1]));
}

TEST(GraphChecks, UnsupportedOperatorsAreListedTogether) {
  ModelBuilder builder;
  builder.input("x", {2}).output("c").output("d").output("e");
  builder.node("Det", {"x"}, {"a"}).name("n1");
  builder.node("Relu", {"a"}, {"b"}).name("n2");
  builder.node("Unique", {"b"}, {"c"}).name("n3");
  builder.node("Dropout", {"x", "", "x"}, {"d"}).name("n4");
  NodeBuilder custom = builder.node("Fused", {"x"}, {"e"}).name("n5");
  custom.proto()->set_domain("com.example");
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("4 node(s)"), HasSubstr("node 'n1' (Det)"),
                                     HasSubstr("node 'n3' (Unique)"), HasSubstr("node 'n4' (Dropout)"),
                                     HasSubstr("com.example"), HasSubstr("supported operators: RNN, GRU")));
  EXPECT_THAT(builder.error(), ::testing::Not(HasSubstr("n2")));
}

TEST(GraphChecks, OperatorsNobodyNeedsAreNoProblem) {
  ModelBuilder builder;
  builder.input("x", {2}).output("y");
  builder.node("Sin", {"x"}, {"a"});
  builder.node("Relu", {"a"}, {"b"});
  builder.node("Relu", {"x"}, {"y"});
  EXPECT_EQ(builder.import().nodes.size(), 1u);
}

TEST(GraphChecks, OperatorsOfLaterOpsets) {
  ModelBuilder builder(7);
  builder.input("x", {1}).integers("shape", {2}).output("y");
  builder.node("Expand", {"x", "shape"}, {"y"});
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("Expand"), HasSubstr("opset 8"), HasSubstr("opset 7")));
}

TEST(GraphChecks, InputShapes) {
  ModelBuilder builder = chain();
  builder.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  EXPECT_THAT(builder.error(), AllOf(HasSubstr("graph input 'x'"), HasSubstr("no shape")));
  ModelBuilder negative = chain();
  negative.graph()
      .mutable_input(0)
      ->mutable_type()
      ->mutable_tensor_type()
      ->mutable_shape()
      ->mutable_dim(0)
      ->set_dim_value(-1);
  EXPECT_THAT(negative.error(), AllOf(HasSubstr("dimension 0 is -1"), HasSubstr("dim_param")));
  ModelBuilder absurd;
  absurd.input("x", {int64_t{1} << 40, int64_t{1} << 40}).output("y");
  absurd.node("Relu", {"x"}, {"y"});
  EXPECT_NE(absurd.error(), "");
  ModelBuilder unnamed = chain();
  unnamed.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->mutable_shape()->mutable_dim(0)->Clear();
  const Graph graph = unnamed.import();
  EXPECT_EQ(graph.dims_text(graph.inputs[0]), "[x.dim0]");
}

TEST(GraphChecks, DeclaredOutputs) {
  ModelBuilder rank = layer_model("GRU");
  rank.graph().clear_output();
  rank.output("y", {4, 2, 5});
  add_layer(rank, "GRU");
  EXPECT_THAT(rank.error(), AllOf(HasSubstr("graph output 'y'"), HasSubstr("[4, 2, 5]"), HasSubstr("[4, 1, 2, 5]")));
  ModelBuilder type = layer_model("GRU");
  type.graph().clear_output();
  type.output("y", {4, 1, 2, "h"}, TensorProto::DOUBLE);
  add_layer(type, "GRU");
  EXPECT_THAT(type.error(), AllOf(HasSubstr("float64"), HasSubstr("float32")));
}

TEST(GraphChecks, OutputsThatAreInputsOrEachOther) {
  ModelBuilder builder;
  builder.input("x", {2}).weights("c", {2}).output("a").output("b").output("c2").output("x");
  builder.node("Relu", {"x"}, {"a"});
  builder.node("Identity", {"a"}, {"b"});
  builder.node("Identity", {"c"}, {"c2"});
  const Graph graph = builder.import();
  std::vector<std::string> names;
  for (TensorId id : graph.outputs) names.push_back(graph.tensor(id).name);
  EXPECT_THAT(names, ElementsAre("a", "b", "c2", "x"));
  EXPECT_EQ(graph.nodes.size(), 4u);  // the Relu, and a copy for each of the others
}

TEST(GraphChecks, NodesNobodyNeedsAreDropped) {
  ModelBuilder builder = chain();
  builder.node("Sigmoid", {"y"}, {"unused"});
  EXPECT_EQ(builder.import().nodes.size(), 2u);
}

// ---- The model and its file ----

TEST(ModelChecks, Opsets) {
  for (const int64_t opset : {int64_t{0}, int64_t{6}, int64_t{29}, INT64_MAX}) {
    ModelBuilder builder = chain();
    builder.model.mutable_opset_import(0)->set_version(opset);
    EXPECT_THAT(builder.error(), AllOf(HasSubstr(std::to_string(opset)), HasSubstr("7 to 28")));
  }
  ModelBuilder none = chain();
  none.model.mutable_opset_import(0)->set_domain("com.example");
  EXPECT_THAT(none.error(), HasSubstr("opset_import"));
  ModelBuilder twice = chain();
  *twice.model.add_opset_import() = twice.model.opset_import(0);
  EXPECT_THAT(twice.error(), HasSubstr("twice"));
  ModelBuilder named = chain();
  named.model.mutable_opset_import(0)->set_domain("ai.onnx");
  EXPECT_EQ(named.error(), "");
}

TEST(ModelChecks, PartsThatAreNotSupported) {
  ModelBuilder sparse = chain();
  sparse.graph().add_sparse_initializer()->mutable_values()->set_name("s");
  EXPECT_THAT(sparse.error(), AllOf(HasSubstr("sparse"), HasSubstr("'s'")));
  ModelBuilder quantized = chain();
  quantized.graph().add_quantization_annotation()->set_tensor_name("q");
  EXPECT_THAT(quantized.error(), HasSubstr("'q'"));
  ModelBuilder version = chain();
  version.model.clear_ir_version();
  EXPECT_THAT(version.error(), HasSubstr("ir_version"));
}

std::string file_error(const std::string &path) {
  try {
    load_onnx(path);
    return "";
  } catch (const ModelError &error) {
    return error.what();
  }
}

ModelBuilder small_model() {
  ModelBuilder builder = layer_model("GRU");
  builder.graph().clear_output();
  builder.output("out", {4, 2, "h"});
  add_layer(builder, "GRU")
      .attr("direction", "forward")
      .strings("activations", {"Sigmoid", "Elu"})
      .floats("activation_alpha", {2});
  builder.integers("axes", {1});
  builder.node("Squeeze", {"y", "axes"}, {"out"});
  return builder;
}

TEST(File, LoadsAndNamesTheModel) {
  const TemporaryFolder folder;
  const Graph graph = load_onnx(folder.write("net.onnx", small_model().model.SerializeAsString()));
  EXPECT_EQ(graph.name, "net");
  EXPECT_EQ(graph.format, "ONNX, opset 17");
  EXPECT_EQ(graph.producer, "test");
}

TEST(File, NotAModel) {
  const TemporaryFolder folder;
  EXPECT_THAT(file_error(folder.file("gone.onnx")), AllOf(HasSubstr("gone.onnx"), HasSubstr("cannot open")));
  EXPECT_THAT(file_error(folder.path()), HasSubstr("regular file"));
  EXPECT_THAT(file_error(folder.write("empty.onnx", "")), HasSubstr("is empty"));
  EXPECT_THAT(file_error(folder.write("text.onnx", "hello, world, this is not protobuf")), HasSubstr("text.onnx: "));
}

TEST(File, EveryTruncationIsAnError) {
  const TemporaryFolder folder;
  const std::string bytes = small_model().model.SerializeAsString();
  ASSERT_EQ(file_error(folder.write("m.onnx", bytes)), "");
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(file_error(folder.write("m.onnx", bytes.substr(0, size))), "") << size;
  }
}

TEST(File, FlippedBytesNeverCrash) {
  const std::string bytes = small_model().model.SerializeAsString();
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const char flip : {'\x01', '\x80', '\xff'}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      ModelBuilder builder;
      if (builder.model.ParseFromString(damaged)) builder.error();  // may still be a model
    }
  }
}

TEST(File, DeepNestingIsRefused) {
  // An attribute holds a graph, whose node holds an attribute, ...: recursion a parser must bound.
  onnx::GraphProto inner;
  for (int depth = 0; depth < 200; ++depth) {
    onnx::GraphProto outer;
    onnx::AttributeProto *attribute = outer.add_node()->add_attribute();
    attribute->set_type(onnx::AttributeProto::GRAPH);
    attribute->mutable_g()->Swap(&inner);
    inner.Swap(&outer);
  }
  ModelBuilder builder = chain();
  builder.graph().mutable_node(0)->add_attribute()->mutable_g()->Swap(&inner);
  const TemporaryFolder folder;
  EXPECT_THAT(file_error(folder.write("deep.onnx", builder.model.SerializeAsString())), HasSubstr("not an ONNX model"));
}

}  // namespace
}  // namespace hrnn::test
