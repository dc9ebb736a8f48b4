// SPDX-License-Identifier: Apache-2.0
//
// Operators around recurrent layers: what is refused and how, what folds, functions, and the recurrent part alone. What
// they compute is tested with whole models (tests/models).
#include <gmock/gmock.h>

#include <cmath>
#include <functional>

#include "onnx_models.h"

namespace hrnn::test {
namespace {

using onnx::TensorProto;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A node 'n' over x and initializers.
std::string error_of(const std::string &type, const OnnxDims &x, const std::vector<Ints> &weights,
                     const Attributes &attributes = nullptr, int opset = 17, int outputs = 1,
                     int type_of_x = TensorProto::FLOAT) {
  ModelBuilder builder(opset);
  builder.input("x", x, type_of_x);
  std::vector<std::string> inputs = {"x"}, results;
  for (const Ints &dims : weights) {
    inputs.push_back("w" + std::to_string(inputs.size()));
    builder.weights(inputs.back(), dims);
  }
  for (int i = 0; i < outputs; ++i) {
    results.push_back("y" + std::to_string(i));
    builder.output(results.back());
  }
  NodeBuilder node = builder.node(type, inputs, results).name("n");
  if (attributes) attributes(node);
  return builder.error();
}

// y = BatchNormalization of what `before` makes of x.
ModelBuilder normalized(const OnnxDims &x, int64_t channels, const std::function<void(ModelBuilder &)> &before) {
  ModelBuilder builder;
  builder.input("x", x).output("y");
  for (const char *name : {"scale", "shift", "mean", "variance"}) builder.weights(name, {channels});
  before(builder);
  builder.node("BatchNormalization", {"made", "scale", "shift", "mean", "variance"}, {"y"});
  return builder;
}

TEST(BatchNormalization, BecomesPartOfTheProductBefore) {
  const ModelBuilder convolution = normalized({"batch", 2, "time"}, 4, [](ModelBuilder &builder) {
    builder.weights("w", {4, 2, 1});
    builder.node("Conv", {"x", "w"}, {"made"});
  });
  const std::vector<std::string> all = operations(convolution.import());
  EXPECT_THAT(all, ::testing::Contains("Dense 2 -> 4, bias"));
  EXPECT_THAT(all, ::testing::Not(::testing::Contains(HasSubstr("MulAdd"))));

  const ModelBuilder gemm = normalized({"batch", 3}, 2, [](ModelBuilder &builder) {
    builder.weights("w", {2, 3}, {1, 2, 3, 4, 5, 6}).weights("b", {2}, {10, 20});
    builder.node("Gemm", {"x", "w", "b"}, {"made"}).attr("transB", int64_t{1});
  });
  const Graph graph = gemm.import();
  ASSERT_EQ(graph.nodes.size(), 1u);
  const Constant &w = *graph.tensor(graph.nodes[0].inputs[1]).constant, &b = *graph.tensor(graph.nodes[0].inputs[2]).constant;
  for (int64_t unit = 0; unit < 2; ++unit) {  // scale, shift, mean and variance are 0.01 and 0.02
    const double value = 0.01 * static_cast<double>(unit + 1), factor = value / std::sqrt(value + 1e-5);
    for (int64_t k = 0; k < 3; ++k) EXPECT_NEAR(w.real(unit * 3 + k), static_cast<double>(unit * 3 + k + 1) * factor, 1e-6);
    EXPECT_NEAR(b.real(unit), static_cast<double>(10 * (unit + 1)) * factor + value - value * factor, 1e-5);
  }
}

TEST(BatchNormalization, StaysWhereTheProductIsNeededItselfOrChannelsAreNotItsOutputs) {
  const auto mul_add = ::testing::Contains(HasSubstr("MulAdd"));
  EXPECT_THAT(operations(normalized({"batch", 3}, 2, [](ModelBuilder &builder) {
                           builder.weights("w", {3, 2}).output("made");
                           builder.node("MatMul", {"x", "w"}, {"made"});
                         }).import()),
              mul_add);
  EXPECT_THAT(operations(normalized({"batch", 3}, 2, [](ModelBuilder &builder) {
                           builder.weights("w", {3, 2}).output("z");
                           builder.node("MatMul", {"x", "w"}, {"made"});
                           builder.node("Transpose", {"made"}, {"z"});
                         }).import()),
              mul_add);
  EXPECT_THAT(operations(normalized({"batch", 5, 3}, 5, [](ModelBuilder &builder) {
                           builder.weights("w", {3, 5});
                           builder.node("MatMul", {"x", "w"}, {"made"});
                         }).import()),
              mul_add);
  EXPECT_THAT(operations(normalized({"batch", 3}, 2, [](ModelBuilder &builder) {
                           builder.input("w", {3, 2});
                           builder.node("MatMul", {"x", "w"}, {"made"});
                         }).import()),
              mul_add);
}

// BatchNormalization 'bn' of x, which has three channels along axis 1, and what `after` makes of it ("n").
Graph scaled(const OnnxDims &x, const std::function<void(ModelBuilder &)> &after, const Floats &scale = counted(3)) {
  ModelBuilder builder;
  builder.input("x", x).output("y").weights("scale", {3}, scale);
  for (const char *name : {"shift", "mean", "variance"}) builder.weights(name, {3});
  builder.node("BatchNormalization", {"x", "scale", "shift", "mean", "variance"}, {"n"}).name("bn");
  after(builder);
  return builder.import();
}

TEST(BatchNormalization, BecomesPartOfTheProductsBehind) {
  const Graph graph = scaled({"batch", 3, "time"}, [](ModelBuilder &builder) {
    builder.weights("w", {2, 2, 3}).weights("r", {2, 2, 2}).weights("b", {2, 4}).weights("w2", {3, 4}).output("z");
    builder.node("Transpose", {"n"}, {"steps"}).ints("perm", {2, 0, 1});
    builder.node("RNN", {"steps", "w", "r", "b"}, {"y"}).name("rnn").attr("direction", "bidirectional");
    builder.node("MatMul", {"steps", "w2"}, {"z"}).name("product");
  });
  EXPECT_THAT(operations(graph), ::testing::Not(::testing::Contains(HasSubstr("MulAdd"))));
  EXPECT_THAT(graph.notes, ::testing::IsSupersetOf({HasSubstr("node 'bn' (BatchNormalization): its factor and shift a channel are part "
                                                              "of the weights of node 'rnn' (RNN)"),
                                                    HasSubstr("of node 'product' (MatMul)")}));
  double factor[3], shift[3];  // scale, shift, mean and variance are 0.01, 0.02 and 0.03
  for (int k = 0; k < 3; ++k) {
    const double value = 0.01 * (k + 1);
    factor[k] = value / std::sqrt(value + 1e-5);
    shift[k] = value - value * factor[k];
  }
  for (const Node &node : graph.nodes) {
    const bool layer = std::holds_alternative<op::Recurrent>(node.op);
    if (!layer && !std::holds_alternative<op::Dense>(node.op)) continue;
    const Constant &w = *graph.tensor(node.inputs[1]).constant, &b = *graph.tensor(node.inputs[layer ? 3 : 2]).constant;
    ASSERT_EQ(w.elements(), 12);
    for (int64_t row = 0; row < 4; ++row) {  // of both directions, two each
      double sum = 0;
      for (int64_t k = 0; k < 3; ++k) {
        const int64_t i = layer ? row * 3 + k : k * 4 + row;
        const double given = 0.01 * static_cast<double>(i + 1);
        EXPECT_NEAR(w.real(i), given * factor[k], 1e-7);
        sum += given * shift[k];
      }
      const int64_t at = layer ? row / 2 * 4 + row % 2 : row;
      EXPECT_NEAR(b.real(at), sum + (layer ? 0.01 * static_cast<double>(at + 1) : 0), 1e-7);
      if (!layer) continue;
      EXPECT_NEAR(b.real(at + 2), 0.01 * static_cast<double>(at + 3), 1e-7);  // Rb stays
    }
  }
}

// Reversed by lengths, with dimensions put in and taken out, and the last step picked.
TEST(BatchNormalization, BecomesPartOfAProductBehindViews) {
  const Graph graph = scaled({"batch", 3, "time"}, [](ModelBuilder &builder) {
    builder.input("lengths", {"batch"}, TensorProto::INT64).weights("w", {3, 2}).scalar("last", -1);
    builder.integers("begin", {1}).integers("end", {9}).integers("axis", {0}).integers("apart", {0, 3}).integers("dims", {-1, 1, 3});
    builder.node("Transpose", {"n"}, {"steps"}).ints("perm", {0, 2, 1});
    builder.node("ReverseSequence", {"steps", "lengths"}, {"turned"}).attr("batch_axis", int64_t{0}).attr("time_axis", int64_t{1});
    builder.node("Slice", {"turned", "begin", "end", "axis"}, {"some"});
    builder.node("Gather", {"some", "last"}, {"step"}).attr("axis", int64_t{1});
    builder.node("Unsqueeze", {"step", "apart"}, {"wide"});
    builder.node("Squeeze", {"wide", "apart"}, {"narrow"});
    builder.node("Reshape", {"narrow", "dims"}, {"split"});
    builder.node("Flatten", {"split"}, {"row"});
    builder.node("MatMul", {"row", "w"}, {"y"}).name("product");
  });
  EXPECT_THAT(operations(graph), AllOf(::testing::Not(::testing::Contains(HasSubstr("MulAdd"))), ::testing::Contains(HasSubstr("GatherND"))));
}

TEST(BatchNormalization, BecomesPartOfAProductBehindReshapes) {
  const auto mul_add = ::testing::Contains(HasSubstr("MulAdd"));
  EXPECT_THAT(operations(scaled({2, 3, 4}, [](ModelBuilder &builder) {
                builder.weights("w", {3, 2}).integers("dims", {2, 1, 3, 4});
                builder.node("Reshape", {"n", "dims"}, {"image"});
                builder.node("Transpose", {"image"}, {"turned"}).ints("perm", {0, 1, 3, 2});
                builder.node("MatMul", {"turned", "w"}, {"y"});
              })),
              ::testing::Not(mul_add));
  const Graph joined = scaled({"batch", 3, 2}, [](ModelBuilder &builder) {
    builder.weights("w", {6, 1}, {1, 1, 1, 1, 1, 1});
    builder.node("Flatten", {"n"}, {"row"});
    builder.node("MatMul", {"row", "w"}, {"y"});
  });
  EXPECT_THAT(operations(joined), ::testing::Not(mul_add));
  const Constant &w = *joined.tensor(joined.nodes.back().inputs[1]).constant;
  for (int64_t k = 0; k < 6; ++k) {  // two of each channel
    const double value = 0.01 * static_cast<double>(k / 2 + 1);
    EXPECT_NEAR(w.real(k), value / std::sqrt(value + 1e-5), 1e-7);
  }
}

TEST(BatchNormalization, StaysWhereSomethingElseReadsItOrChannelsAreNotTheInputs) {
  const auto mul_add = ::testing::Contains(HasSubstr("MulAdd"));
  const auto multiply = [](ModelBuilder &builder) {
    builder.weights("w", {3, 2});
    builder.node("MatMul", {"n", "w"}, {"y"});
  };
  EXPECT_THAT(operations(scaled({"batch", 3}, multiply)), ::testing::Not(mul_add));
  const struct {
    const char *what;
    OnnxDims x;
    std::function<void(ModelBuilder &)> after;
  } cases[] = {
      {"an output", {"batch", 3}, [&](ModelBuilder &b) { multiply(b.output("n")); }},
      {"an activation", {"batch", 3}, [&](ModelBuilder &b) { multiply(b.output("z")), b.node("Relu", {"n"}, {"z"}); }},
      {"an activation of a view", {"batch", 3}, [&](ModelBuilder &b) {
         multiply(b.output("z"));
         b.node("Transpose", {"n"}, {"turned"}), b.node("Relu", {"turned"}, {"z"});
       }},
      {"an activation before the product", {"batch", 3}, [](ModelBuilder &b) {
         b.weights("w", {3, 2});
         b.node("Relu", {"n"}, {"z"}), b.node("MatMul", {"z", "w"}, {"y"});
       }},
      {"a chosen channel", {"batch", 3, 6}, [](ModelBuilder &b) {
         b.scalar("one", 1).weights("w", {6, 2});
         b.node("Transpose", {"n"}, {"turned"}).ints("perm", {0, 2, 1});
         b.node("Gather", {"turned", "one"}, {"part"}).attr("axis", int64_t{2}), b.node("MatMul", {"part", "w"}, {"y"});
       }},
      {"channels backwards", {"batch", 3}, [](ModelBuilder &b) {
         b.weights("w", {3, 2}).integers("begin", {2}).integers("end", {-9}).integers("axes", {1}).integers("step", {-1});
         b.node("Slice", {"n", "begin", "end", "axes", "step"}, {"turned"}), b.node("MatMul", {"turned", "w"}, {"y"});
       }},
      {"picks of channels", {"batch", 3}, [](ModelBuilder &b) {
         b.input("i", {"m", 3, 2}, TensorProto::INT64).weights("w", {3, 2});
         b.node("GatherND", {"n", "i"}, {"picked"}), b.node("MatMul", {"picked", "w"}, {"y"});
       }},
      {"a bias of the run", {"batch", 3}, [](ModelBuilder &b) {
         b.weights("w", {3, 2}).input("b", {2}).node("Gemm", {"n", "w", "b"}, {"y"});
       }},
      {"weights of the run", {"batch", 3}, [](ModelBuilder &b) { b.input("w", {3, 2}).node("MatMul", {"n", "w"}, {"y"}); }},
      {"the matrix", {4, 3}, [](ModelBuilder &b) { b.input("a", {2, 4}).node("MatMul", {"a", "n"}, {"y"}); }},
      {"an initial state", {1, 3, 2}, [](ModelBuilder &b) {
         b.input("s", {5, 2, 3}).weights("w", {1, 3, 3}).weights("r", {1, 3, 3});
         b.node("Transpose", {"n"}, {"h0"}).ints("perm", {0, 2, 1}), b.node("RNN", {"s", "w", "r", "", "", "h0"}, {"y"});
       }},
      {"channels that are rows", {"batch", 3, 3}, multiply},
      {"a layer over another axis", {5, 3, 2}, [](ModelBuilder &b) {
         b.weights("w", {1, 4, 2}).weights("r", {1, 4, 4});
         b.node("RNN", {"n", "w", "r"}, {"y"});
       }},
      {"a choice of channels", {"batch", 3}, [](ModelBuilder &b) {
         b.weights("w", {2, 2}).integers("begin", {1}).integers("end", {3}).integers("axes", {1});
         b.node("Slice", {"n", "begin", "end", "axes"}, {"part"}), b.node("MatMul", {"part", "w"}, {"y"});
       }},
      {"padding", {"batch", 3, 7}, [](ModelBuilder &b) {
         b.weights("w", {2, 3, 3}).node("Conv", {"n", "w"}, {"y"}).ints("pads", {1, 0});
       }},
      {"channels joined behind others", {2, 3, 4}, [](ModelBuilder &b) {
         b.weights("w", {24, 2}).integers("dims", {1, 24});
         b.node("Reshape", {"n", "dims"}, {"row"}), b.node("MatMul", {"row", "w"}, {"y"});
       }},
  };
  for (const auto &c : cases) {
    const Graph graph = scaled(c.x, c.after);
    EXPECT_THAT(operations(graph), mul_add) << c.what;
    EXPECT_THAT(graph.notes, ::testing::IsEmpty()) << c.what;
  }
  const auto overflow = [](ModelBuilder &builder) {
    builder.weights("w", {3, 1}, {1, 1e10f, 1});
    builder.node("MatMul", {"n", "w"}, {"y"});
  };
  EXPECT_THAT(operations(scaled({"batch", 3}, overflow, {1, 1e30f, 1})), mul_add);
}

TEST(Where, IsNoScaling) {
  ModelBuilder builder;
  builder.input("c", {"batch", 3}, TensorProto::BOOL).weights("a", {3}).weights("b", {3}).weights("w", {3, 2}).output("y");
  builder.node("Where", {"c", "a", "b"}, {"n"});
  builder.node("MatMul", {"n", "w"}, {"y"});
  EXPECT_THAT(operations(builder.import()), ElementsAre("Elementwise Where", "Dense 3 -> 2"));
}

TEST(BatchNormalization, TwoInARowBecomePartOfALayer) {
  const Graph graph = scaled({"batch", 3, "time"}, [](ModelBuilder &builder) {
    builder.weights("w", {1, 2, 3}).weights("r", {1, 2, 2});
    builder.node("BatchNormalization", {"n", "scale", "shift", "mean", "variance"}, {"m"}).name("second");
    builder.node("Transpose", {"m"}, {"steps"}).ints("perm", {2, 0, 1});
    builder.node("RNN", {"steps", "w", "r"}, {"y"}).name("rnn");
  });
  EXPECT_THAT(operations(graph), ::testing::Not(::testing::Contains(HasSubstr("MulAdd"))));
  EXPECT_THAT(graph.notes, ElementsAre(HasSubstr("node 'second'"), HasSubstr("node 'bn'")));
}

TEST(Operators, ErrorsNameWhatIsWrong) {
  const struct {
    const char *message;
    std::string error;
  } cases[] = {
      {"shapes [2, 3] and [4] cannot be combined", error_of("Add", {2, 3}, {{4}})},
      {"combines float32 and int64", error_of("Mul", {2}, {{2}}, nullptr, 17, 1, TensorProto::INT64)},
      {"which Sqrt does not take", error_of("Sqrt", {2}, {}, nullptr, 17, 1, TensorProto::INT32)},
      {"which Not does not take", error_of("Not", {2}, {})},
      {"input condition is float32; it must be bool", error_of("Where", {2}, {{2}, {2}})},
      {"'approximate' is 'close'", error_of("Gelu", {2}, {}, [](NodeBuilder &n) { n.attr("approximate", "close"); }, 20)},
      {"attribute 'alpha' is inf", error_of("Celu", {2}, {}, [](NodeBuilder &n) { n.attr("alpha", INFINITY); })},
      {"cannot be broadcast to [2, 3]", error_of("PRelu", {2, 3}, {{4, 1, 1}})},
      {"it must be a scalar", error_of("Clip", {2}, {{2}})},
      {"Clip takes 1 before opset 11", error_of("Clip", {2}, {{}}, nullptr, 10)},
      {"attribute 'to' is missing", error_of("Cast", {2}, {})},
      {"ReduceMax takes 1 before opset 18", error_of("ReduceMax", {2}, {{1}})},
      {"axis 2 is out of range", error_of("ReduceMean", {2, 3}, {}, [](NodeBuilder &n) { n.ints("axes", {2}); })},
      {"dimension 0 is 0: it has no largest", error_of("ArgMax", {0, 3}, {})},
      {"which ReduceSum does not take", error_of("ReduceSum", {2}, {}, nullptr, 17, 1, TensorProto::BOOL)},
      {"which Softmax does not take", error_of("Softmax", {2}, {}, nullptr, 17, 1, TensorProto::INT32)},
      {"'stash_type' is 10", error_of("LayerNormalization", {2, 3}, {{3}},
                                      [](NodeBuilder &n) { n.attr("stash_type", int64_t{10}); })},
      {"one number for each of 3 channels", error_of("BatchNormalization", {2, 3}, {{3}, {4}, {3}, {3}})},
      {"attribute 'training_mode' is not 0",
       error_of("BatchNormalization", {2, 3}, {{3}, {3}, {3}, {3}},
                [](NodeBuilder &n) { n.attr("training_mode", int64_t{1}); })},
      {"'spatial' is not 1", error_of("BatchNormalization", {2, 3}, {{3}, {3}, {3}, {3}},
                                      [](NodeBuilder &n) { n.attr("spatial", int64_t{0}); }, 8)},
      {"output 1 ('y1') is a result of training", error_of("BatchNormalization", {2, 3}, {{3}, {3}, {3}, {3}}, nullptr, 13, 2)},
      {"has 4 channels in 3 groups", error_of("GroupNormalization", {2, 4, 5}, {{4}, {4}},
                                              [](NodeBuilder &n) { n.attr("num_groups", int64_t{3}); }, 21)},
      {"export the model in opset 21", error_of("GroupNormalization", {2, 4, 5}, {{2}, {2}},
                                                [](NodeBuilder &n) { n.attr("num_groups", int64_t{2}); }, 18)},
      {"attribute 'p' is 3", error_of("LpNormalization", {2}, {}, [](NodeBuilder &n) { n.attr("p", int64_t{3}); })},
      {"at least one spatial dimension", error_of("Conv", {2, 3}, {{4, 3}})},
      {"and 2 groups, which do not fit", error_of("Conv", {2, 3, 9}, {{4, 3, 2}},
                                                  [](NodeBuilder &n) { n.attr("group", int64_t{2}); })},
      {"'kernel_shape' is [3], the weights are of [2]",
       error_of("Conv", {2, 3, 9}, {{4, 3, 2}}, [](NodeBuilder &n) { n.ints("kernel_shape", {3}); })},
      {"a window of 2 does not fit", error_of("Conv", {2, 3, 1}, {{4, 3, 2}})},
      {"'strides' has 0; at least 1", error_of("Conv", {2, 3, 9}, {{4, 3, 2}}, [](NodeBuilder &n) { n.ints("strides", {0}); })},
      {"'pads' has 1 numbers; it must have 2",
       error_of("Conv", {2, 3, 9}, {{4, 3, 2}}, [](NodeBuilder &n) { n.ints("pads", {1}); })},
      {"has both pads and auto_pad",
       error_of("Conv", {2, 3, 9}, {{4, 3, 2}}, [](NodeBuilder &n) { n.ints("pads", {1, 1}).attr("auto_pad", "VALID"); })},
      {"'auto_pad' is 'BOTH'", error_of("Conv", {2, 3, 9}, {{4, 3, 2}}, [](NodeBuilder &n) { n.attr("auto_pad", "BOTH"); })},
      {"needs the size of the dynamic dimension 'time'",
       error_of("Conv", {2, 3, "time"}, {{4, 3, 2}},
                [](NodeBuilder &n) { n.ints("strides", {2}).attr("auto_pad", "SAME_UPPER"); })},
      {"one number for each of 4 outputs", error_of("Conv", {2, 3, 9}, {{4, 3, 2}, {3}})},
      {"at most 2 are supported then", error_of("Conv", {1, 2, 4, 4, 4}, {{2, 1, 2, 2, 2}},
                                                [](NodeBuilder &n) { n.attr("group", int64_t{2}); })},
      {"'kernel_shape' is missing", error_of("MaxPool", {2, 3, 9}, {})},
      {"output 1 (Indices) is used", error_of("MaxPool", {2, 3, 9}, {}, [](NodeBuilder &n) { n.ints("kernel_shape", {2}); }, 17, 2)},
      {"'ceil_mode' of the dynamic dimension", error_of("MaxPool", {2, 3, "time"}, {},
                                                        [](NodeBuilder &n) {
                                                          n.ints("kernel_shape", {2}).ints("strides", {2});
                                                          n.attr("ceil_mode", int64_t{1});
                                                        })},
      {"'storage_order' is 1", error_of("MaxPool", {2, 3, 9}, {},
                                        [](NodeBuilder &n) {
                                          n.ints("kernel_shape", {2}).attr("storage_order", int64_t{1});
                                        })},
      {"'mode' is 'wrap'", error_of("Pad", {2}, {}, [](NodeBuilder &n) { n.ints("pads", {1, 1}).attr("mode", "wrap"); }, 10)},
      {"has 1 pads for 1 axes", error_of("Pad", {2}, {}, [](NodeBuilder &n) { n.ints("pads", {1}); }, 10)},
      {"mode 'edge' of a dynamic dimension ('n')",
       error_of("Pad", {"n"}, {}, [](NodeBuilder &n) { n.ints("pads", {1, 1}).attr("mode", "edge"); }, 10)},
      {"at most 1 are supported", error_of("Pad", {2}, {}, [](NodeBuilder &n) { n.ints("pads", {2, 0}).attr("mode", "reflect"); }, 10)},
  };
  for (const auto &test : cases) EXPECT_THAT(test.error, AllOf(HasSubstr("node 'n'"), HasSubstr(test.message)));
}

TEST(Operators, OfConstantsAreFolded) {
  ModelBuilder builder;
  builder.weights("a", {2, 2}, {1, 2, 3, 4}).weights("b", {2, 1}, {10, 20}).integers("axes", {1}).output("y");
  builder.node("Mul", {"a", "b"}, {"m"});
  builder.node("MatMul", {"m", "a"}, {"p"});
  builder.node("ReduceSum", {"p", "axes"}, {"s"});
  builder.node("Sqrt", {"s"}, {"y"});
  const Graph graph = builder.import();
  EXPECT_THAT(operations(graph), ElementsAre("Transpose permutation [0, 1]"));  // the copy to the output
  const Constant &y = *graph.tensor(graph.nodes[0].inputs[0]).constant;
  EXPECT_FLOAT_EQ(y.at<float>(0), std::sqrt(170.f));
  EXPECT_FLOAT_EQ(y.at<float>(1), std::sqrt(740.f));
  ModelBuilder zero;
  zero.tensor("a", {5000}, TensorProto::INT32)->set_raw_data(std::string(20000, '\1'));  // too many for a shape
  zero.tensor("b", {}, TensorProto::INT32)->add_int32_data(0);
  zero.output("y").node("Div", {"a", "b"}, {"y"}).name("n");
  EXPECT_THAT(zero.error(), AllOf(HasSubstr("node 'n' (Div)"), HasSubstr("divided by zero")));
}

// ---- Functions ----

onnx::FunctionProto *add_function(ModelBuilder &builder, const std::string &name, const std::vector<std::string> &inputs,
                                  const std::vector<std::string> &outputs) {
  onnx::FunctionProto *function = builder.model.add_functions();
  function->set_name(name);
  function->set_domain("local");
  for (const std::string &input : inputs) function->add_input(input);
  for (const std::string &output : outputs) function->add_output(output);
  return function;
}

onnx::NodeProto *add_node(onnx::FunctionProto *function, const std::string &type, const std::string &domain,
                          const std::vector<std::string> &inputs, const std::string &output) {
  onnx::NodeProto *node = function->add_node();
  node->set_op_type(type);
  node->set_domain(domain);
  for (const std::string &input : inputs) node->add_input(input);
  node->add_output(output);
  return node;
}

ModelBuilder calls(const std::vector<std::string> &inputs = {"x"}) {
  ModelBuilder builder;
  builder.input("x", {2}).output("y");
  builder.node("f", inputs, {"y"}).name("c").proto()->set_domain("local");
  return builder;
}

TEST(Functions, AreInlined) {
  ModelBuilder builder = calls();
  onnx::FunctionProto *f = add_function(builder, "f", {"a", "b"}, {"r"});  // b is absent at the call
  f->add_attribute("slope");
  onnx::AttributeProto *otherwise = f->add_attribute_proto();
  otherwise->set_name("slope");
  otherwise->set_type(onnx::AttributeProto::FLOAT);
  otherwise->set_f(0.25f);
  add_node(f, "Tanh", "", {"a"}, "t");
  onnx::AttributeProto *alpha = add_node(f, "LeakyRelu", "", {"t"}, "r")->add_attribute();
  alpha->set_name("alpha");
  alpha->set_type(onnx::AttributeProto::FLOAT);
  alpha->set_ref_attr_name("slope");
  EXPECT_THAT(operations(builder.import()), ElementsAre("Elementwise Tanh", "Elementwise LeakyRelu(alpha=0.25)"));
  onnx::AttributeProto *given = builder.graph().mutable_node(0)->add_attribute();
  *given = *otherwise;
  given->set_f(0.5f);
  EXPECT_THAT(operations(builder.import()), ElementsAre("Elementwise Tanh", "Elementwise LeakyRelu(alpha=0.5)"));
}

TEST(Functions, MayReturnTheirInput) {
  ModelBuilder builder = calls();
  add_function(builder, "f", {"a"}, {"a"});
  EXPECT_EQ(builder.error(), "");
}

TEST(Functions, Errors) {
  ModelBuilder recursive = calls();
  add_node(add_function(recursive, "f", {"a"}, {"r"}), "g", "local", {"a"}, "r");
  add_node(add_function(recursive, "g", {"a"}, {"r"}), "f", "local", {"a"}, "r");
  EXPECT_THAT(recursive.error(), AllOf(HasSubstr("function 'f'"), HasSubstr("calls itself")));

  ModelBuilder twice = calls();
  add_function(twice, "f", {"a"}, {"a"});
  add_function(twice, "f", {"a"}, {"a"});
  EXPECT_THAT(twice.error(), HasSubstr("defines function 'f' of domain 'local' twice"));

  ModelBuilder inputs = calls({"x", "x"});
  add_function(inputs, "f", {"a"}, {"a"});
  EXPECT_THAT(inputs.error(), AllOf(HasSubstr("node 'c'"), HasSubstr("it has 2 inputs and 1 outputs, the function has 1")));

  ModelBuilder listed = calls();
  add_function(listed, "f", {"a", "a"}, {"a"});
  EXPECT_THAT(listed.error(), HasSubstr("input 'a' is listed twice"));

  ModelBuilder attribute = calls();
  add_function(attribute, "f", {"a"}, {"a"});
  attribute.graph().mutable_node(0)->add_attribute()->set_name("speed");
  EXPECT_THAT(attribute.error(), HasSubstr("attribute 'speed' is none of the function's"));

  ModelBuilder opset = calls();
  auto *import = add_function(opset, "f", {"a"}, {"a"})->add_opset_import();
  import->set_version(3);
  EXPECT_THAT(opset.error(), HasSubstr("the function is of opset 3"));

  ModelBuilder missing = calls();
  add_node(add_function(missing, "f", {"a"}, {"r"}), "Tanh", "", {"nobody"}, "r");
  EXPECT_THAT(missing.error(), HasSubstr("'c/nobody' is not made"));

  ModelBuilder unsupported = calls();
  add_node(add_function(unsupported, "f", {"a"}, {"r"}), "Det", "", {"a"}, "r")->set_name("inner");
  EXPECT_THAT(unsupported.error(), AllOf(HasSubstr("node 'c/inner' (Det)"), HasSubstr("--extract")));
}

TEST(Functions, ExpansionIsBounded) {
  // 2^40 nodes, and a chain that is too deep.
  ModelBuilder wide = calls(), deep = calls();
  for (int i = 0; i < 100; ++i) {
    const std::string name = i == 0 ? "f" : "f" + std::to_string(i), next = "f" + std::to_string(i + 1);
    onnx::FunctionProto *link = add_function(deep, name, {"a"}, {"r"});
    add_node(link, i == 99 ? "Tanh" : next, i == 99 ? "" : "local", {"a"}, "r");
    if (i > 40) continue;
    onnx::FunctionProto *fork = add_function(wide, name, {"a"}, {"r"});
    const std::string type = i == 40 ? "Tanh" : next, domain = i == 40 ? "" : "local";
    add_node(fork, type, domain, {"a"}, "s");
    add_node(fork, type, domain, {"s"}, "r");
  }
  EXPECT_THAT(wide.error(), HasSubstr("far larger than its file"));
  EXPECT_THAT(deep.error(), HasSubstr("more than 64 deep"));
}

// ---- The recurrent part alone ----

Graph extracted(const ModelBuilder &builder) {
  onnx::ModelProto copy = builder.model;
  return import_onnx(copy, ".", true);
}

std::vector<std::string> names(const Graph &graph, const std::vector<TensorId> &ids) {
  std::vector<std::string> result;
  for (TensorId id : ids) result.push_back(graph.tensor(id).name + " " + graph.dims_text(id));
  return result;
}

ModelBuilder layers() {
  ModelBuilder builder;
  builder.input("sound", {"batch", "n"}).input("unused", {1});
  builder.weights("w", {1, 15, 4}).weights("r", {1, 15, 5}).weights("w2", {1, 15, 5});
  return builder;
}

TEST(Extraction, TakesWhatSurroundsTheLayer) {
  ModelBuilder builder = layers();
  builder.node("Front", {"sound"}, {"x"}).name("front").proto()->set_domain("com.example");
  builder.node("GRU", {"x", "w", "r"}, {"y", "yh"}).attr("hidden_size", int64_t{5});
  builder.node("Tanh", {"yh"}, {"t"});
  builder.node("Head", {"t"}, {"found"}).name("head").proto()->set_domain("com.example");
  builder.node("Relu", {"found"}, {"more"}).name("after");
  builder.output("more").output("yh");
  const Graph graph = extracted(builder);
  EXPECT_THAT(names(graph, graph.inputs), ElementsAre("x [x.dim0, x.dim1, 4]"));
  EXPECT_THAT(names(graph, graph.outputs), ElementsAre("yh [1, x.dim1, 5]", "t [1, x.dim1, 5]"));
  EXPECT_THAT(graph.warnings, ElementsAre(AllOf(HasSubstr("left out: node 'front'"), HasSubstr("com.example")),
                                          HasSubstr("node 'head'"), HasSubstr("node 'after'")));
}

TEST(Extraction, KnowsDeclaredShapesOfWhatEnters) {
  ModelBuilder builder = layers();
  builder.node("Front", {"sound"}, {"rows"}).name("front").proto()->set_domain("com.example");
  builder.node("Transpose", {"rows"}, {"x"}).ints("perm", {1, 0, 2});
  builder.node("GRU", {"x", "w", "r"}, {"", "yh"}).attr("hidden_size", int64_t{5});
  builder.output("yh");
  EXPECT_THAT(names(extracted(builder), extracted(builder).inputs), ElementsAre("x [x.dim0, x.dim1, 4]"));
  ModelBuilder helper;
  helper.input("rows", {"batch", "time", 4});
  *builder.graph().add_value_info() = helper.graph().input(0);
  const Graph graph = extracted(builder);
  EXPECT_THAT(names(graph, graph.inputs), ElementsAre("rows [batch, time, 4]"));
}

// An input must not depend on an output: the second layer is left out with what stands before it.
TEST(Extraction, StopsAtWhatIsLeftOut) {
  ModelBuilder builder = layers();
  builder.input("x", {"time", "batch", 4});
  builder.node("GRU", {"x", "w", "r"}, {"", "yh"}).attr("hidden_size", int64_t{5});
  builder.node("Between", {"yh"}, {"x2"}).proto()->set_domain("com.example");
  builder.node("GRU", {"x2", "w2", "r"}, {"", "yh2"}).name("second").attr("hidden_size", int64_t{5});
  builder.output("yh2");
  const Graph graph = extracted(builder);
  EXPECT_THAT(names(graph, graph.inputs), ElementsAre("x [time, batch, 4]"));
  EXPECT_THAT(names(graph, graph.outputs), ElementsAre("yh [1, batch, 5]"));
  EXPECT_THAT(graph.warnings.back(), HasSubstr("node 'second'"));
}

TEST(Extraction, NeedsALayer) {
  ModelBuilder builder;
  builder.input("x", {2}).output("y");
  builder.node("Det", {"x"}, {"y"}).name("n");
  EXPECT_THROW(extracted(builder), ModelError);
  ModelBuilder whole = layers();  // nothing is left out
  whole.input("x", {"time", "batch", 4});
  whole.node("GRU", {"x", "w", "r"}, {"y"}).attr("hidden_size", int64_t{5});
  whole.output("y");
  EXPECT_THAT(extracted(whole).warnings, ElementsAre());
}

}  // namespace
}  // namespace hrnn::test
